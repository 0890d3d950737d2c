//! Where things are.

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
    /// The workspace this program was built from.
    ///
    /// # Errors
    ///
    /// It is no longer there.
    pub fn locate() -> anyhow::Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let root = root.canonicalize().with_context(|| format!("the workspace {} is gone", root.display()))?;
        let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), |target| root.join(target));
        Ok(Self { root, target })
    }

    /// A file of the project.
    pub fn file(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    /// Where cargo puts what it builds.
    pub fn built(&self, path: &str) -> PathBuf {
        self.target.join(path)
    }

    /// A folder for what `cargo infra` makes. It is made if it is not there.
    ///
    /// # Errors
    ///
    /// It cannot be made.
    pub fn local(&self, path: &str) -> anyhow::Result<PathBuf> {
        let folder = self.target.join("local").join(path);
        fs::create_dir_all(&folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
        Ok(folder)
    }

    /// Waits for the exclusive right to make what `name` stands for. It ends when the file is dropped.
    ///
    /// # Errors
    ///
    /// The lock file cannot be made or locked.
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
