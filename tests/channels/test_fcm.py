"""FCM: what every documented answer means, access tokens, and what stands on the wire (S3-19)."""

import asyncio
from datetime import timedelta

import orjson
import pytest

from app.pushproviders import Fcm, fcm_error
from app.pushsink import Act, Do, Push, PushSink, Reply
from channels.base import Outcome, OutcomeKind, OutcomeScope, PushProvider
from channels.fcm import ServiceAccount
from tests.channels.pushing import FCM_DEVICE, NOW, Clock, fcm_channel, fcm_push, service_account_json
from tests.servers import server_tls

ACCEPTED, DEFERRED, REFUSED, IN_DOUBT = OutcomeKind
RECIPIENT, HOST, CHANNEL = OutcomeScope
Meaning = tuple[OutcomeKind, OutcomeScope, str, bool]
BAD_TOKEN = (REFUSED, RECIPIENT, "BAD_TOKEN", True)
PAYLOAD = (REFUSED, CHANNEL, "PAYLOAD", False)
CREDENTIALS = (DEFERRED, CHANNEL, "AUTHENTICATION", False)
NOT_A_TOKEN = "The registration token is not a valid FCM registration token"
MEANINGS: dict[str, tuple[Reply, Meaning]] = {
    "gone": (fcm_error(404, "UNREGISTERED", "Requested entity was not found.", fcm=True),
             (REFUSED, RECIPIENT, "UNREGISTERED", True)),
    "no such project": (fcm_error(404, "NOT_FOUND", "Requested entity was not found."), CREDENTIALS),
    "token by its words": (fcm_error(400, "INVALID_ARGUMENT", NOT_A_TOKEN, fcm=True), BAD_TOKEN),
    "token by its field": (fcm_error(400, "INVALID_ARGUMENT", fcm=True, field="message.token"), BAD_TOKEN),
    "payload by its field": (fcm_error(400, "INVALID_ARGUMENT", NOT_A_TOKEN, fcm=True, field="message.data"), PAYLOAD),
    "payload without details": (fcm_error(400, "INVALID_ARGUMENT", "Request contains an invalid argument."), PAYLOAD),
    "too big": (fcm_error(400, "INVALID_ARGUMENT", "Message is too big", fcm=True),
                (REFUSED, CHANNEL, "MESSAGE_TOO_LARGE", False)),
    "other project's": (fcm_error(403, "SENDER_ID_MISMATCH", fcm=True), (REFUSED, RECIPIENT, "OTHER_APP", True)),
    "may not": (fcm_error(403, "PERMISSION_DENIED"), CREDENTIALS),
    "no apns key": (fcm_error(401, "THIRD_PARTY_AUTH_ERROR", fcm=True), CREDENTIALS),
    "quota": (fcm_error(429, "QUOTA_EXCEEDED", fcm=True), (DEFERRED, HOST, "TRY_LATER", False)),
    "quota of a device": (fcm_error(429, "QUOTA_EXCEEDED", fcm=True, device_quota=True),
                          (DEFERRED, RECIPIENT, "TRY_LATER", False)),
    "away": (fcm_error(503, "UNAVAILABLE", fcm=True), (DEFERRED, HOST, "TRY_LATER", False)),
    "internal": (fcm_error(500, "INTERNAL", fcm=True), (DEFERRED, RECIPIENT, "TRY_LATER", False)),
    "unspecified": (fcm_error(400, "UNSPECIFIED_ERROR", fcm=True), (DEFERRED, RECIPIENT, "TRY_LATER", False)),
    "empty 503": (Reply(503), (DEFERRED, HOST, "TRY_LATER", False)),
    "a gateway's page": (Reply(502, b"<html>502</html>"), (IN_DOUBT, RECIPIENT, "GATEWAY", False)),
    "odd details": (Reply(400, b'{"error": {"details": {"a": 1}}}'), PAYLOAD),
}  # fmt: skip


def meaning(outcome: Outcome) -> Meaning:
    return outcome.kind, outcome.scope, outcome.code, outcome.bad_address


async def answers(*acts: Act, clock: Clock | None = None) -> list[Outcome]:
    """What a channel makes of these, one message each."""
    async with PushSink(Fcm(), tls=server_tls()) as tokens, PushSink(Fcm(), script=acts, tls=server_tls()) as sink:
        channel = fcm_channel(sink, tokens=tokens, clock=clock)
        outcomes = [await channel.send(fcm_push()) for _ in acts]
        await channel.close()
    return outcomes


async def test_every_documented_answer_means_what_firebase_says() -> None:
    """T-13: the action table of FCM, over HTTP/2 and TLS."""
    outcomes = await answers(*(reply for reply, _ in MEANINGS.values()))
    found = {name: meaning(outcome) for name, outcome in zip(MEANINGS, outcomes, strict=True)}
    assert found == {name: expected for name, (_, expected) in MEANINGS.items()}


@pytest.mark.parametrize(
    ("said", "wait"),
    [
        ("120", timedelta(seconds=120)),
        ("Sun, 22 Nov 2026 12:05:00 GMT", timedelta(minutes=5)),
        ("whenever", timedelta(seconds=60)),
        (None, timedelta(seconds=60)),
    ],
)
async def test_the_wait_that_fcm_asks_for_is_kept_and_is_a_minute_when_the_quota_is_used_up(
    said: str | None, wait: timedelta
) -> None:
    """T-13: Retry-After in seconds and as a date."""
    headers = {} if said is None else {"retry-after": said}
    (outcome,) = await answers(fcm_error(429, "QUOTA_EXCEEDED", fcm=True, headers=headers), clock=Clock())
    assert outcome.retry_after == wait


async def test_after_a_5xx_the_waits_begin_at_ten_seconds() -> None:
    outcomes = await answers(fcm_error(503, "UNAVAILABLE"), fcm_error(500, "INTERNAL", headers={"retry-after": "7"}))
    assert [(one.first_wait, one.retry_after) for one in outcomes] == [
        (timedelta(seconds=10), None),
        (timedelta(seconds=10), timedelta(seconds=7)),
    ]


async def test_a_message_stands_on_the_wire_with_its_token_and_nothing_added() -> None:
    fcm = Fcm()
    seen: list[bytes] = []

    def listen(push: Push) -> Reply:
        seen.append(push.body)
        return fcm(push)

    message = {"notification": {"title": "Grüße"}, "android": {"notification": {"tag": "sale"}}}
    async with PushSink(listen, tls=server_tls()) as sink:
        channel = fcm_channel(sink)
        outcome = await channel.send(fcm_push(payload=orjson.dumps(message)))
        odd = await channel.send(fcm_push(token='a"b\\c' + "d" * 20, payload=b"{}"))
        await channel.close()
    assert outcome.provider_id == "projects/shop-test/messages/0:1%31bd1c9631bd1c96"
    assert odd.kind is ACCEPTED
    assert [orjson.loads(body) for body in seen[1:]] == [
        {"message": {"token": FCM_DEVICE, **message}},
        {"message": {"token": 'a"b\\c' + "d" * 20}},
    ]
    assert [one.collapse for one in fcm.shown] == ["sale", None]


async def test_one_access_token_serves_all_and_is_renewed_before_it_ends() -> None:
    """T-13: the loop is never blocked: the token endpoint runs on it, and could not answer whoever blocks it."""
    clock = Clock()
    fcm = Fcm(clock=lambda: clock.now.timestamp())
    async with PushSink(fcm) as sink:
        # google-auth reads its own clock for the end of a token, so ours starts there.
        clock.now = NOW.now(NOW.tzinfo)
        channel = fcm_channel(sink, clock=clock)
        outcomes = await asyncio.gather(*(channel.send(fcm_push()) for _ in range(200)))
        clock.now += timedelta(minutes=56)
        outcomes += [await channel.send(fcm_push())]
        await channel.close()
    assert {one.kind for one in outcomes} == {ACCEPTED}
    assert (fcm.counted["/token"], sink.complaints) == (2, [])


async def test_an_access_token_that_is_refused_is_renewed_once_and_the_message_sent_again() -> None:
    fcm = Fcm()
    unauthenticated = fcm_error(401, "UNAUTHENTICATED")
    async with PushSink(fcm) as tokens, PushSink(fcm, script=[unauthenticated]) as sink:
        channel = fcm_channel(sink, tokens=tokens)
        mended = await channel.send(fcm_push())
        sink.script.extend([unauthenticated] * 2)
        hopeless = await channel.send(fcm_push())
        await channel.close()
    assert [meaning(one) for one in (mended, hopeless)] == [(ACCEPTED, RECIPIENT, "ACCEPTED", False), CREDENTIALS]
    assert fcm.counted["/token"] == 3


@pytest.mark.parametrize(
    ("act", "expected"),
    [
        (Reply(400, b'{"error": "invalid_grant"}'), CREDENTIALS),
        (Reply(401, b'{"error": "unauthorized_client"}'), CREDENTIALS),
        (Reply(404), (DEFERRED, HOST, "TRY_LATER", False)),
        (Do.CLOSE, (DEFERRED, HOST, "CONNECTION_LOST", False)),
        (Do.HANG, (DEFERRED, HOST, "TIMEOUT", False)),
    ],
    ids=["wrong key", "no client", "no such page", "hangs up", "hangs"],
)
async def test_without_an_access_token_nothing_leaves_and_nobody_asks_again_at_once(
    act: Act, expected: Meaning
) -> None:
    """T-13: the token endpoint is asked once, not once a message."""
    clock = Clock()
    async with PushSink(Fcm(), script=[act]) as tokens, PushSink(Fcm()) as sink:
        channel = fcm_channel(sink, tokens=tokens, clock=clock, timeout=timedelta(seconds=0.5))
        outcomes = await asyncio.gather(*(channel.send(fcm_push()) for _ in range(50)))
        assert {meaning(one) for one in outcomes} == {expected}
        assert sink.connections == 0
        clock.now += timedelta(seconds=11)
        await channel.send(fcm_push())
        await channel.close()
    assert tokens.reached["request"].is_set()


async def test_access_tokens_come_from_where_we_say_and_not_from_where_the_file_does() -> None:
    fcm = Fcm()
    async with PushSink(fcm) as sink:
        channel = fcm_channel(sink)
        outcome = await channel.send(fcm_push())
        await channel.close()
    assert b"attacker.example" in service_account_json().encode()
    assert (outcome.kind, fcm.counted["/token"]) == (ACCEPTED, 1)


async def test_a_token_of_another_provider_is_not_asked_about() -> None:
    async with PushSink(Fcm()) as sink:
        channel = fcm_channel(sink)
        outcome = await channel.send(fcm_push(provider=PushProvider.APNS))
        await channel.close()
    assert (meaning(outcome), sink.connections) == (BAD_TOKEN, 0)


async def test_a_check_says_whether_the_account_may_send_and_shows_nobody_anything() -> None:
    fcm = Fcm()
    async with PushSink(fcm) as tokens, PushSink(fcm) as sink:
        channel = fcm_channel(sink, tokens=tokens)
        good = await channel.check()
        sink.script.append(fcm_error(403, "PERMISSION_DENIED"))
        bad = await channel.check()
        await channel.close()
    assert [meaning(one) for one in (good, bad)] == [(ACCEPTED, RECIPIENT, "ACCEPTED", False), CREDENTIALS]
    assert fcm.shown == []


def test_a_file_that_is_no_json_is_no_service_account() -> None:
    for text in ("", "{", "[]", "{}"):
        with pytest.raises(ValueError, match="JSON"):
            ServiceAccount(text)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("type", "user"),
        ("project_id", "../x"),
        ("project_id", None),
        ("private_key", "-----BEGIN PRIVATE KEY-----\nMIIE"),
        ("private_key", None),
        ("client_email", None),
    ],
)
def test_a_file_that_is_no_service_account_is_refused_and_not_repeated(field: str, value: str | None) -> None:
    text = orjson.dumps({**orjson.loads(service_account_json()), field: value}).decode()
    with pytest.raises(ValueError, match="JSON") as refusal:
        ServiceAccount(text)
    assert "MII" not in str(refusal.value)
    assert refusal.value.__cause__ is None
