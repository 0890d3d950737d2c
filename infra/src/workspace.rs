//! Folders of the project.

use std::{
    env,
    fs::{self, File},
    path::{Path, PathBuf},
};

use anyhow::Context;

/// The project's folders.
#[derive(Clone, Debug)]
pub struct Workspace {
    root: PathBuf,
    target: PathBuf,
}

impl Workspace {
    /// Finds the workspace that this program was built from.
    ///
    /// # Errors
    ///
    /// It no longer exists.
    pub fn locate() -> anyhow::Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let root = root.canonicalize().with_context(|| format!("the workspace {} no longer exists", root.display()))?;
        let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), |target| root.join(target));
        Ok(Self { root, target })
    }

    /// Path of a file of the project.
    pub fn file(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    /// Path of a file that cargo builds.
    pub fn built(&self, path: &str) -> PathBuf {
        self.target.join(path)
    }

    /// Creates a folder for files of `cargo infra`, unless it exists.
    ///
    /// # Errors
    ///
    /// It cannot be created.
    pub fn local(&self, path: &str) -> anyhow::Result<PathBuf> {
        let folder = self.target.join("local").join(path);
        fs::create_dir_all(&folder).with_context(|| format!("cannot create the folder {}", folder.display()))?;
        Ok(folder)
    }

    /// Waits for the exclusive lock `name`. Dropping the file releases it.
    ///
    /// # Errors
    ///
    /// The lock file cannot be created or locked.
    pub fn lock(&self, name: &str) -> anyhow::Result<File> {
        let path = self.local("")?.join(format!("{name}.lock"));
        let lock = || {
            let file = File::create(&path)?;
            file.lock()?;
            Ok::<_, std::io::Error>(file)
        };
        lock().with_context(|| format!("cannot lock {}", path.display()))
    }
}
