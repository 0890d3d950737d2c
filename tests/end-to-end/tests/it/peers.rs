//! Programs that others wrote: Tableau's own Python client against the simulator, the linter against the template.

use std::path::Path;

use axum::http::StatusCode;
use end_to_end::destination::Destination;
use infra::{python::PythonTools, workspace::Workspace};
use tableau_simulator::{
    model::{Oddities, TestBody},
    server::Simulator,
};
use tokio::process::Command;

fn tools(workspace: &Workspace) -> anyhow::Result<PythonTools> {
    PythonTools::install(workspace, "test-tools", &workspace.file("tests/requirements.txt"))
}

/// Runs a program and returns what it printed, be it out or error.
async fn printed(program: &Path, arguments: &[&str]) -> anyhow::Result<String> {
    let output = Command::new(program).args(arguments).env("NO_PROXY", "127.0.0.1").output().await?;
    let printed = [output.stdout, output.stderr].concat();
    let printed = String::from_utf8_lossy(&printed).into_owned();
    anyhow::ensure!(output.status.success(), "{} failed: {printed}", program.display());
    Ok(printed)
}

#[tokio::test]
async fn tableaus_own_python_client_takes_the_simulator_for_tableau() -> anyhow::Result<()> {
    let workspace = Workspace::locate()?;
    let tools = tools(&workspace)?;
    let destination = Destination::answering(StatusCode::OK).await?;
    for test_body in [TestBody::Empty, TestBody::Text, TestBody::Json] {
        let tableau = Simulator::start(Some(destination.address.clone())).await?;
        let oddities = Oddities { test_body, ..Oddities::default() };
        tableau.simulator.world().add_site("marketing", "peer", "peer-secret").oddities = oddities;
        let script = workspace.file("tests/end-to-end/tests/it/peer.py");
        let server = format!("http://{}", tableau.address);
        let script = script.to_string_lossy();
        let printed =
            printed(&tools.program("python3"), &[&script, &server, "marketing", "peer", "peer-secret"]).await?;
        assert_eq!(printed, "all as expected\n");
        let world = tableau.simulator.world();
        assert!(world.sites.values().all(|site| site.webhooks.is_empty() && !site.has_session()));
    }
    let bodies: Vec<_> = destination.received().into_iter().map(|(_, body)| body).collect();
    assert_eq!(bodies.len(), 3);
    assert!(bodies[0].is_empty() && bodies[1].starts_with("This is") && bodies[2].contains(r#""Test""#), "{bodies:?}");
    Ok(())
}

#[tokio::test]
async fn the_linter_finds_nothing_in_the_templates() -> anyhow::Result<()> {
    let workspace = Workspace::locate()?;
    let linter = tools(&workspace)?.program("cfn-lint");
    let templates = ["infra/template.yaml", "infra/examples/sqs-subscriber.yaml"].map(|path| workspace.file(path));
    let templates = templates.iter().map(|path| path.to_string_lossy()).collect::<Vec<_>>();
    let templates: Vec<_> = templates.iter().map(AsRef::as_ref).collect();
    assert_eq!(printed(&linter, &templates).await?, "");
    Ok(())
}
