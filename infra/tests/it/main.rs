//! `cargo infra` as a person runs it, without a cloud.

#[path = "../command/mod.rs"]
mod command;
mod worker;

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
};

use anyhow::{Context, ensure};
use documents::Document;
use infra::{python::PythonTools, workspace::Workspace};
use tempfile::TempDir;

use crate::command::{bare, infra, said};

#[tokio::test]
async fn what_the_machine_lacks_is_said_with_what_to_do() -> anyhow::Result<()> {
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
    // Tried once only: the CLI's waits between attempts are not what is tested.
    let unreachable = [("AWS_ENDPOINT_URL", "http://127.0.0.1:1"), ("AWS_MAX_ATTEMPTS", "1")];
    let nowhere = [&credentials[..], &region, &unreachable].concat();
    let status = ["status"].as_slice();
    let no_profile = [("AWS_PROFILE", "theirs")];
    for (path, settings, arguments, expected) in [
        (&empty, &[][..], status, "cannot start aws: is the AWS CLI installed? see https://aws.amazon.com/cli/"),
        (&old, &[], status, "the AWS CLI 2.9 is too old: 1.29 or 2.13 is needed, or anything newer"),
        (&only_aws, &region, status, "the AWS CLI has no credentials"),
        (&only_aws, &credentials, status, "the AWS CLI has no region: set AWS_DEFAULT_REGION"),
        (&only_aws, &no_profile, status, "the AWS CLI does not know this profile: correct AWS_PROFILE"),
        (&only_aws, &nowhere, status, "AWS cannot be reached"),
        (&only_aws, &nowhere, &["deploy", "--bucket", "b"], "cargo-lambda is not installed: pip install cargo-lambda"),
    ] {
        let mut infra = infra(arguments);
        bare(&mut infra, &[path], settings)?;
        // As cargo tells it; a person has it in PATH.
        infra.env("CARGO", env!("CARGO"));
        said(infra, "").await?.badly(&[expected])?;
    }
    for (arguments, expected) in [
        (["url", "marketing", "Workbook-Created"], "an event name consists of letters only, such as WorkbookCreated"),
        (["url", "Marketing", "WorkbookCreated"], "a site name consists of 1 to 40 lower-case letters"),
        (["reconcile", "rotate", "--site=a"], "rotate is for all sites"),
        (["reconcile", "destroy", "--verbose"], "destroy is for sites that are named"),
    ] {
        said(infra(&arguments), "").await?.badly(&[expected])?;
    }
    Ok(())
}

/// An AWS CLI in a region of its own, which finds no stack and no bucket there. It leaves each command in a file.
const ELSEWHERE: &str = r#"#!/bin/sh
echo "$@" >> "$0.log"
case "$*" in
  *--version*) echo aws-cli/2.15.0 ;;
  *"configure list"*) echo "region : $AWS_DEFAULT_REGION : env : AWS_DEFAULT_REGION" ;;
  *get-caller-identity*) echo '{"Account":"123456789012"}' ;;
  *describe-stacks*) echo "An error occurred (ValidationError) when calling: Stack does not exist" >&2; exit 254 ;;
  *) echo "An error occurred (404) when calling the HeadBucket operation: Not Found" >&2; exit 254 ;;
esac
"#;

#[tokio::test]
async fn a_region_without_function_urls_is_refused_before_anything_is_built_or_uploaded() -> anyhow::Result<()> {
    let template = Workspace::locate()?.file("infra/template.yaml");
    let deploy = ["deploy", "--bucket", "b", "--no-build", "--template", template.to_str().context("a path")?];
    let (no_urls, no_chat) = ("has no Lambda Function URLs", "nor Amazon Q Developer in chat applications");
    let no_bucket = "the bucket b cannot be used";
    for (region, expected, may_go_on) in [
        ("eu-central-2", vec!["eu-central-2", no_urls, "AWS_DEFAULT_REGION"], false),
        ("ca-west-1", vec!["ca-west-1", no_urls], false),
        ("us-gov-west-1", vec!["AWS GovCloud (US)", no_chat], false),
        ("cn-north-1", vec!["China", no_chat], false),
        ("mx-central-1", vec!["warning: this release does not know whether mx-central-1", no_bucket], true),
        ("eu-central-1", vec![no_bucket], true),
    ] {
        let folder = TempDir::new()?;
        let aws = folder.path().join("aws");
        fs::write(&aws, ELSEWHERE)?;
        fs::set_permissions(&aws, fs::Permissions::from_mode(0o755))?;
        let mut infra = infra(&deploy);
        bare(&mut infra, &[folder.path(), Path::new("/bin")], &[("AWS_DEFAULT_REGION", region)])?;
        said(infra, "").await?.badly(&expected)?;
        let commands = fs::read_to_string(folder.path().join("aws.log"))?;
        ensure!(commands.contains("head-bucket") == may_go_on, "{region}: {commands}");
    }
    Ok(())
}

#[tokio::test]
async fn a_stacks_name_that_aws_refuses_is_refused_by_every_command_at_once() -> anyhow::Result<()> {
    let (long, nowhere) = ("a".repeat(54), [("AWS_ENDPOINT_URL", "http://127.0.0.1:1")]);
    for command in [
        &["add-site", "marketing"][..],
        &["deploy", "--bucket", "b"],
        &["destroy"],
        &["reconcile", "plan"],
        &["replay", "1"],
        &["status"],
        &["test"],
        &["url", "marketing", "WorkbookCreated"],
    ] {
        for (name, expected) in [
            (long.as_str(), "it has 54 characters, and 53 are the most"),
            ("AwsFanout", "it begins with aws, and SSM stores no parameter under a path that does"),
            ("ssm-fanout", "it begins with ssm"),
            ("fan_out", "letters, digits and hyphens only"),
        ] {
            let mut infra = infra(&[command, &["--stack", name]].concat());
            bare(&mut infra, &[], &nowhere)?;
            said(infra, "").await?.badly(&[expected]).with_context(|| format!("{command:?}"))?;
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_proxys_password_is_refused_at_once_and_not_repeated() -> anyhow::Result<()> {
    for address in ["http://fanout:s3cret-of-the-token@proxy.example.com:8080", "https://s3cret-of-the-token@proxy"] {
        let parameter = format!("HttpsProxy={address}");
        let expected =
            ["everybody who may look at the stack or the function reads it", "without a user and a password"];
        said(infra(&["deploy", "--bucket", "b", "--parameter", &parameter]), "").await?.badly(&expected)?;
    }
    Ok(())
}

#[tokio::test]
async fn every_command_of_cargo_infra_that_is_mentioned_is_one() -> anyhow::Result<()> {
    let mut commands = BTreeSet::new();
    for document in Document::all()? {
        let blocks = document.sections.iter().flat_map(|section| &section.blocks);
        let lines = blocks.filter(|block| block.is_commands()).flat_map(|block| block.text.lines().map(str::to_owned));
        let mentioned = document.code_spans().into_iter().chain(lines);
        commands.extend(mentioned.filter_map(|command| command.strip_prefix("cargo infra ").map(str::to_owned)));
    }
    ensure!(commands.len() > 10, "too few: {commands:?}");
    for command in commands {
        // Whatever is not understood in front of it is an error.
        let arguments: Vec<_> = command.split(' ').chain(["--help"]).collect();
        said(infra(&arguments), "").await?.well(&[]).with_context(|| format!("cargo infra {command}"))?;
    }
    Ok(())
}
