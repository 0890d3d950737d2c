//! `cargo bench --package benchmark`: builds the candidates, measures them in turn, and prints tables.

use std::time::Duration;

use anyhow::Context;
use benchmark::{
    candidate::{Candidate, Candidates, size},
    cloud::Trust,
    instructions::can_be_counted,
    report::{Figures, mebibytes, megabytes, milliseconds, quantile, ratio, table},
    round::{Bench, Round},
    share::Share,
};
use clap::{Parser, ValueEnum};
use infra::workspace::Workspace;

/// How long SNS takes where its latency matters.
const LATENCY: Duration = Duration::from_millis(20);

/// Lambda's prices in US East for arm64: a GB-second, and a million requests.
const GB_SECOND: f64 = 0.000_013_333_4;
const MILLION_REQUESTS: f64 = 0.20;

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
    /// What cargo says to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Start, first event, those that follow, memory and size.
    Latency,
    /// The same with a small function's share of a processor, and what that costs.
    Memory,
    /// Events a second of one environment.
    Throughput,
    /// Instructions.
    Instructions,
}

#[tokio::main(worker_threads = 2)]
async fn main() -> anyhow::Result<()> {
    let Arguments { parts, rounds, events, no_build, bench: _ } = Arguments::parse();
    let workspace = Workspace::locate()?;
    let candidates = if no_build { Candidates::built(&workspace)? } else { Candidates::build(&workspace).await? };
    let folder = workspace.local("benchmark")?;
    let bench = Bench::set_up(&workspace, &folder).await?;
    let is_wanted = |part| parts.is_empty() || parts.contains(&part);
    if is_wanted(Part::Latency) {
        latency(&bench, &candidates, rounds, events).await?;
        let reconciler = size(&workspace.built("release/tableau-webhook-reconciler"))?;
        println!("The reconciler: {}, zipped {}\n", megabytes(reconciler.binary), megabytes(reconciler.zipped));
    }
    if is_wanted(Part::Memory) {
        memory(&bench, &candidates, rounds, events).await?;
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
        // The first round brings files into memory and is not counted.
        for round in 0..=rounds {
            for (candidate, measured) in all.iter().zip(&mut measured) {
                let result = bench.round(candidate, trust, None, events).await;
                let result = result.with_context(|| format!("{} failed", candidate.name))?;
                if round > 0 {
                    measured.push(result);
                }
            }
        }
        let figures: Vec<_> = measured.iter().map(|rounds| Figures::of(rounds)).collect();
        let [empty, bare, receiver, _, python] = figures[..] else { anyhow::bail!("five candidates") };
        let rows = all
            .iter()
            .zip(&figures)
            .map(|(candidate, figures)| Ok(figures.row(candidate.name, candidate.size()?, &empty)));
        println!("Trust store: {title}\n\n{}", table(&Figures::COLUMNS, &rows.collect::<anyhow::Result<Vec<_>>>()?));
        println!("receiver, start and first event, of the empty handler's: {}", ratio(receiver.cold, empty.cold));
        println!("receiver, p50, of the bare publish's: {}", ratio(receiver.p50, bare.p50));
        println!("Python handler, start and first event, of the receiver's: {}\n", ratio(python.cold, receiver.cold));
    }
    Ok(())
}

/// Rounds of one candidate with a share of a processor.
async fn with_share(
    bench: &Bench,
    candidate: &Candidate,
    megabytes: u64,
    rounds: usize,
    events: usize,
) -> anyhow::Result<Vec<Round>> {
    let mut measured = Vec::new();
    for _ in 0..rounds {
        let share = Share::of_memory(megabytes)?;
        measured.push(bench.round(candidate, Trust::One, Some(&share), events).await?);
    }
    Ok(measured)
}

async fn memory(bench: &Bench, candidates: &Candidates, rounds: usize, events: usize) -> anyhow::Result<()> {
    if let Err(error) = Share::of_memory(128) {
        println!("With a small function's share of a processor: not measured, since {error:#}.\n");
        return Ok(());
    }
    let mut rows = Vec::new();
    for candidate in candidates.all() {
        let mut row = vec![candidate.name.to_owned()];
        for memory in [128, 256, 512] {
            let figures = Figures::of(&with_share(bench, candidate, memory, rounds, events.min(50)).await?);
            row.extend([milliseconds(figures.first), milliseconds(figures.p50)]);
        }
        rows.push(row);
    }
    let columns = ["handler", "128 MB: first event", "p50", "256 MB: first event", "p50", "512 MB: first event", "p50"];
    println!("With a function's share of a processor after its start\n\n{}", table(&columns, &rows));

    bench.delay_publishes(LATENCY);
    let mut rows = Vec::new();
    for candidate in [&candidates.receiver, &candidates.usual, &candidates.python] {
        for memory in [128_u16, 256, 512] {
            let measured = with_share(bench, candidate, memory.into(), rounds.min(3), events.min(100)).await?;
            let warm: Vec<_> = measured.iter().flat_map(|round| round.warm.clone()).collect();
            // Lambda bills each event by the millisecond, begun ones included.
            let billed: f64 = warm.iter().map(|took| (took.as_secs_f64() * 1000.0).ceil()).sum();
            let billed = billed / f64::from(u32::try_from(warm.len())?);
            let gigabytes = f64::from(memory) / 1024.0;
            let time = billed * 1000.0 * gigabytes * GB_SECOND;
            rows.push(vec![
                candidate.name.to_owned(),
                format!("{memory} MB"),
                milliseconds(Figures::of(&measured).first),
                milliseconds(quantile(warm, 50)),
                format!("{billed:.1} ms"),
                format!("{time:.2} $"),
                format!("{:.2} $", time + MILLION_REQUESTS),
            ]);
        }
    }
    bench.delay_publishes(Duration::ZERO);
    let columns = ["handler", "memory", "first event", "p50", "billed", "time of a million", "with the requests"];
    println!("The same while SNS takes {}\n\n{}", milliseconds(LATENCY), table(&columns, &rows));
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
    for candidate in [&candidates.empty, &candidates.bare, &candidates.receiver, &candidates.usual] {
        for (trust, stores) in [(Trust::One, "one"), (Trust::Bundle, "all")] {
            let counted = bench.instructions(candidate, trust).await?;
            let [start, first, event] = [counted.start, counted.first, counted.event].map(millions);
            rows.push(vec![candidate.name.to_owned(), stores.to_owned(), start, first, event]);
        }
    }
    let columns = ["handler", "authorities", "start", "first event", "each that follows"];
    println!("Millions of instructions\n\n{}", table(&columns, &rows));
    Ok(())
}
