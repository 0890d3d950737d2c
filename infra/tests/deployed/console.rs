//! The console of a local stack, in a browser and by other programs.

use std::{
    env,
    io::{Write, stderr},
    process::Stdio,
};

use anyhow::ensure;
use infra::{python::PythonTools, workspace::Workspace};
use tokio::process::Command;

use crate::local_command::LocalCommand;

/// Exit status of the browser test where there is no browser.
const NO_BROWSER: i32 = 3;

#[tokio::test]
async fn a_newcomer_sees_a_failure_and_repairs_webhooks_in_a_browser() -> anyhow::Result<()> {
    let workspace = Workspace::locate()?;
    let tools = PythonTools::install(&workspace, "console", &workspace.file("tests/console/requirements.txt"))?;
    let local = LocalCommand::start().await?;
    let mut test = Command::new(tools.program("python3"));
    test.arg(workspace.file("tests/console/newcomer.py")).arg(&local.console);
    test.arg(workspace.local("reports")?.join("console")).stdin(Stdio::null()).kill_on_drop(true);
    let output = test.output().await?;
    let printed = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    if output.status.code() == Some(NO_BROWSER) {
        ensure!(env::var_os("CI").is_none(), "CI needs a browser: {printed}");
        // Not through a macro, whose output a successful test hides.
        writeln!(stderr(), "The console was not tried in a browser. {printed}")?;
        return Ok(());
    }
    ensure!(output.status.success(), "{}: {printed}", output.status);
    println!("{printed}");
    Ok(())
}
