//! An earlier state of the project, from git: its template beside its functions.

use std::{
    env, fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context, bail, ensure};
use infra::{environment::forget_our_package, functions::zip_bootstrap, workspace::Workspace};
use tempfile::TempDir;
use tokio::process::Command;

/// The state before the first release, until there is a release to upgrade from: the last one without a version in the
/// stack.
const BEFORE_RELEASES: &str = "4ae90a9f0250e110dee6c4cb5a50eab270bd00ab";

/// Exports the latest release before this state from git, and builds its functions for this machine. Returns the path of its
/// template. Both are kept for the next time.
///
/// # Errors
///
/// The clone does not have it, or it does not build.
pub async fn template(workspace: &Workspace) -> anyhow::Result<PathBuf> {
    let commit = commit(&workspace.file("")).await?;
    // Other processes wait until it is complete.
    let _lock = workspace.lock("upgrade")?;
    let folder = workspace.built(&format!("upgrade/{commit}"));
    let source = folder.join("source");
    if !source.exists() {
        fs::create_dir_all(&folder)?;
        export(&workspace.file(""), &commit, &source).await?;
    }
    let binaries = build(workspace, &folder).await?;
    let template = source.join("infra/template.yaml");
    for code in code_paths(&fs::read_to_string(&template)?)? {
        let zip = source.join("infra").join(&code);
        let binary = code.components().find_map(|part| {
            let name = Path::new(part.as_os_str()).file_stem()?;
            Some(binaries.join(name)).filter(|binary| binary.is_file())
        });
        let binary = binary.with_context(|| format!("no function of {commit} belongs to {}", code.display()))?;
        fs::create_dir_all(zip.parent().context("a path without a folder")?)?;
        zip_bootstrap(&binary, &zip).with_context(|| format!("cannot zip {}", binary.display()))?;
    }
    Ok(template)
}

/// Returns the commit of the newest release in the history of this state, without this state itself. Completes the history of
/// a shallow clone.
async fn commit(repository: &Path) -> anyhow::Result<String> {
    const FIX: &str =
        "The upgrade cannot be tested. Fix: run `git fetch --unshallow --tags` in a clone of the repository";
    let is_shallow = git(repository, &["rev-parse", "--is-shallow-repository"]).await;
    let is_shallow = is_shallow.with_context(|| format!("git cannot read the repository's history. {FIX}"))?;
    if is_shallow == "true" {
        let fetched = git(repository, &["fetch", "--quiet", "--unshallow", "--tags"]).await;
        fetched.with_context(|| format!("the clone has only a part of the repository's history. {FIX}"))?;
    }
    let newest = ["-c", "versionsort.suffix=-", "for-each-ref", "--sort=-version:refname", "--count=1"];
    let before = ["--merged=HEAD", "--no-contains=HEAD", "--format=%(refname)", "refs/tags/v*"];
    let release = git(repository, &[&newest[..], &before].concat()).await?;
    let name = if release.is_empty() { BEFORE_RELEASES } else { &release };
    let commit = git(repository, &["rev-parse", "--verify", &format!("{name}^{{commit}}")]).await;
    commit.with_context(|| format!("the clone does not have {name}. {FIX}"))
}

/// Runs git and returns its output.
async fn git(repository: &Path, arguments: &[&str]) -> anyhow::Result<String> {
    let output = Command::new("git").arg("-C").arg(repository).args(arguments).output().await?;
    ensure!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

/// Writes the files of a commit to a folder, all or none.
async fn export(repository: &Path, commit: &str, folder: &Path) -> anyhow::Result<()> {
    let scratch = TempDir::new_in(folder.parent().context("a folder without a parent")?)?;
    let (archive, files) = (scratch.path().join("files.tar"), scratch.path().join("files"));
    let output = format!("--output={}", archive.display());
    git(repository, &["archive", "--format=tar", &output, commit]).await?;
    fs::create_dir(&files)?;
    let tar = Command::new("tar").arg("-xf").arg(&archive).arg("-C").arg(&files).status().await?;
    ensure!(tar.success(), "tar cannot read the archive of {commit}");
    Ok(fs::rename(files, folder)?)
}

/// Builds the functions in the development profile, with the dependencies that are built already. Returns the folder of the
/// binaries.
async fn build(workspace: &Workspace, folder: &Path) -> anyhow::Result<PathBuf> {
    let (source, target, wrapper) = (folder.join("source"), folder.join("target"), folder.join("rustc"));
    // Cargo keeps what different wrappers compile apart. Without one it would take our packages for the earlier ones, since
    // both have the same paths in their workspaces.
    if !wrapper.exists() {
        fs::write(&wrapper, "#!/bin/sh\nexec \"$@\"\n")?;
        fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755))?;
    }
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    forget_our_package(&mut cargo);
    cargo.env("CARGO_BUILD_BUILD_DIR", workspace.built("")).env("CARGO_TARGET_DIR", &target);
    cargo.env("RUSTC_WORKSPACE_WRAPPER", wrapper);
    let status = cargo.args(["build", "--bins", "--locked"]).current_dir(&source).stdin(Stdio::null()).status().await;
    if !status.context("cannot start cargo")?.success() {
        bail!("the earlier state in {} does not build. Fix: see the compiler's messages above", source.display());
    }
    Ok(target.join("debug"))
}

/// Returns the paths of the functions' code in a template, relative to the template.
fn code_paths(template: &str) -> anyhow::Result<Vec<PathBuf>> {
    let paths: Vec<_> =
        template.lines().filter_map(|line| line.trim().strip_prefix("Code: ")).map(PathBuf::from).collect();
    ensure!(!paths.is_empty(), "the earlier template has no functions with code in a file");
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Makes commits in a new repository, each with its tags, and returns them.
    async fn repository(tags: &[&[&str]]) -> anyhow::Result<(TempDir, Vec<String>)> {
        let folder = TempDir::new()?;
        git(folder.path(), &["init", "--quiet"]).await?;
        let mut commits = Vec::new();
        for tags in tags {
            let author = ["-c", "user.name=a", "-c", "user.email=a@example.com", "-c", "commit.gpgsign=false"];
            git(folder.path(), &[&author[..], &["commit", "--quiet", "--allow-empty", "--message=a"]].concat()).await?;
            for tag in *tags {
                git(folder.path(), &["tag", tag]).await?;
            }
            commits.push(git(folder.path(), &["rev-parse", "HEAD"]).await?);
        }
        Ok((folder, commits))
    }

    #[tokio::test]
    async fn the_newest_release_before_this_state_is_found() -> anyhow::Result<()> {
        let releases: [&[&str]; 4] = [&["v0.9.0"], &["v0.10.0-rc.1", "v0.10.0", "other"], &[], &["v0.11.0"]];
        let (folder, commits) = repository(&releases).await?;
        assert_eq!(commit(folder.path()).await?, commits[1]);
        let (folder, commits) = repository(&[&["v0.10.0"], &["v0.9.0"], &[]]).await?;
        assert_eq!(commit(folder.path()).await?, commits[0]);
        git(folder.path(), &["checkout", "--quiet", &commits[1]]).await?;
        assert_eq!(commit(folder.path()).await?, commits[0]);
        Ok(())
    }

    #[tokio::test]
    async fn a_missing_history_is_an_error_with_its_fix() -> anyhow::Result<()> {
        let (full, commits) = repository(&[&["v0.9.0"], &[]]).await?;
        let (shallow, cut_off, (unrelated, _), none) =
            (TempDir::new()?, TempDir::new()?, repository(&[&[]]).await?, TempDir::new()?);
        let url = format!("file://{}", full.path().display());
        for clone in [&shallow, &cut_off] {
            git(clone.path(), &["clone", "--quiet", "--depth=1", &url, "."]).await?;
        }
        assert_eq!(commit(shallow.path()).await?, commits[0]);
        git(cut_off.path(), &["remote", "set-url", "origin", "file:///nowhere"]).await?;
        for (folder, expected) in [
            (&cut_off, "the clone has only a part of the repository's history"),
            (&unrelated, "the clone does not have 4ae90a9"),
            (&none, "git cannot read the repository's history"),
        ] {
            let error = format!("{:#}", commit(folder.path()).await.expect_err(expected));
            assert!(error.contains(expected) && error.contains("Fix: run `git fetch --unshallow --tags`"), "{error}");
        }
        Ok(())
    }
}
