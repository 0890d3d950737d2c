//! Progress of a command on the terminal.

use std::{
    fs,
    path::Path,
    pin::pin,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::timeout;

use crate::terminal::{BAD, BOLD, DIM, print, print_error, styled};

/// Lines of a log that an error quotes. A Python traceback names its cause in the last few.
const TAIL_LINES: usize = 12;

/// How long a step runs before a terminal shows that it is still running.
const SPINNER_DELAY: Duration = Duration::from_secs(2);

/// Time between two pictures of the spinner.
const SPINNER_INTERVAL: Duration = Duration::from_millis(120);

/// The shortest time of a step that is shown: the first that is not rounded to 0.0 s.
const WORTH_A_LINE: Duration = Duration::from_millis(50);

/// The spinner of the step that runs now.
static SPINNER: Mutex<Option<ProgressBar>> = Mutex::new(None);

/// Runs a step. Prints its title first, then whether it failed, and how long it took. In a terminal a spinner shows that a long
/// step is still running.
///
/// # Errors
///
/// As the step.
pub async fn step<T>(title: &str, work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    step_of_program(title, with_spinner(work)).await
}

/// Runs work without a title. In a terminal a spinner shows that long work is still running.
pub async fn with_spinner<T>(work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    match timeout(SPINNER_DELAY, &mut work).await {
        Ok(result) => result,
        Err(_) => {
            let _spinner = Spinner::start();
            work.await
        }
    }
}

/// As [`step`], for the step of a program that prints its own progress.
///
/// # Errors
///
/// As the step.
pub async fn step_of_program<T>(title: &str, work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    print(styled(BOLD, format!("==> {title}")));
    let start = Instant::now();
    let result = work.await;
    let elapsed = start.elapsed();
    match &result {
        Ok(_) if elapsed < WORTH_A_LINE => {}
        Ok(_) => show(&styled(DIM, format!("done in {:.1} s", elapsed.as_secs_f64()))),
        Err(_) => show(&styled(BAD, format!("failed after {:.1} s", elapsed.as_secs_f64()))),
    }
    result
}

/// Prints the output of a step.
pub fn show(text: &str) {
    without_spinner(|| text.lines().for_each(|line| print(format!("    {line}"))));
}

/// Prints a command before it runs.
pub fn show_command(command: &str) {
    without_spinner(|| print_error(styled(DIM, command)));
}

/// Prints while no spinner is drawn.
fn without_spinner(print: impl FnOnce()) {
    match &*SPINNER.lock().unwrap_or_else(PoisonError::into_inner) {
        Some(spinner) => spinner.suspend(print),
        None => print(),
    }
}

/// Shows that a step is running, until it is dropped. Draws nothing where standard error is no terminal.
struct Spinner;

impl Spinner {
    fn start() -> Self {
        let bar = ProgressBar::new_spinner().with_elapsed(SPINNER_DELAY);
        if let Ok(style) = ProgressStyle::with_template("    {spinner} {elapsed}") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(SPINNER_INTERVAL);
        *SPINNER.lock().unwrap_or_else(PoisonError::into_inner) = Some(bar);
        Self
    }
}

impl Drop for Spinner {
    fn drop(&mut self) {
        if let Some(bar) = SPINNER.lock().unwrap_or_else(PoisonError::into_inner).take() {
            bar.finish_and_clear();
        }
    }
}

/// Reads the last lines of a log.
pub fn tail(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}
