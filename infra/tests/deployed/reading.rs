//! The documents' commands for deployment and operation, as printed.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
    slice::from_ref,
};

use anyhow::{Context, bail, ensure};
use documents::{Block, Document};
use infra::{
    binaries::{FUNCTIONS, zip_of},
    cloud::BUCKET,
    python::PythonTools,
    queue,
    workspace::Workspace,
};
use serde_json::json;
use tempfile::TempDir;
use tokio::process::Command;

use crate::{
    command::{Output, SECRET, isolate, run},
    testbed::{Testbed, terminal},
};

/// A shell in a folder like the project's. Its `cargo` skips the release build, which takes minutes and a cross compiler.
pub(crate) struct Shell {
    pub(crate) testbed: Testbed,
    pub(crate) folder: TempDir,
}

impl Shell {
    pub(crate) async fn start() -> anyhow::Result<Self> {
        let testbed = Testbed::start().await?;
        let workspace = Workspace::locate()?;
        let release = testbed.release.path().to_owned();
        Self::with_templates(testbed, &workspace.file("infra/template.yaml"), &release)
    }

    /// Starts a shell with other templates: the source, and the one in a release folder.
    fn with_templates(testbed: Testbed, source: &Path, release: &Path) -> anyhow::Result<Self> {
        let folder = TempDir::new()?;
        let zips = FUNCTIONS.map(|function| {
            (format!("target/lambda/{function}/bootstrap.zip"), zip_of(testbed.release.path(), function))
        });
        let others = [
            ("infra/template.yaml".to_owned(), source.to_owned()),
            ("tests".to_owned(), Workspace::locate()?.file("tests")),
        ];
        for (name, leads_to) in zips.into_iter().chain(others) {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().context("a path without a folder")?)?;
            symlink(leads_to, path)?;
        }
        let cargo = format!(
            "#!/bin/sh\ncase \"$1 $2\" in\n\
             'infra deploy') set -- \"$@\" --zips '{}' ;;\n\
             'lambda build') exit ;;\n\
             esac\n\
             [ \"$1\" = infra ] && shift && exec '{}' \"$@\"\n",
            release.display(),
            env!("CARGO_BIN_EXE_infra")
        );
        let path = folder.path().join("bin/cargo");
        fs::create_dir(folder.path().join("bin"))?;
        fs::write(&path, cargo)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
        Ok(Self { testbed, folder })
    }

    /// Runs blocks of commands, with a text on standard input for the first command that reads it.
    pub(crate) async fn paste(&self, blocks: &[Block], input: &str) -> anyhow::Result<Output> {
        let mut bash = Command::new("bash");
        bash.arg("-x");
        self.run(bash, blocks, input).await
    }

    /// Runs blocks of commands in a terminal, and types the answers: question, answer, whether it is hidden.
    pub(crate) async fn type_in(&self, blocks: &[Block], answers: &[(&str, &str, bool)]) -> anyhow::Result<Output> {
        let mut bash = terminal(answers)?;
        bash.arg("bash");
        self.run(bash, blocks, "").await
    }

    async fn run(&self, mut bash: Command, blocks: &[Block], input: &str) -> anyhow::Result<Output> {
        let commands: String = blocks.iter().map(|block| block.text.as_str()).collect();
        let commands = commands.replace("YOUR-BUCKET", BUCKET);
        bash.args(["-e", "-u", "-c", &commands]).current_dir(&self.folder).kill_on_drop(true);
        let settings = self.testbed.settings();
        let tools = PythonTools::for_local_stack(&Workspace::locate()?)?.programs();
        let ours = self.folder.path().join("bin");
        isolate(&mut bash, &[&ours, &tools, Path::new("/usr/bin"), Path::new("/bin")], &settings)?;
        run(bash, input).await
    }
}

#[tokio::test]
async fn the_commands_of_the_documents_have_the_documented_effects() -> anyhow::Result<()> {
    let shell = Shell::start().await?;
    shell.testbed.deploy(&["--parameter", "Events=WorkbookCreated,ViewDeleted"]).await?.succeeded(&[])?;
    sites_are_added_as_documented(&shell).await?;

    let replay = documents::commands("docs/operations.md", "Events that were not published")?;
    shell.paste(&replay, "").await?.succeeded(&["Nothing to publish."])?;
    let upgrade = documents::commands("docs/upgrading.md", "Updating a stack")?;
    shell.paste(&upgrade, "").await?.succeeded(&["its state is CREATE_COMPLETE", "✓ Every test succeeded"])?;
    // Each block reverses the block before it.
    let switching = documents::commands("docs/operations.md", "Switching off")?;
    shell
        .paste(&switching, "")
        .await?
        .succeeded(&["\"ReservedConcurrentExecutions\": 0", "\"ReservedConcurrentExecutions\": 1"])?;
    assert_eq!(shell.testbed.webhooks().len(), 4);
    a_site_is_removed_as_documented(&shell).await?;
    let erasure = documents::commands("docs/privacy.md", "Erasing a site")?;
    shell.paste(&erasure, "").await?.succeeded(&["The stack is deployed."])?;
    assert_eq!(shell.testbed.webhooks().len(), 2);
    everything_is_removed_as_documented(&shell).await
}

/// Removes `marketing` with the command, and by hand after it was added again.
async fn a_site_is_removed_as_documented(shell: &Shell) -> anyhow::Result<()> {
    let removal = documents::commands("docs/sites.md", "Removing a site")?;
    let [with_command, by_hand] = removal.as_slice() else { bail!("{removal:?}") };
    shell.paste(from_ref(with_command), "").await?.succeeded(&["marketing is removed."])?;
    assert_eq!(shell.testbed.webhooks().len(), 2);
    shell.testbed.add_site(&[]).await?.succeeded(&[])?;
    assert_eq!(shell.testbed.webhooks().len(), 4);
    shell.paste(from_ref(by_hand), "").await?.succeeded(&["1 site is without any webhook of ours."])?;
    Ok(())
}

/// Renews the token of `marketing`, adds another site from a file, lists both, and asks for the plan.
async fn sites_are_added_as_documented(shell: &Shell) -> anyhow::Result<()> {
    let (testbed, folder) = (&shell.testbed, shell.folder.path());
    // `--overwrite` needs no existing entry.
    let renew = documents::commands("docs/sites.md", "Renew it")?;
    let managed = "The schedule now manages the webhooks of";
    shell.paste(&renew, &testbed.entry().to_string()).await?.succeeded(&[&format!("{managed} marketing")])?;
    assert_eq!(testbed.webhooks().len(), 2);

    testbed.tableau.simulator.world().add_site("fin", "fanout", SECRET);
    let mut finance = testbed.entry();
    finance["site"] = json!("fin");
    finance["name"] = json!("finance");
    let recipe = documents::commands("docs/recipes.md", "Thirty sites from a file")?;
    let [create, add] = recipe.as_slice() else { bail!("{recipe:?}") };
    shell.paste(from_ref(create), "").await?.succeeded(&[])?;
    let file = folder.join("sites.csv");
    assert_eq!(fs::metadata(&file)?.permissions().mode() & 0o777, 0o600);
    fs::write(&file, json!([finance, { "name": "sales" }]).to_string())?;
    shell.paste(from_ref(add), "").await?.failed(&["1 of 2 sites are not stored"])?;
    fs::write(&file, json!([finance]).to_string())?;
    shell.paste(from_ref(add), "").await?.succeeded(&[&format!("{managed} 1 site")])?;
    ensure!(!file.exists(), "the file with the tokens is left");
    let list = documents::commands("docs/sites.md", "List the sites")?;
    shell.paste(&list, "").await?.succeeded(&["✓ finance ", "/tableau-fanout/sites/finance"])?;
    let choice = documents::commands("docs/sites.md", "Choose the events of a site")?;
    shell.paste(&choice, "").await?.succeeded(&["+ tableau-fanout-WorkbookRefreshFailed"])?;
    a_monitor_reports_only_what_is_wrong(shell).await?;
    let whole = r#"{"events":null}"#;
    testbed.infra_with(&["add-site", "marketing", "--overwrite"], whole).await?.succeeded(&[])?;
    let asking = documents::commands("docs/sites.md", "Run the reconciler")?;
    shell.paste(&asking, "").await?.succeeded(&["0 changes at 0 of 1 site. Nothing was done."])?;
    Ok(())
}

/// Runs the command of a monitor before and after somebody is subscribed to alerts.
async fn a_monitor_reports_only_what_is_wrong(shell: &Shell) -> anyhow::Result<()> {
    let monitor = documents::commands("docs/recipes.md", "Is it working?")?;
    shell.paste(&monitor, "").await?.succeeded(&["nobody is subscribed to events or alerts"])?;
    let topic = "sns list-topics --query Topics[?ends_with(TopicArn,'alerts')].TopicArn|[0]";
    let topic = shell.testbed.aws(topic).await?;
    let queue = queue::create(&shell.testbed.cloud.aws, "alerts").await?;
    let topic = topic.as_str().context("no topic")?;
    queue::subscribe(&shell.testbed.cloud.aws, &queue, topic, &json!({})).await?;
    let quiet = shell.paste(&monitor, "").await?.succeeded(&[])?;
    ensure!(quiet.stdout.is_empty(), "{}", quiet.stdout);
    Ok(())
}

/// Sets up the access to a private server, and removes the stack by hand, with all that it would keep.
async fn everything_is_removed_as_documented(shell: &Shell) -> anyhow::Result<()> {
    fs::write(shell.folder.path().join("ca.pem"), "a certificate")?;
    let authority = documents::commands("docs/private-servers.md", "A private certificate authority")?;
    shell.paste(&authority, "").await?.succeeded(&[])?;
    let private = [
        documents::commands("docs/private-servers.md", "Through a VPC")?,
        documents::commands("docs/private-servers.md", "Through a proxy")?,
    ];
    let parameters = "ssm get-parameters-by-path --path /tableau-fanout --recursive --query Parameters[].Name";
    let kept = ["signing-keys", "sites/finance", "tableau-ca"].map(|parameter| format!("/tableau-fanout/{parameter}"));
    assert_eq!(shell.testbed.aws(parameters).await?, json!(kept));
    let removal = documents::commands("docs/removing.md", "Remove by hand")?;
    shell.paste(&removal, "").await?.succeeded(&["1 site is without any webhook of ours.", "PendingDeletion"])?;
    assert_eq!(shell.testbed.webhooks(), [""; 0]);
    assert_eq!(shell.testbed.aws(parameters).await?, json!([]));
    assert_eq!(
        shell.testbed.aws("cloudformation list-stacks --query StackSummaries[?StackStatus!='DELETE_COMPLETE']").await?,
        json!([])
    );
    // The simulated Tableau is behind neither, so another stack gets them.
    shell.testbed.deploy(&[]).await?.succeeded(&[])?;
    shell.paste(&private.concat(), "").await?.succeeded(&["the reconciler will be in a VPC"])?;
    Ok(())
}

/// Size of a template beyond CloudFormation's limit for a request, which is 51,200 bytes.
const PADDED_BYTES: usize = 60_000;

/// Returns a template with metadata that fill it up to [`PADDED_BYTES`].
fn padded(template: &Path) -> anyhow::Result<String> {
    let template = fs::read_to_string(template)?;
    // Packaging removes comments.
    let padding = "x".repeat(PADDED_BYTES.saturating_sub(template.len()));
    let template = template.replacen("\nMetadata:\n", &format!("\nMetadata:\n  Padding: {padding}\n"), 1);
    ensure!(template.len() > PADDED_BYTES, "{} bytes", template.len());
    Ok(template)
}

#[tokio::test]
async fn every_command_deploys_a_template_that_exceeds_the_size_of_a_request() -> anyhow::Result<()> {
    let (testbed, folder) = (Testbed::start().await?, TempDir::new()?);
    let source = folder.path().join("template.yaml");
    fs::write(&source, padded(&Workspace::locate()?.file("infra/template.yaml"))?)?;
    let release = testbed.folder_with(&padded(&testbed.release.template())?)?;
    // The local cloud has AWS's limit.
    let body = format!("file://{}", source.display());
    let refused = testbed.cloud.aws.run(&["cloudformation", "validate-template", "--template-body", &body]).await;
    let refused = format!("{:#}", refused.err().context("the cloud accepts it in a request")?);
    ensure!(refused.contains("Member must have length less than or equal to 51200"), "{refused}");

    let shell = Shell::with_templates(testbed, &source, release.path())?;
    let with_cargo = documents::commands("docs/deploying.md", "With the tool")?;
    // The walk takes it too, with a build.
    let by_hand = Document::read("docs/deploying.md")?.section("The source by hand")?.blocks.first().cloned();
    let mut by_hand = by_hand.context("no commands by hand")?;
    let endpoint = &shell.testbed.cloud.endpoint;
    let architecture = shell.testbed.release.architecture();
    let overrides = format!(" --parameter-overrides Architecture={architecture} AwsEndpointUrl={endpoint}\n");
    by_hand.text = by_hand.text.trim_end().to_owned() + &overrides;

    shell.paste(&with_cargo, "").await?.succeeded(&["will be created", "The stack is deployed."])?;
    shell.paste(&with_cargo, "").await?.succeeded(&["will be updated", "The stack is deployed."])?;
    shell.testbed.infra(&["status"]).await?.failed(&["CREATE_COMPLETE, account", "✗ nobody is subscribed"])?;
    shell.testbed.infra(&["destroy", "--yes"]).await?.succeeded(&["is deleted."])?;
    shell.paste(from_ref(&by_hand), "").await?.succeeded(&[])?;
    shell.testbed.infra(&["status"]).await?.failed(&["CREATE_COMPLETE, account", "✗ nobody is subscribed"])?;
    Ok(())
}
