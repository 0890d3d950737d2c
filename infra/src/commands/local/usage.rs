//! Commands for the running servers, and the files that these commands use.

use std::{fs, future::pending, path::Path};

use anyhow::Context;
use serde_json::json;
use shared::registration::keyring::Keyring;

use super::servers::Servers;
use crate::{
    binaries::{Architecture, FUNCTIONS},
    cloud::{BUCKET, STACK},
    environment,
    sample::{self, EVENT, SITE},
    stack::Stack,
    workspace::Workspace,
};

/// Payload of another delivery. The receiver would recognize the first one as a duplicate.
const OTHER_PAYLOAD: &str = "tests/payloads/workbook-created-2021.json";

/// Name of the site beside an empty cloud, as in the documents.
const OTHER_SITE: &str = "marketing";

/// URL of the receiver under `cargo lambda watch`.
const WATCH_URL: &str = "http://127.0.0.1:9000/lambda-url/tableau-webhook-receiver/";

/// Prints how to try a deployment, and waits.
pub(super) async fn empty_cloud(servers: &Servers<'_>, files: &Path) -> anyhow::Result<()> {
    let Servers { builds, cloud, simulator } = servers;
    cloud.aws.run(&["s3", "mb", &format!("s3://{BUCKET}")]).await?;
    let entry = files.join("site.json");
    write(&entry, &simulator.add_site(OTHER_SITE).await?.to_string())?;
    let environment = files.join("aws.env");
    let ours = [("AWS_ENDPOINT_URL", cloud.endpoint.as_str()), ("TABLEAU_SIMULATOR", &simulator.address)];
    let variables = environment::AWS.into_iter().chain(ours).map(|(name, value)| format!("{name}={value}\n"));
    write(&environment, &variables.collect::<String>())?;
    let processor = Architecture::of_this_machine()?;
    let relative = |path: &Path| relative(&builds.workspace, path);
    println!(
        "
An empty cloud and a Tableau server with one site are running. Ctrl-C stops both.

  AWS endpoint       {endpoint}
  Tableau simulator  {tableau}

To use this cloud in another terminal, run there in this folder

  export PATH=\"$PATH:$PWD/{tools}\"
  set -a; . {environment}; set +a; unset AWS_PROFILE

The commands of the README, from \"Deploy\" on, then do the same as on AWS, such as

  cargo infra deploy --bucket {BUCKET} --arch {processor}
  cargo infra add-site {OTHER_SITE} < {entry}
  cargo infra test",
        endpoint = cloud.endpoint,
        tableau = simulator.address,
        tools = relative(&builds.tools.programs()),
        environment = relative(&environment),
        entry = relative(&entry),
    );
    pending().await
}

/// Prints how to use the stack.
pub(super) async fn stack(servers: &Servers<'_>, files: &Path, stack: &Stack, queue: &str) -> anyhow::Result<()> {
    let Servers { builds, cloud, simulator } = servers;
    let keyring = stack.keyring(&cloud.aws).await?;
    let receiver = stack.reachable_receiver_url(&cloud.aws)?;
    let [deployed, watch] = [&receiver, WATCH_URL].map(|receiver| sample::signed_url(receiver, &keyring));
    let [environment, invoke_event] = write_files(servers, files, stack, &keyring)?;
    let tools = relative(&builds.workspace, &builds.tools.programs());
    let [receiver_binary, reconciler_binary] = FUNCTIONS;
    let post = format!("curl -i -H 'content-type: application/json' --data-binary @{OTHER_PAYLOAD}");
    let control = json!({ "site": SITE, "event": EVENT, "body": json!({ "event_type": EVENT }).to_string() });
    println!(
        "
The stack is running. Ctrl-C stops it.

  AWS endpoint       {endpoint}
  Tableau simulator  {tableau}
  receiver           {receiver}
  queue              {queue}

Send the receiver an event, as Tableau would (this URL is signed for {EVENT} of the site {SITE}):

  {post} {deployed}

Trigger an event on Tableau:

  curl -H 'content-type: application/json' -d '{control}' {tableau}/_simulator/events

Show the stack's status (cargo infra also has test, reconcile, url and destroy):

  cargo infra status --endpoint-url {endpoint}

Work on a function. It runs from source in this stack's environment, and is rebuilt when it changes:

  export PATH=\"$PWD/{tools}:$PATH\"
  cargo lambda watch -A 127.0.0.1 --env-file {environment}

  {post} {watch}
  cargo lambda invoke -A 127.0.0.1 {receiver_binary} --data-file {invoke_event}
  cargo lambda invoke -A 127.0.0.1 {reconciler_binary} --data-file tests/events/reconciler-apply.json

Delete the events topic, so that Tableau's four attempts fail. Create it again, and publish the missed event:

  set -a; . {environment}; set +a; unset AWS_PROFILE
  aws sns delete-topic --topic-arn \"$EVENTS_TOPIC_ARN\"
  curl -H 'content-type: application/json' -d '{control}' {tableau}/_simulator/events
  aws sns create-topic --name {STACK}-events
  cargo infra replay 1 --endpoint-url {endpoint}

Break things on Tableau and let the reconciler repair them: docs/tutorial.md.

Messages in the queue (filtered by event_type {EVENT}):",
        endpoint = cloud.endpoint,
        tableau = simulator.address,
        deployed = deployed?.expose(),
        watch = watch?.expose(),
    );
    Ok(())
}

/// Writes the functions' environment and a signed request. Returns the paths of the two files.
fn write_files(servers: &Servers<'_>, files: &Path, stack: &Stack, keyring: &Keyring) -> anyhow::Result<[String; 2]> {
    let Servers { builds, cloud, simulator } = servers;
    let [environment, invoke_event] = ["lambda.env", "receiver-event.json"].map(|name| files.join(name));
    // The functions do not read the simulator's address. The user's commands do.
    let variables = format!("{}TABLEAU_SIMULATOR={}\n", cloud.lambda_environment(stack)?, simulator.address);
    write(&environment, &variables)?;
    write(&invoke_event, &sample::signed_event(&builds.workspace, keyring)?)?;
    Ok([environment, invoke_event].map(|file| relative(&builds.workspace, &file)))
}

/// Formats a path relative to the project's folder.
fn relative(workspace: &Workspace, path: &Path) -> String {
    path.strip_prefix(workspace.file("")).unwrap_or(path).display().to_string()
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    let folder = path.parent().context("a path without a folder")?;
    fs::create_dir_all(folder)
        .and_then(|()| fs::write(path, text))
        .with_context(|| format!("cannot write {}", path.display()))
}
