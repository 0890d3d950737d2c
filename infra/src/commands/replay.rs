//! `cargo infra replay`: publishes deliveries that were not published when they arrived.

use std::{cell::Cell, time::Duration};

use anyhow::{Context, bail, ensure};
use clap::Args;
use reqwest::{Client, StatusCode};
use serde_json::Value;
use shared::{
    alerts::phrasing::pluralize,
    events::{delivery::TEST, id::EventId},
    registration::{keyring::Keyring, signed_url::ReceiverUrl},
    sites::commands::infra,
};
use time::OffsetDateTime;

use self::delivery_log::{DeliveryLog, Unpublished};
use crate::{
    aws::Aws,
    connection::{Connection, StackOptions},
    interruption::unless_interrupted,
    log,
    stack::Stack,
    steps::{show, step},
    terminal::{bad, good, print},
};

mod delivery_log;

/// How long the receiver may take to answer: its timeout in the template and a cold start.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// The longest lookback: a year. Most logs are deleted earlier.
const MAX_HOURS: u64 = 366 * 24;

/// Publishes the events of the receiver's log that SNS did not accept.
///
/// Also those that came while the signing keys could not be read: it verifies them first. It leaves out those that a later
/// attempt of Tableau published, so it is safe to run twice.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  cargo infra replay 24 --dry-run
  cargo infra replay 24
  cargo infra replay 24 --id 9c63a4d1032bb0ef67f67e5c34b46f43")]
pub struct Replay {
    /// The lookback in hours.
    #[arg(value_parser = clap::value_parser!(u64).range(1..=MAX_HOURS))]
    hours: u64,
    /// Only the event with this identifier.
    #[arg(long)]
    id: Option<EventId>,
    /// Print what would be published, and publish nothing.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    options: StackOptions,
}

/// Runs the command.
///
/// # Errors
///
/// The log cannot be read, some deliveries could not be published, or the command was interrupted. The others stay published.
pub async fn run(arguments: Replay) -> anyhow::Result<()> {
    let Replay { hours, id, dry_run, options } = arguments;
    let connection = options.connect().await?;
    let sent = Cell::new(0);
    match unless_interrupted(replay(&connection, hours, id, dry_run, &sent)).await? {
        Some(result) => result,
        None => bail!(
            "interrupted. {} published before; the others are still in the log. Fix: run this command again, which publishes \
             only the others",
            events(sent.get())
        ),
    }
}

/// Publishes one event, and returns the line about it.
///
/// # Errors
///
/// It is not among the unpublished events of the last hours, or could not be published.
pub async fn replay_one(aws: &Aws, http: &Client, stack: &Stack, hours: u64, id: EventId) -> anyhow::Result<String> {
    let delivery = find_one(aws, stack, hours, id).await?;
    let status = Sender::new(aws, http, stack).await?.send(&delivery).await.with_context(|| {
        format!(
            "the event {id} is not published. It is still in the log. Fix: try again when SNS and SSM are available"
        )
    })?;
    Ok(format!("{status}: {delivery}"))
}

async fn replay(
    connection: &Connection,
    hours: u64,
    id: Option<EventId>,
    dry_run: bool,
    sent: &Cell<usize>,
) -> anyhow::Result<()> {
    let (stack, http, aws) = (connection.stack().await?, connection.http()?, &connection.aws);
    let title = format!("Search the receiver's log for events of the last {hours} h that were not published");
    let found = step(&title, async {
        let found = match id {
            Some(id) => Found::one(find_one(aws, &stack, hours, id).await?),
            None => find(aws, &stack, hours).await?,
        };
        found.lines.iter().for_each(|line| show(line));
        Ok(found)
    });
    let Found { missing, unreadable, .. } = found.await?;
    let mut failed = 0;
    if missing.is_empty() {
        print(format!("\n{}", good("Nothing to publish.")));
    } else if dry_run {
        print(format!("\n{} to publish. Nothing was done.", events(missing.len())));
    } else {
        step("Send them to the receiver", send_all(&Sender::new(aws, &http, &stack).await?, &missing, sent)).await?;
        failed = missing.len() - sent.get();
        let published = format!("{} published.", events(sent.get()));
        print(format!("\n{}", if failed == 0 { good(published) } else { published }));
    }
    ensure!(
        failed == 0,
        "{} not published. Fix: run this command again when SNS and SSM are available",
        events(failed)
    );
    ensure!(
        unreadable == 0,
        "{unreadable} records of unpublished events cannot be read by this release. Their events are not published. Fix: run \
         this command of the release that wrote them"
    );
    Ok(())
}

/// Deliveries to replay.
struct Found {
    /// Oldest first.
    missing: Vec<Unpublished>,
    /// Number of records that cannot be parsed.
    unreadable: usize,
    /// Lines for a reader.
    lines: Vec<String>,
}

impl Found {
    fn one(delivery: Unpublished) -> Self {
        Self { lines: vec![delivery.to_string()], missing: vec![delivery], unreadable: 0 }
    }
}

/// The receiver's log since a time.
struct ReceiverLog<'a> {
    aws: &'a Aws,
    stack: &'a Stack,
    function: &'a str,
    since: OffsetDateTime,
}

impl<'a> ReceiverLog<'a> {
    fn new(aws: &'a Aws, stack: &'a Stack, hours: u64) -> anyhow::Result<Self> {
        let since = OffsetDateTime::now_utc() - Duration::from_secs(hours * 3600);
        Ok(Self { aws, stack, function: stack.output("ReceiverName")?, since })
    }

    /// Reads the deliveries that are undelivered or unverified, and verifies the latter. Returns lines about both.
    async fn unpublished(&self, log: &mut DeliveryLog) -> anyhow::Result<Vec<String>> {
        let pattern = r#"{ ($.outcome = "undelivered") || ($.outcome = "unverified") }"#;
        log.read(&log::lines(self.aws, self.function, self.since, pattern).await?);
        let mut lines = vec![format!("{} undelivered at first", events(log.unpublished.len()))];
        if !log.unverified.is_empty() {
            let (authentic, rejected) = log.verify(&self.stack.keyring(self.aws).await?);
            lines.push(format!("{} unverified at first", events(authentic)));
            if rejected > 0 {
                let requests = if rejected == 1 { "request" } else { "requests" };
                lines.push(format!("{rejected} unverified {requests} left out: no signature of a present key"));
            }
        }
        Ok(lines)
    }

    /// Reads the deliveries that were published.
    async fn published(&self, log: &mut DeliveryLog) -> anyhow::Result<()> {
        let pattern = r#"{ ($.outcome = "published") || ($.outcome = "duplicate") }"#;
        log.read(&log::lines(self.aws, self.function, self.since, pattern).await?);
        Ok(())
    }
}

/// Finds deliveries that the log has as undelivered or unverified, and not as published.
async fn find(aws: &Aws, stack: &Stack, hours: u64) -> anyhow::Result<Found> {
    let (receiver, mut log) = (ReceiverLog::new(aws, stack, hours)?, DeliveryLog::default());
    let mut lines = receiver.unpublished(&mut log).await?;
    if !log.unpublished.is_empty() {
        receiver.published(&mut log).await?;
    }
    let DeliveryLog { unpublished, published, unreadable, .. } = log;
    let total = unpublished.len();
    let missing = unpublished.into_values().filter(|delivery| !published.contains(&delivery.id));
    let (tests, mut missing): (Vec<_>, Vec<_>) = missing.partition(|delivery| delivery.event_type == TEST);
    missing.sort_by_key(|delivery| (delivery.at, delivery.id));
    lines.push(format!("{} published since", events(total - missing.len() - tests.len())));
    if !tests.is_empty() {
        lines.push(format!("{} left out: Tableau's test calls are not replayed", events(tests.len())));
    }
    lines.extend(missing.iter().map(ToString::to_string));
    Ok(Found { missing, unreadable, lines })
}

/// Finds the delivery of one event, in the same way.
async fn find_one(aws: &Aws, stack: &Stack, hours: u64, id: EventId) -> anyhow::Result<Unpublished> {
    let (receiver, mut log) = (ReceiverLog::new(aws, stack, hours)?, DeliveryLog::default());
    receiver.unpublished(&mut log).await?;
    receiver.published(&mut log).await?;
    unpublished(log, id, hours, stack)
}

/// Returns the delivery of an event, if it can be published.
fn unpublished(mut log: DeliveryLog, id: EventId, hours: u64, stack: &Stack) -> anyhow::Result<Unpublished> {
    let command = |command: &str| infra(command, stack.name());
    match log.unpublished.remove(&id) {
        _ if log.published.contains(&id) => bail!(
            "the event {id} is published. Nothing was done. Fix: see what became of it with `{}`",
            command(&format!("events show {id}"))
        ),
        Some(test) if test.event_type == TEST => bail!(
            "the event {id} is a test call of Tableau, and those are not replayed. Nothing was done. Fix: have Tableau test \
             the webhooks again with `{}`",
            command("test")
        ),
        Some(delivery) => Ok(delivery),
        None => bail!(
            "the receiver's log of the last {hours} h has no unpublished event {id}. Nothing was done. Fix: name more hours, \
             or find the event with `{}`",
            command("events --outcome undelivered --since 7d")
        ),
    }
}

/// Sends deliveries to the receiver. Counts those that are published in `sent`.
async fn send_all(sender: &Sender<'_>, missing: &[Unpublished], sent: &Cell<usize>) -> anyhow::Result<()> {
    for delivery in missing {
        match sender.send(delivery).await {
            Ok(status) => {
                sent.set(sent.get() + 1);
                show(&good(format!("{status}: {delivery}")));
            }
            Err(error) => show(&bad(format!("NOT published, {error}: {delivery}"))),
        }
    }
    Ok(())
}

/// Sends deliveries to the receiver as Tableau does.
struct Sender<'a> {
    http: &'a Client,
    receiver: ReceiverUrl,
    keyring: Keyring,
}

impl<'a> Sender<'a> {
    async fn new(aws: &Aws, http: &'a Client, stack: &Stack) -> anyhow::Result<Self> {
        let keyring = stack.keyring(aws).await?;
        let receiver = stack.reachable_receiver_url(aws)?;
        let receiver = ReceiverUrl::parse(&receiver).with_context(|| format!("{receiver} is no URL"))?;
        Ok(Self { http, receiver, keyring })
    }

    /// Sends a delivery. Returns the status in the receiver's answer.
    async fn send(&self, delivery: &Unpublished) -> anyhow::Result<String> {
        let url = delivery.registration.signed_url(&self.receiver, &self.keyring);
        let request = self.http.post(url.expose()).timeout(ANSWER_TIMEOUT).header("content-type", "application/json");
        // Errors of the client contain the URL, which is signed.
        let response = request.body(delivery.body.clone()).send().await;
        let response = response.map_err(reqwest::Error::without_url).context("the receiver does not answer")?;
        let status = response.status();
        let answer = response.text().await.map_err(reqwest::Error::without_url)?;
        if status != StatusCode::OK {
            bail!("the receiver answered {status}");
        }
        let answer: Value = serde_json::from_str(&answer).context("the receiver's answer is no JSON")?;
        ensure!(answer["id"] == delivery.id.to_string(), "the receiver published another event: {answer}");
        Ok(answer["status"].as_str().unwrap_or_default().to_owned())
    }
}

fn events(count: usize) -> String {
    pluralize(count, "event", "events")
}
