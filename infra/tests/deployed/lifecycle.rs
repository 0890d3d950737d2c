//! The whole way of an administrator: from an empty account to a stack that works, and back.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    process::Stdio,
};

use anyhow::{Context, ensure};
use infra::{binaries, cloud::BUCKET, python::PythonTools, service::http_client, stack::Stack, workspace::Workspace};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use secrecy::ExposeSecret;
use serde_json::json;
use shared::events::catalogue::Event;
use tableau_simulator::model::Webhook;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::{
    command::{Envelope, SECRET, bare, infra, said},
    office::{CONTENT_URL, Office, architecture},
};

/// A webhook of somebody else.
fn foreign() -> anyhow::Result<Webhook> {
    Ok(Webhook {
        id: "1".to_owned(),
        name: "Theirs".to_owned(),
        event: "ViewDeleted".parse()?,
        url: "https://their.example/".to_owned(),
        is_enabled: true,
        status_change_reason: None,
    })
}

#[tokio::test]
async fn a_stack_is_deployed_used_and_destroyed_and_leaves_what_was_announced() -> anyhow::Result<()> {
    let office = Office::open().await?;
    let mut heard = String::new();
    let mut hear = |said: Envelope| heard.push_str(&said.all());
    office.tableau.simulator.world().sites.values_mut().for_each(|site| site.webhooks.extend(foreign().ok()));

    hear(office.deploy(&[]).await?.well(&[
        "account 000000000000, region us-east-1",
        "the stack tableau-fanout will be made",
        "tableau-webhook-receiver: ",
        "needs GLIBC 2.",
        "EventsTopicArn  arn:aws:sns:",
        "cargo infra add-site marketing",
    ])?);
    let again = office.deploy(&["--parameter", "Events=WorkbookCreated,ViewDeleted"]).await?;
    hear(again.well(&["the stack tableau-fanout will be updated; its state is CREATE_COMPLETE"])?);

    hear(office.infra(&["test"]).await?.badly(&["there is no site whose webhooks could be tested"])?);
    hear(office.infra(&["url", "marketing", "ViewDeleted"]).await?.badly(&["has no signing keys yet"])?);
    let added = office.add_site(&["--verbose"]).await?.well(&[
        "the site has 1 webhooks",
        "aws ssm put-parameter --name /tableau-fanout/sites/marketing --type SecureString",
        "< (a secret)",
        r#"$ echo '{"action":"apply","sites":["marketing"]}' | aws lambda invoke"#,
        "  + tableau-fanout-WorkbookCreated",
        "From now on the schedule looks after marketing",
    ])?;
    hear(added);
    ensure!(office.webhooks().len() == 3, "{:?}", office.webhooks());

    hear(office.infra(&["status"]).await?.well(&[
        "state UPDATE_COMPLETE",
        "apply: every site is as declared (1 sites, 2 created, ",
        "on: looks back 24 h (RecoverHours)",
        "not recovered in the last 24 h: nothing",
        "declared under /tableau-fanout/sites: marketing",
        "0 changes at 0 of 1 site. Nothing was done.",
    ])?);
    let reconcile = async |action| office.infra(&["reconcile", action, "--site", "marketing"]).await;
    hear(reconcile("destroy").await?.well(&["1 site is without any webhook of ours."])?);
    assert_eq!(office.webhooks(), ["Theirs"]);
    hear(reconcile("plan").await?.well(&["2 changes at 1 of 1 site. Nothing was done."])?);
    hear(reconcile("apply").await?.well(&["1 site is as declared."])?);

    hear(office.infra(&["test"]).await?.well(&[
        "2 tests were taken by the receiver.",
        r#""type":"com.tableau.Test""#,
        "event_type    Test",
        "Tableau Fanout: test: 2 tests were taken by the receiver",
        "Events and alerts come through.",
    ])?);
    let queues = office.aws("sqs list-queues --queue-name-prefix tableau-fanout-test-").await?;
    ensure!(queues["QueueUrls"].as_array().is_none_or(Vec::is_empty), "left: {queues}");
    assert_eq!(office.aws("sns list-subscriptions --query Subscriptions").await?, json!([]));

    let url = office.infra(&["url", "marketing", "ViewDeleted"]).await?.well(&["this address is a credential"])?;
    let stack = Stack::read(&office.cloud.aws, "tableau-fanout").await?;
    let address = url.printed.trim();
    let path = address.strip_prefix(stack.output("ReceiverUrl")?).context("another receiver")?;
    let reachable = format!("{}{path}", stack.reachable_receiver_url(&office.cloud.aws)?);
    assert_eq!(http_client()?.post(reachable).body("{}").send().await?.status(), 200);
    let registered = |webhook: &Webhook| webhook.url == address;
    ensure!(office.tableau.simulator.world().sites.values().any(|site| site.webhooks.iter().any(registered)));

    let keyring = stack.keyring(&office.cloud.aws).await?.to_stored();
    hear(office.infra(&["destroy"]).await?.badly(&["nobody can be asked here, and nothing was done"])?);
    hear(office.infra(&["destroy", "--yes"]).await?.well(&[
        "the parameter /tableau-fanout/signing-keys",
        "Another stack called tableau-fanout goes on with them; --delete-parameters deletes them and the key",
        "1 site is without any webhook of ours.",
        "The stack tableau-fanout is gone.",
        "Kept: /tableau-fanout/sites/marketing.",
    ])?);
    assert_eq!(office.webhooks(), ["Theirs"]);
    nothing_is_left(&office, &["/tableau-fanout/sites/marketing"], &["Enabled"]).await?;

    for secret in [SECRET, keyring.expose_secret().trim_matches(['[', ']', '"']), address] {
        ensure!(!heard.contains(secret), "{secret} is shown: {heard}");
    }
    office
        .infra(&["status"])
        .await?
        .badly(&["there is no stack tableau-fanout in account 000000000000, region us-east-1."])?;

    // What was kept is in nobody's way.
    let warning = "/tableau-fanout/sites/marketing is there already, from an earlier stack, and will be used.";
    office.deploy(&["--parameter", "Events=ViewDeleted"]).await?.well(&["will be made", warning])?;
    office.add_site(&[]).await?.badly(&["there is an entry /tableau-fanout/sites/marketing already", "--overwrite"])?;
    office.add_site(&["--overwrite"]).await?.well(&["  + tableau-fanout-ViewDeleted"])?;
    office.infra(&["destroy", "--yes", "--delete-parameters"]).await?.well(&["is gone."])?;
    assert_eq!(office.webhooks(), ["Theirs"]);
    nothing_is_left(&office, &[], &["PendingDeletion", "PendingDeletion"]).await
}

#[tokio::test]
async fn keys_of_earlier_stacks_of_the_name_are_found_and_those_of_others_are_left_alone() -> anyhow::Result<()> {
    let office = Office::open().await?;
    for theirs in ["Site entries, signing keys and topics of tableau-fanout-2", "Something else"] {
        let create = ["kms", "create-key", "--description", theirs];
        office.cloud.aws.run(&create).await?;
    }
    let mut earlier = Vec::new();
    for _ in 0..2 {
        office.deploy(&[]).await?.well(&[])?;
        let stack = Stack::read(&office.cloud.aws, "tableau-fanout").await?;
        let delete = |key: &String| format!("aws kms schedule-key-deletion --key-id {key}");
        let mut expected: Vec<_> = earlier.iter().map(delete).collect();
        let key = stack.output("KeyId")?.to_owned();
        expected.push(format!("the encryption key {key}, without which nobody could read the parameters any more"));
        let expected: Vec<_> = expected.iter().map(String::as_str).collect();
        office.infra(&["destroy", "--yes"]).await?.well(&expected)?;
        earlier.push(key);
        // Also when there is no stack any more.
        let expected: Vec<_> = earlier.iter().map(delete).collect();
        let expected: Vec<_> = expected.iter().map(String::as_str).collect();
        office.infra(&["destroy", "--yes"]).await?.badly(&[&["there is no stack"][..], &expected].concat())?;
    }
    office.deploy(&[]).await?.well(&[])?;
    let deleted =
        earlier.iter().map(|key| format!("the encryption key {key} of an earlier stack of this name: unusable"));
    let deleted: Vec<_> = deleted.collect();
    let deleted: Vec<_> = deleted.iter().map(String::as_str).collect();
    office.infra(&["destroy", "--yes", "--delete-parameters"]).await?.well(&deleted)?;
    nothing_is_left(&office, &[], &["Enabled", "Enabled", "PendingDeletion", "PendingDeletion", "PendingDeletion"])
        .await
}

/// Looks for resources of stacks that are gone, for parameters other than these, and for keys in other states.
async fn nothing_is_left(office: &Office, parameters: &[&str], keys: &[&str]) -> anyhow::Result<()> {
    for (command, list) in [
        ("lambda list-functions", "Functions"),
        ("sns list-topics", "Topics"),
        ("logs describe-log-groups", "logGroups"),
        ("iam list-roles", "Roles"),
        ("scheduler list-schedules", "Schedules"),
        ("kms list-aliases", "Aliases"),
        ("cloudwatch describe-alarms", "MetricAlarms"),
        ("sqs list-queues", "QueueUrls"),
    ] {
        let left = office.aws(&format!("{command} --query {list}")).await?;
        ensure!(left.as_array().is_none_or(Vec::is_empty), "{command}: {left}");
    }
    let listed = office.aws("kms list-keys --query Keys[].KeyId").await?;
    let mut states = Vec::new();
    for key in listed.as_array().context("no keys")?.iter().filter_map(|key| key.as_str()) {
        let state = office.aws(&format!("kms describe-key --key-id {key} --query KeyMetadata.KeyState")).await?;
        states.push(state.as_str().context("a key without a state")?.to_owned());
    }
    states.sort();
    assert_eq!(states, keys);
    let list = "ssm get-parameters-by-path --path /tableau-fanout --recursive --query Parameters[].Name";
    assert_eq!(office.aws(list).await?, json!(parameters));
    Ok(())
}

#[tokio::test]
async fn an_entry_that_cannot_be_used_is_not_stored() -> anyhow::Result<()> {
    let office = Office::open().await?;
    office.add_site(&[]).await?.badly(&["there is no stack tableau-fanout", "make it with `cargo infra deploy`"])?;
    office.deploy(&[]).await?.well(&[])?;
    let changed = |member: &str, value: &str| {
        let mut entry = office.entry();
        entry[member] = value.into();
        entry.to_string()
    };
    let nowhere = "http://127.0.0.1:1";
    for (entry, expected) in [
        (String::new(), vec!["standard input is empty", "give it the site entry as JSON"]),
        ("token".to_owned(), vec!["nothing was stored", "its value is not a JSON object"]),
        (changed("events", "all"), vec!["nothing was stored", "events is not valid"]),
        (changed("server", "tableau.example"), vec!["nothing was stored", "server is not valid"]),
        (changed("token_secret", &format!("{SECRET}-no-longer")), vec!["nothing was stored", "refused the token"]),
        (changed("site", "another"), vec!["nothing was stored", "for another site than \"another\""]),
        (changed("server", nowhere), vec!["nothing was stored", "cannot be reached from here", "--no-sign-in"]),
    ] {
        office.infra_with(&["add-site", "marketing"], &entry).await?.badly(&expected)?;
    }
    let world = || office.tableau.simulator.world();
    world().sites.values_mut().flat_map(|site| &mut site.tokens).for_each(|token| token.is_administrator = false);
    office.add_site(&[]).await?.badly(&["nothing was stored", "is no administrator of the site"])?;
    let parameters = office.aws("ssm get-parameters-by-path --path /tableau-fanout --recursive").await?;
    assert_eq!(parameters["Parameters"], json!([]));
    ensure!(!world().sites.values().any(|site| site.has_session()), "a session is left open");

    // What cannot be tried from here is stored, and the reconciler says what it met.
    let unreachable =
        office.infra_with(&["add-site", "marketing", "--no-sign-in"], &changed("server", nowhere)).await?;
    unreachable
        .badly(&["the entry is stored, but its site is not as it should be yet", "cannot be reached from here."])?;
    Ok(())
}

#[tokio::test]
async fn a_stack_is_not_destroyed_while_its_webhooks_are_on_tableau_unless_by_force() -> anyhow::Result<()> {
    let office = Office::open().await?;
    office.deploy(&[]).await?.well(&[])?;
    office.add_site(&[]).await?.well(&[])?;
    let before = office.webhooks();
    assert_eq!(before.len(), Event::default_selection().len());
    office.tableau.simulator.world().sites.values_mut().for_each(|site| site.tokens.clear());
    office.infra(&["reconcile", "apply"]).await?.badly(&["refused the token", "not every site succeeded"])?;
    office.infra(&["status"]).await?.badly(&["apply: not every site is as declared (1 sites, 1 sites failed"])?;
    office.infra(&["test"]).await?.badly(&["refused the token", "Remove the queues and their subscriptions"])?;
    office.infra(&["destroy", "--yes"]).await?.badly(&[
        "refused the token",
        "so the stack was not deleted: the stack is as it was",
        "delete the webhooks called tableau-fanout-… on Tableau yourself",
    ])?;
    let state = "scheduler list-schedules --query Schedules[].State";
    assert_eq!(office.aws(state).await?, json!(["ENABLED"]));
    office.infra(&["destroy", "--yes", "--force"]).await?.well(&["as --force says", "is gone."])?;
    assert_eq!(office.webhooks(), before);
    nothing_is_left(&office, &["/tableau-fanout/sites/marketing"], &["Enabled"]).await
}

#[tokio::test]
async fn at_a_terminal_everything_is_asked_for_and_the_secret_is_not_shown() -> anyhow::Result<()> {
    let office = Office::open().await?;
    office.deploy(&["--parameter", "Events=ViewDeleted"]).await?.well(&[])?;
    let server = format!("http://{}", office.tableau.address);
    let mut answers = [
        ("online.tableau.com: ", server.as_str(), false),
        ("for the Default site): ", CONTENT_URL, false),
        ("personal access token: ", "fanout", false),
        ("(not shown): ", SECRET, true),
    ];
    office.infra_asks(&["add-site", "marketing"], &answers).await?.well(&["  + tableau-fanout-ViewDeleted"])?;
    answers[0].1 = "tableau.example";
    office
        .infra_asks(&["add-site", "finance"], &answers)
        .await?
        .badly(&["nothing was stored", "server is not valid"])?;

    let asked = "to go ahead: ";
    office
        .infra_asks(&["destroy"], &[(asked, "yes", false)])
        .await?
        .badly(&["that is not its name: nothing was done"])?;
    assert_eq!(office.webhooks(), ["tableau-fanout-ViewDeleted"]);
    office.infra_asks(&["destroy"], &[(asked, "tableau-fanout", false)]).await?.well(&["is gone."])?;
    assert_eq!(office.webhooks(), [""; 0]);
    Ok(())
}

#[tokio::test]
async fn the_installed_aws_cli_is_used_and_no_secret_is_on_a_command_line_or_in_a_file() -> anyhow::Result<()> {
    let office = Office::open().await?;
    office.deploy(&["--parameter", "Events=ViewDeleted"]).await?.well(&[])?;
    let tools = PythonTools::for_local_stack(&Workspace::locate()?)?;
    let folder = TempDir::new()?;
    let [programs, files] = ["bin", "files"].map(|name| folder.path().join(name));
    [&programs, &files].into_iter().try_for_each(fs::create_dir)?;
    // Notes what others can see of a command: its words, and the files that are there meanwhile.
    let notes = folder.path().join("notes");
    let [aws, notes_text, files_text] = [&tools.program("aws"), &notes, &files].map(|path| path.display().to_string());
    let wrapper = format!(
        "#!/bin/sh\n{aws} \"$@\"\nstatus=$?\nPATH=/usr/bin:/bin\necho \"$*\" >> {notes_text}\n\
         grep -r . {files_text} >> {notes_text}\nexit $status\n"
    );
    fs::write(programs.join("aws"), wrapper)?;
    fs::set_permissions(programs.join("aws"), fs::Permissions::from_mode(0o755))?;
    let settings = office.settings();
    let mut add = infra(&["add-site", "marketing"]);
    bare(&mut add, &[&programs], &settings)?;
    add.env("TMPDIR", &files);
    said(add, &office.entry().to_string()).await?.well(&["  + tableau-fanout-ViewDeleted"])?;
    let mut elsewhere = infra(&["url", "marketing", "ViewDeleted"]);
    bare(&mut elsewhere, &[&programs], &settings)?;
    elsewhere.env("AWS_DEFAULT_REGION", "eu-central-1");
    let nowhere =
        "there is no stack tableau-fanout in account 000000000000, region eu-central-1. If it has another name";
    said(elsewhere, "").await?.badly(&[nowhere])?;

    let notes = fs::read_to_string(notes)?;
    ensure!(notes.contains("ssm put-parameter --name /tableau-fanout/sites/marketing"), "{notes}");
    ensure!(notes.contains(r#""action": "apply""#), "the report is looked into: {notes}");
    ensure!(!notes.contains(SECRET), "{notes}");
    assert_eq!(fs::read_dir(files)?.count(), 0);
    Ok(())
}

#[tokio::test]
async fn an_interrupted_test_leaves_no_queue_behind() -> anyhow::Result<()> {
    let office = Office::open().await?;
    office.deploy(&["--parameter", "Events=ViewDeleted"]).await?.well(&[])?;
    office.add_site(&[]).await?.well(&[])?;
    // Long enough to be interrupted.
    office.tableau.simulator.world().sites.values_mut().for_each(|site| site.oddities.delay_ms = 2_000);
    for title in ["Subscribe a queue to each topic, for this test only", "Have Tableau test every webhook"] {
        let warned = interrupted(&office, &["test"], title).await?;
        ensure!(warned.contains("interrupted before the test was over"), "{warned}");
        let queues = office.aws("sqs list-queues --queue-name-prefix tableau-fanout-test-").await?;
        ensure!(queues["QueueUrls"].as_array().is_none_or(Vec::is_empty), "left: {queues}");
        assert_eq!(office.aws("sns list-subscriptions --query Subscriptions").await?, json!([]));
    }
    Ok(())
}

#[tokio::test]
async fn an_interrupted_end_leaves_the_schedule_running() -> anyhow::Result<()> {
    let office = Office::open().await?;
    office.deploy(&["--parameter", "Events=ViewDeleted"]).await?.well(&[])?;
    office.add_site(&[]).await?.well(&[])?;
    office.tableau.simulator.world().sites.values_mut().for_each(|site| site.oddities.delay_ms = 2_000);
    let destroy = ["destroy", "--yes", "--force"];
    let warned = interrupted(&office, &destroy, "Remove our webhooks from Tableau").await?;
    ensure!(warned.contains("so the stack was not deleted: the stack is as it was"), "{warned}");
    assert_eq!(office.aws("scheduler list-schedules --query Schedules[].State").await?, json!(["ENABLED"]));
    Ok(())
}

/// Interrupts a command when it begins a step, and returns what it says of that.
async fn interrupted(office: &Office, arguments: &[&str], title: &str) -> anyhow::Result<String> {
    let mut command = infra(arguments);
    command.args(["--endpoint-url", &office.cloud.endpoint]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut command = command.spawn()?;
    let mut lines = BufReader::new(command.stdout.take().context("no output")?).lines();
    while lines.next_line().await?.context("it ended early")? != format!("==> {title}") {}
    let id = command.id().and_then(|id| i32::try_from(id).ok()).context("it has ended")?;
    kill(Pid::from_raw(id), Signal::SIGINT)?;
    // What it prints from now on is read, so that printing never fails.
    while lines.next_line().await?.is_some() {}
    let output = command.wait_with_output().await?;
    let warned = String::from_utf8(output.stderr)?;
    ensure!(!output.status.success(), "it succeeded: {warned}");
    Ok(warned)
}

#[tokio::test]
async fn what_cannot_be_deployed_is_refused_before_anything_is_made() -> anyhow::Result<()> {
    let office = Office::open().await?;
    let template = office.packages.template.to_str().context("a path")?;
    let deploy = ["deploy", "--no-build", "--template", template, "--arch", architecture()?];
    let missing = ["--bucket", "not-there"];
    office
        .infra(&[&deploy[..], &missing].concat())
        .await?
        .badly(&["the bucket not-there cannot be used", "aws s3 mb s3://not-there"])?;
    office.infra(&deploy).await?.badly(&["--bucket"])?;
    let elsewhere = "s3api create-bucket --bucket far-away --create-bucket-configuration LocationConstraint=eu-west-1";
    office.aws(elsewhere).await?;
    office
        .infra(&[&deploy[..], &["--bucket", "far-away"]].concat())
        .await?
        .badly(&["the bucket far-away is in eu-west-1, and the stack would be in us-east-1"])?;
    let other = if architecture()? == "arm64" { "x86_64" } else { "arm64" };
    office.deploy(&["--parameter", "Event=ViewDeleted"]).await?.badly(&["the template has no parameter Event, but"])?;
    office.deploy(&["--parameter", "Architecture=arm64"]).await?.badly(&["Architecture follows from --arch"])?;
    let other = ["deploy", "--no-build", "--template", template, "--bucket", BUCKET, "--arch", other];
    office.infra(&other).await?.badly(&["tableau-webhook-receiver was built for"])?;
    office
        .infra(&["deploy", "--bucket", "b", "--template", "/nowhere.yaml"])
        .await?
        .badly(&["cannot find /nowhere.yaml"])?;
    assert_eq!(office.aws("cloudformation list-stacks --query StackSummaries").await?, json!([]));
    Ok(())
}

#[tokio::test]
async fn the_receiver_and_the_reconciler_reserve_concurrency_unless_somebody_says_otherwise() -> anyhow::Result<()> {
    let office = Office::open().await?;
    office.deploy(&[]).await?.well(&["the receiver reserves 20, the reconciler 1; this account's quota is 1000"])?;
    let too_much = ["--parameter", "ReceiverReservedConcurrency=950"];
    office.deploy(&too_much).await?.badly(&["the stack would reserve 951", "the stack can reserve 900 of it"])?;
    let other = ["--parameter", "ReceiverReservedConcurrency=7", "--parameter", "ExclusiveRuns=false"];
    office.deploy(&other).await?.well(&["the receiver reserves 7, the reconciler 0"])?;
    Ok(())
}

#[tokio::test]
async fn an_account_with_a_quota_of_ten_gets_a_stack_and_is_told_what_it_lacks() -> anyhow::Result<()> {
    let office = Office::with(&[("LAMBDA_ACCOUNT_CONCURRENCY", "10")]).await?;
    let told = ["quota is 10", "no Lambda concurrency is reserved (ExclusiveRuns=false)", "Ask for a higher quota"];
    office.deploy(&[]).await?.well(&told)?;
    let stack = Stack::read(&office.cloud.aws, "tableau-fanout").await?;
    assert_eq!(stack.setting("ExclusiveRuns"), Some("false"));
    // Asking for it does not help.
    office.deploy(&["--parameter", "ExclusiveRuns=true"]).await?.well(&told)?;
    let stack = Stack::read(&office.cloud.aws, "tableau-fanout").await?;
    assert_eq!(stack.setting("ExclusiveRuns"), Some("false"));
    let too_much = ["--parameter", "ReceiverReservedConcurrency=5"];
    office.deploy(&too_much).await?.badly(&["the stack would reserve 5", "the stack can reserve 0 of it"])?;
    Ok(())
}

#[tokio::test]
async fn a_vpc_takes_subnets_and_security_groups_and_says_which_endpoints_it_needs() -> anyhow::Result<()> {
    const ENDPOINTS: &str = "com.amazonaws.us-east-1.ssm and com.amazonaws.us-east-1.sns";
    let office = Office::open().await?;
    let (subnets, groups) = ("SubnetIds=subnet-0a1b2c3d,subnet-4e5f6a7b", "SecurityGroupIds=sg-0a1b2c3d");
    for (parameter, missing) in [(subnets, "SecurityGroupIds is missing"), (groups, "SubnetIds is missing")] {
        let said = office.deploy(&["--parameter", parameter]).await?.badly(&["go together", missing])?;
        ensure!(!said.all().contains("Check that Lambda can run"), "it went on: {}", said.all());
    }
    let vpc = office.deploy(&["--parameter", subnets, "--parameter", groups]).await?;
    vpc.well(&["the reconciler will be in a VPC", ENDPOINTS])?;
    // A stack that is in one stays in it.
    office.deploy(&["--parameter", "SubnetIds="]).await?.badly(&["SubnetIds is missing"])?;
    Ok(())
}

#[tokio::test]
async fn a_stack_of_somebody_else_is_left_alone() -> anyhow::Result<()> {
    let office = Office::open().await?;
    let folder = TempDir::new()?;
    let template = folder.path().join("theirs.yaml");
    fs::write(&template, "Description: Subscribes to Tableau Fanout\nResources:\n  A:\n    Type: AWS::SNS::Topic\n")?;
    let body = format!("file://{}", template.display());
    let create = ["cloudformation", "create-stack", "--stack-name", "theirs", "--template-body", &body];
    office.cloud.aws.run(&create).await?;
    let message = "the stack theirs is none of Tableau Fanout's: nothing was done";
    office.infra(&["destroy", "--stack", "theirs", "--yes"]).await?.badly(&[message])?;
    office.deploy(&["--stack", "theirs"]).await?.badly(&[message])?;
    office.infra(&["status", "--stack", "theirs"]).await?.badly(&["is it Tableau Fanout's?"])?;
    assert_eq!(office.aws("sns list-topics --query length(Topics)").await?, 1);
    Ok(())
}

#[tokio::test]
async fn a_stack_that_could_not_be_made_says_why_and_how_to_begin_again() -> anyhow::Result<()> {
    let office = Office::open().await?;
    let folder = TempDir::new()?;
    let template = folder.path().join("infra/template.yaml");
    fs::create_dir_all(folder.path().join("infra"))?;
    fs::create_dir_all(folder.path().join("target"))?;
    let built = binaries::folder_of(&office.packages.template)?;
    symlink(built, folder.path().join("target/lambda"))?;
    fs::write(
        &template,
        "Description: Ours, with something that cannot be made\n\
         Metadata:\n  TableauFanout:\n    TemplateId: 6f0d2a94-58c1-4b7e-9d36-e1a7c40b83f5\n\
         Parameters:\n  Architecture:\n    Type: String\n  AwsEndpointUrl:\n    Type: String\n\
         Resources:\n  Point:\n    Type: AWS::S3::AccessPoint\n    Properties:\n      Bucket: not-there\n",
    )?;
    let template = template.to_str().context("a path")?;
    let deploy = ["deploy", "--no-build", "--template", template, "--bucket", BUCKET, "--arch", architecture()?];
    office.infra(&deploy).await?.badly(&[
        "the stack is in the state ROLLBACK_COMPLETE",
        "What failed: Point: ",
        "remove what is left with `cargo infra destroy`, and deploy again",
    ])?;
    let message = "its state is ROLLBACK_COMPLETE. Remove what is left of it with `cargo infra destroy`";
    office.deploy(&[]).await?.badly(&["the stack tableau-fanout cannot be updated", message])?;
    office.infra(&["status"]).await?.badly(&["the stack tableau-fanout does not work", message])?;
    let nothing = "nothing on Tableau: the stack has no reconciler that could (ROLLBACK_COMPLETE)";
    office.infra(&["destroy", "--yes"]).await?.well(&[nothing, "is gone."])?;
    office.deploy(&[]).await?.well(&["the stack tableau-fanout will be made"])?;
    Ok(())
}
