//! Release folders: `cargo infra package` with a stand-in for cargo-lambda, and folders that `cargo infra deploy` rejects.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, ensure};
use infra::{
    binaries::{Architecture, FUNCTIONS, zip_of},
    release::ReleaseFolder,
    workspace::Workspace,
};
use tempfile::TempDir;

use crate::command::{Output, infra, run, zip_stand_in, zip_stand_in_for};

const ARCHITECTURES: [Architecture; 2] = [Architecture::Arm64, Architecture::X86_64];

/// A cargo whose `lambda build` copies stand-ins. `$BUILT_FOR` replaces the wanted architecture, `$LINKED` what the system's
/// linker makes. It writes each command to a file, and whether cargo-lambda and Zig are there.
const CARGO: &str = r#"#!/bin/sh
case "$*" in
  *--version) exit ;;
  *'lambda build --release --arm64 --output-format zip'*) arch=arm64 ;;
  *'lambda build --release --x86-64 --output-format zip'*) arch=x86_64 ;;
  *) exit 1 ;;
esac
echo "$* | $(command -v cargo-lambda) | $(python3 -m ziglang version 2>&1)" >> "$0.log"
case "$*" in *'--compiler cargo'*) arch=${LINKED:-$arch} ;; esac
while [ "$1" != --lambda-dir ]; do shift; done
for function in tableau-webhook-receiver tableau-webhook-reconciler tableau-webhook-forwarder; do
  mkdir "$2/$function"
  cp "$(dirname "$0")/${BUILT_FOR:-$arch}.zip" "$2/$function/bootstrap.zip"
done
"#;

/// A folder for release folders, with the cargo and the stand-ins.
struct Packaging {
    folder: TempDir,
}

impl Packaging {
    fn new() -> anyhow::Result<Self> {
        let folder = TempDir::new()?;
        let cargo = folder.path().join("cargo");
        fs::write(&cargo, CARGO)?;
        fs::set_permissions(cargo, fs::Permissions::from_mode(0o755))?;
        for architecture in ARCHITECTURES {
            zip_stand_in(&folder.path().join(format!("{architecture}.zip")), architecture)?;
        }
        zip_stand_in_for(&folder.path().join("too-new.zip"), Architecture::of_this_machine()?, "GLIBC_2.39")?;
        // An installed Zig.
        let programs = folder.path().join("programs");
        fs::create_dir(&programs)?;
        fs::write(programs.join("zig"), "#!/bin/sh\n")?;
        fs::set_permissions(programs.join("zig"), fs::Permissions::from_mode(0o755))?;
        Ok(Self { folder })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    async fn package(&self, folder: &Path, arch: &str, built_for: Option<&str>) -> anyhow::Result<Output> {
        let mut package = infra(&["package", folder.to_str().context("a path")?, "--arch", arch]);
        let path = std::env::join_paths([self.path("programs"), "/usr/bin".into(), "/bin".into()])?;
        package.env("CARGO", self.path("cargo")).env("PATH", path).envs(built_for.map(|arch| ("BUILT_FOR", arch)));
        run(package, "").await
    }

    /// Rejected as `--zips`, before any call to AWS.
    async fn rejected(&self, folder: &Path, expected: &str) -> anyhow::Result<()> {
        let mut deploy = infra(&["deploy", "--bucket", "b", "--zips", folder.to_str().context("a path")?]);
        deploy.env("PATH", "");
        let output = run(deploy, "").await?.failed(&[expected, "Nothing was deployed. Fix: "])?;
        ensure!(!output.all().contains("the AWS CLI"), "it continued: {}", output.all());
        Ok(())
    }
}

/// Reads the files of a folder, by their paths in it.
fn files(folder: &Path) -> anyhow::Result<BTreeMap<PathBuf, Vec<u8>>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            let inner = self::files(&entry.path())?.into_iter();
            files.extend(inner.map(|(path, bytes)| (Path::new(&entry.file_name()).join(path), bytes)));
        } else {
            files.insert(entry.file_name().into(), fs::read(entry.path())?);
        }
    }
    Ok(files)
}

/// Returns the lines that only one of two texts has: of the first, of the second. Checks that the others are the same.
fn differences<'t>(first: &'t str, second: &'t str) -> (Vec<&'t str>, Vec<&'t str>) {
    let split = |text: &'t str, other: &str| -> (Vec<&'t str>, Vec<&'t str>) {
        text.lines().partition(|line| !other.lines().any(|other| other == *line))
    };
    let ((of_first, same), (of_second, also_same)) = (split(first, second), split(second, first));
    assert_eq!(same, also_same);
    (of_first, of_second)
}

#[tokio::test]
async fn a_release_folder_differs_from_the_sources_only_in_the_code_and_the_architecture() -> anyhow::Result<()> {
    let (packaging, workspace) = (Packaging::new()?, Workspace::locate()?);
    let folder = packaging.path("release");
    let source = fs::read_to_string(workspace.file("infra/template.yaml"))?;
    let mut expected = files(&workspace.file("infra/examples"))?;
    expected = expected.into_iter().map(|(path, bytes)| (Path::new("examples").join(path), bytes)).collect();
    expected.insert("target.yaml".into(), fs::read(workspace.file("infra/target.yaml"))?);
    for licence in ["LICENSE-APACHE", "LICENSE-MIT"] {
        expected.insert(licence.into(), fs::read(workspace.file(licence))?);
    }
    // The second replaces the first.
    for architecture in ["arm64", "x86_64"] {
        let printed = [
            &format!("tableau-webhook-reconciler: 0.0 MB zipped, {architecture}, needs GLIBC 2.17"),
            "cargo infra deploy --zips ",
        ];
        packaging.package(&folder, architecture, None).await?.succeeded(&printed)?;
        let mut written = files(&folder)?;
        let template = written.remove(Path::new("template.yaml")).context("no template")?;
        for function in FUNCTIONS {
            let zip = written.remove(Path::new(&format!("{function}.zip"))).context("no zip")?;
            assert_eq!(zip, fs::read(packaging.path(&format!("{architecture}.zip")))?);
        }
        assert_eq!(written, expected);
        let template = String::from_utf8(template)?;
        let (removed, added) = differences(&source, &template);
        let default = if architecture == "arm64" { &[][..] } else { &["    Default: arm64"] };
        let code = FUNCTIONS.map(|function| format!("      Code: ../target/lambda/{function}/bootstrap.zip"));
        let code = code.iter().map(String::as_str);
        let other = ["    AllowedValues: [arm64, x86_64]"];
        assert_eq!(removed, default.iter().copied().chain(other).chain(code).collect::<Vec<_>>());
        let code = FUNCTIONS.map(|function| format!("      Code: {function}.zip")).join("\n");
        let default = default.iter().map(|_| "    Default: x86_64\n").collect::<String>();
        let allowed = format!("{default}    AllowedValues: [{architecture}]\n    ConstraintDescription: >-\n");
        let added = added.join("\n");
        ensure!(added.starts_with(&allowed) && added.ends_with(&code), "{added}");
        ensure!(added.contains(&format!("--parameter-overrides Architecture={architecture}.")), "{added}");
    }
    Ok(())
}

#[tokio::test]
async fn a_build_takes_the_linker_of_this_machine_if_it_serves_and_otherwise_zig() -> anyhow::Result<()> {
    let packaging = Packaging::new()?;
    let here = Architecture::of_this_machine()?;
    let [other] = ARCHITECTURES.into_iter().filter(|arch| *arch != here).collect::<Vec<_>>()[..] else {
        anyhow::bail!("one other architecture")
    };
    let package = |arch: Architecture| {
        let mut package = infra(&["package", packaging.path("release").to_str().unwrap_or_default()]);
        package.args(["--arch", arch.as_str()]).env("CARGO", packaging.path("cargo"));
        package
    };
    let log = || fs::read_to_string(packaging.path("cargo.log"));
    run(package(here), "").await?.succeeded(&["needs GLIBC 2.17"])?;
    let first = log()?;
    ensure!(first.contains(" --compiler cargo ") && first.lines().count() == 1, "{first}");

    // The pinned cargo-lambda and Zig, since no Zig is installed.
    let no_zig = std::env::join_paths(["/usr/bin", "/bin"])?;
    let mut with_zig = package(other);
    with_zig.env("PATH", &no_zig);
    run(with_zig, "").await?.succeeded(&["cargo-lambda or Zig is not installed. This uses its own"])?;
    let second = log()?.lines().last().unwrap_or_default().to_owned();
    ensure!(!second.contains("--compiler") && second.contains("/build-tools/bin/cargo-lambda | 0."), "{second}");

    let mut too_new = package(here);
    too_new.env("PATH", &no_zig).env("LINKED", "too-new");
    let again = "the functions need GLIBC 2.39, but Lambda has GLIBC 2.34. They are built again with Zig";
    run(too_new, "").await?.succeeded(&[again, "needs GLIBC 2.17"])?;
    assert_eq!(log()?.lines().count(), 4);
    Ok(())
}

#[tokio::test]
async fn functions_for_another_architecture_than_the_wanted_one_are_an_error() -> anyhow::Result<()> {
    let packaging = Packaging::new()?;
    let output = packaging.package(&packaging.path("release"), "arm64", Some("x86_64")).await?;
    output.failed(&["cargo-lambda built the functions for x86_64 and not for arm64. Fix: "])?;
    Ok(())
}

#[tokio::test]
async fn a_release_folder_replaces_nothing_else() -> anyhow::Result<()> {
    let (packaging, workspace) = (Packaging::new()?, Workspace::locate()?);
    let [theirs, sources, mixed, file] = ["theirs", "sources", "mixed", "file"].map(|name| packaging.path(name));
    for folder in [&theirs, &sources] {
        fs::create_dir(folder)?;
    }
    fs::write(theirs.join("template.yaml"), "Resources: {}")?;
    fs::copy(workspace.file("infra/template.yaml"), sources.join("template.yaml"))?;
    fs::write(sources.join("Cargo.toml"), "")?;
    packaging.package(&mixed, "arm64", None).await?.succeeded(&[])?;
    fs::write(mixed.join("notes.txt"), "")?;
    fs::write(&file, "")?;
    for (folder, foreign) in [
        (&theirs, "has other content, such as template.yaml"),
        (&sources, "has other content, such as Cargo.toml"),
        (&mixed, "has other content, such as notes.txt"),
        (&file, "is not a readable folder"),
    ] {
        let before = files(packaging.folder.path())?;
        let expected = [foreign, ". Nothing was written. Fix: name a new folder"];
        packaging.package(folder, "x86_64", None).await?.failed(&expected)?;
        assert_eq!(files(packaging.folder.path())?, before);
    }
    Ok(())
}

#[tokio::test]
async fn a_folder_that_cannot_be_deployed_is_rejected_with_the_reason() -> anyhow::Result<()> {
    let (packaging, workspace) = (Packaging::new()?, Workspace::locate()?);
    let folder = packaging.path("release");
    let [receiver, reconciler, _] = FUNCTIONS.map(|function| zip_of(&folder, function));
    packaging.rejected(&folder, "there is no folder ").await?;
    fs::create_dir(&folder)?;
    packaging.rejected(&folder, "is not a release folder, since it has no readable template.yaml").await?;
    packaging.rejected(&workspace.file("infra"), "cannot open ").await?;
    fs::write(folder.join("template.yaml"), "Resources: {}")?;
    packaging.rejected(&folder, "its template.yaml is not the template of Tableau Fanout").await?;
    let archive = packaging.path("arm64.zip");
    let unzip = format!("if it is the archive of a release, run `unzip {}`", archive.display());
    packaging.rejected(&archive, &unzip).await?;

    let arm64 = Architecture::Arm64;
    ReleaseFolder::write(&workspace, &folder, arm64, |_, zip| zip_stand_in(zip, arm64))?;
    let arch = ["deploy", "--bucket", "b", "--arch", "arm64", "--zips", folder.to_str().context("a path")?];
    run(infra(&arch), "").await?.failed(&["the argument '--arch <ARCH>' cannot be used with '--zips <FOLDER>'"])?;
    zip_stand_in(&reconciler, Architecture::X86_64)?;
    packaging
        .rejected(
            &folder,
            "was built for arm64, but tableau-webhook-reconciler for x86_64. A stack has one architecture",
        )
        .await?;
    fs::write(&reconciler, "a text")?;
    packaging.rejected(&folder, "tableau-webhook-reconciler.zip is not a zipped function").await?;
    fs::remove_file(&receiver)?;
    packaging.rejected(&folder, &format!("cannot open {}", receiver.display())).await?;
    Ok(())
}
