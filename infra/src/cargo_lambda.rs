//! cargo-lambda, which builds the functions for AWS.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context, ensure};
use tempfile::TempDir;
use tokio::process::Command;

use crate::{
    binaries::{self, Architecture, LAMBDA_GLIBC},
    environment::forget_our_package,
    python::PythonTools,
    release::{self, ReleaseFolder},
    steps::show,
    workspace::Workspace,
};

/// The linker of a build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Linker {
    /// This machine's. It links for this machine's processor and GLIBC.
    System,
    /// Zig. It links for any processor, and for an old GLIBC.
    Zig,
}

impl Linker {
    /// Chooses the linker for an architecture. Zig is a download of 100 MB, so the system's is used where it serves.
    fn choose(arch: Architecture) -> anyhow::Result<Self> {
        let is_here = cfg!(all(target_os = "linux", target_env = "gnu"))
            && Architecture::of_this_machine().is_ok_and(|here| here == arch);
        // The same linker linked this program, with the same C library.
        let needed = if is_here { binaries::glibc_of_this_program()? } else { 0 };
        if needed > LAMBDA_GLIBC {
            show(&format!(
                "this machine's linker makes programs for GLIBC 2.{needed}, but Lambda has GLIBC 2.{LAMBDA_GLIBC}. Zig links \
                 the functions instead"
            ));
        }
        Ok(if is_here && needed <= LAMBDA_GLIBC { Self::System } else { Self::Zig })
    }
}

/// cargo-lambda with a linker.
struct CargoLambda {
    linker: Linker,
    /// Folders of the pinned programs, if the user's are not used.
    programs: Option<PathBuf>,
}

impl CargoLambda {
    /// Uses the user's cargo-lambda if it has what the linker needs. Otherwise installs the pinned one.
    async fn find(workspace: &Workspace, linker: Linker) -> anyhow::Result<Self> {
        let user = Self { linker, programs: None };
        let is_complete = succeeds(user.cargo_lambda().arg("--version")).await
            && (linker == Linker::System
                || succeeds(Command::new("zig").arg("version")).await
                || succeeds(Command::new("python3").args(["-m", "ziglang", "version"])).await);
        if is_complete {
            return Ok(user);
        }
        let tools = match linker {
            // They include cargo-lambda.
            Linker::System => PythonTools::for_local_stack(workspace)?,
            Linker::Zig => {
                show("cargo-lambda or Zig is not installed. This uses its own: a download of 100 MB on first use");
                PythonTools::install(workspace, "build-tools", &workspace.file("infra/build-requirements.txt"))?
            }
        };
        Ok(Self { linker, programs: Some(tools.programs()) })
    }

    fn cargo_lambda(&self) -> Command {
        let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        forget_our_package(&mut cargo);
        if let Some(programs) = &self.programs {
            let path = env::var_os("PATH").unwrap_or_default();
            let path = [programs.clone()].into_iter().chain(env::split_paths(&path));
            // A folder of PATH has no colon, since PATH could not name it.
            cargo.env("PATH", env::join_paths(path).unwrap_or_default());
        }
        cargo.arg("lambda").stdin(Stdio::null()).kill_on_drop(true);
        cargo
    }

    /// Builds the functions for AWS and writes them to a release folder.
    async fn build(&self, workspace: &Workspace, path: &Path, arch: Architecture) -> anyhow::Result<ReleaseFolder> {
        let built = TempDir::new_in(workspace.local("")?)?;
        let mut build = self.cargo_lambda();
        build.args(["build", "--release", arch.build_option(), "--output-format", "zip"]);
        if self.linker == Linker::System {
            build.args(["--compiler", "cargo"]);
        }
        build.arg("--lambda-dir").arg(built.path()).arg("--manifest-path").arg(workspace.file("Cargo.toml"));
        let status = build.status().await.context("cannot start cargo")?;
        ensure!(status.success(), "the functions do not build. Fix: see the compiler's messages above");
        let folder = ReleaseFolder::write(workspace, path, arch, |function, zip| {
            let built = built.path().join(function).join("bootstrap.zip");
            let bytes = fs::read(&built).with_context(|| format!("cargo-lambda did not write {}", built.display()))?;
            release::replace(zip, &bytes)
        })?;
        let actual = binaries::architecture(folder.path())?;
        ensure!(
            actual == arch,
            "cargo-lambda built the functions for {actual} and not for {arch}. Fix: remove the setting that chooses another \
             target, such as CARGO_BUILD_TARGET"
        );
        Ok(folder)
    }
}

/// Returns whether a program exists and succeeds.
async fn succeeds(command: &mut Command) -> bool {
    command.stdin(Stdio::null()).output().await.is_ok_and(|output| output.status.success())
}

/// Builds the functions for AWS and writes them to a release folder. Installs what the build needs besides Rust.
///
/// # Errors
///
/// They do not build, cargo-lambda cannot be installed, or a file cannot be written.
pub(crate) async fn build(workspace: &Workspace, path: &Path, arch: Architecture) -> anyhow::Result<ReleaseFolder> {
    let linker = Linker::choose(arch)?;
    let cargo_lambda = CargoLambda::find(workspace, linker).await?;
    show("the first build takes five to ten minutes, a later one less");
    let folder = cargo_lambda.build(workspace, path, arch).await?;
    let needed = binaries::glibc_of_functions(folder.path())?;
    if linker == Linker::Zig || needed <= LAMBDA_GLIBC {
        return Ok(folder);
    }
    show(&format!(
        "the functions need GLIBC 2.{needed}, but Lambda has GLIBC 2.{LAMBDA_GLIBC}. They are built again with Zig"
    ));
    CargoLambda::find(workspace, Linker::Zig).await?.build(workspace, path, arch).await
}
