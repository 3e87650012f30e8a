"""Credentials for `app.pushsink`, of the form that Google's and Apple's have, made up: they open nothing."""

import json
from functools import cache

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat


@cache
def service_account(project: str) -> str:
    """A Firebase service account's JSON file."""
    key = rsa.generate_private_key(public_exponent=65_537, key_size=2_048)
    return json.dumps(
        {
            "type": "service_account",
            "project_id": project,
            "private_key_id": "0",
            "private_key": key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode(),
            "client_email": f"push@{project}.example.com",
            "token_uri": "https://oauth2.example.com/token",
        }
    )


@cache
def p8() -> str:
    """A key of Apple's for APNs."""
    key = ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
