//! `cargo infra add-site`: its input, and what it stores.

use std::{fs, os::unix::fs::PermissionsExt};

use anyhow::{Context, ensure};
use infra::{python::PythonTools, workspace::Workspace};
use serde_json::json;
use tempfile::TempDir;

use crate::{
    command::{SECRET, infra, isolate, run},
    testbed::{CONTENT_URL, Testbed},
};

#[tokio::test]
async fn an_invalid_entry_is_not_stored() -> anyhow::Result<()> {
    let testbed = Testbed::start().await?;
    testbed
        .add_site(&[])
        .await?
        .failed(&["there is no stack tableau-fanout", "create it with `cargo infra deploy`"])?;
    testbed.deploy(&[]).await?.succeeded(&[])?;
    testbed.infra(&["sites"]).await?.succeeded(&["No site is declared. To add one: cargo infra add-site marketing"])?;
    let changed = |member: &str, value: &str| {
        let mut entry = testbed.entry();
        entry[member] = value.into();
        entry.to_string()
    };
    let closed_port = "http://127.0.0.1:1";
    for (entry, expected) in [
        (String::new(), vec!["standard input is empty", "pass the site entry as JSON"]),
        ("token".to_owned(), vec!["Nothing was stored", "its value is not a JSON object"]),
        (changed("events", "all"), vec!["Nothing was stored", "events is not valid"]),
        (changed("server", "ftp://tableau.example"), vec!["Nothing was stored", "server is not valid"]),
        (changed("token_secret", &format!("{SECRET}-no-longer")), vec!["Nothing was stored", "refused the token"]),
        (changed("site", "another"), vec!["Nothing was stored", "for another site than \"another\""]),
        (changed("server", closed_port), vec!["Nothing was stored", "cannot be reached", "--no-sign-in"]),
    ] {
        testbed.infra_with(&["add-site", "marketing"], &entry).await?.failed(&expected)?;
    }
    let world = || testbed.tableau.simulator.world();
    world().sites.values_mut().flat_map(|site| &mut site.tokens).for_each(|token| token.is_administrator = false);
    testbed.add_site(&[]).await?.failed(&["Nothing was stored", "is not an administrator of the site"])?;
    let parameters = testbed.aws("ssm get-parameters-by-path --path /tableau-fanout --recursive").await?;
    assert_eq!(parameters["Parameters"], json!([]));
    ensure!(!world().sites.values().any(|site| site.has_session()), "a session is left open");

    let certificates = "ssm put-parameter --name /tableau-fanout/tableau-ca --type String --value";
    testbed.aws(&format!("{certificates} none")).await?;
    testbed.add_site(&[]).await?.failed(&["the CA certificates in /tableau-fanout/tableau-ca are not valid"])?;

    // With --no-sign-in the entry is stored, and the reconciler reports the problem. Only a sign-in needs the certificates.
    let unreachable =
        testbed.infra_with(&["add-site", "marketing", "--no-sign-in"], &changed("server", closed_port)).await?;
    unreachable.failed(&["the entry is stored, but the webhooks of marketing are not as declared"])?;
    let folder = TempDir::new()?;
    let file = folder.path().join("sites.json");
    fs::write(
        &file,
        json!([{ "name": "finance", "server": closed_port, "site": "fin", "token_name": "fanout",
        "token_secret": SECRET }])
        .to_string(),
    )?;
    let file = file.to_str().context("a path")?;
    testbed.infra(&["add-sites", file, "--no-sign-in"]).await?.failed(&["the entries are stored"])?;
    testbed.aws("ssm delete-parameter --name /tableau-fanout/tableau-ca").await?;
    testbed.infra(&["reconcile", "apply"]).await?.failed(&["cannot be reached."])?;
    Ok(())
}

#[tokio::test]
async fn a_terminal_is_asked_again_for_what_can_be_wrong_and_does_not_show_the_secret() -> anyhow::Result<()> {
    let testbed = Testbed::start().await?;
    testbed.deploy(&["--parameter", "Events=ViewDeleted"]).await?.succeeded(&[])?;
    let server = format!("http://{}", testbed.tableau.address);
    let page = format!("{server}/#/site/{CONTENT_URL}/views/Sales/Overview?:iid=1");
    let (address, name, secret) = ("/#/site/marketing: ", "personal access token: ", "(not shown): ");
    let end = "(Enter if not known): ";
    // Every value is wrong once. What was typed stays.
    let answers = [
        (address, "the marketing site", false),
        (address, "http://tableau.example", false),
        (address, &page, false),
        (name, "", false),
        (name, "fanout", false),
        (secret, "", true),
        (secret, "mistyped", true),
        (end, "next year", false),
        (end, "2099-05-21", false),
        ("]: ", "", false),
        ("token [fanout]: ", "", false),
        ("keeps the typed one): ", SECRET, true),
    ];
    testbed.infra_in_terminal(&["add-site", "marketing"], &answers).await?.succeeded(&[
        "this is not a web address",
        "would send the token in plain text",
        &format!("server {server}/, site {CONTENT_URL}"),
        "the name is empty",
        "the secret is empty",
        "this is not a date, such as 2027-05-21",
        "Tableau refused the token \"fanout\"",
        "Nothing is stored yet. Fix: ",
        "  + tableau-fanout-ViewDeleted",
        "  token ends on 2099-05-21 (in ",
    ])?;

    a_changed_entry_keeps_what_is_not_given(&testbed).await?;
    // A second entry for the same site is found before the token is asked for. The test's user then ends the input.
    let answers = [(address, page.as_str(), false), (address, "\u{4}", false)];
    testbed.infra_in_terminal(&["add-site", "finance"], &answers).await?.failed(&[
        "the entry marketing declares the site",
        "`cargo infra remove-site marketing`",
        "the input ended",
    ])?;
    let entry = testbed.entry().to_string();
    testbed
        .infra_with(&["add-site", "finance"], &entry)
        .await?
        .failed(&["the entry marketing declares the site", "/#/site/mkt already. Nothing was stored. Fix: "])?;
    testbed
        .infra_with(&["add-site", "marketing"], &entry)
        .await?
        .failed(&["exists already. Nothing was stored", "`cargo infra add-site marketing --overwrite`"])?;

    let question = "to continue: ";
    testbed
        .infra_in_terminal(&["destroy"], &[(question, "yes", false)])
        .await?
        .failed(&["the answer is not tableau-fanout, the stack's name. Nothing was deleted"])?;
    assert_eq!(testbed.webhooks(), ["tableau-fanout-UserDeleted"]);
    testbed
        .infra_in_terminal(&["destroy"], &[(question, "tableau-fanout", false)])
        .await?
        .succeeded(&["is deleted."])?;
    assert_eq!(testbed.webhooks(), [""; 0]);
    Ok(())
}

/// Changes parts of the entry of `marketing`, from standard input and in a terminal.
async fn a_changed_entry_keeps_what_is_not_given(testbed: &Testbed) -> anyhow::Result<()> {
    let change = ["add-site", "marketing", "--overwrite"];
    testbed.infra_with(&change, r#"{"events":["UserDeleted"]}"#).await?.succeeded(&["+ tableau-fanout-UserDeleted"])?;
    let kept = "the site keeps its own events: UserDeleted";
    testbed.infra_with(&change, &testbed.entry().to_string()).await?.succeeded(&[kept])?;
    let (server, secret) = ("/#/site/mkt]: ", "Enter keeps the stored one): ");
    let unchanged = [
        (server, "", false),
        ("token [fanout]: ", "", false),
        (secret, "", true),
        ("(Enter keeps 2099-05-21T00:00:00Z): ", "", false),
    ];
    testbed.infra_in_terminal(&change, &unchanged).await?.succeeded(&[
        "Enter keeps the value in brackets",
        kept,
        "marketing: 1 unchanged",
    ])?;
    // The secret of another token is not offered.
    for site in testbed.tableau.simulator.world().sites.values_mut() {
        site.add_token("renewed", SECRET);
    }
    testbed.infra(&["sites"]).await?.succeeded(&["2099-05-21"])?;
    let renewed = [
        (server, "", false),
        ("token [fanout]: ", "renewed", false),
        ("(not shown): ", SECRET, true),
        ("(Enter if not known): ", "", false),
    ];
    testbed.infra_in_terminal(&change, &renewed).await?.succeeded(&[kept, "marketing: 1 unchanged"])?;
    testbed.infra(&["sites"]).await?.succeeded(&["not known"])?;
    let expires = [&change[..], &["--token-expires", "2098-05-21"]].concat();
    testbed.infra_with(&expires, "{}").await?.succeeded(&["token ends on 2098-05-21 (in "])?;
    testbed
        .infra_with(&[&change[..], &["--token-expires", "soon"]].concat(), "{}")
        .await?
        .failed(&["expected a date"])?;
    let other = r#"{"token_name":"another"}"#;
    testbed.infra_with(&change, other).await?.failed(&["Nothing was stored", "token_secret is missing"])?;
    assert_eq!(testbed.webhooks(), ["tableau-fanout-UserDeleted"]);
    Ok(())
}

#[tokio::test]
async fn the_installed_aws_cli_gets_no_secret_on_a_command_line_or_in_a_file() -> anyhow::Result<()> {
    let testbed = Testbed::start().await?;
    testbed.deploy(&["--parameter", "Events=ViewDeleted"]).await?.succeeded(&[])?;
    let tools = PythonTools::for_local_stack(&Workspace::locate()?)?;
    let folder = TempDir::new()?;
    let [programs, files] = ["bin", "files"].map(|name| folder.path().join(name));
    [&programs, &files].into_iter().try_for_each(fs::create_dir)?;
    // Records what other users can see of a command: its arguments and its files.
    let record = folder.path().join("record");
    let [aws, record_text, files_text] =
        [&tools.program("aws"), &record, &files].map(|path| path.display().to_string());
    let wrapper = format!(
        "#!/bin/sh\n{aws} \"$@\"\nstatus=$?\nPATH=/usr/bin:/bin\necho \"$*\" >> {record_text}\n\
         grep -r . {files_text} >> {record_text}\nexit $status\n"
    );
    fs::write(programs.join("aws"), wrapper)?;
    fs::set_permissions(programs.join("aws"), fs::Permissions::from_mode(0o755))?;
    let settings = testbed.settings();
    let mut add = infra(&["add-site", "marketing"]);
    isolate(&mut add, &[&programs], &settings)?;
    add.env("TMPDIR", &files);
    run(add, &testbed.entry().to_string()).await?.succeeded(&["  + tableau-fanout-ViewDeleted"])?;
    let mut other_region = infra(&["url", "marketing", "ViewDeleted"]);
    isolate(&mut other_region, &[&programs], &settings)?;
    other_region.env("AWS_DEFAULT_REGION", "eu-central-1");
    let no_stack = "there is no stack tableau-fanout in account 000000000000, region eu-central-1. Fix: create it";
    run(other_region, "").await?.failed(&[no_stack])?;

    let record = fs::read_to_string(record)?;
    ensure!(record.contains("ssm put-parameter --name /tableau-fanout/sites/marketing"), "{record}");
    ensure!(record.contains(r#""action": "apply""#), "the report is not searched: {record}");
    ensure!(!record.contains(SECRET), "{record}");
    assert_eq!(fs::read_dir(files)?.count(), 0);
    Ok(())
}
