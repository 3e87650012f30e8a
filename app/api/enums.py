"""The enumerations that clients see. Those of the domain are published here, each under one name.

Every module of app/api takes them from here: one that is used before it is published would be published a second
time, under its own name.
"""

from app.api.declare import enum
from campaigns.models import CampaignChannel, CampaignClass, CampaignStatus, DispatchKind, MissedPolicy
from profiles.addresses import Channel
from profiles.consent import ConsentStatus
from profiles.devices import Platform, Provider
from profiles.models import ConsentDefault
from segments.models import Cadence, EvaluationCause, EvaluationStatus, SegmentStatus, SegmentType
from segments.nodes import Operator

__all__ = [
    "Cadence",
    "CampaignChannel",
    "CampaignClass",
    "CampaignStatus",
    "Channel",
    "ConsentDefault",
    "ConsentStatus",
    "DispatchKind",
    "EvaluationCause",
    "EvaluationStatus",
    "MissedPolicy",
    "Operator",
    "Platform",
    "Provider",
    "SegmentStatus",
    "SegmentType",
]

enum(
    ConsentDefault,
    "What holds for a person who never said yes or no.",
    OPT_IN="Silence is no.",
    OPT_OUT="Silence is yes.",
)
enum(
    Channel,
    "What an address is for; consent and suppression are kept for each.",
    name="AddressChannel",
    EMAIL="Email addresses.",
    PUSH="Tokens of devices.",
)
enum(
    ConsentStatus,
    "What a person said about a topic.",
    SUBSCRIBED="Yes.",
    UNSUBSCRIBED="No.",
)
enum(Provider, "Who hands notifications to a device.", name="PushProvider", FCM="Google.", APNS="Apple.")
enum(Platform, "What a device runs.", name="DevicePlatform", IOS="iOS.", ANDROID="Android.", WEB="A browser.")
enum(
    Operator,
    "How a value is compared. A comparison with a missing trait or property is false; counts and sums take EQUALS to"
    " LESS_OR_EQUAL.",
    name="ConditionOperator",
    EQUALS="Is the value.",
    NOT_EQUALS="Is there and is another value.",
    GREATER_THAN="Is a number above the value.",
    GREATER_OR_EQUAL="Is the number or above it.",
    LESS_THAN="Is a number below the value.",
    LESS_OR_EQUAL="Is the number or below it.",
    BETWEEN="Is between two numbers, both included.",
    CONTAINS="Is a text that holds the value.",
    STARTS_WITH="Is a text that begins with the value.",
    ENDS_WITH="Is a text that ends with the value.",
    IN="Is one of a list.",
    NOT_IN="Is there and is none of a list.",
    EXISTS="Is there; takes no value.",
    MISSING="Is not there; takes no value.",
)
enum(
    SegmentType,
    "Where a segment's members come from.",
    STATIC="Curated by hand; never changes by itself.",
    DYNAMIC="Whoever meets its conditions.",
    EVERYONE="Built in, one a workspace: everybody, anonymous visitors too.",
)
enum(
    SegmentStatus,
    "Whether a segment is evaluated and can be targeted.",
    DRAFT="Never evaluated, cannot be targeted.",
    ACTIVE="Evaluated as its cadence says, can be targeted.",
    PAUSED="Keeps its members and stands still, cannot be targeted.",
    ARCHIVED="Put away.",
)
enum(
    Cadence,
    "How often a segment is evaluated in full.",
    name="RefreshCadence",
    NEVER="Once, on activation.",
    HOURLY="Every hour.",
    DAILY="Every day.",
    WEEKLY="Every week.",
    MONTHLY="Every month.",
    QUARTERLY="Every three months.",
    YEARLY="Every year.",
    CRON="As the field `cron` says.",
)
enum(
    EvaluationStatus,
    "How far an evaluation is.",
    QUEUED="Waits for a worker.",
    RUNNING="A worker is at it.",
    SUCCEEDED="The members are as it found them.",
    HELD="It would change too much and waits for a person.",
    FAILED="The members are as before; `error` says why.",
)
enum(
    EvaluationCause,
    "Who asked for an evaluation.",
    REQUEST="A person or program, with segmentEvaluate.",
    CADENCE="The clock.",
    ACTIVATION="The segment became active.",
    DEFINITION="Its conditions changed.",
    CAMPAIGN="A campaign that is about to be sent.",
)
enum(
    CampaignChannel,
    "How a campaign reaches people.",
    EMAIL="By email.",
    PUSH="By push notification.",
    BANNER="By a banner inside an app.",
)
enum(
    CampaignStatus,
    "How far a campaign is.",
    DRAFT="Being written.",
    PENDING_APPROVAL="Waits for a second person.",
    SCHEDULED="Starts by itself at its time.",
    PREPARING="The audience is frozen and the messages are being listed.",
    SENDING="Messages leave.",
    PAUSED="Held until somebody resumes it.",
    SENT="Done.",
    ACTIVE="A banner that is shown.",
    ENDED="A banner whose time is over.",
    CANCELLED="Stopped for good; a banner can be reactivated.",
    FAILED="Could not start; `statusReason` and `statusDetail` say why.",
)
enum(
    CampaignClass,
    "What kind of message it is by law.",
    MARKETING="Needs consent, a visible unsubscribe link and a postal address.",
    TRANSACTIONAL="Belongs to something the recipient did; ignores consent, never suppression.",
)
enum(
    MissedPolicy,
    "What happens to a schedule that is found later than its maximum lateness.",
    name="MissedSchedulePolicy",
    SEND="It is sent late.",
    SKIP="It is cancelled.",
    HOLD="It waits for a person.",
)
enum(DispatchKind, "What a run of a campaign was for.", SEND="The real send.", TEST="A test send.")
