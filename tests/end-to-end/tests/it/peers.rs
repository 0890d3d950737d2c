//! Independent programs: Tableau's Python client with the simulator, the CloudEvents SDK with the published messages, the
//! linter and the scanner with the templates, two checkers with the files for GitHub, and packages of services' makers with the
//! messages for targets.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context;
use axum::http::StatusCode;
use end_to_end::destination::Destination;
use infra::{python::PythonTools, sample, workspace::Workspace};
use proptest::{collection::vec, prelude::*, strategy::ValueTree, test_runner::TestRunner};
use serde_json::{Value, json};
use shared::{
    events::delivery::Delivery,
    refreshes::{
        context::FailureContext,
        explanation::Explanation,
        failing::FailingResources,
        job::{Refresh, RefreshOutcome, RefreshedKind, RefreshedResource},
        notes::Notes,
    },
    registration::{
        claim::Registration,
        keyring::{KEY_BYTES, Keyring},
    },
};
use tableau_simulator::{
    model::{Oddities, TestBody},
    server::Simulator,
};
use time::OffsetDateTime;
use tokio::process::Command;

fn tools(workspace: &Workspace) -> anyhow::Result<PythonTools> {
    PythonTools::install(workspace, "test-tools", &workspace.file("tests/requirements.txt"))
}

/// Runs a program. Returns its output and errors.
async fn printed(program: &Path, arguments: &[&str]) -> anyhow::Result<String> {
    let output = Command::new(program).args(arguments).env("NO_PROXY", "127.0.0.1").output().await?;
    let printed = [output.stdout, output.stderr].concat();
    let printed = String::from_utf8_lossy(&printed).into_owned();
    anyhow::ensure!(output.status.success(), "{} failed: {printed}", program.display());
    Ok(printed)
}

#[tokio::test]
async fn tableaus_python_client_works_with_the_simulator() -> anyhow::Result<()> {
    let workspace = Workspace::locate()?;
    let tools = tools(&workspace)?;
    let destination = Destination::answering(StatusCode::OK).await?;
    for test_body in [TestBody::Empty, TestBody::Text, TestBody::Json] {
        let tableau = Simulator::start(Some(destination.address.clone())).await?;
        let oddities = Oddities { test_body, ..Oddities::default() };
        tableau.simulator.world().add_site("marketing", "peer", "peer-secret").oddities = oddities;
        let refresh = json!({ "site": "marketing", "kind": "workbook", "name": "A & B", "luid": "99",
            "outcome": "failed", "notes": "Login failed for user 'x'." });
        tableau.simulator.refresh(&serde_json::from_value(refresh)?).await;
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

/// Returns the paths of the templates for CloudFormation: the stack's, that of a target, and the examples.
fn templates(workspace: &Workspace) -> anyhow::Result<Vec<PathBuf>> {
    let mut templates = ["infra/template.yaml", "infra/target.yaml"].map(|path| workspace.file(path)).to_vec();
    for example in fs::read_dir(workspace.file("infra/examples"))? {
        templates.push(example?.path());
    }
    templates.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    Ok(templates)
}

#[tokio::test]
async fn the_linter_finds_nothing_in_the_templates() -> anyhow::Result<()> {
    let workspace = Workspace::locate()?;
    let linter = tools(&workspace)?.program("cfn-lint");
    let templates = templates(&workspace)?;
    let templates = templates.iter().map(|path| path.to_string_lossy()).collect::<Vec<_>>();
    let templates: Vec<_> = templates.iter().map(AsRef::as_ref).collect();
    assert_eq!(printed(&linter, &templates).await?, "");
    Ok(())
}

#[tokio::test]
async fn the_makers_packages_accept_the_messages_for_targets() -> anyhow::Result<()> {
    let workspace = Workspace::locate()?;
    let tools = PythonTools::install(&workspace, "presets", &workspace.file("tests/presets/requirements.txt"))?;
    let script = workspace.file("tests/presets/check.py");
    let packages = workspace.local("presets-node")?;
    let arguments = [script.to_string_lossy(), packages.to_string_lossy()];
    let printed = printed(&tools.program("python3"), &arguments.each_ref().map(AsRef::as_ref)).await?;
    let begins: Vec<_> = printed.lines().filter_map(|line| line.split_once(": ")).map(|(begin, _)| begin).collect();
    assert_eq!(begins, ["Slack", "Teams", "Apps Script", "Standard Webhooks"], "{printed}");
    Ok(())
}

#[tokio::test]
async fn the_files_for_github_are_valid_and_the_workflows_secure() -> anyhow::Result<()> {
    let workspace = Workspace::locate()?;
    let tools = tools(&workspace)?;
    let folder = |name: &str| {
        let files = fs::read_dir(workspace.file(".github").join(name))?;
        files.map(|file| Ok(file?.path())).collect::<anyhow::Result<Vec<_>>>()
    };
    let dependabot = workspace.file(".github/dependabot.yml");
    let (config, forms) = folder("ISSUE_TEMPLATE")?.into_iter().partition(|path| path.ends_with("config.yml"));
    for (schema, files) in [
        ("vendor.github-workflows", folder("workflows")?),
        ("vendor.github-issue-forms", forms),
        ("vendor.github-issue-config", config),
        ("vendor.dependabot", vec![dependabot]),
    ] {
        let files: Vec<_> = files.iter().map(|path| path.to_string_lossy()).collect();
        let mut arguments = vec!["--builtin-schema", schema];
        arguments.extend(files.iter().map(AsRef::as_ref));
        printed(&tools.program("check-jsonschema"), &arguments).await?;
    }
    printed(&tools.program("zizmor"), &["--offline", &workspace.file(".github").to_string_lossy()]).await?;
    Ok(())
}

#[tokio::test]
async fn the_scanner_finds_only_problems_that_are_waived_with_a_reason() -> anyhow::Result<()> {
    let workspace = Workspace::locate()?;
    let requirements = workspace.file("tests/scanner-requirements.txt");
    let scanner = PythonTools::install(&workspace, "scanner", &requirements)?.program("checkov");
    let templates = templates(&workspace)?;
    // Without a user's settings and without network.
    let empty = tempfile::TempDir::new()?;
    let mut scan = Command::new(scanner);
    scan.args(["--framework", "cloudformation", "--skip-download", "--soft-fail", "--output", "json", "--file"]);
    scan.args(&templates).current_dir(&empty).env("HOME", empty.path()).env_remove("BC_API_KEY");
    let output = scan.output().await?;
    let report: Value = serde_json::from_slice(&output.stdout)
        .with_context(|| format!("no report: {}", String::from_utf8_lossy(&output.stderr)))?;
    let checks = |member: &str| report["results"][member].as_array().cloned().unwrap_or_default();
    let named = |check: &Value| {
        let text = |member: &str| check[member].as_str().unwrap_or_default();
        format!("{}, {}: {} ({})", text("file_path"), text("resource"), text("check_name"), text("check_id"))
    };
    assert_eq!(checks("failed_checks").iter().map(named).collect::<Vec<_>>(), Vec::<String>::new());
    let (passed, waived) = (checks("passed_checks"), checks("skipped_checks"));
    let reason = |check: &Value| check["check_result"]["suppress_comment"].as_str().unwrap_or_default().trim().len();
    let without_reason: Vec<_> = waived.iter().filter(|check| reason(check) < 20).map(named).collect();
    assert_eq!(without_reason, Vec::<String>::new());
    // It ignores templates that it cannot read, and waivers of checks that it does not make.
    let mut waivers = 0;
    for template in &templates {
        let name = template.file_name().and_then(|name| name.to_str()).context("a template without a name")?;
        let is_of_it = |check: &&Value| check["file_path"].as_str().is_some_and(|path| path.ends_with(name));
        assert!(passed.iter().chain(&waived).any(|check| is_of_it(&check)), "{name} was not read");
        waivers += fs::read_to_string(template)?.matches("checkov:skip=").count();
    }
    assert_eq!(waived.len(), waivers);
    Ok(())
}

#[test]
fn the_template_has_no_chat_channel_which_an_account_has_only_once() -> anyhow::Result<()> {
    // An account has one configuration for a Slack channel. A second one would fail the whole stack.
    let template = fs::read_to_string(Workspace::locate()?.file("infra/template.yaml"))?;
    assert!(!template.contains("AWS::Chatbot::"));
    Ok(())
}

/// Returns the receiver's message for a body.
fn message(event: &str, body: &[u8]) -> anyhow::Result<String> {
    let verified = sample::verified(&sample::registration(event)?, &Keyring::of([7; KEY_BYTES]))?;
    let delivery = Delivery::read(&verified, body);
    Ok(delivery.message(delivery.id("request"))?.body)
}

/// Returns the messages about a job.
fn messages_of_a_refresh() -> anyhow::Result<Vec<String>> {
    let refresh = Refresh {
        job_id: "a1b2".to_owned(),
        resource: RefreshedResource { kind: RefreshedKind::Workbook, luid: "99".to_owned(), name: None },
        started_at: None,
        ended_at: OffsetDateTime::UNIX_EPOCH,
        outcome: RefreshOutcome::Failed,
        notes: Notes::redacted("Login failed for user."),
    };
    let registration = Registration { site: "marketing".parse()?, event: "WorkbookRefreshFailed".parse()? };
    let recovered = refresh.recovered_event(&registration, "site").context("no event")?;
    let explanation = Explanation::new(refresh, FailureContext::default(), &FailingResources::default());
    let explained = explanation.event(&registration.site, "site").context("no event")?;
    Ok(vec![recovered.body, explained.body])
}

/// Returns bodies of every kind: recorded, odd, and generated.
fn bodies() -> anyhow::Result<Vec<Vec<u8>>> {
    const GENERATED: usize = 300;
    let mut bodies = Vec::new();
    for payload in fs::read_dir(Workspace::locate()?.file("tests/payloads"))? {
        bodies.push(fs::read(payload?.path())?);
    }
    for odd in [&b""[..], b"{}", b"null", b"\xff\xfe", br#"{"a":1,"a":2}"#, br#"{"event_type":"Test"}"#, b"\"\\ud800\""]
    {
        bodies.push(odd.to_owned());
    }
    for time in ["2026-05-21T08:00:00Z", "2026-05-21T23:59:60Z", "2026-05-21 08:00:00Z", "2026-05-21t08:00:00z", ""] {
        bodies.push(json!({ "created_at": time, "resource_luid": time }).to_string().into());
    }
    let text = ".{0,40}";
    let generated = prop_oneof![
        vec(any::<u8>(), 0..100),
        text.prop_map(String::into_bytes),
        (text, text, text).prop_map(|(luid, name, time)| {
            json!({ "resource_luid": luid, "resource_name": name, "created_at": time }).to_string().into_bytes()
        }),
    ];
    let mut runner = TestRunner::deterministic();
    for _ in 0..GENERATED {
        let body = generated.new_tree(&mut runner).map_err(|error| anyhow::anyhow!("no body: {error}"))?;
        bodies.push(body.current());
    }
    Ok(bodies)
}

#[tokio::test]
async fn the_cloudevents_sdk_reads_every_message() -> anyhow::Result<()> {
    let workspace = Workspace::locate()?;
    let mut messages = Vec::new();
    for body in bodies()? {
        for event in ["DatasourceRefreshFailed", "FlowRunFailed"] {
            messages.push(message(event, &body)?);
        }
    }
    messages.extend(messages_of_a_refresh()?);
    let file = tempfile::NamedTempFile::new()?;
    fs::write(&file, messages.join("\n"))?;
    let script = workspace.file("tests/end-to-end/tests/it/cloudevents.py");
    let arguments = [script.to_string_lossy(), file.path().to_string_lossy()];
    let printed = printed(&tools(&workspace)?.program("python3"), &[&arguments[0], &arguments[1]]).await?;
    assert_eq!(printed, format!("{} events, all as expected\n", messages.len()));
    Ok(())
}
