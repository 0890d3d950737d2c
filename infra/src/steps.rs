//! Progress of a command on the terminal.

use std::{fs, path::Path, time::Instant};

/// Lines of a log that an error quotes. A Python traceback names its cause in the last few.
const TAIL_LINES: usize = 12;

/// Runs a step. Prints its title first, then how long it took and whether it failed.
///
/// # Errors
///
/// As the step.
pub async fn step<T>(title: &str, work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    println!("==> {title}");
    let start = Instant::now();
    let result = work.await;
    let outcome = if result.is_ok() { "done in" } else { "failed after" };
    println!("    {outcome} {:.1} s", start.elapsed().as_secs_f64());
    result
}

/// Prints the output of a step.
pub fn show(text: &str) {
    text.lines().for_each(|line| println!("    {line}"));
}

/// Reads the last lines of a log.
pub fn tail(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}
