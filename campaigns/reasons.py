"""Codes that the API answers about campaigns and messages, each with a sentence for people: docs/reasons.md.

Ours are enums. Those of a channel are the channel's own, and of templates the filter's; all of them have a sentence
here, and tests/campaigns/test_reasons.py finds one that has none.
"""

from collections.abc import Mapping
from enum import StrEnum


class SkipReason(StrEnum):
    """Why a message of the audience was not sent though it could have been."""

    UNSUBSCRIBED = "UNSUBSCRIBED"
    NO_CONSENT = "NO_CONSENT"
    SUPPRESSED = "SUPPRESSED"
    DUPLICATE_ADDRESS = "DUPLICATE_ADDRESS"
    EXCLUDED = "EXCLUDED"
    NO_ADDRESS = "NO_ADDRESS"
    NO_DEVICE = "NO_DEVICE"
    DEVICE_GONE = "DEVICE_GONE"
    DEVICE_MOVED = "DEVICE_MOVED"
    NO_CREDENTIAL = "NO_CREDENTIAL"
    ERASED = "ERASED"
    EXPIRED = "EXPIRED"
    CANCELLED = "CANCELLED"
    SILENT = "SILENT"
    CONTENT_REFUSED = "CONTENT_REFUSED"


class PauseReason(StrEnum):
    """Why a campaign is PAUSED, beside the codes of its channel."""

    BY_HAND = "BY_HAND"
    MISSED = "MISSED"
    SILENT = "SILENT"
    ERROR_THRESHOLD = "ERROR_THRESHOLD"
    RENDER_FAILURES = "RENDER_FAILURES"
    TOKENS_GONE = "TOKENS_GONE"
    APPROVAL_MISSING = "APPROVAL_MISSING"


class PrepareReason(StrEnum):
    """What a campaign in PREPARING waits for before its audience is frozen."""

    AWAITS_EVALUATION = "AWAITS_EVALUATION"
    EVALUATION_HELD = "EVALUATION_HELD"


RESOLVED_BY_HAND = "RESOLVED_BY_HAND"
RECONCILED = "RECONCILED"

SKIPPED: Mapping[str, str] = {
    SkipReason.UNSUBSCRIBED: "The recipient does not want this topic, or any marketing.",
    SkipReason.NO_CONSENT: "The workspace mails only those who said yes, and this recipient has not.",
    SkipReason.SUPPRESSED: "The address is on the suppression list: it never worked, or somebody complained.",
    SkipReason.DUPLICATE_ADDRESS: "Another profile with the same mailbox, or one merged with this, gets the message.",
    SkipReason.EXCLUDED: "The profile was merged into one that the campaign excludes.",
    SkipReason.NO_ADDRESS: "The profile had an address when the audience was frozen, and has none now.",
    SkipReason.NO_DEVICE: "The profile has no device that push notifications reach.",
    SkipReason.DEVICE_GONE: "The device was disabled after the audience was frozen.",
    SkipReason.DEVICE_MOVED: "The device went to another profile after the audience was frozen.",
    SkipReason.NO_CREDENTIAL: "The app that the device runs has no push credential for its provider.",
    SkipReason.ERASED: "The profile was erased after the audience was frozen.",
    SkipReason.EXPIRED: "The campaign expired before this message's turn came.",
    SkipReason.CANCELLED: "The campaign was cancelled before this message's turn came.",
    SkipReason.SILENT: "No worker was at this test send for too long; send another one.",
    SkipReason.CONTENT_REFUSED: "This version of Muster refuses the content of this test send; save it again.",
}
UNMADE: Mapping[str, str] = {
    "MISSING_VALUE": "The template asks for something that this recipient lacks; declare a default for it.",
    "NOT_COMPARABLE": "The template compares this recipient's value with something of another kind.",
    "NOT_A_DATE": "The template writes a date, and this recipient's value is none.",
    "NOT_A_LIST": "The template goes through a list, and this recipient's value is none.",
    "NOT_A_NUMBER": "The template writes a number, and this recipient's value is none.",
    "NOT_A_URL": "The template writes a web address, and this recipient's value is none.",
    "NOT_AN_ADDRESS": "The address cannot be written into a mail; correct the profile.",
    "NOT_TEXT": "The template writes a value of this recipient that is no text.",
    "TOO_LARGE": "The message made for this recipient is too large; loop over less.",
    "TOO_MUCH_WORK": "The template does too much for this recipient; use fewer filters.",
}
REFUSED: Mapping[str, str] = {
    "BAD_ADDRESS": "The server says that there is no such mailbox; the address is suppressed from now on.",
    "MAILBOX_REFUSED": "The mailbox is full, closed, or takes no such message.",
    "POLICY": "The server refuses the message by its policy, as spam or for want of authentication.",
    "REFUSED": "The server refuses the message for good without saying more.",
    "UTF8_ADDRESS": "The address has letters beyond ASCII, which the server does not take.",
    "MESSAGE_TOO_LARGE": "The server takes no message of this size; shorten the content.",
    "UNREGISTERED": "The app was removed from the device, or its token has expired; the device is disabled.",
    "BAD_TOKEN": "The provider knows no such token; the device is disabled.",
    "OTHER_APP": "The token is of another app or project; the device is disabled.",
    "PAYLOAD": "The provider finds the notification itself wrong; its words say how.",
}
NOT_YET: Mapping[str, str] = {
    "TRY_LATER": "The server asks to try again later.",
    "SERVER_CLOSING": "The server is closing its connections.",
    "HOST_UNAVAILABLE": "The server does not take messages now.",
    "CONNECT_FAILED": "The server cannot be reached.",
    "CONNECTION_LOST": "The connection broke; before the message had left it is tried again, after that it is in"
    " doubt.",
    "TIMEOUT": "The server did not answer in time; before the message had left it is tried again, after that it is in"
    " doubt.",
    "BAD_REPLY": "The server answered what its protocol does not have.",
    "NOT_BEGUN": "PostgreSQL was away when the message was to leave; it did not, and is tried again.",
    "LEASE_ENDED": "The worker was stopped before the message left; it did not leave, and is tried again.",
    "CLOSED": "The worker was shutting down; another one tries again.",
    "AUTHENTICATION": "The server refuses our login; correct MUSTER_SMTP_URL, or for push the app's credential, then"
    " resume.",
    "TLS_FAILED": "No secure connection to the provider could be made.",
    "GATEWAY": "Something on the way to the provider answered in its place; the notification may have arrived.",
    "TLS_UNAVAILABLE": "The server offers no encryption, which MUSTER_SMTP_URL asks for.",
    "SENDER_REFUSED": "The server does not take mail from this sender; let it, or use another sender.",
}
DOUBTS: Mapping[str, str] = {
    "WORKER_LOST": "The worker ended while the message was leaving; it may have arrived.",
    "CHANNEL_FAILED": "A mistake of ours while the message was leaving; the log of the worker says which.",
    RESOLVED_BY_HAND: "It was in doubt, and a person said that it was sent.",
    RECONCILED: "It was in doubt, and the mail server's record says that it was sent.",
}
PAUSED: Mapping[str, str] = {
    PauseReason.BY_HAND: "A person paused it.",
    PauseReason.MISSED: "It was found later than its maximum lateness, and its policy is HOLD.",
    PauseReason.SILENT: "No worker was at it for too long; after a restored backup it must not be sent again.",
    PauseReason.ERROR_THRESHOLD: "More messages were refused than its error threshold allows.",
    PauseReason.RENDER_FAILURES: "More than 1 % of its messages could not be made.",
    PauseReason.APPROVAL_MISSING: "It goes to more people than may be without a second person's approval.",
    PauseReason.TOKENS_GONE: "Half of the devices or more are none of the app's, as it seems: its credential is of"
    " another app, or of another environment.",
}
PREPARING: Mapping[str, str] = {
    PrepareReason.AWAITS_EVALUATION: "It waits until its dynamic segments are evaluated.",
    PrepareReason.EVALUATION_HELD: "An evaluation that it waits for is held by the segment's change guard; approve it"
    " with segmentEvaluationApprove, or mend the conditions.",
}
OF_MESSAGES: Mapping[str, str] = {**SKIPPED, **UNMADE, **REFUSED, **NOT_YET, **DOUBTS}
"""By the `reason` of a delivery."""


def explain(reason: str) -> str:
    """What the reason of a message means, a sentence."""
    return OF_MESSAGES.get(reason, "The provider gave a code of its own; its words say more.")
