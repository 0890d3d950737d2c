//! Zipped functions as Lambda will find them, looked at before they are uploaded.

use std::{
    env::consts::ARCH,
    fmt,
    fs::{self, File},
    io::{BufReader, Read},
    path::{Path, PathBuf},
};

use anyhow::{Context, bail, ensure};
use clap::ValueEnum;
use object::{
    Endianness,
    elf::{EM_AARCH64, EM_X86_64, FileHeader64, Machine},
    read::elf::{FileHeader, SectionHeader},
};
use zip::ZipArchive;

use crate::functions::FUNCTIONS;

/// The most bytes of a zip that Lambda takes.
const MOST_BYTES: u64 = 50 * 1024 * 1024;

/// What Lambda starts.
const BOOTSTRAP: &str = "bootstrap";

/// The newest GLIBC that `provided.al2023` has.
const NEWEST_GLIBC: GlibcVersion = GlibcVersion(2, 34);

/// What the names of GLIBC's versions begin with.
const GLIBC: &str = "GLIBC_";

/// A version of GLIBC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct GlibcVersion(u32, u32);

impl GlibcVersion {
    /// Reads a name such as `GLIBC_2.2.5`, `None` for any other.
    fn parse(name: &str) -> Option<Self> {
        let mut numbers = name.strip_prefix(GLIBC)?.split('.').map(|number| number.parse().ok());
        Some(Self(numbers.next()??, numbers.next()??))
    }
}

impl fmt::Display for GlibcVersion {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "GLIBC {}.{}", self.0, self.1)
    }
}

/// A processor that Lambda has.
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
    /// This machine's.
    ///
    /// # Errors
    ///
    /// Lambda has no such processors.
    pub fn of_this_machine() -> anyhow::Result<Self> {
        match ARCH {
            "aarch64" => Ok(Self::Arm64),
            "x86_64" => Ok(Self::X86_64),
            other => bail!("Lambda has no {other} processors"),
        }
    }

    /// As the template names it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Arm64 => "arm64",
            Self::X86_64 => "x86_64",
        }
    }

    /// As cargo-lambda is asked for it.
    pub fn build_option(self) -> &'static str {
        match self {
            Self::Arm64 => "--arm64",
            Self::X86_64 => "--x86-64",
        }
    }

    fn of_machine(machine: Machine) -> Option<Self> {
        match machine {
            EM_AARCH64 => Some(Self::Arm64),
            EM_X86_64 => Some(Self::X86_64),
            _ => None,
        }
    }
}

impl fmt::Display for Architecture {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// What there is to know of an executable.
#[derive(Debug, PartialEq, Eq)]
struct Executable {
    architecture: Option<Architecture>,
    /// The newest that it needs, none if it brings its own library.
    glibc: Option<GlibcVersion>,
}

impl Executable {
    fn read(bytes: &[u8]) -> anyhow::Result<Self> {
        let header = FileHeader64::<Endianness>::parse(bytes).context("it is no 64-bit ELF executable")?;
        let endian = header.endian()?;
        let sections = header.sections(endian, bytes)?;
        let mut glibc = None;
        for section in sections.iter() {
            let Some((mut libraries, strings)) = section.gnu_verneed(endian, bytes)? else { continue };
            let strings = sections.strings(endian, bytes, strings)?;
            while let Some((_, mut versions)) = libraries.next()? {
                while let Some(version) = versions.next()? {
                    let name = version.name(endian, strings)?;
                    glibc = glibc.max(str::from_utf8(name).ok().and_then(GlibcVersion::parse));
                }
            }
        }
        Ok(Self { architecture: Architecture::of_machine(header.e_machine(endian)), glibc })
    }
}

/// Where the zips are that a template names relative to itself.
///
/// # Errors
///
/// The template has no folder above its own.
pub fn folder_of(template: &Path) -> anyhow::Result<PathBuf> {
    let folder = template.parent().and_then(Path::parent);
    Ok(folder.context("the template must be in a folder next to target/lambda")?.join("target/lambda"))
}

/// Makes sure that the zips in `folder` are what Lambda can run, and tells of each in one line.
///
/// # Errors
///
/// One is missing, too large, or cannot run there. The error says what to do.
pub fn check(folder: &Path, architecture: Architecture) -> anyhow::Result<Vec<String>> {
    FUNCTIONS.iter().map(|function| check_one(function, &folder.join(function), architecture)).collect()
}

fn check_one(function: &str, folder: &Path, wanted: Architecture) -> anyhow::Result<String> {
    let path = folder.join("bootstrap.zip");
    let size = fs::metadata(&path)
        .with_context(|| format!("{} is missing: leave --no-build out to build it", path.display()))?
        .len();
    let megabytes = |bytes: u64| format!("{:.1} MB", f64::from(u32::try_from(bytes).unwrap_or(u32::MAX)) / 1_048_576.0);
    ensure!(
        size <= MOST_BYTES,
        "{} has {}, and Lambda takes {} at most: was it built with --release?",
        path.display(),
        megabytes(size),
        megabytes(MOST_BYTES)
    );
    let bytes = bootstrap(&path).with_context(|| format!("{} is no zipped function", path.display()))?;
    let executable =
        Executable::read(&bytes).with_context(|| format!("what {} holds cannot be read", path.display()))?;
    let Executable { architecture, glibc } = executable;
    if architecture != Some(wanted) {
        let built = architecture.map_or("another processor", Architecture::as_str);
        bail!("{function} was built for {built} and not for {wanted}: build it for {wanted}, or choose another --arch");
    }
    if let Some(needed) = glibc.filter(|needed| *needed > NEWEST_GLIBC) {
        bail!(
            "{function} needs {needed}, and Lambda has {NEWEST_GLIBC}: build it with cargo-lambda and Zig (`pip install \
             ziglang`), or on an older system"
        );
    }
    let needs = glibc.map_or("no GLIBC".to_owned(), |glibc| glibc.to_string());
    let (zipped, unzipped) = (megabytes(size), megabytes(bytes.len().try_into().unwrap_or(u64::MAX)));
    Ok(format!("{function}: {zipped} zipped, {unzipped} unzipped, {wanted}, needs {needs}"))
}

/// The executable that a zip holds.
fn bootstrap(zip: &Path) -> anyhow::Result<Vec<u8>> {
    let mut zip = ZipArchive::new(BufReader::new(File::open(zip)?))?;
    let mut file = zip.by_name(BOOTSTRAP).with_context(|| format!("it has no file {BOOTSTRAP}"))?;
    ensure!(
        file.unix_mode().is_some_and(|mode| mode & 0o111 != 0),
        "its file {BOOTSTRAP} may not be executed: zip it with its permissions"
    );
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::{env, io::Write};

    use tempfile::TempDir;
    use zip::{ZipWriter, write::SimpleFileOptions};

    use super::*;

    /// A folder with the same file in the zip of each function.
    fn zipped(name: &str, permissions: u32, bytes: &[u8]) -> anyhow::Result<TempDir> {
        let folder = TempDir::new()?;
        for function in FUNCTIONS {
            fs::create_dir(folder.path().join(function))?;
            let mut zip = ZipWriter::new(File::create(folder.path().join(function).join("bootstrap.zip"))?);
            zip.start_file(
                name,
                SimpleFileOptions::default().unix_permissions(permissions).compression_level(Some(1)),
            )?;
            zip.write_all(bytes)?;
            zip.finish()?;
        }
        Ok(folder)
    }

    fn refusal(folder: &TempDir, architecture: Architecture) -> String {
        format!("{:#}", check(folder.path(), architecture).expect_err("not to be uploaded"))
    }

    #[test]
    fn what_an_executable_needs_is_read_from_it() -> anyhow::Result<()> {
        let bytes = fs::read(env::current_exe()?)?;
        let Executable { architecture, glibc } = Executable::read(&bytes)?;
        assert_eq!(architecture.map(Architecture::as_str), Some(ARCH.replace("aarch64", "arm64").as_str()));
        assert!(glibc >= Some(GlibcVersion(2, 17)), "{glibc:?}");
        Ok(())
    }

    #[test]
    fn the_newest_glibc_counts_by_its_numbers() {
        let newest = ["GLIBC_2.4", "GLIBC_2.34", "GLIBC_2.2.5", "GLIBC_PRIVATE", "GCC_4.2.0"];
        assert_eq!(newest.into_iter().filter_map(GlibcVersion::parse).max(), Some(GlibcVersion(2, 34)));
    }

    #[test]
    fn what_lambda_cannot_run_is_refused_with_the_reason() -> anyhow::Result<()> {
        let (here, other) = match ARCH {
            "x86_64" => (Architecture::X86_64, Architecture::Arm64),
            _ => (Architecture::Arm64, Architecture::X86_64),
        };
        let executable = fs::read(env::current_exe()?)?;
        let folder = zipped("bootstrap", 0o755, &executable)?;
        let expected = format!("tableau-webhook-receiver was built for {here} and not for {other}");
        assert!(refusal(&folder, other).contains(&expected), "{}", refusal(&folder, other));
        for (name, permissions, bytes, expected) in [
            ("receiver", 0o755, executable.as_slice(), "it has no file bootstrap"),
            ("bootstrap", 0o644, executable.as_slice(), "its file bootstrap may not be executed"),
            ("bootstrap", 0o755, b"#!/bin/sh".as_slice(), "it is no 64-bit ELF executable"),
        ] {
            let said = refusal(&zipped(name, permissions, bytes)?, here);
            assert!(said.contains(expected), "{said}");
        }
        assert!(refusal(&TempDir::new()?, here).contains("is missing: leave --no-build out to build it"));
        Ok(())
    }

    #[test]
    fn a_newer_glibc_than_lambdas_is_refused() -> anyhow::Result<()> {
        let (mut executable, here) = (fs::read(env::current_exe()?)?, ARCH.replace("aarch64", "arm64"));
        // The name of a version that every executable needs, made one that Lambda has not.
        let old = if here == "x86_64" { b"GLIBC_2.2.5\0".as_slice() } else { b"GLIBC_2.17\0".as_slice() };
        let new = if here == "x86_64" { b"GLIBC_2.399\0".as_slice() } else { b"GLIBC_2.99\0".as_slice() };
        let position = executable.windows(old.len()).position(|bytes| bytes == old).context("no such version")?;
        executable[position..position + old.len()].copy_from_slice(new);
        let architecture = Architecture::from_str(&here, false).map_err(anyhow::Error::msg)?;
        let said = refusal(&zipped("bootstrap", 0o755, &executable)?, architecture);
        assert!(said.contains("and Lambda has GLIBC 2.34: build it with cargo-lambda and Zig"), "{said}");
        Ok(())
    }

    #[test]
    fn what_is_larger_than_lambda_takes_is_refused() -> anyhow::Result<()> {
        let folder = zipped("bootstrap", 0o755, b"")?;
        let zip = folder.path().join(FUNCTIONS[1]).join("bootstrap.zip");
        File::options().write(true).open(&zip)?.set_len(MOST_BYTES + 1)?;
        let said = format!(
            "{:#}",
            check_one(FUNCTIONS[1], &folder.path().join(FUNCTIONS[1]), Architecture::Arm64).expect_err("too large")
        );
        assert!(said.contains("has 50.0 MB, and Lambda takes 50.0 MB at most"), "{said}");
        Ok(())
    }
}
