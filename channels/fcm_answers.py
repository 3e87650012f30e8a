"""What an answer of FCM means, as one pure table (Firebase, "FCM error codes" and "Scale FCM")."""

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

from channels.base import Outcome, OutcomeKind, OutcomeScope
from channels.http2_messages import Phase
from channels.push_answers import asked_wait, body_object, busy, unknown, words

STALE_TOKEN = "ACCESS_TOKEN"
"""The code of an outcome that a new access token may mend."""
FCM_ERROR = "type.googleapis.com/google.firebase.fcm.v1.FcmError"
BAD_REQUEST = "type.googleapis.com/google.rpc.BadRequest"
QUOTA_FAILURE = "type.googleapis.com/google.rpc.QuotaFailure"
QUOTA_WAIT = timedelta(seconds=60)
"""The quota is by the minute; so long where the answer does not say."""
FIRST_WAIT = timedelta(seconds=10)
"""The least wait that Firebase asks for before the first retry."""
USUAL = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    429: "QUOTA_EXCEEDED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
}


def classify(status: int, headers: Mapping[str, str], body: bytes, now: datetime) -> Outcome:
    """What an answer of FCM means for the message. `now` is what a date in Retry-After counts from."""
    said = body_object(body)
    if status == 200:
        name = said.get("name")
        return Outcome(
            OutcomeKind.ACCEPTED, "ACCEPTED", Phase.ANSWER, provider_id=name if isinstance(name, str) else None
        )
    error = said.get("error")
    error = error if isinstance(error, dict) else {}
    message = error.get("message")
    message = message if isinstance(message, str) else ""
    code = fcm_code(error) or USUAL.get(status, "")
    detail, wait = words(f"{status} {code} {message}"), asked_wait(headers, now)
    match code:
        case "UNREGISTERED":
            return Outcome(OutcomeKind.REFUSED, "UNREGISTERED", Phase.ANSWER, detail, bad_address=True)
        case "SENDER_ID_MISMATCH":
            return Outcome(OutcomeKind.REFUSED, "OTHER_APP", Phase.ANSWER, detail, bad_address=True)
        case "INVALID_ARGUMENT":
            return invalid(error, message, detail)
        case "UNAUTHENTICATED":
            return Outcome(OutcomeKind.DEFERRED, STALE_TOKEN, Phase.ANSWER, detail, scope=OutcomeScope.CHANNEL)
        case "THIRD_PARTY_AUTH_ERROR" | "PERMISSION_DENIED" | "NOT_FOUND":
            # The APNs key that Firebase holds, the service account's rights, or a project that does not exist. (A
            # token that is gone is UNREGISTERED, never a bare NOT_FOUND.)
            return Outcome(OutcomeKind.DEFERRED, "AUTHENTICATION", Phase.ANSWER, detail, scope=OutcomeScope.CHANNEL)
        case "QUOTA_EXCEEDED":
            scope = OutcomeScope.RECIPIENT if is_device_quota(error) else OutcomeScope.HOST
            return busy(scope, detail, wait or QUOTA_WAIT)
        case "UNAVAILABLE":
            return busy(OutcomeScope.HOST, detail, wait, FIRST_WAIT)
        case "INTERNAL" | "UNSPECIFIED_ERROR":
            return busy(OutcomeScope.RECIPIENT, detail, wait, FIRST_WAIT)
        case _:
            return unknown(status, detail, wait)


def invalid(error: Mapping[str, Any], message: str, detail: str) -> Outcome:
    """INVALID_ARGUMENT is said of tokens and of payloads. Only where it names the token it is about the token: devices
    must not be given up for a payload of ours."""
    fields = [
        one.get("field", "")
        for part in details(error, BAD_REQUEST)
        for one in part.get("fieldViolations", ())
        if isinstance(one, dict)
    ]
    if "message.token" in fields or (not fields and "registration token" in message.lower()):
        return Outcome(OutcomeKind.REFUSED, "BAD_TOKEN", Phase.ANSWER, detail, bad_address=True)
    if "too big" in message.lower() or "too large" in message.lower():
        return Outcome(OutcomeKind.REFUSED, "MESSAGE_TOO_LARGE", Phase.ANSWER, detail, scope=OutcomeScope.CHANNEL)
    return Outcome(OutcomeKind.REFUSED, "PAYLOAD", Phase.ANSWER, detail, scope=OutcomeScope.CHANNEL)


def fcm_code(error: Mapping[str, Any]) -> str:
    """FCM's own error code, '' when the answer has none."""
    for part in details(error, FCM_ERROR):
        code = part.get("errorCode")
        if isinstance(code, str):
            return code
    return ""


def is_device_quota(error: Mapping[str, Any]) -> bool:
    """Whether it is one device that gets too many."""
    return any(
        isinstance(one, dict) and str(one.get("subject", "")).lower().startswith("device")
        for part in details(error, QUOTA_FAILURE)
        for one in part.get("violations", ())
    )


def details(error: Mapping[str, Any], kind: str) -> Iterator[dict[str, Any]]:
    parts = error.get("details")
    for part in parts if isinstance(parts, list) else ():
        if isinstance(part, dict) and part.get("@type") == kind:
            yield part
