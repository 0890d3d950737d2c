//! `cargo infra replay`: publishes what could not be published when it was delivered.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use clap::Args;
use reqwest::{Client, StatusCode};
use serde_json::Value;
use shared::{
    events::{
        delivery::{Delivery, TEST},
        delivery_log::{DeliveryRecord, EventRecord, Outcome},
        id::EventId,
        unverified::UnverifiedRecord,
    },
    registration::{
        claim::{Registration, Verified},
        keyring::Keyring,
        signed_url::{ReceiverUrl, RegistrationUrl},
    },
};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{
    aws::Aws,
    log,
    stack::Stack,
    steps::{show, step},
    target::Target,
};

/// How long the receiver may take for an answer: its own limit in the template, and a cold start.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// The most hours to look back: a year, which is longer than most logs are kept.
const MOST_HOURS: u64 = 366 * 24;

/// Publishes what SNS did not accept, and what came while the signing keys could not be read: reads the receiver's log for
/// deliveries that were not published, verifies those that were not, leaves out those that a later attempt of Tableau's
/// published, and sends the others to the receiver. To run it twice is safe.
#[derive(Clone, Debug, Args)]
pub struct Replay {
    /// How many hours to look back.
    #[arg(value_parser = clap::value_parser!(u64).range(1..=MOST_HOURS))]
    hours: u64,
    /// Only say what would be published.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    target: Target,
}

/// The deliveries that a log has.
#[derive(Debug, Default)]
struct Log {
    /// What was not published, once each, with the time of its first attempt.
    lost: BTreeMap<EventId, Lost>,
    /// What could not be verified, each attempt.
    unverified: Vec<(OffsetDateTime, UnverifiedRecord)>,
    /// What was published.
    published: BTreeSet<EventId>,
    /// How many records of undelivered or unverified events cannot be read.
    unreadable: usize,
}

/// An authentic delivery that was not published.
#[derive(Debug)]
struct Lost {
    at: OffsetDateTime,
    registration: Registration,
    /// What it is published as.
    event_type: String,
    id: EventId,
    resource_luid: Option<String>,
    body: Vec<u8>,
}

impl Lost {
    fn undelivered(at: OffsetDateTime, record: DeliveryRecord) -> Option<Self> {
        let body = record.body()?;
        let DeliveryRecord { site, event: EventRecord { registered, r#type, id, .. }, resource, .. } = record;
        let registration = Registration { site, event: registered };
        let resource_luid = resource.map(|resource| resource.luid);
        Some(Self { at, registration, event_type: r#type, id, resource_luid, body })
    }

    fn verified(at: OffsetDateTime, verified: &Verified, body: Vec<u8>) -> Self {
        let delivery = Delivery::read(verified, &body);
        // Only a test's identifier depends on the request, and tests are left out.
        let (event_type, id) = (delivery.event_type().to_owned(), delivery.id(""));
        let resource_luid = delivery.plain_resource_luid().map(str::to_owned);
        Self { at, registration: verified.registration().clone(), event_type, id, resource_luid, body }
    }
}

impl Log {
    /// Reads lines, as pairs of time and text. Those that are no records of deliveries are skipped.
    fn read(&mut self, lines: &Value) {
        for (at, line) in log::in_json(lines) {
            let outcome = line["outcome"].clone();
            if outcome == UnverifiedRecord::OUTCOME {
                match serde_json::from_value::<UnverifiedRecord>(line) {
                    Ok(record) if record.body().is_some() => self.unverified.push((at, record)),
                    Ok(_) | Err(_) => self.unreadable += 1,
                }
                continue;
            }
            match serde_json::from_value::<DeliveryRecord>(line) {
                Ok(record) => match record.outcome {
                    Outcome::Published | Outcome::Duplicate => {
                        self.published.insert(record.event.id);
                    }
                    Outcome::Undelivered => match Lost::undelivered(at, record) {
                        Some(lost) => keep_first(&mut self.lost, lost),
                        None => self.unreadable += 1,
                    },
                    Outcome::TooLarge => {}
                },
                Err(_) if outcome == "undelivered" => self.unreadable += 1,
                Err(_) => {}
            }
        }
    }

    /// Verifies what could not be verified when it came, and adds it to what was not published. Returns how many
    /// deliveries are genuine, each pluralize once, and how many requests are not.
    fn verify(&mut self, keyring: &Keyring) -> (usize, usize) {
        let (mut genuine, mut rejected) = (BTreeSet::new(), 0);
        for (at, record) in std::mem::take(&mut self.unverified) {
            match (record.verify(keyring), record.body()) {
                (Some(verified), Some(body)) => {
                    let lost = Lost::verified(at, &verified, body);
                    genuine.insert(lost.id);
                    keep_first(&mut self.lost, lost);
                }
                _ => rejected += 1,
            }
        }
        (genuine.len(), rejected)
    }
}

/// Adds a delivery if it is not there, or was later.
fn keep_first(deliveries: &mut BTreeMap<EventId, Lost>, lost: Lost) {
    match deliveries.get(&lost.id) {
        Some(known) if known.at <= lost.at => {}
        Some(_) | None => {
            deliveries.insert(lost.id, lost);
        }
    }
}

/// Runs the command.
///
/// # Errors
///
/// The log cannot be read, or not all could be published. What was published is not undone.
pub async fn run(arguments: Replay) -> anyhow::Result<()> {
    let Replay { hours, dry_run, target } = arguments;
    let way = target.way().await?;
    let (stack, http, aws) = (way.stack().await?, way.http()?, &way.aws);
    let title = format!("Look for events of the last {hours} h that were not published in the receiver's log");
    let Found { missing, unreadable } = step(&title, find(aws, &stack, hours)).await?;
    let refused = match (missing.is_empty(), dry_run) {
        (true, _) => {
            println!("\nNothing to publish.");
            0
        }
        (false, true) => {
            println!("\n{} to be published; nothing was done.", pluralize(missing.len()));
            0
        }
        (false, false) => {
            let refused = step("Send them to the receiver", send_all(aws, &http, &stack, &missing)).await?;
            println!("\n{} published.", pluralize(missing.len() - refused));
            refused
        }
    };
    ensure!(
        refused == 0,
        "{} not published: run this command again when SNS and SSM are available",
        pluralize(refused)
    );
    ensure!(unreadable == 0, "{unreadable} records of events that were not published cannot be read by this release");
    Ok(())
}

/// What there is to replay.
struct Found {
    /// Oldest first.
    missing: Vec<Lost>,
    unreadable: usize,
}

/// Finds the deliveries that the log has as undelivered or unverified and not as published.
async fn find(aws: &Aws, stack: &Stack, hours: u64) -> anyhow::Result<Found> {
    let function = stack.output("ReceiverName")?;
    let since = OffsetDateTime::now_utc() - Duration::from_secs(hours * 3600);
    let mut log = Log::default();
    let lost = r#"{ ($.outcome = "undelivered") || ($.outcome = "unverified") }"#;
    log.read(&log::lines(aws, function, since, lost).await?);
    show(&format!("{} undelivered at first", pluralize(log.lost.len())));
    if !log.unverified.is_empty() {
        let (genuine, rejected) = log.verify(&stack.keyring(aws).await?);
        show(&format!("{} unverified at first", pluralize(genuine)));
        if rejected > 0 {
            let (requests, their) =
                if rejected == 1 { ("request", "its signature") } else { ("requests", "their signatures") };
            show(&format!("{rejected} unverified {requests} left out: none of the present keys made {their}"));
        }
    }
    if !log.lost.is_empty() {
        let published = r#"{ ($.outcome = "published") || ($.outcome = "duplicate") }"#;
        log.read(&log::lines(aws, function, since, published).await?);
    }
    let Log { lost, published, unreadable, .. } = log;
    let total = lost.len();
    let missing = lost.into_values().filter(|lost| !published.contains(&lost.id));
    let (tests, mut missing): (Vec<_>, Vec<_>) = missing.partition(|lost| lost.event_type == TEST);
    missing.sort_by_key(|lost| (lost.at, lost.id));
    show(&format!("{} published since", pluralize(total - missing.len() - tests.len())));
    if !tests.is_empty() {
        show(&format!("{} left out: Tableau's test calls are made again, not replayed", pluralize(tests.len())));
    }
    missing.iter().for_each(|lost| show(&shown(lost)));
    Ok(Found { missing, unreadable })
}

/// Sends deliveries to the receiver, and returns how many were not published.
async fn send_all(aws: &Aws, http: &Client, stack: &Stack, missing: &[Lost]) -> anyhow::Result<usize> {
    let keyring = stack.keyring(aws).await?;
    let receiver = stack.reachable_receiver_url(aws)?;
    let receiver = ReceiverUrl::parse(&receiver).with_context(|| format!("{receiver} is no address"))?;
    let mut refused = 0;
    for lost in missing {
        let url = lost.registration.signed_url(&receiver, &keyring);
        match send(http, &url, lost).await {
            Ok(status) => show(&format!("{status}: {}", shown(lost))),
            Err(error) => {
                refused += 1;
                show(&format!("NOT published, {error}: {}", shown(lost)));
            }
        }
    }
    Ok(refused)
}

/// Sends a delivery to the receiver as Tableau did. Returns what the receiver says it did.
async fn send(http: &Client, url: &RegistrationUrl, lost: &Lost) -> anyhow::Result<String> {
    let request = http.post(url.expose()).timeout(ANSWER_TIMEOUT).header("content-type", "application/json");
    // Errors of the client name the address, which is signed.
    let response = request.body(lost.body.clone()).send().await;
    let response = response.map_err(reqwest::Error::without_url).context("the receiver does not answer")?;
    let status = response.status();
    let answer = response.text().await.map_err(reqwest::Error::without_url)?;
    if status != StatusCode::OK {
        bail!("the receiver answered {status}");
    }
    let answer: Value = serde_json::from_str(&answer).context("the receiver's answer is no JSON")?;
    ensure!(answer["id"] == lost.id.to_string(), "the receiver took it for another event: {answer}");
    Ok(answer["status"].as_str().unwrap_or_default().to_owned())
}

fn shown(lost: &Lost) -> String {
    let Lost { at, registration: Registration { site, .. }, event_type, id, resource_luid, .. } = lost;
    let time = at.format(&Rfc3339).unwrap_or_default();
    let luid = resource_luid.as_ref().map(|luid| format!(" {luid}")).unwrap_or_default();
    format!("{time} {site} {event_type}{luid} (id {id})")
}

fn pluralize(events: usize) -> String {
    format!("{events} event{}", if events == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use anyhow::Context;
    use serde_json::json;
    use shared::registration::{claim::Claim, keyring::KEY_BYTES};

    use super::*;

    fn claim(event: &str, key: u8) -> anyhow::Result<Claim> {
        let root = "https://receiver.example";
        let registration = Registration { site: "marketing".parse()?, event: event.parse()? };
        let receiver = ReceiverUrl::parse(root).context("an address")?;
        let url = registration.signed_url(&receiver, &Keyring::of([key; KEY_BYTES]));
        url.expose().strip_prefix(root).and_then(Claim::parse).context("a claim")
    }

    /// Lines as the AWS CLI returns them, a second apart.
    fn lines(records: &[Value]) -> Value {
        records.iter().zip(0..).map(|(record, second)| json!([second * 1000, record.to_string()])).collect()
    }

    #[test]
    fn each_genuine_delivery_is_found_once_however_often_it_was_recorded_and_as_what() -> anyhow::Result<()> {
        let keyring = Keyring::of([7; KEY_BYTES]);
        let created = claim("WorkbookCreated", 7)?;
        let unverified =
            |claim: &Claim, body: &[u8]| anyhow::Ok(json!(UnverifiedRecord::of(claim, body).context("too large")?));
        let undelivered = |claim: &Claim, body: &[u8]| {
            let verified = claim.verify(&keyring).context("a signature")?;
            let delivery = Delivery::read(&verified, body);
            Ok(json!(DeliveryRecord::of(&delivery, delivery.id(""), Outcome::Undelivered, BTreeMap::new())))
        };
        let records: anyhow::Result<Vec<Value>> = [
            unverified(&created, b"{\"n\":1}"),
            unverified(&created, b"{\"n\":1}"),
            undelivered(&created, b"{\"n\":1}"),
            undelivered(&created, b"{\"n\":2}"),
            unverified(&created, b"{\"n\":2}"),
            unverified(&created, b"{\"n\":3}"),
            unverified(&claim("WorkbookCreated", 8)?, b"{\"n\":4}"),
            Ok(json!({ "outcome": "unverified", "site": "../x" })),
        ]
        .into_iter()
        .collect();
        let mut log = Log::default();
        log.read(&lines(&records?));
        assert_eq!((log.verify(&keyring), log.unreadable), ((3, 1), 1));
        let found: Vec<_> =
            log.lost.values().map(|lost| (lost.at.unix_timestamp(), String::from_utf8_lossy(&lost.body))).collect();
        let found: BTreeSet<_> = found.iter().map(|(at, body)| (*at, &**body)).collect();
        assert_eq!(found, [(0, "{\"n\":1}"), (3, "{\"n\":2}"), (5, "{\"n\":3}")].into());
        Ok(())
    }
}
