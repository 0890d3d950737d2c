//! The documents' commands about targets, as printed, with a service on this machine in place of each real one.

use std::{fs, os::unix::fs::symlink, slice::from_ref, time::Duration};

use anyhow::{Context, bail, ensure};
use documents::{Block, Document};
use futures_util::future::try_join_all;
use infra::workspace::Workspace;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::{
    command::{Output, SECRET},
    reading::Shell,
    sink::Sink,
};

/// How long a message may take to the dead letters.
const DEAD_LETTER_TIMEOUT: Duration = Duration::from_secs(60);

/// A reader of the pages, and the service that plays the targets.
struct Reader {
    shell: Shell,
    sink: Sink,
}

/// The path of a target at the service. It is a secret, which no output may have.
fn path(name: &str) -> String {
    format!("{name}/{SECRET}")
}

/// Returns the first JSON of a section.
fn json_of(document: &str, heading: &str) -> anyhow::Result<Value> {
    let document = Document::read(document)?;
    let blocks = &document.section(heading)?.blocks;
    let block = blocks.iter().find(|block| block.language == "json").context("no JSON")?;
    Ok(serde_json::from_str(&block.text)?)
}

impl Reader {
    async fn start() -> anyhow::Result<Self> {
        let (shell, sink, workspace) = (Shell::start().await?, Sink::start().await?, Workspace::locate()?);
        for name in ["infra/target.yaml", "infra/examples"] {
            symlink(workspace.file(name), shell.folder.path().join(name))?;
        }
        shell.testbed.deploy(&["--parameter", "RecoverHours=0"]).await?.succeeded(&[])?;
        Ok(Self { shell, sink })
    }

    /// Runs commands that add a target, with members of its entry on standard input. Returns the sample that arrived.
    async fn add(&self, name: &str, commands: &[Block], mut members: Value) -> anyhow::Result<Value> {
        members["address"] = json!(self.sink.address(&path(name)));
        let printed = self.shell.paste(commands, &members.to_string()).await?;
        self.sample(name, printed)
    }

    /// The same in a terminal, in which credentials are asked for after the address.
    async fn type_in(
        &self,
        name: &str,
        commands: &[Block],
        credentials: &[(&str, &str, bool)],
    ) -> anyhow::Result<Value> {
        let address = self.sink.address(&path(name));
        let address = ("Address of the target, https://… (not shown): ", address.as_str(), true);
        let printed = self.shell.type_in(commands, &[from_ref(&address), credentials].concat()).await?;
        self.sample(name, printed)
    }

    fn sample(&self, name: &str, printed: Output) -> anyhow::Result<Value> {
        printed.succeeded(&[&format!("The target {name} gets ")])?;
        self.sink.received(&path(name)).pop().with_context(|| format!("no sample for {name}"))
    }

    /// Names of the targets.
    async fn names(&self) -> anyhow::Result<Vec<String>> {
        let listed = self.shell.testbed.infra(&["targets", "--json"]).await?.succeeded(&[])?;
        let listed: Vec<Value> = serde_json::from_str(&listed.stdout)?;
        Ok(listed.iter().filter_map(|target| target["name"].as_str().map(str::to_owned)).collect())
    }
}

/// An alert about a failed refresh.
fn alert() -> Value {
    json!({
        "kind": "refresh-failed", "severity": "error", "title": "workbook refresh failed: Sales", "text": "It failed.",
        "next_steps": [], "links": [], "sites": ["marketing"], "thread": "marketing/1", "resolved": false, "event_id": "1",
    })
}

#[tokio::test]
async fn the_pages_about_targets_lead_to_a_message_of_each_preset() -> anyhow::Result<()> {
    let reader = Reader::start().await?;
    let readme = documents::commands("README.md", "Slack in two commands")?;
    reader.add("team-slack", &readme, json!({})).await?;
    let removal = documents::commands("docs/targets.md", "Remove a target")?;
    let confirmation = ("Type the target's name to remove it: ", "team-slack", false);
    reader.shell.type_in(&removal, &[confirmation]).await?.succeeded(&["team-slack is removed."])?;

    let plain = documents::commands("docs/targets.md", "Any HTTPS address")?;
    let [plain, secret] = plain.as_slice() else { bail!("{plain:?}") };
    let secret = reader.shell.paste(from_ref(secret), "").await?.succeeded(&[])?.stdout;
    let key = json!({ "type": "body", "member": "routing_key", "value": SECRET });
    let slack = documents::commands("docs/targets.md", "Slack")?;
    let teams = documents::commands("docs/targets.md", "Microsoft Teams")?;
    let pagerduty = documents::commands("docs/targets.md", "PagerDuty")?;
    let zapier = documents::commands("docs/targets.md", "Zapier")?;
    let ifttt = documents::commands("docs/targets.md", "IFTTT")?;
    let coefficient = documents::commands("docs/targets.md", "Coefficient")?;
    let [slack, teams, pagerduty, zapier, ifttt, coefficient, plain] = try_join_all([
        reader.add("team-slack", &slack, json!({})),
        reader.add("team-teams", &teams, json!({})),
        reader.add("on-call", &pagerduty, json!({ "credentials": key })),
        reader.add("zap", &zapier, json!({})),
        reader.add("phone", &ifttt, json!({})),
        reader.add("sheet", &coefficient, json!({})),
        reader.add("my-program", from_ref(plain), json!({ "signing_secret": secret.trim() })),
    ])
    .await?
    .try_into()
    .ok()
    .context("seven samples")?;
    assert!(slack["blocks"].is_array() && teams["attachments"].is_array(), "{slack} {teams}");
    assert_eq!((&pagerduty["event_action"], &coefficient), (&json!("resolve"), &json!({ "messages": 1 })));
    assert!(zapier["title"].is_string() && ifttt["value1"].is_string(), "{zapier} {ifttt}");
    assert_eq!(plain["specversion"], "1.0");
    let names = ["my-program", "on-call", "phone", "sheet", "team-slack", "team-teams", "zap"];
    assert_eq!(reader.names().await?, names);
    dead_letters_are_handled_as_documented(&reader).await
}

/// Lets an alert for `team-slack` become a dead letter, and sends it again.
async fn dead_letters_are_handled_as_documented(reader: &Reader) -> anyhow::Result<()> {
    let Reader { shell, sink } = reader;
    sink.answer(422)?;
    let queue = "sqs get-queue-url --queue-name tableau-fanout-target-team-slack --query QueueUrl";
    let queue = shell.testbed.aws(queue).await?;
    let (queue, alert) = (queue.as_str().context("no queue")?, alert().to_string());
    let send = ["sqs", "send-message", "--queue-url", queue, "--message-body", &alert];
    shell.testbed.cloud.aws.run(&send).await?;
    let commands = documents::commands("docs/target-operations.md", "Dead letters")?;
    let [receive, redrive] = commands.as_slice() else { bail!("{commands:?}") };
    let start = Instant::now();
    while !shell.paste(from_ref(receive), "").await?.stdout.contains("the target answered 422") {
        ensure!(start.elapsed() < DEAD_LETTER_TIMEOUT, "there is no dead letter");
        sleep(Duration::from_millis(200)).await;
    }
    sink.answer(200)?;
    let before = sink.received(&path("team-slack")).len();
    shell.paste(from_ref(redrive), "").await?.succeeded(&["✓ Sent 1 message of team-slack again."])?;
    sink.wait_for(&path("team-slack"), before + 1).await?;
    Ok(())
}

#[tokio::test]
async fn the_templates_and_the_way_by_hand_lead_to_a_message() -> anyhow::Result<()> {
    let reader = Reader::start().await?;
    let jira = documents::commands("docs/custom-targets.md", "Jira Cloud")?;
    let servicenow = documents::commands("docs/custom-targets.md", "ServiceNow")?;
    let github = documents::commands("docs/custom-targets.md", "GitHub")?;
    let basic = [("User: ", "jane@example.com", false), ("Password (not shown): ", SECRET, true)];
    let jira = reader.type_in("jira", &jira, &basic).await?;
    let servicenow = reader.type_in("servicenow", &servicenow, &basic).await?;
    let github = reader.type_in("github", &github, &[("Token (not shown): ", SECRET, true)]).await?;
    let summary = "why the workbook refresh failed: Sample of Tableau Fanout";
    assert_eq!((&jira["fields"]["summary"], &servicenow["short_description"]), (&json!(summary), &json!(summary)));
    assert_eq!(github["event_type"], "tableau-refresh-explained");

    let apps_script = documents::commands("docs/custom-targets.md", "Google Apps Script")?;
    let mut entry = json_of("docs/custom-targets.md", "Google Apps Script")?;
    entry["address"] = json!(reader.sink.address(&path("apps-script")));
    let file = reader.shell.folder.path().join("target.json");
    fs::write(&file, entry.to_string())?;
    let printed = reader.shell.paste(&apps_script, "").await?;
    assert_eq!(reader.sample("apps-script", printed)?["row"][4], summary);
    ensure!(!file.exists(), "the file with the key is left");
    a_target_is_added_and_removed_by_hand(&reader).await
}

async fn a_target_is_added_and_removed_by_hand(reader: &Reader) -> anyhow::Result<()> {
    let Reader { shell, sink } = reader;
    let mut entry = json_of("docs/target-operations.md", "By hand")?;
    entry["address"] = json!(sink.address(&path("by-hand")));
    fs::write(shell.folder.path().join("target.json"), entry.to_string())?;
    let topics = documents::commands("docs/recipes.md", "The topics")?;
    let commands = documents::commands("docs/target-operations.md", "By hand")?;
    let [add, remove] = commands.as_slice() else { bail!("{commands:?}") };
    shell.paste(&[topics.as_slice(), from_ref(add)].concat(), "").await?.succeeded(&[])?;
    assert_eq!(reader.names().await?, ["apps-script", "by-hand", "github", "jira", "servicenow"]);

    let topic = "sns list-topics --query Topics[?ends_with(TopicArn,'alerts')].TopicArn|[0]";
    let topic = shell.testbed.aws(topic).await?;
    let message = json!({ "default": "x", "sqs": alert().to_string() }).to_string();
    let publish = ["sns", "publish", "--topic-arn", topic.as_str().context("no topic")?, "--message-structure", "json"];
    shell.testbed.cloud.aws.run(&[&publish[..], &["--message", &message]].concat()).await?;
    let received = sink.wait_for(&path("by-hand"), 1).await?;
    ensure!(received[0]["text"].as_str().is_some_and(|text| text.contains("refresh failed: Sales")), "{received:?}");
    shell.paste(from_ref(remove), "").await?.succeeded(&[])?;
    assert_eq!(reader.names().await?, ["apps-script", "github", "jira", "servicenow"]);
    Ok(())
}
