"""Runs AWS CLI commands in one process, which saves the start of Python and its imports for each.

Reads a JSON line for each command, {"arguments": [...], "input": ...}. Answers each with a JSON line,
{"code": ..., "output": ..., "errors": ...}. Ends when standard input closes.
"""

import json
import os
import sys
import tempfile

from awscli.clidriver import create_clidriver

# Each command gets the standard streams, so requests and answers use copies of them.
requests = os.fdopen(os.dup(0), encoding="utf-8")
answers = os.fdopen(os.dup(1), "w", encoding="utf-8")


def redirect(input_text, output, errors):
    # Redirects file descriptors, since the CLI opens /dev/stdin by name. A pipe holds an input of up to 64 KiB.
    reading, writing = os.pipe()
    os.write(writing, input_text.encode())
    os.close(writing)
    for number, file in enumerate((reading, output.fileno(), errors.fileno())):
        os.dup2(file, number)
    os.close(reading)


def text(file):
    file.seek(0)
    return file.read().decode()


def run(arguments, input_text):
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        redirect(input_text, output, errors)
        try:
            code = create_clidriver().main(arguments)
        except SystemExit as end:
            code = end.code or 0
        sys.stdout.flush()
        sys.stderr.flush()
        return {"code": code, "output": text(output), "errors": text(errors)}


for line in requests:
    request = json.loads(line)
    print(json.dumps(run(request["arguments"], request["input"])), file=answers, flush=True)
