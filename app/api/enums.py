"""The enumerations that clients see. Those of the domain are published here, each under one name.

Every module of app/api takes them from here: one that is used before it is published would be published a second
time, under its own name.
"""

from app.api.declare import enum
from campaigns.banner_content import BannerField
from campaigns.banner_events import BannerEventKind
from campaigns.models import (
    CampaignChannel,
    CampaignClass,
    CampaignStatus,
    DeliveryEventKind,
    DispatchKind,
    MissedPolicy,
)
from campaigns.push_content import InterruptionLevel, PushPriority
from campaigns.push_content import IosPushType as ApnsPushType
from campaigns.push_payloads import PushTarget
from campaigns.resolving import Resolution
from profiles.addresses import Channel
from profiles.consent import ConsentStatus
from profiles.devices import DisabledReason, Platform, Provider
from profiles.keys import Role, Scope
from profiles.models import ConsentDefault, KeyKind
from segments.catalogue import ValueType
from segments.changes import ChangeKind
from segments.members import MemberOrder
from segments.models import BuilderMode, Cadence, EvaluationCause, EvaluationStatus, SegmentStatus, SegmentType
from segments.nodes import (
    AttributeName,
    ContextField,
    Did,
    Direction,
    MatchMode,
    Measure,
    Operator,
    ScoreOf,
)
from segments.populating import PopulateMode

__all__ = [
    "ApnsPushType",
    "AttributeName",
    "BannerEventKind",
    "BannerField",
    "BuilderMode",
    "Cadence",
    "CampaignChannel",
    "CampaignClass",
    "CampaignStatus",
    "ChangeKind",
    "Channel",
    "ConsentDefault",
    "ConsentStatus",
    "ContextField",
    "DeliveryEventKind",
    "Did",
    "Direction",
    "DisabledReason",
    "DispatchKind",
    "EvaluationCause",
    "EvaluationStatus",
    "InterruptionLevel",
    "KeyKind",
    "MatchMode",
    "Measure",
    "MemberOrder",
    "MissedPolicy",
    "Operator",
    "Platform",
    "PopulateMode",
    "Provider",
    "PushPriority",
    "PushTarget",
    "Resolution",
    "Role",
    "Scope",
    "ScoreOf",
    "SegmentStatus",
    "SegmentType",
    "ValueType",
]

enum(
    ConsentDefault,
    "What holds for a person who never said yes or no.",
    OPT_IN="Silence is no.",
    OPT_OUT="Silence is yes.",
)
enum(
    KeyKind,
    "Who may hold a key.",
    name="ApiKeyKind",
    SECRET="Servers and people: it may what its scopes say.",
    PUBLISHABLE="Everybody who has the app or the page: it acts on anonymous visitors.",
)
enum(
    Scope,
    "What somebody may do. Whoever may change something may read too; INGEST alone reads nothing.",
    READ="Read all that is not kept for admins.",
    SEGMENTS="Make, change and evaluate segments and saved queries.",
    CAMPAIGNS="Write campaigns and submit them for approval.",
    SEND="Start, schedule, stop and approve campaigns.",
    ADMIN="Keys, the audit log, the workspace, push credentials, erasure and suppression.",
    INGEST="Tell of people, events and devices, and make client tokens.",
)
enum(
    Role,
    "Scopes by one name.",
    VIEWER="READ.",
    MARKETER="READ, SEGMENTS and CAMPAIGNS.",
    SENDER="What MARKETER has, and SEND.",
    ADMIN="All.",
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
enum(
    DisabledReason,
    "Why a device is not sent to any more.",
    name="DeviceDisabledReason",
    UNREGISTERED="The app said so.",
    SURPLUS="Its profile registered too many newer ones.",
    GONE="Its token reaches no installation of the app any more, as the push service said.",
)
enum(
    InterruptionLevel,
    "How much an iPhone lets a notification disturb.",
    PASSIVE="It waits in the list, without light or sound.",
    ACTIVE="Light and sound, unless somebody focuses.",
    TIME_SENSITIVE="Light and sound, even when somebody focuses; the app needs Apple's entitlement.",
    CRITICAL="Light and sound, even when the phone is silent; the app needs Apple's entitlement.",
)
enum(
    PushPriority,
    "How soon a notification is shown.",
    NORMAL="When it suits the battery: priority 5 of APNs, NORMAL of FCM.",
    HIGH="At once: priority 10 of APNs, HIGH of FCM.",
)
enum(
    ApnsPushType,
    "What APNs is told that a notification is.",
    name="ApnsPushType",
    ALERT="It is shown.",
    BACKGROUND="It wakes the app.",
)
enum(
    PushTarget,
    "Who is told, for which platform.",
    APNS="APNs: its body.",
    FCM_IOS="FCM, for iPhones: its message without the token.",
    FCM_ANDROID="FCM, for Android: its message without the token.",
    FCM_WEB="FCM, for browsers: its message without the token.",
)
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
    CONTAINS="Is a text that holds the value, or a list of texts of which one is the value.",
    NOT_CONTAINS="Is there and does not contain the value.",
    STARTS_WITH="Is a text that begins with the value.",
    ENDS_WITH="Is a text that ends with the value.",
    MATCHES="Is a text like the pattern, in which `*` stands for any characters, none included.",
    IN="Is one of a list.",
    NOT_IN="Is there and is none of a list.",
    EXISTS="Is there; takes no value.",
    MISSING="Is not there; takes no value.",
    BEFORE="Is a date earlier than this date or instant.",
    AFTER="Is a date at or later than this date or instant.",
    WITHIN_LAST="Is a date at most this long ago, and not ahead.",
    MORE_THAN_AGO="Is a date longer ago than this.",
)
enum(
    AttributeName,
    "What is known of a profile beside its traits.",
    COUNTRY="ISO code of the country, its own or else that of the latest event that carried one.",
    CITY="The city, its own or else that of the latest event that carried one.",
    DEVICE_TYPE="The device of the latest event that carried one, such as `mobile`.",
    BROWSER="The browser of the latest event that carried one.",
    LOCALE="The locale, such as `en-GB`.",
    TIME_ZONE="IANA name of the time zone.",
    EMAIL="The email address.",
    PHONE="The phone number.",
    EXTERNAL_ID="Your own id of the profile.",
)
enum(
    BannerEventKind,
    "What happened to a banner.",
    IMPRESSION="It was seen.",
    HIDDEN="It would have been seen, were the viewer not held out.",
    CLICK="Its link was followed.",
    DISMISS="It was sent away.",
)
enum(
    ContextField,
    "What comes with an event beside its properties.",
    PAGE_PATH="Path of the page.",
    DEVICE_TYPE="The device, such as `mobile`.",
    BROWSER="The browser.",
    COUNTRY="ISO code of the country.",
    CITY="The city.",
)
enum(
    ScoreOf,
    "Which fit a score is of.",
    ICP="The ideal customer profile: traits `icp_code` and `icp_score`.",
    PERSONA="The buyer persona: traits `persona_code` and `persona_score`.",
)
enum(
    Did,
    "What somebody did with a campaign's message.",
    name="CampaignEngagement",
    RECEIVED="It was sent to them.",
    OPENED="They opened it; machines that open mail do not count.",
    CLICKED="They clicked a link in it.",
)
enum(
    MatchMode,
    "How the conditions of a simple segment are joined.",
    ALL="All must be met.",
    ANY="At least one must be met.",
)
enum(
    Direction,
    "Which end of a ranking is the top.",
    name="RankingDirection",
    DESC="The highest values.",
    ASC="The lowest values.",
)
enum(
    Measure,
    "What a ranking makes of events.",
    name="RankingMeasure",
    COUNT="Their number.",
    SUM="The total of a property.",
    AVG="The average of a property.",
    MIN="The lowest value of a property.",
    MAX="The highest value of a property.",
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
    DEPENDENCY="A segment that names this one is evaluated, or many members changed of one that this one names.",
    BACKLOG="More people changed at once than are followed one by one.",
    GUARD="Following changes one by one would have removed more members at once than the change guard allows.",
)
enum(
    BuilderMode,
    "Which builder a segment's conditions are from.",
    name="SegmentMode",
    SIMPLE="The simple one: at most 10 conditions, all or any of which must be met.",
    NESTED="The nested one.",
)
enum(
    MemberOrder,
    "In which order members are listed.",
    name="SegmentMemberOrder",
    ID="As their profiles were made.",
    RANK="As the segment ranks them, the first first.",
)
enum(
    ChangeKind,
    "What happened to a member.",
    name="SegmentMemberChangeKind",
    EXITED="Is no member any more.",
    ENTERED="Is a member since.",
    RERANKED="Stayed, while the value that the segment ranks by changed.",
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
enum(
    DeliveryEventKind,
    "What happened to a message after it was sent.",
    OPEN="It was opened: its images were loaded.",
    CLICK="A link in it was followed.",
)
enum(
    Resolution,
    "What is to become of messages in doubt.",
    name="InDoubtOutcome",
    SENT="They were sent: nothing more leaves.",
    RETRY="They are sent again: whoever had one gets it twice.",
)
enum(DispatchKind, "What a run of a campaign was for.", SEND="The real send.", TEST="A test send.")
enum(
    ValueType,
    "Of what type the values of a trait or property are.",
    name="FieldValueType",
    TEXT="Texts.",
    NUMBER="Numbers.",
    BOOLEAN="True or false.",
    DATE="Texts that are ISO 8601 dates.",
    LIST="Lists.",
    OBJECT="Objects, which no condition compares.",
)
enum(
    PopulateMode,
    "What happens to the members of a static segment when a query is asked.",
    ADD="Whom the query finds enters.",
    REMOVE="Whom the query finds leaves.",
    REPLACE="Whom the query finds are the members, and nobody else.",
)
enum(
    BannerField,
    "What a placement may allow banners to have.",
    TITLE="A title.",
    BODY="A text.",
    IMAGE="An image and what it shows.",
    DARK_IMAGE="The image on a dark background.",
    ACTION="A button: what it says and where it leads.",
    COLORS="Colours.",
    DATA="Data for the app alone.",
)
