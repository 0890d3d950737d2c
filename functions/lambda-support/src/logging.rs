//! Writes what the function, Lambda's runtime and the SDK report through `tracing` as lines of the function's log.

use std::{error::Error, fmt, panic, process::ExitCode, str::FromStr, time::Duration};

use serde_json::{Map, Value};
use time::OffsetDateTime;
use tracing::{
    Event, Level, Metadata, Span, Subscriber,
    field::{Field, Visit},
    level_filters::LevelFilter,
    span,
};
use tracing_subscriber::{
    Layer, Registry,
    layer::{Context, SubscriberExt},
    registry::LookupSpan,
    util::SubscriberInitExt,
};

use crate::{
    error_chain,
    log_line::{Writer, log_line, stdout},
};

/// Name of the field that Lambda's runtime sets in the span of an invocation.
const REQUEST_ID: &str = "requestId";

/// Starts the log, at the level that Lambda sets in a variable, which `lookup` returns by name. A panic is a line of it.
pub fn init(lookup: impl Fn(&str) -> Option<String>) {
    let level = lookup("AWS_LAMBDA_LOG_LEVEL").or_else(|| lookup("RUST_LOG"));
    let level = level.and_then(|level| LevelFilter::from_str(&level).ok()).unwrap_or(LevelFilter::INFO);
    tracing_subscriber::registry().with(LogLayer { level, write: stdout() }).init();
    panic::set_hook(Box::new(|panic| tracing::error!("{panic}")));
}

/// Logs that the environment is ready, and the version that it runs. Lambda's own report of a successful start is below the
/// level of the stack's logs.
pub fn log_start(duration: Duration) {
    let version = env!("CARGO_PKG_VERSION");
    tracing::info!(init_ms = duration.as_millis(), version, "The environment is ready");
}

/// Returns the exit code of a function that ended, and logs its error with the causes.
pub fn exit_code(result: Result<(), impl fmt::Display>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Returns the request id of the invocation that runs now.
pub(crate) fn request_id() -> Option<String> {
    let of_span = |(id, dispatch): (&span::Id, &tracing::Dispatch)| {
        let mut scope = dispatch.downcast_ref::<Registry>()?.span(id)?.scope();
        scope.find_map(|span| Some(span.extensions().get::<Fields>()?.0.get(REQUEST_ID)?.as_str()?.to_owned()))
    };
    Span::current().with_subscriber(of_span).flatten()
}

/// Writes each event as a line, with the fields of the spans around it.
struct LogLayer {
    level: LevelFilter,
    write: Writer,
}

/// Fields by name.
#[derive(Debug, Default)]
struct Fields(Map<String, Value>);

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for LogLayer {
    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        // The span of an invocation has the request id for lines of every level.
        let is_span_of_invocations = metadata.is_span() && *metadata.level() <= Level::INFO;
        is_span_of_invocations || *metadata.level() <= self.level
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.level.max(LevelFilter::INFO))
    }

    fn on_new_span(&self, attributes: &span::Attributes<'_>, id: &span::Id, context: Context<'_, S>) {
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        if let Some(span) = context.span(id) {
            span.extensions_mut().insert(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = Fields::default();
        for span in context.event_scope(event).into_iter().flat_map(|scope| scope.from_root()) {
            if let Some(Fields(of_span)) = span.extensions().get() {
                fields.0.extend(of_span.clone());
            }
        }
        event.record(&mut fields);
        // X-Ray knows its traces by the request id.
        fields.0.remove("xrayTraceId");
        let [request_id, message] = [REQUEST_ID, "message"].map(|name| fields.0.remove(name));
        let [request_id, message] = [&request_id, &message].map(|value| value.as_ref().and_then(Value::as_str));
        (self.write)(&log_line(OffsetDateTime::now_utc(), *event.metadata().level(), request_id, message, &fields.0));
    }
}

impl Fields {
    fn insert(&mut self, field: &Field, value: impl Into<Value>) {
        self.0.insert(field.name().to_owned(), value.into());
    }
}

impl Visit for Fields {
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.insert(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.insert(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.insert(field, value);
    }

    fn record_u128(&mut self, field: &Field, value: u128) {
        self.insert(field, u64::try_from(value).ok());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.insert(field, value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.insert(field, value);
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        self.insert(field, error_chain(value));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.insert(field, format!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::{Arc, Mutex, PoisonError},
    };

    use serde_json::json;

    use super::*;

    /// Returns the lines that are logged at a level in an invocation, without their times.
    fn logged(level: LevelFilter, act: impl FnOnce()) -> Vec<Value> {
        let lines = Arc::<Mutex<Vec<Value>>>::default();
        let written = lines.clone();
        let write: Writer = Box::new(move |line| {
            let mut line: Value = serde_json::from_str(line).expect("JSON");
            let time = line["timestamp"].take();
            assert!(
                OffsetDateTime::parse(time.as_str().expect("a time"), &time::format_description::well_known::Rfc3339)
                    .is_ok()
            );
            written.lock().unwrap_or_else(PoisonError::into_inner).push(line);
        });
        tracing::subscriber::with_default(tracing_subscriber::registry().with(LogLayer { level, write }), || {
            tracing::info_span!("invocation", requestId = "r1", xrayTraceId = "x1").in_scope(act);
        });
        lines.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    #[test]
    fn an_event_is_one_flat_line_with_the_fields_of_its_spans() {
        let lines = logged(LevelFilter::INFO, || {
            let error = io::Error::other(io::Error::other("the cause"));
            let error = &error as &(dyn Error + 'static);
            tracing::error_span!("site", site = "marketing").in_scope(|| {
                tracing::warn!(error, attempt = 2_u64, wait_ms = 1_u128, "the call failed");
            });
            tracing::debug!("not written");
        });
        let expected = json!({ "timestamp": null, "level": "WARN", "requestId": "r1", "message": "the call failed",
            "site": "marketing", "error": "the cause", "attempt": 2, "wait_ms": 1 });
        assert_eq!(lines, [expected]);
    }

    #[test]
    fn the_request_id_is_known_at_every_level() {
        for level in [LevelFilter::OFF, LevelFilter::ERROR, LevelFilter::INFO, LevelFilter::TRACE] {
            assert_eq!(logged(level, || assert_eq!(request_id().as_deref(), Some("r1"))), [] as [Value; 0]);
        }
        assert_eq!(request_id(), None);
    }
}
