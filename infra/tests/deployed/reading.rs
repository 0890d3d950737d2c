//! What the documents say to a person who deploys and operates the product, word for word.

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
    command::{Envelope, bare, said},
    office::{Office, architecture},
};

/// A person in the project's folder, with a cargo that finds built what takes minutes and a cross compiler to build.
struct Reader {
    office: Office,
    folder: TempDir,
}

impl Reader {
    async fn begin() -> anyhow::Result<Self> {
        let office = Office::open().await?;
        let template = office.packages.template.clone();
        Self::with_template(office, &template)
    }

    /// A person whose template is another one, alone in its folder next to what is built.
    fn with_template(office: Office, template: &Path) -> anyhow::Result<Self> {
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
        Ok(Self { office, folder })
    }

    /// Runs commands as a person pastes them, with something on standard input for the first that reads it.
    async fn paste(&self, blocks: &[Block], input: &str) -> anyhow::Result<Envelope> {
        let key = match Stack::read(&self.office.cloud.aws, "tableau-fanout").await {
            Ok(stack) => stack.output("KeyId")?.to_owned(),
            Err(_) => String::new(),
        };
        let commands: String = blocks.iter().map(|block| block.text.as_str()).collect();
        let commands = commands.replace("YOUR-BUCKET", BUCKET).replace("KEY-ID", &key);
        let mut bash = Command::new("bash");
        bash.args(["-e", "-u", "-x", "-c", &commands]).current_dir(&self.folder).kill_on_drop(true);
        let settings = self.office.settings();
        let tools = PythonTools::for_local_stack(&Workspace::locate()?)?.programs();
        let ours = self.folder.path().join("bin");
        bare(&mut bash, &[&ours, &tools, Path::new("/usr/bin"), Path::new("/bin")], &settings)?;
        said(bash, input).await
    }
}

#[tokio::test]
async fn who_operates_by_the_documents_gets_what_they_promise() -> anyhow::Result<()> {
    let reader = Reader::begin().await?;
    let office = &reader.office;
    office.deploy(&["--parameter", "Events=WorkbookCreated,ViewDeleted"]).await?.well(&[])?;
    // It does not ask whether there is an entry to be replaced.
    let renew = documents::commands("docs/operations.md", "Renewing a token")?;
    reader
        .paste(&renew, &office.entry().to_string())
        .await?
        .well(&["From now on the schedule looks after marketing"])?;
    assert_eq!(office.webhooks().len(), 2);

    let (short, replay) = (
        documents::commands("README.md", "Operate")?,
        documents::commands("docs/operations.md", "Events that were not published")?,
    );
    ensure!(replay[0].text.ends_with(&short[0].text) && short.len() == 1, "other commands: {short:?}");
    let asking = [documents::commands("README.md", "Add a site")?, replay];
    let nothing = ["0 changes at 0 of 1 site. Nothing was done.", "Nothing to publish."];
    reader.paste(&asking.concat(), "").await?.well(&nothing)?;
    let upgrade = documents::commands("docs/operations.md", "Upgrading, and going back")?;
    reader.paste(&upgrade, "").await?.well(&["its state is CREATE_COMPLETE", "Events and alerts come through."])?;

    // Off and on and off: each block is the other way round of the one before, but for the last.
    let switching = documents::commands("docs/operations.md", "Switching off")?;
    reader
        .paste(&switching, "")
        .await?
        .well(&["\"ReservedConcurrentExecutions\": 0", "\"ReservedConcurrentExecutions\": 1"])?;
    assert_eq!(office.webhooks(), [""; 0]);

    fs::write(reader.folder.path().join("ca.pem"), "a certificate")?;
    let last = [
        documents::commands("README.md", "A Tableau Server behind a firewall")?,
        documents::commands("docs/operations.md", "Deleting the stack")?,
    ];
    reader.paste(&last.concat(), "").await?.well(&["PendingDeletion"])?;
    let left = "ssm get-parameters-by-path --path /tableau-fanout --recursive --query Parameters[].Name";
    let left = office.aws(left).await?;
    let kept = ["signing-keys", "tableau-ca"];
    assert_eq!(left, json!(kept.map(|parameter| format!("/tableau-fanout/{parameter}"))));
    Ok(())
}

/// A template beyond what CloudFormation takes within a request, which is 51,200 bytes.
const PADDED_BYTES: usize = 60_000;

#[tokio::test]
async fn a_template_that_fits_into_no_request_is_deployed_by_every_command() -> anyhow::Result<()> {
    let (office, folder) = (Office::open().await?, TempDir::new()?);
    let template = fs::read_to_string(&office.packages.template)?;
    // No comment, which packaging would leave out.
    let padding = "x".repeat(PADDED_BYTES.saturating_sub(template.len()));
    let template = template.replacen("\nMetadata:\n", &format!("\nMetadata:\n  Padding: {padding}\n"), 1);
    ensure!(template.len() > PADDED_BYTES, "{} bytes", template.len());
    let [infra, built] = ["infra", "target"].map(|name| folder.path().join(name));
    [&infra, &built].into_iter().try_for_each(fs::create_dir)?;
    symlink(binaries::folder_of(&office.packages.template)?, built.join("lambda"))?;
    let path = infra.join("template.yaml");
    fs::write(&path, &template)?;
    // The cloud is as strict as AWS.
    let body = format!("file://{}", path.display());
    let refused = office.cloud.aws.run(&["cloudformation", "validate-template", "--template-body", &body]).await;
    let refused = format!("{:#}", refused.err().context("the cloud takes it in a request")?);
    ensure!(refused.contains("Member must have length less than or equal to 51200"), "{refused}");

    let reader = Reader::with_template(office, &path)?;
    let deploy = Document::read("README.md")?;
    let deploy = &deploy.section("Deploy")?.blocks;
    let [with_cargo, by_hand] = ["cargo infra deploy", "cargo lambda build --release --arm64 --output-format zip"]
        .map(|begin| deploy.iter().find(|block| block.text.starts_with(begin)).cloned());
    let (with_cargo, mut by_hand) = (with_cargo.context("no command")?, by_hand.context("no commands by hand")?);
    let endpoint = &reader.office.cloud.endpoint;
    let overrides = format!(" --parameter-overrides Architecture={} AwsEndpointUrl={endpoint}\n", architecture()?);
    by_hand.text = by_hand.text.trim_end().to_owned() + &overrides;

    reader.paste(from_ref(&with_cargo), "").await?.well(&["will be made", "The stack is up."])?;
    reader.paste(from_ref(&with_cargo), "").await?.well(&["will be updated", "The stack is up."])?;
    reader.office.infra(&["status"]).await?.well(&["state CREATE_COMPLETE"])?;
    reader.office.infra(&["destroy", "--yes"]).await?.well(&["is gone."])?;
    reader.paste(from_ref(&by_hand), "").await?.well(&[])?;
    reader.office.infra(&["status"]).await?.well(&["state CREATE_COMPLETE"])?;
    Ok(())
}
