//! A round: starts one candidate, sends it events, and ends it.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use infra::{sample, workspace::Workspace};
use serde_json::json;
use tokio::process::{Child, Command};

use crate::{
    candidate::{Candidate, Events},
    cloud::{Cloud, Trust},
    runtime_api::{Invocation, RuntimeApi},
};

/// Name in the recorded event, which differs in each event that is sent.
const RECORDED_NAME: &str = "New Workbook!";

/// The environment in which candidates are measured.
#[derive(Debug)]
pub struct Bench {
    cloud: Cloud,
    folder: PathBuf,
    /// The recorded event, signed.
    event: String,
}

/// Figures of a round.
#[derive(Clone, Debug)]
pub struct Round {
    /// From the start of the program to its first poll for an event.
    pub start: Duration,
    /// From the first event to its answer.
    pub first: Duration,
    /// The same for each later event.
    pub warm: Vec<Duration>,
    /// Processor time for each later event.
    pub cpu: Duration,
    /// The most memory it used, in KiB.
    pub peak_kib: u64,
}

/// Figures of many concurrent events.
#[derive(Clone, Copy, Debug)]
pub struct Throughput {
    /// Events per second.
    pub per_second: f64,
    /// Processor time per event.
    pub cpu: Duration,
    /// The most memory it used, in KiB.
    pub peak_kib: u64,
}

/// A running candidate. Dropping this ends it.
#[derive(Debug)]
struct Running {
    child: Child,
    process: u32,
    /// Duration of its start.
    start: Duration,
    api: RuntimeApi,
}

impl Bench {
    /// Sets it up, with its files in `folder`.
    ///
    /// # Errors
    ///
    /// No port is free, or a file cannot be written.
    pub async fn set_up(workspace: &Workspace, folder: &Path) -> anyhow::Result<Self> {
        let cloud = Cloud::start(folder).await?;
        let event = sample::signed_event(workspace, &cloud.keyring)?;
        ensure!(event.contains(RECORDED_NAME), "the recorded event has no {RECORDED_NAME}");
        // Compact, as Lambda sends it.
        let event = serde_json::from_str::<serde_json::Value>(&event)?.to_string();
        Ok(Self { cloud, folder: folder.to_owned(), event })
    }

    /// Sets how long SNS and the target take for a message.
    pub fn delay_messages(&self, latency: Duration) {
        self.cloud.delay(latency);
    }

    /// Returns the environment variables of a function.
    ///
    /// # Errors
    ///
    /// The trust store cannot be written.
    pub(crate) fn variables(&self, api: &RuntimeApi, trust: Trust) -> anyhow::Result<Vec<(&'static str, OsString)>> {
        let trust_store = self.cloud.trust_store(trust)?;
        let variables = [
            ("AWS_LAMBDA_RUNTIME_API", api.address.as_str()),
            ("AWS_LAMBDA_FUNCTION_NAME", "function"),
            ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "256"),
            ("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST"),
            ("AWS_LAMBDA_LOG_FORMAT", "JSON"),
            ("AWS_REGION", "us-east-1"),
            ("AWS_DEFAULT_REGION", "us-east-1"),
            ("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE"),
            ("AWS_SECRET_ACCESS_KEY", "secret"),
            ("AWS_SESSION_TOKEN", "token"),
            ("AWS_ENDPOINT_URL_SSM", &self.cloud.ssm),
            // It answers any call with an object, which DynamoDB does for an item that does not exist.
            ("AWS_ENDPOINT_URL_DYNAMODB", &self.cloud.ssm),
            ("AWS_ENDPOINT_URL_SNS", &self.cloud.sns),
            ("EVENTS_TOPIC_ARN", "arn:aws:sns:us-east-1:000000000000:events"),
            ("ALERTS_TOPIC_ARN", "arn:aws:sns:us-east-1:000000000000:alerts"),
            ("SIGNING_KEYS_PARAMETER", "/keys"),
            ("TARGETS_PATH", "/function/targets"),
            ("ALLOW_LOOPBACK_TARGETS", "true"),
            ("STATE_TABLE", "function-state"),
        ];
        let variables = variables.into_iter().map(|(name, value)| (name, value.into()));
        Ok(variables.chain([("AWS_CA_BUNDLE", trust_store.into())]).collect())
    }

    /// Returns an event for a candidate. Each number has another one.
    pub(crate) fn event(&self, candidate: &Candidate, number: usize) -> String {
        let Events::Forwarded(messages) = candidate.events else {
            // The recorded event with a name of its own.
            return self.event.replace(RECORDED_NAME, &format!("Workbook {number:05}"));
        };
        let records = (0..messages).map(|message| {
            let body = json!({ "specversion": "1.0", "id": format!("{number}-{message}"), "source": "/tableau/marketing",
                "type": "com.tableau.WorkbookCreated", "data": { "resource_name": format!("Workbook {number:05}") } });
            json!({ "messageId": message.to_string(), "receiptHandle": "receipt", "body": body.to_string(),
                "attributes": { "ApproximateReceiveCount": "1", "SentTimestamp": "1795726132307" },
                "eventSourceARN": "arn:aws:sqs:us-east-1:000000000000:function-target-service" })
        });
        json!({ "Records": records.collect::<Vec<_>>() }).to_string()
    }

    async fn start(
        &self,
        candidate: &Candidate,
        trust: Trust,
        more: &[(&'static str, String)],
    ) -> anyhow::Result<Running> {
        let mut api = RuntimeApi::start().await?;
        let mut variables = self.variables(&api, trust)?;
        variables.extend(more.iter().map(|(name, value)| (*name, value.into())));
        let mut command = Command::from(candidate.command(&variables, &self.log(candidate))?);
        let started = Instant::now();
        let child = command.kill_on_drop(true).spawn();
        let mut child = child.with_context(|| format!("cannot start {}", candidate.program.display()))?;
        let polled = tokio::select! {
            polled = api.first_poll() => polled?,
            status = child.wait() => bail!("it ended with {}: see {}", status?, self.log(candidate).display()),
        };
        let process = child.id().context("it has ended")?;
        Ok(Running { child, process, start: polled - started, api })
    }

    pub(crate) fn log(&self, candidate: &Candidate) -> PathBuf {
        self.folder.join(format!("{}.log", candidate.name))
    }

    /// Starts a candidate and sends it a first event and then `events` others, one after another.
    ///
    /// # Errors
    ///
    /// It fails. Its log is in the folder.
    pub async fn round(&self, candidate: &Candidate, trust: Trust, events: usize) -> anyhow::Result<Round> {
        let before = self.cloud.messages();
        let mut running = self.start(candidate, trust, &[]).await?;
        let (process, start) = (running.process, running.start);
        let first = running.api.send(self.event(candidate, 0))?.answer().await?;
        let cpu = processor_time(process)?;
        let mut warm = Vec::with_capacity(events);
        for number in 1..=events {
            warm.push(running.api.send(self.event(candidate, number))?.answer().await?);
        }
        let cpu = (processor_time(process)? - cpu) / u32::try_from(events.max(1))?;
        let (arrived, sent) = (self.cloud.messages() - before, (events + 1) * candidate.events.messages());
        ensure!(arrived == sent, "{arrived} of {sent} messages arrived");
        let peak_kib = peak_memory(process)?;
        running.child.kill().await?;
        Ok(Round { start, first, warm, cpu, peak_kib })
    }

    /// Sends many events at once to a candidate that handles `concurrency` at a time.
    ///
    /// # Errors
    ///
    /// It fails. Its log is in the folder.
    pub async fn throughput(
        &self,
        candidate: &Candidate,
        concurrency: usize,
        events: usize,
    ) -> anyhow::Result<Throughput> {
        let variable = ("AWS_LAMBDA_MAX_CONCURRENCY", concurrency.to_string());
        let mut running = self.start(candidate, Trust::One, &[variable]).await?;
        let process = running.process;
        // The first events, one for each connection, open the connections.
        for (count, is_counted) in [(concurrency, false), (events, true)] {
            let (started, cpu) = (Instant::now(), processor_time(process)?);
            let offset = if is_counted { concurrency } else { 0 };
            let sent = (0..count).map(|number| running.api.send(self.event(candidate, offset + number)));
            let sent: Vec<Invocation> = sent.collect::<anyhow::Result<_>>()?;
            for invocation in sent {
                invocation.answer().await?;
            }
            if is_counted {
                let count = u32::try_from(count)?;
                let cpu = (processor_time(process)? - cpu) / count;
                let per_second = f64::from(count) / started.elapsed().as_secs_f64();
                return Ok(Throughput { per_second, cpu, peak_kib: peak_memory(process)? });
            }
        }
        bail!("no events")
    }
}

/// Reads the processor time that a process has used, in all its threads.
fn processor_time(process: u32) -> anyhow::Result<Duration> {
    let mut nanoseconds = 0;
    for task in fs::read_dir(format!("/proc/{process}/task"))? {
        let statistics = fs::read_to_string(task?.path().join("schedstat"))?;
        nanoseconds += statistics.split(' ').next().context("no processor time")?.parse::<u64>()?;
    }
    Ok(Duration::from_nanos(nanoseconds))
}

/// Reads the most memory that a process has used, in KiB.
fn peak_memory(process: u32) -> anyhow::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB"));
    Ok(peak.context("no peak")?.trim().parse()?)
}
