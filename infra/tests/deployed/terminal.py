"""Runs a command in its own terminal, and types each answer after its question.

Arguments: a JSON list of [question, answer, whether it is hidden], then the command. Prints the terminal's output. Types a
hidden answer when the terminal has switched its echo off, as a user, who is slower, would."""

import json
import os
import pty
import sys
import termios
import time

CTRL_C = "\x03"

questions, command = json.loads(sys.argv[1]), sys.argv[2:]
process, terminal = pty.fork()
if process == 0:
    os.execvp(command[0], command)

shown = b""
while True:
    try:
        some = os.read(terminal, 4096)
    except OSError:  # Linux reports so that the command has ended.
        break
    if not some:
        break
    shown += some
    sys.stdout.buffer.write(some)
    if questions and shown.endswith(questions[0][0].encode()):
        _, answer, is_hidden = questions.pop(0)
        while is_hidden and termios.tcgetattr(terminal)[3] & termios.ECHO:
            time.sleep(0.01)
        os.write(terminal, (answer if answer == CTRL_C else answer + "\n").encode())

status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
sys.exit(status if not questions else f"never asked: {questions}")
