//! Faults of SNS and SSM, injected by microburst. The receiver loses no delivery that it accepted, and records each genuine
//! delivery that it did not accept.

use std::{collections::BTreeSet, fmt::Write, fs, time::Duration};

use anyhow::Context;
use end_to_end::{declared::site, local_stack::LocalStack};
use futures_util::future::try_join_all;
use infra::{
    python::PythonTools,
    service::{Program, Service, free_port},
    workspace::Workspace,
};
use serde_json::{Value, json};
use shared::{
    alerts::data::AlertData,
    events::{
        delivery_log::{DeliveryRecord, Outcome},
        unverified::UnverifiedRecord,
    },
};
use tokio::time::timeout;

/// The sites. Each sends one delivery during each fault.
const SITES: [&str; 3] = ["finance", "marketing", "sales"];

const EVENT: &str = "DatasourceRefreshFailed";

/// Time limit for the first delivery, which takes seconds.
const WARM_UP_TIMEOUT: Duration = Duration::from_secs(60);

/// The fault during which the receiver starts new environments.
const AT_A_COLD_START: &str = "SSM down at a cold start";

/// Returns the faults as microburst's rules.
fn faults() -> [(&'static str, Value); 11] {
    let publish = |fault: Value| {
        let mut rule = json!({ "service": "sns", "operation": "Publish" });
        rule.as_object_mut().into_iter().for_each(|rule| rule.extend(fault.as_object().cloned().into_iter().flatten()));
        json!([rule])
    };
    let ssm_down = || {
        let error = json!({ "code": "InternalServerError", "status": 500 });
        json!([{ "service": "ssm", "operation": "GetParameter", "error": error }])
    };
    let alerts = "contains(TopicArn, 'alerts')";
    let events = "contains(TopicArn, 'events')";
    [
        ("none", json!([])),
        // Before the others, since the SDK stops retrying for a while after many failures.
        ("fails once", publish(json!({ "error": { "code": "InternalError", "status": 500 }, "times": 1 }))),
        ("throttles", publish(json!({ "error": { "code": "Throttled" } }))),
        ("answers 500", publish(json!({ "error": { "code": "InternalError", "status": 500 } }))),
        ("hangs", publish(json!({ "timeout_ms": 30_000 }))),
        ("resets the connection", publish(json!({ "reset": true }))),
        ("fails for alerts", publish(json!({ "error": { "code": "InternalError", "status": 500 }, "body": alerts }))),
        ("fails for events", publish(json!({ "error": { "code": "InternalError", "status": 500 }, "body": events }))),
        ("accepts, answer lost", publish(json!({ "response": { "abort_frac": 0.3 } }))),
        ("SSM down", ssm_down()),
        (AT_A_COLD_START, ssm_down()),
    ]
}

/// A stack whose receiver reaches SNS and SSM through microburst.
struct Faulty {
    stack: LocalStack,
    rules: String,
    events: String,
    alerts: String,
    _microburst: Service,
}

impl Faulty {
    async fn start() -> anyhow::Result<Self> {
        let stack = LocalStack::start().await?;
        let workspace = Workspace::locate()?;
        let tools = PythonTools::install(&workspace, "test-tools", &workspace.file("tests/requirements.txt"))?;
        let (port, log) = (free_port()?.to_string(), stack.folder().join("microburst.log"));
        let arguments = ["--upstream", &stack.cloud.endpoint, "--port", &port];
        let path = tools.program("microburst");
        let program = Program { name: "microburst", path: &path, arguments: &arguments, environment: &[] };
        let mut microburst = Service::start(&tools, program, log)?;
        let address = format!("http://127.0.0.1:{port}");
        microburst.ready(&stack.http, &format!("{address}/_microburst/health")).await?;

        for site in SITES {
            stack.declare(site, &[EVENT]).await?;
        }
        let (aws, function) = (&stack.cloud.aws, stack.stack.output("ReceiverName")?);
        let configuration = aws.json(&["lambda", "get-function-configuration", "--function-name", function]).await?;
        let mut environment = configuration["Environment"].clone();
        environment["Variables"]["AWS_ENDPOINT_URL_SNS"] = json!(address);
        environment["Variables"]["AWS_ENDPOINT_URL_SSM"] = json!(address);
        let update = ["lambda", "update-function-configuration", "--function-name", function];
        aws.run(&[&update[..], &["--environment", &environment.to_string()]].concat()).await?;
        let raw = json!({ "RawMessageDelivery": "true" });
        let events = stack.cloud.subscribe_queue_to(stack.stack.output("EventsTopicArn")?, "events", &raw).await?;
        let alerts = stack.cloud.subscribe_queue_to(stack.stack.output("AlertsTopicArn")?, "alerts", &raw).await?;
        Ok(Self { stack, rules: format!("{address}/_microburst/rules"), events, alerts, _microburst: microburst })
    }

    /// Delivers until a delivery is accepted. The first request through the proxy may take longer than the receiver waits.
    async fn warm_up(&self) -> anyhow::Result<()> {
        let accepted = async {
            while !self.deliver(SITES[0], "warm-up").await? {}
            anyhow::Ok(())
        };
        timeout(WARM_UP_TIMEOUT, accepted).await.context("no delivery gets through the proxy")?
    }

    /// Ends the receiver's environments, so that the next request is a cold start. Setting the same timeout again does that.
    async fn end_environments(&self) -> anyhow::Result<()> {
        let update = ["lambda", "update-function-configuration", "--timeout", "5", "--function-name"];
        self.stack.cloud.aws.run(&[&update[..], &[self.stack.stack.output("ReceiverName")?]].concat()).await?;
        Ok(())
    }

    /// Fires a failed refresh, with Tableau's four attempts. Returns whether one was answered with 200.
    async fn deliver(&self, at: &str, name: &str) -> anyhow::Result<bool> {
        // Tableau disabled the webhook if the delivery before failed.
        site(&self.stack.tableau, at, |site| site.webhooks[0].is_enabled = true)?;
        let payload = json!({ "event_type": EVENT, "resource_luid": "99", "resource_name": name });
        let answers = self.stack.fire(at, EVENT, &payload, 1).await?;
        Ok(answers.last() == Some(&Some(200)))
    }

    /// Returns the names in the genuine deliveries that the log records as undelivered or unverified.
    async fn recorded(&self) -> anyhow::Result<BTreeSet<String>> {
        let lines = self.stack.log(self.stack.stack.output("ReceiverName")?).await?;
        let keyring = self.stack.keyring().await?;
        let body = |line: &str| match serde_json::from_str::<UnverifiedRecord>(line) {
            Ok(record) => record.verify(&keyring).and_then(|_| record.body()),
            Err(_) => serde_json::from_str::<DeliveryRecord>(line)
                .ok()
                .filter(|record| record.outcome == Outcome::Undelivered)
                .and_then(|record| record.body()),
        };
        Ok(lines.iter().filter_map(|line| name(&serde_json::from_slice(&body(line)?).ok()?)).collect())
    }

    /// Empties a queue. Returns the names that `find` reads from the messages' bodies.
    async fn arrived(&self, queue: &str, find: impl Fn(&str) -> Option<String>) -> anyhow::Result<BTreeSet<String>> {
        let mut all = BTreeSet::new();
        loop {
            let messages = self.stack.cloud.receive(queue).await?;
            if messages.is_empty() {
                return Ok(all);
            }
            let bodies = messages.iter().filter_map(|message| message["Body"].as_str());
            all.extend(bodies.filter_map(&find));
        }
    }

    /// Collects the names of all deliveries from the queues and the log.
    async fn found(&self, accepted: BTreeSet<String>) -> anyhow::Result<Found> {
        let data = |body: &str| name(&serde_json::from_str::<Value>(body).ok()?["data"]);
        let events = self.arrived(&self.events, data).await?;
        // An alert as JSON has a similar character in place of a backslash.
        let alert_name = |body: &str| {
            let name = serde_json::from_str::<AlertData>(body).ok()?.resource?.name?;
            Some(name.replace('＼', "\\"))
        };
        let alerts = self.arrived(&self.alerts, alert_name).await?;
        Ok(Found { accepted, events, alerts, recorded: self.recorded().await? })
    }
}

/// The names in the deliveries of all faults, by the places where they were found.
struct Found {
    accepted: BTreeSet<String>,
    events: BTreeSet<String>,
    alerts: BTreeSet<String>,
    recorded: BTreeSet<String>,
}

impl Found {
    /// Returns a table of the faults, and the totals of deliveries that were accepted and lost, or neither accepted nor
    /// recorded.
    fn report(&self) -> anyhow::Result<(String, [usize; 2])> {
        let Self { accepted, events, alerts, recorded } = self;
        let mut report = format!(
            "{:24} {:>4} {:>8} {:>6} {:>6} {:>8} {:>17} {:>29}\n",
            "fault",
            "sent",
            "accepted",
            "events",
            "alerts",
            "recorded",
            "accepted and lost",
            "neither accepted nor recorded"
        );
        let mut total_lost = [0, 0];
        for (fault, _) in faults() {
            let count = |is: &dyn Fn(&String) -> bool| deliveries(fault).filter(|name| is(name)).count();
            let lost = [
                count(&|name| accepted.contains(name) && !(events.contains(name) && alerts.contains(name))),
                count(&|name| !accepted.contains(name) && !recorded.contains(name)),
            ];
            total_lost = [total_lost[0] + lost[0], total_lost[1] + lost[1]];
            writeln!(
                report,
                "{fault:24} {:>4} {:>8} {:>6} {:>6} {:>8} {:>17} {:>29}",
                SITES.len(),
                count(&|name| accepted.contains(name)),
                count(&|name| events.contains(name)),
                count(&|name| alerts.contains(name)),
                count(&|name| recorded.contains(name)),
                lost[0],
                lost[1],
            )?;
        }
        Ok((report, total_lost))
    }
}

fn name(payload: &Value) -> Option<String> {
    payload["resource_name"].as_str().map(str::to_owned)
}

#[tokio::test]
async fn no_fault_loses_an_accepted_delivery_or_leaves_another_unrecorded() -> anyhow::Result<()> {
    let faulty = Faulty::start().await?;
    faulty.stack.cloud.apply(&faulty.stack.stack).await?;
    faulty.warm_up().await?;
    // microburst takes seconds for its first answer.
    faulty.deliver(SITES[0], "first").await?;
    let mut accepted = BTreeSet::new();
    for (fault, rules) in faults() {
        faulty.stack.http.post(&faulty.rules).json(&rules).send().await?.error_for_status()?;
        if fault == AT_A_COLD_START {
            faulty.end_environments().await?;
        }
        let delivered = SITES.into_iter().zip(deliveries(fault)).map(async |(site, name)| {
            let is_accepted = faulty.deliver(site, &name).await?;
            anyhow::Ok(is_accepted.then_some(name))
        });
        accepted.extend(try_join_all(delivered).await?.into_iter().flatten());
    }
    let found = faulty.found(accepted).await?;
    let (report, total_lost) = found.report()?;
    println!("{report}");
    fs::write(Workspace::locate()?.local("reports")?.join("sns-faults.txt"), &report)?;
    assert_eq!(total_lost, [0, 0], "{report}");
    // Each fault had its effect.
    for (fault, expected) in
        [("none", SITES.len()), ("throttles", 0), ("answers 500", 0), ("hangs", 0), ("fails for events", 0)]
            .into_iter()
            .chain([("SSM down", SITES.len()), (AT_A_COLD_START, 0)])
    {
        assert_eq!(deliveries(fault).filter(|name| found.accepted.contains(name)).count(), expected, "{report}");
    }
    Ok(())
}

/// Returns the names in the deliveries during a fault, with characters that SNS does not accept in an attribute.
fn deliveries(fault: &str) -> impl Iterator<Item = String> {
    SITES.into_iter().map(move |site| format!("{fault} 📈\\, {site}"))
}
