//! `cargo infra test`: has Tableau test the webhooks of every site, and receives an event and an alert.

use anyhow::{anyhow, ensure};
use clap::Args;
use shared::{alerts::phrasing::pluralize, registration::site_name::SiteName, sites::commands::stack_option};
use time::OffsetDateTime;

use crate::{
    aws::Aws,
    connection::StackOptions,
    findings::Finding,
    interruption::unless_interrupted,
    reconciler::{self, Answer},
    run_report::SitePart,
    stack::Stack,
    steps::{show, step},
    subscriptions::Subscribers,
    temporary_queues::{TemporaryQueues, sweep},
    terminal::{bad, good, print, warning},
};

mod queues;
mod targets;

use queues::{Queues, Received};
use targets::TargetTest;

/// Has Tableau test every webhook, and receives an event and an alert.
///
/// They arrive in two temporary queues. All subscribers of the alerts topic get that alert too, and the command names the
/// subscribers of both topics. It checks that each target whose messages they are took them.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Marks: ✓ works, ✗ does not work, ! was not tried.
Exit status: 0 every test succeeded, 1 a site, the event, the alert or a target failed, 2 usage.

Examples:
  cargo infra test
  cargo infra test --site marketing --verbose")]
pub struct Test {
    /// A site, by your name for it. Repeat it for several; by default all.
    #[arg(long = "site", value_name = "NAME")]
    sites: Vec<SiteName>,
    #[command(flatten)]
    options: StackOptions,
}

/// The reconciler's kind of failure when it could not send the alert.
const ALERTS_FAILED: &str = "AlertsFailed";

/// A test in progress.
#[derive(Debug)]
struct Run<'a> {
    aws: &'a Aws,
    stack: &'a Stack,
    sites: &'a [SiteName],
    is_verbose: bool,
}

/// Runs the command.
///
/// # Errors
///
/// A test failed, the event or the alert did not arrive, or a queue could not be removed.
pub async fn run(arguments: Test) -> anyhow::Result<()> {
    let Test { sites, options } = arguments;
    let is_verbose = options.is_verbose();
    let connection = options.connect().await?;
    let aws = &connection.aws;
    let stack = connection.stack().await?;
    let queues = Queues::claim(&stack)?;
    let test = Run { aws, stack: &stack, sites: &sites, is_verbose };
    let result = unless_interrupted(test.carry_out(&queues)).await?;
    let result =
        result.unwrap_or_else(|| Err(anyhow!("interrupted before the end of the test. Fix: run this command again")));
    let removed = step("Remove the queues and their subscriptions", queues.remove(aws)).await;
    match (result, removed) {
        (Ok(failed), Ok(())) => {
            ensure!(failed.is_empty(), failure(&failed, &stack, is_verbose));
            print(format!("\n{}", good("Every test succeeded: events and alerts arrive.")));
            Ok(())
        }
        (Ok(failed), Err(left)) if failed.is_empty() => Err(left),
        (Ok(failed), Err(left)) => Err(left.context(failure(&failed, &stack, is_verbose))),
        (Err(error), Ok(())) => Err(error),
        (Err(error), Err(left)) => Err(left.context(format!("{error:#}"))),
    }
}

/// Formats the failures of a test.
fn failure(failed: &[String], stack: &Stack, is_verbose: bool) -> String {
    let details = if is_verbose {
        "see the report above".to_owned()
    } else {
        format!("see above; for the whole report: cargo infra test --verbose{}", stack_option(stack.name()))
    };
    format!("the test failed: {}. Fix: {details}", failed.join(", "))
}

impl Run<'_> {
    /// Runs all parts of the test, also after one failed. Returns the failures.
    async fn carry_out(&self, claimed: &TemporaryQueues) -> anyhow::Result<Vec<String>> {
        let Self { aws, stack, sites, .. } = self;
        sweep(aws, stack).await;
        let subscribe = Queues::create(aws, claimed);
        let queues = step("Subscribe a queue to each topic, for this test only", subscribe).await?;
        let (mut failed, start) = (Vec::new(), OffsetDateTime::now_utc());
        let answer = step("Have Tableau test every webhook", async {
            let answer = reconciler::invoke(aws, stack, "test", sites).await?;
            if self.is_verbose {
                show(answer.text());
            }
            let parts = SitePart::parse_all(answer.text());
            self.show_sites(&answer, &parts)?;
            let count = parts.iter().filter(|part| !part.errors.is_empty()).count();
            match &answer {
                _ if count > 0 => failed.push(format!("{count} of {} failed", pluralize(parts.len(), "site", "sites"))),
                Answer::Failure { kind, .. } if kind != ALERTS_FAILED => {
                    failed.push(format!("the reconciler reports {kind}"));
                    show(answer.text());
                }
                Answer::Failure { .. } | Answer::Report(_) => {}
            }
            Ok((answer, parts.iter().map(|part| part.accepted).sum::<usize>()))
        });
        let (answer, accepted) = answer.await?;
        let arrival = step("Receive a Test event and the alert", self.receive(&queues, &answer, accepted > 0));
        let received = arrival.await?;
        let targets = TargetTest { aws, stack, start, received: &received }.check().await;
        failed.extend(received.failed);
        failed.extend(targets.unwrap_or_else(|error| {
            show(&bad(format!("targets  {error:#}")));
            vec!["the targets could not be checked".to_owned()]
        }));
        step("Subscribers of the stack", self.show_subscribers()).await?;
        Ok(failed)
    }

    /// Shows each site in a line, and the fix of each that failed.
    fn show_sites(&self, answer: &Answer, parts: &[SitePart]) -> anyhow::Result<()> {
        if let ([], Answer::Failure { text, .. }) = (parts, answer) {
            show(text);
            answer.check(self.stack)?;
        }
        ensure!(
            !parts.is_empty(),
            "there is no site to test. Fix: add one with `cargo infra add-site marketing{}`",
            stack_option(self.stack.name())
        );
        let width = parts.iter().map(|part| part.site.len()).max().unwrap_or_default();
        for part in parts {
            let Some((first, others)) = part.errors.split_first() else {
                show(&good(format!("{:width$}  {}", part.site, part.tests_in_words())));
                continue;
            };
            let (what, fix) = first.in_short();
            show(&bad(format!("{:width$}  {what}", part.site)));
            if !self.is_verbose {
                // The report has them too.
                [fix]
                    .into_iter()
                    .chain(others.iter().map(|error| &*error.what))
                    .for_each(|line| show(&format!("  {line}")));
            }
        }
        Ok(())
    }

    /// Receives the event and the alert, and shows both.
    async fn receive(&self, queues: &Queues, answer: &Answer, is_event_sent: bool) -> anyhow::Result<Received> {
        // The reconciler could not send the alert, and its report has the reason.
        let is_alert_sent = !matches!(answer, Answer::Failure { kind, .. } if kind == ALERTS_FAILED);
        let (event, alert) =
            tokio::join!(async { if is_event_sent { Some(queues.event(self.aws).await) } else { None } }, async {
                if is_alert_sent { Some(queues.alert(self.aws).await) } else { None }
            });
        let mut received = Received::default();
        match event {
            None => show(&warning("event  none can arrive, since the receiver accepted no test")),
            Some(Ok(event)) => {
                show(&good(format!("event  {} of {}", event.attribute("event_type"), event.attribute("site"))));
                self.show_details(&event.details());
                received.event = Some(event);
            }
            Some(Err(error)) => {
                show(&bad(format!("event  {error:#}")));
                received.failed.push("no event arrived".to_owned());
            }
        }
        match alert {
            None => {
                show(&bad("alert  the reconciler could not send it"));
                show(answer.text());
                received.failed.push("the alert was not sent".to_owned());
            }
            Some(Ok(alert)) => {
                show(&good(format!("alert  {}", alert.subject)));
                self.show_details(&alert.text);
                received.alert = Some(alert);
            }
            Some(Err(error)) => {
                show(&bad(format!("alert  {error:#}")));
                received.failed.push("no alert arrived".to_owned());
            }
        }
        Ok(received)
    }

    fn show_details(&self, text: &str) {
        if self.is_verbose {
            text.lines().for_each(|line| show(&format!("  {line}")));
        }
    }

    /// Names the subscribers, since a test receives with its own queues.
    async fn show_subscribers(&self) -> anyhow::Result<()> {
        let subscribers = Subscribers::read(self.aws, self.stack).await?;
        subscribers.lines().iter().for_each(|line| show(line));
        subscribers.findings().iter().flat_map(Finding::lines).for_each(|line| show(&line));
        Ok(())
    }
}
