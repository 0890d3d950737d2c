"""What one would have instead, in Python: boto3 as its documentation sets it up.

The key is read at start, each event's address is verified, and its body published.
"""

import base64
import hashlib
import hmac
import json
import os

import boto3

sns = boto3.client("sns")
ssm = boto3.client("ssm")
topic = os.environ["EVENTS_TOPIC_ARN"]
stored = ssm.get_parameter(Name=os.environ["SIGNING_KEYS_PARAMETER"], WithDecryption=True)
key = base64.urlsafe_b64decode(json.loads(stored["Parameter"]["Value"])[0] + "==")


def handler(event, context):
    parts = event["rawPath"].split("/")
    if len(parts) != 5:
        return {"statusCode": 404}
    _, _, site, name, signature = parts
    expected = hmac.new(key, f"v1\n{site}\n{name}".encode(), hashlib.sha256).digest()
    if not hmac.compare_digest(base64.urlsafe_b64encode(expected).rstrip(b"=").decode(), signature):
        return {"statusCode": 404}
    attribute = lambda value: {"DataType": "String", "StringValue": value}
    sns.publish(
        TopicArn=topic,
        Message=event["body"],
        MessageAttributes={"event_type": attribute(name), "site": attribute(site)},
    )
    return {"statusCode": 200}
