#!/usr/bin/env python3
"""Checks the snapshots of presets with packages of the services' makers, and runs the documented script of a sheet.

    tests/presets/check.py target/presets

The argument is a folder for the packages of Node. Needs the Python packages of tests/presets/requirements.txt.
"""

import datetime
import json
import re
import sys
from pathlib import Path
from unittest import mock

from slack_sdk.models.blocks import Block
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
SNAPSHOTS = ROOT / "functions/delivery/src/render/snapshots"

sys.path.insert(0, str(HERE.parent))
from npm import install, node


def snapshot(name):
    """Returns the JSON of a snapshot, which follows a header between two lines of hyphens."""
    text = (SNAPSHOTS / f"delivery__render__tests__{name}.snap").read_text(encoding="utf-8")
    return json.loads(text.split("---\n", 2)[2])


def check_slack():
    """Slack's SDK must know each block with all its members, and find each within its limits."""
    messages = snapshot("slack")
    for name, message in messages.items():
        assert set(message) == {"text", "blocks"}, name
        for block in message["blocks"]:
            # to_dict() checks the limits, and leaves out members that the SDK does not know.
            known = Block.parse(block).to_dict()
            assert known == block, f"{name}: Slack's SDK reads {known} from {block}"
    return len(messages)


def check_cards(package):
    """The renderer of Adaptive Cards must read each card without a remark, and write the same card."""
    messages = snapshot("teams")
    cards = {name: message["attachments"][0]["content"] for name, message in messages.items()}
    for name, message in messages.items():
        assert message["type"] == "message" and len(message["attachments"]) == 1, name
        assert message["attachments"][0]["contentType"] == "application/vnd.microsoft.card.adaptive", name
    node(HERE / "cards.cjs", package, input=json.dumps(cards), text=True)
    return len(cards)


def check_signature():
    """The library of Standard Webhooks must verify the signed message, and refuse it with one byte changed."""
    signed = snapshot("signed")
    body, headers = signed["body"], signed["headers"]
    at = datetime.datetime.fromtimestamp(int(headers["webhook-timestamp"]), datetime.timezone.utc)
    webhook = Webhook(signed["secret"])
    changes = [(body[:at] + chr(ord(body[at]) ^ 1) + body[at + 1:], headers) for at in range(len(body))]
    changes.append((body, headers | {"webhook-id": headers["webhook-id"][::-1]}))
    changes.append((body, headers | {"webhook-timestamp": str(int(headers["webhook-timestamp"]) + 1)}))
    with mock.patch("standardwebhooks.webhooks.datetime", wraps=datetime.datetime) as clock:
        clock.now.return_value = at
        webhook.verify(body, headers)
        for changed, its_headers in changes:
            try:
                # The library reads the JSON after it has verified the signature.
                webhook.verify(changed, its_headers)
            except WebhookVerificationError:
                continue
            raise AssertionError(f"a changed message has a valid signature: {changed}")
    return len(changes)


def check_script():
    """The documented script must take a row with its key only, and write each cell as text."""
    page = (ROOT / "docs/custom-targets.md").read_text(encoding="utf-8")
    node(HERE / "apps-script.cjs", input=re.search(r"^```js\n(.*?)^```", page, re.MULTILINE | re.DOTALL)[1], text=True)


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    package = install(HERE, Path(sys.argv[1]).resolve()) / "adaptivecards"
    print(f"Slack: {check_slack()} messages")
    print(f"Teams: {check_cards(package)} cards")
    check_script()
    print("Apps Script: a row was written, and 2 were refused")
    print(f"Standard Webhooks: verified, and {check_signature()} changes refused")


if __name__ == "__main__":
    main()
