//! `cargo infra deploy`: its checks and its errors.

use std::{fs, os::unix::fs::symlink};

use anyhow::{Context, ensure};
use infra::{binaries, cloud::BUCKET, stack::Stack};
use serde_json::json;
use tempfile::TempDir;

use crate::testbed::{Testbed, architecture};

#[tokio::test]
async fn a_deployment_that_cannot_work_is_rejected_before_it_starts() -> anyhow::Result<()> {
    let testbed = Testbed::start().await?;
    let template = testbed.packages.template.to_str().context("a path")?;
    let deploy = ["deploy", "--no-build", "--template", template, "--arch", architecture()?];
    let missing = ["--bucket", "not-there"];
    testbed
        .infra(&[&deploy[..], &missing].concat())
        .await?
        .failed(&["the bucket not-there does not exist or is not yours", "aws s3 mb s3://not-there"])?;
    testbed.infra(&deploy).await?.failed(&["--bucket"])?;
    let create = "s3api create-bucket --bucket far-away --create-bucket-configuration LocationConstraint=eu-west-1";
    testbed.aws(create).await?;
    testbed
        .infra(&[&deploy[..], &["--bucket", "far-away"]].concat())
        .await?
        .failed(&["the bucket far-away is in eu-west-1, but the stack would be in us-east-1"])?;
    let other = if architecture()? == "arm64" { "x86_64" } else { "arm64" };
    testbed.deploy(&["--parameter", "Event=ViewDeleted"]).await?.failed(&["the template has no parameter Event."])?;
    testbed.deploy(&["--parameter", "Architecture=arm64"]).await?.failed(&["Architecture follows from --arch"])?;
    let other = ["deploy", "--no-build", "--template", template, "--bucket", BUCKET, "--arch", other];
    testbed.infra(&other).await?.failed(&["tableau-webhook-receiver was built for"])?;
    testbed
        .infra(&["deploy", "--bucket", "b", "--template", "/nowhere.yaml"])
        .await?
        .failed(&["cannot find /nowhere.yaml"])?;
    assert_eq!(testbed.aws("cloudformation list-stacks --query StackSummaries").await?, json!([]));
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
    const ENDPOINTS: &str = "com.amazonaws.us-east-1.ssm and com.amazonaws.us-east-1.sns";
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
    let folder = TempDir::new()?;
    let template = folder.path().join("infra/template.yaml");
    fs::create_dir_all(folder.path().join("infra"))?;
    fs::create_dir_all(folder.path().join("target"))?;
    let built = binaries::folder_of(&testbed.packages.template)?;
    symlink(built, folder.path().join("target/lambda"))?;
    fs::write(
        &template,
        "Description: Ours, with a resource that cannot be created\n\
         Metadata:\n  TableauFanout:\n    TemplateId: 6f0d2a94-58c1-4b7e-9d36-e1a7c40b83f5\n\
         Parameters:\n  Architecture:\n    Type: String\n  AwsEndpointUrl:\n    Type: String\n\
         Resources:\n  Point:\n    Type: AWS::S3::AccessPoint\n    Properties:\n      Bucket: not-there\n",
    )?;
    let template = template.to_str().context("a path")?;
    let deploy = ["deploy", "--no-build", "--template", template, "--bucket", BUCKET, "--arch", architecture()?];
    testbed.infra(&deploy).await?.failed(&[
        "The stack's state is ROLLBACK_COMPLETE",
        "Fix: correct the cause, run `cargo infra destroy`, then deploy again",
        "Resources that failed: Point: ",
    ])?;
    let message = "Its state is ROLLBACK_COMPLETE. Fix: delete the rest with `cargo infra destroy`";
    testbed.deploy(&[]).await?.failed(&["the stack tableau-fanout cannot be updated", message])?;
    testbed.infra(&["status"]).await?.failed(&["the stack tableau-fanout does not work", message])?;
    let nothing = "nothing on Tableau, since the stack has no working reconciler (ROLLBACK_COMPLETE)";
    testbed.infra(&["destroy", "--yes"]).await?.succeeded(&[nothing, "is deleted."])?;
    testbed.deploy(&[]).await?.succeeded(&["the stack tableau-fanout will be created"])?;
    Ok(())
}
