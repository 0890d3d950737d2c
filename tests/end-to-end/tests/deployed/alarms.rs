//! The template's alarms, evaluated over the functions' real metrics: each for its own problem, none on a good day.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    fs,
    ops::Range,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::Context;
use axum::http::StatusCode;
use end_to_end::{
    cloudwatch::{Alarm, Metric, Metrics, State},
    declared::{Declared, site},
    destination::Destination,
    local_stack::LocalStack,
    stand_ins::{Service, StandIn},
};
use infra::{cloud::STACK, sample, target_messages, workspace::Workspace};
use lambda_support::{
    metrics::MetricLog,
    topic::{Topic, TopicError},
};
use receiver::{
    BoxError,
    delivery_log::DeliveryLog,
    function_url::FunctionUrlRequest,
    keyring_cache::{KeyringCache, KeyringSource},
    receiver::Receiver,
};
use serde_json::{Value, json};
use shared::{
    alerts::selection::DeliveryAlerts,
    registration::keyring::{KEY_BYTES, Keyring},
};
use strict_sns::publish::Publish;
use tableau_simulator::server::{Running, Simulator};
use time::OffsetDateTime;
use tokio::time::timeout;

const RECEIVER: &str = "tableau-fanout-receiver";
const RECONCILER: &str = "tableau-fanout-reconciler";
const FORWARDER: &str = "tableau-fanout-forwarder";
const DEAD_LETTERS: &str = "tableau-fanout-dead-letters";

/// Time limit for the forwarder to handle some messages, which takes seconds.
const FORWARDED_TIMEOUT: Duration = Duration::from_secs(120);

/// A day in minutes.
const DAY: Range<u32> = 0..24 * 60;

/// The minute at which a problem begins.
const NOON: u32 = 12 * 60;

/// The template's schedule in minutes.
const SCHEDULE: u32 = 15;

/// Reads the deployed alarms.
async fn alarms(stack: &LocalStack) -> anyhow::Result<Vec<Alarm>> {
    let described = stack.cloud.aws.json(&["cloudwatch", "describe-alarms"]).await?;
    described["MetricAlarms"].as_array().context("no alarms")?.iter().map(Alarm::read).collect()
}

/// Returns an alarm's name without the stack's.
fn short_name(stack: &str, alarm: &Alarm) -> String {
    alarm.name.replace(&format!("{stack}-"), "")
}

/// Returns the names of the alarms that are raised, without the stack's.
fn raised(stack: &str, alarms: &[Alarm], metrics: &Metrics, minutes: Range<u32>) -> BTreeSet<String> {
    let raised = alarms
        .iter()
        .filter(|alarm| alarm.changes(metrics, minutes.clone()).iter().any(|(_, state)| *state != State::Ok));
    raised.map(|alarm| short_name(stack, alarm)).collect()
}

/// Adds Lambda's own metrics of an invocation.
fn add_invocation(metrics: &mut Metrics, minute: u32, function: &str, milliseconds: f64, failed: bool) {
    let errors = if failed { 1.0 } else { 0.0 };
    for (name, value) in [("Invocations", 1.0), ("Errors", errors), ("Throttles", 0.0), ("Duration", milliseconds)] {
        metrics.add(minute, Metric::of("AWS/Lambda", name, "FunctionName", function), value);
    }
}

/// Adds SQS's metric of the queue of dead letters.
fn add_dead_letters(metrics: &mut Metrics, minute: u32, messages: f64) {
    metrics.add(
        minute,
        Metric::of("AWS/SQS", "ApproximateNumberOfMessagesVisible", "QueueName", DEAD_LETTERS),
        messages,
    );
}

/// A topic that accepts what SNS accepts, or nothing.
struct Sink {
    accepts: bool,
}

impl<M: Send> Topic<M> for Sink
where
    for<'a> Publish: From<&'a M>,
{
    async fn publish(&self, message: M) -> Result<(), TopicError> {
        if !self.accepts {
            return Err(TopicError::Failed("SNS is not available".into()));
        }
        match Publish::from(&message).accept().map_err(|refusal| TopicError::RefusedForGood(refusal.into()))?.is_whole()
        {
            true => Ok(()),
            false => Err(TopicError::Failed("SNS withholds it from subscribers".into())),
        }
    }
}

/// The parameter with the signing keys, readable or not.
struct Keys {
    are_readable: bool,
}

impl KeyringSource for Keys {
    async fn read(&self) -> Result<Option<Keyring>, BoxError> {
        if self.are_readable { Ok(Some(keyring())) } else { Err("SSM is not available".into()) }
    }
}

fn keyring() -> Keyring {
    Keyring::of([7; KEY_BYTES])
}

/// The receiver between doubles of SSM and SNS.
struct Receiving {
    receiver: Receiver<Keys, Sink, Sink>,
    log: Arc<Mutex<Vec<String>>>,
    event: Value,
}

impl Receiving {
    async fn start(are_readable: bool, sns_accepts: bool) -> anyhow::Result<Self> {
        let log = Arc::<Mutex<Vec<String>>>::default();
        let written = log.clone();
        let delivery_log = DeliveryLog::new(MetricLog::new(RECEIVER.to_owned(), move |line| {
            written.lock().unwrap_or_else(PoisonError::into_inner).push(line.to_owned());
        }));
        let keys = KeyringCache::load(Keys { are_readable }).await;
        let topic = || Sink { accepts: sns_accepts };
        let receiver = Receiver::new(keys, topic(), Some(topic()), DeliveryAlerts::default(), delivery_log);
        let event = serde_json::from_str(&sample::signed_event(&Workspace::locate()?, &keyring())?)?;
        Ok(Self { receiver, log, event })
    }

    /// Sends the recorded event with another body, to its own path or another.
    async fn send(&self, body: &str, path: Option<&str>) -> anyhow::Result<StatusCode> {
        let mut event = self.event.clone();
        event["body"] = json!(body);
        if let Some(path) = path {
            event["rawPath"] = json!(path);
        }
        let request: FunctionUrlRequest = serde_json::from_value(event)?;
        Ok(self.receiver.handle(request.into_request(lambda_runtime::Context::default())).await.status())
    }

    /// Takes the lines logged since the last call.
    fn lines(&self) -> Vec<String> {
        std::mem::take(&mut self.log.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Sends requests without a signature within a minute. Returns the lines that the receiver logs about them.
    async fn strangers(&self, requests: usize) -> anyhow::Result<Vec<String>> {
        tokio::time::pause();
        for _ in 0..requests {
            anyhow::ensure!(
                self.send("", Some("/.env")).await? == StatusCode::NOT_FOUND,
                "a request without a signature was accepted"
            );
        }
        tokio::time::advance(Duration::from_secs(61)).await;
        self.send("", Some("/.git/config")).await?;
        tokio::time::resume();
        Ok(self.lines())
    }
}

/// Sites on a simulated Tableau, their declarations, and a server in the receiver's place.
struct Sites {
    tableau: Running,
    declared: Declared,
    _destination: Destination,
}

impl Sites {
    /// Starts with sites that are as declared.
    async fn start(names: &[&str]) -> anyhow::Result<Self> {
        let destination = Destination::answering(StatusCode::OK).await?;
        let tableau = Simulator::start(Some(destination.address.clone())).await?;
        let declared = Declared::sites(&tableau, names);
        declared.apply().await??;
        Ok(Self { tableau, declared, _destination: destination })
    }

    /// Runs the reconciler. Returns its line and whether Lambda counts an error.
    async fn run(&self) -> anyhow::Result<(String, bool)> {
        let failed = self.declared.apply().await?.is_err();
        Ok((self.declared.log().last().context("the run wrote no line")?.clone(), failed))
    }
}

/// Adds a run of the reconciler to a day, in place of an earlier run at that minute.
fn add_run(metrics: &mut Metrics, minute: u32, (line, failed): &(String, bool)) -> anyhow::Result<()> {
    metrics.forget(RECONCILER, minute..minute + 1);
    add_invocation(metrics, minute, RECONCILER, 1500.0, *failed);
    metrics.add_line(minute, line)
}

/// Returns a day without problems. The reconciler runs by its schedule, events of all kinds arrive, strangers try a few
/// addresses, and one start is cold.
async fn good_day(sites: &Sites) -> anyhow::Result<Metrics> {
    let mut metrics = Metrics::default();
    let run = sites.run().await?;
    for minute in DAY.step_by(usize::try_from(SCHEDULE)?) {
        add_run(&mut metrics, minute, &run)?;
    }
    let receiving = Receiving::start(true, true).await?;
    for (body, times) in [("{}", 2), (r#"{"event_type":"Test"}"#, 1), (r#"{"event_type":"ViewDeleted"}"#, 1), ("?", 1)]
    {
        for _ in 0..times {
            anyhow::ensure!(receiving.send(body, None).await? == StatusCode::OK, "{body} was not accepted");
        }
    }
    let accepted = receiving.lines();
    let strangers = receiving.strangers(20).await?;
    for minute in DAY.step_by(3) {
        for line in accepted.iter().chain(strangers.iter().filter(|_| minute % 60 == 0)) {
            metrics.add_line(minute, line)?;
            add_invocation(&mut metrics, minute, RECEIVER, if minute == 0 { 900.0 } else { 30.0 }, false);
        }
        add_dead_letters(&mut metrics, minute, 0.0);
    }
    Ok(metrics)
}

/// A day: its description, its metrics, and the alarms that it is to raise.
type Day = (&'static str, Metrics, &'static [&'static str]);

/// Returns days with and without problems.
async fn days() -> anyhow::Result<Vec<Day>> {
    let mut sites = Sites::start(&["finance", "marketing"]).await?;
    let good = good_day(&sites).await?;
    let mut days: Vec<Day> = vec![("all is well", good.clone(), &[])];
    days.extend(receiver_days(&good).await?);
    days.extend(reconciler_days(&mut sites, &good).await?);
    let nothing_declared = Sites::start(&[]).await?.run().await?;
    let mut day = Metrics::default();
    for minute in DAY.step_by(usize::try_from(SCHEDULE)?) {
        add_run(&mut day, minute, &nothing_declared)?;
    }
    days.push(("a stack without a site and without events", day.clone(), &[]));
    day.forget(RECONCILER, 0..NOON);
    days.push(("a stack whose schedule begins in half a day", day, &[]));
    days.push(("a stack without metrics", Metrics::default(), &[]));
    Ok(days)
}

/// Returns days with problems of deliveries.
async fn receiver_days(good: &Metrics) -> anyhow::Result<Vec<Day>> {
    let mut days: Vec<Day> = Vec::new();
    let with = |lines: &[String], minutes: Range<u32>| {
        let mut day = good.clone();
        for minute in minutes {
            for line in lines {
                day.add_line(minute, line)?;
            }
        }
        anyhow::Ok(day)
    };

    let receiving = Receiving::start(true, false).await?;
    anyhow::ensure!(receiving.send("{}", None).await? == StatusCode::SERVICE_UNAVAILABLE, "SNS took an event");
    days.push(("SNS does not accept an event", with(&receiving.lines(), NOON..NOON + 1)?, &["events-not-accepted"]));
    let receiving = Receiving::start(false, true).await?;
    anyhow::ensure!(receiving.send("{}", None).await? == StatusCode::SERVICE_UNAVAILABLE, "accepted without a key");
    days.push((
        "SSM does not give the signing keys",
        with(&receiving.lines(), NOON..NOON + 1)?,
        &["signing-keys-unreadable"],
    ));
    let receiving = Receiving::start(true, true).await?;
    let strangers = receiving.strangers(200).await?;
    days.push(("a stranger tries two hundred addresses", with(&strangers, NOON..NOON + 1)?, &[]));
    let longer = with(&strangers, NOON..NOON + 15)?;
    days.push(("… every minute, for a quarter of an hour", longer, &["receiver-many-strangers"]));

    for (problem, metric, value, expected) in [
        ("an invocation of the receiver fails", "Errors", 1.0, &["receiver-errors"][..]),
        ("Lambda refuses a request to the receiver", "Throttles", 1.0, &["receiver-throttled"]),
        ("an answer takes all the time it has", "Duration", 2200.0, &["receiver-slow"]),
        ("an answer takes a second and a half", "Duration", 1500.0, &[]),
    ] {
        let mut day = good.clone();
        day.add(NOON, Metric::of("AWS/Lambda", metric, "FunctionName", RECEIVER), value);
        days.push((problem, day, expected));
    }
    let mut day = good.clone();
    day.add(NOON, Metric::of("AWS/Lambda", "Errors", "FunctionName", FORWARDER), 1.0);
    days.push(("an invocation of the forwarder fails", day, &["forwarder-errors"]));
    Ok(days)
}

/// Returns days with problems of the reconciler or of Tableau.
async fn reconciler_days(sites: &mut Sites, good: &Metrics) -> anyhow::Result<Vec<Day>> {
    let mut days: Vec<Day> = Vec::new();
    let mut day = good.clone();
    add_dead_letters(&mut day, NOON, 1.0);
    days.push(("the schedule cannot call the reconciler", day, &["dead-letters"]));

    site(&sites.tableau, "marketing", |site| site.webhooks[0].is_enabled = false)?;
    let mut day = good.clone();
    add_run(&mut day, NOON, &sites.run().await?)?;
    days.push(("Tableau has disabled a webhook", day, &["webhooks-disabled"]));

    let entry = sites.declared.entries["marketing"].clone();
    for (problem, left, expected) in
        [("a token ends in six days", 7, &["token-ending"][..]), ("a token ends in eight days", 9, &[])]
    {
        // A date stands for its beginning.
        let date = (OffsetDateTime::now_utc() + time::Duration::days(left)).date();
        sites.declared.set("marketing", "token_expires", json!(date.to_string()))?;
        let mut day = good.clone();
        add_run(&mut day, NOON, &sites.run().await?)?;
        days.push((problem, day, expected));
    }
    sites.declared.entries.insert("marketing".to_owned(), entry.clone());
    sites.run().await?;

    sites.declared.set("marketing", "token_secret", json!("revoked"))?;
    let refused = sites.run().await?;
    for (problem, minutes, expected) in [
        ("a token is refused, for an hour", NOON..NOON + 60, &["reconciler-failed"][..]),
        ("… for the rest of the day", NOON..DAY.end, &["reconciler-failed", "reconciler-no-success"]),
    ] {
        let mut day = good.clone();
        for minute in minutes.step_by(usize::try_from(SCHEDULE)?) {
            add_run(&mut day, minute, &refused)?;
        }
        days.push((problem, day, expected));
    }
    // The problem caused an alert, and its end causes another.
    sites.declared.entries.insert("marketing".to_owned(), entry);
    sites.declared.topics.alerts_fail = true;
    let mut day = good.clone();
    add_run(&mut day, NOON, &sites.run().await?)?;
    days.push(("alerts cannot be sent", day, &["alerts-failed", "reconciler-failed"]));

    let mut day = good.clone();
    day.forget(RECONCILER, NOON..NOON + 90);
    days.push(("no run for an hour and a half", day, &[]));
    let mut day = good.clone();
    day.forget(RECONCILER, NOON..DAY.end);
    days.push(("the schedule stops", day, &["reconciler-no-success"]));
    Ok(days)
}

#[tokio::test]
async fn each_alarm_is_raised_by_its_own_problem_and_none_on_a_good_day() -> anyhow::Result<()> {
    let stack = LocalStack::with_default_name().await?;
    let alarms = alarms(&stack).await?;
    let mut table = format!("{:44} alarms\n", "on a day on which");
    let mut seen = BTreeSet::new();
    let mut wrong = Vec::new();
    for (problem, metrics, expected) in days().await? {
        let raised = raised(STACK, &alarms, &metrics, DAY);
        writeln!(table, "{problem:44} {}", raised.iter().map(String::as_str).collect::<Vec<_>>().join(", "))?;
        if raised != expected.iter().map(|name| (*name).to_owned()).collect() {
            wrong.push(format!("{problem}: expected {expected:?}"));
        }
        seen.extend(raised);
    }
    println!("{table}");
    fs::write(Workspace::locate()?.local("reports")?.join("alarms.txt"), &table)?;
    assert_eq!(wrong, Vec::<String>::new(), "{table}");
    let all: BTreeSet<_> = alarms.iter().map(|alarm| short_name(STACK, alarm)).collect();
    assert_eq!(seen, all, "an alarm that no day raises");
    Ok(())
}

/// The metrics of Lambda and SQS that the alarms use.
const OF_AWS: [(&str, &str); 5] = [
    ("AWS/Lambda", "Invocations"),
    ("AWS/Lambda", "Errors"),
    ("AWS/Lambda", "Throttles"),
    ("AWS/Lambda", "Duration"),
    ("AWS/SQS", "ApproximateNumberOfMessagesVisible"),
];

/// The metric that each target has.
const OF_A_TARGET: &str = "OldestUndelivered";

/// Deploys two targets, of which one is down, and returns the lines that the forwarder logs about their messages and about one
/// that is no event, as if it was part of the stack that the alarms are read from.
async fn forwarded() -> anyhow::Result<Vec<String>> {
    let stack = LocalStack::start().await?;
    let services = [StandIn::start(Service::Slow(Duration::ZERO)).await?, StandIn::start(Service::Down).await?];
    let everything = json!({});
    for (name, service) in ["working", "down"].iter().zip(&services) {
        let entry = json!({ "preset": "plain", "address": service.address });
        stack.add_target(name, &entry, target_messages::Topic::Events, &everything).await?;
    }
    let event =
        r#"{"specversion":"1.0","id":"an-event","source":"/tableau/marketing","type":"com.tableau.ViewDeleted"}"#;
    for message in [event, "text"] {
        let publish = ["sns", "publish", "--topic-arn", stack.stack.output("EventsTopicArn")?, "--message", message];
        stack.cloud.aws.run(&publish).await?;
    }
    for target in ["working", "down"] {
        while stack.dead_letters(target).await?.is_empty() {}
    }
    services[0].until(|events| events.len() == 1).await?;
    let name = stack.stack.name();
    let mut lines = Vec::new();
    let is_complete = |lines: &[String]| {
        ["Forwarded", "ForwardRetried"].iter().all(|metric| lines.iter().any(|it| it.contains(metric)))
    };
    while !is_complete(&lines) {
        let log = stack.log(&format!("{name}-forwarder")).await?;
        lines = log.iter().map(|line| line.replace(name, STACK)).collect();
    }
    Ok(lines)
}

/// Reads the metrics on the dashboard.
async fn shown(stack: &LocalStack) -> anyhow::Result<BTreeSet<Metric>> {
    let get = ["cloudwatch", "get-dashboard", "--dashboard-name", STACK];
    let dashboard = stack.cloud.aws.json(&get).await?;
    let body: Value = serde_json::from_str(dashboard["DashboardBody"].as_str().context("no dashboard")?)?;
    let widgets = body["widgets"].as_array().context("no widgets")?.iter();
    let rows = widgets.filter_map(|widget| widget["properties"]["metrics"].as_array()).flatten();
    // A target has a metric of its own, which only a search finds.
    let (searches, rows): (Vec<_>, Vec<_>) = rows.partition(|row| row[0]["expression"].is_string());
    anyhow::ensure!(searches.len() == 1 && searches[0].to_string().contains(OF_A_TARGET), "no search: {searches:?}");
    rows.into_iter()
        .map(|row| match [0, 1, 2, 3].map(|position| row[position].as_str()) {
            [Some(namespace), Some(name), Some(dimension), Some(value)] => {
                Ok(Metric::of(namespace, name, dimension, value))
            }
            _ => anyhow::bail!("no metric: {row}"),
        })
        .collect()
}

#[tokio::test]
async fn alarms_and_dashboard_use_only_metrics_that_are_written() -> anyhow::Result<()> {
    let stack = LocalStack::with_default_name().await?;
    let receiving = Receiving::start(true, true).await?;
    let too_large = json!({ "padding": "x".repeat(256 * 1024) }).to_string();
    anyhow::ensure!(receiving.send(&too_large, None).await? == StatusCode::PAYLOAD_TOO_LARGE, "not too large");
    let forwarded = timeout(FORWARDED_TIMEOUT, forwarded()).await.context("the forwarder wrote no lines")??;
    let mut written = Metrics::default();
    for line in receiving.lines().into_iter().chain(forwarded) {
        written.add_line(0, &line)?;
    }
    let days = days().await?;
    let written: BTreeSet<_> = days.iter().flat_map(|(_, day, _)| day.names()).chain(written.names()).collect();
    let alarms = alarms(&stack).await?;
    let shown = shown(&stack).await?;
    for metric in alarms.iter().map(|alarm| &alarm.metric).chain(&shown) {
        let of_aws = OF_AWS.contains(&(&metric.namespace, &metric.name));
        assert!(written.contains(metric) || of_aws, "no function writes {metric:?}");
    }
    // The dashboard shows every metric of the project.
    let ours = written.iter().filter(|metric| metric.namespace == "TableauFanout" && metric.name != OF_A_TARGET);
    let hidden: Vec<_> = ours.filter(|metric| !shown.contains(**metric)).collect();
    assert!(hidden.is_empty(), "not on the dashboard: {hidden:?}");
    Ok(())
}

/// Adds all metrics that a function of the stack has logged to one minute.
async fn add_logged(stack: &LocalStack, metrics: &mut Metrics, minute: u32, function: &str) -> anyhow::Result<()> {
    for line in stack.log(function).await? {
        metrics.add_line(minute, &line)?;
    }
    Ok(())
}

#[tokio::test]
async fn the_deployed_functions_raise_alarms_that_reach_subscribers() -> anyhow::Result<()> {
    let stack = LocalStack::start().await?;
    let alarms = alarms(&stack).await?;
    let topic = stack.stack.output("AlertsTopicArn")?;
    for alarm in &alarms {
        assert_eq!(alarm.targets(), [topic].into(), "{}", alarm.name);
        assert!((120..1024).contains(&alarm.description.len()), "{}: {}", alarm.name, alarm.description);
    }
    stack.declare("marketing", &["WorkbookCreated"]).await?;
    stack.cloud.apply(&stack.stack).await?;
    let payload = |name: &str| json!({ "event_type": "WorkbookCreated", "resource_name": format!("{name}\t📈") });
    assert_eq!(stack.fire("marketing", "WorkbookCreated", &payload("first"), 1).await?, [Some(200)]);
    let mut good = Metrics::default();
    let name = stack.stack.name();
    let (receiver, reconciler) = (stack.stack.output("ReceiverName")?, stack.stack.output("ReconcilerName")?);
    for function in [receiver, reconciler] {
        add_logged(&stack, &mut good, 0, function).await?;
    }
    assert_eq!(raised(name, &alarms, &good, 0..60), BTreeSet::new());
    let by_function: BTreeMap<_, usize> = good.names().fold(BTreeMap::new(), |mut count, metric| {
        *count.entry(metric.dimensions["FunctionName"].as_str()).or_default() += 1;
        count
    });
    assert_eq!(by_function.keys().copied().collect::<Vec<_>>(), [receiver, reconciler]);

    let subscriber =
        stack.cloud.subscribe_queue_to(topic, "subscriber", &json!({ "RawMessageDelivery": "true" })).await?;
    let aws = &stack.cloud.aws;
    aws.run(&["sns", "delete-topic", "--topic-arn", stack.stack.output("EventsTopicArn")?]).await?;
    let answers = stack.fire("marketing", "WorkbookCreated", &payload("lost"), 1).await?;
    assert_eq!(answers, [Some(503); 4]);
    let mut bad = Metrics::default();
    add_logged(&stack, &mut bad, 0, receiver).await?;
    assert_eq!(raised(name, &alarms, &bad, 0..60), ["events-not-accepted".to_owned()].into());

    // Ministack evaluates no alarms, but carries out the actions of a state.
    let alarm = format!("{name}-events-not-accepted");
    let set = ["cloudwatch", "set-alarm-state", "--alarm-name", &alarm, "--state-value", "ALARM"];
    aws.run(&[&set[..], &["--state-reason", "an event was not accepted"]].concat()).await?;
    let received = stack.cloud.receive_some(&subscriber).await?;
    let alert: Value = serde_json::from_str(received[0]["Body"].as_str().unwrap_or_default())?;
    assert_eq!((&alert["AlarmName"], &alert["NewStateValue"]), (&json!(alarm), &json!("ALARM")), "{alert}");
    assert!(alert["AlarmDescription"].as_str().is_some_and(|text| text.contains("cargo infra replay")), "{alert}");
    Ok(())
}

#[tokio::test]
async fn a_target_has_alarms_for_dead_letters_and_for_a_message_that_waits() -> anyhow::Result<()> {
    let stack = LocalStack::start().await?;
    let entry = json!({ "preset": "plain", "address": "https://target.example/" });
    stack.add_target("program", &entry, target_messages::Topic::Events, &json!({})).await?;
    let name = format!("{}-target-program", stack.stack.name());
    let mut alarms = alarms(&stack).await?;
    alarms.retain(|alarm| alarm.name.starts_with(&name));
    assert_eq!(alarms.len(), 3);
    let topic = stack.stack.output("AlertsTopicArn")?;
    assert!(alarms.iter().all(|alarm| alarm.targets() == [topic].into()), "{alarms:?}");
    // The age in seconds at each attempt, by its minute. The forwarder writes it even if it delivered others meanwhile.
    let attempts = |attempts: &[(u32, f64)]| {
        let mut metrics = Metrics::default();
        for (minute, age) in attempts {
            metrics.add(*minute, Metric::of("TableauFanout", "OldestUndelivered", "QueueName", &name), *age);
        }
        metrics
    };
    let changes = |metrics: &Metrics| {
        let changed = |alarm: &Alarm| {
            let changes = alarm.changes(metrics, DAY);
            changes.into_iter().map(|(minute, state)| (short_name(&name, alarm), minute, state)).collect::<Vec<_>>()
        };
        alarms.iter().flat_map(changed).collect::<Vec<_>>()
    };
    let (mut short, long) =
        (attempts(&[(1, 0.0), (30, 1500.0), (40, 0.0)]), [(30, 1800.0), (70, 4200.0), (130, 7800.0)]);
    assert_eq!(changes(&short), []);
    let undelivered = |minute| ("undelivered".to_owned(), minute, State::Alarm);
    assert_eq!(changes(&attempts(&long)), [undelivered(71)]);
    // It stays while nothing is known, and begins anew after a success.
    let again = [&long[..], &[(140, 0.0), (300, 3700.0)]].concat();
    assert_eq!(changes(&attempts(&again)), [undelivered(71), undelivered(301)]);
    let dead = format!("{name}-dead");
    short.add(60, Metric::of("AWS/SQS", "ApproximateNumberOfMessagesVisible", "QueueName", &dead), 1.0);
    assert_eq!(changes(&short), [("dead-letters".to_owned(), 61, State::Alarm)]);
    let mut stopped = Metrics::default();
    stopped.add(90, Metric::of("AWS/SQS", "ApproximateAgeOfOldestMessage", "QueueName", &name), 3700.0);
    assert_eq!(changes(&stopped), [("not-forwarded".to_owned(), 91, State::Alarm)]);
    Ok(())
}

#[tokio::test]
async fn exactly_the_deployed_alarms_are_documented() -> anyhow::Result<()> {
    let stack = LocalStack::with_default_name().await?;
    let names = alarms(&stack).await?.into_iter().map(|alarm| short_name(STACK, &alarm));
    let alerts = fs::read_to_string(Workspace::locate()?.file("docs/alerts.md"))?;
    let section = alerts.split("\n## ").find(|section| section.starts_with("Alarms\n")).context("no section")?;
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` |"));
    let explained: Vec<_> = rows.map(|(name, _)| name.to_owned()).collect();
    assert_eq!(explained.iter().cloned().collect::<BTreeSet<_>>(), names.collect());
    assert_eq!(explained.len(), explained.iter().collect::<BTreeSet<_>>().len(), "explained twice: {explained:?}");
    Ok(())
}
