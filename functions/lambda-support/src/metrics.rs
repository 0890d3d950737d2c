//! Lines of the log that CloudWatch also takes metrics from (embedded metric format).
//!
//! Written here, and not by a metrics library, so that what is pluralize and what is told stand in one line, and nothing
//! global is between the two: a library for the `metrics` facade, such as metrics_cloudwatch_embedded, collects in a
//! recorder of the whole process and writes lines of its own.

use std::{
    collections::BTreeMap,
    fmt,
    io::{self, Write},
    time::{SystemTime, UNIX_EPOCH},
};

use serde::Serialize;

/// Namespace of all metrics.
pub const NAMESPACE: &str = "TableauFanout";

/// The only dimension: more of them would make metrics that nobody looks at, and each is paid for.
const DIMENSION: &str = "FunctionName";

/// A value that CloudWatch is to add to a metric.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Metric {
    /// The metric's name.
    pub name: &'static str,
    /// The value, in `unit`.
    pub value: f64,
    /// What it is pluralize in.
    pub unit: Unit,
}

/// Units of CloudWatch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Unit {
    /// A number of things.
    Count,
    /// A duration.
    Milliseconds,
}

impl Metric {
    /// So many things.
    pub fn count(name: &'static str, value: u32) -> Self {
        Self { name, value: value.into(), unit: Unit::Count }
    }
}

/// A function's own lines: each a JSON object that says something to people and to CloudWatch.
pub struct MetricLog {
    function: String,
    write: Box<dyn Fn(&str) + Send + Sync>,
}

impl fmt::Debug for MetricLog {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("MetricLog").field("function", &self.function).finish_non_exhaustive()
    }
}

#[derive(Serialize)]
struct Line<'a, F> {
    #[serde(rename = "_aws", skip_serializing_if = "Option::is_none")]
    metadata: Option<Metadata>,
    #[serde(rename = "FunctionName")]
    function: &'a str,
    message: String,
    #[serde(flatten)]
    fields: F,
    #[serde(flatten)]
    values: BTreeMap<&'static str, f64>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Metadata {
    /// Milliseconds since 1970.
    timestamp: u128,
    #[serde(rename = "CloudWatchMetrics")]
    directives: [Directive; 1],
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
    unit: Unit,
}

impl MetricLog {
    /// The log of a function, written to standard output, as Lambda takes it.
    pub fn stdout(function: String) -> Self {
        Self::new(function, |line| {
            // A log that cannot be written can be told of nowhere.
            let _ = writeln!(io::stdout().lock(), "{line}");
        })
    }

    /// The log of a function, written line by line to `write`.
    pub fn new(function: String, write: impl Fn(&str) + Send + Sync + 'static) -> Self {
        Self { function, write: Box::new(write) }
    }

    /// Writes a line: a sentence, fields to search by, and metrics. A field must not be called as a metric is.
    pub fn line(&self, message: &dyn fmt::Display, fields: &impl Serialize, metrics: &[Metric]) {
        let timestamp = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let definitions = metrics.iter().map(|Metric { name, unit, .. }| Definition { name, unit: *unit }).collect();
        let directive = Directive { namespace: NAMESPACE, dimensions: [[DIMENSION]], metrics: definitions };
        let line = Line {
            // CloudWatch takes no line for one with metrics that promises none.
            metadata: (!metrics.is_empty()).then_some(Metadata { timestamp, directives: [directive] }),
            function: &self.function,
            message: message.to_string(),
            fields,
            values: metrics.iter().map(|Metric { name, value, .. }| (*name, *value)).collect(),
        };
        (self.write)(&to_json(&line));
    }
}

#[expect(clippy::expect_used, reason = "fields under fixed names can always be written as JSON")]
fn to_json(line: &impl Serialize) -> String {
    serde_json::to_string(line).expect("a line is JSON")
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex, PoisonError};

    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_line_is_the_embedded_metric_format_beside_its_own_fields() {
        let written = Arc::new(Mutex::new(String::new()));
        let write = written.clone();
        let log = MetricLog::new("tableau-fanout-receiver".to_owned(), move |line| {
            write.lock().unwrap_or_else(PoisonError::into_inner).push_str(line);
        });
        let latency = Metric { name: "PublishLatency", value: 12.5, unit: Unit::Milliseconds };
        log.line(&"published", &json!({ "site": "marketing" }), &[Metric::count("Published", 1), latency]);
        let line = written.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut line: Value = serde_json::from_str(&line).expect("JSON");
        let timestamp = line["_aws"]["Timestamp"].take();
        assert!(timestamp.as_u64().is_some_and(|timestamp| timestamp > 1_700_000_000_000), "{timestamp}");
        let expected = json!({
            "_aws": {
                "Timestamp": null,
                "CloudWatchMetrics": [{
                    "Namespace": "TableauFanout",
                    "Dimensions": [["FunctionName"]],
                    "Metrics": [
                        { "Name": "Published", "Unit": "Count" },
                        { "Name": "PublishLatency", "Unit": "Milliseconds" },
                    ],
                }],
            },
            "FunctionName": "tableau-fanout-receiver",
            "message": "published",
            "site": "marketing",
            "Published": 1.0,
            "PublishLatency": 12.5,
        });
        assert_eq!(line, expected);
    }
}
