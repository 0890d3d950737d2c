//! The policy for deployers, in a cloud that checks identities. Ministack does if its `AUTH` is set.

use std::{fs, os::unix::fs::symlink, path::Path};

use anyhow::{Context, ensure};
use documents::Block;
use infra::{aws::Aws, python::PythonTools, workspace::Workspace};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command;

use crate::{
    command::{Output, SECRET, infra, isolate, run},
    sink::Sink,
    testbed::Testbed,
};

/// Actions for which ministack checks no resource, or knows no condition. The test allows them for every resource, as far as
/// the policy allows them at all.
const WITHOUT_RESOURCE_HERE: [&str; 4] =
    ["kms:ScheduleKeyDeletion", "ssm:DeleteParameters", "ssm:GetParametersByPath", "cloudwatch:DeleteDashboards"];

/// Statements about calls that ministack does not check: those of CloudFormation, of SSM to KMS, and the passing of roles.
const UNCHECKED_HERE: [&str; 5] = ["EncryptedParameters", "KeyAlias", "Mappings", "NewKey", "RolesOfServices"];

/// Commands by statement: a command, a resource of the stack, and one of others. Without a resource there are no others.
const COMMANDS: [(&str, &str, &str, &str); 19] = [
    ("Stack", "cloudformation delete-stack --stack-name", "tableau-fanout", "theirs"),
    ("Stack", "cloudformation delete-stack --stack-name", "tableau-fanout-target-pager", "tableau-fanout-targets"),
    ("Stack", "cloudformation describe-stack-events --stack-name", "tableau-fanout", "tableau-fanout-2"),
    ("Bucket", "s3api create-bucket --bucket", "tableau-fanout-artifacts-000000000000-eu-local-1", "theirs"),
    (
        "Code",
        "s3api delete-object --bucket tableau-fanout-artifacts-000000000000-eu-local-1 --key",
        "tableau-fanout/code",
        "tableau-fanout-2/code",
    ),
    ("Functions", "lambda delete-function --function-name", "tableau-fanout-receiver", "theirs"),
    ("Functions", "lambda get-function-concurrency --function-name", "tableau-fanout-reconciler", "tableau-fanout"),
    ("Roles", "iam delete-role --role-name", "tableau-fanout-ReceiverRole-1", "theirs"),
    (
        "Topics",
        "sns delete-topic --topic-arn",
        "arn:aws:sns:eu-local-1:000000000000:tableau-fanout-events.fifo",
        "arn:aws:sns:eu-local-1:000000000000:theirs",
    ),
    ("Queues", "sqs create-queue --queue-name", "tableau-fanout-test-1", "tableau-failures"),
    ("Queues", "sqs create-queue --queue-name", "tableau-fanout-target-pager-dead", "theirs"),
    ("State", "dynamodb delete-table --table-name", "tableau-fanout-state", "theirs"),
    ("Key", "kms schedule-key-deletion --key-id", "00000000-0000-0000-0000-000000000000", ""),
    ("Parameters", "ssm get-parameter --name", "/tableau-fanout/signing-keys", "/theirs/signing-keys"),
    ("Logs", "logs filter-log-events --log-group-name", "/aws/lambda/tableau-fanout-receiver", "/aws/lambda/theirs"),
    (
        "Alarms",
        "cloudwatch put-metric-alarm --evaluation-periods 1 --comparison-operator LessThanThreshold --alarm-name",
        "tableau-fanout-receiver-slow",
        "theirs",
    ),
    ("Dashboard", "cloudwatch delete-dashboards --dashboard-names", "tableau-fanout", ""),
    ("Schedule", "scheduler get-schedule --name", "tableau-fanout-ReconcilerSchedule-1", "theirs"),
    ("ActionsWithoutResource", "kms list-keys --region", "eu-local-1", ""),
];

/// Runs the documented commands for the policy of deployers.
async fn policy(testbed: &Testbed) -> anyhow::Result<Vec<Value>> {
    policy_of(testbed, "deployer", documents::commands("docs/deploying.md", "Rights of the deployer")?).await
}

/// Runs documented commands as an administrator. Returns the statements of the policy that they create.
async fn policy_of(testbed: &Testbed, role: &str, commands: Vec<Block>) -> anyhow::Result<Vec<Value>> {
    let (workspace, folder) = (Workspace::locate()?, TempDir::new()?);
    symlink(workspace.file("infra"), folder.path().join("infra"))?;
    let commands: String = commands.iter().map(|block| block.text.replace("eu-central-1", "eu-local-1")).collect();
    let mut bash = Command::new("bash");
    bash.args(["-e", "-u", "-c", &commands]).current_dir(&folder).kill_on_drop(true);
    let tools = PythonTools::for_local_stack(&workspace)?.programs();
    let settings = [&testbed.settings()[..], &[("AWS_ACCESS_KEY_ID", testbed.cloud.account.as_str())]].concat();
    isolate(&mut bash, &[&tools, Path::new("/usr/bin"), Path::new("/bin")], &settings)?;
    run(bash, "").await?.succeeded(&[&format!("arn:aws:iam::000000000000:policy/tableau-fanout-{role}")])?;
    let text = fs::read_to_string(folder.path().join(format!("{role}-policy.json")))?;
    for placeholder in ["STACK", "REGION", "ACCOUNT", "BUCKET"] {
        ensure!(!text.contains(placeholder), "{placeholder} has no value");
    }
    let policy: Value = serde_json::from_str(&text)?;
    Ok(policy["Statement"].as_array().context("no statements")?.clone())
}

/// A user with the policy, or a part of it.
struct Deployer<'a> {
    testbed: &'a Testbed,
    credentials: [(&'static str, String); 2],
}

impl<'a> Deployer<'a> {
    async fn create(testbed: &'a Testbed) -> anyhow::Result<Self> {
        testbed.aws("iam create-user --user-name deployer").await?;
        let key = testbed.aws("iam create-access-key --user-name deployer").await?;
        let text = |name: &str| key["AccessKey"][name].as_str().context("no access key").map(str::to_owned);
        let credentials =
            [("AWS_ACCESS_KEY_ID", text("AccessKeyId")?), ("AWS_SECRET_ACCESS_KEY", text("SecretAccessKey")?)];
        Ok(Self { testbed, credentials })
    }

    /// Replaces the user's statements.
    async fn allow(&self, statements: &[Value]) -> anyhow::Result<()> {
        let covers = |allowed: &Value, action: &str| {
            let allowed = allowed.as_str().unwrap_or_default();
            let (start, end) = allowed.split_once('*').unwrap_or((allowed, ""));
            allowed == action || allowed.contains('*') && action.starts_with(start) && action.ends_with(end)
        };
        let allows = |statement: &Value, action: &str| match &statement["Action"] {
            Value::Array(actions) => actions.iter().any(|allowed| covers(allowed, action)),
            allowed => covers(allowed, action),
        };
        let without_resource = WITHOUT_RESOURCE_HERE.iter();
        let without_resource =
            without_resource.filter(|action| statements.iter().any(|statement| allows(statement, action)));
        let without_resource: Vec<_> = without_resource.collect();
        // AWS has no action of this name: it asks for that of a single message.
        let batches = statements.iter().filter(|statement| allows(statement, "sqs:DeleteMessage"));
        let batches = batches.map(|statement| {
            json!({ "Effect": "Allow", "Action": "sqs:DeleteMessageBatch", "Resource": statement["Resource"] })
        });
        let mut statements: Vec<_> = statements.iter().cloned().chain(batches).collect();
        if !without_resource.is_empty() {
            statements.push(json!({ "Effect": "Allow", "Action": without_resource, "Resource": "*" }));
        }
        let document = json!({ "Version": "2012-10-17", "Statement": statements }).to_string();
        let put = ["iam", "put-user-policy", "--user-name", "deployer", "--policy-name", "deployer"];
        self.testbed.cloud.aws.run(&[&put[..], &["--policy-document", &document]].concat()).await.map(drop)
    }

    /// Runs a command of `cargo infra` as the user.
    async fn infra(&self, arguments: &[&str], input: &str) -> anyhow::Result<Output> {
        let mut infra = infra(arguments);
        let mut settings = self.testbed.settings().to_vec();
        settings.extend(self.credentials.iter().map(|(name, value)| (*name, value.as_str())));
        let tools = PythonTools::for_local_stack(&Workspace::locate()?)?.programs();
        isolate(&mut infra, &[&tools, Path::new("/usr/bin"), Path::new("/bin")], &settings)?;
        run(infra, input).await
    }

    /// The AWS CLI with the user's credentials.
    fn aws(&self, tools: &PythonTools, folder: &Path) -> Aws {
        let credentials = self.credentials.each_ref().map(|(name, value)| (*name, value.as_str()));
        Aws::local_as(tools, self.testbed.cloud.endpoint.clone(), folder, &credentials)
    }
}

/// Whether a command is allowed. It may fail for another reason, since its resource does not exist.
async fn may(aws: &Aws, command: &str, resource: &str) -> bool {
    let command: Vec<_> = command.split(' ').chain([resource]).collect();
    let Err(error) = aws.run(&command).await else { return true };
    let error = format!("{error:#}");
    !["AccessDenied", "AuthorizationError", "is not authorized"].iter().any(|refusal| error.contains(refusal))
}

/// Allows the reconciler to list the parameters of any path, because ministack checks no paths here.
async fn let_the_reconciler_list_parameters(testbed: &Testbed) -> anyhow::Result<()> {
    let find =
        "cloudformation describe-stack-resource --stack-name tableau-fanout --logical-resource-id ReconcilerRole";
    let role = testbed.aws(find).await?;
    let role = role["StackResourceDetail"]["PhysicalResourceId"].as_str().context("no role")?;
    let document = json!({ "Version": "2012-10-17",
        "Statement": [{ "Effect": "Allow", "Action": "ssm:GetParametersByPath", "Resource": "*" }] });
    let put = ["iam", "put-role-policy", "--role-name", role, "--policy-name", "reconciler-here"];
    testbed.cloud.aws.run(&[&put[..], &["--policy-document", &document.to_string()]].concat()).await.map(drop)
}

#[tokio::test]
async fn the_policy_for_deployers_allows_every_command_of_a_stacks_life() -> anyhow::Result<()> {
    let testbed = Testbed::with(&[("AUTH", "true")]).await?;
    let (deployer, sink) = (Deployer::create(&testbed).await?, Sink::start().await?);
    let zips = testbed.release.path().to_str().context("a path")?;
    let deploy = ["deploy", "--parameter", "Events=WorkbookCreated,ViewDeleted", "--zips", zips];
    deployer.infra(&deploy, "").await?.failed(&["these credentials lack a permission"])?;
    deployer.allow(&policy(&testbed).await?).await?;
    for (arguments, expected) in [
        (&deploy[..], "the stack tableau-fanout will be created"),
        (&deploy, "the stack tableau-fanout will be updated"),
        (&["add-site", "marketing"], "  + tableau-fanout-WorkbookCreated"),
        (&["add-target", "bi", "--preset", "plain", "--on", "everything"], "The target bi gets events."),
        (&["test"], "events and alerts arrive."),
        (&["targets"], "✓ bi "),
        (&["redrive", "bi"], "bi has no dead letters."),
        (&["remove-target", "bi", "--yes"], "bi is removed."),
        // Nobody is subscribed.
        (&["status"], "sites        1: marketing"),
        (&["reconcile", "plan"], "0 changes"),
        (&["replay", "1"], "Nothing to publish."),
        (&["events"], "marketing  Test "),
        (&["url", "marketing", "WorkbookCreated"], "this URL is a credential"),
        (&["destroy", "--delete-parameters", "--yes"], "The stack tableau-fanout is deleted."),
    ] {
        if arguments[0] == "add-site" {
            let_the_reconciler_list_parameters(&testbed).await?;
        }
        let input =
            if arguments[0] == "add-target" { json!({ "address": sink.address("bi") }) } else { testbed.entry() };
        let output = deployer.infra(arguments, &input.to_string()).await?;
        let output =
            if arguments[0] == "status" { output.failed(&[expected])? } else { output.succeeded(&[expected])? };
        ensure!(!output.all().contains("lack a permission"), "{}", output.all());
    }
    assert_eq!(testbed.aws("ssm describe-parameters --query Parameters").await?, json!([]));
    Ok(())
}

#[tokio::test]
async fn each_statement_of_the_policy_for_deployers_is_needed_and_is_about_the_stack_alone() -> anyhow::Result<()> {
    let testbed = Testbed::with(&[("AUTH", "true")]).await?;
    let (tools, folder) = (PythonTools::for_local_stack(&Workspace::locate()?)?, TempDir::new()?);
    let deployer = Deployer::create(&testbed).await?;
    let (aws, policy) = (deployer.aws(&tools, folder.path()), policy(&testbed).await?);
    // Ministack checks no rights for an object of a bucket that does not exist.
    let bucket = "tableau-fanout-artifacts-000000000000-eu-local-1";
    let elsewhere = "--create-bucket-configuration LocationConstraint=eu-local-1";
    testbed.aws(&format!("s3api create-bucket --bucket {bucket} {elsewhere}")).await?;
    let mut wrong = Vec::new();
    deployer.allow(&policy).await?;
    for (_, command, own, other) in COMMANDS {
        if !may(&aws, command, own).await {
            wrong.push(format!("refused: {command} {own}"));
        }
        if !other.is_empty() && may(&aws, command, other).await {
            wrong.push(format!("allowed: {command} {other}"));
        }
    }
    for statement in &policy {
        let id = statement["Sid"].as_str().context("a statement without an identifier")?;
        let commands = COMMANDS.iter().filter(|(of, ..)| *of == id);
        ensure!(UNCHECKED_HERE.contains(&id) == (commands.clone().count() == 0), "{id} is checked or not");
        let others: Vec<_> = policy.iter().filter(|other| *other != statement).cloned().collect();
        deployer.allow(&others).await?;
        for (_, command, own, _) in commands {
            if may(&aws, command, own).await {
                wrong.push(format!("allowed without {id}: {command} {own}"));
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
    Ok(())
}

#[tokio::test]
async fn the_policy_for_sites_allows_to_add_sites_and_nothing_else() -> anyhow::Result<()> {
    let testbed = Testbed::with(&[("AUTH", "true")]).await?;
    testbed.deploy(&["--parameter", "Events=ViewDeleted"]).await?.succeeded(&[])?;
    let_the_reconciler_list_parameters(&testbed).await?;
    testbed.tableau.simulator.world().add_site("fin", "fanout", SECRET);
    let user = Deployer::create(&testbed).await?;
    let policy = policy_of(&testbed, "sites", documents::commands("docs/recipes.md", "Least rights")?).await?;
    user.allow(&policy).await?;
    let mut finance = testbed.entry();
    finance["site"] = json!("fin");
    // The second site has the token of the first, which is held while it is tried.
    for (name, entry) in [("marketing", &testbed.entry()), ("finance", &finance)] {
        user.infra(&["add-site", name], &entry.to_string()).await?.succeeded(&["+ tableau-fanout-ViewDeleted"])?;
    }
    user.infra(&["sites"], "").await?.succeeded(&["✓ finance ", "✓ marketing "])?;
    let zips = testbed.release.path().to_str().context("a path")?;
    for refused in [&["deploy", "--zips", zips][..], &["destroy", "--yes"], &["url", "marketing", "ViewDeleted"]] {
        user.infra(refused, "").await?.failed(&["lack a permission"])?;
    }
    assert_eq!(testbed.webhooks().len(), 2);
    for statement in policy.iter().filter(|statement| statement["Sid"] != "EncryptedSites") {
        let others: Vec<_> = policy.iter().filter(|other| *other != statement).cloned().collect();
        user.allow(&others).await?;
        let add = ["add-site", "finance", "--overwrite"];
        user.infra(&add, &finance.to_string()).await?.failed(&["lack a permission"])?;
    }
    Ok(())
}
