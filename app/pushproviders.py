"""What FCM and APNs say to a request: the answers of `app.pushsink`, in the forms that the real ones document."""

import re
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs
from uuid import uuid4

import jwt
import orjson

from app.pushsink import Push, Reply

MESSAGES = re.compile(r"/v1/projects/([a-z0-9.:-]+)/messages:send")
DEVICE = re.compile(r"/3/device/([^/]*)")
TOKEN_LIFE_S = 3_600
LARGEST_PAYLOAD = 4_096


@dataclass(frozen=True, slots=True)
class Shown:
    """A notification that was accepted."""

    token: str
    payload: dict[str, Any]
    """To APNs the body, to FCM the `message` without its token."""
    headers: dict[str, str]
    collapse: str | None
    """What a later one with the same takes the place of: APNs' collapse id, Android's tag."""


class Fcm:
    """FCM's HTTP v1, and the token endpoint of Google's OAuth at /token."""

    def __init__(self, *, by_token: dict[str, Reply] | None = None, clock: Callable[[], float] = time.time) -> None:
        self.by_token = by_token or {}
        """What is said of some devices."""
        self.shown: list[Shown] = []
        self.tokens: dict[str, float] = {}
        """Access tokens and when they end."""
        self.counted: Counter[str] = Counter()
        self._clock = clock

    def __call__(self, push: Push) -> Reply:
        self.counted[push.path] += 1
        if push.path == "/token":
            return self._token(push)
        if MESSAGES.fullmatch(push.path) is None:
            return fcm_error(404, "NOT_FOUND")
        bearer = push.headers.get("authorization", "").removeprefix("Bearer ")
        if self.tokens.get(bearer, 0) <= self._clock():
            return fcm_error(401, "UNAUTHENTICATED")
        try:
            request = orjson.loads(push.body)
            message = request["message"]
            token = message.pop("token")
        except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
            return fcm_error(400, "INVALID_ARGUMENT", "Invalid JSON payload received.")
        if token in self.by_token:
            return self.by_token[token]
        if len(token) < 8 or token == "muster-credential-check":
            return fcm_error(
                400, "INVALID_ARGUMENT", "The registration token is not a valid FCM registration token", fcm=True
            )
        if not request.get("validate_only"):
            collapse = message.get("android", {}).get("notification", {}).get("tag")
            self.shown.append(Shown(token, message, dict(push.headers), collapse))
        project = MESSAGES.fullmatch(push.path)
        name = f"projects/{project[1] if project else ''}/messages/0:{len(self.shown)}%31bd1c9631bd1c96"
        return Reply(200, orjson.dumps({"name": name}), {"content-type": "application/json; charset=UTF-8"})

    def _token(self, push: Push) -> Reply:
        asked = parse_qs(push.body.decode("utf-8", "replace"))
        if asked.get("grant_type") != ["urn:ietf:params:oauth:grant-type:jwt-bearer"] or "assertion" not in asked:
            return Reply(400, b'{"error": "invalid_grant", "error_description": "Not a JWT grant."}')
        token = f"ya29.{len(self.tokens) + 1}.{uuid4().hex}"
        self.tokens[token] = self._clock() + TOKEN_LIFE_S
        said = {"access_token": token, "expires_in": TOKEN_LIFE_S, "token_type": "Bearer"}
        return Reply(200, orjson.dumps(said), {"content-type": "application/json"})


class Apns:
    """APNs' HTTP/2 provider API."""

    def __init__(self, *, by_token: dict[str, Reply] | None = None, clock: Callable[[], float] = time.time) -> None:
        self.by_token = by_token or {}
        """What is said of some devices."""
        self.shown: list[Shown] = []
        self.bearers: list[str] = []
        """Provider tokens, as they came first."""
        self._clock = clock

    def __call__(self, push: Push) -> Reply:
        device = DEVICE.fullmatch(push.path)
        if device is None:
            return apns_error(404, "BadPath")
        refusal = self._provider(push.headers.get("authorization", ""))
        if refusal is not None:
            return refusal
        if "apns-topic" not in push.headers:
            return apns_error(400, "MissingTopic")
        if len(push.body) > LARGEST_PAYLOAD:
            return apns_error(413, "PayloadTooLarge")
        token = device[1]
        if token in self.by_token:
            return self.by_token[token]
        if not re.fullmatch("[0-9a-fA-F]{64,200}", token) or set(token) == {"0"}:
            return apns_error(400, "BadDeviceToken")
        try:
            payload = orjson.loads(push.body)
        except orjson.JSONDecodeError:
            return apns_error(400, "PayloadEmpty")
        self.shown.append(Shown(token, payload, dict(push.headers), push.headers.get("apns-collapse-id")))
        return Reply(200, b"", {"apns-id": push.headers.get("apns-id") or str(uuid4()).upper()})

    def _provider(self, authorization: str) -> Reply | None:
        bearer = authorization.removeprefix("bearer ")
        if bearer in self.bearers:
            return None
        try:
            head = jwt.get_unverified_header(bearer)
            made_at = jwt.decode(bearer, options={"verify_signature": False})["iat"]
        except (jwt.InvalidTokenError, KeyError):
            return apns_error(403, "InvalidProviderToken" if bearer else "MissingProviderToken")
        if head.get("alg") != "ES256" or not head.get("kid"):
            return apns_error(403, "InvalidProviderToken")
        if not -60 < self._clock() - made_at < TOKEN_LIFE_S:
            return apns_error(403, "ExpiredProviderToken")
        self.bearers.append(bearer)
        return None


def fcm_error(
    status: int,
    code: str,
    message: str = "",
    *,
    fcm: bool = False,
    field: str | None = None,
    device_quota: bool = False,
    headers: dict[str, str] | None = None,
) -> Reply:
    """An error as FCM answers it; `fcm` adds its own code to Google's, `field` the one that it finds wrong."""
    details: list[dict[str, Any]] = []
    if fcm:
        details.append({"@type": "type.googleapis.com/google.firebase.fcm.v1.FcmError", "errorCode": code})
    if field is not None:
        violation = {"field": field, "description": "Invalid value"}
        details.append({"@type": "type.googleapis.com/google.rpc.BadRequest", "fieldViolations": [violation]})
    if device_quota:
        violation = {"subject": "device:1", "description": "Too many for one device"}
        details.append({"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [violation]})
    error = {"code": status, "message": message or code, "status": code, "details": details}
    return Reply(status, orjson.dumps({"error": error}), {"content-type": "application/json", **(headers or {})})


def apns_error(
    status: int, reason: str, *, timestamp: int | None = None, headers: dict[str, str] | None = None
) -> Reply:
    """An error as APNs answers it; `timestamp` in milliseconds, as a 410 has it."""
    said: dict[str, Any] = {"reason": reason} | ({} if timestamp is None else {"timestamp": timestamp})
    return Reply(status, orjson.dumps(said), {"apns-id": str(uuid4()).upper(), **(headers or {})})
