"""Runs commands of the AWS CLI one after another in one process, which saves each of them the start of Python.

Reads a JSON list of {"environment": {...}, "arguments": [...]} and prints one of {"code": ..., "said": ...}.
"""

import contextlib
import io
import json
import os
import sys

from awscli.clidriver import create_clidriver

ran = []
for command in json.load(sys.stdin):
    os.environ.update(command["environment"])
    said = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said):
        code = create_clidriver().main(command["arguments"])
    ran.append({"code": code, "said": said.getvalue()})
json.dump(ran, sys.stdout)
