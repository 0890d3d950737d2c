#!/usr/bin/env python3
"""Checks the snapshots of presets with packages of the services' makers.

Needs the Python packages slack_sdk and standardwebhooks, Node, and the folder of the npm package adaptivecards:

    npm install --prefix FOLDER adaptivecards
    check.py FOLDER/node_modules/adaptivecards
"""

import datetime
import json
import pathlib
import subprocess
import sys
from unittest import mock

from slack_sdk.models.blocks import Block
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

HERE = pathlib.Path(__file__).resolve().parent
SNAPSHOTS = HERE.parent.parent / "src" / "render" / "snapshots"


def snapshot(name: str) -> dict:
    """Returns the JSON of a snapshot, which follows a header between two lines of hyphens."""
    text = (SNAPSHOTS / f"forwarder__render__tests__{name}.snap").read_text(encoding="utf-8")
    return json.loads(text.split("---\n", 2)[2])


def check_slack() -> int:
    """Slack's SDK must know each block with all its members, and find each within its limits."""
    messages = snapshot("slack")
    for name, message in messages.items():
        assert set(message) == {"text", "blocks"}, name
        for block in message["blocks"]:
            # to_dict() checks the limits, and leaves out members that the SDK does not know.
            known = Block.parse(block).to_dict()
            assert known == block, f"{name}: Slack's SDK reads {known} from {block}"
    return len(messages)


def check_cards(package: str) -> int:
    """The renderer of Adaptive Cards must read each card without a remark, and write the same card."""
    messages = snapshot("teams")
    cards = {name: message["attachments"][0]["content"] for name, message in messages.items()}
    for name, message in messages.items():
        assert message["type"] == "message" and len(message["attachments"]) == 1, name
        assert message["attachments"][0]["contentType"] == "application/vnd.microsoft.card.adaptive", name
    command = ["node", str(HERE / "cards.cjs"), str(pathlib.Path(package).resolve())]
    subprocess.run(command, input=json.dumps(cards), text=True, check=True)
    return len(cards)


def check_signature() -> None:
    """The library of Standard Webhooks must verify the signed message, and refuse it with one byte changed."""
    signed = snapshot("signed")
    body, headers = signed["body"], signed["headers"]
    at = datetime.datetime.fromtimestamp(int(headers["webhook-timestamp"]), datetime.timezone.utc)
    webhook = Webhook(signed["secret"])
    with mock.patch("standardwebhooks.webhooks.datetime", wraps=datetime.datetime) as clock:
        clock.now.return_value = at
        webhook.verify(body, headers)
        for changed in [
            (body.replace("marketing", "marketinG", 1), headers),
            (body, headers | {"webhook-id": headers["webhook-id"][::-1]}),
            (body, headers | {"webhook-timestamp": str(int(headers["webhook-timestamp"]) + 1)}),
        ]:
            try:
                webhook.verify(*changed)
            except WebhookVerificationError:
                continue
            raise AssertionError("a changed message has a valid signature")


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    print(f"Slack: {check_slack()} messages")
    print(f"Teams: {check_cards(sys.argv[1])} cards")
    check_signature()
    print("Standard Webhooks: verified, and 3 changes refused")


if __name__ == "__main__":
    main()
