//! Resources as the template's parameters make them, with its conditions evaluated here: an emulator knows one partition,
//! and forgets some properties.

use std::collections::BTreeMap;

use anyhow::{Context, bail, ensure};
use infra::{python::PythonTools, workspace::Workspace};
use serde_json::{Value, json};
use tokio::process::Command;

/// Prints a template as JSON, with the long names of functions.
const TO_JSON: &str = "import json, sys
from cfnlint.decode import cfn_yaml
print(json.dumps(cfn_yaml.load(sys.argv[1])))";

/// What CloudFormation knows without being told.
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

    /// The same with other values, `NAME=VALUE`; also of what CloudFormation knows itself.
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

    /// A part of the template, by its JSON pointer, as it will be. What is left out is null.
    fn at(&self, pointer: &str) -> anyhow::Result<Value> {
        let part = self.template.pointer(pointer).with_context(|| format!("the template has no {pointer}"))?;
        Ok(self.resolved(part)?.unwrap_or_default())
    }

    /// A value without functions, or nothing where the template says that there is to be none.
    fn resolved(&self, value: &Value) -> anyhow::Result<Option<Value>> {
        match value {
            Value::Array(items) => {
                let items = items.iter().filter_map(|item| self.resolved(item).transpose());
                return Ok(Some(Value::Array(items.collect::<anyhow::Result<_>>()?)));
            }
            Value::Object(members) if !is_function(value) => {
                let members = members.iter().filter_map(|(name, member)| {
                    self.resolved(member).transpose().map(|member| Ok((name.clone(), member?)))
                });
                return Ok(Some(Value::Object(members.collect::<anyhow::Result<_>>()?)));
            }
            Value::Object(_) => {}
            value => return Ok(Some(value.clone())),
        }
        let (function, argument) = value.as_object().and_then(|function| function.iter().next()).context("nothing")?;
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
                self.resolved(if self.holds(&json!({ "Condition": condition }))? { yes } else { no })?
            }
            ("Fn::Split", Value::Array(parts)) => {
                let [delimiter, list] = &parts[..] else { bail!("a Split of {} parts", parts.len()) };
                let list = text(&self.resolved(list)?.unwrap_or_default())?;
                Some(json!(list.split(&text(delimiter)?).collect::<Vec<_>>()))
            }
            ("Fn::Sub", Value::Array(parts)) => {
                let [template, own] = &parts[..] else { bail!("a Sub of {} parts", parts.len()) };
                let own = self.resolved(own)?.unwrap_or_default();
                let own = own.as_object().context("no names")?.iter();
                let own =
                    own.map(|(name, value)| Ok((name.clone(), text(value)?))).collect::<anyhow::Result<Vec<_>>>()?;
                Some(json!(self.substituted(&text(template)?, &own)))
            }
            ("Fn::Sub", template) => Some(json!(self.substituted(&text(template)?, &[]))),
            (function, _) => bail!("{function} is not known here"),
        })
    }

    fn substituted(&self, template: &str, own: &[(String, String)]) -> String {
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
            "Fn::Equals" => self.resolved(&parts[0])? == self.resolved(&parts[1])?,
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
async fn traces_are_recorded_where_the_parameter_says_so_and_nowhere_else() -> anyhow::Result<()> {
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
