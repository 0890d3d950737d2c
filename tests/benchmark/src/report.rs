//! Figures of many rounds, as tables.

use std::time::Duration;

use crate::{candidate::Size, round::Round};

/// What the rounds of a candidate come to.
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
    /// What one in a hundred of these takes longer than.
    pub p99: Duration,
    /// Median of the processor time for an event.
    pub cpu: Duration,
    /// Median of the most memory used, in KiB.
    pub peak_kib: u64,
}

impl Figures {
    /// Sums rounds up, of which there is at least one.
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

    /// What [`Figures::row`] has in its columns.
    pub const COLUMNS: [&str; 11] = [
        "handler",
        "start",
        "first event",
        "together",
        "of the empty",
        "p50",
        "p99",
        "CPU an event",
        "peak memory",
        "binary",
        "zip",
    ];
}

/// So many hundredths of the values are at most this.
pub fn quantile(mut values: Vec<Duration>, hundredths: usize) -> Duration {
    values.sort_unstable();
    let last = values.len().saturating_sub(1);
    values.get(last * hundredths / 100).copied().unwrap_or_default()
}

/// For people.
pub fn milliseconds(duration: Duration) -> String {
    let milliseconds = duration.as_secs_f64() * 1000.0;
    if milliseconds < 10.0 { format!("{milliseconds:.2} ms") } else { format!("{milliseconds:.1} ms") }
}

/// How many times the other.
pub fn ratio(one: Duration, other: Duration) -> String {
    format!("{:.2}", one.as_secs_f64() / other.as_secs_f64())
}

/// A size of a file.
pub fn megabytes(bytes: u64) -> String {
    format!("{:.2} MB", f64::from(u32::try_from(bytes).unwrap_or(u32::MAX)) / 1e6)
}

/// An amount of memory.
pub fn mebibytes(kib: u64) -> String {
    format!("{:.1} MiB", f64::from(u32::try_from(kib).unwrap_or(u32::MAX)) / 1024.0)
}

/// A table in Markdown. All columns but the first are numbers.
pub fn table(columns: &[&str], rows: &[Vec<String>]) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let names: Vec<_> = columns.iter().map(|&name| name.to_owned()).collect();
    let rule = format!("|---{}|\n", "|---:".repeat(columns.len() - 1));
    line(&names) + &rule + &rows.iter().map(|row| line(row)).collect::<String>()
}
