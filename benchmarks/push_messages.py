"""What `make bench-push` sends: devices, payloads and credentials, made up."""

import json
from functools import cache

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

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


@cache
def p8() -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


@cache
def service_account() -> str:
    key = rsa.generate_private_key(public_exponent=65_537, key_size=2_048)
    return json.dumps(
        {
            "type": "service_account",
            "project_id": PROJECT,
            "private_key_id": "0",
            "private_key": key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode(),
            "client_email": "bench@example.com",
            "token_uri": "https://oauth2.example.com/token",
        }
    )
