"""What an answer of APNs means, as one pure table (Apple, "Handling notification responses from APNs")."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from enum import Enum, auto

from channels.base import Outcome, OutcomeKind, OutcomeScope
from channels.http2_messages import Phase
from channels.push_answers import asked_wait, body_object, busy, unknown, words

STALE_TOKEN = "PROVIDER_TOKEN"
"""The code of an outcome that a newer provider token may mend."""
LONGER_EACH_TIME = timedelta(minutes=15)
"""Apple asks to wait so long after a 5xx, and longer each time."""
BETWEEN_TOKENS = timedelta(minutes=20)
"""A provider token may be renewed once in this time."""


class Meaning(Enum):
    GONE = auto()
    """The token reaches no installation of this app any more, or never did."""
    PAYLOAD = auto()
    """What we send is wrong, whoever it is sent to."""
    TOO_LARGE = auto()
    CREDENTIALS = auto()
    """Key, team, bundle id or environment are wrong; nobody's notification leaves until a person acts."""
    OLD_PROVIDER_TOKEN = auto()
    TOO_MANY_PROVIDER_TOKENS = auto()
    DEVICE_BUSY = auto()
    """Too many for this one device."""
    HOST_BUSY = auto()
    OUR_CONNECTION = auto()
    """It closes the connection, and says so once more."""


REASONS = {
    "BadCollapseId": Meaning.PAYLOAD,
    "BadDeviceToken": Meaning.GONE,
    "BadExpirationDate": Meaning.PAYLOAD,
    "BadMessageId": Meaning.PAYLOAD,
    "BadPriority": Meaning.PAYLOAD,
    "BadTopic": Meaning.CREDENTIALS,
    "DeviceTokenNotForTopic": Meaning.GONE,
    "DuplicateHeaders": Meaning.PAYLOAD,
    "IdleTimeout": Meaning.OUR_CONNECTION,
    "InvalidPushType": Meaning.PAYLOAD,
    "MissingDeviceToken": Meaning.PAYLOAD,
    "MissingTopic": Meaning.CREDENTIALS,
    "PayloadEmpty": Meaning.PAYLOAD,
    "TopicDisallowed": Meaning.CREDENTIALS,
    "BadCertificate": Meaning.CREDENTIALS,
    "BadCertificateEnvironment": Meaning.CREDENTIALS,
    "BadEnvironmentKeyIdInToken": Meaning.CREDENTIALS,
    "ExpiredProviderToken": Meaning.OLD_PROVIDER_TOKEN,
    "Forbidden": Meaning.CREDENTIALS,
    "InvalidProviderToken": Meaning.OLD_PROVIDER_TOKEN,
    "MissingProviderToken": Meaning.CREDENTIALS,
    "UnrelatedKeyIdInToken": Meaning.CREDENTIALS,
    "BadPath": Meaning.PAYLOAD,
    "MethodNotAllowed": Meaning.PAYLOAD,
    "ExpiredToken": Meaning.GONE,
    "Unregistered": Meaning.GONE,
    "PayloadTooLarge": Meaning.TOO_LARGE,
    "TooManyProviderTokenUpdates": Meaning.TOO_MANY_PROVIDER_TOKENS,
    "TooManyRequests": Meaning.DEVICE_BUSY,
    "InternalServerError": Meaning.HOST_BUSY,
    "ServiceUnavailable": Meaning.HOST_BUSY,
    "Shutdown": Meaning.HOST_BUSY,
}
BY_STATUS = {
    403: Meaning.CREDENTIALS,
    410: Meaning.GONE,
    413: Meaning.TOO_LARGE,
    429: Meaning.DEVICE_BUSY,
    500: Meaning.HOST_BUSY,
    503: Meaning.HOST_BUSY,
}
"""Where the body does not say why."""


def classify(status: int, headers: Mapping[str, str], body: bytes, now: datetime, *, called: str) -> Outcome:
    """What an answer of APNs means for the notification. `now` is what a date in Retry-After counts from; `called`: the
    apns-id that it was sent with, which APNs calls it by and only repeats."""
    if status == 200:
        return Outcome(OutcomeKind.ACCEPTED, "ACCEPTED", Phase.ANSWER, provider_id=called)
    said = body_object(body)
    reason = said.get("reason")
    reason = reason if isinstance(reason, str) else ""
    detail, wait = words(f"{status} {reason}"), asked_wait(headers, now)
    match REASONS.get(reason) or BY_STATUS.get(status):
        case Meaning.GONE:
            code = {"BadDeviceToken": "BAD_TOKEN", "DeviceTokenNotForTopic": "OTHER_APP"}.get(reason, "UNREGISTERED")
            return Outcome(
                OutcomeKind.REFUSED,
                code,
                Phase.ANSWER,
                detail,
                bad_address=True,
                gone_at=instant(said.get("timestamp")),
            )
        case Meaning.PAYLOAD:
            return Outcome(OutcomeKind.REFUSED, "PAYLOAD", Phase.ANSWER, detail, scope=OutcomeScope.CHANNEL)
        case Meaning.TOO_LARGE:
            return Outcome(OutcomeKind.REFUSED, "MESSAGE_TOO_LARGE", Phase.ANSWER, detail, scope=OutcomeScope.CHANNEL)
        case Meaning.CREDENTIALS:
            return Outcome(OutcomeKind.DEFERRED, "AUTHENTICATION", Phase.ANSWER, detail, scope=OutcomeScope.CHANNEL)
        case Meaning.OLD_PROVIDER_TOKEN:
            return Outcome(OutcomeKind.DEFERRED, STALE_TOKEN, Phase.ANSWER, detail, scope=OutcomeScope.CHANNEL)
        case Meaning.TOO_MANY_PROVIDER_TOKENS:
            return busy(OutcomeScope.HOST, detail, wait or BETWEEN_TOKENS)
        case Meaning.DEVICE_BUSY:
            return busy(OutcomeScope.RECIPIENT, detail, wait)
        case Meaning.HOST_BUSY:
            # A 500 now and then is about one message; a 503 is about all.
            scope = OutcomeScope.RECIPIENT if status == 500 else OutcomeScope.HOST
            return busy(scope, detail, wait, LONGER_EACH_TIME)
        case Meaning.OUR_CONNECTION:
            return busy(OutcomeScope.HOST, detail, wait)
        case None:
            return unknown(status, detail, wait)


def instant(milliseconds: object) -> datetime | None:
    """The instant of a 410's `timestamp`, in milliseconds since 1970."""
    if not isinstance(milliseconds, int) or not 0 < milliseconds < 10**14:
        return None
    return datetime.fromtimestamp(milliseconds / 1000, UTC)
