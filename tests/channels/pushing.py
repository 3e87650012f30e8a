"""Push channels in front of local providers: credentials made for the tests, and messages."""

from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import orjson
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from app.pushsink import PushSink
from channels.apns import ApnsChannel, ApnsKey, ApnsSettings
from channels.base import PushMessage, PushProvider
from channels.fcm import FcmChannel, FcmSettings, ServiceAccount
from tests.servers import client_tls

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
DEVICE = "ab" * 32
"""A token that APNs could have given."""
FCM_DEVICE = "cJ1xQ:APA91bH" + "x" * 120
MESSAGE_ID = "7f6b2c1e-0000-4000-8000-00000000000a"


class Clock:
    """A time of day that moves when the test says so."""

    def __init__(self, now: datetime = NOW) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now


@cache
def p8() -> str:
    """An APNs key, as Apple's file has it."""
    key = ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


@cache
def service_account_json() -> str:
    """A service account, as Google's file has it."""
    key = rsa.generate_private_key(public_exponent=65_537, key_size=2_048)
    return orjson.dumps(
        {
            "type": "service_account",
            "project_id": "shop-test",
            "private_key_id": "0a1b2c",
            "private_key": key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode(),
            "client_email": "push@shop-test.iam.gserviceaccount.com",
            "client_id": "1",
            "token_uri": "https://attacker.example/token",
        }
    ).decode()


@cache
def service_account() -> ServiceAccount:
    """Read once: its key costs a tenth of a second."""
    return ServiceAccount(service_account_json())


@cache
def apns_key() -> ApnsKey:
    return ApnsKey(p8(), key_id="ABC1234567", team_id="TEAM123456")


def apns_channel(sink: PushSink, *, clock: Any = None, **settings: Any) -> ApnsChannel:
    """A channel in front of a local APNs, over TLS when the sink has it."""
    more = {} if clock is None else {"clock": clock}
    tls = None if sink.tls is None else client_tls()
    return ApnsChannel(ApnsSettings(apns_key(), "com.example.shop", sink.url, tls=tls, **settings), **more)


def fcm_channel(sink: PushSink, *, tokens: PushSink | None = None, clock: Any = None, **settings: Any) -> FcmChannel:
    """A channel in front of a local FCM, whose access tokens come from `tokens`, or from itself."""
    more = {} if clock is None else {"clock": clock}
    tls = None if sink.tls is None else client_tls()
    token_url = f"{(tokens or sink).url}/token"
    return FcmChannel(FcmSettings(service_account(), sink.url, token_url, tls=tls, **settings), **more)


def apns_push(text: str = "Hello", **fields: Any) -> PushMessage:
    usual: dict[str, Any] = {
        "provider": PushProvider.APNS,
        "token": DEVICE,
        "payload": orjson.dumps({"aps": {"alert": {"title": text}}}),
        "key": "delivery-1",
        "message_id": MESSAGE_ID,
        "expires_at": NOW + timedelta(hours=1),
    }
    return PushMessage(**(usual | fields))


def fcm_push(text: str = "Hello", **fields: Any) -> PushMessage:
    usual: dict[str, Any] = {
        "provider": PushProvider.FCM,
        "token": FCM_DEVICE,
        "payload": orjson.dumps({"notification": {"title": text}}),
        "key": "delivery-1",
        "message_id": MESSAGE_ID,
    }
    return PushMessage(**(usual | fields))
