//! Files of a running local stack, by which other commands find it.

use std::{
    env,
    fmt::Display,
    fs::{self, File, TryLockError},
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};

use crate::{environment, workspace::Workspace};

/// Script with the settings of a terminal, and the lock of the running stack.
const ENVIRONMENT: &str = "env";

/// The entry of the stack's site.
pub(crate) const SITE_ENTRY: &str = "site.json";

/// Note of an events topic that `cargo infra simulate` deleted.
pub(crate) const DELETED_TOPIC: &str = "deleted-topic.json";

/// Variable with the folder of the files.
const FOLDER: &str = "TABLEAU_FANOUT_FILES";

/// Variable with the endpoint of the local cloud.
const ENDPOINT: &str = "AWS_ENDPOINT_URL";

/// Variable with the address of the Tableau simulator.
const SIMULATOR: &str = "TABLEAU_SIMULATOR";

/// The folder of a stack that this process keeps up.
#[derive(Debug)]
pub(crate) struct LocalFiles {
    workspace: Workspace,
    folder: PathBuf,
    // Ends with the process, however it ends.
    _lock: File,
}

/// A stack that another process keeps up.
#[derive(Debug)]
pub(crate) struct RunningStack {
    pub(crate) endpoint: String,
    pub(crate) simulator: String,
    pub(crate) workspace: Workspace,
    folder: PathBuf,
}

impl LocalFiles {
    /// Claims a folder, by default `target/local`.
    ///
    /// # Errors
    ///
    /// Another stack uses it.
    pub(crate) fn claim(workspace: &Workspace, folder: Option<PathBuf>) -> anyhow::Result<Self> {
        let folder = folder.map_or_else(|| workspace.local(""), Ok)?;
        let create = || {
            fs::create_dir_all(&folder)?;
            // Absolute, for a terminal in any folder.
            let folder = folder.canonicalize()?;
            let lock = File::create(folder.join(ENVIRONMENT).with_extension("lock"))?;
            Ok::<_, std::io::Error>((folder, lock))
        };
        let (folder, lock) = create().with_context(|| format!("cannot write to the folder {}", folder.display()))?;
        match lock.try_lock() {
            Ok(()) => {
                // Those of a stack that has ended; mostly there are none.
                for name in [ENVIRONMENT, DELETED_TOPIC] {
                    let _ = fs::remove_file(folder.join(name));
                }
                Ok(Self { workspace: workspace.clone(), folder, _lock: lock })
            }
            Err(TryLockError::WouldBlock) => bail!(
                "a local stack is running already, with its files in {}. Nothing was started. Fix: stop it with Ctrl-C, or \
                 give this one its own folder: cargo infra local --files target/second",
                relative(workspace, &folder)
            ),
            Err(TryLockError::Error(error)) => Err(error).context("cannot lock the folder of the local stack"),
        }
    }

    /// Describes the stack for commands of this process.
    pub(crate) fn running(&self, endpoint: &str, simulator: &str) -> RunningStack {
        RunningStack {
            endpoint: endpoint.to_owned(),
            simulator: simulator.to_owned(),
            workspace: self.workspace.clone(),
            folder: self.folder.clone(),
        }
    }

    /// Writes the settings of a terminal. Returns the path of the script.
    pub(crate) fn write_environment(&self, endpoint: &str, simulator: &str, tools: &Path) -> anyhow::Result<String> {
        let folder = self.folder.to_string_lossy();
        let ours = [(ENDPOINT, endpoint), (SIMULATOR, simulator), (FOLDER, &folder)];
        let variables = environment::AWS.into_iter().chain(ours);
        let exports: String = variables.map(|(name, value)| export(name, quoted(value))).collect();
        // The user's own tools come first.
        let path = export("PATH", format!("\"$PATH\":{}", quoted(tools.display())));
        self.write(ENVIRONMENT, &format!("unset AWS_PROFILE AWS_DEFAULT_PROFILE AWS_SESSION_TOKEN\n{exports}{path}"))
    }

    /// Writes a file, and returns its path relative to the project's folder.
    pub(crate) fn write(&self, name: &str, text: &str) -> anyhow::Result<String> {
        write(&self.workspace, &self.folder.join(name), text)
    }
}

impl RunningStack {
    /// Finds the stack whose files are in `folder`. By default it is the one whose settings the terminal has, and otherwise
    /// the one in `target/local`.
    ///
    /// # Errors
    ///
    /// None is running there, or it has not started yet.
    pub(crate) fn find(folder: Option<PathBuf>) -> anyhow::Result<Self> {
        let workspace = Workspace::locate()?;
        let folder = folder.or_else(|| env::var_os(FOLDER).map(PathBuf::from));
        let folder = folder.map_or_else(|| workspace.local(""), Ok)?;
        let shown = relative(&workspace, &folder);
        let is_running = File::open(folder.join(ENVIRONMENT).with_extension("lock"))
            .is_ok_and(|lock| matches!(lock.try_lock_shared(), Err(TryLockError::WouldBlock)));
        if !is_running {
            bail!(
                "no local stack is running with its files in {shown}. Nothing was done. Fix: start one with `cargo infra local` \
                 in another terminal, or name its folder with --files"
            );
        }
        let text = fs::read_to_string(folder.join(ENVIRONMENT)).unwrap_or_default();
        let value = |name: &str| {
            let value = text.lines().find_map(|line| line.strip_prefix(&format!("export {name}='")));
            Some(value?.strip_suffix('\'')?.to_owned())
        };
        let (Some(endpoint), Some(simulator)) = (value(ENDPOINT), value(SIMULATOR)) else {
            bail!(
                "the local stack in {shown} is still starting. Nothing was done. Fix: wait until it prints \"running\""
            );
        };
        Ok(Self { endpoint, simulator, workspace, folder })
    }

    /// Reads a file.
    pub(crate) fn read(&self, name: &str) -> anyhow::Result<String> {
        let path = self.folder.join(name);
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    }

    /// Writes a file, and returns its path relative to the project's folder.
    pub(crate) fn write(&self, name: &str, text: &str) -> anyhow::Result<String> {
        write(&self.workspace, &self.folder.join(name), text)
    }

    /// Path of a file.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

/// Formats a path relative to the project's folder.
pub(crate) fn relative(workspace: &Workspace, path: &Path) -> String {
    path.strip_prefix(workspace.file("")).unwrap_or(path).display().to_string()
}

fn write(workspace: &Workspace, path: &Path, text: &str) -> anyhow::Result<String> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(relative(workspace, path))
}

fn export(name: &str, value: String) -> String {
    format!("export {name}={value}\n")
}

/// Quotes a value for a shell.
fn quoted(value: impl Display) -> String {
    format!("'{}'", value.to_string().replace('\'', r"'\''"))
}
