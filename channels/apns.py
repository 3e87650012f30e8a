"""Push notifications to Apple's devices over APNs: one POST each, provider tokens of our own."""

import re
import ssl
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from channels.apns_answers import BETWEEN_TOKENS, STALE_TOKEN, classify
from channels.base import Outcome, OutcomeKind, PushMessage, PushProvider
from channels.http2 import Http2Client, Http2Settings
from channels.http2_messages import Lost, Phase, Request
from channels.push_answers import lost

PRODUCTION, SANDBOX = "https://api.push.apple.com", "https://api.sandbox.push.apple.com"
RENEW_AFTER = timedelta(minutes=40)
"""APNs refuses provider tokens older than 60 minutes, and new ones within 20."""
LARGEST_PAYLOAD = 4_096
DEVICE_TOKEN = re.compile(r"[0-9a-fA-F]{64,200}")
IDENTIFIER = re.compile(r"[A-Z0-9]{10}")
BUNDLE_ID = re.compile(r"[A-Za-z0-9.-]{1,155}")


class ApnsKey:
    """What Apple gives for tokens of a provider: a p8 key, its id and the team's."""

    __slots__ = ("key", "key_id", "team_id")

    def __init__(self, p8: str, *, key_id: str, team_id: str) -> None:
        """Raises ValueError, saying what to give instead, and never repeats the key."""
        if not IDENTIFIER.fullmatch(key_id) or not IDENTIFIER.fullmatch(team_id):
            raise ValueError(
                "key id and team id have ten letters and digits each, as Apple's developer site shows them"
            )
        try:
            key = load_pem_private_key(p8.encode(), password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            raise ValueError("paste the .p8 file whole, from BEGIN PRIVATE KEY to END PRIVATE KEY") from None
        if not isinstance(key, EllipticCurvePrivateKey) or not isinstance(key.curve, SECP256R1):
            raise ValueError("this is a key of another kind; APNs takes the .p8 of an APNs key (ES256)")
        self.key, self.key_id, self.team_id = key, key_id, team_id

    def token(self, now: datetime) -> str:
        """A provider token made at `now`."""
        claims = {"iss": self.team_id, "iat": int(now.timestamp())}
        return jwt.encode(claims, self.key, algorithm="ES256", headers={"kid": self.key_id})


@dataclass(frozen=True, slots=True)
class ApnsSettings:
    """Which app's notifications go where."""

    key: ApnsKey
    bundle_id: str
    url: str = PRODUCTION
    timeout: timedelta = timedelta(seconds=30)
    connections: int = 2
    streams: int = 500
    """Notifications under way on one connection; APNs allows one until it has taken the first."""
    tls: ssl.SSLContext | None = None

    def __post_init__(self) -> None:
        if not BUNDLE_ID.fullmatch(self.bundle_id):
            raise ValueError("a bundle id looks like com.example.shop")


class ApnsChannel:
    """Hands notifications to APNs for one app."""

    def __init__(self, settings: ApnsSettings, *, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._settings, self._clock = settings, clock
        self._client = Http2Client(
            Http2Settings(
                settings.url,
                timeout=settings.timeout,
                connections=settings.connections,
                streams=settings.streams,
                tls=settings.tls,
            )
        )
        self._shared = (("apns-topic", settings.bundle_id),)
        self._made_at = datetime.min.replace(tzinfo=UTC)
        self._bearer = b""

    @property
    def concurrency(self) -> int:
        return self._client.concurrency

    async def largest_message(self) -> int | None:
        return LARGEST_PAYLOAD

    async def send(self, message: PushMessage) -> Outcome:
        """Hand over one notification; see `channels.base.Channel.send`.

        A provider token that APNs finds too old is renewed, where it may be, and the notification sent once more: it
        was refused unseen.
        """
        if message.provider is not PushProvider.APNS or not DEVICE_TOKEN.fullmatch(message.token):
            detail = "This is no device token of APNs."
            return Outcome(OutcomeKind.REFUSED, "BAD_TOKEN", Phase.QUEUE, detail, bad_address=True)
        bearer = self._provider_token()
        outcome = await self._attempt(message, bearer)
        if outcome.code == STALE_TOKEN and (newer := self._provider_token(instead_of=bearer)) != bearer:
            outcome = await self._attempt(message, newer)
        return replace(outcome, code="AUTHENTICATION") if outcome.code == STALE_TOKEN else outcome

    async def check(self, message: PushMessage) -> Outcome:
        """Whether key, team, bundle id and environment belong together: what APNs says of a notification to a device
        that does not exist. ACCEPTED when its only objection is the device."""
        outcome = await self.send(message)
        if outcome.bad_address and outcome.phase is Phase.ANSWER:
            return Outcome(OutcomeKind.ACCEPTED, "ACCEPTED", Phase.ANSWER)
        return outcome

    async def close(self) -> None:
        await self._client.close()

    async def _attempt(self, message: PushMessage, bearer: bytes) -> Outcome:
        expiration = 0 if message.expires_at is None else int(message.expires_at.timestamp())
        own = [
            (b"authorization", bearer),
            (b"apns-id", message.message_id.encode()),
            (b"apns-push-type", message.push_type.encode()),
            (b"apns-priority", b"10" if message.urgent else b"5"),
            (b"apns-expiration", b"%d" % expiration),
        ]
        if message.collapse_id is not None:
            own.append((b"apns-collapse-id", message.collapse_id.encode()))
        path = b"/3/device/" + message.token.encode()
        answer = await self._client.post(Request(path, self._shared, tuple(own), message.payload))
        if isinstance(answer, Lost):
            return lost(answer)
        return classify(answer.status, answer.headers, answer.body, self._clock(), called=message.message_id)

    def _provider_token(self, *, instead_of: bytes = b"") -> bytes:
        """The token to send with; a new one when it is too old, or found to be and older than 20 minutes."""
        now = self._clock()
        age = now - self._made_at
        if age >= RENEW_AFTER or (self._bearer == instead_of and age >= BETWEEN_TOKENS):
            self._bearer = b"bearer " + self._settings.key.token(now).encode()
            self._made_at = now
        return self._bearer
