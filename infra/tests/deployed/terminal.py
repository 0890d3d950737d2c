"""Runs a command in a terminal of its own, and types each answer when the question before it has been asked.

Arguments: a JSON list of [question, answer, whether it is hidden], then the command. Prints what the terminal showed. A
hidden answer is typed when the terminal no longer shows what is typed: people are not as quick as programs."""

import json
import os
import pty
import sys
import termios
import time

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
        _, answer, is_hidden = questions.pop(0)
        while is_hidden and termios.tcgetattr(terminal)[3] & termios.ECHO:
            time.sleep(0.01)
        os.write(terminal, (answer + "\n").encode())

status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
sys.exit(status if not questions else f"never asked: {questions}")
