"""Runs a command in a terminal of its own, and types each answer when the question before it has been asked.

Arguments: a JSON list of [question, answer] pairs, then the command. Prints what the terminal showed."""

import json
import os
import pty
import sys

questions, command = json.loads(sys.argv[1]), sys.argv[2:]
process, terminal = pty.fork()
if process == 0:
    os.execvp(command[0], command)

shown = b""
while True:
    try:
        some = os.read(terminal, 4096)
    except OSError:  # How Linux says that nobody is left at the other end.
        break
    if not some:
        break
    shown += some
    sys.stdout.buffer.write(some)
    if questions and shown.endswith(questions[0][0].encode()):
        os.write(terminal, (questions.pop(0)[1] + "\n").encode())

status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
sys.exit(status if not questions else f"never asked: {questions}")
