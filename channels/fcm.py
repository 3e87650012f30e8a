"""Push notifications over FCM's HTTP v1: one POST each, the service account's access token by pyfcm."""

import asyncio
import re
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import orjson

from channels.base import Outcome, OutcomeKind, OutcomeScope, PushMessage, PushProvider
from channels.fcm_answers import STALE_TOKEN, classify
from channels.http2 import Http2Client, Http2Settings
from channels.http2_messages import Lost, Phase, Request, Response
from channels.push_answers import asked_wait, lost, words

FCM, TOKENS = "https://fcm.googleapis.com", "https://oauth2.googleapis.com/token"
RENEW_BEFORE = timedelta(minutes=5)
"""An access token is renewed so long before its end; they live for an hour."""
REST = timedelta(seconds=10)
"""After a token that was not given, nobody asks for another."""
LARGEST_PAYLOAD = 4_096
NO_DEVICE = "muster-credential-check"
PROJECT_ID = re.compile(r"[a-z0-9.:-]{4,100}")


class ServiceAccount:
    """A Firebase service account, as the JSON file that Google makes has it."""

    def __init__(self, text: str) -> None:
        """Raises ValueError, saying what to give instead, and never repeats the key."""
        # Here, since they bring requests and aiohttp with them: 0.6 s that no other process should pay.
        from google.oauth2.service_account import Credentials
        from pyfcm import FCMNotification

        try:
            info = orjson.loads(text)
        except orjson.JSONDecodeError:
            raise ValueError("paste the service account's JSON file whole") from None
        if not isinstance(info, dict) or info.get("type") != "service_account":
            raise ValueError('this is no service account: its JSON says "type": "service_account"')
        self.project_id = info.get("project_id")
        self.client_email = info.get("client_email")
        if not isinstance(self.project_id, str) or not PROJECT_ID.fullmatch(self.project_id):
            raise ValueError("the JSON names no project_id that could be one")
        if not isinstance(self.client_email, str) or "@" not in self.client_email:
            raise ValueError("the JSON names no client_email that could be one")
        try:
            # Only these parts: whoever pastes the file must not choose whom we call (token_uri, universe_domain).
            parts = {name: info[name] for name in ("client_email", "private_key_id", "private_key")}
            credentials = Credentials.from_service_account_info(
                {**parts, "token_uri": TOKENS}, scopes=["https://www.googleapis.com/auth/firebase.messaging"]
            )
        except (ValueError, TypeError, KeyError):
            raise ValueError("the JSON's private_key is missing or damaged") from None
        self.pyfcm = FCMNotification(credentials=credentials, project_id=self.project_id)


@dataclass(frozen=True, slots=True)
class FcmSettings:
    """Which project's notifications go where."""

    account: ServiceAccount
    url: str = FCM
    token_url: str = TOKENS
    timeout: timedelta = timedelta(seconds=30)
    """One attempt; Firebase asks for 10 s at least."""
    connections: int = 4
    streams: int = 500
    """Messages under way on one connection, where FCM allows so many; it takes 100."""
    tls: ssl.SSLContext | None = None


class FcmChannel:
    """Hands messages to FCM for one project."""

    def __init__(self, settings: FcmSettings, *, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._clock = clock
        self._client = Http2Client(
            Http2Settings(
                settings.url,
                timeout=settings.timeout,
                connections=settings.connections,
                streams=settings.streams,
                tls=settings.tls,
            )
        )
        self._path = f"/v1/projects/{settings.account.project_id}/messages:send".encode()
        self._tokens = AccessTokens(settings, clock)
        self._account = settings.account

    @property
    def concurrency(self) -> int:
        return self._client.concurrency

    async def largest_message(self) -> int | None:
        return LARGEST_PAYLOAD

    async def send(self, message: PushMessage) -> Outcome:
        """Hand over one message; see `channels.base.Channel.send`.

        An access token that FCM does not take is renewed, and the message sent once more: it was refused unseen.
        """
        if message.provider is not PushProvider.FCM:
            detail = "This is no token of FCM."
            return Outcome(OutcomeKind.REFUSED, "BAD_TOKEN", Phase.QUEUE, detail, bad_address=True)
        token, rest = orjson.dumps(message.token), message.payload[1:]
        comma = b"," if len(rest) > 1 else b""
        return await self._post(b"".join((b'{"message":{"token":', token, comma, rest, b"}")))

    async def check(self) -> Outcome:
        """Whether the service account may send for its project: what FCM says of a message to a device that does not
        exist, which it is asked not to send. ACCEPTED when its only objection is the device."""
        body = self._account.pyfcm.parse_payload(fcm_token=NO_DEVICE, notification_title="Muster", dry_run=True)
        outcome = await self._post(body)
        if outcome.bad_address:
            return Outcome(OutcomeKind.ACCEPTED, "ACCEPTED", Phase.ANSWER)
        return outcome

    async def close(self) -> None:
        await asyncio.gather(self._client.close(), self._tokens.close())

    async def _post(self, body: bytes) -> Outcome:
        headers = await self._tokens.headers()
        if isinstance(headers, Outcome):
            return headers
        outcome = await self._attempt(headers, body)
        if outcome.code != STALE_TOKEN:
            return outcome
        newer = await self._tokens.headers(instead_of=headers)
        if isinstance(newer, Outcome):
            return newer
        outcome = await self._attempt(newer, body)
        return replace(outcome, code="AUTHENTICATION") if outcome.code == STALE_TOKEN else outcome

    async def _attempt(self, headers: "Headers", body: bytes) -> Outcome:
        answer = await self._client.post(Request(self._path, headers, (), body))
        if isinstance(answer, Lost):
            return lost(answer)
        return classify(answer.status, answer.headers, answer.body, self._clock())


Headers = tuple[tuple[str, str], ...]


class AccessTokens:
    """The access token of a service account, renewed when it nears its end or is refused; one renewal at a time.

    google-auth signs and reads in a thread, since it blocks; what it sends goes over a client of ours, with our limits.
    """

    def __init__(self, settings: FcmSettings, clock: Callable[[], datetime]) -> None:
        self._account, self._clock = settings.account, clock
        parts = urlsplit(settings.token_url)
        self._path = (parts.path or "/").encode()
        self._client = Http2Client(
            Http2Settings(f"{parts.scheme}://{parts.netloc}", timeout=settings.timeout, connections=1, tls=settings.tls)
        )
        self._renewing = asyncio.Lock()
        self._headers: Headers = ()
        self._renew_at = datetime.min.replace(tzinfo=UTC)
        self._failure: Outcome | None = None
        self._rests_until = datetime.min.replace(tzinfo=UTC)

    async def headers(self, *, instead_of: Headers | None = None) -> Headers | Outcome:
        """The headers to send with, or why there are none. With `instead_of` other ones, since those were refused."""
        if self._is_good(instead_of):
            return self._headers
        async with self._renewing:
            if self._is_good(instead_of):  # somebody else has renewed it meanwhile
                return self._headers
            if self._failure is not None and self._clock() < self._rests_until:
                return self._failure
            self._failure = await self._renew()
            self._rests_until = self._clock() + REST
            return self._failure or self._headers

    async def close(self) -> None:
        await self._client.close()

    def _is_good(self, instead_of: Headers | None) -> bool:
        return self._headers != () and self._headers != instead_of and self._clock() < self._renew_at

    async def _renew(self) -> Outcome | None:
        """Ask for a token; answers why none was given, or None."""
        from google.auth.exceptions import GoogleAuthError, TransportError

        loop = asyncio.get_running_loop()
        answers: list[Response | Lost] = []

        def carry(url: str, method: str = "GET", body: Any = None, headers: Any = None, **_: Any) -> Carried:
            # In google-auth's thread. It asks again after an answer such as 503, and not at all after silence.
            request = Request(self._path, tuple((name.lower(), value) for name, value in headers.items()), (), body)
            answer = asyncio.run_coroutine_threadsafe(self._client.post(request), loop).result()
            answers.append(answer)
            if isinstance(answer, Lost):
                raise TransportError(answer.why.value)
            return Carried(answer.status, answer.headers, answer.body)

        credentials = self._account.pyfcm.credentials
        try:
            await asyncio.to_thread(credentials.refresh, carry)
        except GoogleAuthError as error:
            return self._refused(answers[-1] if answers else None, str(error.args[0]) if error.args else "")
        self._headers = (("content-type", "application/json"), ("authorization", f"Bearer {credentials.token}"))
        self._renew_at = credentials.expiry.replace(tzinfo=UTC) - RENEW_BEFORE
        return None

    def _refused(self, answer: Response | Lost | None, said: str) -> Outcome:
        """What it means for the messages that no token was given: none of them has left."""
        detail = words(f"no access token: {said}")
        if isinstance(answer, Lost):
            why, scope = answer.why, OutcomeScope.HOST
            return Outcome(OutcomeKind.DEFERRED, why, Phase.CONNECT, detail, scope=scope)
        if answer is not None and answer.status in (400, 401, 403):
            return Outcome(OutcomeKind.DEFERRED, "AUTHENTICATION", Phase.CONNECT, detail, scope=OutcomeScope.CHANNEL)
        wait = None if answer is None else asked_wait(answer.headers, self._clock())
        return Outcome(
            OutcomeKind.DEFERRED, "TRY_LATER", Phase.CONNECT, detail, retry_after=wait, scope=OutcomeScope.HOST
        )


@dataclass(frozen=True, slots=True)
class Carried:
    """An answer as google-auth reads it (google.auth.transport.Response)."""

    status: int
    headers: Mapping[str, str]
    data: bytes
