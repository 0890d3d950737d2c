//! Formats the figures of many rounds as tables.

use std::time::Duration;

use crate::{candidate::Size, round::Round};

/// Summary of a candidate's rounds.
#[derive(Clone, Copy, Debug)]
pub struct Figures {
    /// Median of the starts.
    pub start: Duration,
    /// Median of the first events.
    pub first: Duration,
    /// Median of start and first event of the same round.
    pub cold: Duration,
    /// Median of all events but the first.
    pub p50: Duration,
    /// 99th percentile of these.
    pub p99: Duration,
    /// Median of the processor time for an event.
    pub cpu: Duration,
    /// Median of the most memory used, in KiB.
    pub peak_kib: u64,
}

impl Figures {
    /// Summarizes at least one round.
    pub fn of(rounds: &[Round]) -> Self {
        let of = |figure: &dyn Fn(&Round) -> Duration| quantile(rounds.iter().map(figure).collect(), 50);
        let warm = || rounds.iter().flat_map(|round| round.warm.iter().copied()).collect();
        let mut peaks: Vec<_> = rounds.iter().map(|round| round.peak_kib).collect();
        peaks.sort_unstable();
        Self {
            start: of(&|round| round.start),
            first: of(&|round| round.first),
            cold: of(&|round| round.start + round.first),
            p50: quantile(warm(), 50),
            p99: quantile(warm(), 99),
            cpu: of(&|round| round.cpu),
            peak_kib: peaks.get(peaks.len() / 2).copied().unwrap_or_default(),
        }
    }

    /// A row of the main table, with its ratio to the empty handler.
    pub fn row(&self, name: &str, size: Size, empty: &Self) -> Vec<String> {
        vec![
            name.to_owned(),
            milliseconds(self.start),
            milliseconds(self.first),
            milliseconds(self.cold),
            ratio(self.cold, empty.cold),
            milliseconds(self.p50),
            milliseconds(self.p99),
            milliseconds(self.cpu),
            mebibytes(self.peak_kib),
            megabytes(size.binary),
            megabytes(size.zipped),
        ]
    }

    /// Column names of [`Figures::row`].
    pub const COLUMNS: [&str; 11] = [
        "handler",
        "start",
        "first event",
        "together",
        "ratio to empty",
        "p50",
        "p99",
        "CPU per event",
        "peak memory",
        "binary",
        "zip",
    ];
}

/// Returns a percentile.
pub fn quantile(mut values: Vec<Duration>, hundredths: usize) -> Duration {
    values.sort_unstable();
    let last = values.len().saturating_sub(1);
    values.get(last * hundredths / 100).copied().unwrap_or_default()
}

/// Formats a duration.
pub fn milliseconds(duration: Duration) -> String {
    let milliseconds = duration.as_secs_f64() * 1000.0;
    if milliseconds < 10.0 { format!("{milliseconds:.2} ms") } else { format!("{milliseconds:.1} ms") }
}

/// Formats the ratio of two durations.
pub fn ratio(one: Duration, other: Duration) -> String {
    format!("{:.2}", one.as_secs_f64() / other.as_secs_f64())
}

/// Formats a file size.
pub fn megabytes(bytes: u64) -> String {
    format!("{:.2} MB", f64::from(u32::try_from(bytes).unwrap_or(u32::MAX)) / 1e6)
}

/// Formats an amount of memory.
pub fn mebibytes(kib: u64) -> String {
    format!("{:.1} MiB", f64::from(u32::try_from(kib).unwrap_or(u32::MAX)) / 1024.0)
}

/// Formats a Markdown table. All columns but the first hold numbers.
pub fn table(columns: &[&str], rows: &[Vec<String>]) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let names: Vec<_> = columns.iter().map(|&name| name.to_owned()).collect();
    let rule = format!("|---{}|\n", "|---:".repeat(columns.len() - 1));
    line(&names) + &rule + &rows.iter().map(|row| line(row)).collect::<String>()
}
