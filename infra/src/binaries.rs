//! Checks that Lambda can run the zipped functions. Without the check, a wrong binary would fail at the first event.

use std::{
    env::consts::ARCH,
    fmt,
    fs::File,
    io::{BufReader, Read},
    path::{Path, PathBuf},
};

use anyhow::{Context, bail, ensure};
use clap::ValueEnum;
use memchr::memmem;
use zip::ZipArchive;

use crate::functions::FUNCTIONS;

/// File of the zip that Lambda starts.
const BOOTSTRAP: &str = "bootstrap";

/// Minor version of the GLIBC 2 of `provided.al2023` (Amazon Linux 2023).
const LAMBDA_GLIBC: u32 = 34;

/// Prefix of the symbol versions of GLIBC 2.
const GLIBC: &[u8] = b"GLIBC_2.";

/// A processor of Lambda.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Architecture {
    /// Graviton.
    #[value(name = "arm64")]
    Arm64,
    /// Intel and AMD.
    #[value(name = "x86_64")]
    X86_64,
}

impl Architecture {
    /// Returns the processor of this machine.
    ///
    /// # Errors
    ///
    /// Lambda has no such processor.
    pub fn of_this_machine() -> anyhow::Result<Self> {
        match ARCH {
            "aarch64" => Ok(Self::Arm64),
            "x86_64" => Ok(Self::X86_64),
            other => bail!("Lambda has no {other} processors"),
        }
    }

    /// Name in the template.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Arm64 => "arm64",
            Self::X86_64 => "x86_64",
        }
    }

    /// Option of `cargo lambda build`.
    pub fn build_option(self) -> &'static str {
        match self {
            Self::Arm64 => "--arm64",
            Self::X86_64 => "--x86-64",
        }
    }

    /// Reads the processor from an executable's ELF header.
    fn of_executable(bytes: &[u8]) -> Option<Self> {
        // Field `e_machine`. Both processors are little-endian.
        match (bytes.get(..4)?, bytes.get(18..20)?) {
            (b"\x7fELF", [62, 0]) => Some(Self::X86_64),
            (b"\x7fELF", [183, 0]) => Some(Self::Arm64),
            _ => None,
        }
    }
}

impl fmt::Display for Architecture {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// Returns the folder of the zips, which the template has relative to itself.
///
/// # Errors
///
/// The template has no folder above its own.
pub fn folder_of(template: &Path) -> anyhow::Result<PathBuf> {
    let folder = template.parent().and_then(Path::parent);
    Ok(folder.context("the template must be in a folder next to target/lambda")?.join("target/lambda"))
}

/// Checks that Lambda can run the zips in `folder`. Returns a line about each.
///
/// # Errors
///
/// One is missing, or Lambda cannot run it. The error names the fix.
pub fn check(folder: &Path, architecture: Architecture) -> anyhow::Result<Vec<String>> {
    FUNCTIONS.iter().map(|function| check_one(function, &folder.join(function), architecture)).collect()
}

fn check_one(function: &str, folder: &Path, wanted: Architecture) -> anyhow::Result<String> {
    let path = folder.join("bootstrap.zip");
    let file = File::open(&path)
        .with_context(|| format!("{} is missing. Fix: leave out --no-build to build it", path.display()))?;
    let size = file.metadata()?.len();
    let bytes = bootstrap(file).with_context(|| format!("{} is not a zipped function", path.display()))?;
    let Some(built) = Architecture::of_executable(&bytes) else {
        bail!("{} does not contain an executable for a processor of Lambda. Fix: leave out --no-build", path.display())
    };
    ensure!(
        built == wanted,
        "{function} was built for {built} and not for {wanted}. Fix: build it for {wanted}, or choose --arch {built}"
    );
    let needed = newest_glibc(&bytes).unwrap_or_default();
    ensure!(
        needed <= LAMBDA_GLIBC,
        "{function} needs GLIBC 2.{needed}, but Lambda has GLIBC 2.{LAMBDA_GLIBC}. Fix: run `pip install ziglang` and build \
         with cargo-lambda, or build on an older system"
    );
    let megabytes = f64::from(u32::try_from(size).unwrap_or(u32::MAX)) / 1_048_576.0;
    Ok(format!("{function}: {megabytes:.1} MB zipped, {wanted}, needs GLIBC 2.{needed}"))
}

/// Reads the executable from a zip.
fn bootstrap(zip: File) -> anyhow::Result<Vec<u8>> {
    let mut zip = ZipArchive::new(BufReader::new(zip))?;
    let mut bytes = Vec::new();
    zip.by_name(BOOTSTRAP).with_context(|| format!("it has no file {BOOTSTRAP}"))?.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Finds the newest GLIBC 2 that an executable needs. Returns its minor version.
fn newest_glibc(bytes: &[u8]) -> Option<u32> {
    let minors = memmem::find_iter(bytes, GLIBC).filter_map(|position| {
        let digits = bytes[position + GLIBC.len()..].iter().take_while(|byte| byte.is_ascii_digit()).copied();
        String::from_utf8(digits.collect()).ok()?.parse().ok()
    });
    minors.max()
}

#[cfg(test)]
mod tests {
    use std::{env, fs, io::Write};

    use tempfile::TempDir;
    use zip::{ZipWriter, write::SimpleFileOptions};

    use super::*;

    /// Creates a folder with the same file in the zip of each function.
    fn zipped(name: &str, bytes: &[u8]) -> anyhow::Result<TempDir> {
        let folder = TempDir::new()?;
        for function in FUNCTIONS {
            fs::create_dir(folder.path().join(function))?;
            let mut zip = ZipWriter::new(File::create(folder.path().join(function).join("bootstrap.zip"))?);
            zip.start_file(name, SimpleFileOptions::default().compression_level(Some(1)))?;
            zip.write_all(bytes)?;
            zip.finish()?;
        }
        Ok(folder)
    }

    fn rejection(folder: &TempDir, architecture: Architecture) -> String {
        format!("{:#}", check(folder.path(), architecture).expect_err("not to be uploaded"))
    }

    #[test]
    fn an_executable_of_this_machine_is_accepted() -> anyhow::Result<()> {
        let here = Architecture::of_this_machine()?;
        let folder = zipped(BOOTSTRAP, &fs::read(env::current_exe()?)?)?;
        match check(folder.path(), here) {
            Ok(lines) => assert!(lines[0].contains(&format!("{here}, needs GLIBC 2.")), "{lines:?}"),
            // This machine's system is newer than Lambda's.
            Err(error) => assert!(error.to_string().contains("needs GLIBC 2."), "{error:#}"),
        }
        Ok(())
    }

    #[test]
    fn glibc_versions_are_compared_as_numbers() {
        let names = b"GLIBC_2.4\0GLIBC_2.34\0GLIBC_2.2.5\0GLIBC_PRIVATE\0GCC_4.2.0\0GLIBC_2.";
        assert_eq!(newest_glibc(names), Some(34));
        assert_eq!(newest_glibc(b"static"), None);
    }

    #[test]
    fn a_binary_that_lambda_cannot_run_is_rejected_with_the_reason() -> anyhow::Result<()> {
        let x86 = [b"\x7fELF".as_slice(), &[0; 14], &[62, 0], b"GLIBC_2.17\0"].concat();
        let too_new = [&x86[..], b"GLIBC_2.39\0"].concat();
        let riscv = [b"\x7fELF".as_slice(), &[0; 14], &[243, 0]].concat();
        for (name, bytes, wanted, expected) in [
            (BOOTSTRAP, x86.as_slice(), Architecture::Arm64, "receiver was built for x86_64 and not for arm64"),
            (BOOTSTRAP, &too_new, Architecture::X86_64, "but Lambda has GLIBC 2.34. Fix: run `pip install ziglang`"),
            (BOOTSTRAP, &riscv, Architecture::X86_64, "does not contain an executable for a processor of Lambda"),
            (BOOTSTRAP, b"#!/bin/sh", Architecture::X86_64, "does not contain an executable"),
            ("receiver", &x86, Architecture::X86_64, "it has no file bootstrap"),
        ] {
            let error = rejection(&zipped(name, bytes)?, wanted);
            assert!(error.contains(expected), "{error}");
        }
        assert!(rejection(&TempDir::new()?, Architecture::Arm64).contains("is missing. Fix: leave out --no-build"));
        Ok(())
    }
}
