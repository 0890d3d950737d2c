//! The reconciler's own binary, where more than its library takes part: trust, proxies, memory.

use std::time::Instant;

use anyhow::Context;
use axum::{http::StatusCode, serve::Listener};
use end_to_end::{declared::secret_of, destination::Destination, lambda::Environment, local_stack::LocalStack};
use infra::{cloud::Cloud, python::PythonTools, service::http_client, workspace::Workspace};
use reconciler::config::USUAL_TIME;
use serde_json::{Value, json};
use shared::event::Event;
use tableau_simulator::server::Simulator;
use tls::{Authority, Proxy};

/// What every scheduled run is asked for.
fn apply() -> Value {
    json!({ "action": "apply" })
}

#[tokio::test]
async fn a_server_behind_a_proxy_is_looked_after_once_its_own_authority_is_trusted() -> anyhow::Result<()> {
    const SERVER: &str = "tableau.internal";
    let stack = LocalStack::start().await?;
    let authority = Authority::new()?;
    let listener = authority.listen(SERVER).await?;
    let proxy = Proxy::to(listener.local_addr()?).await?;
    let serving = tokio::spawn(stack.tableau.simulator.clone().serve(listener));
    stack.declare("internal", &["ViewDeleted"]).await?;
    let entry = json!({ "server": format!("https://{SERVER}"), "site": "internal", "token_name": "fanout",
        "token_secret": secret_of("internal"), "events": ["ViewDeleted"] });
    stack.cloud.put_site(&stack.stack, "internal", &entry).await?;

    let variables = stack.cloud.lambda_environment(&stack.stack)?;
    let proxy_address = format!("http://{}", proxy.address);
    let variables = variables.lines().filter_map(|line| line.split_once('='));
    let variables: Vec<_> = variables.chain([("HTTPS_PROXY", proxy_address.as_str())]).collect();
    let binary = Workspace::locate()?.built("debug/tableau-webhook-reconciler");
    let log = stack.folder().join("reconciler.log");
    let reconciler = Environment::start(&stack.tools, &binary, &variables, &log, USUAL_TIME).await?;

    let answer = reconciler.invoke("distrusted", apply()).await?;
    let error = answer["errorMessage"].as_str().context("it succeeded")?;
    assert!(error.contains("The certificate of https://tableau.internal/ is not trusted."), "{error}");
    // What the error says to do; a running environment goes by it.
    let pem = stack.folder().join("ca.pem");
    let put = ["ssm", "put-parameter", "--name", "/tableau-fanout/tableau-ca", "--type", "String", "--overwrite"];
    for (id, certificates, expected) in [
        (
            "misled",
            "no certificate",
            "The certificates in /tableau-fanout/tableau-ca are not used: expected certificates in PEM",
        ),
        ("trusting", &*authority.pem(), "1 site is as declared."),
    ] {
        std::fs::write(&pem, certificates)?;
        let file = format!("file://{}", pem.display());
        stack.cloud.aws.run(&[&put[..], &["--value", &file]].concat()).await?;
        let answer = reconciler.invoke(id, apply()).await?;
        let text = answer["text"].as_str().or(answer["errorMessage"].as_str()).context("no answer")?;
        assert!(text.contains(expected), "{text}");
    }
    serving.abort();
    Ok(())
}

/// Stores a site's entry without the start of a command, which takes longer than all the rest.
async fn put_site(cloud: &Cloud, name: &str, entry: &Value) -> anyhow::Result<()> {
    let parameter = json!({ "Name": format!("/tableau-fanout/sites/{name}"), "Type": "SecureString",
        "Value": entry.to_string() });
    let put = http_client()?.post(&cloud.endpoint).header("x-amz-target", "AmazonSSM.PutParameter");
    let put = put.header("content-type", "application/x-amz-json-1.1").body(parameter.to_string());
    put.send().await?.error_for_status()?;
    Ok(())
}

#[tokio::test]
async fn hundreds_of_sites_take_little_memory() -> anyhow::Result<()> {
    const SITES: usize = 200;
    // Two of the catalogue are refused by some servers; this makes twenty.
    let events: Vec<_> =
        Event::catalogue().filter(|event| !["SiteCreated", "SiteUpdated"].contains(&event.as_str())).collect();
    let workspace = Workspace::locate()?;
    let tools = PythonTools::for_local_stack(&workspace)?;
    let folder = tempfile::Builder::new().prefix("test.").tempdir_in(workspace.local("")?)?;
    let (_server, cloud) = Cloud::start(&tools, &http_client()?, folder.path()).await?;
    let destination = Destination::answering(StatusCode::OK).await?;
    let tableau = Simulator::start(Some(destination.address.clone())).await?;
    for number in 0..SITES {
        let (name, secret) = (format!("site-{number}"), secret_of(&number.to_string()));
        tableau.simulator.world().add_site(&name, &name, &secret);
        let server = format!("http://{}", tableau.address);
        let entry = json!({ "server": server, "site": name, "token_name": name, "token_secret": secret,
            "events": events });
        put_site(&cloud, &name, &entry).await?;
    }
    let variables = [
        ("AWS_ENDPOINT_URL", cloud.endpoint.as_str()),
        ("RECEIVER_URL", "https://receiver.example/"),
        ("SITES_PATH", "/tableau-fanout/sites"),
        ("SIGNING_KEYS_PARAMETER", "/tableau-fanout/signing-keys"),
        ("STATE_PARAMETER", "/tableau-fanout/state"),
        ("NAME_PREFIX", "tableau-fanout"),
    ];
    // Built by what needs the whole stack.
    infra::functions::package(&workspace).await?;
    let binary = workspace.built("debug/tableau-webhook-reconciler");
    let log = folder.path().join("reconciler.log");
    let reconciler = Environment::start(&tools, &binary, &variables, &log, USUAL_TIME).await?;
    for (run, last) in [("first", "4000 created"), ("unchanged", "4000 unchanged")] {
        let start = Instant::now();
        let answer = reconciler.invoke(run, apply()).await?;
        let text = answer["text"].as_str().with_context(|| format!("{answer}"))?;
        assert!(text.ends_with("200 sites are as declared."), "{text}");
        let each = if run == "first" { "20 created" } else { "20 unchanged" };
        assert_eq!(text.matches(each).count(), SITES, "{last}");
        let (seconds, peak) = (start.elapsed().as_secs_f64(), reconciler.peak_memory_kib()?);
        println!("{run} run of {SITES} sites with 20 webhooks: {seconds:.1} s, peak memory {} MiB", peak / 1024);
        // The function has 256 MiB. What a site takes must not add up.
        assert!(peak < 64 * 1024, "{peak} KiB");
    }
    Ok(())
}

#[tokio::test]
async fn while_the_keys_are_rotated_every_delivery_is_accepted_at_once() -> anyhow::Result<()> {
    let stack = LocalStack::start().await?;
    stack.declare("marketing", &["WorkbookCreated", "ViewDeleted"]).await?;
    stack.cloud.apply(&stack.stack).await?;
    // A stranger's guess makes the receiver look for newer keys, which it then does not do for a minute.
    let guess = format!("{}hooks/marketing/ViewDeleted/{}", receiver(&stack)?, "A".repeat(43));
    assert_eq!(stack.http.post(&guess).send().await?.status(), StatusCode::NOT_FOUND);

    let mut rotation = Box::pin(stack.cloud.reconcile(&stack.stack, "rotate"));
    let mut delivered = 0_usize;
    let report = loop {
        let event = if delivered.is_multiple_of(2) { "WorkbookCreated" } else { "ViewDeleted" };
        let fired = async {
            // One after another, a few a second, for as long as it takes.
            let body = json!({ "event_type": event, "resource_luid": "99", "resource_name": delivered.to_string() });
            let answers = stack.fire("marketing", event, &body, 1).await?;
            anyhow::ensure!(answers == [Some(200)], "delivery {delivered} was answered {answers:?}");
            anyhow::Ok(())
        };
        tokio::select! {
            biased;
            report = &mut rotation => break report?,
            result = fired => { result?; delivered += 1; }
        }
    };
    println!("{delivered} deliveries while the keys were rotated");
    assert!(delivered > 10, "{delivered} deliveries");
    assert_eq!(report["sites"][0]["updated"].as_array().map(Vec::len), Some(2), "{report}");
    assert!(report["text"].as_str().is_some_and(|text| text.contains("test was answered 200")), "{report}");
    for event in ["WorkbookCreated", "ViewDeleted"] {
        let body = json!({ "event_type": event, "resource_name": "after" });
        assert_eq!(stack.fire("marketing", event, &body, 1).await?, [Some(200)]);
    }
    Ok(())
}

/// Where the receiver can be reached from here.
fn receiver(stack: &LocalStack) -> anyhow::Result<String> {
    stack.stack.reachable_receiver_url(&stack.cloud.aws)
}
