//! `cargo bench --package benchmark`: builds the candidates, measures them in turn, and prints tables.

use std::{path::PathBuf, time::Duration};

use anyhow::Context;
use benchmark::{
    candidate::{Candidates, size},
    cloud::Trust,
    instructions::can_be_counted,
    report::{Figures, mebibytes, megabytes, milliseconds, ratio, table},
    round::Bench,
};
use clap::{Parser, ValueEnum};
use infra::workspace::Workspace;

/// How long SNS takes where its latency matters.
const LATENCY: Duration = Duration::from_millis(20);

/// Measures the receiver beside what one would have instead.
#[derive(Debug, Parser)]
#[command(name = "cargo bench --package benchmark --")]
struct Arguments {
    /// What to measure. All, if nothing is named.
    parts: Vec<Part>,
    /// How often each candidate is started.
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// How many events it gets after the first.
    #[arg(long, default_value_t = 300)]
    events: usize,
    /// Take what was built before.
    #[arg(long)]
    no_build: bool,
    /// Measure another build of the receiver beside this one.
    #[arg(long, value_name = "BINARY")]
    other: Option<PathBuf>,
    /// What cargo says to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Start, first event, those that follow, memory and size.
    Latency,
    /// Events a second of one environment.
    Throughput,
    /// Instructions.
    Instructions,
}

#[tokio::main(worker_threads = 2)]
async fn main() -> anyhow::Result<()> {
    let Arguments { parts, rounds, events, no_build, other, bench: _ } = Arguments::parse();
    let workspace = Workspace::locate()?;
    let candidates =
        if no_build { Candidates::built(&workspace, other) } else { Candidates::build(&workspace, other).await? };
    let folder = workspace.local("benchmark")?;
    let bench = Bench::set_up(&workspace, &folder).await?;
    let is_wanted = |part| parts.is_empty() || parts.contains(&part);
    if is_wanted(Part::Latency) {
        latency(&bench, &candidates, rounds, events).await?;
        let reconciler = size(&workspace.built("release/tableau-webhook-reconciler"))?;
        println!("The reconciler: {}, zipped {}\n", megabytes(reconciler.binary), megabytes(reconciler.zipped));
    }
    if is_wanted(Part::Throughput) {
        throughput(&bench, &candidates).await?;
    }
    if is_wanted(Part::Instructions) {
        instructions(&bench, &candidates).await?;
    }
    Ok(())
}

async fn latency(bench: &Bench, candidates: &Candidates, rounds: usize, events: usize) -> anyhow::Result<()> {
    for (trust, title) in [(Trust::One, "one authority"), (Trust::Bundle, "all public authorities besides")] {
        let all = candidates.all();
        let mut measured = vec![Vec::new(); all.len()];
        // The first round brings files into memory and is not pluralize.
        for round in 0..=rounds {
            for (candidate, measured) in all.iter().zip(&mut measured) {
                let result = bench.round(candidate, trust, events).await;
                let result = result.with_context(|| format!("{} failed", candidate.name))?;
                if round > 0 {
                    measured.push(result);
                }
            }
        }
        let figures: Vec<_> = measured.iter().map(|rounds| Figures::of(rounds)).collect();
        let [empty, bare, receivers @ ..] = &figures[..] else { anyhow::bail!("too few candidates") };
        let rows = all
            .iter()
            .zip(&figures)
            .map(|(candidate, figures)| Ok(figures.row(candidate.name, size(&candidate.program)?, empty)));
        println!("Trust store: {title}\n\n{}", table(&Figures::COLUMNS, &rows.collect::<anyhow::Result<Vec<_>>>()?));
        for (receiver, candidate) in receivers.iter().zip(all.iter().skip(2)) {
            let (cold, p50) = (ratio(receiver.cold, empty.cold), ratio(receiver.p50, bare.p50));
            println!("{}: start and first event {cold} times the empty handler's", candidate.name);
            println!("{}: p50 {p50} times the bare publish's\n", candidate.name);
        }
    }
    Ok(())
}

async fn throughput(bench: &Bench, candidates: &Candidates) -> anyhow::Result<()> {
    bench.delay_publishes(LATENCY);
    let mut rows = Vec::new();
    for concurrency in [1, 4, 16, 64] {
        let figures = bench.throughput(&candidates.receiver, concurrency, concurrency * 40).await?;
        rows.push(vec![
            concurrency.to_string(),
            format!("{:.0}", figures.per_second),
            milliseconds(figures.cpu),
            mebibytes(figures.peak_kib),
        ]);
    }
    bench.delay_publishes(Duration::ZERO);
    let columns = ["events at a time", "events a second", "CPU an event", "peak memory"];
    println!("One environment of the receiver while SNS takes {}\n\n{}", milliseconds(LATENCY), table(&columns, &rows));
    Ok(())
}

async fn instructions(bench: &Bench, candidates: &Candidates) -> anyhow::Result<()> {
    if !can_be_counted() {
        println!("Instructions: not measured, since there is no valgrind.\n");
        return Ok(());
    }
    let millions = |count: u64| format!("{:.2}", f64::from(u32::try_from(count).unwrap_or(u32::MAX)) / 1e6);
    let mut rows = Vec::new();
    for candidate in candidates.all() {
        for (trust, stores) in [(Trust::One, "one"), (Trust::Bundle, "all")] {
            let pluralize = bench.instructions(candidate, trust).await?;
            let [start, first, event] = [pluralize.start, pluralize.first, pluralize.event].map(millions);
            rows.push(vec![candidate.name.to_owned(), stores.to_owned(), start, first, event]);
        }
    }
    let columns = ["handler", "authorities", "start", "first event", "each that follows"];
    println!("Millions of instructions\n\n{}", table(&columns, &rows));
    Ok(())
}
