//! `cargo infra deploy`: its checks and its errors.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use anyhow::{Context, ensure};
use documents::Document;
use infra::{
    binaries::Architecture,
    cloud::{BUCKET, Cloud},
    environment::REGION,
    python::PythonTools,
    release::ReleaseFolder,
    stack::Stack,
    workspace::Workspace,
};
use serde_json::json;
use tempfile::TempDir;
use tokio::process::Command;

use crate::{
    command::{Output, infra, isolate, run, zip_stand_in},
    testbed::Testbed,
};

#[tokio::test]
async fn a_deployment_that_cannot_work_is_rejected_before_it_starts() -> anyhow::Result<()> {
    let testbed = Testbed::start().await?;
    let deploy = ["deploy", "--zips", testbed.release.path().to_str().context("a path")?];
    let missing = ["--bucket", "not-there"];
    testbed
        .infra(&[&deploy[..], &missing].concat())
        .await?
        .failed(&["the bucket not-there does not exist or is not yours", "aws s3 mb s3://not-there"])?;
    let create = "s3api create-bucket --bucket far-away --region eu-west-1 --create-bucket-configuration \
                  LocationConstraint=eu-west-1";
    testbed.aws(create).await?;
    testbed
        .infra(&[&deploy[..], &["--bucket", "far-away"]].concat())
        .await?
        .failed(&["the bucket far-away is in eu-west-1, but the stack would be in eu-local-1"])?;
    testbed.deploy(&["--parameter", "Event=ViewDeleted"]).await?.failed(&["the template has no parameter Event."])?;
    testbed
        .deploy(&["--parameter", "Architecture=arm64"])
        .await?
        .failed(&["Architecture follows from --arch or --zips"])?;
    assert_eq!(testbed.aws("cloudformation list-stacks --query StackSummaries").await?, json!([]));
    Ok(())
}

/// The tool's own bucket in the local cloud.
const OWN_BUCKET: &str = "tableau-fanout-artifacts-000000000000-eu-local-1";

#[tokio::test]
async fn a_deployment_without_a_bucket_keeps_its_code_in_a_bucket_of_its_own() -> anyhow::Result<()> {
    let testbed = Testbed::start().await?;
    let deploy = ["deploy", "--zips", testbed.release.path().to_str().context("a path")?];
    // Somebody else took the name.
    let tools = PythonTools::for_local_stack(&Workspace::locate()?)?;
    let theirs = Cloud::in_account(&tools, testbed.cloud.endpoint.clone(), testbed.cloud.aws.folder(), "111111111111");
    let region = format!("LocationConstraint={REGION}");
    let create = ["s3api", "create-bucket", "--bucket", OWN_BUCKET, "--create-bucket-configuration", &region];
    theirs.aws.run(&create).await?;
    let expected =
        [OWN_BUCKET, "it is another account's", "Nothing was deployed", "name a bucket of yours with --bucket"];
    testbed.infra(&deploy).await?.failed(&expected)?;
    theirs.aws.run(&["s3api", "delete-bucket", "--bucket", OWN_BUCKET]).await?;

    let created = format!("created the bucket {OWN_BUCKET} for the code: private and encrypted");
    let expected = [
        &created,
        "\u{2713} Receiver created",
        "\u{2713} ReconcilerSchedule created",
        "cargo infra add-site marketing",
    ];
    testbed.infra(&deploy).await?.succeeded(&expected)?;
    let setting = async |command: &str, query: &str| {
        testbed.aws(&format!("s3api {command} --bucket {OWN_BUCKET} --query {query}")).await
    };
    let closed = json!({ "BlockPublicAcls": true, "IgnorePublicAcls": true, "BlockPublicPolicy": true,
        "RestrictPublicBuckets": true });
    assert_eq!(setting("get-public-access-block", "PublicAccessBlockConfiguration").await?, closed);
    let algorithm = "ServerSideEncryptionConfiguration.Rules[0].ApplyServerSideEncryptionByDefault.SSEAlgorithm";
    assert_eq!(setting("get-bucket-encryption", algorithm).await?, "AES256");
    let tags = json!([{ "Key": "created-by", "Value": "tableau-fanout" }]);
    assert_eq!(setting("get-bucket-tagging", "TagSet").await?, tags);

    // The code of an earlier version goes, another stack's stays. The settings of an interrupted creation are completed.
    for key in ["tableau-fanout/earlier", "tableau-fanout-2/theirs"] {
        testbed.aws(&format!("s3api put-object --bucket {OWN_BUCKET} --key {key}")).await?;
    }
    testbed.aws(&format!("s3api delete-bucket-tagging --bucket {OWN_BUCKET}")).await?;
    testbed.aws("ssm put-parameter --name /tableau-fanout/sites/marketing --type String --value x").await?;
    let used = format!("the code goes to the bucket {OWN_BUCKET}");
    testbed.infra(&deploy).await?.succeeded(&[&used, "cargo infra test"])?;
    assert_eq!(setting("get-bucket-tagging", "TagSet").await?, tags);
    let keys = setting("list-objects-v2", "Contents[].Key").await?.to_string();
    ensure!(!keys.contains("earlier") && keys.contains("tableau-fanout-2/theirs"), "{keys}");
    let kept = format!(
        "the bucket {OWN_BUCKET}, which other stacks may use. To delete it: aws s3 rb s3://{OWN_BUCKET} --force"
    );
    testbed.aws("ssm delete-parameter --name /tableau-fanout/sites/marketing").await?;
    testbed.infra(&["destroy", "--yes"]).await?.succeeded(&[&kept, "\u{2713} Receiver deleted"])?;
    assert_eq!(setting("list-objects-v2", "Contents[].Key").await?, json!(["tableau-fanout-2/theirs"]));
    Ok(())
}

#[tokio::test]
async fn both_functions_reserve_concurrency_by_default() -> anyhow::Result<()> {
    let testbed = Testbed::start().await?;
    testbed
        .deploy(&[])
        .await?
        .succeeded(&["the receiver reserves 20, the reconciler 1; this account's quota is 1000"])?;
    let too_much = ["--parameter", "ReceiverReservedConcurrency=950"];
    testbed.deploy(&too_much).await?.failed(&["the stack would reserve 951", "the stack can reserve 900 of it"])?;
    let other = ["--parameter", "ReceiverReservedConcurrency=7", "--parameter", "ExclusiveRuns=false"];
    testbed.deploy(&other).await?.succeeded(&["the receiver reserves 7, the reconciler 0"])?;
    Ok(())
}

#[tokio::test]
async fn an_account_with_a_quota_of_ten_gets_a_stack_without_reservations() -> anyhow::Result<()> {
    let testbed = Testbed::with(&[("LAMBDA_ACCOUNT_CONCURRENCY", "10")]).await?;
    let expected = ["quota is 10", "no Lambda concurrency is reserved (ExclusiveRuns=false)", "request a higher quota"];
    testbed.deploy(&[]).await?.succeeded(&expected)?;
    let stack = Stack::read(&testbed.cloud.aws, "tableau-fanout").await?;
    assert_eq!(stack.setting("ExclusiveRuns"), Some("false"));
    // ExclusiveRuns=true does not fit either.
    testbed.deploy(&["--parameter", "ExclusiveRuns=true"]).await?.succeeded(&expected)?;
    let stack = Stack::read(&testbed.cloud.aws, "tableau-fanout").await?;
    assert_eq!(stack.setting("ExclusiveRuns"), Some("false"));
    let too_much = ["--parameter", "ReceiverReservedConcurrency=5"];
    testbed.deploy(&too_much).await?.failed(&["the stack would reserve 5", "the stack can reserve 0 of it"])?;
    Ok(())
}

#[tokio::test]
async fn a_vpc_needs_subnets_security_groups_and_endpoints() -> anyhow::Result<()> {
    const ENDPOINTS: &str = "com.amazonaws.eu-local-1.ssm and com.amazonaws.eu-local-1.sns";
    let testbed = Testbed::start().await?;
    let (subnets, groups) = ("SubnetIds=subnet-0a1b2c3d,subnet-4e5f6a7b", "SecurityGroupIds=sg-0a1b2c3d");
    for (parameter, missing) in [(subnets, "SecurityGroupIds is missing"), (groups, "SubnetIds is missing")] {
        let output = testbed
            .deploy(&["--parameter", parameter])
            .await?
            .failed(&["give both SubnetIds and SecurityGroupIds", missing])?;
        ensure!(!output.all().contains("Check that Lambda can run"), "it continued: {}", output.all());
    }
    let vpc = testbed.deploy(&["--parameter", subnets, "--parameter", groups]).await?;
    vpc.succeeded(&["the reconciler will be in a VPC", ENDPOINTS])?;
    // The stack keeps its security groups.
    testbed.deploy(&["--parameter", "SubnetIds="]).await?.failed(&["SubnetIds is missing"])?;
    Ok(())
}

#[tokio::test]
async fn a_stack_of_another_template_is_not_changed() -> anyhow::Result<()> {
    let testbed = Testbed::start().await?;
    let folder = TempDir::new()?;
    let template = folder.path().join("theirs.yaml");
    fs::write(&template, "Description: Subscribes to Tableau Fanout\nResources:\n  A:\n    Type: AWS::SNS::Topic\n")?;
    let body = format!("file://{}", template.display());
    let create = ["cloudformation", "create-stack", "--stack-name", "theirs", "--template-body", &body];
    testbed.cloud.aws.run(&create).await?;
    let message = "the stack theirs is not a stack of Tableau Fanout. Nothing was done";
    testbed.infra(&["destroy", "--stack", "theirs", "--yes"]).await?.failed(&[message])?;
    testbed.deploy(&["--stack", "theirs"]).await?.failed(&[message])?;
    testbed.infra(&["status", "--stack", "theirs"]).await?.failed(&["that it is a stack of Tableau Fanout"])?;
    assert_eq!(testbed.aws("sns list-topics --query length(Topics)").await?, 1);
    Ok(())
}

#[tokio::test]
async fn a_failed_deployment_reports_why_and_how_to_start_again() -> anyhow::Result<()> {
    let testbed = Testbed::start().await?;
    let folder = testbed.folder_with(
        "Description: Ours, with a resource that cannot be created\n\
         Metadata:\n  TableauFanout:\n    TemplateId: 6f0d2a94-58c1-4b7e-9d36-e1a7c40b83f5\n\
         Parameters:\n  Architecture:\n    Type: String\n  AwsEndpointUrl:\n    Type: String\n\
         Resources:\n  Point:\n    Type: AWS::S3::AccessPoint\n    Properties:\n      Bucket: not-there\n",
    )?;
    testbed.deploy_folder(folder.path(), &[]).await?.failed(&[
        "The stack's state is ROLLBACK_COMPLETE",
        "Fix: correct the cause, run `cargo infra destroy`, then deploy again",
        "Resources that failed: Point: ",
        "\u{2717} Point CREATE_FAILED: ",
        "CloudFormation takes the changes back",
    ])?;
    let fix = "Fix: delete the rest with `cargo infra destroy`";
    testbed.deploy(&[]).await?.failed(&["the stack tableau-fanout cannot be updated", "Nothing was deployed", fix])?;
    testbed.infra(&["status"]).await?.failed(&["the stack tableau-fanout does not work", fix])?;
    let nothing = "nothing on Tableau, since the stack has no working reconciler (ROLLBACK_COMPLETE)";
    testbed.infra(&["destroy", "--yes"]).await?.succeeded(&[nothing, "is deleted."])?;
    testbed.deploy(&[]).await?.succeeded(&["the stack tableau-fanout will be created"])?;

    // A failed update names the resources that failed this time.
    let template = fs::read_to_string(testbed.release.template())?;
    let mut errors = Vec::new();
    for name in ["First", "Second"] {
        let resource = format!(
            "\nResources:\n  {name}:\n    Type: AWS::S3::AccessPoint\n    Properties:\n      Bucket: not-there\n"
        );
        let folder = testbed.folder_with(&template.replacen("\nResources:\n", &resource, 1))?;
        let unchanged = "The stack is unchanged. Fix: correct the cause, then deploy again";
        errors.push(testbed.deploy_folder(folder.path(), &[]).await?.failed(&[unchanged])?.stderr);
    }
    ensure!(errors[0].contains("Resources that failed: First: "), "{}", errors[0]);
    ensure!(errors[1].contains("Resources that failed: Second: "), "{}", errors[1]);
    Ok(())
}

/// Deploys a release folder with the documented commands of the AWS CLI, and more options at the end.
async fn deploy_by_hand(testbed: &Testbed, folder: &Path, options: &str) -> anyhow::Result<Output> {
    // The walk takes it too, with a build.
    let commands =
        Document::read("docs/deploying.md")?.section("From a release, without Rust")?.blocks.first().cloned();
    let commands = commands.context("no commands")?.text;
    let (enter, deploy) = commands.split_once('\n').context("one command")?;
    ensure!(enter.starts_with("cd tableau-fanout-"), "it does not begin in the folder of a release: {enter}");
    let deploy = deploy.replace("YOUR-BUCKET", BUCKET);
    let mut bash = Command::new("bash");
    bash.args(["-e", "-c", &format!("{}{options}", deploy.trim_end())]).current_dir(folder).kill_on_drop(true);
    let tools = PythonTools::for_local_stack(&Workspace::locate()?)?.programs();
    isolate(&mut bash, &[&tools, Path::new("/usr/bin"), Path::new("/bin")], &testbed.settings())?;
    run(bash, "").await
}

#[tokio::test]
async fn functions_for_another_architecture_are_deployed_only_together_with_it() -> anyhow::Result<()> {
    let (testbed, folder) = (Testbed::start().await?, TempDir::new()?);
    let here = testbed.release.architecture();
    let other = if here == Architecture::Arm64 { Architecture::X86_64 } else { Architecture::Arm64 };
    ReleaseFolder::write(&Workspace::locate()?, folder.path(), other, |_, zip| zip_stand_in(zip, other))?;
    let architecture =
        "lambda get-function-configuration --function-name tableau-fanout-receiver --query Architectures";
    // A new stack in a local cloud is for this machine, and an update keeps the architecture.
    let cargo = folder.path().join("cargo");
    fs::write(&cargo, "#!/bin/sh\ncase \"$*\" in *--version) ;; *) exit 1 ;; esac\n")?;
    fs::set_permissions(&cargo, fs::Permissions::from_mode(0o755))?;
    let from_source = async || {
        let mut deploy = infra(&["deploy", "--bucket", BUCKET, "--endpoint-url", &testbed.cloud.endpoint]);
        deploy.env("CARGO", &cargo);
        run(deploy, "").await
    };
    let build = format!("==> Build the functions for {here}");
    let built = [build.as_str(), "the functions do not build"];
    from_source().await?.failed(&built)?;
    testbed.deploy(&[]).await?.succeeded(&[&format!("zipped, {here}, needs GLIBC")])?;
    assert_eq!(testbed.aws(architecture).await?, json!([here.as_str()]));

    // The AWS CLI keeps the stack's value.
    deploy_by_hand(&testbed, folder.path(), "").await?.failed(&["'Architecture'", "AllowedValues"])?;
    assert_eq!(testbed.aws(architecture).await?, json!([here.as_str()]));
    let stack = Stack::read(&testbed.cloud.aws, "tableau-fanout").await?;
    assert_eq!((stack.state(), stack.setting("Architecture")), ("CREATE_COMPLETE", Some(here.as_str())));

    let given = format!(" --parameter-overrides Architecture={other}");
    deploy_by_hand(&testbed, folder.path(), &given).await?.succeeded(&[])?;
    assert_eq!(testbed.aws(architecture).await?, json!([other.as_str()]));
    testbed.deploy(&[]).await?.succeeded(&["will be updated"])?;
    assert_eq!(testbed.aws(architecture).await?, json!([here.as_str()]));

    from_source().await?.failed(&built)?;
    Ok(())
}
