//! Evaluates alarms as CloudWatch does: reads metrics from log lines and compares them with thresholds. Ministack stores
//! alarms and evaluates none.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
};

use anyhow::{Context, bail};
use serde_json::Value;

/// The identity of a metric.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Metric {
    /// Its namespace: `TableauFanout`, `AWS/Lambda`.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its dimensions: a function's or a queue's name.
    pub dimensions: BTreeMap<String, String>,
}

impl Metric {
    /// A metric with one dimension.
    pub fn of(namespace: &str, name: &str, dimension: &str, value: &str) -> Self {
        let dimensions = BTreeMap::from([(dimension.to_owned(), value.to_owned())]);
        Self { namespace: namespace.to_owned(), name: name.to_owned(), dimensions }
    }
}

/// Values by the minute they were reported in.
#[derive(Clone, Debug, Default)]
pub struct Metrics(BTreeMap<Metric, BTreeMap<u32, Vec<f64>>>);

impl Metrics {
    /// Takes a value.
    pub fn add(&mut self, minute: u32, metric: Metric, value: f64) {
        self.0.entry(metric).or_default().entry(minute).or_default().push(value);
    }

    /// Takes the metrics of a log line in embedded metric format, as if it was written in that minute. Other lines have
    /// none.
    ///
    /// # Errors
    ///
    /// The line declares a metric or a dimension that it does not have: CloudWatch would drop it.
    pub fn add_line(&mut self, minute: u32, line: &str) -> anyhow::Result<()> {
        let Ok(line) = serde_json::from_str::<Value>(line) else { return Ok(()) };
        for directive in line["_aws"]["CloudWatchMetrics"].as_array().into_iter().flatten() {
            let namespace = directive["Namespace"].as_str().context("no namespace")?;
            for names in directive["Dimensions"].as_array().context("no dimensions")? {
                let names = names.as_array().into_iter().flatten().filter_map(Value::as_str);
                let dimensions = names.map(|name| Some((name.to_owned(), line[name].as_str()?.to_owned())));
                let dimensions: BTreeMap<_, _> =
                    dimensions.collect::<Option<_>>().with_context(|| format!("a dimension is missing: {line}"))?;
                for metric in directive["Metrics"].as_array().context("no metrics")? {
                    let name = metric["Name"].as_str().context("a metric without a name")?;
                    let value = line[name].as_f64().with_context(|| format!("{name} is missing: {line}"))?;
                    let dimensions = dimensions.clone();
                    self.add(
                        minute,
                        Metric { namespace: namespace.to_owned(), name: name.to_owned(), dimensions },
                        value,
                    );
                }
            }
        }
        Ok(())
    }

    /// Deletes the values of one function or queue in some minutes.
    pub fn forget(&mut self, dimension_value: &str, minutes: Range<u32>) {
        let of_it = self.0.iter_mut().filter(|(metric, _)| metric.dimensions.values().any(|it| it == dimension_value));
        of_it.for_each(|(_, values)| values.retain(|minute, _| !minutes.contains(minute)));
    }

    /// Returns the metrics that have any value.
    pub fn names(&self) -> impl Iterator<Item = &Metric> {
        self.0.keys()
    }
}

/// The state of an alarm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// Too few values: the first state of every alarm.
    InsufficientData,
    /// The threshold is not breached.
    Ok,
    /// The threshold is breached.
    Alarm,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Statistic {
    Sum,
    Maximum,
    Minimum,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    AtLeast,
    Below,
}

/// The evaluation of a period without data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WithoutData {
    NotBreaching,
    Missing,
    /// The state is kept.
    Ignore,
}

/// An alarm, as it is deployed.
#[derive(Clone, Debug)]
pub struct Alarm {
    /// Its name.
    pub name: String,
    /// Its description.
    pub description: String,
    /// The metric it watches.
    pub metric: Metric,
    statistic: Statistic,
    period_minutes: u32,
    evaluation_periods: u32,
    datapoints_to_alarm: u32,
    comparison: Comparison,
    threshold: f64,
    missing: WithoutData,
    /// The topics that each state is published to.
    actions: BTreeMap<State, Vec<String>>,
}

impl Alarm {
    /// Reads an alarm as `describe-alarms` has it.
    ///
    /// # Errors
    ///
    /// It has a setting that this evaluation does not know.
    pub fn read(alarm: &Value) -> anyhow::Result<Self> {
        let text = |name: &str| alarm[name].as_str().with_context(|| format!("no {name}: {alarm}"));
        let number = |name: &str| {
            let number = alarm[name].as_u64().and_then(|number| u32::try_from(number).ok());
            number.with_context(|| format!("no {name}: {alarm}"))
        };
        let dimensions = alarm["Dimensions"].as_array().into_iter().flatten().filter_map(|dimension| {
            Some((dimension["Name"].as_str()?.to_owned(), dimension["Value"].as_str()?.to_owned()))
        });
        let actions = [
            (State::Alarm, "AlarmActions"),
            (State::Ok, "OKActions"),
            (State::InsufficientData, "InsufficientDataActions"),
        ];
        let actions = actions.map(|(state, name)| {
            let targets = alarm[name].as_array().into_iter().flatten().filter_map(Value::as_str);
            (state, targets.map(str::to_owned).collect())
        });
        Ok(Self {
            name: text("AlarmName")?.to_owned(),
            description: text("AlarmDescription")?.to_owned(),
            metric: Metric {
                namespace: text("Namespace")?.to_owned(),
                name: text("MetricName")?.to_owned(),
                dimensions: dimensions.collect(),
            },
            statistic: match text("Statistic")? {
                "Sum" => Statistic::Sum,
                "Maximum" => Statistic::Maximum,
                "Minimum" => Statistic::Minimum,
                other => bail!("no statistic of ours: {other}"),
            },
            period_minutes: number("Period")? / 60,
            evaluation_periods: number("EvaluationPeriods")?,
            datapoints_to_alarm: match alarm["DatapointsToAlarm"] {
                Value::Null => number("EvaluationPeriods")?,
                _ => number("DatapointsToAlarm")?,
            },
            comparison: match text("ComparisonOperator")? {
                "GreaterThanOrEqualToThreshold" => Comparison::AtLeast,
                "LessThanThreshold" => Comparison::Below,
                other => bail!("no comparison of ours: {other}"),
            },
            threshold: alarm["Threshold"].as_f64().with_context(|| format!("no threshold: {alarm}"))?,
            missing: match text("TreatMissingData")? {
                "notBreaching" => WithoutData::NotBreaching,
                "missing" => WithoutData::Missing,
                "ignore" => WithoutData::Ignore,
                other => bail!("no treatment of missing data of ours: {other}"),
            },
            actions: actions.into(),
        })
    }

    /// Returns the topics of all states.
    pub fn targets(&self) -> BTreeSet<&str> {
        self.actions.values().flatten().map(String::as_str).collect()
    }

    /// Returns the changes of state within some minutes, from the creation of the alarm on.
    pub fn changes(&self, metrics: &Metrics, minutes: Range<u32>) -> Vec<(u32, State)> {
        let mut state = State::InsufficientData;
        let mut changes = Vec::new();
        for minute in minutes {
            let next = self.state(metrics, minute, state);
            if next != state && !self.actions[&next].is_empty() {
                changes.push((minute, next));
            }
            state = next;
        }
        changes
    }

    /// Returns the state at the beginning of a minute, after an earlier one. CloudWatch reads a little more than the alarm's periods when data is
    /// missing, and does not document how much. This reads the periods alone.
    fn state(&self, metrics: &Metrics, now: u32, before: State) -> State {
        let values = metrics.0.get(&self.metric);
        let datapoints = (0..self.evaluation_periods).map(|period| {
            let end = now.checked_sub(period * self.period_minutes)?;
            let range = end.saturating_sub(self.period_minutes)..end;
            let mut values = values?.range(range).flat_map(|(_, values)| values).copied().peekable();
            values.peek()?;
            Some(match self.statistic {
                Statistic::Sum => values.sum(),
                Statistic::Maximum => values.fold(f64::MIN, f64::max),
                Statistic::Minimum => values.fold(f64::MAX, f64::min),
            })
        });
        let datapoints: Vec<f64> = datapoints.flatten().collect();
        let count = |points: usize| u32::try_from(points).unwrap_or(u32::MAX);
        let breaching = datapoints.iter().filter(|datapoint| match self.comparison {
            Comparison::AtLeast => **datapoint >= self.threshold,
            Comparison::Below => **datapoint < self.threshold,
        });
        let breaching = count(breaching.count());
        let missing = self.evaluation_periods - count(datapoints.len());
        match self.missing {
            WithoutData::Ignore if datapoints.is_empty() => before,
            WithoutData::NotBreaching | WithoutData::Ignore if breaching >= self.datapoints_to_alarm => State::Alarm,
            WithoutData::Ignore if breaching > 0 && breaching + missing >= self.datapoints_to_alarm => before,
            WithoutData::NotBreaching | WithoutData::Ignore => State::Ok,
            WithoutData::Missing if datapoints.is_empty() => State::InsufficientData,
            // The values that exist decide, even if they are fewer than the alarm needs.
            WithoutData::Missing if breaching > 0 && breaching + missing >= self.datapoints_to_alarm => State::Alarm,
            WithoutData::Missing => State::Ok,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn alarm(change: &Value) -> Alarm {
        let mut alarm = json!({ "AlarmName": "alarm", "AlarmDescription": "", "Namespace": "N", "MetricName": "M",
            "Dimensions": [{ "Name": "FunctionName", "Value": "f" }], "Statistic": "Maximum", "Period": 60,
            "EvaluationPeriods": 3, "ComparisonOperator": "GreaterThanOrEqualToThreshold", "Threshold": 1.0,
            "TreatMissingData": "missing", "AlarmActions": ["alerts"] });
        for (name, value) in change.as_object().expect("members") {
            alarm[name] = value.clone();
        }
        Alarm::read(&alarm).expect("an alarm")
    }

    /// A minute each: nothing, or a value.
    fn metrics(minutes: &str) -> Metrics {
        let mut metrics = Metrics::default();
        for (minute, value) in (0..).zip(minutes.chars()) {
            if let Some(value) = value.to_digit(10) {
                metrics.add(minute, Metric::of("N", "M", "FunctionName", "f"), value.into());
            }
        }
        metrics
    }

    #[test]
    fn the_state_is_that_of_cloudwatchs_own_examples() {
        // Of three periods three have to breach; the newest is the last one.
        for (minutes, missing, not_breaching) in [
            ("---", State::InsufficientData, State::Ok),
            ("--0", State::Ok, State::Ok),
            ("1-1", State::Alarm, State::Ok),
            ("-1-", State::Alarm, State::Ok),
            ("01-", State::Ok, State::Ok),
            ("111", State::Alarm, State::Alarm),
            ("011", State::Ok, State::Ok),
        ] {
            let after = |before: State, treatment: &str| {
                alarm(&json!({ "TreatMissingData": treatment })).state(&metrics(minutes), 3, before)
            };
            let at_the_end = |treatment: &str| after(State::Ok, treatment);
            assert_eq!((at_the_end("missing"), at_the_end("notBreaching")), (missing, not_breaching), "{minutes}");
            // Where the values do not decide, the state is kept.
            let [kept, decided] = [State::Alarm, State::Ok].map(|before| after(before, "ignore"));
            let is_undecided = ["---", "1-1", "-1-"].contains(&minutes);
            assert_eq!(kept != decided, is_undecided, "{minutes}");
        }
    }

    #[test]
    fn only_a_change_is_told_and_only_where_somebody_is_to_hear_it() {
        let one = json!({ "EvaluationPeriods": 1, "TreatMissingData": "notBreaching" });
        assert_eq!(alarm(&one).changes(&metrics("01100"), 0..6), [(2, State::Alarm)]);
        let both = json!({ "EvaluationPeriods": 1, "InsufficientDataActions": ["alerts"], "OKActions": ["alerts"] });
        let changes = [(1, State::Ok), (2, State::Alarm), (3, State::InsufficientData)];
        assert_eq!(alarm(&both).changes(&metrics("01-"), 0..5), changes);
    }

    #[test]
    fn a_sum_is_that_of_a_period() {
        let sum = json!({ "EvaluationPeriods": 1, "Period": 180, "Statistic": "Sum", "Threshold": 6.0 });
        assert_eq!(alarm(&sum).changes(&metrics("2212"), 0..5), []);
        assert_eq!(alarm(&sum).changes(&metrics("2122-"), 0..6), []);
        assert_eq!(alarm(&sum).changes(&metrics("12222"), 0..6), [(4, State::Alarm)]);
    }

    #[test]
    fn a_line_that_promises_more_than_it_has_is_an_error() {
        let mut line = json!({ "_aws": { "CloudWatchMetrics": [{ "Namespace": "N", "Dimensions": [["FunctionName"]],
            "Metrics": [{ "Name": "M" }] }] }, "FunctionName": "f", "M": 1.0 });
        let mut metrics = Metrics::default();
        assert!(metrics.add_line(0, "START RequestId: 1").is_ok() && metrics.add_line(0, &line.to_string()).is_ok());
        assert_eq!(metrics.names().collect::<Vec<_>>(), [&Metric::of("N", "M", "FunctionName", "f")]);
        for member in ["M", "FunctionName"] {
            line[member] = Value::Null;
            assert!(metrics.add_line(0, &line.to_string()).is_err(), "{line}");
        }
    }
}
