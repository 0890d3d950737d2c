#!/usr/bin/env python3
"""Builds the archives of a release with their checksums, or prints its notes. Needs cargo and cargo-lambda.

    infra/release.py target/archives        writes the archives and SHA256SUMS to target/archives
    infra/release.py --notes v0.1.0         prints the changelog's section, if the tag is that of this version
"""

import argparse
import hashlib
import re
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

ARCHITECTURES = ["arm64", "x86_64"]


def version():
    manifest = tomllib.loads((ROOT / "Cargo.toml").read_text(encoding="utf-8"))
    return manifest["workspace"]["package"]["version"]


def notes(tag):
    """Returns the section of the changelog about this version."""
    if tag != f"v{version()}":
        sys.exit(f"The tag {tag} is not v{version()}, the version in Cargo.toml. Nothing was released. "
                 "Fix: delete the tag, and set it at a commit with its version")
    section = re.compile(rf"^## {re.escape(version())}(?: .*)?\n(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)
    found = section.search((ROOT / "docs/changelog.md").read_text(encoding="utf-8"))
    if not found or not found[1].strip():
        sys.exit(f"docs/changelog.md has no text under the heading `## {version()}`. Nothing was released. "
                 "Fix: write it, and set the tag again")
    return found[1].strip()


def archive(folder, path):
    """Writes the same bytes for the same files: sorted, and with the time of no file."""
    with zipfile.ZipFile(path, "w") as zip_file:
        for file in sorted(file for file in folder.rglob("*") if file.is_file()):
            entry = zipfile.ZipInfo((folder.name / file.relative_to(folder)).as_posix())
            entry.external_attr = 0o100644 << 16
            zip_file.writestr(entry, file.read_bytes(), zipfile.ZIP_DEFLATED)


def build(output, architectures):
    output.mkdir(parents=True, exist_ok=True)
    sums = []
    with tempfile.TemporaryDirectory() as temporary:
        for architecture in architectures:
            folder = Path(temporary, f"tableau-fanout-{version()}-{architecture}")
            command = ["cargo", "infra", "package", folder, "--arch", architecture]
            subprocess.run(command, cwd=ROOT, check=True)
            path = output / f"{folder.name}.zip"
            archive(folder, path)
            sums.append(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n")
    # In the format of sha256sum.
    (output / "SHA256SUMS").write_text("".join(sums), encoding="utf-8")
    print("".join(sums), end="")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    purpose = parser.add_mutually_exclusive_group(required=True)
    purpose.add_argument("folder", nargs="?", type=Path, help="folder for the archives and SHA256SUMS")
    purpose.add_argument("--notes", metavar="TAG", help="print the release notes")
    parser.add_argument("--arch", choices=ARCHITECTURES, help="build for one architecture only")
    arguments = parser.parse_args()
    if arguments.notes:
        print(notes(arguments.notes))
    else:
        build(arguments.folder, [arguments.arch] if arguments.arch else ARCHITECTURES)


if __name__ == "__main__":
    main()
