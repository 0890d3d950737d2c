#!/usr/bin/env python3
"""Runs a command in a terminal and writes a picture of the screen: what a user sees, with colours.

    tests/terminal/picture.py docs/status.svg cargo infra status

Needs the packages of tests/terminal/requirements.txt. The exit status is that of the command.
"""

import argparse
import os
import pty
import re
import select
import shlex
import struct
import sys
import termios
from fcntl import ioctl
from pathlib import Path

import pyte
from rich.console import Console
from rich.style import Style
from rich.text import Text

COLUMNS, LINES = 110, 400

# The longest time without output. A release build prints its packages.
SILENCE_TIMEOUT_SECONDS = 15 * 60


def run(command):
    """Runs a command in a terminal of its own. Returns the screen at its end, and its exit status."""
    screen = pyte.Screen(COLUMNS, LINES)
    stream = pyte.ByteStream(screen)
    process, terminal = pty.fork()
    if process == 0:
        os.environ["TERM"] = "xterm-256color"
        os.execvp(command[0], command)
    ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
    while True:
        ready, _, _ = select.select([terminal], [], [], SILENCE_TIMEOUT_SECONDS)
        if not ready:
            raise SystemExit(f"{shlex.join(command)}: no output within {SILENCE_TIMEOUT_SECONDS} seconds")
        try:
            output = os.read(terminal, 65536)
        except OSError:
            # Linux reports the end of the process in this way.
            break
        if not output:
            break
        stream.feed(output)
    return screen, os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


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
            line.append(cell.data, Style(color=colour(cell.fg), bold=cell.bold, italic=cell.italics))
        line.rstrip()
        found.append(line)
    while found and not found[-1].plain:
        found.pop()
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("picture", type=Path, help="the file to write")
    parser.add_argument("command", nargs=argparse.REMAINDER, help="the command and its arguments")
    arguments = parser.parse_args()
    screen, status = run(arguments.command)
    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        console = Console(record=True, width=COLUMNS, file=nowhere, force_terminal=True, color_system="truecolor")
        console.print(Text(f"$ {shlex.join(arguments.command)}", Style(bold=True)))
        for line in lines(screen):
            console.print(line, no_wrap=True, crop=False)
        # The same identifier at each run, so that a picture changes only with its content.
        picture = console.export_svg(title="", unique_id="terminal")
    # The reader's own font serves: a picture in a page loads nothing.
    picture = re.sub(r"\s*@font-face \{.*?\}", "", picture, flags=re.DOTALL).replace("Fira Code", "ui-monospace")
    arguments.picture.write_text(picture, encoding="utf-8")
    sys.exit(status)


if __name__ == "__main__":
    main()
