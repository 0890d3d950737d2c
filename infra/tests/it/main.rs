//! `cargo infra` without a cloud.

#[path = "../command/mod.rs"]
mod command;
mod interrupting;
mod packaging;
mod policy;
mod worker;

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
};

use anyhow::{Context, ensure};
use documents::Document;
use infra::{binaries::Architecture, python::PythonTools, release::ReleaseFolder, workspace::Workspace};
use tempfile::TempDir;
use tokio::process::Command;

use crate::command::{infra, isolate, run, zip_stand_in};

#[tokio::test]
async fn a_missing_requirement_is_reported_with_its_fix() -> anyhow::Result<()> {
    let workspace = Workspace::locate()?;
    let tools = PythonTools::for_local_stack(&workspace)?;
    let folder = TempDir::new()?;
    let [empty, old, only_aws] = ["empty", "old", "only-aws"].map(|name| folder.path().join(name));
    for folder in [&empty, &old, &only_aws] {
        fs::create_dir(folder)?;
    }
    let script = |path: &Path, text: &str| {
        fs::write(path, text)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o755))
    };
    script(&old.join("aws"), "#!/bin/sh\necho aws-cli/2.9.23 Python/3.9.11\n")?;
    symlink(tools.program("aws"), only_aws.join("aws"))?;
    let credentials = [("AWS_ACCESS_KEY_ID", "a"), ("AWS_SECRET_ACCESS_KEY", "b")];
    let region = [("AWS_DEFAULT_REGION", "eu-central-1")];
    // A single attempt, since the CLI waits between attempts.
    let unreachable = [("AWS_ENDPOINT_URL", "http://127.0.0.1:1"), ("AWS_MAX_ATTEMPTS", "1")];
    let no_endpoint = [&credentials[..], &region, &unreachable].concat();
    let status = ["status"].as_slice();
    let no_profile = [("AWS_PROFILE", "theirs")];
    for (path, settings, arguments, expected) in [
        (&empty, &[][..], status, "the AWS CLI cannot be started. Fix: install it, see https://aws.amazon.com/cli/"),
        (&old, &[], status, "the AWS CLI 2.9 is too old. Fix: install version 1.29, 2.13 or newer"),
        (&only_aws, &region, status, "the AWS CLI has no credentials"),
        (&only_aws, &credentials, status, "the AWS CLI has no region. Fix: run `aws configure set region"),
        (&only_aws, &no_profile, status, "the AWS CLI does not know this profile. Fix: correct AWS_PROFILE"),
        (&only_aws, &no_endpoint, status, "AWS cannot be reached"),
    ] {
        let mut infra = infra(arguments);
        isolate(&mut infra, &[path], settings)?;
        // Cargo sets this variable. A user's cargo is in PATH.
        infra.env("CARGO", env!("CARGO"));
        run(infra, "").await?.failed(&[expected])?;
    }
    for (arguments, expected) in [
        (["url", "marketing", "Workbook-Created"], "an event name consists of letters only, such as WorkbookCreated"),
        (["url", "Marketing", "WorkbookCreated"], "a site name consists of 1 to 40 lower-case letters"),
        (["reconcile", "rotate", "--site=a"], "rotate applies to all sites"),
        (["reconcile", "destroy", "--verbose"], "destroy needs the names of sites"),
    ] {
        run(infra(&arguments), "").await?.failed(&[expected])?;
    }
    Ok(())
}

/// An AWS CLI that finds no stack and no bucket. It writes each command to a file.
const EMPTY_REGION: &str = r#"#!/bin/sh
echo "$@" >> "$0.log"
case "$*" in
  *--version*) echo aws-cli/2.15.0 ;;
  *"configure list"*) echo "region : $AWS_DEFAULT_REGION : env : AWS_DEFAULT_REGION" ;;
  *get-caller-identity*) echo '{"Account":"123456789012"}' ;;
  *get-parameters-by-path*) echo '[]' ;;
  *describe-stacks*) echo "An error occurred (ValidationError) when calling: Stack does not exist" >&2; exit 254 ;;
  *) echo "An error occurred (404) when calling the HeadBucket operation: Not Found" >&2; exit 254 ;;
esac
"#;

#[tokio::test]
async fn a_region_without_function_urls_is_rejected_before_the_build() -> anyhow::Result<()> {
    let zips = TempDir::new()?;
    let write = |_: &str, zip: &Path| zip_stand_in(zip, Architecture::Arm64);
    ReleaseFolder::write(&Workspace::locate()?, zips.path(), Architecture::Arm64, write)?;
    let deploy = ["deploy", "--bucket", "b", "--zips", zips.path().to_str().context("a path")?];
    let (no_urls, no_chat) = ("has no Lambda Function URLs", "no Amazon Q Developer in chat applications");
    let no_bucket = "the bucket b does not exist or is not yours";
    for (region, expected, continues) in [
        ("eu-central-2", vec!["eu-central-2", no_urls, "AWS_DEFAULT_REGION"], false),
        ("ca-west-1", vec!["ca-west-1", no_urls], false),
        ("us-gov-west-1", vec!["AWS GovCloud (US)", no_chat], false),
        ("cn-north-1", vec!["China", no_chat], false),
        ("mx-central-1", vec!["! this release does not know whether mx-central-1", no_bucket], true),
        ("eu-central-1", vec![no_bucket], true),
    ] {
        let folder = TempDir::new()?;
        let aws = folder.path().join("aws");
        fs::write(&aws, EMPTY_REGION)?;
        fs::set_permissions(&aws, fs::Permissions::from_mode(0o755))?;
        let mut infra = infra(&deploy);
        isolate(&mut infra, &[folder.path(), Path::new("/bin")], &[("AWS_DEFAULT_REGION", region)])?;
        run(infra, "").await?.failed(&expected)?;
        let commands = fs::read_to_string(folder.path().join("aws.log"))?;
        ensure!(commands.contains("head-bucket") == continues, "{region}: {commands}");
    }
    Ok(())
}

/// An AWS CLI with a stack whose reconciler is busy at the first two invocations.
const BUSY_STACK: &str = r#"#!/bin/sh
case "$*" in
  *--version*) echo aws-cli/2.15.0 ;;
  *"configure list"*) echo "region : eu-central-1 : env : AWS_DEFAULT_REGION" ;;
  *describe-stacks*) echo '{"Stacks":[{"StackStatus":"CREATE_COMPLETE","Outputs":[
    {"OutputKey":"ReconcilerName","OutputValue":"tableau-fanout-reconciler"}]}]}' ;;
  *"lambda invoke"*)
    echo "$@" >> "$0.log"
    if [ "$(grep -c . "$0.log")" -le 2 ]; then
      echo "An error occurred (TooManyRequestsException) when calling the Invoke operation: Rate Exceeded." >&2
      exit 254
    fi
    echo '{"text":"1 site is as declared.","sites":[]}' > report.json
    echo '{"StatusCode":200}' ;;
  *) echo "An error occurred (AccessDenied) when calling: $*" >&2; exit 254 ;;
esac
"#;

#[tokio::test]
async fn a_command_waits_while_the_reconciler_is_busy_with_another_run() -> anyhow::Result<()> {
    let folder = TempDir::new()?;
    let aws = folder.path().join("aws");
    fs::write(&aws, BUSY_STACK)?;
    fs::set_permissions(&aws, fs::Permissions::from_mode(0o755))?;
    let mut infra = infra(&["reconcile", "apply"]);
    isolate(&mut infra, &[folder.path(), Path::new("/bin"), Path::new("/usr/bin")], &[])?;
    let waits = "the reconciler is busy with another run, which takes 5 minutes at most. This waits for its end";
    let output = run(infra, "").await?.succeeded(&[waits, "1 site is as declared."])?;
    ensure!(output.stdout.matches(waits).count() == 1, "{}", output.stdout);
    ensure!(fs::read_to_string(folder.path().join("aws.log"))?.lines().count() == 3);
    Ok(())
}

#[tokio::test]
async fn no_credentials_and_an_expired_session_are_reported_with_their_fix() -> anyhow::Result<()> {
    for (message, expected) in [
        ("Unable to locate credentials", "the AWS CLI has no credentials. Fix: run `aws configure`"),
        (
            "An error occurred (ExpiredToken) when calling: expired",
            "the AWS credentials have expired. Fix: sign in again",
        ),
    ] {
        let folder = TempDir::new()?;
        let aws = "#!/bin/sh\ncase \"$*\" in *--version*) echo aws-cli/2.15.0 ;; *) echo \"$MESSAGE\" >&2; exit 255 ;; esac\n";
        fs::write(folder.path().join("aws"), aws)?;
        fs::set_permissions(folder.path().join("aws"), fs::Permissions::from_mode(0o755))?;
        let id = "9c63a4d1032bb0ef67f67e5c34b46f43";
        for arguments in
            [&["tail"][..], &["console"], &["events"], &["events", "show", id], &["replay", "1", "--id", id]]
        {
            let mut infra = infra(arguments);
            isolate(&mut infra, &[folder.path(), Path::new("/bin"), Path::new("/usr/bin")], &[("MESSAGE", message)])?;
            run(infra, "").await?.failed(&[expected]).with_context(|| format!("{arguments:?}"))?;
        }
    }
    Ok(())
}

/// An AWS CLI with a stack of a release before targets.
const STACK_WITHOUT_FORWARDER: &str = r#"#!/bin/sh
case "$*" in
  *--version*) echo aws-cli/2.15.0 ;;
  *describe-stacks*) echo '{"Stacks":[{"StackStatus":"CREATE_COMPLETE","Outputs":[]}]}' ;;
  *"--logical-resource-id Forwarder"*)
    echo "An error occurred (ValidationError) when calling: Resource Forwarder does not exist for stack" >&2; exit 254 ;;
  *) echo "An error occurred (AccessDenied) when calling: $*" >&2; exit 254 ;;
esac
"#;

#[tokio::test]
async fn a_target_needs_a_stack_with_the_forwarder() -> anyhow::Result<()> {
    let folder = TempDir::new()?;
    let aws = folder.path().join("aws");
    fs::write(&aws, STACK_WITHOUT_FORWARDER)?;
    fs::set_permissions(&aws, fs::Permissions::from_mode(0o755))?;
    let mut infra = infra(&["add-target", "bi", "--preset", "plain"]);
    isolate(&mut infra, &[folder.path(), Path::new("/bin"), Path::new("/usr/bin")], &[])?;
    let expected =
        ["has no forwarder, which sends to targets. Nothing was stored. Fix: update the stack with `cargo infra"];
    run(infra, "{}").await?.failed(&expected)?;
    Ok(())
}

#[tokio::test]
async fn every_command_rejects_a_stack_name_that_aws_rejects() -> anyhow::Result<()> {
    let (long, no_endpoint) = ("a".repeat(54), [("AWS_ENDPOINT_URL", "http://127.0.0.1:1")]);
    for command in [
        &["add-site", "marketing"][..],
        &["add-sites", "sites.csv"],
        &["add-target", "bi", "--preset", "plain"],
        &["deploy", "--bucket", "b"],
        &["destroy"],
        &["reconcile", "plan"],
        &["redrive", "bi"],
        &["remove-site", "marketing"],
        &["remove-target", "bi"],
        &["replay", "1"],
        &["sites"],
        &["status"],
        &["targets"],
        &["test"],
        &["url", "marketing", "WorkbookCreated"],
    ] {
        for (name, expected) in [
            (long.as_str(), "it has 54 characters, at most 53 are allowed"),
            ("AwsFanout", "it begins with aws, which SSM does not allow for the path of a parameter"),
            ("ssm-fanout", "it begins with ssm"),
            ("fan_out", "letters, digits and hyphens only"),
        ] {
            let mut infra = infra(&[command, &["--stack", name]].concat());
            isolate(&mut infra, &[], &no_endpoint)?;
            run(infra, "").await?.failed(&[expected]).with_context(|| format!("{command:?}"))?;
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_password_in_the_proxys_url_is_rejected_and_not_repeated() -> anyhow::Result<()> {
    for address in ["http://fanout:s3cret-of-the-token@proxy.example.com:8080", "https://s3cret-of-the-token@proxy"] {
        let parameter = format!("HttpsProxy={address}");
        let expected = ["HttpsProxy has a user or a password", "give the proxy's URL without a user and a password"];
        run(infra(&["deploy", "--bucket", "b", "--parameter", &parameter]), "").await?.failed(&expected)?;
    }
    Ok(())
}

#[tokio::test]
async fn every_mentioned_command_of_cargo_infra_exists() -> anyhow::Result<()> {
    let mut commands = BTreeSet::new();
    for document in Document::all()? {
        let blocks = document.sections.iter().flat_map(|section| &section.blocks);
        let texts = blocks.filter(|block| block.is_commands()).map(|block| block.text.replace("\\\n", " "));
        let lines: Vec<_> = texts.flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>()).collect();
        let mentioned = document.code_spans().into_iter().chain(lines);
        commands.extend(mentioned.filter_map(|command| command.strip_prefix("cargo infra ").map(str::to_owned)));
    }
    ensure!(commands.len() > 10, "too few commands: {commands:?}");
    for command in commands {
        // An unknown argument before `--help` is an error.
        let arguments =
            [" < ", " > ", " && "].iter().fold(&*command, |command, end| command.split(end).next().unwrap_or_default());
        let mut bash = Command::new("bash");
        bash.args(["-c", &format!("exec \"$0\" {arguments} --help"), env!("CARGO_BIN_EXE_infra")]).kill_on_drop(true);
        run(bash, "").await?.succeeded(&[]).with_context(|| format!("cargo infra {command}"))?;
    }
    Ok(())
}
