//! Commands for the running servers, and the files that these commands use.

use std::future::pending;

use serde_json::Value;

use super::servers::Servers;
use crate::{
    binaries::FUNCTIONS,
    local_files::{LocalFiles, SITE_ENTRY},
    sample::{self, EVENT, SITE},
    stack::Stack,
    terminal::{BOLD, print, styled},
};

/// Payload of another delivery. The receiver would recognize the first one as a duplicate.
const OTHER_PAYLOAD: &str = "tests/payloads/workbook-created-2021.json";

/// Name of the site beside an empty cloud, as in the documents.
const OTHER_SITE: &str = "marketing";

/// URL of the receiver under `cargo lambda watch`.
const WATCH_URL: &str = "http://127.0.0.1:9000/lambda-url/tableau-webhook-receiver/";

/// Prints how to try a deployment, and waits.
pub(super) async fn empty_cloud(servers: &Servers<'_>, files: &LocalFiles) -> anyhow::Result<()> {
    let Servers { builds, cloud, simulator } = servers;
    let entry = files.write(SITE_ENTRY, &simulator.add_site(OTHER_SITE).await?.to_string())?;
    let environment = files.write_environment(&cloud.endpoint, &simulator.address, &builds.tools.programs())?;
    print(format!(
        "
An empty cloud and a Tableau server with one site are running. Ctrl-C stops both.

  AWS endpoint       {endpoint}
  Tableau simulator  {tableau}

In another terminal, in this folder, connect to them with

  source {environment}

The commands of the README, from \"Deploy\" on, then do the same as on AWS, such as

  cargo infra deploy
  cargo infra add-site {OTHER_SITE} < {entry}
  cargo infra simulate fail-refresh
  cargo infra test",
        endpoint = cloud.endpoint,
        tableau = simulator.address,
    ));
    pending().await
}

/// Addresses of servers of this process.
pub(super) struct Addresses<'a> {
    pub(super) console: &'a str,
    /// The service that plays targets.
    pub(super) sink: &'a str,
}

/// Prints how to use the stack.
pub(super) async fn stack(
    servers: &Servers<'_>,
    files: &LocalFiles,
    stack: &Stack,
    entry: &Value,
    addresses: &Addresses<'_>,
) -> anyhow::Result<()> {
    let Servers { builds, cloud, simulator } = servers;
    let Addresses { console, sink } = addresses;
    let keyring = stack.keyring(&cloud.aws).await?;
    let receiver = stack.reachable_receiver_url(&cloud.aws)?;
    let [deployed, watch] = [&receiver, WATCH_URL].map(|receiver| sample::signed_url(receiver, &keyring));
    files.write(SITE_ENTRY, &entry.to_string())?;
    let for_functions = files.write("lambda.env", &cloud.lambda_environment(stack)?)?;
    let invoke_event = files.write("receiver-event.json", &sample::signed_event(&builds.workspace, &keyring)?)?;
    let environment = files.write_environment(&cloud.endpoint, &simulator.address, &builds.tools.programs())?;
    let [receiver_binary, reconciler_binary, forwarder_binary] = FUNCTIONS;
    let post = format!("curl -i -H 'content-type: application/json' --data-binary @{OTHER_PAYLOAD}");
    print(format!(
        "
The stack is running. Ctrl-C stops it.

  Console            {console}
  AWS endpoint       {endpoint}
  Tableau simulator  {tableau}

{connect} In this folder. There cargo infra and the AWS CLI then act on this stack:

  source {environment}
  cargo infra status

{play} Each command says what happened, and the next step. docs/tutorial.md breaks more:

  cargo infra simulate publish
  cargo infra simulate fail-refresh
  cargo infra reconcile apply

{lose} Tableau's four attempts fail, the receiver's log keeps the event, and replay publishes it:

  cargo infra simulate break-topic
  cargo infra simulate publish --name Lost
  cargo infra simulate restore-topic
  cargo infra replay 1

{target} This address plays any service, and shows what it gets in the window below:

  echo '{{\"address\":\"{sink}/mine\"}}' | cargo infra add-target mine --preset plain --on everything
  cargo infra targets

{post_title} As Tableau would. This URL is signed for {EVENT} of the site {SITE}:

  {post} {deployed}

{work} It runs from source in this stack's environment, and is rebuilt when it changes:

  cargo lambda watch -A 127.0.0.1 --env-file {for_functions}

  {post} {watch}
  cargo lambda invoke -A 127.0.0.1 {receiver_binary} --data-file {invoke_event}
  cargo lambda invoke -A 127.0.0.1 {reconciler_binary} --data-file tests/events/reconciler-apply.json
  cargo lambda invoke -A 127.0.0.1 {forwarder_binary} --data-file tests/events/forwarder-batch.json

{see} Let a refresh fail there, and see the card:

  {console}

{window} Each as it arrives, with the time (UTC), also at the targets chat and archive:",
        see = styled(BOLD, "Open the console in a browser."),
        connect = styled(BOLD, "Connect another terminal."),
        play = styled(BOLD, "Play Tableau's users."),
        lose = styled(BOLD, "Lose no event."),
        target = styled(BOLD, "Add a target outside of AWS."),
        post_title = styled(BOLD, "Send an event yourself."),
        work = styled(BOLD, "Work on a function."),
        window = styled(BOLD, "Events and alerts."),
        endpoint = cloud.endpoint,
        tableau = simulator.address,
        deployed = deployed?.expose(),
        watch = watch?.expose(),
    ));
    Ok(())
}
