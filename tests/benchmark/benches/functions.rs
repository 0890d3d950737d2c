//! `cargo bench --package benchmark`: builds the candidates, measures them in turn, and prints tables.

use std::{path::PathBuf, time::Duration};

use anyhow::Context;
use benchmark::{
    candidate::{Candidate, Candidates, Events, size},
    cloud::Trust,
    instructions::can_be_counted,
    report::{Figures, mebibytes, megabytes, milliseconds, quantile, ratio, table},
    round::Bench,
};
use clap::{Parser, ValueEnum};
use infra::workspace::Workspace;

/// Latency of SNS and of the target in the throughput tables.
const LATENCY: Duration = Duration::from_millis(20);

/// Measures the receiver beside the alternatives.
#[derive(Debug, Parser)]
#[command(name = "cargo bench --package benchmark --")]
struct Arguments {
    /// Parts to measure; all if none is named.
    parts: Vec<Part>,
    /// Number of starts of each candidate.
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Number of events after the first.
    #[arg(long, default_value_t = 300)]
    events: usize,
    /// Use the binaries of an earlier build.
    #[arg(long)]
    no_build: bool,
    /// Measure another build of the receiver beside this one.
    #[arg(long, value_name = "BINARY")]
    other: Option<PathBuf>,
    /// Flag that cargo passes to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Start, first event, later events, memory and size.
    Latency,
    /// Events per second of one execution environment.
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
    for (trust, title) in [(Trust::One, "one CA certificate"), (Trust::Bundle, "that and all public CA certificates")] {
        let all = candidates.all();
        let mut measured = vec![Vec::new(); all.len()];
        // The first round brings files into memory and is not counted.
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
        let [empty, bare, _, receivers @ ..] = &figures[..] else { anyhow::bail!("too few candidates") };
        let rows = all
            .iter()
            .zip(&figures)
            .map(|(candidate, figures)| Ok(figures.row(candidate.name, size(&candidate.program)?, empty)));
        println!("Trust store: {title}\n\n{}", table(&Figures::COLUMNS, &rows.collect::<anyhow::Result<Vec<_>>>()?));
        for (receiver, candidate) in receivers.iter().zip(all.iter().skip(3)) {
            let (cold, p50) = (ratio(receiver.cold, empty.cold), ratio(receiver.p50, bare.p50));
            println!("{}: start and first event {cold} times the empty handler's", candidate.name);
            println!("{}: p50 {p50} times the bare publish's\n", candidate.name);
        }
    }
    Ok(())
}

async fn throughput(bench: &Bench, candidates: &Candidates) -> anyhow::Result<()> {
    bench.delay_messages(LATENCY);
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
    bench.delay_messages(Duration::ZERO);
    let columns = ["concurrent events", "events per second", "CPU per event", "peak memory"];
    println!("One environment of the receiver while SNS takes {}\n\n{}", milliseconds(LATENCY), table(&columns, &rows));
    forwarded(bench, &candidates.forwarder).await
}

/// Measures batches of ten messages, which one environment sends one after another.
async fn forwarded(bench: &Bench, forwarder: &Candidate) -> anyhow::Result<()> {
    const MESSAGES: usize = 10;

    let forwarder = Candidate { events: Events::Forwarded(MESSAGES), ..forwarder.clone() };
    let mut rows = Vec::new();
    for latency in [Duration::ZERO, LATENCY, LATENCY * 10] {
        bench.delay_messages(latency);
        let batch = quantile(bench.round(&forwarder, Trust::One, 20).await?.warm, 50);
        let per_second = f64::from(u32::try_from(MESSAGES)?) / batch.as_secs_f64();
        rows.push(vec![milliseconds(latency), format!("{per_second:.0}")]);
    }
    bench.delay_messages(Duration::ZERO);
    let columns = ["the target takes", "messages per second"];
    println!("One environment of the forwarder\n\n{}", table(&columns, &rows));
    Ok(())
}

async fn instructions(bench: &Bench, candidates: &Candidates) -> anyhow::Result<()> {
    if !can_be_counted() {
        println!("Instructions: not measured, because valgrind is not installed.\n");
        return Ok(());
    }
    let millions = |count: u64| format!("{:.2}", f64::from(u32::try_from(count).unwrap_or(u32::MAX)) / 1e6);
    let mut rows = Vec::new();
    for candidate in candidates.all() {
        for (trust, stores) in [(Trust::One, "one"), (Trust::Bundle, "all")] {
            let count = bench.instructions(candidate, trust).await?;
            let [start, first, event] = [count.start, count.first, count.event].map(millions);
            rows.push(vec![candidate.name.to_owned(), stores.to_owned(), start, first, event]);
        }
    }
    let columns = ["handler", "CA certificates", "start", "first event", "each later event"];
    println!("Millions of instructions\n\n{}", table(&columns, &rows));
    Ok(())
}
