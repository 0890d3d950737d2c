//! What a person sees while something is done.

use std::{fs, path::Path, time::Instant};

use anyhow::Context;

/// Lines of a log that an error shows: enough for a Python traceback's point.
const TAIL_LINES: usize = 12;

/// Does a step: says what it is, then how long it took, or that it failed.
///
/// # Errors
///
/// The step's own, under its title.
pub async fn step<T>(title: &str, work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    println!("==> {title}");
    let start = Instant::now();
    let result = work.await.with_context(|| format!("this step failed: {title}"))?;
    println!("    done in {:.1} s", start.elapsed().as_secs_f64());
    Ok(result)
}

/// Shows what came out of a step.
pub fn show(text: &str) {
    text.lines().for_each(|line| println!("    {line}"));
}

/// The end of a log.
pub fn tail(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}
