//! The release folder: the templates beside the zipped functions, as an archive of a release has them.

use std::{
    fs::{self, Permissions},
    io::{self, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail, ensure};
use tempfile::{Builder, NamedTempFile};

use crate::{
    binaries::{self, Architecture, FUNCTIONS},
    stack::is_our_template,
    workspace::Workspace,
};

/// The template in a release folder.
const TEMPLATE: &str = "template.yaml";

/// The template of a target, in a release folder and in `infra`.
const TARGET: &str = "target.yaml";

/// The folder of the templates for subscribers and targets, in a release folder and in `infra`.
const EXAMPLES: &str = "examples";

/// The licences, in a release folder and in the project's folder.
const LICENCES: [&str; 2] = ["LICENSE-APACHE", "LICENSE-MIT"];

/// A folder with a template and the functions that it deploys.
#[derive(Clone, Debug)]
pub struct ReleaseFolder {
    path: PathBuf,
    architecture: Architecture,
}

impl ReleaseFolder {
    /// Opens the folder `path` for a deployment.
    ///
    /// # Errors
    ///
    /// It is not a release folder, lacks a file, or its functions have different architectures.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let shown = path.display();
        ensure!(
            !path.is_file(),
            "{shown} is a file, not a folder. Nothing was deployed. Fix: if it is the archive of a release, run \
             `unzip {shown}` and give --zips the unzipped folder"
        );
        let path = path.canonicalize().with_context(|| {
            format!(
                "there is no folder {shown}. Nothing was deployed. Fix: give --zips the unzipped folder of a release, or \
                 leave out --zips to build the functions"
            )
        })?;
        let template = fs::read_to_string(path.join(TEMPLATE)).with_context(|| {
            format!(
                "{shown} is not a release folder, since it has no readable {TEMPLATE}. Nothing was deployed. Fix: give \
                 --zips the unzipped folder of a release"
            )
        })?;
        ensure!(
            is_our_template(&template),
            "{shown} is not a release folder, since its {TEMPLATE} is not the template of Tableau Fanout. Nothing was \
             deployed. Fix: give --zips the unzipped folder of a release"
        );
        let architecture = binaries::architecture(&path)?;
        Ok(Self { path, architecture })
    }

    /// Writes a release folder for functions of an architecture. `zip` writes the zip of a function to a path. Other files
    /// in the folder stay.
    ///
    /// # Errors
    ///
    /// A file cannot be read or written, or the source of the template has changed.
    pub fn write(
        workspace: &Workspace,
        path: &Path,
        architecture: Architecture,
        zip: impl Fn(&str, &Path) -> anyhow::Result<()>,
    ) -> anyhow::Result<Self> {
        let examples = path.join(EXAMPLES);
        fs::create_dir_all(&examples).with_context(|| format!("cannot create the folder {}", examples.display()))?;
        let path = path.canonicalize()?;
        for function in FUNCTIONS {
            let file = binaries::zip_of(&path, function);
            zip(function, &file).with_context(|| format!("cannot write {}", file.display()))?;
        }
        let source = fs::read_to_string(workspace.file("infra/template.yaml"))?;
        replace(&path.join(TEMPLATE), adapt(&source, architecture)?.as_bytes())?;
        replace(&path.join(TARGET), &fs::read(workspace.file("infra").join(TARGET))?)?;
        for licence in LICENCES {
            replace(&path.join(licence), &fs::read(workspace.file(licence))?)?;
        }
        for example in fs::read_dir(workspace.file("infra").join(EXAMPLES))? {
            let example = example?;
            replace(&path.join(EXAMPLES).join(example.file_name()), &fs::read(example.path())?)?;
        }
        Ok(Self { path, architecture })
    }

    /// Path of the template.
    pub fn template(&self) -> PathBuf {
        self.path.join(TEMPLATE)
    }

    /// Path of the folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Architecture of the functions.
    pub fn architecture(&self) -> Architecture {
        self.architecture
    }
}

/// Checks that [`ReleaseFolder::write`] would replace only files of an earlier release folder.
///
/// # Errors
///
/// The path is a file, or the folder has other content.
pub(crate) fn expect_replaceable(path: &Path) -> anyhow::Result<()> {
    let entries = match fs::read_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => {
            entries.with_context(|| format!("{} is not a readable folder. {NOTHING_WRITTEN}", path.display()))?
        }
    };
    let mut names = Vec::new();
    for entry in entries {
        names.push(entry?.file_name());
    }
    // The error names the same file each time.
    names.sort();
    let is_ours = fs::read_to_string(path.join(TEMPLATE)).is_ok_and(|template| is_our_template(&template));
    let zips = FUNCTIONS.map(|function| binaries::zip_of(path, function));
    let zips = zips.iter().filter_map(|zip| zip.file_name());
    let known: Vec<_> =
        [TEMPLATE, TARGET, EXAMPLES].into_iter().chain(LICENCES).map(AsRef::as_ref).chain(zips).collect();
    if let Some(foreign) = names.iter().find(|name| !is_ours || !known.contains(&name.as_os_str())) {
        bail!("{} has other content, such as {}. {NOTHING_WRITTEN}", path.display(), foreign.display());
    }
    Ok(())
}

/// Effect and fix of each error of [`expect_replaceable`].
const NOTHING_WRITTEN: &str = "Nothing was written. Fix: name a new folder";

/// Adapts the source of the template to a release folder.
///
/// The AWS CLI keeps the architecture of an existing stack. Functions for another one would not start, so the template
/// allows only their own. CloudFormation then refuses the update before it changes anything.
fn adapt(source: &str, architecture: Architecture) -> anyhow::Result<String> {
    let code = FUNCTIONS.map(|function| {
        (format!("Code: ../target/lambda/{function}/bootstrap.zip\n"), format!("Code: {function}.zip\n"))
    });
    let architectures = (
        "    Default: arm64\n    AllowedValues: [arm64, x86_64]\n".to_owned(),
        format!(
            "    Default: {architecture}\n    AllowedValues: [{architecture}]\n    ConstraintDescription: >-\n      \
             must be {architecture}, since these functions were built for it. Give Architecture={architecture}, with the\n      \
             AWS CLI as --parameter-overrides Architecture={architecture}.\n"
        ),
    );
    let mut template = source.to_owned();
    for (old, new) in code.iter().chain([&architectures]) {
        let count = template.matches(old).count();
        ensure!(
            count == 1,
            "infra/template.yaml has the text {old:?} {count} times, not once. It cannot be adapted to a release folder. \
             Fix: update infra/src/release.rs"
        );
        template = template.replacen(old, new, 1);
    }
    Ok(template)
}

/// Replaces a file as a whole.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let write = || {
        let mut file = new_file_for(path)?;
        file.write_all(bytes)?;
        Ok::<_, io::Error>(file.persist(path)?)
    };
    write().with_context(|| format!("cannot write {}", path.display()))?;
    Ok(())
}

/// Creates a file beside `path`, to be renamed when complete, so that no other process sees a part of it.
pub(crate) fn new_file_for(path: &Path) -> io::Result<NamedTempFile> {
    // Everybody may read a release.
    let permissions = Permissions::from_mode(0o644);
    Builder::new().permissions(permissions).tempfile_in(path.parent().unwrap_or(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_source_of_the_template_is_an_error() -> anyhow::Result<()> {
        let source = fs::read_to_string(Workspace::locate()?.file("infra/template.yaml"))?;
        for (old, new, count) in [
            ("bootstrap.zip", "function.zip", 0),
            ("AllowedValues: [arm64, x86_64]", "AllowedValues: [x86_64, arm64]", 0),
            ("tableau-webhook-reconciler/", "tableau-webhook-receiver/", 2),
        ] {
            let changed = source.replace(old, new);
            assert_ne!(changed, source);
            let error = adapt(&changed, Architecture::Arm64).expect_err("not to be deployed").to_string();
            assert!(error.contains(&format!(" {count} times, not once")), "{error}");
        }
        Ok(())
    }
}
