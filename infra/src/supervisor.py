"""Runs a command until it ends or standard input closes, then kills the whole process group."""

import os
import signal
import subprocess
import sys
import threading


def kill_when_input_closes():
    sys.stdin.buffer.read()
    os.killpg(0, signal.SIGKILL)


command = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)
threading.Thread(target=kill_when_input_closes, daemon=True).start()
print(f"ended with status {command.wait()}", flush=True)
os.killpg(0, signal.SIGKILL)
