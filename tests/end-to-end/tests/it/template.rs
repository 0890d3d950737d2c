//! The template's resources for other parameters. The conditions are evaluated here, because an emulator knows one
//! partition and drops some properties.

use std::collections::BTreeMap;

use anyhow::{Context, bail, ensure};
use infra::{python::PythonTools, workspace::Workspace};
use serde_json::{Value, json};
use tokio::process::Command;

/// Prints a template as JSON, with the long names of functions.
const TO_JSON: &str = "import json, sys
from cfnlint.decode import cfn_yaml
print(json.dumps(cfn_yaml.load(sys.argv[1])))";

/// The pseudo parameters of CloudFormation.
const PSEUDO_PARAMETERS: [(&str, &str); 5] = [
    ("AWS::AccountId", "123456789012"),
    ("AWS::Partition", "aws"),
    ("AWS::Region", "eu-central-1"),
    ("AWS::StackName", "fan"),
    ("AWS::URLSuffix", "amazonaws.com"),
];

/// The template with values for its parameters.
struct Template {
    template: Value,
    values: BTreeMap<String, String>,
}

impl Template {
    async fn read() -> anyhow::Result<Self> {
        let workspace = Workspace::locate()?;
        let tools = PythonTools::install(&workspace, "test-tools", &workspace.file("tests/requirements.txt"))?;
        let mut python = Command::new(tools.program("python3"));
        let output = python.args(["-c", TO_JSON]).arg(workspace.file("infra/template.yaml")).output().await?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(Self { template: serde_json::from_slice(&output.stdout)?, values: BTreeMap::new() })
    }

    /// Sets parameters and pseudo parameters, as `NAME=VALUE`.
    fn with(&self, values: &[&str]) -> anyhow::Result<Self> {
        let parameters = self.template["Parameters"].as_object().context("no parameters")?;
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let defaults = parameters.iter().map(|(name, parameter)| (name.clone(), text(&parameter["Default"])));
        let pseudo = PSEUDO_PARAMETERS.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let mut all: BTreeMap<_, _> = defaults.chain(pseudo).collect();
        for value in values {
            let (name, value) = value.split_once('=').context("no value")?;
            let known = all.get_mut(name).with_context(|| format!("the template has no parameter {name}"))?;
            value.clone_into(known);
        }
        Ok(Self { template: self.template.clone(), values: all })
    }

    /// Evaluates the part of the template at a JSON pointer. A part that is left out is null.
    fn at(&self, pointer: &str) -> anyhow::Result<Value> {
        let part = self.template.pointer(pointer).with_context(|| format!("the template has no {pointer}"))?;
        Ok(self.resolve(part)?.unwrap_or_default())
    }

    /// Evaluates the functions in a value. Returns `None` for `AWS::NoValue`.
    fn resolve(&self, value: &Value) -> anyhow::Result<Option<Value>> {
        match value {
            Value::Array(items) => {
                let items = items.iter().filter_map(|item| self.resolve(item).transpose());
                return Ok(Some(Value::Array(items.collect::<anyhow::Result<_>>()?)));
            }
            Value::Object(members) if !is_function(value) => {
                let members = members.iter().filter_map(|(name, member)| {
                    self.resolve(member).transpose().map(|member| Ok((name.clone(), member?)))
                });
                return Ok(Some(Value::Object(members.collect::<anyhow::Result<_>>()?)));
            }
            Value::Object(_) => {}
            value => return Ok(Some(value.clone())),
        }
        let (function, argument) =
            value.as_object().and_then(|function| function.iter().next()).context("no function")?;
        let text = |value: &Value| value.as_str().map(str::to_owned).with_context(|| format!("no text: {value}"));
        Ok(match (function.as_str(), argument) {
            ("Ref", name) if name == "AWS::NoValue" => None,
            ("Ref", name) => {
                let name = text(name)?;
                Some(json!(self.values.get(&name).cloned().unwrap_or_else(|| format!("(Ref {name})"))))
            }
            ("Fn::GetAtt", of) => Some(json!(format!("(GetAtt {of})"))),
            ("Fn::If", Value::Array(parts)) => {
                let [condition, yes, no] = &parts[..] else { bail!("an If of {} parts", parts.len()) };
                self.resolve(if self.holds(&json!({ "Condition": condition }))? { yes } else { no })?
            }
            ("Fn::Split", Value::Array(parts)) => {
                let [delimiter, list] = &parts[..] else { bail!("a Split of {} parts", parts.len()) };
                let list = text(&self.resolve(list)?.unwrap_or_default())?;
                Some(json!(list.split(&text(delimiter)?).collect::<Vec<_>>()))
            }
            ("Fn::Sub", Value::Array(parts)) => {
                let [template, own] = &parts[..] else { bail!("a Sub of {} parts", parts.len()) };
                let own = self.resolve(own)?.unwrap_or_default();
                let own = own.as_object().context("no names")?.iter();
                let own =
                    own.map(|(name, value)| Ok((name.clone(), text(value)?))).collect::<anyhow::Result<Vec<_>>>()?;
                Some(json!(self.substitute(&text(template)?, &own)))
            }
            ("Fn::Sub", template) => Some(json!(self.substitute(&text(template)?, &[]))),
            (function, _) => bail!("{function} is not known here"),
        })
    }

    fn substitute(&self, template: &str, own: &[(String, String)]) -> String {
        let all = self.values.iter().chain(own.iter().map(|(name, value)| (name, value)));
        all.fold(template.to_owned(), |text, (name, value)| text.replace(&format!("${{{name}}}"), value))
    }

    /// Whether a condition holds.
    fn holds(&self, condition: &Value) -> anyhow::Result<bool> {
        let (function, argument) =
            condition.as_object().and_then(|function| function.iter().next()).context("no condition")?;
        if function == "Condition" {
            let name = argument.as_str().context("no name")?;
            return self.holds(&self.template["Conditions"][name]);
        }
        let parts = argument.as_array().with_context(|| format!("{function} without a list"))?;
        let all = || parts.iter().map(|part| self.holds(part)).collect::<anyhow::Result<Vec<_>>>();
        Ok(match function.as_str() {
            "Fn::And" => !all()?.contains(&false),
            "Fn::Or" => all()?.contains(&true),
            "Fn::Not" => all()? == [false],
            "Fn::Equals" => self.resolve(&parts[0])? == self.resolve(&parts[1])?,
            function => bail!("{function} is no condition"),
        })
    }
}

fn is_function(value: &Value) -> bool {
    value.as_object().is_some_and(|members| {
        members.len() == 1 && members.keys().all(|name| name == "Ref" || name.starts_with("Fn::"))
    })
}

#[tokio::test]
async fn the_functions_reserve_concurrency_unless_the_account_cannot() -> anyhow::Result<()> {
    let template = Template::read().await?;
    let (limit, exclusive) = ("ReceiverReservedConcurrency", "ExclusiveRuns");
    for (values, receiver, reconciler) in [
        (vec![], json!(20), json!(1)),
        (vec![format!("{limit}=7")], json!("7"), json!(1)),
        (vec![format!("{limit}=0")], json!("0"), json!(1)),
        (vec![format!("{exclusive}=false")], Value::Null, Value::Null),
        (vec![format!("{exclusive}=false"), format!("{limit}=7")], json!("7"), Value::Null),
    ] {
        let stack = template.with(&values.iter().map(String::as_str).collect::<Vec<_>>())?;
        for (function, expected) in [("Receiver", receiver), ("Reconciler", reconciler)] {
            let reserved = stack.at(&format!("/Resources/{function}/Properties/ReservedConcurrentExecutions"))?;
            assert_eq!(reserved, expected, "{function} {values:?}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn traces_are_recorded_only_if_the_parameter_is_set() -> anyhow::Result<()> {
    let template = Template::read().await?;
    for (values, mode) in [(&[][..], "PassThrough"), (&["Tracing=false"], "PassThrough"), (&["Tracing=true"], "Active")]
    {
        let stack = template.with(values)?;
        for function in ["Receiver", "Reconciler"] {
            let tracing = stack.at(&format!("/Resources/{function}/Properties/TracingConfig/Mode"))?;
            assert_eq!(tracing, mode, "{function} {values:?}");
            let policies = stack.at(&format!("/Resources/{function}Role/Properties/Policies"))?.to_string();
            assert_eq!(policies.contains("xray:"), mode == "Active", "{function} {values:?}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn in_a_vpc_the_role_manages_network_interfaces_for_lambda_only() -> anyhow::Result<()> {
    let template = Template::read().await?;
    let outside = template.with(&[])?;
    assert_eq!(outside.at("/Resources/Reconciler/Properties/VpcConfig")?, Value::Null);
    assert!(!outside.at("/Resources/ReconcilerRole/Properties")?.to_string().contains("ec2:"));

    let inside = template.with(&["SubnetIds=subnet-1,subnet-2", "SecurityGroupIds=sg-1"])?;
    let vpc = json!({ "SubnetIds": ["subnet-1", "subnet-2"], "SecurityGroupIds": ["sg-1"] });
    assert_eq!(inside.at("/Resources/Reconciler/Properties/VpcConfig")?, vpc);
    let role = inside.at("/Resources/ReconcilerRole/Properties")?;
    assert_eq!(role["ManagedPolicyArns"], Value::Null, "a policy that is not ours");
    let policies = role["Policies"].as_array().context("no policies")?;
    let policy = policies.iter().find(|policy| policy["PolicyName"] == "vpc").context("no policy")?;
    let statements = policy["PolicyDocument"]["Statement"].as_array().context("no statements")?;
    // The actions of AWS's managed policy, without the logs.
    let mut allowed: Vec<_> = statements.iter().filter(|statement| statement["Effect"] == "Allow").collect();
    allowed.sort_by_key(|statement| statement["Resource"].to_string());
    let on_resources = json!([
        "ec2:AssignPrivateIpAddresses",
        "ec2:CreateNetworkInterface",
        "ec2:DeleteNetworkInterface",
        "ec2:UnassignPrivateIpAddresses"
    ]);
    let expected = [
        json!({ "Effect": "Allow", "Resource": "*", "Action": ["ec2:DescribeNetworkInterfaces", "ec2:DescribeSubnets"] }),
        json!({ "Effect": "Allow", "Resource": "arn:aws:ec2:eu-central-1:123456789012:*/*", "Action": on_resources }),
    ];
    assert_eq!(allowed.into_iter().cloned().collect::<Vec<_>>(), expected);
    let denied: Vec<_> = statements.iter().filter(|statement| statement["Effect"] == "Deny").collect();
    let function = "arn:aws:lambda:eu-central-1:123456789012:function:fan-reconciler";
    let condition = json!({ "ArnEquals": { "lambda:SourceFunctionArn": function } });
    assert_eq!(denied, [&json!({ "Effect": "Deny", "Action": "ec2:*", "Resource": "*", "Condition": condition })]);
    assert_eq!(inside.at("/Resources/Reconciler/Properties/FunctionName")?, "fan-reconciler");
    assert!(!inside.at("/Resources/ReceiverRole/Properties")?.to_string().contains("ec2:"));
    Ok(())
}

#[tokio::test]
async fn the_version_of_a_stack_is_the_version_of_the_workspace() -> anyhow::Result<()> {
    let template = Template::read().await?.with(&[])?;
    assert_eq!(template.at("/Outputs/Version/Value")?, env!("CARGO_PKG_VERSION"));
    Ok(())
}

#[tokio::test]
async fn the_dashboard_url_has_the_console_of_the_partition() -> anyhow::Result<()> {
    let template = Template::read().await?;
    for (partition, region, console) in [
        ("aws", "eu-central-1", "console.aws.amazon.com"),
        ("aws-cn", "cn-north-1", "console.amazonaws.cn"),
        ("aws-us-gov", "us-gov-west-1", "console.amazonaws-us-gov.com"),
    ] {
        let stack = template.with(&[&format!("AWS::Partition={partition}"), &format!("AWS::Region={region}")])?;
        let expected = format!("https://{console}/cloudwatch/home?region={region}#dashboards/dashboard/${{Dashboard}}");
        assert_eq!(stack.at("/Outputs/DashboardUrl/Value")?, expected);
    }
    Ok(())
}

#[tokio::test]
async fn the_template_works_in_every_partition() -> anyhow::Result<()> {
    let template = Template::read().await?;
    let values = [
        "AWS::Partition=aws-cn",
        "AWS::Region=cn-north-1",
        "AWS::URLSuffix=amazonaws.com.cn",
        "Tracing=true",
        "SubnetIds=subnet-1",
        "SecurityGroupIds=sg-1",
    ];
    let stack = template.with(&values)?;
    for part in ["/Resources", "/Outputs"] {
        let text = stack.at(part)?.to_string();
        for foreign in ["arn:aws:", ".aws.amazon.com", ".cn-north-1.amazonaws.com\""] {
            assert!(!text.contains(foreign), "{part} has {foreign}");
        }
        assert!(part == "/Outputs" || text.contains("arn:aws-cn:") && text.contains("sns.cn-north-1.amazonaws.com.cn"));
    }
    Ok(())
}
