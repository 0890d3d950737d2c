//! Python tools at pinned versions, in the project's own virtual environments.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, bail};

use crate::{steps::tail, workspace::Workspace};

/// Fails on a Python for which the lists of packages were not made. Some could be installed, but would not work.
const EXPECT_VERSION: &str = "import sys; sys.version_info >= (3, 11) or sys.exit('python3 is Python ' + sys.version)";

/// A virtual environment with the packages of a requirements file.
#[derive(Clone, Debug)]
pub struct PythonTools {
    folder: PathBuf,
}

impl PythonTools {
    /// Installs the tools of the local stack.
    ///
    /// # Errors
    ///
    /// As [`PythonTools::install`].
    pub fn for_local_stack(workspace: &Workspace) -> anyhow::Result<Self> {
        Self::install(workspace, "tools", &workspace.file("infra/requirements.txt"))
    }

    /// Installs the packages of `requirements` in the environment `name`, unless they are installed already.
    ///
    /// # Errors
    ///
    /// Python is missing or too old, or a package cannot be downloaded. The error names the installer's log.
    pub fn install(workspace: &Workspace, name: &str, requirements: &Path) -> anyhow::Result<Self> {
        let _lock = workspace.lock(name)?;
        let folder = workspace.local("")?.join(name);
        let tools = Self { folder };
        let packages = fs::read_to_string(requirements)
            .with_context(|| format!("cannot read the list of Python packages {}", requirements.display()))?;
        // The programs of an environment contain its path, so a moved environment is created again.
        let wanted = format!("{}\n{packages}", tools.folder.display());
        let stamp = tools.folder.join("installed.txt");
        if fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
            return Ok(tools);
        }
        let log = workspace.local("logs")?.join(format!("{name}.log"));
        eprintln!("    first use: installing Python packages takes about half a minute");
        let mut version = Command::new("python3");
        run(version.args(["-c", EXPECT_VERSION]), &log, "python3").context(
            "python3 is missing or older than 3.11, so the tools cannot be installed. Fix: install Python 3.11 or newer, \
             with its venv module, as python3",
        )?;
        let mut venv = Command::new("python3");
        run(venv.args(["-m", "venv", "--clear"]).arg(&tools.folder), &log, "python3 -m venv")
            .context("a virtual environment cannot be created. Fix: install the venv module of Python")?;
        // The file lists every dependency.
        let mut pip = Command::new(tools.program("python3"));
        pip.args(["-m", "pip", "install", "--disable-pip-version-check", "--no-input", "--no-deps", "--requirement"]);
        run(pip.arg(requirements), &log, "pip install")
            .context("Python packages cannot be installed. Fix: check that a package index can be reached")?;
        fs::write(&stamp, wanted).with_context(|| format!("cannot write {}", stamp.display()))?;
        Ok(tools)
    }

    /// Path of a program of the environment.
    pub fn program(&self, name: &str) -> PathBuf {
        self.folder.join("bin").join(name)
    }

    /// Folder of the environment's programs.
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
        bail!("{name} failed with {status}. The log {} ends with:\n{}", log.display(), tail(log));
    }
    Ok(())
}
