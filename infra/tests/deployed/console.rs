//! The console of a stack, in a browser and by other programs.

use std::{
    env,
    io::{Write, stderr},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context, ensure};
use infra::{python::PythonTools, service::http_client, workspace::Workspace};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    time::timeout,
};

use crate::{
    command::{SECRET, infra},
    local_command::LocalCommand,
    testbed::Testbed,
};

/// Exit status of the browser test where there is no browser.
const NO_BROWSER: i32 = 3;

/// How long the start, the end and an arrival may take. Each takes seconds.
const TIMEOUT: Duration = Duration::from_secs(120);

/// A running `cargo infra console`.
struct Console {
    process: Child,
    lines: Lines<BufReader<ChildStdout>>,
    /// The address of the page.
    url: String,
}

impl Console {
    /// Starts it at a cloud.
    async fn start(endpoint: &str, options: &[&str]) -> anyhow::Result<Self> {
        let mut console = infra(&[&["console", "--endpoint-url", endpoint], options].concat());
        let mut process = console.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let mut lines = BufReader::new(process.stdout.take().context("no output")?).lines();
        let printed = async {
            loop {
                let line = lines.next_line().await?.context("the console has ended")?;
                if line.trim().starts_with("http://127.0.0.1:") {
                    return anyhow::Ok(line.trim().to_owned());
                }
            }
        };
        let url = timeout(TIMEOUT, printed).await.context("no address in time")??;
        Ok(Self { process, lines, url })
    }

    /// Origin of the page.
    fn origin(&self) -> &str {
        self.url.trim_end_matches('/').rsplit_once('/').map_or("", |(origin, _)| origin)
    }

    /// Calls it as the page does. Returns status and JSON.
    async fn call(&self, path: &str, body: Option<Value>) -> anyhow::Result<(StatusCode, Value)> {
        let method = if body.is_some() { Method::POST } else { Method::GET };
        let mut request = http_client()?.request(method, format!("{}{path}", self.url)).timeout(TIMEOUT);
        if let Some(body) = body {
            request = request.header("origin", self.origin()).json(&body);
        }
        let response = request.send().await?;
        let (status, text) = (response.status(), response.text().await?);
        ensure!(!text.contains(SECRET), "the secret is shown: {text}");
        Ok((status, serde_json::from_str(&text).with_context(|| text.clone())?))
    }

    /// Reads server-sent events until one has a text.
    async fn streams(&self, text: &str) -> anyhow::Result<()> {
        let mut response = http_client()?.get(format!("{}stream", self.url)).timeout(TIMEOUT).send().await?;
        let mut received = String::new();
        while let Some(chunk) = response.chunk().await? {
            received.push_str(&String::from_utf8_lossy(&chunk));
            if received.contains(text) {
                return Ok(());
            }
        }
        anyhow::bail!("{text:?} is missing: {received}")
    }

    /// Interrupts it. Checks that it succeeded, and returns its messages.
    async fn interrupt(mut self) -> anyhow::Result<String> {
        let id = self.process.id().and_then(|id| i32::try_from(id).ok()).context("it has ended")?;
        kill(Pid::from_raw(id), Signal::SIGINT)?;
        while self.lines.next_line().await?.is_some() {}
        let mut messages = String::new();
        self.process.stderr.take().context("no messages")?.read_to_string(&mut messages).await?;
        let status = timeout(TIMEOUT, self.process.wait()).await.context("it does not end")??;
        ensure!(status.success(), "{status}: {messages}");
        Ok(messages)
    }
}

/// Names of temporary queues.
async fn temporary(testbed: &Testbed) -> anyhow::Result<Value> {
    let listed = testbed.aws("sqs list-queues --queue-name-prefix tableau-fanout-tmp-").await?;
    Ok(listed["QueueUrls"].clone())
}

#[tokio::test]
async fn the_console_shows_a_stack_and_acts_on_it_until_it_is_interrupted() -> anyhow::Result<()> {
    let testbed = Testbed::start().await?;
    testbed.deploy(&["--parameter", "Events=WorkbookCreated"]).await?.succeeded(&[])?;
    testbed.add_site(&[]).await?.succeeded(&[])?;
    let block = documents::commands("docs/console.md", "Console")?.pop().context("no command")?;
    assert_eq!(block.text.trim(), "cargo infra console");
    let console = Console::start(&testbed.cloud.endpoint, &[]).await?;
    let second = Console::start(&testbed.cloud.endpoint, &[]).await?;
    ensure!(console.url != second.url, "both have one address");

    let (status, state) = console.call("state", None).await?;
    ensure!(status == StatusCode::OK && state["sites"][0]["name"] == "marketing", "{state}");
    assert_eq!((&state["simulated"], &state["is_local"]), (&Value::Null, &json!(true)));
    let (status, report) = console.call("run", Some(json!({ "action": "test", "site": "marketing" }))).await?;
    ensure!(status == StatusCode::OK && report["failure"].is_null(), "{report}");
    // Both get each event.
    for console in [&console, &second] {
        console.streams("com.tableau.Test").await?;
    }

    // Bad requests have an error with its fix, and change nothing.
    let event_id = "0".repeat(32);
    for (path, body, expected) in [
        ("run", json!({ "action": "rotate", "site": "marketing" }), "rotate applies to all sites"),
        ("replay", json!({ "event_id": event_id }), "has no unpublished event"),
        ("simulate", json!({ "action": "break-topic" }), "only a local stack simulates Tableau"),
    ] {
        let (status, answer) = console.call(path, Some(body)).await?;
        let error = answer["error"].as_str().unwrap_or_default();
        ensure!(status.is_server_error() && error.contains(expected) && error.contains(" Fix: "), "{path}: {answer}");
    }
    let refused = http_client()?.post(format!("{}run", console.url)).json(&json!({ "action": "apply" })).send().await?;
    assert_eq!((refused.status(), refused.text().await?), (StatusCode::FORBIDDEN, String::new()));
    let guessed = http_client()?.get(format!("{}/state", console.origin())).send().await?;
    assert_eq!((guessed.status(), guessed.text().await?), (StatusCode::NOT_FOUND, String::new()));

    let port = console.origin().rsplit(':').next().context("no port")?.to_owned();
    testbed
        .infra(&["console", "--port", &port])
        .await?
        .failed(&["cannot be used. Fix: choose another one with --port"])?;
    // It subscribes again when somebody deletes its queues.
    for queue in temporary(&testbed).await?.as_array().context("no queues")? {
        testbed.aws(&format!("sqs delete-queue --queue-url {}", queue.as_str().context("no queue")?)).await?;
    }
    console.streams("data: {\"error\":\"").await?;
    console.streams("data: {\"error\":null}").await?;
    second.interrupt().await?;
    testbed.infra(&["destroy", "--yes"]).await?.succeeded(&[])?;
    let (status, answer) = console.call("state", None).await?;
    ensure!(
        status.is_server_error() && answer["error"].as_str().is_some_and(|it| it.contains("there is no stack")),
        "{answer}"
    );
    console.interrupt().await?;
    ensure!(temporary(&testbed).await?.as_array().is_none_or(Vec::is_empty), "queues are left");
    testbed.infra(&["console"]).await?.failed(&["there is no stack tableau-fanout"])?;
    Ok(())
}

#[tokio::test]
async fn a_newcomer_sees_a_failure_and_repairs_webhooks_in_a_browser() -> anyhow::Result<()> {
    let workspace = Workspace::locate()?;
    let tools = PythonTools::install(&workspace, "console", &workspace.file("tests/console/requirements.txt"))?;
    let local = LocalCommand::start().await?;
    let mut test = Command::new(tools.program("python3"));
    test.arg(workspace.file("tests/console/newcomer.py")).arg(&local.console);
    test.arg(workspace.local("reports")?.join("console")).stdin(Stdio::null()).kill_on_drop(true);
    let output = test.output().await?;
    let printed = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    if output.status.code() == Some(NO_BROWSER) {
        ensure!(env::var_os("CI").is_none(), "CI needs a browser: {printed}");
        // Not through a macro, whose output a successful test hides.
        writeln!(stderr(), "The console was not tried in a browser. {printed}")?;
        return Ok(());
    }
    ensure!(output.status.success(), "{}: {printed}", output.status);
    let (browser, _) = printed.split_once("\n- ").context("no step")?;
    writeln!(stderr(), "The console is tried in a browser. {browser}")?;
    println!("{printed}");
    Ok(())
}
