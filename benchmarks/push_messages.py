"""What `make bench-push` sends: devices, payloads and credentials, made up."""

import json

from app import pushkeys

PROJECT = "bench-push"
BUNDLE_ID = "com.example.bench"
TEXT = "The roses you looked at last week are a fifth off until Sunday. Only in the app, only for you. " * 2
APNS_PAYLOAD = json.dumps(
    {"aps": {"alert": {"title": "A fifth off roses", "body": TEXT}, "sound": "default"}, "link": "shop://roses"}
).encode()
FCM_PAYLOAD = json.dumps(
    {"notification": {"title": "A fifth off roses", "body": TEXT}, "data": {"link": "shop://roses"}}
).encode()


def tokens(number: int) -> list[str]:
    """Device tokens, all different, of the length that APNs' have."""
    return [f"{n:064x}" for n in range(number)]


def service_account() -> str:
    """Of PROJECT."""
    return pushkeys.service_account(PROJECT)
