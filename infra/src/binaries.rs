//! Checks that Lambda can run the zipped functions. Without the check, a wrong binary would fail at the first event.

use std::{
    env::{self, consts::ARCH},
    fmt,
    fs::{self, File},
    io::{BufReader, Read},
    path::{Path, PathBuf},
};

use anyhow::{Context, bail, ensure};
use clap::ValueEnum;
use memchr::memmem;
use zip::ZipArchive;

/// Names of the functions' binaries.
pub const FUNCTIONS: [&str; 3] =
    ["tableau-webhook-receiver", "tableau-webhook-reconciler", "tableau-webhook-forwarder"];

/// Start of an executable that names its processor.
const ELF_HEADER_BYTES: u64 = 20;

/// File of the zip that Lambda starts.
const BOOTSTRAP: &str = "bootstrap";

/// Minor version of the GLIBC 2 of `provided.al2023` (Amazon Linux 2023).
pub(crate) const LAMBDA_GLIBC: u32 = 34;

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

/// Effect and fix if the zips in a folder cannot be used.
const NOTHING_DEPLOYED: &str =
    "Nothing was deployed. Fix: unzip the archive of the release again, or build the functions again";

/// Path of a function's zip in a release folder.
pub fn zip_of(folder: &Path, function: &str) -> PathBuf {
    folder.join(format!("{function}.zip"))
}

/// Reads the architecture of the functions in a release folder.
///
/// # Errors
///
/// A zip is missing or does not contain a function, or they were built for different architectures.
pub fn architecture(folder: &Path) -> anyhow::Result<Architecture> {
    let [first, others @ ..] = FUNCTIONS;
    let architecture = architecture_of(&zip_of(folder, first))?;
    for function in others {
        let other = architecture_of(&zip_of(folder, function))?;
        ensure!(
            other == architecture,
            "{first} in {} was built for {architecture}, but {function} for {other}. A stack has one architecture. \
             {NOTHING_DEPLOYED}",
            folder.display()
        );
    }
    Ok(architecture)
}

fn architecture_of(zip: &Path) -> anyhow::Result<Architecture> {
    let header = bootstrap(zip, ELF_HEADER_BYTES)?;
    Architecture::of_executable(&header).with_context(|| {
        format!("{} does not contain an executable for a processor of Lambda. {NOTHING_DEPLOYED}", zip.display())
    })
}

/// Checks that Lambda can run the functions in a release folder. Returns a line about each.
///
/// # Errors
///
/// Lambda cannot run one of them. The error names the fix.
pub fn check(folder: &Path) -> anyhow::Result<Vec<String>> {
    let architecture = architecture(folder)?;
    FUNCTIONS.iter().map(|function| check_one(function, &zip_of(folder, function), architecture)).collect()
}

fn check_one(function: &str, zip: &Path, architecture: Architecture) -> anyhow::Result<String> {
    let needed = glibc_of(zip)?;
    ensure!(
        needed <= LAMBDA_GLIBC,
        "{function} needs GLIBC 2.{needed}, but Lambda has GLIBC 2.{LAMBDA_GLIBC}. Nothing was deployed. Fix: leave out --zips, \
         or build the folder again with `cargo infra package`"
    );
    let size = zip.metadata()?.len();
    let megabytes = f64::from(u32::try_from(size).unwrap_or(u32::MAX)) / 1_048_576.0;
    Ok(format!("{function}: {megabytes:.1} MB zipped, {architecture}, needs GLIBC 2.{needed}"))
}

/// Returns the minor version of the newest GLIBC 2 that a function in a release folder needs, 0 for none.
///
/// # Errors
///
/// A zip cannot be read.
pub(crate) fn glibc_of_functions(folder: &Path) -> anyhow::Result<u32> {
    let mut needed = FUNCTIONS.iter().map(|function| glibc_of(&zip_of(folder, function)));
    needed.try_fold(0, |newest, needed| Ok(newest.max(needed?)))
}

/// Returns the minor version of the newest GLIBC 2 that this program needs, 0 for none.
///
/// # Errors
///
/// The program cannot be read.
pub(crate) fn glibc_of_this_program() -> anyhow::Result<u32> {
    Ok(newest_glibc(&fs::read(env::current_exe()?)?).unwrap_or_default())
}

fn glibc_of(zip: &Path) -> anyhow::Result<u32> {
    Ok(newest_glibc(&bootstrap(zip, u64::MAX)?).unwrap_or_default())
}

/// Reads the first bytes of the executable in a zip.
fn bootstrap(zip: &Path, limit: u64) -> anyhow::Result<Vec<u8>> {
    let file = File::open(zip).with_context(|| format!("cannot open {}. {NOTHING_DEPLOYED}", zip.display()))?;
    let read = || {
        let mut zip = ZipArchive::new(BufReader::new(file))?;
        let mut bytes = Vec::new();
        let bootstrap = zip.by_name(BOOTSTRAP).with_context(|| format!("it has no file {BOOTSTRAP}"))?;
        bootstrap.take(limit).read_to_end(&mut bytes)?;
        anyhow::Ok(bytes)
    };
    read().with_context(|| format!("{} is not a zipped function. {NOTHING_DEPLOYED}", zip.display()))
}

/// Finds the newest GLIBC 2 that an executable needs. Returns its minor version.
fn newest_glibc(bytes: &[u8]) -> Option<u32> {
    let minors = memmem::find_iter(bytes, GLIBC).filter_map(|position| {
        let rest = &bytes[position + GLIBC.len()..];
        let digits: Vec<_> = rest.iter().take_while(|byte| byte.is_ascii_digit()).copied().collect();
        // The name of a symbol's version ends with a zero byte. Other texts may have the same start.
        rest.get(digits.len()).filter(|byte| [0, b'.'].contains(byte))?;
        String::from_utf8(digits).ok()?.parse().ok()
    });
    minors.max()
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use tempfile::TempDir;
    use zip::{ZipWriter, write::SimpleFileOptions};

    use super::*;

    /// Creates a folder with the same file in the zip of each function.
    fn zipped(name: &str, bytes: &[u8]) -> anyhow::Result<TempDir> {
        let folder = TempDir::new()?;
        for function in FUNCTIONS {
            let mut zip = ZipWriter::new(File::create(zip_of(folder.path(), function))?);
            zip.start_file(name, SimpleFileOptions::default().compression_level(Some(1)))?;
            zip.write_all(bytes)?;
            zip.finish()?;
        }
        Ok(folder)
    }

    #[test]
    fn an_executable_of_this_machine_is_accepted() -> anyhow::Result<()> {
        let here = Architecture::of_this_machine()?;
        let folder = zipped(BOOTSTRAP, &fs::read(env::current_exe()?)?)?;
        match check(folder.path()) {
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
        for (name, bytes, expected) in [
            (BOOTSTRAP, too_new.as_slice(), "but Lambda has GLIBC 2.34. Nothing was deployed. Fix: leave out --zips"),
            (
                BOOTSTRAP,
                &riscv,
                "does not contain an executable for a processor of Lambda. Nothing was deployed. Fix: ",
            ),
            (BOOTSTRAP, b"#!/bin/sh", "does not contain an executable"),
            ("receiver", &x86, "it has no file bootstrap"),
        ] {
            let error = check(zipped(name, bytes)?.path()).expect_err("not to be uploaded");
            assert!(format!("{error:#}").contains(expected), "{error:#}");
        }
        assert_eq!(architecture(zipped(BOOTSTRAP, &too_new)?.path())?, Architecture::X86_64);
        Ok(())
    }
}
