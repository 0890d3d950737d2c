//! The policy for deployers, `infra/deployer-policy.json`, compared with the template and with the commands.

use std::{collections::BTreeSet, fs};

use anyhow::{Context, ensure};
use infra::workspace::Workspace;
use serde_json::Value;

/// The longest managed policy, without white space (IAM user guide, "IAM and AWS STS quotas").
const MAX_CHARACTERS: usize = 6144;

/// Actions with which CloudFormation creates and reads, updates, and deletes each type of resource of the templates. Sources:
/// the handlers in the schemas of the CloudFormation registry, for the properties that the templates set.
const RESOURCES: [(&str, &[&str]); 18] = [
    (
        "AWS::CloudWatch::Alarm",
        &[
            "cloudwatch:PutMetricAlarm",
            "cloudwatch:DescribeAlarms",
            "cloudwatch:ListTagsForResource",
            "cloudwatch:TagResource",
            "cloudwatch:UntagResource",
            "cloudwatch:DeleteAlarms",
        ],
    ),
    (
        "AWS::CloudWatch::Dashboard",
        &["cloudwatch:PutDashboard", "cloudwatch:GetDashboard", "cloudwatch:DeleteDashboards"],
    ),
    (
        "AWS::DynamoDB::Table",
        &[
            "dynamodb:CreateTable",
            "dynamodb:DescribeTable",
            "dynamodb:DescribeContinuousBackups",
            "dynamodb:DescribeContributorInsights",
            "dynamodb:DescribeKinesisStreamingDestination",
            "dynamodb:DescribeTimeToLive",
            "dynamodb:GetResourcePolicy",
            "dynamodb:ListTagsOfResource",
            "dynamodb:TagResource",
            "dynamodb:UntagResource",
            "dynamodb:UpdateTable",
            "dynamodb:DeleteTable",
        ],
    ),
    (
        "AWS::IAM::Role",
        &[
            "iam:CreateRole",
            "iam:GetRole",
            "iam:PutRolePolicy",
            "iam:GetRolePolicy",
            "iam:ListRolePolicies",
            "iam:ListAttachedRolePolicies",
            "iam:TagRole",
            "iam:UntagRole",
            "iam:UpdateRole",
            "iam:UpdateAssumeRolePolicy",
            "iam:DeleteRolePolicy",
            "iam:DeleteRole",
        ],
    ),
    ("AWS::KMS::Alias", &["kms:CreateAlias", "kms:ListAliases", "kms:UpdateAlias", "kms:DeleteAlias"]),
    (
        "AWS::KMS::Key",
        &[
            "kms:CreateKey",
            "kms:TagResource",
            "kms:DescribeKey",
            "kms:GetKeyPolicy",
            "kms:GetKeyRotationStatus",
            "kms:ListResourceTags",
            "kms:EnableKey",
            "kms:DisableKey",
            "kms:EnableKeyRotation",
            "kms:DisableKeyRotation",
            "kms:PutKeyPolicy",
            "kms:UpdateKeyDescription",
            "kms:UntagResource",
            "kms:ScheduleKeyDeletion",
        ],
    ),
    (
        "AWS::Lambda::EventInvokeConfig",
        &[
            "lambda:PutFunctionEventInvokeConfig",
            "lambda:GetFunctionEventInvokeConfig",
            "lambda:UpdateFunctionEventInvokeConfig",
            "lambda:DeleteFunctionEventInvokeConfig",
        ],
    ),
    (
        "AWS::Lambda::EventSourceMapping",
        &[
            "lambda:CreateEventSourceMapping",
            "lambda:GetEventSourceMapping",
            "lambda:ListTags",
            "lambda:UpdateEventSourceMapping",
            "lambda:DeleteEventSourceMapping",
        ],
    ),
    (
        "AWS::Lambda::Function",
        &[
            "lambda:CreateFunction",
            "lambda:GetFunction",
            "lambda:GetFunctionConfiguration",
            "lambda:GetFunctionCodeSigningConfig",
            "lambda:GetFunctionRecursionConfig",
            "lambda:GetRuntimeManagementConfig",
            "lambda:PutFunctionConcurrency",
            "lambda:DeleteFunctionConcurrency",
            "lambda:ListTags",
            "lambda:TagResource",
            "lambda:UntagResource",
            "lambda:UpdateFunctionCode",
            "lambda:UpdateFunctionConfiguration",
            "lambda:DeleteFunction",
            "iam:PassRole",
            "s3:GetObject",
            "ec2:DescribeSecurityGroups",
            "ec2:DescribeSubnets",
            "ec2:DescribeVpcs",
        ],
    ),
    ("AWS::Lambda::Permission", &["lambda:AddPermission", "lambda:GetPolicy", "lambda:RemovePermission"]),
    (
        "AWS::Lambda::Url",
        &[
            "lambda:CreateFunctionUrlConfig",
            "lambda:GetFunctionUrlConfig",
            "lambda:UpdateFunctionUrlConfig",
            "lambda:DeleteFunctionUrlConfig",
        ],
    ),
    (
        "AWS::Logs::LogGroup",
        &[
            "logs:CreateLogGroup",
            "logs:DescribeLogGroups",
            "logs:ListTagsForResource",
            "logs:PutRetentionPolicy",
            "logs:DeleteRetentionPolicy",
            "logs:TagResource",
            "logs:UntagResource",
            "logs:DeleteLogGroup",
        ],
    ),
    (
        "AWS::SNS::Subscription",
        &["sns:Subscribe", "sns:GetSubscriptionAttributes", "sns:SetSubscriptionAttributes", "sns:Unsubscribe"],
    ),
    (
        "AWS::SNS::Topic",
        &[
            "sns:CreateTopic",
            "sns:GetTopicAttributes",
            "sns:GetDataProtectionPolicy",
            "sns:ListSubscriptionsByTopic",
            "sns:ListTagsForResource",
            "sns:SetTopicAttributes",
            "sns:TagResource",
            "sns:UntagResource",
            "sns:DeleteTopic",
        ],
    ),
    ("AWS::SNS::TopicPolicy", &["sns:SetTopicAttributes", "sns:GetTopicAttributes"]),
    (
        "AWS::SQS::Queue",
        &[
            "sqs:CreateQueue",
            "sqs:GetQueueAttributes",
            "sqs:GetQueueUrl",
            "sqs:ListQueueTags",
            "sqs:SetQueueAttributes",
            "sqs:TagQueue",
            "sqs:UntagQueue",
            "sqs:DeleteQueue",
        ],
    ),
    ("AWS::SQS::QueuePolicy", &["sqs:SetQueueAttributes", "sqs:GetQueueAttributes"]),
    (
        "AWS::Scheduler::Schedule",
        &[
            "scheduler:CreateSchedule",
            "scheduler:GetSchedule",
            "scheduler:UpdateSchedule",
            "scheduler:DeleteSchedule",
            "iam:PassRole",
        ],
    ),
];

/// Other actions of `cargo infra` and of the AWS CLI's `cloudformation package` and `deploy`.
const COMMANDS: [&str; 40] = [
    "cloudformation:ContinueUpdateRollback",
    "cloudformation:CreateChangeSet",
    "cloudformation:DeleteStack",
    "cloudformation:DescribeChangeSet",
    "cloudformation:DescribeStackEvents",
    "cloudformation:DescribeStackResource",
    "cloudformation:DescribeStackResources",
    "cloudformation:DescribeStacks",
    "cloudformation:ExecuteChangeSet",
    "cloudformation:GetTemplate",
    "cloudformation:GetTemplateSummary",
    "cloudformation:ValidateTemplate",
    "dynamodb:DeleteItem",
    "dynamodb:PutItem",
    "dynamodb:Scan",
    "kms:Decrypt",
    "kms:Encrypt",
    "kms:ListKeys",
    "lambda:GetAccountSettings",
    "lambda:GetFunctionConcurrency",
    "lambda:InvokeFunction",
    "logs:FilterLogEvents",
    "s3:CreateBucket",
    "s3:DeleteObject",
    "s3:GetBucketLocation",
    "s3:GetBucketTagging",
    "s3:ListBucket",
    "s3:PutBucketPublicAccessBlock",
    "s3:PutBucketTagging",
    "s3:PutEncryptionConfiguration",
    "s3:PutObject",
    "sqs:DeleteMessage",
    "sqs:ListQueues",
    "sqs:ReceiveMessage",
    "sqs:SendMessage",
    "ssm:DeleteParameter",
    "ssm:DeleteParameters",
    "ssm:GetParameter",
    "ssm:GetParametersByPath",
    "ssm:PutParameter",
];

/// Returns the actions of all statements.
fn allowed(policy: &Value) -> anyhow::Result<BTreeSet<String>> {
    let statements = policy["Statement"].as_array().context("no statements")?;
    let actions = statements.iter().flat_map(|statement| match &statement["Action"] {
        Value::Array(actions) => actions.clone(),
        action => vec![action.clone()],
    });
    actions.map(|action| Ok(action.as_str().context("an action is no text")?.to_owned())).collect()
}

/// Whether an action with at most one `*` is, or covers, another.
fn covers(pattern: &str, action: &str) -> bool {
    match pattern.split_once('*') {
        Some((start, end)) => {
            action.len() >= start.len() + end.len() && action.starts_with(start) && action.ends_with(end)
        }
        None => pattern == action,
    }
}

#[test]
fn the_policy_for_deployers_covers_the_templates_and_the_commands_and_nothing_else() -> anyhow::Result<()> {
    let workspace = Workspace::locate()?;
    let [main, target] =
        ["infra/template.yaml", "infra/target.yaml"].map(|file| fs::read_to_string(workspace.file(file)));
    let templates = format!("{}\n{}", main?, target?);
    let types = templates.lines().filter_map(|line| line.trim().strip_prefix("Type: "));
    let types: BTreeSet<_> = types.filter(|kind| kind.starts_with("AWS::")).collect();
    let known: BTreeSet<_> = RESOURCES.iter().map(|(kind, _)| *kind).collect();
    assert_eq!(types, known);

    let text = fs::read_to_string(workspace.file("infra/deployer-policy.json"))?;
    // With the values that the documents' command puts in, of a region with a long name.
    let values = [
        ("STACK", "tableau-fanout"),
        ("REGION", "ap-southeast-1"),
        ("ACCOUNT", "111122223333"),
        ("BUCKET", "tableau-fanout-artifacts-111122223333-ap-southeast-1"),
    ];
    let filled = values.iter().fold(text.clone(), |text, (name, value)| text.replace(name, value));
    let characters = filled.chars().filter(|character| !character.is_whitespace()).count();
    ensure!(characters <= MAX_CHARACTERS, "{characters} characters, but IAM allows {MAX_CHARACTERS}");
    let allowed = allowed(&serde_json::from_str(&text)?)?;
    let needed: BTreeSet<_> = RESOURCES.iter().flat_map(|(_, actions)| *actions).chain(&COMMANDS).copied().collect();
    for action in &needed {
        ensure!(
            allowed.iter().any(|pattern| covers(pattern, action) || covers(action, pattern)),
            "{action} is missing"
        );
    }
    for pattern in &allowed {
        ensure!(
            needed.iter().any(|action| covers(pattern, action) || covers(action, pattern)),
            "{pattern} is not needed"
        );
    }
    Ok(())
}
