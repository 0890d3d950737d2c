//! Events and alerts of a stack as they arrive.

use std::{collections::BTreeMap, time::Instant};

use anyhow::{Context, ensure};
use futures_util::{Stream, StreamExt, TryStreamExt, stream};
use serde::{Deserialize, Serialize, Serializer, ser::Error};
use serde_json::{Value, json, value::RawValue};
use shared::{
    alerts::{
        data::{AlertData, Severity},
        phrasing::pluralize,
        text::plain,
    },
    events::cloud_event::{SOURCE_PREFIX, TYPE_PREFIX},
    refreshes::{explanation::EXPLAINED, resolution::RESOLVED},
};
use time::OffsetDateTime;

use crate::{
    aws::Aws,
    queue,
    stack::Stack,
    temporary_queues::{MAX_AGE, TemporaryQueues, Topic},
    terminal::{BAD, BOLD, GOOD},
};

pub mod lines;

/// The queues by which a command gets what the stack publishes.
#[derive(Debug)]
pub struct Tail {
    topics: Vec<Topic>,
    queues: TemporaryQueues,
    start: Instant,
}

/// A message that arrived.
#[derive(Clone, Debug, PartialEq)]
pub struct Arrival {
    /// When SNS delivered it.
    pub at: OffsetDateTime,
    /// The message.
    pub message: Message,
}

/// A message of one of the topics.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Message {
    /// An event.
    Event(Event),
    /// An alert.
    Alert(Box<Alert>),
    /// A message that a target got, of a local stack.
    Target(TargetMessage),
    /// A message that is none of them. Everybody with the right to may publish to a topic.
    Other(String),
}

/// A message that a target got.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TargetMessage {
    /// Name of the target.
    pub target: String,
    /// The message in a line.
    pub text: String,
}

/// An event.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Event {
    /// The CloudEvent.
    #[serde(skip)]
    pub envelope: Value,
    /// The CloudEvent as it was published.
    #[serde(rename = "envelope", serialize_with = "as_published")]
    pub body: String,
    /// The message's attributes.
    pub attributes: BTreeMap<String, String>,
}

/// An alert.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Alert {
    /// Subject of the e-mail.
    pub subject: String,
    /// The alert, as programs get it.
    #[serde(flatten)]
    pub data: AlertData,
}

/// The meaning of an event, by which it is coloured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tone {
    /// Something works, or works again.
    Good,
    /// Something failed.
    Bad,
    /// Anything else.
    Plain,
}

/// The part of an event that Tableau sent.
#[derive(Deserialize)]
struct Sent<'a> {
    #[serde(borrow)]
    data: &'a RawValue,
}

impl Tail {
    /// Claims queues for some topics of a stack.
    ///
    /// # Errors
    ///
    /// As [`TemporaryQueues::claim`].
    pub fn claim(stack: &Stack, topics: &[Topic]) -> anyhow::Result<Self> {
        Ok(Self { topics: topics.to_owned(), queues: TemporaryQueues::claim(stack, topics)?, start: Instant::now() })
    }

    /// Checks that the queues may be used still. Nobody shares those of a local cloud.
    ///
    /// # Errors
    ///
    /// They are too old: commands of other machines remove them.
    pub fn expect_young(&self, aws: &Aws) -> anyhow::Result<()> {
        ensure!(
            aws.endpoint().is_some() || self.start.elapsed() < MAX_AGE,
            "the command has run for {} hours, and its queues end. Fix: start it again",
            MAX_AGE.as_secs() / 3600
        );
        Ok(())
    }

    /// Subscribes the queues. Messages that are published from then on arrive.
    ///
    /// # Errors
    ///
    /// A command fails.
    pub async fn open<'a>(
        &'a self,
        aws: &'a Aws,
    ) -> anyhow::Result<impl Stream<Item = anyhow::Result<Arrival>> + Send + 'a> {
        let options = |topic: &Topic| match topic {
            Topic::Events => json!({ "RawMessageDelivery": "true" }),
            Topic::Alerts => json!({}),
        };
        let options: Vec<_> = self.topics.iter().map(options).collect();
        let urls = self.queues.create(aws, &options.iter().collect::<Vec<_>>()).await?;
        let queues = self.topics.clone().into_iter().zip(urls);
        Ok(stream::select_all(queues.map(|(topic, queue)| self.arrivals(aws, topic, queue).boxed())))
    }

    /// Receives the messages of a queue.
    fn arrivals<'a>(
        &'a self,
        aws: &'a Aws,
        topic: Topic,
        queue: String,
    ) -> impl Stream<Item = anyhow::Result<Arrival>> + Send + 'a {
        let batches = stream::try_unfold((queue, Vec::new()), move |(queue, before)| async move {
            self.expect_young(aws)?;
            let messages = queue::receive_after(aws, &queue, &before).await?;
            let mut arrivals: Vec<_> = messages.iter().map(|message| Arrival::parse(topic, message)).collect();
            // A standard queue returns them in any order.
            arrivals.sort_by_key(|arrival| arrival.at);
            anyhow::Ok(Some((stream::iter(arrivals.into_iter().map(anyhow::Ok)), (queue, messages))))
        });
        batches.try_flatten()
    }

    /// Removes the queues.
    ///
    /// # Errors
    ///
    /// Some are left.
    pub async fn close(&self, aws: &Aws) -> anyhow::Result<()> {
        self.queues.remove(aws).await
    }
}

impl Arrival {
    /// Parses a message that a queue of a topic received.
    fn parse(topic: Topic, message: &Value) -> Self {
        let body = message["Body"].as_str().unwrap_or_default();
        let parsed = match topic {
            Topic::Events => Event::parse(body, &message["MessageAttributes"]).map(Message::Event),
            Topic::Alerts => Alert::parse(body).map(|alert| Message::Alert(Box::new(alert))),
        };
        let at = queue::sent_at(message).unwrap_or_else(OffsetDateTime::now_utc);
        Self { at, message: parsed.unwrap_or_else(|| Message::Other(plain(body))) }
    }
}

impl Message {
    /// Its kind, as its member in JSON is called.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Event(_) => "event",
            Self::Alert(_) => "alert",
            Self::Target(_) => "target",
            Self::Other(_) => "other",
        }
    }
}

impl Event {
    fn parse(body: &str, attributes: &Value) -> Option<Self> {
        let envelope: Value = serde_json::from_str(body).ok()?;
        envelope["type"].as_str()?.strip_prefix(TYPE_PREFIX)?;
        let attribute =
            |(name, value): (&String, &Value)| Some((name.clone(), value["StringValue"].as_str()?.to_owned()));
        let attributes = attributes.as_object().into_iter().flatten().filter_map(attribute).collect();
        Some(Self { envelope, attributes, body: body.to_owned() })
    }

    /// Your name for its site.
    pub fn site(&self) -> String {
        without(SOURCE_PREFIX, text(&self.envelope["source"]))
    }

    /// Tableau's name for it, or ours.
    pub fn name(&self) -> String {
        without(TYPE_PREFIX, text(&self.envelope["type"]))
    }

    /// Its identifier.
    pub fn id(&self) -> String {
        text(&self.envelope["id"])
    }

    /// Name of the resource, empty if it is not known.
    pub fn resource_name(&self) -> String {
        text(&self.envelope["data"]["resource_name"])
    }

    /// Tableau's identifier of the resource, empty if it is not known.
    pub fn resource_id(&self) -> String {
        text(&self.envelope["data"]["resource_luid"])
    }

    /// Whether the reconciler recovered it from Tableau's jobs.
    pub fn is_recovered(&self) -> bool {
        self.envelope["recovered"] == true
    }

    /// Its meaning.
    pub fn tone(&self) -> Tone {
        match self.name() {
            name if name.ends_with("Failed") || name == EXPLAINED => Tone::Bad,
            name if name.ends_with("Succeeded") || name == RESOLVED => Tone::Good,
            _ => Tone::Plain,
        }
    }

    /// Formats what the reconciler found out about a resource: its project and owner, how often it had failed until it worked
    /// again, and the reason of its failure. Empty for other events.
    pub fn findings(&self) -> String {
        let data = &self.envelope["data"];
        let text = |value: &Value| value.as_str().map(plain);
        let named = |name: &str| Some(format!("{name} {}", text(&data[name]["name"])?));
        let context: Vec<_> = ["project", "owner"].into_iter().filter_map(named).collect();
        let context = if context.is_empty() { String::new() } else { format!(" ({})", context.join(", ")) };
        let failures = data["failures"].as_u64().and_then(|failures| usize::try_from(failures).ok());
        let failures =
            failures.map(|failures| format!(" works again after {}", pluralize(failures, "failure", "failures")));
        let reason = text(&data["notes"]).map(|notes| format!(": {notes}"));
        let recovered = self.is_recovered().then(|| "  (recovered from Tableau's jobs)".to_owned());
        [Some(context), failures, reason, recovered].into_iter().flatten().collect()
    }

    /// The page of the resource on Tableau, if the reconciler read it.
    pub fn page(&self) -> Option<String> {
        self.envelope["data"]["resource_url"].as_str().map(plain)
    }
}

impl Alert {
    fn parse(body: &str) -> Option<Self> {
        // SNS delivers it with its subject.
        let message: Value = serde_json::from_str(body).ok()?;
        let data = serde_json::from_str(message["Message"].as_str()?).ok()?;
        Some(Self { subject: text(&message["Subject"]), data })
    }

    /// Its meaning.
    pub fn tone(&self) -> Tone {
        match self.data.severity {
            _ if self.data.resolved => Tone::Good,
            Severity::Info => Tone::Plain,
            Severity::Warning | Severity::Error => Tone::Bad,
        }
    }
}

impl Tone {
    /// Its colour in a terminal.
    pub fn style(self) -> anstyle::Style {
        match self {
            Self::Good => GOOD,
            Self::Bad => BAD,
            Self::Plain => BOLD,
        }
    }
}

/// Returns the data of a CloudEvent, byte for byte: of an event that Tableau delivered its payload.
///
/// # Errors
///
/// It is no event.
pub(crate) fn data_of(body: &str) -> anyhow::Result<&str> {
    let Sent { data } = serde_json::from_str(body).context("an event without data")?;
    Ok(data.get())
}

/// Serializes JSON with its members in their order.
pub(crate) fn as_published<S: Serializer>(body: &str, serializer: S) -> Result<S::Ok, S::Error> {
    let body: &RawValue = serde_json::from_str(body).map_err(S::Error::custom)?;
    body.serialize(serializer)
}

/// Returns a text without a prefix, if it has it.
fn without(prefix: &str, text: String) -> String {
    text.strip_prefix(prefix).map(str::to_owned).unwrap_or(text)
}

/// A text on one line. Names of resources are the input of users.
fn text(value: &Value) -> String {
    plain(value.as_str().unwrap_or_default())
}
