//! `cargo infra add-target`: adds a target outside of AWS.

use std::{
    fs,
    io::{self, IsTerminal, Read},
    path::PathBuf,
};

use anyhow::{Context, ensure};
use clap::Args;
use secrecy::ExposeSecret;
use serde_json::{Map, Value, json};
use shared::{
    registration::site_name::SiteName,
    sites::commands::infra,
    targets::{
        entry::{Preset, TargetEntry},
        hold::problem_key,
        name::TargetName,
    },
};

use self::{
    form::{CredentialsKind, Form},
    sample::Sample,
};
use crate::{
    aws::Aws,
    concurrency::Account,
    connection::StackOptions,
    interruption::{Effect, explained},
    parameters::{self, MAX_BYTES, MAX_STANDARD_BYTES},
    stack::{Condition, Stack},
    state_table,
    steps::{show, step},
    target_entries::{self, DeclaredTarget, DeclaredTargets, NewTarget, members},
    target_messages::{Messages, On, Topic},
    target_stack, targets,
    terminal::{good, print, warning},
};

mod form;
mod sample;
mod services;

/// The most characters of a queue's name (Amazon SQS quotas).
const MAX_QUEUE_NAME: usize = 80;

const EXAMPLES: &str = "\
Examples:
  cargo infra add-target failures --preset slack --on failures
  cargo infra add-target pager --preset pagerduty --site marketing
  cargo infra add-target tickets --preset custom --template jira.json.j2 --credentials basic
  echo '{\"address\":\"https://target.example/hook\"}' | cargo infra add-target bi --preset plain --on everything";

/// Adds a target outside of AWS, such as Slack, Teams, PagerDuty, or any HTTPS address.
///
/// Asks for the address without showing it, sends a sample, stores the entry encrypted, and deploys the stack of the target.
/// If standard input is no terminal, reads the members of the entry from it as JSON.
#[derive(Clone, Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct AddTarget {
    /// Your name for the target. Lower-case letters, digits and hyphens, at most 20.
    name: TargetName,
    /// The kind of service: slack, teams, pagerduty, zapier, ifttt, coefficient; plain for a signed CloudEvent, custom for a
    /// template of yours.
    #[arg(long, required_unless_present = "overwrite")]
    preset: Option<Preset>,
    /// The messages that it gets: failures (failed refreshes, their reasons and ends), alerts, everything (all events), or a
    /// filter policy as JSON. By default failures.
    #[arg(long, value_name = "MESSAGES")]
    on: Option<On>,
    /// A site, by your name for it. Repeat it for several; by default all.
    #[arg(long = "site", value_name = "NAME")]
    sites: Vec<SiteName>,
    /// A project by its name. Repeat it for several; by default all. Of failures it selects the reasons and the ends, since
    /// Tableau's own events have no project.
    #[arg(long = "project", value_name = "NAME")]
    projects: Vec<String>,
    /// File with the template of the preset custom.
    #[arg(long, value_name = "FILE")]
    template: Option<PathBuf>,
    /// Ask for credentials besides those in the address.
    #[arg(long, value_enum, value_name = "KIND")]
    credentials: Option<CredentialsKind>,
    /// The PagerDuty account is in the European service region.
    #[arg(long)]
    eu: bool,
    /// Change an existing target. Values that you do not give stay. Another preset needs --on, and the address again.
    #[arg(long)]
    overwrite: bool,
    /// Send no sample, if only AWS reaches the address.
    #[arg(long)]
    no_sample: bool,
    /// Store the target even if it does not accept the sample.
    #[arg(long, conflicts_with = "no_sample")]
    force: bool,
    #[command(flatten)]
    options: StackOptions,
}

/// Runs the command.
///
/// # Errors
///
/// The target exists already, its entry is not valid, it did not accept the sample, or its stack could not be deployed. The
/// error says whether the entry was stored.
pub async fn run(arguments: AddTarget) -> anyhow::Result<()> {
    let effect = Effect::new("Nothing was stored. Fix: run this command again");
    explained(&effect, add(arguments, &effect)).await
}

async fn add(arguments: AddTarget, effect: &Effect) -> anyhow::Result<()> {
    let connection = arguments.options.clone().connect().await?;
    let (aws, stack) = (&connection.aws, connection.stack().await?);
    let name = &arguments.name;
    check_length(name, stack.name())?;
    target_stack::expect_forwarder(aws, &stack).await?;
    let declared = DeclaredTargets::read(aws, &stack).await?;
    let stored = declared.find(name.as_str());
    let deployed = target_stack::find(aws, stack.name(), name).await?;
    target_stack::expect_changeable(deployed.as_ref(), "Nothing was stored")?;
    let is_complete = deployed.as_ref().is_some_and(|deployed| deployed.condition() == Condition::Ready);
    // Before the user types anything. A target whose stack is missing was not added completely.
    ensure!(
        arguments.overwrite || stored.is_none() || !is_complete,
        "the target {name} exists already. Nothing was stored. Fix: to change it, run `{}`",
        infra(&format!("add-target {name} --overwrite"), stack.name())
    );
    let preset = arguments.preset(stored)?;
    let messages = arguments.messages(preset, stored, is_complete)?;
    let new = arguments.entry(preset, messages.as_ref(), stored).await?;
    services::warnings(&new.entry).iter().for_each(|line| print(warning(line)));
    warn_of_concurrency(aws, &stack, name).await;
    warn_of_sites(aws, &stack, &arguments.sites).await?;
    let subscription = deployed.as_ref().and_then(|deployed| target_stack::subscription(&stack, deployed));
    let topic = messages.as_ref().map(|messages| messages.topic).or(subscription.as_ref().map(|(topic, _)| *topic));
    if !arguments.no_sample {
        let sample =
            Sample { entry: &new.entry, topic: topic.unwrap_or(Topic::Events), is_local: aws.endpoint().is_some() };
        step(&format!("Send a sample to {name}"), sample.send(arguments.force)).await?;
    }
    effect.set(format!(
        "The entry of {name} may be stored, and its stack may be incomplete. Fix: run this command again"
    ));
    store(aws, &stack, &new, messages.as_ref(), stored.is_some()).await?;
    // A problem after this change has an alert of its own.
    let forgotten = state_table::delete(aws, stack.output("StateTableName")?, &[problem_key(name)]).await;
    forgotten.with_context(|| {
        format!(
            "the target {name} is deployed, but an alert about its next problem may come a day late. Fix: run this command again"
        )
    })?;
    print_result(&new, messages.map(|messages| (messages.topic, messages.policy)).or(subscription), &stack);
    Ok(())
}

/// Checks that SQS has room for the names of the target's queues. The name of a stack may be longer than others.
fn check_length(name: &TargetName, stack: &str) -> anyhow::Result<()> {
    let excess = name.dead_letters(stack).len().saturating_sub(MAX_QUEUE_NAME);
    ensure!(
        excess == 0,
        "the name {name} is too long: the queues of a target have the name of the stack too, and SQS allows {MAX_QUEUE_NAME} \
         characters. Nothing was stored. Fix: choose a name of at most {} characters",
        name.as_str().len().saturating_sub(excess)
    );
    Ok(())
}

/// Stores the entry of a target, and deploys its stack. Without `messages` an existing stack keeps its filter policy.
///
/// # Errors
///
/// A command fails. The error says whether the entry is stored.
pub(super) async fn store(
    aws: &Aws,
    stack: &Stack,
    new: &NewTarget,
    messages: Option<&Messages>,
    overwrite: bool,
) -> anyhow::Result<()> {
    let TargetEntry { name, preset, .. } = &new.entry;
    let parameter = target_entries::parameter(stack.name(), name.as_str());
    let put = parameters::put(aws, &parameter, stack.output("KeyAlias")?, &new.text, overwrite);
    step(&format!("Store the entry {parameter}, encrypted"), put).await?;
    let deploy = target_stack::deploy(aws, stack, name, *preset, messages);
    let deploy = step(&format!("Deploy the stack {}", name.queue(stack.name())), deploy).await;
    deploy.with_context(|| {
        format!(
            "the entry of {name} is stored, but its stack is not deployed. Fix: correct the cause, and run this command again"
        )
    })
}

impl AddTarget {
    /// Returns the preset: the given one, or that of the stored entry.
    fn preset(&self, stored: Option<&DeclaredTarget>) -> anyhow::Result<Preset> {
        let stored = stored.and_then(|stored| stored.members().get("preset")?.as_str()?.parse().ok());
        self.preset.or(stored).with_context(|| {
            format!(
                "there is no stored preset of {}. Nothing was stored. Fix: add --preset, such as --preset slack",
                self.name
            )
        })
    }

    /// Returns the wanted messages. `None` if the target keeps those that it gets.
    fn messages(
        &self,
        preset: Preset,
        stored: Option<&DeclaredTarget>,
        is_complete: bool,
    ) -> anyhow::Result<Option<Messages>> {
        let Self { on, sites, projects, .. } = self;
        let is_narrowed = !sites.is_empty() || !projects.is_empty();
        let is_same = stored.is_some_and(|stored| stored.members().get("preset") == Some(&json!(preset.as_str())));
        if on.is_none() && stored.is_some() && is_complete {
            ensure!(
                is_same,
                "another preset needs the messages again. Nothing was stored. Fix: add --on, such as --on failures"
            );
            ensure!(
                !is_narrowed,
                "--site and --project need --on for a target that exists. Nothing was stored. Fix: add --on, such as --on failures"
            );
            return Ok(None);
        }
        Messages::new(on.as_ref().unwrap_or(&On::Failures), preset, sites, projects).map(Some)
    }

    /// Reads the given template. Without one the preset custom needs a stored one, unless standard input may have it.
    fn template(&self, preset: Preset, stored: Option<&DeclaredTarget>) -> anyhow::Result<Option<String>> {
        let Some(file) = &self.template else {
            let has_stored = stored.is_some_and(|stored| stored.members().contains_key("template"));
            ensure!(
                preset != Preset::Custom || has_stored || !io::stdin().is_terminal(),
                "the preset custom needs a template. Nothing was stored. Fix: add --template FILE"
            );
            return Ok(None);
        };
        let text = fs::read_to_string(file);
        text.map(Some).with_context(|| {
            format!("cannot read {}. Nothing was stored. Fix: give the path of the template", file.display())
        })
    }

    /// Returns the entry with the values that the user gives.
    async fn entry(
        &self,
        preset: Preset,
        messages: Option<&Messages>,
        stored: Option<&DeclaredTarget>,
    ) -> anyhow::Result<NewTarget> {
        let Self { name, credentials, eu, .. } = self;
        // Before the user types anything.
        let template = self.template(preset, stored)?;
        let mut given = if io::stdin().is_terminal() {
            Form::new(preset, *credentials, *eu, stored).ask().await?
        } else {
            ensure!(
                credentials.is_none() && !eu,
                "--credentials and --eu are for a terminal. Nothing was stored. Fix: give the members credentials and address \
                 in the JSON"
            );
            read_members(stored.is_some())?
        };
        given.insert("preset".to_owned(), preset.as_str().into());
        given.extend(template.map(|template| ("template".to_owned(), template.into())));
        if let Some(Messages { selection, .. }) = messages {
            let selection = if selection.is_empty() { Value::Null } else { Value::Object(selection.clone()) };
            given.entry("selection").or_insert(selection);
        }
        let new = NewTarget::new(name, given, stored)
            .context("the target entry is not valid. Nothing was stored. Fix: correct the values in the details")?;
        check_size(&new)?;
        if new.has_lost_secrets {
            print(warning("the stored credentials are for another server, and are removed"));
        }
        Ok(new)
    }
}

/// Checks that SSM has room for an entry.
fn check_size(NewTarget { text, .. }: &NewTarget) -> anyhow::Result<()> {
    let bytes = text.expose_secret().len();
    ensure!(
        bytes <= MAX_BYTES,
        "the entry has {bytes} bytes, but SSM allows {MAX_BYTES}. Nothing was stored. Fix: shorten the template"
    );
    if bytes > MAX_STANDARD_BYTES {
        print(warning(format!(
            "the entry has {bytes} bytes. SSM charges 0.05 $ a month for a parameter of more than {MAX_STANDARD_BYTES} bytes"
        )));
    }
    Ok(())
}

/// Reads the members of the entry from standard input. For a stored entry it may be empty.
fn read_members(is_stored: bool) -> anyhow::Result<Map<String, Value>> {
    let mut text = String::new();
    io::stdin().read_to_string(&mut text).context("standard input cannot be read")?;
    if is_stored && text.trim().is_empty() {
        return Ok(Map::new());
    }
    ensure!(
        !text.trim().is_empty(),
        "standard input is empty. Nothing was stored. Fix: run this command in a terminal, or pass members of the target \
         entry as JSON, such as {}",
        json!({ "address": "https://…" })
    );
    let members = members(&text);
    let mut members =
        members.context("the target entry is not valid. Nothing was stored. Fix: correct the values in the details")?;
    // The option has the preset.
    members.remove("preset");
    Ok(members)
}

/// Warns if the targets can use up too much of the account's concurrency.
async fn warn_of_concurrency(aws: &Aws, stack: &Stack, name: &TargetName) {
    let warn = async {
        let (names, account) = tokio::try_join!(targets::names(aws, stack.name()), Account::read(aws, &[]))?;
        let others = names.iter().filter(|other| *other != name.as_str()).count();
        anyhow::Ok(account.warn_of_targets(others + 1))
    };
    match warn.await {
        Ok(text) => text.iter().for_each(|text| print(warning(text))),
        Err(error) => print(warning(format!("the account's Lambda concurrency could not be read. Details: {error:#}"))),
    }
}

/// Warns if a chosen site is not declared.
async fn warn_of_sites(aws: &Aws, stack: &Stack, sites: &[SiteName]) -> anyhow::Result<()> {
    let declared = if sites.is_empty() { Vec::new() } else { parameters::list(aws, stack.name()).await? };
    let path = stack.output("SitesPath")?;
    for site in sites.iter().filter(|site| !declared.contains(&format!("{path}/{site}"))) {
        print(warning(format!("the stack declares no site {site}, so nothing of it arrives until it is added")));
    }
    Ok(())
}

/// Says what will arrive, and how to see it.
fn print_result(new: &NewTarget, subscription: Option<(Topic, Map<String, Value>)>, stack: &Stack) {
    let entry = &new.entry;
    let gets = subscription.map(|(topic, policy)| Messages::describe(topic, &policy, &entry.selection));
    print(format!("\n{}", good(format!("The target {} gets {}.", entry.name, gets.unwrap_or_default()))));
    if entry.preset.coalesces() {
        show("it gets one call for all that arrived, at most every 6 minutes");
    }
    print(format!("To see whether messages wait: {}", infra("targets", stack.name())));
    print(format!("To send test messages to the targets that get them: {}", infra("test", stack.name())));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_too_long_beside_that_of_the_stack_is_rejected() -> anyhow::Result<()> {
        let name: TargetName = "a-name-of-characters".parse()?;
        check_length(&name, &"a".repeat(47))?;
        let error = check_length(&name, &"a".repeat(53)).expect_err("86 characters").to_string();
        assert!(error.contains("Fix: choose a name of at most 14 characters"), "{error}");
        check_length(&"a-name-of-14-c".parse()?, &"a".repeat(53))
    }
}
