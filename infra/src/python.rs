//! Python tools in a virtual environment of the project's own, at pinned versions.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, bail};

use crate::{steps::tail, workspace::Workspace};

/// A virtual environment that holds what a requirements file lists.
#[derive(Clone, Debug)]
pub struct PythonTools {
    folder: PathBuf,
}

impl PythonTools {
    /// The tools that run AWS locally.
    ///
    /// # Errors
    ///
    /// As [`PythonTools::install`].
    pub fn for_local_stack(workspace: &Workspace) -> anyhow::Result<Self> {
        Self::install(workspace, "tools", &workspace.file("infra/requirements.txt"))
    }

    /// Makes the environment `name` hold exactly what `requirements` lists. What is there already stays, so that only
    /// the first use downloads anything.
    ///
    /// # Errors
    ///
    /// There is no Python 3, or a package cannot be had. The error says where the installer's log is.
    pub fn install(workspace: &Workspace, name: &str, requirements: &Path) -> anyhow::Result<Self> {
        let _lock = workspace.lock(name)?;
        let folder = workspace.local("")?.join(name);
        let tools = Self { folder };
        let packages = fs::read_to_string(requirements)
            .with_context(|| format!("cannot read the list of Python packages {}", requirements.display()))?;
        // The programs of an environment name their folder: one that was moved is made again.
        let wanted = format!("{}\n{packages}", tools.folder.display());
        let stamp = tools.folder.join("installed.txt");
        if fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
            return Ok(tools);
        }
        let log = workspace.local("logs")?.join(format!("{name}.log"));
        eprintln!("    first use: installs Python packages, which takes about half a minute");
        let mut venv = Command::new("python3");
        run(venv.args(["-m", "venv", "--clear"]).arg(&tools.folder), &log, "python3 -m venv")
            .context("a virtual environment cannot be made: Python 3.10 or newer is needed, with its venv module")?;
        // Every package is listed, with what it needs: nothing else is to come along.
        let mut pip = Command::new(tools.program("python3"));
        pip.args(["-m", "pip", "install", "--disable-pip-version-check", "--no-input", "--no-deps", "--requirement"]);
        run(pip.arg(requirements), &log, "pip install")
            .context("Python packages cannot be installed: they take Python 3.10 or newer and a package index")?;
        fs::write(&stamp, wanted).with_context(|| format!("cannot write {}", stamp.display()))?;
        Ok(tools)
    }

    /// A program of the environment.
    pub fn program(&self, name: &str) -> PathBuf {
        self.folder.join("bin").join(name)
    }

    /// The folder of its programs.
    pub fn programs(&self) -> PathBuf {
        self.folder.join("bin")
    }
}

fn run(command: &mut Command, log: &Path, name: &str) -> anyhow::Result<()> {
    let file = fs::File::options().create(true).append(true).open(log);
    let file = file.with_context(|| format!("cannot write the log {}", log.display()))?;
    let output = Stdio::from(file.try_clone()?);
    let status = command.stdin(Stdio::null()).stdout(output).stderr(Stdio::from(file)).status();
    let status = status.with_context(|| format!("cannot start {name}"))?;
    if !status.success() {
        bail!("{name} failed with {status}; its log {} ends with:\n{}", log.display(), tail(log));
    }
    Ok(())
}
