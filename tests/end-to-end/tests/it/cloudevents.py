"""Reads messages as a subscriber in Python would: python3 cloudevents.py FILE

Each line of the file is one message from the events topic. It is validated against the schema, and read with the
CloudEvents project's own SDK.
"""

import base64
import json
import pathlib
import sys

# This script has the package's name, and Python looks beside it first.
sys.path.pop(0)

from cloudevents.core.formats.json import JSONFormat
from dateutil.parser import isoparse
from jsonschema import Draft7Validator

schema = json.loads(pathlib.Path(__file__).with_name("cloudevents.schema.json").read_text())
validator = Draft7Validator(schema, format_checker=Draft7Validator.FORMAT_CHECKER)
for checked in ("date-time", "uri-reference"):
    assert checked in validator.format_checker.checkers, f"{checked} is not checked"
for bad in ({}, {"specversion": "1.0", "id": "1", "source": "/", "type": "t", "time": "yesterday"}):
    assert not validator.is_valid(bad), bad

count = 0
for line in pathlib.Path(sys.argv[1]).read_bytes().split(b"\n"):
    raw = json.loads(line)
    validator.validate(raw)
    event = JSONFormat().read(None, line)
    assert event.get_id() == raw["id"], line
    assert event.get_source() == raw["source"], line
    assert event.get_type() == raw["type"], line
    assert event.get_specversion() == "1.0", line
    assert event.get_subject() == raw.get("subject"), line
    assert event.get_datacontenttype() == raw.get("datacontenttype"), line
    assert event.get_extension("recovered") == raw.get("recovered"), line
    # An event without a time gets the time of reading from the SDK.
    assert "time" not in raw or event.get_time() == isoparse(raw["time"]), line
    if "data_base64" in raw:
        assert event.get_data() == base64.b64decode(raw["data_base64"], validate=True), line
    else:
        assert event.get_data() == raw.get("data"), line
    count += 1

print(f"{count} events, all as expected")
