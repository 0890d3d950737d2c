//! Checks that the benchmark measures. It asserts no figures, since machines differ.

use benchmark::{
    candidate::{Candidate, Events, size},
    cloud::Trust,
    report::{Figures, table},
    round::Bench,
};
use infra::{functions, workspace::Workspace};

#[tokio::test]
async fn a_round_has_figures_for_every_column() -> anyhow::Result<()> {
    let workspace = Workspace::locate()?;
    // A debug build will do: its speed does not matter here.
    functions::build(&workspace).await?;
    let receiver = Candidate {
        name: "receiver",
        program: workspace.built("debug/tableau-webhook-receiver"),
        arguments: Vec::new(),
        events: Events::Published,
    };
    let folder = tempfile::tempdir()?;
    let bench = Bench::set_up(&workspace, folder.path()).await?;
    let mut rounds = Vec::new();
    for trust in [Trust::One, Trust::Bundle] {
        rounds.push(bench.round(&receiver, trust, 3).await?);
    }
    let figures = Figures::of(&rounds);
    let table = table(&Figures::COLUMNS, &[figures.row("receiver", size(&receiver.program)?, &figures)]);
    println!("{table}");
    assert!(rounds.iter().all(|round| round.warm.len() == 3 && round.cpu.as_nanos() > 0 && round.peak_kib > 0));
    assert_eq!(table.matches('|').count(), 3 * (Figures::COLUMNS.len() + 1));

    let forwarder = Candidate {
        name: "forwarder",
        program: workspace.built("debug/tableau-webhook-forwarder"),
        events: Events::Forwarded(2),
        ..receiver.clone()
    };
    assert_eq!(bench.round(&forwarder, Trust::One, 3).await?.warm.len(), 3);

    let throughput = bench.throughput(&receiver, 2, 4).await?;
    assert!(throughput.per_second > 0.0);
    Ok(())
}
