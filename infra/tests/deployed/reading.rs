//! The documents' commands for deployment and operation, as printed.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
    slice::from_ref,
};

use anyhow::{Context, ensure};
use documents::{Block, Document};
use infra::{binaries, cloud::BUCKET, python::PythonTools, stack::Stack, workspace::Workspace};
use serde_json::json;
use tempfile::TempDir;
use tokio::process::Command;

use crate::{
    command::{Output, isolate, run},
    testbed::{Testbed, architecture},
};

/// A shell in a folder like the project's. Its `cargo` skips the release build, which takes minutes and a cross compiler.
struct Shell {
    testbed: Testbed,
    folder: TempDir,
}

impl Shell {
    async fn start() -> anyhow::Result<Self> {
        let testbed = Testbed::start().await?;
        let template = testbed.packages.template.clone();
        Self::with_template(testbed, &template)
    }

    /// Starts a shell with another template, alone in its folder beside the build.
    fn with_template(testbed: Testbed, template: &Path) -> anyhow::Result<Self> {
        let folder = TempDir::new()?;
        for (name, leads_to) in [
            ("infra", template.parent().context("a template without a folder")?),
            ("target/lambda", &binaries::folder_of(template)?),
            ("tests", &Workspace::locate()?.file("tests")),
        ] {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().context("a path without a folder")?)?;
            symlink(leads_to, path)?;
        }
        let cargo = format!(
            "#!/bin/sh\ncase \"$1 $2\" in\n\
             'infra deploy') set -- \"$@\" --no-build --template '{}' --arch {} ;;\n\
             'lambda build') exit ;;\n\
             esac\n\
             [ \"$1\" = infra ] && shift && exec '{}' \"$@\"\n",
            folder.path().join("infra/template.yaml").display(),
            architecture()?,
            env!("CARGO_BIN_EXE_infra")
        );
        let path = folder.path().join("bin/cargo");
        fs::create_dir(folder.path().join("bin"))?;
        fs::write(&path, cargo)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
        Ok(Self { testbed, folder })
    }

    /// Runs blocks of commands, with a text on standard input for the first command that reads it.
    async fn paste(&self, blocks: &[Block], input: &str) -> anyhow::Result<Output> {
        let key = match Stack::read(&self.testbed.cloud.aws, "tableau-fanout").await {
            Ok(stack) => stack.output("KeyId")?.to_owned(),
            Err(_) => String::new(),
        };
        let commands: String = blocks.iter().map(|block| block.text.as_str()).collect();
        let commands = commands.replace("YOUR-BUCKET", BUCKET).replace("KEY-ID", &key);
        let mut bash = Command::new("bash");
        bash.args(["-e", "-u", "-x", "-c", &commands]).current_dir(&self.folder).kill_on_drop(true);
        let settings = self.testbed.settings();
        let tools = PythonTools::for_local_stack(&Workspace::locate()?)?.programs();
        let ours = self.folder.path().join("bin");
        isolate(&mut bash, &[&ours, &tools, Path::new("/usr/bin"), Path::new("/bin")], &settings)?;
        run(bash, input).await
    }
}

#[tokio::test]
async fn the_commands_of_the_documents_have_the_documented_effects() -> anyhow::Result<()> {
    let shell = Shell::start().await?;
    let testbed = &shell.testbed;
    testbed.deploy(&["--parameter", "Events=WorkbookCreated,ViewDeleted"]).await?.succeeded(&[])?;
    // `--overwrite` needs no existing entry.
    let renew = documents::commands("docs/operations.md", "Renewing a token")?;
    shell
        .paste(&renew, &testbed.entry().to_string())
        .await?
        .succeeded(&["The schedule now manages the webhooks of marketing"])?;
    assert_eq!(testbed.webhooks().len(), 2);

    let (short, replay) = (
        documents::commands("README.md", "Operate")?,
        documents::commands("docs/operations.md", "Events that were not published")?,
    );
    ensure!(replay[0].text.ends_with(&short[0].text) && short.len() == 1, "other commands: {short:?}");
    let asking = [documents::commands("README.md", "Add a site")?, replay];
    let nothing = ["0 changes at 0 of 1 site. Nothing was done.", "Nothing to publish."];
    shell.paste(&asking.concat(), "").await?.succeeded(&nothing)?;
    let upgrade = documents::commands("docs/operations.md", "Upgrading, and going back")?;
    shell.paste(&upgrade, "").await?.succeeded(&["its state is CREATE_COMPLETE", "Events and alerts arrive."])?;

    // Each block but the last reverses the block before it.
    let switching = documents::commands("docs/operations.md", "Switching off")?;
    shell
        .paste(&switching, "")
        .await?
        .succeeded(&["\"ReservedConcurrentExecutions\": 0", "\"ReservedConcurrentExecutions\": 1"])?;
    assert_eq!(testbed.webhooks(), [""; 0]);

    fs::write(shell.folder.path().join("ca.pem"), "a certificate")?;
    let last = [
        documents::commands("README.md", "A Tableau Server behind a firewall")?,
        documents::commands("docs/operations.md", "Deleting the stack")?,
    ];
    shell.paste(&last.concat(), "").await?.succeeded(&["PendingDeletion"])?;
    let left = "ssm get-parameters-by-path --path /tableau-fanout --recursive --query Parameters[].Name";
    let left = testbed.aws(left).await?;
    let kept = ["signing-keys", "tableau-ca"];
    assert_eq!(left, json!(kept.map(|parameter| format!("/tableau-fanout/{parameter}"))));
    Ok(())
}

/// Size of a template beyond CloudFormation's limit for a request, which is 51,200 bytes.
const PADDED_BYTES: usize = 60_000;

#[tokio::test]
async fn every_command_deploys_a_template_that_exceeds_the_size_of_a_request() -> anyhow::Result<()> {
    let (testbed, folder) = (Testbed::start().await?, TempDir::new()?);
    let template = fs::read_to_string(&testbed.packages.template)?;
    // Metadata, since packaging removes comments.
    let padding = "x".repeat(PADDED_BYTES.saturating_sub(template.len()));
    let template = template.replacen("\nMetadata:\n", &format!("\nMetadata:\n  Padding: {padding}\n"), 1);
    ensure!(template.len() > PADDED_BYTES, "{} bytes", template.len());
    let [infra, built] = ["infra", "target"].map(|name| folder.path().join(name));
    [&infra, &built].into_iter().try_for_each(fs::create_dir)?;
    symlink(binaries::folder_of(&testbed.packages.template)?, built.join("lambda"))?;
    let path = infra.join("template.yaml");
    fs::write(&path, &template)?;
    // The local cloud has AWS's limit.
    let body = format!("file://{}", path.display());
    let refused = testbed.cloud.aws.run(&["cloudformation", "validate-template", "--template-body", &body]).await;
    let refused = format!("{:#}", refused.err().context("the cloud accepts it in a request")?);
    ensure!(refused.contains("Member must have length less than or equal to 51200"), "{refused}");

    let shell = Shell::with_template(testbed, &path)?;
    let deploy = Document::read("README.md")?;
    let deploy = &deploy.section("Deploy")?.blocks;
    let [with_cargo, by_hand] = ["cargo infra deploy", "cargo lambda build --release --arm64 --output-format zip"]
        .map(|begin| deploy.iter().find(|block| block.text.starts_with(begin)).cloned());
    let (with_cargo, mut by_hand) = (with_cargo.context("no command")?, by_hand.context("no commands by hand")?);
    let endpoint = &shell.testbed.cloud.endpoint;
    let overrides = format!(" --parameter-overrides Architecture={} AwsEndpointUrl={endpoint}\n", architecture()?);
    by_hand.text = by_hand.text.trim_end().to_owned() + &overrides;

    shell.paste(from_ref(&with_cargo), "").await?.succeeded(&["will be created", "The stack is deployed."])?;
    shell.paste(from_ref(&with_cargo), "").await?.succeeded(&["will be updated", "The stack is deployed."])?;
    shell.testbed.infra(&["status"]).await?.succeeded(&["state CREATE_COMPLETE"])?;
    shell.testbed.infra(&["destroy", "--yes"]).await?.succeeded(&["is deleted."])?;
    shell.paste(from_ref(&by_hand), "").await?.succeeded(&[])?;
    shell.testbed.infra(&["status"]).await?.succeeded(&["state CREATE_COMPLETE"])?;
    Ok(())
}
