"""APNs: what every documented answer means, provider tokens, and what stands on the wire (S3-20)."""

import asyncio
from datetime import UTC, datetime, timedelta

import jwt
import pytest

from app.pushproviders import Apns, apns_error
from app.pushsink import Do, PushSink, Reply
from channels.apns import ApnsKey, ApnsSettings
from channels.apns_answers import REASONS, classify
from channels.base import Outcome, OutcomeKind, OutcomeScope, PushProvider, PushType
from tests.channels.pushing import DEVICE, MESSAGE_ID, NOW, Clock, apns_channel, apns_key, apns_push, p8
from tests.servers import server_tls

ACCEPTED, DEFERRED, REFUSED, IN_DOUBT = OutcomeKind
RECIPIENT, HOST, CHANNEL = OutcomeScope
GONE = (REFUSED, RECIPIENT, "UNREGISTERED", True)
PAYLOAD = (REFUSED, CHANNEL, "PAYLOAD", False)
CREDENTIALS = (DEFERRED, CHANNEL, "AUTHENTICATION", False)
MEANINGS = {
    (400, "BadCollapseId"): PAYLOAD,
    (400, "BadDeviceToken"): (REFUSED, RECIPIENT, "BAD_TOKEN", True),
    (400, "BadExpirationDate"): PAYLOAD,
    (400, "BadMessageId"): PAYLOAD,
    (400, "BadPriority"): PAYLOAD,
    (400, "BadTopic"): CREDENTIALS,
    (400, "DeviceTokenNotForTopic"): (REFUSED, RECIPIENT, "OTHER_APP", True),
    (400, "DuplicateHeaders"): PAYLOAD,
    (400, "IdleTimeout"): (DEFERRED, HOST, "TRY_LATER", False),
    (400, "InvalidPushType"): PAYLOAD,
    (400, "MissingDeviceToken"): PAYLOAD,
    (400, "MissingTopic"): CREDENTIALS,
    (400, "PayloadEmpty"): PAYLOAD,
    (400, "TopicDisallowed"): CREDENTIALS,
    (403, "BadCertificate"): CREDENTIALS,
    (403, "BadCertificateEnvironment"): CREDENTIALS,
    (403, "BadEnvironmentKeyIdInToken"): CREDENTIALS,
    (403, "ExpiredProviderToken"): CREDENTIALS,
    (403, "Forbidden"): CREDENTIALS,
    (403, "InvalidProviderToken"): CREDENTIALS,
    (403, "MissingProviderToken"): CREDENTIALS,
    (403, "UnrelatedKeyIdInToken"): CREDENTIALS,
    (404, "BadPath"): PAYLOAD,
    (405, "MethodNotAllowed"): PAYLOAD,
    (410, "ExpiredToken"): GONE,
    (410, "Unregistered"): GONE,
    (413, "PayloadTooLarge"): (REFUSED, CHANNEL, "MESSAGE_TOO_LARGE", False),
    (429, "TooManyProviderTokenUpdates"): (DEFERRED, HOST, "TRY_LATER", False),
    (429, "TooManyRequests"): (DEFERRED, RECIPIENT, "TRY_LATER", False),
    (500, "InternalServerError"): (DEFERRED, RECIPIENT, "TRY_LATER", False),
    (503, "ServiceUnavailable"): (DEFERRED, HOST, "TRY_LATER", False),
    (503, "Shutdown"): (DEFERRED, HOST, "TRY_LATER", False),
}


def meaning(outcome: Outcome) -> tuple[OutcomeKind, OutcomeScope, str, bool]:
    return outcome.kind, outcome.scope, outcome.code, outcome.bad_address


async def test_every_documented_answer_means_what_apple_says() -> None:
    """T-13: the action table of APNs, over HTTP/2 and TLS."""
    assert {reason for _, reason in MEANINGS} == set(REASONS)
    async with PushSink(Apns(), tls=server_tls()) as sink:
        channel = apns_channel(sink)
        found = {}
        for status, reason in MEANINGS:
            sink.script.append(apns_error(status, reason))
            found[status, reason] = meaning(await channel.send(apns_push()))
        await channel.close()
    assert found == MEANINGS


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (410, GONE),
        (413, (REFUSED, CHANNEL, "MESSAGE_TOO_LARGE", False)),
        (418, (REFUSED, RECIPIENT, "REFUSED", False)),
        (429, (DEFERRED, RECIPIENT, "TRY_LATER", False)),
        (500, (DEFERRED, RECIPIENT, "TRY_LATER", False)),
        (503, (DEFERRED, HOST, "TRY_LATER", False)),
        (504, (IN_DOUBT, RECIPIENT, "GATEWAY", False)),
        (599, (DEFERRED, RECIPIENT, "TRY_LATER", False)),
        (302, (DEFERRED, HOST, "BAD_REPLY", False)),
    ],
)
@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"reason": 7}'], ids=["empty", "a list", "broken", "a number"])
def test_an_answer_without_a_reason_is_taken_by_its_status(
    status: int, expected: tuple[OutcomeKind, OutcomeScope, str, bool], body: bytes
) -> None:
    assert meaning(classify(status, {}, body, NOW, called=MESSAGE_ID)) == expected


@pytest.mark.parametrize(
    ("said", "wait"),
    [
        ("120", timedelta(seconds=120)),
        ("Sun, 22 Nov 2026 12:05:00 GMT", timedelta(minutes=5)),
        ("Sun, 22 Nov 2026 11:00:00 GMT", timedelta(0)),
        ("99999999999999999999", timedelta(hours=6)),
        ("soon", None),
        ("-5", None),
        ("", None),
    ],
)
async def test_the_wait_that_apns_asks_for_is_kept(said: str, wait: timedelta | None) -> None:
    """T-13: Retry-After in seconds and as a date."""
    async with PushSink(Apns(), script=[apns_error(429, "TooManyRequests", headers={"retry-after": said})]) as sink:
        channel = apns_channel(sink, clock=Clock())
        outcome = await channel.send(apns_push())
        await channel.close()
    assert outcome.retry_after == wait


async def test_after_a_5xx_the_waits_begin_at_a_quarter_of_an_hour() -> None:
    async with PushSink(Apns(), script=[Reply(500), apns_error(503, "ServiceUnavailable")]) as sink:
        channel = apns_channel(sink)
        outcomes = [await channel.send(apns_push()) for _ in range(2)]
        await channel.close()
    assert [one.first_wait for one in outcomes] == [timedelta(minutes=15)] * 2


async def test_a_device_that_is_gone_says_since_when() -> None:
    async with PushSink(Apns(), script=[apns_error(410, "Unregistered", timestamp=1_700_000_000_000)]) as sink:
        channel = apns_channel(sink)
        outcome = await channel.send(apns_push())
        await channel.close()
    assert (outcome.bad_address, outcome.gone_at) == (True, datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC))


async def test_a_notification_stands_on_the_wire_as_apple_wants_it() -> None:
    """S3-20: topic, push type, priority, expiry, collapse id and our own id."""
    apns, expires = Apns(), NOW + timedelta(hours=1)
    async with PushSink(apns, tls=server_tls()) as sink:
        channel = apns_channel(sink, clock=lambda: datetime.now(UTC))
        loud = await channel.send(apns_push(expires_at=expires, collapse_id="sale"))
        quiet = await channel.send(
            apns_push(push_type=PushType.BACKGROUND, urgent=False, expires_at=None, payload=b'{"aps":{}}')
        )
        await channel.close()
    ours = "7f6b2c1e-0000-4000-8000-00000000000a"
    assert loud == quiet == Outcome(ACCEPTED, "ACCEPTED", "ANSWER", provider_id=ours)
    assert [
        {name: value for name, value in one.headers.items() if name.startswith((":path", "apns-"))}
        for one in apns.shown
    ] == [
        {
            ":path": f"/3/device/{DEVICE}",
            "apns-topic": "com.example.shop",
            "apns-id": ours,
            "apns-push-type": "alert",
            "apns-priority": "10",
            "apns-expiration": str(int(expires.timestamp())),
            "apns-collapse-id": "sale",
        },
        {
            ":path": f"/3/device/{DEVICE}",
            "apns-topic": "com.example.shop",
            "apns-id": ours,
            "apns-push-type": "background",
            "apns-priority": "5",
            "apns-expiration": "0",
        },
    ]


async def test_a_provider_token_is_used_for_forty_minutes_and_signed_with_the_key() -> None:
    clock = Clock()
    apns = Apns(clock=lambda: clock.now.timestamp())
    async with PushSink(apns) as sink:
        channel = apns_channel(sink, clock=clock)
        for minutes in (0, 39, 40, 79, 80):
            clock.now = NOW + timedelta(minutes=minutes)
            assert (await channel.send(apns_push())).kind is ACCEPTED
        await channel.close()
    assert len(apns.bearers) == 3
    key = apns_key().key.public_key()
    made_at = [jwt.decode(one, key, algorithms=["ES256"], options={"verify_iat": False}) for one in apns.bearers]
    assert made_at == [
        {"iss": "TEAM123456", "iat": int((NOW + timedelta(minutes=minutes)).timestamp())} for minutes in (0, 40, 80)
    ]
    assert jwt.get_unverified_header(apns.bearers[0]) == {"alg": "ES256", "kid": "ABC1234567", "typ": "JWT"}


async def test_a_provider_token_found_too_old_is_renewed_at_once_unless_it_is_new() -> None:
    """Apple refuses more than one new token in 20 minutes."""
    clock = Clock()
    apns = Apns(clock=lambda: clock.now.timestamp())
    too_old = apns_error(403, "ExpiredProviderToken")
    async with PushSink(apns, script=[too_old]) as sink:
        channel = apns_channel(sink, clock=clock)
        new = await channel.send(apns_push())
        assert (await channel.send(apns_push())).kind is ACCEPTED
        clock.now += timedelta(minutes=21)
        sink.script.append(too_old)
        renewed = await channel.send(apns_push())
        await channel.close()
    assert meaning(new) == CREDENTIALS
    assert meaning(renewed) == (ACCEPTED, RECIPIENT, "ACCEPTED", False)
    assert len(apns.bearers) == 2


@pytest.mark.parametrize("token", ["", "ab", "../../other", "ab" * 101, "zz" * 32, "ab" * 32 + "\r\n"])
async def test_what_is_no_device_token_is_not_asked_about(token: str) -> None:
    apns = Apns()
    async with PushSink(apns) as sink:
        channel = apns_channel(sink)
        outcome = await channel.send(apns_push(token=token))
        other = await channel.send(apns_push(provider=PushProvider.FCM))
        await channel.close()
    assert meaning(outcome) == meaning(other) == (REFUSED, RECIPIENT, "BAD_TOKEN", True)
    assert sink.connections == 0


async def test_three_thousand_devices_in_a_row_that_are_gone_come_back_one_by_one() -> None:
    """T-13: aioapns comes to a stop after 1,213 such answers on one connection."""
    async with PushSink(lambda push: apns_error(410, "Unregistered", timestamp=1), tls=server_tls()) as sink:
        channel = apns_channel(sink, connections=1)
        for _ in range(30):
            outcomes = await asyncio.gather(*(channel.send(apns_push()) for _ in range(100)))
            assert {meaning(one) for one in outcomes} == {GONE}
        await channel.close()
    assert sink.connections == 1


async def test_a_check_says_whether_the_credentials_belong_together() -> None:
    nobody = "0" * 64
    async with PushSink(Apns(), script=[]) as sink:
        channel = apns_channel(sink, clock=lambda: datetime.now(UTC))
        good = await channel.check(apns_push(token=nobody))
        sink.script.append(apns_error(400, "TopicDisallowed"))
        bad = await channel.check(apns_push(token=nobody))
        sink.script.append(Do.CLOSE)
        unknown = await channel.check(apns_push(token=nobody))
        await channel.close()
    assert [meaning(one) for one in (good, bad)] == [(ACCEPTED, RECIPIENT, "ACCEPTED", False), CREDENTIALS]
    assert unknown.kind is IN_DOUBT


@pytest.mark.parametrize(
    ("letters", "key_id", "team_id"),
    [
        (1_000, "short", "TEAM123456"),
        (1_000, "ABC1234567", "team-123456"),
        (100, "ABC1234567", "TEAM123456"),
        (0, "ABC1234567", "TEAM123456"),
    ],
    ids=["key id", "team id", "half a key", "no key"],
)
def test_a_key_that_cannot_be_one_is_refused_and_not_repeated(letters: int, key_id: str, team_id: str) -> None:
    with pytest.raises(ValueError, match=r"ten letters|whole") as refusal:
        ApnsKey(p8()[:letters], key_id=key_id, team_id=team_id)
    assert "MIG" not in str(refusal.value)
    assert refusal.value.__cause__ is None


def test_a_bundle_id_that_cannot_be_one_is_refused() -> None:
    with pytest.raises(ValueError, match="bundle id"):
        ApnsSettings(apns_key(), "com.example shop")
