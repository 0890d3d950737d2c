//! Upgrades of a stack in use, from the latest release in git's history to the present state: one that fails and is rolled
//! back, one that succeeds, and the way back.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use anyhow::{Context, ensure};
use end_to_end::{declared::site, local_stack::LocalStack, previous};
use futures_util::join;
use infra::{
    reconciler::{self, Answer},
    stack::Stack,
    state_table,
    workspace::Workspace,
};
use serde_json::{Value, json};
use shared::{
    problems::{ProblemKey, ProblemKind, Problems},
    refreshes::window::SETTLED,
    state::SiteState,
};
use tableau_simulator::{
    control::NewRefresh,
    delivery::Delivery,
    model::{Job, RefreshKind, RefreshOutcome},
};
use tempfile::NamedTempFile;
use time::{Duration, OffsetDateTime};

use crate::subscribing::in_queues;

/// A site that works.
const HEALTHY: &str = "finance";

/// A site whose token is refused.
const REFUSED: &str = "marketing";

/// The events of each site. The webhook of one of the last four is disabled before each run.
const EVENTS: [&str; 6] = [
    "WorkbookCreated",
    "DatasourceRefreshFailed",
    "DatasourceRefreshSucceeded",
    "WorkbookRefreshFailed",
    "WorkbookRefreshStarted",
    "WorkbookRefreshSucceeded",
];

/// A resource that CloudFormation cannot create, after everything else was updated.
const IMPOSSIBLE: &str = "
  Impossible:
    Type: AWS::S3::AccessPoint
    DependsOn: [Receiver, Reconciler, ReconcilerSchedule]
    Properties:
      Bucket: not-there
";

/// The code and the configuration of a function, without what every update changes.
const CONFIGURATION: &str =
    "[CodeSha256, Environment, Role, Architectures, MemorySize, Timeout, LoggingConfig, TracingConfig]";

/// A stack whose events and alerts are collected.
struct Upgrade {
    stack: LocalStack,
    /// Number of deliveries so far.
    count: Cell<usize>,
    /// Number of attempts that failed.
    failed_attempts: Cell<usize>,
    /// Identifiers of the accepted deliveries.
    accepted: RefCell<BTreeSet<String>>,
    /// Refreshes that were missed, with their events.
    missed: BTreeMap<String, String>,
    /// The webhooks that the first run created.
    registrations: Vec<Registration>,
}

/// The identifier and the URL of a webhook, and whether it is enabled.
type Registration = (String, String, bool);

/// The parts of a deployment that an upgrade must keep.
#[derive(Debug, PartialEq)]
struct Kept {
    registrations: Vec<Registration>,
    parameters: Value,
    state: Value,
}

impl Upgrade {
    /// Deploys a template and declares both sites.
    async fn start(template: &Path) -> anyhow::Result<Self> {
        let stack = LocalStack::of_template(template).await?;
        for name in [HEALTHY, REFUSED] {
            stack.declare(name, &EVENTS).await?;
        }
        for (output, queue) in [("EventsTopicArn", "events"), ("AlertsTopicArn", "alerts")] {
            stack.cloud.subscribe_queue_to(stack.stack.output(output)?, queue, &json!({})).await?;
        }
        stack.cloud.apply(&stack.stack).await?;
        site(&stack.tableau, REFUSED, |site| site.tokens.clear())?;
        let mut upgrade = Self {
            stack,
            count: Cell::default(),
            failed_attempts: Cell::default(),
            accepted: RefCell::default(),
            missed: BTreeMap::new(),
            registrations: Vec::new(),
        };
        upgrade.registrations = upgrade.registrations();
        assert_eq!(upgrade.registrations.len(), 2 * EVENTS.len());
        Ok(upgrade)
    }

    /// Lets one event happen at each site, and an extract refresh fail.
    async fn deliver(&self) -> anyhow::Result<()> {
        let number = self.count.replace(self.count.get() + 1);
        let tableau = &self.stack.tableau.simulator;
        let (event, name) = ("WorkbookCreated".parse()?, format!("Sales \"{number}\" 📈"));
        let body = json!({ "event_type": event, "resource": "WORKBOOK", "resource_luid": "99", "resource_name": name });
        let body = body.to_string();
        let refresh = json!({ "site": HEALTHY, "kind": "datasource", "name": name, "outcome": "failed" });
        let refresh: NewRefresh = serde_json::from_value(refresh)?;
        let (first, second, refreshed) = join!(
            tableau.fire(HEALTHY, &event, &body, 1),
            tableau.fire(REFUSED, &event, &body, 1),
            tableau.refresh(&refresh)
        );
        let (_, third) = refreshed.context("no such site")?;
        for deliveries in [first, second, third] {
            self.note(&deliveries)?;
        }
        Ok(())
    }

    /// Notes the identifier of a delivery, which must have been accepted.
    fn note(&self, deliveries: &[Delivery]) -> anyhow::Result<()> {
        let [Delivery { attempts, .. }] = deliveries else { anyhow::bail!("not one delivery: {deliveries:?}") };
        let accepted = attempts.iter().rfind(|attempt| attempt.succeeded());
        let accepted = accepted.with_context(|| format!("not accepted: {attempts:?}"))?;
        let answer: Value = serde_json::from_str(&accepted.body)?;
        self.accepted.borrow_mut().insert(answer["id"].as_str().context("an answer without an id")?.to_owned());
        self.failed_attempts.set(self.failed_attempts.get() + attempts.len() - 1);
        Ok(())
    }

    /// Delivers one after another until some work has ended.
    async fn deliver_during<T>(&self, work: impl Future<Output = T>) -> anyhow::Result<T> {
        let (is_over, before) = (Cell::new(false), self.count.get());
        let work = async {
            let result = work.await;
            is_over.set(true);
            result
        };
        let deliver = async {
            while !is_over.get() {
                self.deliver().await?;
            }
            anyhow::Ok(())
        };
        let (result, delivered) = join!(work, deliver);
        delivered?;
        ensure!(self.count.get() - before > 5, "too few deliveries");
        Ok(result)
    }

    /// Lets Tableau disable the healthy site's webhook for an event and miss a refresh, then runs the reconciler.
    async fn miss_and_run(&mut self, event: &str) -> anyhow::Result<()> {
        self.stack.make_state_older(Duration::minutes(10)).await?;
        let ended_at = OffsetDateTime::now_utc() - SETTLED - Duration::minutes(1);
        let has_failed = event.ends_with("Failed");
        let job = Job {
            id: format!("job-of-{event}"),
            kind: if event.starts_with("Workbook") { RefreshKind::Workbook } else { RefreshKind::Datasource },
            luid: format!("luid-of-{event}"),
            name: format!("missed {event}"),
            outcome: if has_failed { RefreshOutcome::Failed } else { RefreshOutcome::Succeeded },
            is_incremental: false,
            is_via_bridge: false,
            started_at: ended_at - Duration::minutes(1),
            ended_at,
            notes: has_failed.then(|| "Login failed for user 'etl'.".to_owned()),
        };
        self.missed.insert(job.name.clone(), event.to_owned());
        let name = format!("{}-{event}", self.stack.stack.name());
        site(&self.stack.tableau, HEALTHY, |site| {
            site.webhooks.iter_mut().filter(|webhook| webhook.name == name).for_each(|webhook| webhook.disable(None));
            site.jobs.push(job);
        })?;
        let before = self.problems().await?;
        match reconciler::invoke(&self.stack.cloud.aws, &self.stack.stack, "apply", &[]).await? {
            Answer::Failure { kind, text } => {
                ensure!(kind == "SitesFailed" && text.contains(REFUSED), "{kind}: {text}");
            }
            Answer::Report(report) => anyhow::bail!("the token is not refused: {report}"),
        }
        assert_eq!(self.registrations(), self.registrations);
        let after = self.problems().await?;
        ensure!(after.keys().eq([&ProblemKey { kind: ProblemKind::TokenRefused, event: None }]), "{after:?}");
        // It has not begun again.
        ensure!(before.is_empty() || before == after, "before: {before:?}, after: {after:?}");
        let healthy = self.state(HEALTHY).await?.refreshes.context("no state of refreshes")?;
        for event in self.missed.values() {
            ensure!(healthy.is_handled(&format!("job-of-{event}")), "{event}: {healthy:?}");
        }
        Ok(())
    }

    /// Reads the state of a site as the present release reads it.
    async fn state(&self, site: &str) -> anyhow::Result<SiteState> {
        let table = self.stack.stack.output("StateTableName")?;
        let state = state_table::sites(&self.stack.cloud.aws, table).await?.states.remove(site).flatten();
        state.with_context(|| format!("no readable state of {site}"))
    }

    /// Reads the problems of the site whose token is refused.
    async fn problems(&self) -> anyhow::Result<Problems> {
        Ok(self.state(REFUSED).await?.problems)
    }

    /// Reads the parts that an upgrade must keep.
    async fn kept(&self) -> anyhow::Result<Kept> {
        let aws = &self.stack.cloud.aws;
        let path = format!("/{}", self.stack.stack.name());
        let get = ["ssm", "get-parameters-by-path", "--recursive", "--with-decryption", "--path", &path];
        let parameters = aws.json(&[&get[..], &["--query", "Parameters[].[Name, Value, Version]"]].concat()).await?;
        let table = self.stack.stack.output("StateTableName")?;
        let state = aws.json(&["dynamodb", "scan", "--table-name", table, "--query", "Items"]).await?;
        Ok(Kept { registrations: self.registrations(), parameters, state })
    }

    /// Reads the webhooks of both sites.
    fn registrations(&self) -> Vec<Registration> {
        let world = self.stack.tableau.simulator.world();
        let webhooks = world.sites.values().flat_map(|site| &site.webhooks);
        webhooks.map(|webhook| (webhook.id.clone(), webhook.url.clone(), webhook.is_enabled)).collect()
    }

    /// Reads the code and the configuration of both functions.
    async fn functions(&self) -> anyhow::Result<Vec<Value>> {
        let mut functions = Vec::new();
        for output in ["ReceiverName", "ReconcilerName"] {
            let get = ["lambda", "get-function-configuration", "--function-name", self.stack.stack.output(output)?];
            functions.push(self.stack.cloud.aws.json(&[&get[..], &["--query", CONFIGURATION]].concat()).await?);
        }
        Ok(functions)
    }

    /// Deploys a template while Tableau delivers. Returns the error of the deployment, if there is one.
    async fn deploy(&self, template: &Path) -> anyhow::Result<Option<anyhow::Error>> {
        let before = self.kept().await?;
        let LocalStack { cloud, stack, .. } = &self.stack;
        let deployed = self.deliver_during(cloud.update(stack.name(), template)).await?;
        self.deliver().await?;
        let after = self.kept().await?;
        ensure!(before == after, "before: {before:#?}\nafter: {after:#?}");
        Ok(deployed.err())
    }

    /// Returns the messages that SNS sent to a queue.
    async fn messages(&self, queue: &str) -> anyhow::Result<Vec<Value>> {
        let messages = in_queues(&self.stack.cloud).await?.remove(queue).context("no queue")?;
        let bodies = messages.iter().map(|message| message["Body"].as_str().context("a message without a body"));
        bodies.map(|body| Ok(serde_json::from_str(body?)?)).collect()
    }

    /// Checks that the events topic had every event, each with one identifier, and no others.
    async fn check_events(&self) -> anyhow::Result<()> {
        let (mut delivered, mut recovered, mut explained) =
            (BTreeSet::new(), BTreeMap::<_, BTreeSet<_>>::new(), BTreeMap::<_, BTreeSet<_>>::new());
        for message in self.messages("events").await? {
            let event: Value = serde_json::from_str(message["Message"].as_str().context("no message")?)?;
            let text = |pointer: &str| event.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
            let (id, kind) = (text("/id"), text("/type"));
            let kind = kind.strip_prefix("com.tableau.").context("another type")?;
            match kind {
                "Test" => {}
                "RefreshFailureExplained" => drop(explained.entry(text("/data/job_id")).or_default().insert(id)),
                _ if event["recovered"] == true => {
                    let refresh = (text("/data/resource_name"), kind.to_owned());
                    recovered.entry(refresh).or_default().insert(id);
                }
                _ => drop(delivered.insert(id)),
            }
        }
        let accepted = self.accepted.borrow();
        ensure!(delivered == *accepted, "accepted: {accepted:#?}\npublished: {delivered:#?}");
        let failed = site(&self.stack.tableau, HEALTHY, |site| {
            let failed = site.jobs.iter().filter(|job| job.outcome == RefreshOutcome::Failed);
            failed.map(|job| job.id.clone()).collect::<BTreeSet<_>>()
        })?;
        ensure!(explained.keys().eq(&failed), "failed: {failed:#?}\nexplained: {explained:#?}");
        let missed = self.missed.clone();
        ensure!(recovered.keys().cloned().eq(missed), "recovered: {recovered:#?}");
        for ids in explained.values().chain(recovered.values()) {
            ensure!(ids.len() == 1, "published again under another identifier: {explained:#?}\n{recovered:#?}");
        }
        Ok(())
    }

    /// Checks that each problem caused an alert, no alert was repeated more than once, and no state was lost.
    async fn check_alerts(&self) -> anyhow::Result<()> {
        let alerts = self.messages("alerts").await?;
        let count = |site: &str, kind: ProblemKind, part: &str| {
            let subject = format!("Tableau {site}: {}", kind.headline());
            let alerts = alerts.iter().filter(|alert| alert["Subject"] == subject);
            alerts.filter(|alert| alert["Message"].as_str().is_some_and(|text| text.contains(part))).count()
        };
        let refused = count(REFUSED, ProblemKind::TokenRefused, "");
        ensure!((1..=2).contains(&refused), "{refused} alerts about the token");
        for event in self.missed.values() {
            let disabled = count(HEALTHY, ProblemKind::WebhookDisabled, event);
            ensure!((1..=2).contains(&disabled), "{disabled} alerts about the webhook for {event}");
        }
        for site in [HEALTHY, REFUSED] {
            let lost = count(site, ProblemKind::RefreshesLost, "");
            ensure!(lost == 0, "{lost} alerts about lost refreshes of {site}");
        }
        Ok(())
    }
}

/// Writes a template that cannot be deployed beside another, with the same functions.
fn impossible(template: &Path) -> anyhow::Result<NamedTempFile> {
    let text = fs::read_to_string(template)?;
    let (resources, outputs) = text.split_once("\nOutputs:\n").context("no outputs")?;
    let folder = template.parent().context("a template without a folder")?;
    let file = tempfile::Builder::new().suffix(".yaml").tempfile_in(folder)?;
    fs::write(file.path(), format!("{resources}{IMPOSSIBLE}\nOutputs:\n{outputs}"))?;
    Ok(file)
}

#[tokio::test]
async fn a_failed_upgrade_an_upgrade_and_the_way_back_lose_and_repeat_nothing() -> anyhow::Result<()> {
    let earlier = previous::template(&Workspace::locate()?).await?;
    let mut upgrade = Upgrade::start(&earlier).await?;
    let (aws, name) = (upgrade.stack.cloud.aws.clone(), upgrade.stack.stack.name().to_owned());
    let present = upgrade.stack.present_template();
    upgrade.deliver().await?;
    upgrade.miss_and_run("WorkbookRefreshFailed").await?;
    let functions = upgrade.functions().await?;

    // The functions are updated, then rolled back.
    let impossible = impossible(&present)?;
    let error = upgrade.deploy(impossible.path()).await?.context("a resource that cannot be created was created")?;
    let state = Stack::read(&aws, &name).await?.state().to_owned();
    ensure!(state == "UPDATE_ROLLBACK_COMPLETE", "{state}: {error:#}");
    assert_eq!(upgrade.functions().await?, functions);
    for function in ["Receiver", "Reconciler"] {
        let updates = format!("[?LogicalResourceId == '{function}' && ResourceStatus == 'UPDATE_COMPLETE']");
        let query = format!("length(StackEvents{updates})");
        let events = ["cloudformation", "describe-stack-events", "--stack-name", &name, "--query", &query];
        assert_eq!(aws.json(&events).await?, 2, "{function} was not updated and rolled back");
    }
    upgrade.miss_and_run("WorkbookRefreshSucceeded").await?;

    ensure!(upgrade.deploy(&present).await?.is_none(), "the upgrade failed");
    let stack = Stack::read(&aws, &name).await?;
    assert_eq!((stack.state(), stack.output("Version")?), ("UPDATE_COMPLETE", env!("CARGO_PKG_VERSION")));
    assert_ne!(upgrade.functions().await?, functions);
    upgrade.miss_and_run("DatasourceRefreshSucceeded").await?;

    // Back to the earlier release.
    ensure!(upgrade.deploy(&earlier).await?.is_none(), "going back failed");
    assert_eq!(upgrade.functions().await?, functions);
    upgrade.miss_and_run("WorkbookRefreshStarted").await?;
    println!("{} deliveries at each site, {} failed attempts", upgrade.count.get(), upgrade.failed_attempts.get());
    upgrade.check_events().await?;
    upgrade.check_alerts().await
}
