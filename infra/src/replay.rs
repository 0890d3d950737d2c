//! `cargo infra replay`: publishes what SNS did not accept when it was delivered.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use clap::Args;
use reqwest::{Client, StatusCode};
use serde_json::Value;
use shared::{
    message::{EventId, TEST},
    record::{DeliveryRecord, EventRecord, Outcome},
    registration::{ReceiverUrl, Registration, RegistrationUrl},
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

/// Publishes again what SNS did not accept: reads the receiver's log for deliveries that were not published, leaves out
/// those that a later attempt of Tableau's published, and sends the others to the receiver. To run it twice is safe.
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

/// The deliveries that a log tells of.
#[derive(Debug, Default)]
struct Log {
    /// What was not published, once each, with the time of its first attempt.
    undelivered: BTreeMap<EventId, (OffsetDateTime, DeliveryRecord)>,
    /// What was published.
    published: BTreeSet<EventId>,
    /// How many records of undelivered events cannot be read.
    unreadable: usize,
}

impl Log {
    /// Reads lines, as pairs of time and text. Those that tell of no delivery are skipped.
    fn read(&mut self, lines: &Value) {
        for (at, line) in log::in_json(lines) {
            let outcome = line["outcome"].clone();
            match serde_json::from_value::<DeliveryRecord>(line) {
                Ok(record) => match record.outcome {
                    Outcome::Published | Outcome::Duplicate => {
                        self.published.insert(record.event.id);
                    }
                    Outcome::Undelivered if record.body().is_some() => {
                        self.undelivered.entry(record.event.id).or_insert((at, record));
                    }
                    Outcome::Undelivered => self.unreadable += 1,
                    Outcome::TooLarge => {}
                },
                Err(_) if outcome == "undelivered" => self.unreadable += 1,
                Err(_) => {}
            }
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
    let title = format!("Look for undelivered events of the last {hours} h in the receiver's log");
    let Found { missing, unreadable } = step(&title, find(aws, &stack, hours)).await?;
    let refused = match (missing.is_empty(), dry_run) {
        (true, _) => {
            println!("\nNothing to publish.");
            0
        }
        (false, true) => {
            println!("\n{} to be published; nothing was done.", counted(missing.len()));
            0
        }
        (false, false) => {
            let refused = step("Send them to the receiver", send_all(aws, &http, &stack, &missing)).await?;
            println!("\n{} published.", counted(missing.len() - refused));
            refused
        }
    };
    ensure!(refused == 0, "{} not published: run this command again when SNS is available", counted(refused));
    ensure!(unreadable == 0, "{unreadable} records of undelivered events cannot be read by this release");
    Ok(())
}

/// What there is to replay.
struct Found {
    /// With the times of their first attempts, oldest first.
    missing: Vec<(OffsetDateTime, DeliveryRecord)>,
    unreadable: usize,
}

/// Finds what the log tells of as undelivered and not of as published.
async fn find(aws: &Aws, stack: &Stack, hours: u64) -> anyhow::Result<Found> {
    let function = stack.output("ReceiverName")?;
    let since = OffsetDateTime::now_utc() - Duration::from_secs(hours * 3600);
    let mut log = Log::default();
    log.read(&log::lines(aws, function, since, r#"{ $.outcome = "undelivered" }"#).await?);
    if !log.undelivered.is_empty() {
        let published = r#"{ ($.outcome = "published") || ($.outcome = "duplicate") }"#;
        log.read(&log::lines(aws, function, since, published).await?);
    }
    let Log { undelivered, published, unreadable } = log;
    let total = undelivered.len();
    let missing = undelivered.into_iter().filter(|(id, _)| !published.contains(id)).map(|(_, found)| found);
    let (tests, mut missing): (Vec<_>, Vec<_>) = missing.partition(|(_, record)| record.event.r#type == TEST);
    missing.sort_by_key(|(at, record)| (*at, record.event.id));
    show(&format!("{} undelivered at first", counted(total)));
    show(&format!("{} published since", counted(total - missing.len() - tests.len())));
    if !tests.is_empty() {
        show(&format!("{} left out: Tableau's test calls are made again, not replayed", counted(tests.len())));
    }
    missing.iter().for_each(|(at, record)| show(&told(*at, record)));
    Ok(Found { missing, unreadable })
}

/// Sends deliveries to the receiver, and returns how many were not published.
async fn send_all(
    aws: &Aws,
    http: &Client,
    stack: &Stack,
    missing: &[(OffsetDateTime, DeliveryRecord)],
) -> anyhow::Result<usize> {
    let keyring = stack.keyring(aws).await?;
    let receiver = stack.reachable_receiver_url(aws)?;
    let receiver = ReceiverUrl::parse(&receiver).with_context(|| format!("{receiver} is no address"))?;
    let mut refused = 0;
    for (at, record) in missing {
        let registration = Registration { site: record.site.clone(), event: record.event.registered.clone() };
        let url = registration.signed_url(&receiver, &keyring);
        match send(http, &url, record).await {
            Ok(status) => show(&format!("{status}: {}", told(*at, record))),
            Err(error) => {
                refused += 1;
                show(&format!("NOT published, {error}: {}", told(*at, record)));
            }
        }
    }
    Ok(refused)
}

/// Sends a delivery to the receiver as Tableau did. Returns what the receiver says it did.
async fn send(http: &Client, url: &RegistrationUrl, record: &DeliveryRecord) -> anyhow::Result<String> {
    let body = record.body().context("a record without a body")?;
    let request = http.post(url.expose()).timeout(ANSWER_TIMEOUT).header("content-type", "application/json").body(body);
    // Errors of the client name the address, which is signed.
    let response = request.send().await.map_err(reqwest::Error::without_url).context("the receiver does not answer")?;
    let status = response.status();
    let answer = response.text().await.map_err(reqwest::Error::without_url)?;
    if status != StatusCode::OK {
        bail!("the receiver answered {status}");
    }
    let answer: Value = serde_json::from_str(&answer).context("the receiver's answer is no JSON")?;
    ensure!(answer["id"] == record.event.id.to_string(), "the receiver took it for another event: {answer}");
    Ok(answer["status"].as_str().unwrap_or_default().to_owned())
}

fn told(at: OffsetDateTime, record: &DeliveryRecord) -> String {
    let DeliveryRecord { site, event: EventRecord { r#type, id, .. }, resource, .. } = record;
    let time = at.format(&Rfc3339).unwrap_or_default();
    let luid = resource.as_ref().map(|resource| format!(" {}", resource.luid)).unwrap_or_default();
    format!("{time} {site} {type}{luid} (id {id})")
}

fn counted(events: usize) -> String {
    format!("{events} event{}", if events == 1 { "" } else { "s" })
}
