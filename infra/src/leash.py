"""Runs a command, and ends it and everything it started when the owner of standard input is gone."""

import os
import signal
import subprocess
import sys
import threading

GRACE_SECONDS = 3


def end_with_owner():
    sys.stdin.buffer.read()
    command.terminate()
    try:
        command.wait(GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        pass
    os.killpg(0, signal.SIGKILL)


command = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)
threading.Thread(target=end_with_owner, daemon=True).start()
status = command.wait()
print(f"ended with status {status}", flush=True)
os.killpg(0, signal.SIGKILL)
