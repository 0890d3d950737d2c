//! `cargo infra add-sites`, `sites` and `remove-site`.

use std::{fs, time::Instant};

use anyhow::{Context, ensure};
use infra::{python::PythonTools, queue, workspace::Workspace};
use serde_json::{Value, json};
use shared::events::catalogue::Event;
use tempfile::TempDir;

use crate::{
    command::{SECRET, infra, isolate, run},
    testbed::{CONTENT_URL, Testbed},
};

/// Number of sites in the file.
const COUNT: usize = 30;

/// The time that the simulated Tableau takes for an answer, in milliseconds.
const DELAY_MS: u64 = 200;

/// The token of a site. The last sites share one.
fn token(number: usize) -> String {
    if number > COUNT - 4 { "fanout".to_owned() } else { format!("fanout-{number}") }
}

#[tokio::test]
async fn sites_of_a_file_are_stored_and_those_that_do_not_work_are_named() -> anyhow::Result<()> {
    let (testbed, folder) = (Testbed::start().await?, TempDir::new()?);
    testbed.deploy(&[]).await?.succeeded(&[])?;
    let server = format!("http://{}", testbed.tableau.address);
    let world = || testbed.tableau.simulator.world();
    for number in 1..=COUNT {
        world().add_site(&format!("s{number}"), &token(number), SECRET).oddities.delay_ms = DELAY_MS;
    }
    // The last site has a mistyped token. One line repeats a site, one names none.
    let mut lines = vec!["Name;Server;Site;Token_name;Token_secret;Events".to_owned()];
    lines.extend(
        (1..COUNT).map(|number| format!("site-{number};{server}/#/site/s{number}/home;;{};{SECRET};", token(number))),
    );
    lines.push(format!("site-{COUNT};{server};s{COUNT};fanout;{SECRET}-mistyped;ViewDeleted"));
    lines.push(format!("again;{server};s1;fanout-1;{SECRET};"));
    lines.push(format!("Not A Name;{server};s2;fanout;{SECRET};"));
    let file = folder.path().join("sites.csv");
    let file = file.to_str().context("a path")?;
    let write = |lines: &[String]| fs::write(file, format!("\u{feff}{}\r\n", lines.join("\r\n")));
    write(&lines)?;

    let events = Event::default_selection().len();
    // With the installed AWS CLI, whose start takes most of the time of a command.
    let settings = testbed.settings();
    let programs = PythonTools::for_local_stack(&Workspace::locate()?)?.programs();
    let add = async |arguments: &[&str]| {
        let mut add = infra(&[&["add-sites", file][..], arguments].concat());
        isolate(&mut add, &[&programs], &settings)?;
        run(add, "").await
    };
    let start = Instant::now();
    let output = add(&[]).await?.failed(&[
        "✓ site-1      http",
        "✗ site-30     line 31: Tableau refused the token \"fanout\"",
        "✗ again       line 32: site-1 in the same file is the same site",
        "✗ Not A Name  line 33: the name \"Not A Name\" is not valid",
        &format!("✓ site-29     {events} webhooks"),
        "3 of 32 sites are not stored; the others are. Fix: correct the lines marked with ✗ in",
    ])?;
    println!("{}\n{COUNT} sites took {:.1} s", output.all(), start.elapsed().as_secs_f64());
    assert_eq!(testbed.webhooks().len(), events * (COUNT - 1));

    // The corrected file passes over the stored sites.
    lines.truncate(COUNT + 1);
    lines[COUNT] = lines[COUNT].replace("-mistyped", "");
    write(&lines)?;
    add(&[]).await?.succeeded(&["✓ site-1   is stored already", "✓ site-30  http", "the webhooks of 30 sites"])?;
    // A file with the new tokens alone keeps the rest.
    world().sites.values_mut().for_each(|site| site.add_token("renewed", SECRET));
    let renewed =
        json!([{ "name": "site-30", "token_name": "renewed", "token_secret": SECRET, "token_expires": "2099-05-21" }]);
    fs::write(file, renewed.to_string())?;
    add(&[]).await?.failed(&["site is missing"])?;
    add(&["--overwrite"]).await?.succeeded(&["✓ site-30  1 webhook"])?;

    let sites = testbed.infra(&["sites", "--json"]).await?.succeeded(&[])?.stdout;
    let sites: Vec<Value> = serde_json::from_str(&sites)?;
    assert_eq!(sites.len(), COUNT);
    let last = sites.iter().find(|site| site["name"] == "site-30").context("no such site")?;
    let expected = json!({ "name": "site-30", "server": server, "site": "s30", "token_name": "renewed",
        "token_ends": "2099-05-21T00:00:00Z", "events": ["ViewDeleted"], "stored": last["stored"], "problem": null });
    assert_eq!(*last, expected);

    for (content, expected) in [
        ("", "has no sites"),
        ("marketing,https://tableau.example", "its first line is not a header"),
        ("{}", "it is not a JSON list of objects"),
    ] {
        fs::write(file, content)?;
        testbed.infra(&["add-sites", file]).await?.failed(&["Nothing was stored", expected])?;
    }
    Ok(())
}

#[tokio::test]
async fn a_removed_site_leaves_no_webhook_no_state_and_no_open_alert() -> anyhow::Result<()> {
    let testbed = Testbed::start().await?;
    testbed.deploy(&["--parameter", "Events=ViewDeleted"]).await?.succeeded(&[])?;
    testbed.add_site(&[]).await?.succeeded(&[])?;
    let world = || testbed.tableau.simulator.world();
    world().add_site("fin", "other", SECRET);
    let finance = json!({ "server": format!("http://{}/#/site/fin/home", testbed.tableau.address), "token_name": "other",
        "token_secret": SECRET });
    testbed.infra_with(&["add-site", "finance"], &finance.to_string()).await?.succeeded(&[])?;
    let aws = &testbed.cloud.aws;
    let alerts = queue::create(aws, "alerts").await?;
    let topic = testbed.aws("sns list-topics --query Topics[?ends_with(TopicArn,'alerts')].TopicArn|[0]").await?;
    queue::subscribe(aws, &alerts, topic.as_str().context("no topic")?, &json!({})).await?;
    let subject = async || -> anyhow::Result<String> {
        let message = queue::receive(aws, &alerts).await?.pop().context("no alert")?;
        let alert: Value = serde_json::from_str(message["Body"].as_str().context("no body")?)?;
        Ok(format!("{}\n{}", alert["Subject"], alert["Message"]))
    };

    // The token ends.
    world()
        .sites
        .values_mut()
        .flat_map(|site| &mut site.tokens)
        .filter(|token| token.name == "other")
        .for_each(|token| token.secret.push_str("-revoked"));
    testbed.infra(&["reconcile", "apply"]).await?.failed(&["cargo infra add-site finance --overwrite (or: aws ssm"])?;
    let begun = subject().await?;
    ensure!(begun.contains("finance: token refused"), "{begun}");
    ensure!(begun.contains("run: cargo infra add-site finance --overwrite (or: aws ssm put-parameter"), "{begun}");

    let webhook = "tableau-fanout-ViewDeleted";
    testbed
        .infra(&["remove-site", "sales"])
        .await?
        .failed(&["Nothing was removed", "declared are finance, marketing"])?;
    testbed.infra(&["remove-site", "finance"]).await?.failed(&[
        "the webhooks of finance could not be deleted",
        "run `cargo infra remove-site finance --force`",
        webhook,
    ])?;
    testbed.infra(&["sites"]).await?.succeeded(&["✓ finance ", "✓ marketing ", "/#/site/fin  other"])?;
    testbed.infra(&["remove-site", "finance", "--force"]).await?.succeeded(&[
        "may be left on Tableau",
        webhook,
        "finance is removed.",
        "Revoke its token \"other\"",
    ])?;
    let over = subject().await?;
    ensure!(over.contains("finance: solved: token refused"), "{over}");
    let items = "dynamodb scan --table-name tableau-fanout-state --query Items[].pk.S";
    let items = testbed.aws(items).await?;
    ensure!(!items.to_string().contains("site#finance"), "{items}");

    // Two entries for one site: the removal of one keeps the webhooks.
    let copy =
        format!("put-parameter --type SecureString --name /tableau-fanout/sites/copy --value {}", testbed.entry());
    testbed.aws(&format!("ssm {copy}")).await?;
    testbed
        .infra(&["sites"])
        .await?
        .failed(&["1 of 2 site entries cannot be used", "the entry copy declares the site"])?;
    testbed.infra(&["remove-site", "copy"]).await?.succeeded(&["the entry marketing declares the same site"])?;
    let webhooks = || world().sites.get(CONTENT_URL).map(|site| site.webhooks.len());
    assert_eq!(webhooks(), Some(1));
    testbed.infra(&["remove-site", "marketing"]).await?.succeeded(&["marketing is removed."])?;
    assert_eq!(webhooks(), Some(0));
    assert_eq!(
        testbed.aws("ssm get-parameters-by-path --path /tableau-fanout/sites --query Parameters").await?,
        json!([])
    );
    Ok(())
}
