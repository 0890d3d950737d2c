//! The inner loop: `cargo lambda watch` and `cargo lambda invoke`, as `cargo infra local` prints them.

use std::{fs, time::Duration};

use anyhow::Context;
use end_to_end::{
    local_stack::LocalStack,
    stand_ins::{self, StandIn},
};
use infra::{
    sample,
    service::{Program, Service, free_port},
    workspace::Workspace,
};
use serde_json::json;
use tokio::process::Command;

#[tokio::test]
async fn all_functions_run_from_source_in_the_stacks_environment() -> anyhow::Result<()> {
    let stack = LocalStack::start().await?;
    stack.declare("local", &["WorkbookCreated"]).await?;
    let queue = stack.cloud.subscribe_queue(&stack.stack, "created", &json!({ "action": ["created"] })).await?;
    stack.cloud.apply(&stack.stack).await?;
    let workspace = Workspace::locate()?;
    let text = |path: &std::path::Path| path.to_str().map(str::to_owned).context("a path that is not UTF-8");
    let environment = stack.folder().join("lambda.env");
    fs::write(&environment, stack.cloud.lambda_environment(&stack.stack)?)?;

    let port = free_port()?.to_string();
    let (manifest, environment) = (text(&workspace.file("Cargo.toml"))?, text(&environment)?);
    let address = ["--invoke-address", "127.0.0.1", "--invoke-port", &port];
    let watch = ["lambda", "watch", "--ignore-changes", "--manifest-path", &manifest, "--env-file", &environment];
    let (path, arguments) = (stack.tools.program("cargo-lambda"), [&watch[..], &address].concat());
    let program = Program { name: "cargo lambda watch", path: &path, arguments: &arguments, environment: &[] };
    let mut watch = Service::start(&stack.tools, program, stack.folder().join("watch.log"))?;
    watch.ready(&stack.http, &format!("http://127.0.0.1:{port}/")).await?;

    let receiver = format!("http://127.0.0.1:{port}/lambda-url/tableau-webhook-receiver/");
    let keyring = stack.keyring().await?;
    let url = sample::signed_url(&receiver, &keyring)?;
    let mut post = async |url: &str| {
        let body = fs::read_to_string(workspace.file("tests/payloads/workbook-created-2021.json"))?;
        // The first call waits for the build.
        let response = tokio::select! {
            response = stack.http.post(url).body(body).send() => response?,
            error = watch.ended() => return Err(error),
        };
        anyhow::Ok((response.status().as_u16(), response.text().await?))
    };
    let (status, body) = post(url.expose()).await?;
    assert!(status == 200 && body.contains("published"), "{status} {body}");
    let (good, last) = url.expose().split_at(url.expose().len() - 1);
    let wrong = format!("{good}{}", if last == "A" { "B" } else { "A" });
    assert_eq!(post(&wrong).await?, (404, String::new()));
    assert_eq!(stack.arrived(&queue, 1).await?, ["local WorkbookCreated".to_owned()].into());

    let receiver_event = stack.folder().join("event.json");
    fs::write(&receiver_event, sample::signed_event(&workspace, &keyring)?)?;
    let invoke = async |function: &str, event: &std::path::Path| {
        let mut invoke = Command::new(&path);
        invoke.args(["lambda", "invoke"]).args(address).args([function, "--data-file"]).arg(event);
        let output = invoke.output().await?;
        anyhow::ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?)
    };
    let answer = invoke("tableau-webhook-receiver", &receiver_event).await?;
    assert!(answer.contains(r#""statusCode":200"#), "{answer}");
    let answer = invoke("tableau-webhook-reconciler", &workspace.file("tests/events/reconciler-apply.json")).await?;
    assert!(answer.contains("1 site is as declared."), "{answer}");

    let archive = StandIn::start(stand_ins::Service::Slow(Duration::ZERO)).await?;
    stack.store_target("archive", &json!({ "preset": "plain", "address": archive.address })).await?;
    let batch = fs::read_to_string(workspace.file("tests/events/forwarder-batch.json"))?;
    let file = stack.folder().join("batch.json");
    fs::write(&file, batch.replace("tableau-fanout-target-", &format!("{}-target-", stack.stack.name())))?;
    let answer = invoke("tableau-webhook-forwarder", &file).await?;
    assert!(answer.contains(r#"{"batchItemFailures":[]}"#), "{answer}");
    assert_eq!(archive.accepted()?.len(), 1);
    Ok(())
}
