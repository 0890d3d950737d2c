"""Finds a Chromium for the browser test: one on this machine, else Debian's, else one that a package of npm carries."""

import os
import platform
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent

sys.path.insert(0, str(HERE.parent))
from npm import install, node

NAMES = ["chromium", "chromium-browser", "google-chrome"]

# Installed Chromium may be a wrapper that asks for a package manager, so each is started once.
START_TIMEOUT_SECONDS = 60

INSTALL_TIMEOUT_SECONDS = 600

# The maker unpacks the libraries of Amazon Linux only where this variable says so. Other systems may lack them as well.
UNPACK_LIBRARIES = {"AWS_EXECUTION_ENV": "AWS_Lambda_nodejs24.x"}

UNPACK = "require('@sparticuz/chromium').executablePath().then(path => process.stdout.write(path))"

FONTS = """<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig><dir>/usr/share/fonts</dir><dir>{folder}/fonts</dir><cachedir>{folder}/fonts-cache</cachedir></fontconfig>
"""


@dataclass
class Browser:
    """A Chromium that starts."""

    path: str
    version: str
    origin: str
    environment: dict


def run(command, environment, timeout):
    """Runs a command, and returns the finished process, also if it failed."""
    return subprocess.run(command, env=environment, check=False, capture_output=True, text=True, timeout=timeout)


def started(path, origin, environment):
    """Returns the browser if it starts and reports its version."""
    try:
        command = [path, "--version", "--no-sandbox"]
        done = run(command, environment, START_TIMEOUT_SECONDS)
    except (OSError, subprocess.TimeoutExpired) as error:
        print(f"{path} does not start: {error}", flush=True)
        return None
    if done.returncode != 0:
        print(f"{path} does not start: {(done.stderr or done.stdout).strip()}", flush=True)
        return None
    return Browser(str(path), done.stdout.strip(), origin, environment)


def of_machine(origin="on this machine"):
    """Finds an installed browser."""
    paths = [path for path in map(shutil.which, NAMES) if path]
    return next(filter(None, (started(path, origin, dict(os.environ)) for path in paths)), None)


def of_debian():
    """Installs Debian's package, if this is Debian and the user may."""
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        return None
    print("No Chromium is installed. apt-get installs it.", flush=True)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in [["update"], ["install", "--yes", "--no-install-recommends", "chromium"]]:
        done = run(["apt-get", "--quiet", *command], environment, INSTALL_TIMEOUT_SECONDS)
        if done.returncode != 0:
            print(f"apt-get {command[0]} failed: {done.stderr.strip()}", flush=True)
            return None
    return of_machine("installed by apt-get")


def of_npm(folder):
    """Installs the package of npm, which has a Chromium for x86-64 with the libraries and a font that it needs."""
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        return None
    print("No Chromium is installed. npm installs the package @sparticuz/chromium.", flush=True)
    try:
        packages = install(HERE / "chromium", folder)
    except subprocess.CalledProcessError as error:
        print(f"npm failed: {error}", flush=True)
        return None
    unpacked = folder / "unpacked"
    unpacked.mkdir(exist_ok=True)
    # The package unpacks into the temporary folder, and not again if the browser is there.
    environment = {**os.environ, **UNPACK_LIBRARIES, "TMPDIR": str(unpacked), "NODE_PATH": str(packages)}
    path = node("-e", UNPACK, env=environment, stdout=subprocess.PIPE, text=True).stdout
    fonts = unpacked / "fonts.conf"
    fonts.write_text(FONTS.format(folder=unpacked), encoding="utf-8")
    libraries = [str(unpacked / "al2023/lib"), os.environ.get("LD_LIBRARY_PATH")]
    environment = {**os.environ, "LD_LIBRARY_PATH": ":".join(filter(None, libraries)), "FONTCONFIG_FILE": str(fonts)}
    return started(path, "of the npm package @sparticuz/chromium", environment)


def find_browser(folder):
    """Returns a browser, and reports which. `folder` is for what has to be installed. Returns None if there is none."""
    browser = of_machine() or of_debian() or of_npm(folder)
    if browser:
        print(f"Browser: {browser.version} {browser.origin}, {browser.path}", flush=True)
    return browser
