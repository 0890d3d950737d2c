//! Cuts off runs of the reconciler, as a crash or a timeout of the function does.

use std::{fmt, future::poll_fn, mem, pin::pin, task::Poll};

/// A point of a run: after it did a number of things.
#[derive(Clone, Copy, Debug)]
pub(super) struct Point {
    /// The counted actions: all, or those that begin with this text.
    pub(super) of: Option<&'static str>,
    pub(super) done: usize,
}

/// The point at which a run is cut off. It has no effect on a run that ends earlier.
///
/// A run yields before and after each thing it does, so the numbers together reach every point between two of them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Crash {
    pub(super) point: Point,
    /// How often the run is polled after that.
    pub(super) polls: usize,
}

/// Everything done since a time, by a run and by one beside it: calls to Tableau, parameters and items read and stored,
/// messages published.
#[derive(Debug, Default)]
pub(super) struct Done {
    names: Vec<String>,
    /// How much of it came from each source. The first source is the recorder, the others are the sites.
    counts: Vec<usize>,
}

impl Crash {
    /// Awaits a run until it ends or is cut off. `read` updates what was done.
    ///
    /// # Errors
    ///
    /// The run was cut off: what was done until then.
    pub(super) async fn cut_off<T>(self, run: impl Future<Output = T>, read: impl Fn(&mut Done)) -> Result<T, Done> {
        let Self { point, mut polls } = self;
        let (mut run, mut seen) = (pin!(run), Done::default());
        read(&mut seen);
        let before = seen.count(point.of);
        poll_fn(|context| {
            read(&mut seen);
            let is_due = seen.count(point.of) >= before + point.done;
            if !is_due || polls > 0 {
                if let Poll::Ready(result) = run.as_mut().poll(context) {
                    return Poll::Ready(Ok(result));
                }
                polls -= usize::from(is_due);
            }
            // Not at the next poll, which comes with the answer to what this one may have sent.
            if is_due && polls == 0 {
                read(&mut seen);
                return Poll::Ready(Err(mem::take(&mut seen)));
            }
            Poll::Pending
        })
        .await
    }
}

impl fmt::Display for Point {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { of, done } = self;
        write!(formatter, "{}number {done}", of.map_or_else(String::new, |of| format!("{of:?} ")))
    }
}

impl fmt::Display for Crash {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { point, polls } = self;
        write!(formatter, "cut off {polls} polls after {point}")
    }
}

impl Done {
    /// Adds what a source did since the last time. `all` is everything it did.
    pub(super) fn read(&mut self, source: usize, all: &[impl AsRef<str>]) {
        self.counts.resize(self.counts.len().max(source + 1), 0);
        self.names.extend(all.iter().skip(self.counts[source]).map(|name| without_id(name.as_ref())));
        self.counts[source] = all.len();
    }

    /// Counts what begins with a text, or everything.
    pub(super) fn count(&self, of: Option<&str>) -> usize {
        self.names.iter().filter(|name| of.is_none_or(|of| name.starts_with(of))).count()
    }

    /// Counts the calls to Tableau.
    pub(super) fn calls(&self) -> usize {
        self.counts.iter().skip(1).sum()
    }

    /// Returns what was done last.
    pub(super) fn last(&self) -> &str {
        self.names.last().map_or("nothing", String::as_str)
    }
}

/// Returns a call without the identifier of a webhook or job, so that calls of one kind have one name.
pub(super) fn without_id(call: &str) -> String {
    let mut segments: Vec<_> = call.split('/').collect();
    if let Some(id) = segments.get_mut(3) {
        *id = "{id}";
    }
    segments.join("/")
}
