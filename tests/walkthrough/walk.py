#!/usr/bin/env python3
"""Walks the README and the page on deploying, from a fresh clone to the first alert and to the removal of everything, with
the commands as they are printed. Times each step, and counts what a newcomer types until the first alert.

What AWS and Tableau would be is `cargo infra local --empty`. Run it from the project's folder; `--here` walks in that
folder itself instead of in a clone of it, so that what is built there is used.
"""

import argparse
import json
import os
import platform
import pty
import re
import select
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import venv
from dataclasses import dataclass, field
from pathlib import Path

SHELL = ["bash", "-e", "-u", "-o", "pipefail", "-c"]

# A release build of everything on two processors takes nine minutes; on a busy machine it takes longer.
STEP_TIMEOUT_SECONDS = 45 * 60

# The longest time of a message from Tableau's call to a queue.
ARRIVAL_TIMEOUT_SECONDS = 60

# The longest time in which the local cloud ends.
END_TIMEOUT_SECONDS = 60

# The longest time until a command asks its next question, a build of the command included.
QUESTION_TIMEOUT_SECONDS = 10 * 60

# The bucket for deploying by hand.
BUCKET = "artifacts-by-hand"

# The values in the documents' commands that everybody replaces with their own.
PLACEHOLDERS = ("YOUR-BUCKET", "you@example.com")


class Documents:
    """The code blocks of the documents, by document and heading."""

    def __init__(self, folder):
        self.folder, self.sections = folder, {}

    def command(self, document, heading, start):
        """Returns the block of a section that begins with a text."""
        if document not in self.sections:
            self.sections[document] = self.read(document)
        blocks = [text for language, text in self.sections[document][heading] if language == "sh" and text.startswith(start)]
        if len(blocks) != 1:
            raise SystemExit(f'{document}, "{heading}": {len(blocks)} blocks of commands start with {start!r}, not one')
        return blocks[0]

    def read(self, document):
        sections, heading = {}, ""
        fence = re.compile(r"^#+ ([^\n]+)$|^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
        for match in fence.finditer((self.folder / document).read_text(encoding="utf-8")):
            if match[1]:
                heading = match[1]
            else:
                sections.setdefault(heading, []).append((match[2], match[3]))
        return sections


@dataclass
class Effort:
    """What a person did on the way to a milestone."""

    begin: float = field(default_factory=time.monotonic)
    commands: int = 0
    answers: int = 0
    # Values taken from one place to another.
    copied: int = 0
    seconds: float = 0.0

    def typed(self, command):
        lines = command.replace("\\\n", " ").splitlines()
        self.commands += sum(1 for line in lines if line.strip() and not line.lstrip().startswith("#"))
        self.copied += sum(command.count(placeholder) for placeholder in PLACEHOLDERS)


class Walk:
    """Runs commands in the project's folder, in one environment, and measures them."""

    def __init__(self, folder):
        self.folder, self.environment, self.times = folder, dict(os.environ), []
        self.effort, self.milestones = Effort(), {}
        self.documents = Documents(folder)
        # The commands do not get the environment of this script.
        for name in [name for name in self.environment if name.startswith(("AWS_", "CARGO_"))]:
            if name != "CARGO_HOME":
                del self.environment[name]

    def step(self, title, command, folder=None):
        """Runs a command, prints its output, and returns it."""
        print(f"\n### {title}\n{command.rstrip()}", flush=True)
        self.effort.typed(command)
        begin, said = time.monotonic(), []
        with subprocess.Popen([*SHELL, command], cwd=folder or self.folder, env=self.environment, text=True,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              start_new_session=True) as process:
            limit = threading.Timer(STEP_TIMEOUT_SECONDS, os.killpg, [process.pid, signal.SIGKILL])
            limit.start()
            for line in process.stdout:
                print(f"    {line}", end="", flush=True)
                said.append(line)
            status = process.wait()
            limit.cancel()
        self.done(title, begin)
        if status != 0:
            raise SystemExit(f"{title}: the command ended with {status}")
        return "".join(said)

    def dialogue(self, title, command, answers):
        """Runs a command in a terminal, and answers its questions, each given by a part of it."""
        print(f"\n### {title}\n{command.rstrip()}", flush=True)
        self.effort.typed(command)
        begin, said, answers = time.monotonic(), "", dict(answers)
        child, terminal = pty.fork()
        if child == 0:
            os.chdir(self.folder)
            os.execvpe(SHELL[0], [*SHELL, command], self.environment)
        while True:
            if not select.select([terminal], [], [], QUESTION_TIMEOUT_SECONDS)[0]:
                os.kill(child, signal.SIGKILL)
                raise SystemExit(f"{title}: no more output within {QUESTION_TIMEOUT_SECONDS} seconds")
            try:
                shown = os.read(terminal, 4096).decode(errors="replace")
            except OSError:
                # Linux answers so when the command has ended.
                break
            print(shown, end="", flush=True)
            said += shown
            for question in [question for question in answers if question in said]:
                answer = answers.pop(question)
                self.effort.answers += 1
                self.effort.copied += answer != ""
                os.write(terminal, f"{answer}\n".encode())
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        os.close(terminal)
        self.done(title, begin)
        if status != 0 or answers:
            raise SystemExit(f"{title}: the command ended with {status}, and did not ask for {list(answers)}")

    def done(self, title, begin):
        self.times.append((title, time.monotonic() - begin))

    def reached(self, milestone):
        """Notes what it took to reach a milestone, since the one before."""
        self.effort.seconds = time.monotonic() - self.effort.begin
        self.milestones[milestone], self.effort = self.effort, Effort()

    def source(self, script):
        """Takes over the environment of a script."""
        self.effort.typed(script)
        dump = f"{script}\nexec {shlex.quote(sys.executable)} -c 'import json, os; print(json.dumps(dict(os.environ)))'"
        said = subprocess.run(["bash", "-e", "-c", dump], cwd=self.folder, env=self.environment, check=True,
                              capture_output=True, text=True).stdout
        self.environment = json.loads(said)

    def aws(self, command):
        """Returns the answer of the AWS CLI."""
        endpoint = self.environment["AWS_ENDPOINT_URL"]
        arguments = ["aws", "--output", "json", "--endpoint-url", endpoint, *command]
        said = subprocess.run(arguments, cwd=self.folder, env=self.environment, check=True, capture_output=True, text=True)
        return json.loads(said.stdout or "null")

    def outputs(self, stack):
        described = self.aws(["cloudformation", "describe-stacks", "--stack-name", stack])
        return {output["OutputKey"]: output["OutputValue"] for output in described["Stacks"][0]["Outputs"]}

    def arrived(self, queue, sign):
        """Waits for a message in a queue."""
        end = time.monotonic() + ARRIVAL_TIMEOUT_SECONDS
        while time.monotonic() < end:
            received = self.aws(["sqs", "receive-message", "--queue-url", queue, "--wait-time-seconds", "5"]) or {}
            for message in received.get("Messages", []):
                if sign in message["Body"]:
                    return message["Body"]
        raise SystemExit(f"no message with {sign!r} came within {ARRIVAL_TIMEOUT_SECONDS} seconds")

    def summary(self):
        print("\n| step | seconds |\n|---|---:|")
        for title, seconds in self.times:
            print(f"| {title} | {seconds:.1f} |")
        self.efforts()

    def efforts(self):
        print("\n| until | seconds | commands typed | prompts answered | values copied |\n|---|---:|---:|---:|---:|")
        for milestone, effort in self.milestones.items():
            print(f"| {milestone} | {effort.seconds:.0f} | {effort.commands} | {effort.answers} | {effort.copied} |")


class EmptyCloud:
    """The local cloud and the Tableau server."""

    def __init__(self, walk):
        begin = time.monotonic()
        title = "Try a deployment: an empty cloud"
        command = walk.documents.command("docs/tutorial.md", "Try a deployment", "cargo infra local --empty").strip()
        print(f"\n### {title}\n{command}", flush=True)
        walk.effort.typed(command)
        self.process = subprocess.Popen(shlex.split(command), cwd=walk.folder, env=walk.environment, text=True,
                                        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        self.said = []
        for line in self.process.stdout:
            print(f"    {line}", end="", flush=True)
            self.said.append(line)
            if "cargo infra test" in line:
                break
        else:
            raise SystemExit("the empty cloud did not come up")
        walk.done(title, begin)
        self.commands = [line.strip() for line in self.said if line.startswith("  ")]

    def settings(self):
        """Returns the settings for another terminal."""
        return "\n".join(line for line in self.commands if line.startswith("source "))

    def command(self, start):
        """Returns a command that it prints."""
        return next(line for line in self.commands if line.startswith(start))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.communicate(timeout=END_TIMEOUT_SECONDS)


def install_tools(walk):
    """Installs the tools for deploying by hand, cargo-lambda with Zig and the SAM CLI, at the tested versions."""
    tools = walk.folder / "target/walkthrough/tools"
    venv.create(tools, with_pip=True, clear=True)
    walk.environment["PATH"] = f"{tools / 'bin'}:{walk.environment['PATH']}"
    walk.environment["SAM_CLI_TELEMETRY"] = "0"
    requirements = Path("tests/walkthrough/requirements.txt")
    walk.step("Deploy by hand: pip install cargo-lambda",
              f"pip install --quiet --disable-pip-version-check --no-deps --requirement {requirements}")


def processor_of_this_machine():
    """Returns the processor of this machine, as AWS names it."""
    return "arm64" if platform.machine() == "aarch64" else platform.machine()


def adapted(command):
    """Adapts a command to this machine: the bucket's name, the processor and the endpoint."""
    processor = processor_of_this_machine()
    command = command.replace("YOUR-BUCKET", BUCKET)
    endpoint = "AwsEndpointUrl=$AWS_ENDPOINT_URL"
    if "cargo lambda build" in command and processor == "x86_64":
        command = command.replace("--arm64", "--x86-64")
    if "--capabilities" in command:
        command = f"{command.rstrip()} --parameter-overrides Architecture={processor} {endpoint}\n"
    return command


def fail_a_refresh(walk, cloud, failures, alerts):
    """Lets an extract refresh fail on Tableau, and waits for the event and the alert."""
    begin = time.monotonic()
    fail = cloud.command("cargo infra simulate fail-refresh")
    walk.step("A refresh fails on Tableau; one queue gets the event, another the alert", fail)
    print(f"    {walk.arrived(failures, 'com.tableau.WorkbookRefreshFailed')}")
    alert = json.loads(walk.arrived(alerts, "refresh failed"))
    print(f"    {alert['Subject']}\n    {alert['Message']}", flush=True)
    walk.done("A refresh fails: the event in a queue and the first alert", begin)


def add_and_test(walk):
    """Returns the commands that add a site, and test the stack."""
    return walk.documents.command("README.md", "Add a site", "cargo infra add-site").splitlines()


def with_cargo_infra(walk, cloud):
    command = walk.documents.command
    walk.step("Deploy", adapted(command("README.md", "Deploy", "cargo infra deploy")))
    add, test = add_and_test(walk)
    site = json.loads((walk.folder / "target/local/site.json").read_text(encoding="utf-8"))
    walk.dialogue("Add a site: add-site", add, {
        "Address of the site in a browser": f"{site['server']}#/site/{site['site']}/explore",
        "Name of the personal access token": site["token_name"],
        "Secret of the token": site["token_secret"],
        "Date on which the token ends": "",
    })
    walk.step("Add a site: test", test)
    walk.step("Subscribe: a queue", command("README.md", "Subscribe", "aws cloudformation deploy"))
    walk.step("Subscribe: an e-mail address", command("README.md", "Subscribe", "aws sns subscribe"))
    fail_a_refresh(walk, cloud, walk.outputs("tableau-failures")["QueueUrl"], alerts_queue(walk))


def alerts_queue(walk):
    """Subscribes a queue to the alerts. It takes the place of an e-mail address."""
    queue = walk.aws(["sqs", "create-queue", "--queue-name", "alerts"])["QueueUrl"]
    attributes = ["--attribute-names", "QueueArn"]
    arn = walk.aws(["sqs", "get-queue-attributes", "--queue-url", queue, *attributes])["Attributes"]["QueueArn"]
    topic = walk.outputs("tableau-fanout")["AlertsTopicArn"]
    walk.aws(["sns", "subscribe", "--topic-arn", topic, "--protocol", "sqs", "--notification-endpoint", arn])
    return queue


def remove(walk):
    """Removes everything. The command asks in a terminal, and this is none."""
    removal = walk.documents.command("docs/removing.md", "Removing everything", "cargo infra replay")
    walk.step("Remove everything", removal.replace("cargo infra destroy", "cargo infra destroy --yes"))


def code_alone(walk):
    """`cargo lambda deploy` pushes code, and changes nothing else of a function."""
    functions = ["tableau-fanout-receiver", "tableau-fanout-reconciler"]

    def describe(name):
        return walk.aws(["lambda", "get-function-configuration", "--function-name", name])

    def lasting(described):
        # The code, and the members that every update changes.
        changing = ("Code", "LastModified", "LastUpdate", "RevisionId", "State", "Version")
        return {key: value for key, value in described.items() if not key.startswith(changing)}

    before = [describe(name) for name in functions]
    build, *pushes = walk.documents.command("docs/deploying.md", "Code alone", "cargo lambda build").splitlines()
    walk.step("Deploy code alone", "\n".join([adapted(build), *pushes]))
    for name, old, new in zip(functions, before, map(describe, functions)):
        if lasting(old) != lasting(new) or old["LastModified"] == new["LastModified"]:
            raise SystemExit(f"{name} before: {json.dumps(old)}\nand after: {json.dumps(new)}")


def padded(walk, command):
    """The command for a copy of the template that is too large for a request, as the template itself may become."""
    template = (walk.folder / "infra/template.yaml").read_text(encoding="utf-8").replace("../target/lambda/", "../lambda/")
    copy = "target/walkthrough/template.yaml"
    # No comment, which packaging would leave out.
    template = template.replace("\nMetadata:\n", f"\nMetadata:\n  Padding: {'x' * (60_000 - len(template))}\n", 1)
    (walk.folder / copy).write_text(template, encoding="utf-8")
    return command.replace("infra/template.yaml", copy)


def by_hand(walk):
    command = walk.documents.command
    walk.step("Deploy by hand", adapted(command("docs/deploying.md", "The source by hand", "cargo lambda build")))
    walk.step("Deploy by hand: SAM CLI", padded(walk, adapted(command("docs/deploying.md", "The source by hand", "sam deploy"))))


def from_a_release(walk, cloud):
    """Makes a release, deploys its archive with and without `cargo infra`, adds a site by hand, and waits for an alert."""
    command = walk.documents.command
    archives, processor = walk.folder / "target/archives", processor_of_this_machine()
    shutil.rmtree(archives, ignore_errors=True)
    walk.step("Make the archive of a release", f"infra/release.py target/archives --arch {processor}")

    def of_this_machine(block):
        return adapted(block.replace("-arm64", f"-{processor}"))

    check, unzip, deploy = of_this_machine(command("docs/deploying.md", "From a release", "sha256sum")).splitlines()
    if shutil.which("unzip") is None:
        # Python unpacks it as well, on a machine without unzip.
        unzip = f"python3 -m zipfile -e {unzip.split()[1]} ."
    walk.step("Unpack a release", f"{check}\n{unzip}", folder=archives)
    by_hand = of_this_machine(command("docs/deploying.md", "From a release, without Rust", "cd "))
    walk.step("Deploy from a release, without Rust", by_hand, folder=archives)
    walk.step("Deploy from a release", deploy, folder=archives)
    site = (walk.folder / "target/local/site.json").read_text(encoding="utf-8")
    (archives / "site.json").write_text(site, encoding="utf-8")
    add = command("docs/sites.md", "Add a site by hand", "aws ssm put-parameter")
    if "is as declared" not in walk.step("Add a site by hand", add, folder=archives):
        raise SystemExit("the site is not as declared")
    walk.step("Subscribe: a queue", command("README.md", "Subscribe", "aws cloudformation deploy"))
    fail_a_refresh(walk, cloud, walk.outputs("tableau-failures")["QueueUrl"], alerts_queue(walk))


def walk_in(folder):
    walk = Walk(folder)
    begin = time.monotonic()
    said = walk.step("See it work", walk.documents.command("README.md", "See it work", "cargo infra local --once"))
    if "It works" not in said:
        raise SystemExit("the first command does not say that it works")
    walk.reached("\"It works\"")
    with EmptyCloud(walk) as cloud:
        walk.source(cloud.settings())
        with_cargo_infra(walk, cloud)
        walk.reached("the first alert at `local --empty`")
        walk.done("**From here to the first alert**", begin)
        walk.efforts()
        walk.step("Status", "cargo infra status")
        remove(walk)
    with EmptyCloud(walk) as cloud:
        walk.source(cloud.settings())
        region = f"LocationConstraint={walk.environment['AWS_REGION']}"
        walk.aws(["s3api", "create-bucket", "--bucket", BUCKET, "--create-bucket-configuration", region])
        # It uses the same linker as the deployment before, so that it compiles little. By hand another one links.
        from_a_release(walk, cloud)
        install_tools(walk)
        by_hand(walk)
        code_alone(walk)
        walk.step("Test what was deployed by hand", add_and_test(walk)[1])
    walk.summary()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--here", action="store_true", help="walk in this folder, not in a clone")
    if parser.parse_args().here:
        walk_in(Path.cwd())
        return
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder) / "tableau-fanout"
        subprocess.run(["git", "clone", "--quiet", ".", clone], check=True)
        walk_in(clone)


if __name__ == "__main__":
    main()
