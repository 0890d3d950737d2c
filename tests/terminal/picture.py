#!/usr/bin/env python3
"""Runs a command in a terminal and writes a picture of the screen: what a user sees, with colours.

    tests/terminal/picture.py docs/test.svg cargo infra test
    tests/terminal/picture.py --all target/terminal

With --all it starts a local stack, and writes a picture of each command of `cargo infra`, of its questions and of its
errors. Needs the packages of tests/terminal/requirements.txt. The exit status is that of the command.
"""

import argparse
import json
import os
import pty
import re
import select
import shlex
import shutil
import struct
import subprocess
import sys
import termios
import time
from fcntl import ioctl
from pathlib import Path

import pyte
from rich.console import Console
from rich.style import Style
from rich.text import Text

COLUMNS, LINES = 100, 400

# The longest time without output. A release build prints its packages.
SILENCE_TIMEOUT_SECONDS = 15 * 60

# Time between a question and its answer, in which a command switches the echo off.
TYPING_SECONDS = 0.3

ENTER, CTRL_C = "\n", "\x03"


class Terminal:
    """A command in a terminal of its own."""

    def __init__(self, command, environment=None):
        self.command, self.screen, self.output = command, pyte.Screen(COLUMNS, LINES), ""
        self.stream = pyte.ByteStream(self.screen)
        self.process, self.terminal = pty.fork()
        if self.process == 0:
            # Without the lines of Cargo about itself.
            environment = {**(environment or os.environ), "TERM": "xterm-256color", "CARGO_TERM_QUIET": "true"}
            os.execvpe("bash", ["bash", "-c", command], environment)
        ioctl(self.terminal, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))

    def read(self):
        """Reads some output. Returns whether there was any before the end."""
        ready, _, _ = select.select([self.terminal], [], [], SILENCE_TIMEOUT_SECONDS)
        if not ready:
            raise SystemExit(f"{self.command}: no output within {SILENCE_TIMEOUT_SECONDS} seconds")
        try:
            output = os.read(self.terminal, 65536)
        except OSError:
            # Linux reports the end of the process in this way.
            return False
        self.stream.feed(output)
        self.output += output.decode(errors="replace")
        return bool(output)

    def until(self, *texts):
        """Waits until each of the texts is there."""
        while not all(text in self.output for text in texts):
            if not self.read():
                raise SystemExit(f"{self.command}: {' or '.join(texts)} is missing in {self.output}")

    def answer(self, question, answer):
        """Waits for a question, and types the answer."""
        self.until(question)
        self.output = self.output.split(question, 1)[1]
        time.sleep(TYPING_SECONDS)
        self.type(answer)

    def type(self, keys):
        os.write(self.terminal, keys.encode())

    def end(self):
        """Waits for the end, and returns the exit status."""
        while self.read():
            pass
        return os.waitstatus_to_exitcode(os.waitpid(self.process, 0)[1])

    def write(self, picture):
        """Writes the picture of the screen."""
        with open(os.devnull, "w", encoding="utf-8") as nowhere:
            console = Console(record=True, width=COLUMNS, file=nowhere, force_terminal=True, color_system="truecolor")
            console.print(Text(f"$ {self.command}", Style(bold=True)), no_wrap=True, crop=False)
            for line in lines(self.screen):
                console.print(line, no_wrap=True, crop=False)
            # The same identifier at each run, so that a picture changes only with its content.
            svg = console.export_svg(title="", unique_id="terminal")
        # The reader's own font serves: a picture in a page loads nothing.
        svg = re.sub(r"\s*@font-face \{.*?\}", "", svg, flags=re.DOTALL).replace("Fira Code", "ui-monospace")
        picture.write_text(svg, encoding="utf-8")


def colour(name):
    """Names a colour as rich does. Pyte names the basic ones, and has the others in hexadecimal."""
    names = {"default": None, "brown": "yellow", "brightbrown": "bright_yellow"}
    if name in names:
        return names[name]
    if name.startswith("bright"):
        return f"bright_{name.removeprefix('bright')}"
    return f"#{name}" if len(name) == 6 and all(digit in "0123456789abcdef" for digit in name) else name


def lines(screen):
    """Returns the lines of a screen with their styles, without the empty ones at its end."""
    found = []
    for row in range(LINES):
        line = Text()
        for column in range(COLUMNS):
            cell = screen.buffer[row][column]
            style = Style(color=colour(cell.fg), bold=cell.bold, italic=cell.italics, underline=cell.underscore)
            line.append(cell.data, style)
        line.rstrip()
        found.append(line)
    while found and not found[-1].plain:
        found.pop()
    return found


class Album:
    """Pictures of all commands, at one local stack."""

    def __init__(self, folder):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        self.folder, self.count, self.environment = folder, 0, dict(os.environ)

    def picture(self, name, command, answers=()):
        """Runs a command in a terminal, types the answers to its questions, and writes a picture."""
        terminal = Terminal(command, self.environment)
        for question, answer in answers:
            terminal.answer(question, answer)
        status = terminal.end()
        self.write(name, terminal)
        print(f"{name}: exit status {status}", flush=True)

    def write(self, name, terminal):
        self.count += 1
        terminal.write(self.folder / f"{self.count:02}-{name}.svg")

    def run(self, command):
        """Runs a command without a picture, and returns its output."""
        command = ["bash", "-e", "-c", command]
        return subprocess.run(command, env=self.environment, check=True, stdout=subprocess.PIPE, text=True).stdout

    def help(self):
        """Pictures of the helps."""
        self.picture("help", "cargo infra help")
        for name in re.findall(r"^  ([a-z-]+)  ", self.run("cargo infra help 2>/dev/null"), re.MULTILINE):
            if name != "help":
                self.picture(f"help-{name}", f"cargo infra {name} --help")

    def local(self):
        """Pictures of the show, and of a stack that stays up."""
        self.picture("local-once", "cargo infra local --once")
        files = "--files target/terminal-files"
        window = Terminal(f"cargo infra local {files}", self.environment)
        window.until("Each as it arrives")
        for action in ["publish", "fail-refresh"]:
            self.run(f"cargo infra simulate {action} {files}")
        window.until("why the workbook refresh failed")
        connect, window.output = "source target/terminal-files/env", ""
        self.run(f"cargo infra simulate succeed-refresh {files}; {connect}; cargo infra reconcile apply")
        window.until("workbook refresh works again", "RefreshFailureResolved")
        window.type(CTRL_C)
        window.end()
        self.write("local", window)

    def stack(self):
        """Pictures of the commands at an empty local cloud, from the deployment to the removal."""
        cloud = Terminal("cargo infra local --empty", self.environment)
        cloud.until("cargo infra test")
        dump = f"source target/local/env; {shlex.quote(sys.executable)} -c 'import json, os; print(json.dumps(dict(os.environ)))'"
        self.environment = json.loads(self.run(dump))
        site = json.loads(Path("target/local/site.json").read_text(encoding="utf-8"))
        self.deploying()
        self.sites(site)
        self.watching()
        self.repairing()
        self.many_sites(site)
        self.removing()
        cloud.type(CTRL_C)
        cloud.end()
        self.write("local-empty", cloud)

    def deploying(self):
        self.picture("status-no-stack", "cargo infra status")
        # The functions of the development build.
        deploy = "cargo infra deploy --zips target/local/development"
        self.picture("deploy", f"{deploy} --parameter AlertEmail=you@example.com")
        self.picture("status-no-site", "cargo infra status")
        self.picture("update", deploy)

    def sites(self, site):
        answers = [
            ("/marketing: ", ENTER),
            ("/marketing: ", f"{site['server']}/#/site/marketing/home{ENTER}"),
            ("access token: ", f"{site['token_name']}{ENTER}"),
            ("not shown): ", f"wrong{ENTER}"),
            ("not known): ", ENTER),
            ("]: ", ENTER),
            ("]: ", ENTER),
            ("typed one): ", f"{site['token_secret']}{ENTER}"),
        ]
        self.picture("add-site-interrupted", "cargo infra add-site marketing", [*answers[:2], ("access token: ", CTRL_C)])
        self.picture("add-site", "cargo infra add-site marketing", answers)
        self.picture("add-site-again", "cargo infra add-site marketing")
        self.picture("sites", "cargo infra sites")
        self.picture("test-no-subscriber", "cargo infra test")

    def watching(self):
        topic = "Stacks[0].Outputs[?OutputKey=='EventsTopicArn'].OutputValue"
        describe = f'aws cloudformation describe-stacks --stack-name tableau-fanout --output text --query "{topic}"'
        deploy = "aws cloudformation deploy --template-file infra/examples/sqs-subscriber.yaml --stack-name tableau-failures"
        self.run(f"{deploy} --parameter-overrides EventsTopicArn=$({describe})")
        self.picture("test", "cargo infra test")
        self.picture("test-verbose", "cargo infra test --verbose")
        self.picture("simulate", "cargo infra simulate fail-refresh")
        self.picture("reconcile-apply-explained", "cargo infra reconcile apply")
        self.picture("simulate-works-again", "cargo infra simulate succeed-refresh")
        self.picture("reconcile-apply-resolved", "cargo infra reconcile apply")
        self.picture("status", "cargo infra status")
        self.picture("status-json", "cargo infra status --json")
        self.picture("status-verbose", "cargo infra status --verbose")

    def repairing(self):
        for change in ["disable --event ViewDeleted", "delete --event UserDeleted", "rename --event LabelUpdated --name Labels"]:
            self.run(f"cargo infra simulate {change}")
        self.picture("simulate-publish-lost", "cargo infra simulate publish --event UserDeleted")
        for action in ["plan", "apply"]:
            self.picture(f"reconcile-{action}", f"cargo infra reconcile {action}")
        self.picture("reconcile-json", "cargo infra reconcile plan --json")
        self.picture("reconcile-rotate-interrupted", "cargo infra reconcile rotate", [("Run the reconciler", CTRL_C)])
        self.picture("reconcile-rotate", "cargo infra reconcile rotate")
        self.run("cargo infra simulate expire-token")
        self.picture("reconcile-failed", "cargo infra reconcile apply")
        self.picture("test-failed", "cargo infra test")
        self.picture("status-problem", "cargo infra status")
        self.picture("simulate-new-token", "cargo infra simulate new-token")
        self.picture("add-site-overwrite", "cargo infra add-site marketing --overwrite < target/local/site.json")
        self.run("cargo infra simulate break-topic; cargo infra simulate publish --name Lost; cargo infra simulate restore-topic")
        self.picture("replay-dry-run", "cargo infra replay 1 --dry-run")
        self.picture("replay", "cargo infra replay 1")
        self.picture("url", "cargo infra url marketing WorkbookCreated")
        self.picture("url-undeclared", "cargo infra url nosuch WorkbookCreated")

    def many_sites(self, site):
        simulator = self.environment["TABLEAU_SIMULATOR"]
        rows = ["name,server,site,token_name,token_secret,events"]
        for name in ["finance", "sales", "people-and-culture"]:
            body = json.dumps({"site": name, "token_name": f"fanout-{name}", "token_secret": "s"})
            self.run(f"curl --silent --fail --header content-type:application/json --data {shlex.quote(body)} {simulator}/_simulator/sites")
            secret = "wrong" if name == "sales" else "s"
            rows.append(f"{name},{simulator}/#/site/{name}/home,,fanout-{name},{secret},")
        sites = self.folder / "sites.csv"
        sites.write_text("\n".join([*rows, "Bad Name,,,,,"]) + "\n", encoding="utf-8")
        self.picture("add-sites", f"cargo infra add-sites {sites}")
        self.picture("sites-several", "cargo infra sites")
        self.picture("test-several", "cargo infra test")
        self.picture("remove-site-undeclared", "cargo infra remove-site nosuch")
        self.picture("remove-site", "cargo infra remove-site finance")

    def removing(self):
        question = "to continue: "
        self.picture("destroy-interrupted", "cargo infra destroy", [(question, CTRL_C)])
        self.picture("destroy-refused", "cargo infra destroy", [(question, f"no{ENTER}")])
        self.picture("destroy", "cargo infra destroy --delete-parameters", [(question, f"tableau-fanout{ENTER}")])

    def errors(self):
        for name, command in [
            ("usage", "cargo infra statsu"),
            ("usage-reconcile-test", "cargo infra reconcile test"),
            ("usage-deploy", "cargo infra deploy --parameter Events"),
            ("no-region", "env -u AWS_ENDPOINT_URL -u AWS_REGION -u AWS_DEFAULT_REGION PATH=$PATH cargo infra status"),
            ("simulate-nothing-running", "cargo infra simulate publish --files target/nothing"),
        ]:
            self.picture(f"error-{name}", command)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--all", action="store_true", help="write pictures of all commands to a folder")
    parser.add_argument("picture", type=Path, help="the file to write, or the folder")
    parser.add_argument("command", nargs=argparse.REMAINDER, help="the command and its arguments")
    arguments = parser.parse_args()
    if arguments.all:
        album = Album(arguments.picture)
        album.help()
        album.local()
        album.stack()
        album.errors()
        return
    terminal = Terminal(shlex.join(arguments.command))
    status = terminal.end()
    terminal.write(arguments.picture)
    sys.exit(status)


if __name__ == "__main__":
    main()
