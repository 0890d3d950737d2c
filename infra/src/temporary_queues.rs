//! Queues that subscribe to a stack's topics while a command runs, and the removal of those that an interrupted command left.

use std::{
    fs::{self, File, TryLockError},
    io::ErrorKind,
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context, ensure};
use futures_util::{StreamExt, stream};
use serde_json::Value;
use shared::alerts::phrasing::pluralize;
use tempfile::NamedTempFile;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{
    aws::{Aws, has_code},
    queue,
    stack::Stack,
    terminal::{print, warning},
};

/// Between the stack's name and the rest of a queue's name. With the longest name of a stack, a queue's name has the 80
/// characters that SQS allows.
const MARK: &str = "-tmp-";

/// Hexadecimal digits of a queue's name with the hour of its creation, counted from 1970. They last until 2089.
const HOUR_DIGITS: usize = 5;

/// Further digits, by which commands of the same hour differ.
const UNIQUE_DIGITS: usize = 5;

/// How long a command may use its queues. Older ones are left by a command of another machine, or from before a restart.
pub const MAX_AGE: Duration = Duration::from_secs(12 * 3600);

/// SNS's error code for a topic that does not exist.
pub(crate) const NO_TOPIC: &str = "NotFound";

/// Calls of a removal that run side by side.
const CALLS_AT_ONCE: usize = 4;

/// The queues of a command, one for each topic. They stay until they are removed.
#[derive(Debug)]
pub struct TemporaryQueues {
    /// Name of each queue, with its topic. Known before a queue is created, so that an interruption leaves none.
    queues: Vec<(String, String)>,
    /// Locked while the command runs. Other commands of this machine see by it that the queues are in use.
    _lock: NamedTempFile,
}

/// The topics of a stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topic {
    /// Events, for programs.
    Events,
    /// Alerts, for people.
    Alerts,
}

impl Topic {
    /// Returns its ARN.
    ///
    /// # Errors
    ///
    /// The stack lacks the output.
    pub fn arn(self, stack: &Stack) -> anyhow::Result<&str> {
        stack.output(match self {
            Self::Events => "EventsTopicArn",
            Self::Alerts => "AlertsTopicArn",
        })
    }

    fn queue(self, prefix: &str, topic: &str) -> String {
        match self {
            // A FIFO topic allows only FIFO queues.
            Self::Events if topic.ends_with(".fifo") => format!("{prefix}-events.fifo"),
            Self::Events => format!("{prefix}-events"),
            Self::Alerts => format!("{prefix}-alerts"),
        }
    }
}

impl TemporaryQueues {
    /// Chooses the names of the queues of some topics, and claims them.
    ///
    /// # Errors
    ///
    /// The stack lacks an output, or the claim cannot be written.
    pub fn claim(stack: &Stack, topics: &[Topic]) -> anyhow::Result<Self> {
        let hour = hour(OffsetDateTime::now_utc());
        let unique: String = Uuid::new_v4().simple().to_string().chars().take(UNIQUE_DIGITS).collect();
        let prefix = format!("{}{MARK}{hour:0HOUR_DIGITS$x}{unique}", stack.name());
        let queue = |topic: &Topic| {
            let arn = topic.arn(stack)?;
            Ok((topic.queue(&prefix, arn), arn.to_owned()))
        };
        let queues = topics.iter().map(queue).collect::<anyhow::Result<_>>()?;
        let name = lock_name(&prefix);
        let lock = tempfile::Builder::new().prefix(&name).rand_bytes(0).tempfile();
        let lock = lock.context("the claim of a temporary queue cannot be written")?;
        lock.as_file().lock().context("the claim of a temporary queue cannot be locked")?;
        Ok(Self { queues, _lock: lock })
    }

    /// Creates the queues, subscribes each to its topic with the same options, and returns their URLs in the order of the topics.
    ///
    /// # Errors
    ///
    /// A command fails.
    pub async fn create(&self, aws: &Aws, options: &[&Value]) -> anyhow::Result<Vec<String>> {
        let queues = self.queues.iter().zip(options).map(|((name, topic), options)| async move {
            let queue = queue::create(aws, name).await?;
            queue::subscribe(aws, &queue, topic, options).await?;
            Ok(queue)
        });
        // All end before any removal begins.
        futures_util::future::join_all(queues).await.into_iter().collect()
    }

    /// Removes the queues and their subscriptions, also after one failed.
    ///
    /// # Errors
    ///
    /// Some are left.
    pub async fn remove(&self, aws: &Aws) -> anyhow::Result<()> {
        remove(aws, &self.queues).await
    }
}

/// Removes the queues of commands that were killed, and says so. A failure is a warning: the command's own work goes on.
pub async fn sweep(aws: &Aws, stack: &Stack) {
    match remove_left(aws, stack).await {
        Ok(0) => {}
        Ok(count) => print(format!("Removed {} of a command that was killed.", pluralize(count, "queue", "queues"))),
        Err(error) => print(warning(format!("queues of a command that was killed may be left. Details: {error:#}"))),
    }
}

/// Removes the queues of commands that were killed. Returns their number.
async fn remove_left(aws: &Aws, stack: &Stack) -> anyhow::Result<usize> {
    let prefix = format!("{}{MARK}", stack.name());
    let listed = aws.json(&["sqs", "list-queues", "--queue-name-prefix", &prefix, "--query", "QueueUrls"]).await?;
    let now = OffsetDateTime::now_utc();
    let names = listed.as_array().into_iter().flatten().filter_map(|url| url.as_str()?.rsplit('/').next());
    let left = names.filter_map(|name| {
        let (prefix, topic) = parse(stack.name(), name)?;
        is_left(prefix, now).then(|| Ok((name.to_owned(), topic.arn(stack)?.to_owned())))
    });
    let left = left.collect::<anyhow::Result<Vec<_>>>()?;
    remove(aws, &left).await?;
    for (prefix, _) in left.iter().filter_map(|(name, _)| parse(stack.name(), name)) {
        match fs::remove_file(lock_path(prefix)) {
            // That of a sibling is removed already, and one of another machine is not here.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            removed => removed.context("the claim of a temporary queue cannot be removed")?,
        }
    }
    Ok(left.len())
}

/// Whether a queue is one of a stack's temporary queues, by its name.
pub fn is_temporary(stack: &str, name: &str) -> bool {
    parse(stack, name).is_some()
}

/// Splits the name of a temporary queue into the part that its siblings share, and its topic.
fn parse<'a>(stack: &str, name: &'a str) -> Option<(&'a str, Topic)> {
    let digits = name.strip_prefix(stack)?.strip_prefix(MARK)?.get(..HOUR_DIGITS + UNIQUE_DIGITS)?;
    let is_hexadecimal = digits.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
    let (prefix, rest) = name.split_at_checked(stack.len() + MARK.len() + digits.len())?;
    let topic = match rest {
        "-events" | "-events.fifo" => Topic::Events,
        "-alerts" => Topic::Alerts,
        _ => return None,
    };
    is_hexadecimal.then_some((prefix, topic))
}

/// Whether no command uses the queues of a prefix any more.
fn is_left(prefix: &str, now: OffsetDateTime) -> bool {
    match File::open(lock_path(prefix)) {
        // The lock ends with its process, however that ends.
        Ok(lock) => !matches!(lock.try_lock_shared(), Err(TryLockError::WouldBlock)),
        Err(_) => age(prefix, now).is_some_and(|age| age > MAX_AGE),
    }
}

/// The time since the hour of a prefix ended.
fn age(prefix: &str, now: OffsetDateTime) -> Option<Duration> {
    let digits = prefix.get(prefix.len().checked_sub(HOUR_DIGITS + UNIQUE_DIGITS)?..)?.get(..HOUR_DIGITS)?;
    let hours = hour(now).checked_sub(u64::from_str_radix(digits, 16).ok()? + 1)?;
    Some(Duration::from_secs(hours * 3600))
}

/// The number of hours since 1970.
fn hour(time: OffsetDateTime) -> u64 {
    u64::try_from(time.unix_timestamp() / 3600).unwrap_or_default()
}

fn lock_name(prefix: &str) -> String {
    format!("{prefix}.lock")
}

fn lock_path(prefix: &str) -> PathBuf {
    std::env::temp_dir().join(lock_name(prefix))
}

/// Removes queues and their subscriptions, also after one failed.
async fn remove(aws: &Aws, queues: &[(String, String)]) -> anyhow::Result<()> {
    let removals = queues.iter().map(|(name, topic)| async move {
        let subscription = remove_subscription(aws, name, topic).await;
        let subscription = subscription.err().map(|error| format!("the subscription of {name} to {topic} ({error:#})"));
        let queue = remove_queue(aws, name).await.err().map(|error| format!("the queue {name} ({error:#})"));
        subscription.into_iter().chain(queue).collect::<Vec<_>>()
    });
    let left: Vec<_> = stream::iter(removals).buffered(CALLS_AT_ONCE).collect().await;
    let left = left.concat();
    ensure!(left.is_empty(), "some temporary resources were not removed. Fix: delete {}", left.join(", "));
    Ok(())
}

/// Removes a queue's subscription to a topic, if it exists.
async fn remove_subscription(aws: &Aws, name: &str, topic: &str) -> anyhow::Result<()> {
    let query = format!("Subscriptions[?ends_with(Endpoint, ':{name}')].SubscriptionArn");
    let found = aws.json(&["sns", "list-subscriptions-by-topic", "--topic-arn", topic, "--query", &query]).await;
    let found = match found {
        // A topic that was deleted has no subscriptions.
        Err(error) if has_code(&error, NO_TOPIC) => return Ok(()),
        found => found?,
    };
    for subscription in found.as_array().into_iter().flatten().filter_map(Value::as_str) {
        aws.run(&["sns", "unsubscribe", "--subscription-arn", subscription]).await?;
    }
    Ok(())
}

/// Deletes a queue, if it exists.
async fn remove_queue(aws: &Aws, name: &str) -> anyhow::Result<()> {
    let Some(queue) = queue::find(aws, name).await? else { return Ok(()) };
    aws.run(&["sqs", "delete-queue", "--queue-url", &queue]).await.map(drop)
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    const NOW: OffsetDateTime = datetime!(2026-05-21 08:30 UTC);

    fn prefix(hours_ago: u64) -> String {
        format!("fan{MARK}{:05x}0a1b2", hour(NOW) - hours_ago)
    }

    #[test]
    fn a_temporary_queue_is_recognized_by_its_name() {
        let prefix = prefix(0);
        for (rest, topic) in [("-events", Topic::Events), ("-events.fifo", Topic::Events), ("-alerts", Topic::Alerts)] {
            assert_eq!(parse("fan", &format!("{prefix}{rest}")), Some((&*prefix, topic)), "{rest}");
        }
        let longest = format!("{}{MARK}{}-events.fifo", "s".repeat(53), "0".repeat(10));
        assert!(longest.len() == 80 && is_temporary(&"s".repeat(53), &longest));
        for other in
            ["fan-tmp-queue", "other-tmp-7962b0a1b2-events", "fan-tmp-7962b0a1b2-other", "fan-tmp-7962g0a1b2-events"]
        {
            assert!(!is_temporary("fan", other), "{other}");
        }
    }

    #[test]
    fn queues_of_another_machine_are_left_when_they_are_too_old() {
        assert_eq!(age(&prefix(0), NOW), None);
        for (hours_ago, is_expected) in [(1, false), (13, false), (14, true), (10_000, true)] {
            assert_eq!(age(&prefix(hours_ago), NOW).is_some_and(|age| age > MAX_AGE), is_expected, "{hours_ago}");
        }
    }

    #[test]
    fn queues_are_left_when_the_command_that_claimed_them_has_ended() -> anyhow::Result<()> {
        let prefix = format!("fan{MARK}{:05x}{}", hour(NOW), &Uuid::new_v4().simple().to_string()[..UNIQUE_DIGITS]);
        let lock = tempfile::Builder::new().prefix(&lock_name(&prefix)).rand_bytes(0).tempfile()?;
        lock.as_file().lock()?;
        assert!(!is_left(&prefix, NOW));
        lock.as_file().unlock()?;
        assert!(is_left(&prefix, NOW));
        drop(lock);
        // A command of another machine may use them.
        assert!(!is_left(&prefix, NOW));
        Ok(())
    }
}
