//! Alarms of CloudWatch as alerts.

use serde::Deserialize;
use time::{OffsetDateTime, macros::format_description};

use crate::{
    alerts::{
        data::{AlertData, AlertKind, AlertResource, Severity},
        phrasing::on_date,
        text::Text,
    },
    events::id::EventId,
};

/// The most characters of an alarm's name and of its texts (CloudWatch API reference, `PutMetricAlarm` and `MetricAlarm`).
const MAX_NAME_CHARACTERS: usize = 255;
const MAX_TEXT_CHARACTERS: usize = 1024;

/// The notification that CloudWatch publishes when the state of an alarm changes, as far as it is used.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Alarm {
    alarm_name: String,
    alarm_description: Option<String>,
    new_state_value: AlarmState,
    old_state_value: Option<AlarmState>,
    new_state_reason: Option<String>,
    state_change_time: Option<String>,
    /// Left out by a composite alarm.
    trigger: Option<Trigger>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum AlarmState {
    Ok,
    Alarm,
    InsufficientData,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Trigger {
    /// Those of the metric. Left out by an alarm on an expression.
    #[serde(default)]
    dimensions: Vec<Dimension>,
}

#[derive(Deserialize)]
struct Dimension {
    name: String,
    value: String,
}

/// Kind of the resource of an alarm about a queue.
pub(crate) const QUEUE: &str = "queue";

/// The alarm has no visible name.
pub(crate) struct NoName;

impl TryFrom<Alarm> for AlertData {
    type Error = NoName;

    fn try_from(alarm: Alarm) -> Result<Self, NoName> {
        let line = |text: &str, max| Text::from(text.to_owned()).title(max);
        let name = line(&alarm.alarm_name, MAX_NAME_CHARACTERS);
        if name.is_empty() {
            return Err(NoName);
        }
        let at = alarm.state_change_time.as_deref().and_then(parse_time).map(on_date).unwrap_or_default();
        let (severity, headline, verb) = match (alarm.new_state_value, alarm.old_state_value) {
            (AlarmState::Alarm, _) => (Severity::Error, "alarm", "began"),
            (AlarmState::InsufficientData, _) => (Severity::Warning, "alarm without data", "ran out of data"),
            // So does every new alarm that tells its end.
            (AlarmState::Ok, Some(AlarmState::InsufficientData)) => {
                (Severity::Info, "quiet: alarm", "has data and is quiet")
            }
            (AlarmState::Ok, _) => (Severity::Info, "solved: alarm", "ended"),
        };
        let resolved = matches!(alarm.new_state_value, AlarmState::Ok);
        let text = |text: &Option<String>| line(text.as_deref().unwrap_or_default(), MAX_TEXT_CHARACTERS);
        // The description of an alarm has its effect and the fix. At its end nothing is left to do.
        let description = if resolved { String::new() } else { text(&alarm.alarm_description) };
        let mut lines = vec![format!("The CloudWatch alarm {name} {verb}{at}."), description];
        lines
            .extend(Some(text(&alarm.new_state_reason)).filter(|it| !it.is_empty()).map(|it| format!("Details: {it}")));
        lines.retain(|line| !line.is_empty());
        Ok(Self {
            kind: AlertKind::Alarm,
            severity,
            title: format!("{headline}: {name}"),
            text: lines.join("\n"),
            next_steps: Vec::new(),
            links: Vec::new(),
            site: None,
            sites: Vec::new(),
            resource: alarm.queue().map(|queue| AlertResource {
                kind: QUEUE.to_owned(),
                id: queue.to_owned(),
                name: None,
                project: None,
            }),
            event_id: alarm.id().to_string(),
            thread: name,
            resolved,
        })
    }
}

impl Alarm {
    /// Returns the queue that a metric of SQS is about, or one of the forwarder with the same dimension.
    fn queue(&self) -> Option<&str> {
        let mut dimensions = self.trigger.as_ref()?.dimensions.iter();
        dimensions.find(|dimension| dimension.name == "QueueName").map(|dimension| dimension.value.as_str())
    }

    /// Returns an identifier, which is the same if CloudWatch publishes a change of state twice.
    fn id(&self) -> EventId {
        let state = match self.new_state_value {
            AlarmState::Ok => "OK",
            AlarmState::Alarm => "ALARM",
            AlarmState::InsufficientData => "INSUFFICIENT_DATA",
        };
        let time = self.state_change_time.as_deref().unwrap_or_default();
        EventId::of(["alarm", &self.alarm_name, state, time].map(str::as_bytes))
    }
}

/// Reads a time as CloudWatch writes it: RFC 3339, but for the missing colon in the offset.
fn parse_time(text: &str) -> Option<OffsetDateTime> {
    let format = format_description!(
        "[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond][offset_hour sign:mandatory][offset_minute]"
    );
    OffsetDateTime::parse(text, format).ok()
}
