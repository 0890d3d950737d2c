//! `cargo infra local`: the whole path of an event on this machine, step by step.

use std::{
    fs,
    future::pending,
    path::{Path, PathBuf},
};

use anyhow::{Context, ensure};
use clap::Args;
use reqwest::Client;
use serde_json::{Value, json};
use shared::alerts::message::AlertMessage;
use tokio::signal::unix::{SignalKind, signal};
use uuid::Uuid;

use crate::{
    binaries::Architecture,
    cloud::{BUCKET, Cloud, STACK},
    environment,
    functions::{self, FUNCTIONS, Packages},
    python::PythonTools,
    sample::{self, EVENT, SITE},
    service::{Service, free_port, http_client},
    stack::Stack,
    steps::{show, step},
    workspace::Workspace,
};

/// What Tableau sends for the event that is shown: the delivery captured in 2019.
const PAYLOAD: &str = "tests/payloads/workbook-created-2019.json";

/// Another delivery, for a person to send: the first would be recognised as a duplicate.
const OTHER_PAYLOAD: &str = "tests/payloads/workbook-created-2021.json";

/// What Tableau sends when an extract refresh fails, which people are told of.
const FAILED_PAYLOAD: &str = "tests/payloads/datasource-refresh-failed.json";

/// What that is registered for.
const FAILED_EVENT: &str = "DatasourceRefreshFailed";

/// The site of a Tableau server beside an empty cloud, called like the one in the README.
const OTHER_SITE: &str = "marketing";

/// Where `cargo lambda watch` serves the receiver.
const WATCH_URL: &str = "http://127.0.0.1:9000/lambda-url/tableau-webhook-receiver/";

/// Shows a Tableau event travel on this machine: ministack plays AWS, a simulator plays Tableau.
#[derive(Debug, Args)]
pub struct Local {
    /// Stop after the event has arrived, with exit status 0 only if it has.
    #[arg(long)]
    once: bool,
    /// Deploy nothing: keep up an empty cloud and a Tableau server with one site, to try the deployment with.
    #[arg(long, conflicts_with = "once")]
    empty: bool,
    /// Folder for the files that the printed commands use; target/local if not set. Each stack that stays up needs its
    /// own.
    #[arg(long, value_name = "FOLDER")]
    files: Option<PathBuf>,
}

/// A simulator of Tableau and where it answers.
#[derive(Debug)]
struct Simulator {
    http: Client,
    address: String,
}

/// Runs the command.
///
/// # Errors
///
/// A step failed, or a server ended. The error says which and why, and where the log is.
pub async fn run(arguments: Local) -> anyhow::Result<()> {
    let workspace = Workspace::locate()?;
    let tools = async { PythonTools::for_local_stack(&workspace) };
    let tools = step("Python tools: ministack, the AWS CLI, cargo-lambda", tools).await?;
    let build = async {
        let packages = if arguments.empty { None } else { Some(functions::package(&workspace).await?) };
        Ok((packages, functions::simulator(&workspace).await?))
    };
    let title =
        if arguments.empty { "Build the Tableau simulator" } else { "Build the functions and the Tableau simulator" };
    let (packages, simulator) = step(title, build).await?;
    let folder = tempfile::Builder::new().prefix("run.").tempdir_in(workspace.local("")?)?;
    let result = run_servers(arguments, &workspace, &tools, packages.as_ref(), &simulator, folder.path()).await;
    if result.is_err() {
        eprintln!("The logs are kept in {}", folder.keep().display());
    }
    result
}

/// Starts the servers, shows the path while both live, and ends them.
async fn run_servers(
    arguments: Local,
    workspace: &Workspace,
    tools: &PythonTools,
    packages: Option<&Packages>,
    simulator: &Path,
    folder: &Path,
) -> anyhow::Result<()> {
    let http = http_client()?;
    let cloud = Cloud::start(tools, &http, folder, &[]);
    let (mut server, cloud) = step("Start ministack, which plays AWS", cloud).await?;
    let simulator = Simulator::start(tools, simulator, &cloud, &http, folder);
    let (mut tableau, simulator) = step("Start the Tableau simulator", simulator).await?;
    let path = async {
        let files = arguments.files.map_or_else(|| workspace.local(""), Ok)?;
        let Some(packages) = packages else { return stay_empty(workspace, &files, tools, &cloud, &simulator).await };
        let stack = show_the_path(workspace, packages, &cloud, &simulator).await?;
        if arguments.once {
            return Ok(());
        }
        stay(workspace, &files, tools, &cloud, &simulator, &stack).await
    };
    tokio::select! {
        // A server that ended is the cause of whatever fails with it.
        biased;
        error = server.ended() => Err(error),
        error = tableau.ended() => Err(error),
        result = interruption(arguments.once) => result,
        result = path => result,
    }
}

/// Waits for Ctrl-C or a request to end, which is how a person ends a stack that stays up.
async fn interruption(is_failure: bool) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        result = tokio::signal::ctrl_c() => result?,
        _ = terminate.recv() => {}
    }
    println!("\nStopping.");
    ensure!(!is_failure, "interrupted before the event arrived");
    Ok(())
}

impl Simulator {
    async fn start(
        tools: &PythonTools,
        program: &Path,
        cloud: &Cloud,
        http: &Client,
        folder: &Path,
    ) -> anyhow::Result<(Service, Self)> {
        let port = free_port()?.to_string();
        let address = format!("http://127.0.0.1:{port}");
        let arguments = ["--port", &port, "--deliver-through", &cloud.endpoint];
        let log = folder.join("tableau-simulator.log");
        let mut service = Service::start(tools, "the Tableau simulator", program, &arguments, &[], log)?;
        service.ready(http, &format!("{address}/api/2.4/serverinfo")).await?;
        Ok((service, Self { http: http.clone(), address }))
    }

    /// Makes a site, and returns the entry that declares it.
    async fn add_site(&self, content_url: &str) -> anyhow::Result<Value> {
        let secret = Uuid::new_v4().to_string();
        let mut site = json!({ "site": content_url, "token_name": STACK, "token_secret": secret });
        self.post("sites", &site).await?;
        site["server"] = self.address.as_str().into();
        Ok(site)
    }

    async fn post(&self, path: &str, body: &Value) -> anyhow::Result<String> {
        let url = format!("{}/_simulator/{path}", self.address);
        let response = self.http.post(&url).json(body).send().await?;
        let (status, text) = (response.status(), response.text().await?);
        ensure!(status.is_success(), "POST {url} was answered with {status}: {text}");
        Ok(text)
    }
}

/// The path of an event, from nothing to a message in a queue.
async fn show_the_path(
    workspace: &Workspace,
    packages: &Packages,
    cloud: &Cloud,
    simulator: &Simulator,
) -> anyhow::Result<(Stack, String)> {
    let stack = step("Deploy infra/template.yaml with aws cloudformation package and deploy", async {
        let stack = cloud.deploy(STACK, packages).await?;
        show(&format!("receiver      {}", stack.output("ReceiverUrl")?));
        show(&format!("events topic  {}", stack.output("EventsTopicArn")?));
        Ok(stack)
    });
    let stack = stack.await?;
    step("Declare a Tableau site: one SecureString parameter", async {
        let entry = simulator.add_site(SITE).await?;
        cloud.put_site(&stack, SITE, &entry).await?;
        show(&format!("{}/{SITE}", stack.output("SitesPath")?));
        Ok(())
    })
    .await?;
    let queue = step("Subscribe an SQS queue to the events topic, with a filter policy", async {
        let filter = json!({ "event_type": [EVENT] });
        show(&filter.to_string());
        cloud.subscribe_queue(&stack, "workbooks", &filter).await
    });
    let queue = queue.await?;
    step("Run the reconciler: it signs in to Tableau and registers the webhooks", async {
        let report = cloud.apply(&stack).await?;
        show(report["text"].as_str().context("a report without a text")?);
        Ok(())
    })
    .await?;
    let body = read(workspace, PAYLOAD)?;
    let id =
        step("A workbook is published on Tableau, which calls the receiver", fire(simulator, EVENT, &body)).await?;
    step("The filtered queue holds the message", find(cloud, &queue, &id)).await?;
    show_an_alert(workspace, cloud, simulator, &stack).await?;
    Ok((stack, queue))
}

/// A failed refresh, which is an event for machines and an alert for people.
async fn show_an_alert(
    workspace: &Workspace,
    cloud: &Cloud,
    simulator: &Simulator,
    stack: &Stack,
) -> anyhow::Result<()> {
    let subscribe =
        step("Subscribe a queue to failed refreshes, and another to the alerts topic, as people would", async {
            let failures = cloud.subscribe_queue(stack, "failures", &json!({ "action": ["refresh-failed"] })).await?;
            let people = cloud.subscribe_queue_to(stack.output("AlertsTopicArn")?, "people", &json!({})).await?;
            Ok((failures, people))
        });
    let (failures, people) = subscribe.await?;
    let body = read(workspace, FAILED_PAYLOAD)?;
    let fail =
        step("An extract refresh fails on Tableau, which calls the receiver", fire(simulator, FAILED_EVENT, &body));
    let id = fail.await?;
    step("Machines get the event", find(cloud, &failures, &id)).await?;
    step("People get the alert: by e-mail, by SMS, and as a card in Slack or Teams", async {
        let messages = cloud.receive_some(&people).await?;
        let arrived: Value = serde_json::from_str(messages[0]["Body"].as_str().unwrap_or_default())?;
        // No e-mail leaves this machine. The queue got the text for every protocol that has none of its own, and with
        // it the proof that the others are those of the same message.
        let AlertMessage { subject, body } = sample::alert(FAILED_EVENT, &body, &stack.keyring(&cloud.aws).await?)?;
        let texts: Value = serde_json::from_str(&body)?;
        ensure!(
            arrived["Subject"] == subject && arrived["Message"] == texts["default"],
            "another alert came: {arrived}"
        );
        let text = |protocol: &str| texts[protocol].as_str().unwrap_or_default();
        show(&format!("E-mail   {subject}\n\n{}\n", text("email")));
        show(&format!("SMS      {}\n", text("sms")));
        show("Card");
        show(&format!("{:#}", serde_json::from_str::<Value>(text("https"))?));
        Ok(())
    })
    .await
}

fn read(workspace: &Workspace, path: &str) -> anyhow::Result<String> {
    fs::read_to_string(workspace.file(path)).with_context(|| format!("cannot read {path}"))
}

/// Lets an event happen on Tableau. Returns the identifier under which it was published.
async fn fire(simulator: &Simulator, event: &str, body: &str) -> anyhow::Result<String> {
    show(body);
    let deliveries = simulator.post("events", &json!({ "site": SITE, "event": event, "body": body })).await?;
    published_id(&serde_json::from_str(&deliveries)?)
}

/// Waits for an event in a queue and shows it.
async fn find(cloud: &Cloud, queue: &str, id: &str) -> anyhow::Result<()> {
    let messages = cloud.receive_some(queue).await?;
    messages.iter().for_each(show_message);
    let attribute = |message: &Value| message["MessageAttributes"]["event_id"]["StringValue"] == id;
    ensure!(messages.iter().any(attribute), "other messages arrived, but not the event {id}");
    Ok(())
}

/// Shows what Tableau was answered, and reads the event's identifier from it.
fn published_id(deliveries: &Value) -> anyhow::Result<String> {
    let attempts = deliveries.as_array().into_iter().flatten().filter_map(|delivery| delivery["attempts"].as_array());
    let mut id = None;
    for attempt in attempts.flatten() {
        let (status, body) = (&attempt["status"], attempt["body"].as_str().unwrap_or_default());
        show(&format!("Tableau was answered {status}: {body}"));
        let answer: Value = serde_json::from_str(body).unwrap_or_default();
        id = answer["id"].as_str().map(str::to_owned).filter(|_| answer["status"] == "published").or(id);
    }
    id.context("the receiver did not publish the event")
}

fn show_message(message: &Value) {
    show(message["Body"].as_str().unwrap_or_default());
    for (name, value) in message["MessageAttributes"].as_object().into_iter().flatten() {
        show(&format!("{name:13} {}", value["StringValue"].as_str().unwrap_or_default()));
    }
}

/// Tells how to try the deployment, and waits until something ends it.
async fn stay_empty(
    workspace: &Workspace,
    files: &Path,
    tools: &PythonTools,
    cloud: &Cloud,
    simulator: &Simulator,
) -> anyhow::Result<()> {
    cloud.aws.run(&["s3", "mb", &format!("s3://{BUCKET}")]).await?;
    let entry = files.join("site.json");
    write(&entry, &simulator.add_site(OTHER_SITE).await?.to_string())?;
    let environment = files.join("aws.env");
    let ours = [("AWS_ENDPOINT_URL", cloud.endpoint.as_str()), ("TABLEAU_SIMULATOR", &simulator.address)];
    let variables = environment::AWS.into_iter().chain(ours).map(|(name, value)| format!("{name}={value}\n"));
    write(&environment, &variables.collect::<String>())?;
    let processor = Architecture::of_this_machine()?;
    println!(
        "
An empty cloud is up, and a Tableau server with one site. Ctrl-C ends both.

  AWS endpoint       {endpoint}
  Tableau simulator  {tableau}

Another terminal in this folder is at this cloud after

  export PATH=\"$PATH:$PWD/{tools}\"
  set -a; . {environment}; set +a; unset AWS_PROFILE

and there the README's commands, from \"Deploy\" on, do what they do on AWS, such as

  cargo infra deploy --bucket {BUCKET} --arch {processor}
  cargo infra add-site {OTHER_SITE} < {entry}
  cargo infra test",
        endpoint = cloud.endpoint,
        tableau = simulator.address,
        tools = shown(workspace, &tools.programs()),
        environment = shown(workspace, &environment),
        entry = shown(workspace, &entry),
    );
    pending().await
}

/// A path as a person in the project's folder names it.
fn shown(workspace: &Workspace, path: &Path) -> String {
    path.strip_prefix(workspace.file("")).unwrap_or(path).display().to_string()
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    let folder = path.parent().context("a path without a folder")?;
    fs::create_dir_all(folder)
        .and_then(|()| fs::write(path, text))
        .with_context(|| format!("cannot write {}", path.display()))
}

/// Tells how to use the stack, and shows what arrives in the queue until something ends it.
async fn stay(
    workspace: &Workspace,
    files: &Path,
    tools: &PythonTools,
    cloud: &Cloud,
    simulator: &Simulator,
    (stack, queue): &(Stack, String),
) -> anyhow::Result<()> {
    let keyring = stack.keyring(&cloud.aws).await?;
    let receiver = stack.reachable_receiver_url(&cloud.aws)?;
    let here = sample::signed_url(&receiver, &keyring)?;
    let watched = sample::signed_url(WATCH_URL, &keyring)?;

    let environment = files.join("lambda.env");
    // The functions do not read the simulator's address. It is for the commands of a person.
    let variables = format!("{}TABLEAU_SIMULATOR={}\n", cloud.lambda_environment(stack)?, simulator.address);
    write(&environment, &variables)?;
    let invoke_event = files.join("receiver-event.json");
    write(&invoke_event, &sample::signed_event(workspace, &keyring)?)?;

    let [receiver_binary, reconciler_binary] = FUNCTIONS;
    let shown = |path: &Path| shown(workspace, path);
    let post = format!("curl -i -H 'content-type: application/json' --data-binary @{OTHER_PAYLOAD}");
    let control = json!({ "site": SITE, "event": EVENT, "body": json!({ "event_type": EVENT }).to_string() });
    println!(
        "
The stack is up. Ctrl-C ends it.

  AWS endpoint       {endpoint}
  Tableau simulator  {tableau}
  receiver           {receiver}
  queue              {queue}

Send the receiver an event, as Tableau would (this address is signed for {EVENT} of the site {SITE}):

  {post} {here}

Let an event happen on Tableau:

  curl -H 'content-type: application/json' -d '{control}' {tableau}/_simulator/events

Look at it as an administrator would (cargo infra has test, reconcile, url and destroy besides):

  cargo infra status --endpoint-url {endpoint}

Work on a function: it runs from source, in this stack's environment, and is rebuilt when it changes.

  export PATH=\"$PWD/{tools}:$PATH\"
  cargo lambda watch -A 127.0.0.1 --env-file {environment}

  {post} {watched}
  cargo lambda invoke -A 127.0.0.1 {receiver_binary} --data-file {invoke_event}
  cargo lambda invoke -A 127.0.0.1 {reconciler_binary} --data-file tests/events/reconciler-apply.json

Take the events topic away, so that Tableau's four attempts fail; bring it back, and publish what was missed:

  set -a; . {environment}; set +a; unset AWS_PROFILE
  aws sns delete-topic --topic-arn \"$EVENTS_TOPIC_ARN\"
  curl -H 'content-type: application/json' -d '{control}' {tableau}/_simulator/events
  aws sns create-topic --name {STACK}-events
  cargo infra replay 1 --endpoint-url {endpoint}

Break things on Tableau, and have the reconciler repair them: README.md, \"Break it, and see it repaired\".

What arrives in the queue (filtered by event_type {EVENT}):",
        endpoint = cloud.endpoint,
        tableau = simulator.address,
        tools = shown(&tools.programs()),
        environment = shown(&environment),
        here = here.expose(),
        watched = watched.expose(),
        invoke_event = shown(&invoke_event),
    );
    loop {
        for message in cloud.receive(queue).await? {
            println!();
            show_message(&message);
        }
    }
}
