//! The reconciler's binary with SSM on ministack: CA certificates, proxies, memory, concurrent runs.

use std::{
    collections::BTreeMap,
    fs,
    time::{Duration, Instant},
};

use anyhow::Context;
use axum::{http::StatusCode, serve::Listener};
use end_to_end::{
    declared::{RECEIVER_URL, secret_of, site},
    destination::Destination,
    lambda::Environment,
    local_stack::test_folder,
};
use futures_util::future::try_join_all;
use infra::{
    cloud::Cloud,
    functions,
    python::PythonTools,
    queue,
    service::{Service, http_client},
    workspace::Workspace,
};
use reconciler::config::DEFAULT_TIMEOUT;
use reqwest::Client;
use serde_json::{Value, json};
use shared::events::catalogue::Event;
use tableau_simulator::{
    model::Hostility,
    server::{Running, Simulator},
};
use tempfile::TempDir;
use tls::{Authority, Proxy};
use tokio::time::{sleep, timeout};

use crate::refreshes::failed;

/// The table with the reconciler's state.
pub(crate) const TABLE: &str = "tableau-fanout-state";

/// Time limit for the events of all runs to reach the queue.
const ARRIVAL_TIMEOUT: Duration = Duration::from_secs(60);

/// The forwarder's timeout in the template.
const FORWARDER_TIMEOUT: Duration = Duration::from_secs(60);

/// Returns the request of every scheduled run.
pub(crate) fn apply() -> Value {
    json!({ "action": "apply" })
}

/// A cloud without a stack, a Tableau server, and a server in the receiver's place.
pub(crate) struct World {
    pub(crate) cloud: Cloud,
    pub(crate) tableau: Running,
    http: Client,
    tools: PythonTools,
    workspace: Workspace,
    _destination: Destination,
    _server: Service,
    folder: TempDir,
}

impl World {
    pub(crate) async fn start() -> anyhow::Result<Self> {
        let workspace = Workspace::locate()?;
        let (tools, folder) = (PythonTools::for_local_stack(&workspace)?, test_folder(&workspace)?);
        functions::build(&workspace).await?;
        let http = http_client()?;
        let (_server, cloud) = Cloud::start(&tools, &http, folder.path(), &[]).await?;
        let _destination = Destination::answering(StatusCode::OK).await?;
        let tableau = Simulator::start(Some(_destination.address.clone())).await?;
        let table = json!({ "TableName": TABLE, "BillingMode": "PAY_PER_REQUEST",
            "AttributeDefinitions": [{ "AttributeName": "pk", "AttributeType": "S" }],
            "KeySchema": [{ "AttributeName": "pk", "KeyType": "HASH" }] });
        let world = Self { cloud, tableau, http, tools, workspace, _destination, _server, folder };
        world.dynamodb("CreateTable", &table).await?;
        Ok(world)
    }

    /// Calls DynamoDB.
    pub(crate) async fn dynamodb(&self, operation: &str, request: &Value) -> anyhow::Result<Value> {
        let call =
            self.http.post(&self.cloud.endpoint).header("x-amz-target", format!("DynamoDB_20120810.{operation}"));
        let call = call.header("content-type", "application/x-amz-json-1.0").body(request.to_string());
        Ok(call.send().await?.error_for_status()?.json().await?)
    }

    /// Starts the reconciler with more variables.
    pub(crate) async fn reconciler(&self, more: &[(&str, &str)]) -> anyhow::Result<Environment> {
        let usual = [
            ("AWS_ENDPOINT_URL", self.cloud.endpoint.as_str()),
            ("RECEIVER_URL", RECEIVER_URL),
            ("SITES_PATH", "/tableau-fanout/sites"),
            ("SIGNING_KEYS_PARAMETER", "/tableau-fanout/signing-keys"),
            ("STATE_TABLE", TABLE),
            ("EVENTS_TOPIC_ARN", "arn:aws:sns:us-east-1:000000000000:tableau-fanout-events"),
            ("RECOVER_HOURS", "0"),
            ("TABLEAU_CA_PARAMETER", "/tableau-fanout/tableau-ca"),
            ("NAME_PREFIX", "tableau-fanout"),
        ];
        // Later variables replace earlier ones.
        self.environment("reconciler", &[&usual, more].concat(), DEFAULT_TIMEOUT).await
    }

    /// Starts the forwarder, which may call targets on this machine.
    pub(crate) async fn forwarder(&self) -> anyhow::Result<Environment> {
        let variables = [
            ("AWS_ENDPOINT_URL", self.cloud.endpoint.as_str()),
            ("TARGETS_PATH", "/tableau-fanout/targets"),
            ("STATE_TABLE", TABLE),
            ("ALERTS_TOPIC_ARN", "arn:aws:sns:us-east-1:000000000000:tableau-fanout-alerts"),
            ("ALLOW_LOOPBACK_TARGETS", "true"),
        ];
        self.environment("forwarder", &variables, FORWARDER_TIMEOUT).await
    }

    async fn environment(
        &self,
        function: &str,
        variables: &[(&str, &str)],
        timeout: Duration,
    ) -> anyhow::Result<Environment> {
        let binary = self.workspace.built(&format!("debug/tableau-webhook-{function}"));
        let log = self.folder.path().join(format!("{function}.log"));
        Environment::start(&self.tools, &binary, variables, &log, timeout).await
    }

    /// Returns a function's log so far.
    pub(crate) fn log(&self, function: &str) -> anyhow::Result<String> {
        Ok(fs::read_to_string(self.folder.path().join(format!("{function}.log")))?)
    }

    /// Stores a parameter.
    pub(crate) async fn put(&self, name: &str, value: &str) -> anyhow::Result<()> {
        let parameter = json!({ "Name": format!("/tableau-fanout/{name}"), "Type": "SecureString", "Overwrite": true,
            "Value": value });
        let put = self.http.post(&self.cloud.endpoint).header("x-amz-target", "AmazonSSM.PutParameter");
        let put = put.header("content-type", "application/x-amz-json-1.1").body(parameter.to_string());
        put.send().await?.error_for_status()?;
        Ok(())
    }

    /// Creates a site on Tableau, and declares it with a server's URL.
    pub(crate) async fn declare(&self, name: &str, server: &str, events: &[&str]) -> anyhow::Result<()> {
        let secret = secret_of(name);
        self.tableau.simulator.world().add_site(name, name, &secret);
        let entry = json!({ "server": server, "site": name, "token_name": name, "token_secret": secret,
            "events": events });
        self.put(&format!("sites/{name}"), &entry.to_string()).await
    }
}

#[tokio::test]
async fn a_server_behind_a_proxy_is_managed_once_its_ca_certificate_is_stored() -> anyhow::Result<()> {
    const SERVER: &str = "tableau.internal";
    let world = World::start().await?;
    let authority = Authority::new()?;
    let listener = authority.listen(SERVER).await?;
    let proxy = Proxy::to(listener.local_addr()?).await?;
    let serving = tokio::spawn(world.tableau.simulator.clone().serve(listener));
    world.declare("internal", &format!("https://{SERVER}"), &["ViewDeleted"]).await?;
    let reconciler = world.reconciler(&[("HTTPS_PROXY", &format!("http://{}", proxy.address))]).await?;

    let answer = reconciler.invoke("distrusted", apply()).await?;
    let error = answer["errorMessage"].as_str().context("it succeeded")?;
    assert!(error.contains("The certificate of https://tableau.internal/ is not trusted."), "{error}");
    // The fix that the error names works in a running environment.
    for (id, certificates, expected) in [
        (
            "misled",
            "no certificate",
            "The certificates in /tableau-fanout/tableau-ca are not used: expected certificates in PEM",
        ),
        ("trusting", &*authority.pem(), "1 site is as declared."),
    ] {
        world.put("tableau-ca", certificates).await?;
        let answer = reconciler.invoke(id, apply()).await?;
        let text = answer["text"].as_str().or(answer["errorMessage"].as_str()).context("no answer")?;
        assert!(text.contains(expected), "{text}");
    }
    serving.abort();
    Ok(())
}

#[tokio::test]
async fn a_sign_in_to_tableau_cloud_follows_redirects_to_its_hosts_only() -> anyhow::Result<()> {
    const SERVER: &str = "https://10ax.online.tableau.com";
    let world = World::start().await?;
    let authority = Authority::new()?;
    // All of these hosts answer, with valid certificates.
    let names = ["*.online.tableau.com", "*.tableau.com", "online.tableau.com.evil.example", "sso.example"];
    let listener = authority.listen_as(&names).await?;
    let proxy = Proxy::to(listener.local_addr()?).await?;
    let serving = tokio::spawn(world.tableau.simulator.clone().serve(listener));
    world.put("tableau-ca", &authority.pem()).await?;
    let location = |host: &str| format!("https://{host}/pod/api/3.27/auth/signin?site=cloud");
    world.declare("cloud", SERVER, &["ViewDeleted"]).await?;
    let reconciler = world.reconciler(&[("HTTPS_PROXY", &format!("http://{}", proxy.address))]).await?;
    for (host, is_followed) in [
        ("dub01.online.tableau.com", true),
        ("evilonline.tableau.com", false),
        ("online.tableau.com.evil.example", false),
        ("sso.example", false),
        ("10ax.online.tableau.com", true),
    ] {
        {
            let mut tableau = world.tableau.simulator.world();
            let site = tableau.sites.get_mut("cloud").context("no site")?;
            site.oddities.sign_in_moved_to = Some(location(host));
            site.calls.clear();
        }
        let answer = reconciler.invoke(host, apply()).await?;
        let text = answer["text"].as_str().or(answer["errorMessage"].as_str()).context("no answer")?;
        let calls = world.tableau.simulator.world().sites.get("cloud").context("no site")?.calls.clone();
        let sign_ins = calls.iter().filter(|call| call.ends_with("auth/signin")).count();
        if is_followed {
            assert!(text.ends_with("1 site is as declared."), "{host}: {text}");
            assert_eq!(sign_ins, 2, "{host}: {calls:?}");
        } else {
            assert!(text.contains(&format!("redirects sign-ins to https://{host}. ")), "{host}: {text}");
            assert_eq!(calls, ["POST auth/signin"], "{host}");
        }
    }
    serving.abort();
    Ok(())
}

#[tokio::test]
async fn hundreds_of_sites_need_little_memory() -> anyhow::Result<()> {
    const SITES: usize = 200;
    // Twenty events: all but the two that some servers refuse.
    let events = Event::catalogue().map(|event| event.as_str().to_owned());
    let events: Vec<_> = events.filter(|event| !["SiteCreated", "SiteUpdated"].contains(&event.as_str())).collect();
    let events: Vec<_> = events.iter().map(String::as_str).collect();
    let world = World::start().await?;
    let server = format!("http://{}", world.tableau.address);
    for number in 0..SITES {
        world.declare(&format!("site-{number}"), &server, &events).await?;
    }
    let reconciler = world.reconciler(&[]).await?;
    for (run, last) in [("first", "4000 created"), ("unchanged", "4000 unchanged")] {
        let start = Instant::now();
        let answer = reconciler.invoke(run, apply()).await?;
        let text = answer["text"].as_str().with_context(|| format!("{answer}"))?;
        assert!(text.ends_with("200 sites are as declared."), "{text}");
        let each = if run == "first" { "20 created" } else { "20 unchanged" };
        assert_eq!(text.matches(each).count(), SITES, "{last}");
        let (seconds, peak) = (start.elapsed().as_secs_f64(), reconciler.peak_memory_kib()?);
        println!("{run} run of {SITES} sites with 20 webhooks: {seconds:.1} s, peak memory {} MiB", peak / 1024);
        // The function has 256 MiB. The memory of sites must not add up.
        assert!(peak < 64 * 1024, "{peak} KiB");
    }
    Ok(())
}

#[tokio::test]
async fn concurrent_runs_keep_each_others_sessions_and_give_each_event_one_id() -> anyhow::Result<()> {
    const ROUNDS: usize = 10;
    const SITES: [&str; 2] = ["finance", "marketing"];
    let world = World::start().await?;
    let topics = ["events", "alerts"].map(async |name| {
        let topic = world.cloud.aws.json(&["sns", "create-topic", "--name", name]).await?;
        let topic = topic["TopicArn"].as_str().context("no topic")?.to_owned();
        let queue = queue::create(&world.cloud.aws, name).await?;
        queue::subscribe(&world.cloud.aws, &queue, &topic, &json!({ "RawMessageDelivery": "true" })).await?;
        anyhow::Ok((topic, queue))
    });
    let [(events, events_queue), (alerts, alerts_queue)] =
        <[_; 2]>::try_from(try_join_all(topics).await?).ok().context("two topics")?;
    for name in SITES {
        world.declare(name, &format!("http://{}", world.tableau.address), &["WorkbookRefreshFailed"]).await?;
        // One token for both sites, and answers slow enough for the runs to overlap.
        site(&world.tableau, name, |site| {
            (site.tokens[0].name, site.tokens[0].secret) = ("shared".to_owned(), secret_of("shared"));
            site.oddities.delay_ms = 5;
        })?;
        let server = format!("http://{}", world.tableau.address);
        let entry = json!({ "server": server, "site": name, "token_name": "shared", "token_secret": secret_of("shared"),
            "events": ["WorkbookRefreshFailed"] });
        world.put(&format!("sites/{name}"), &entry.to_string()).await?;
    }
    let variables =
        [("EVENTS_TOPIC_ARN", events.as_str()), ("ALERTS_TOPIC_ARN", alerts.as_str()), ("RECOVER_HOURS", "24")];
    let (one, other) = (world.reconciler(&variables).await?, world.reconciler(&variables).await?);
    one.invoke("first", apply()).await?;
    let mut left = 0;
    for round in 0..ROUNDS {
        for name in SITES {
            site(&world.tableau, name, |site| site.jobs.push(failed(&format!("{name}-{round}"))))?;
        }
        let id = format!("{round}");
        let (one, other) = tokio::join!(one.invoke(&id, apply()), other.invoke(&id, apply()));
        for answer in [one?, other?] {
            let text = answer["text"].as_str().with_context(|| format!("it failed: {answer}"))?;
            left += text.matches("Another run uses the token").count();
        }
    }
    let mut ids = BTreeMap::new();
    let arrived = async {
        while ids.len() < ROUNDS * SITES.len() {
            for message in queue::receive(&world.cloud.aws, &events_queue).await? {
                let event: Value = serde_json::from_str(message["Body"].as_str().context("no body")?)?;
                let known = ids.entry(event["subject"].to_string()).or_insert_with(|| event["id"].clone());
                anyhow::ensure!(*known == event["id"], "two identifiers: {event}");
            }
        }
        anyhow::Ok(())
    };
    timeout(ARRIVAL_TIMEOUT, arrived).await.context("not all events arrived")??;
    let alerts = queue::receive(&world.cloud.aws, &alerts_queue).await?;
    let about_tokens: Vec<_> = alerts.iter().filter(|alert| alert.to_string().contains("token")).collect();
    anyhow::ensure!(about_tokens.is_empty(), "{about_tokens:?}");
    anyhow::ensure!(left > 0, "the runs never met");
    println!("{left} of {} sites were left to the other run", 2 * ROUNDS * SITES.len());
    Ok(())
}

/// The behaviours of hostile sites, each with a part of its error.
const HOSTILITIES: [(Hostility, &str); 9] = [
    (Hostility::EndlessAnswer, "it exceeds its share of the memory"),
    (Hostility::EndlessError, "answered 400 Bad Request"),
    (Hostility::EndlessPages, "the list does not end within 100 pages"),
    (Hostility::LargePages, "it exceeds its share of the memory"),
    (Hostility::Drip, "it does not end in time"),
    (Hostility::Bomb, "it exceeds its share of the memory"),
    (Hostility::ManyValues, "its values exceed the memory for them"),
    (Hostility::Nested, "it is not JSON"),
    (Hostility::SignInLoop, "auth/signin answered 301 Moved Permanently"),
];

/// Time limit for sites to be reconciled, which takes a second.
const SERVED_TIMEOUT: Duration = Duration::from_secs(120);

/// Time between two checks.
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// Waits until sites have this number of webhooks and no session. Returns the time in seconds.
async fn all_served(world: &World, sites: &[String], webhooks: usize) -> f64 {
    let start = Instant::now();
    let served_sites = || {
        let tableau = world.tableau.simulator.world();
        let sites = sites.iter().map(|name| tableau.sites.get(name));
        sites.flatten().filter(|site| site.webhooks.len() == webhooks && !site.has_session()).count()
    };
    while served_sites() < sites.len() {
        sleep(POLL_INTERVAL).await;
    }
    start.elapsed().as_secs_f64()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_sites_take_neither_time_nor_memory_from_others() -> anyhow::Result<()> {
    const SITES: usize = 16;
    const EVENTS: [&str; 3] = ["ViewDeleted", "WorkbookCreated", "WorkbookRefreshFailed"];
    let world = World::start().await?;
    let server = format!("http://{}", world.tableau.address);
    let healthy: Vec<_> = (0..SITES).map(|number| format!("healthy-{number:02}")).collect();
    for name in &healthy {
        world.declare(name, &server, &EVENTS).await?;
        let mut tableau = world.tableau.simulator.world();
        // Tableau's usual answer time.
        tableau.sites.get_mut(name).context("no site")?.oddities.delay_ms = 250;
    }
    let reconciler = world.reconciler(&[]).await?;
    let run = async |id: &str| {
        let (answer, served) = tokio::join!(
            reconciler.invoke(id, apply()),
            timeout(SERVED_TIMEOUT, all_served(&world, &healthy, EVENTS.len()))
        );
        anyhow::Ok((answer?, served.context("the healthy sites are not reconciled")?))
    };
    // Each run makes the same changes at the healthy sites. The first opens connections and does not count.
    let delete_webhooks = || {
        let mut tableau = world.tableau.simulator.world();
        tableau.sites.values_mut().for_each(|site| site.webhooks.clear());
    };
    run("first").await?;
    delete_webhooks();
    let (answer, alone) = run("alone").await?;
    anyhow::ensure!(answer["text"].as_str().is_some_and(|it| it.ends_with("16 sites are as declared.")), "{answer}");
    let peak_alone = reconciler.peak_memory_kib()? / 1024;

    let hostile = |number: usize| (format!("hostile-{number:02}"), HOSTILITIES[number % HOSTILITIES.len()]);
    for (name, (hostility, _)) in (0..SITES).map(hostile) {
        world.declare(&name, &server, &EVENTS).await?;
        let mut tableau = world.tableau.simulator.world();
        tableau.sites.get_mut(&name).context("no site")?.oddities.hostility = Some(hostility);
    }
    delete_webhooks();
    let (answer, beside) = run("beside").await?;
    let text = answer["errorMessage"].as_str().with_context(|| format!("{answer}"))?;
    assert!(text.ends_with("16 of 32 sites failed."), "{text}");
    assert_eq!(text.matches(": 3 created, 1 tested").count(), SITES, "{text}");
    for (name, (hostility, words)) in (0..SITES).map(hostile) {
        let error = text.lines().skip_while(|line| !line.starts_with(&name)).nth(1).unwrap_or_default();
        assert!(error.contains(words), "{hostility:?}: {error}");
    }
    let peak = reconciler.peak_memory_kib()? / 1024;
    println!(
        "16 sites served in {alone:.2} s alone with {peak_alone} MiB, in {beside:.2} s beside 16 hostile ones with {peak} \
         MiB: {:.2} times as long",
        beside / alone
    );
    // Half of the function's memory.
    assert!(peak < 128, "{peak} MiB");
    Ok(())
}
