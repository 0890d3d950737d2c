//! The functions' log besides their own lines: what Lambda's runtime and the SDK have to say.

use std::str::FromStr;

use tracing::level_filters::LevelFilter;

/// Has warnings, errors and the like written to standard output as Lambda is configured to take them, which `lookup`
/// tells by variable name. As `lambda_runtime` would have it, but for a filter by module: that takes regular
/// expressions, a twentieth of a package.
pub fn init(lookup: impl Fn(&str) -> Option<String>) {
    let level = lookup("AWS_LAMBDA_LOG_LEVEL").or_else(|| lookup("RUST_LOG"));
    let level = level.and_then(|level| LevelFilter::from_str(&level).ok()).unwrap_or(LevelFilter::INFO);
    let log = tracing_subscriber::fmt().with_target(false).without_time().with_max_level(level);
    if lookup("AWS_LAMBDA_LOG_FORMAT").is_some_and(|format| format.eq_ignore_ascii_case("json")) {
        log.json().init();
    } else {
        log.init();
    }
}
