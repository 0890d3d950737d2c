//! Lines of the log that CloudWatch also takes metrics from (embedded metric format).
//!
//! Written here, since a library for the `metrics` facade, such as metrics_cloudwatch_embedded, writes lines of its own
//! beside the log, from a recorder of the whole process.

use std::{collections::BTreeMap, fmt, time::Duration};

use serde::Serialize;
use time::OffsetDateTime;
use tracing::Level;

use crate::{
    log_line::{Writer, log_line, stdout},
    logging::request_id,
};

/// Namespace of all metrics.
pub const NAMESPACE: &str = "TableauFanout";

/// The dimension of most metrics: each value of another is a metric that is paid for.
const FUNCTION: &str = "FunctionName";

/// The dimension of metrics about a queue, as SQS's own have it.
const QUEUE: &str = "QueueName";

/// A value that CloudWatch adds to a metric. Units are left out: they are optional, and would take 22 bytes of each line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metric {
    /// The metric's name.
    pub name: &'static str,
    /// A count, or milliseconds.
    pub value: u64,
}

impl Metric {
    /// A number of things.
    pub fn count(name: &'static str, value: u32) -> Self {
        Self { name, value: value.into() }
    }

    /// A duration, in whole milliseconds.
    pub fn milliseconds(name: &'static str, value: Duration) -> Self {
        let value = value.saturating_add(Duration::from_micros(500)).as_millis();
        Self { name, value: value.try_into().unwrap_or(u64::MAX) }
    }
}

/// Metrics about a queue. Each queue has its own.
#[derive(Clone, Copy, Debug)]
pub struct QueueMetrics<'a> {
    /// Name of the queue.
    pub queue: &'a str,
    /// The metrics.
    pub metrics: &'a [Metric],
}

/// A function's own lines, of which some carry metrics.
pub struct MetricLog {
    function: String,
    write: Writer,
}

impl fmt::Debug for MetricLog {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("MetricLog").field("function", &self.function).finish_non_exhaustive()
    }
}

/// The members of a line.
#[derive(Serialize)]
struct Members<'a, F> {
    #[serde(flatten)]
    fields: &'a F,
    #[serde(flatten)]
    metrics: Option<Metrics<'a>>,
}

#[derive(Serialize)]
struct Metrics<'a> {
    #[serde(rename = "FunctionName")]
    function: &'a str,
    #[serde(rename = "QueueName", skip_serializing_if = "Option::is_none")]
    queue: Option<&'a str>,
    #[serde(flatten)]
    values: BTreeMap<&'static str, u64>,
    #[serde(rename = "_aws")]
    metadata: Metadata,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Metadata {
    /// Milliseconds since 1970.
    timestamp: i64,
    #[serde(rename = "CloudWatchMetrics")]
    directives: Vec<Directive>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Directive {
    namespace: &'static str,
    dimensions: [[&'static str; 1]; 1],
    metrics: Vec<Definition>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Definition {
    name: &'static str,
}

impl MetricLog {
    /// The log of a function, written to standard output, as Lambda takes it.
    pub fn stdout(function: String) -> Self {
        Self { function, write: stdout() }
    }

    /// The log of a function, written line by line to `write`.
    pub fn new(function: String, write: impl Fn(&str) + Send + Sync + 'static) -> Self {
        Self { function, write: Box::new(write) }
    }

    /// Writes a line about the invocation that runs now: a sentence, if it says more than the fields, and metrics. No
    /// field has the name of a metric.
    pub fn line(&self, level: Level, message: Option<&str>, fields: &impl Serialize, metrics: &[Metric]) {
        let now = OffsetDateTime::now_utc();
        self.write(now, level, message, &Members { fields, metrics: self.metrics(now, metrics, None) });
    }

    /// Writes the same without a sentence, and with metrics about a queue.
    pub fn line_about(&self, level: Level, fields: &impl Serialize, metrics: &[Metric], queue: QueueMetrics<'_>) {
        let now = OffsetDateTime::now_utc();
        self.write(now, level, None, &Members { fields, metrics: self.metrics(now, metrics, Some(queue)) });
    }

    fn write(&self, now: OffsetDateTime, level: Level, message: Option<&str>, members: &impl Serialize) {
        (self.write)(&log_line(now, level, request_id().as_deref(), message, members));
    }

    /// Returns the members of metrics, `None` for no metric: CloudWatch reports a line that defines none as an error.
    fn metrics<'a>(
        &'a self,
        now: OffsetDateTime,
        metrics: &[Metric],
        queue: Option<QueueMetrics<'a>>,
    ) -> Option<Metrics<'a>> {
        let of_queue = queue.map(|queue| queue.metrics).unwrap_or_default();
        let directives =
            [(FUNCTION, metrics), (QUEUE, of_queue)].into_iter().filter(|(_, metrics)| !metrics.is_empty());
        let directives: Vec<_> = directives
            .map(|(dimension, metrics)| Directive {
                namespace: NAMESPACE,
                dimensions: [[dimension]],
                metrics: metrics.iter().map(|Metric { name, .. }| Definition { name }).collect(),
            })
            .collect();
        let timestamp = now.unix_timestamp() * 1000 + i64::from(now.millisecond());
        (!directives.is_empty()).then(|| Metrics {
            function: &self.function,
            queue: queue.map(|queue| queue.queue),
            values: metrics.iter().chain(of_queue).map(|Metric { name, value }| (*name, *value)).collect(),
            metadata: Metadata { timestamp, directives },
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex, PoisonError};

    use serde_json::{Value, json};

    use super::*;

    /// Returns what a function writes.
    fn written(write: impl FnOnce(&MetricLog)) -> Value {
        let written = Arc::new(Mutex::new(String::new()));
        let line = written.clone();
        write(&MetricLog::new("tableau-fanout-receiver".to_owned(), move |text| {
            line.lock().unwrap_or_else(PoisonError::into_inner).push_str(text);
        }));
        let line = written.lock().unwrap_or_else(PoisonError::into_inner).clone();
        serde_json::from_str(&line).expect("JSON")
    }

    #[test]
    fn metrics_about_a_queue_have_its_name_as_their_dimension() {
        let oldest = [Metric { name: "OldestUndelivered", value: 0 }];
        let about = QueueMetrics { queue: "tableau-fanout-target-chat", metrics: &oldest };
        let line = written(|log| log.line_about(Level::INFO, &json!({}), &[Metric::count("Forwarded", 1)], about));
        let directive = |dimension: &str, metric: &str| {
            let metrics = json!([{ "Name": metric }]);
            json!({ "Namespace": "TableauFanout", "Dimensions": [[dimension]], "Metrics": metrics })
        };
        let directives = [directive("FunctionName", "Forwarded"), directive("QueueName", "OldestUndelivered")];
        assert_eq!(line["_aws"]["CloudWatchMetrics"], json!(directives));
        assert_eq!(
            (&line["QueueName"], &line["OldestUndelivered"], &line["Forwarded"]),
            (&json!("tableau-fanout-target-chat"), &json!(0), &json!(1))
        );
        let line = written(|log| log.line_about(Level::INFO, &json!({}), &[], about));
        assert_eq!(line["_aws"]["CloudWatchMetrics"], json!([directives[1]]));
    }

    #[test]
    fn a_line_is_the_embedded_metric_format_beside_its_own_fields() {
        let latency = Metric::milliseconds("PublishLatency", Duration::from_micros(12_500));
        let fields = json!({ "site": "marketing" });
        let metrics = [Metric::count("Published", 1), latency];
        let mut line = written(|log| log.line(Level::INFO, Some("published"), &fields, &metrics));
        let time = line["timestamp"].take();
        assert!(time.as_str().is_some_and(|time| time.ends_with('Z')), "{time}");
        let timestamp = line["_aws"]["Timestamp"].take();
        assert!(timestamp.as_u64().is_some_and(|timestamp| timestamp > 1_700_000_000_000), "{timestamp}");
        let expected = json!({
            "_aws": {
                "Timestamp": null,
                "CloudWatchMetrics": [{
                    "Namespace": "TableauFanout",
                    "Dimensions": [["FunctionName"]],
                    "Metrics": [
                        { "Name": "Published" },
                        { "Name": "PublishLatency" },
                    ],
                }],
            },
            "timestamp": null,
            "level": "INFO",
            "FunctionName": "tableau-fanout-receiver",
            "message": "published",
            "site": "marketing",
            "Published": 1,
            "PublishLatency": 13,
        });
        assert_eq!(line, expected);
    }
}
