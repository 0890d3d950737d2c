"""Runs a command until it ends or the owner of standard input is gone, then kills whatever it started."""

import os
import signal
import subprocess
import sys
import threading


def end_with_owner():
    sys.stdin.buffer.read()
    os.killpg(0, signal.SIGKILL)


command = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)
threading.Thread(target=end_with_owner, daemon=True).start()
print(f"ended with status {command.wait()}", flush=True)
os.killpg(0, signal.SIGKILL)
