"""What every channel must do, whatever it speaks: one module, run against each adapter.

An adapter joins by a `Bench`: how to build it against a local server, and which server each scene needs.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from enum import Enum, auto
from typing import Any, Protocol

import pytest

from app.pushproviders import Apns, Fcm, Shown, apns_error, fcm_error
from app.pushsink import Do as Push
from app.pushsink import PushSink, Reply
from channels.base import Channel, EmailMessage, Outcome, OutcomeKind, OutcomeScope
from channels.smtp import SmtpChannel, SmtpSettings
from tests.channels.pushing import DEVICE, FCM_DEVICE, apns_channel, apns_push, fcm_channel, fcm_push
from tests.servers import Act, Do, ScriptedSmtp, server_tls

ADDRESS = "ann@example.com"
Kind = tuple[OutcomeKind, OutcomeScope]


class Scene(Enum):
    """What the provider does to the first message; the next ones are accepted."""

    ACCEPTS = auto()
    SAYS_LATER = auto()
    IS_CLOSING = auto()
    SAYS_ADDRESS_IS_WRONG = auto()
    REFUSES_CONTENT = auto()
    REFUSES_LOGIN = auto()
    SAYS_TOO_LARGE = auto()
    HANGS_UP_BEFORE_PAYLOAD = auto()
    HANGS_BEFORE_PAYLOAD = auto()
    HANGS_UP_AFTER_PAYLOAD = auto()
    HANGS_AFTER_PAYLOAD = auto()
    TALKS_GIBBERISH = auto()


@dataclass
class Stage:
    """A channel in front of a provider that plays a scene."""

    channel: Channel[Any]
    payload_left: asyncio.Event
    hung_up: asyncio.Event
    accepted: list[str]
    """What arrived, once the stage is left."""


class Bench(Protocol):
    address: str
    kinds: Mapping[Scene, Kind]
    """Where what a scene means differs from KINDS."""

    def stage(self, scene: Scene) -> AbstractAsyncContextManager[Stage]: ...

    def unreachable(self) -> Channel[Any]: ...

    def message(self, text: str) -> Any: ...


SMTP_SCRIPTS: dict[Scene, dict[str, list[Act]]] = {
    Scene.ACCEPTS: {},
    Scene.SAYS_LATER: {"rcpt": ["450 4.2.1 <ann@example.com> is busy, try again in 5 minutes"]},
    Scene.IS_CLOSING: {"rcpt": ["421 4.3.2 shutting down"]},
    Scene.SAYS_ADDRESS_IS_WRONG: {"rcpt": ["550 5.1.1 <ann@example.com>: no such user"]},
    Scene.REFUSES_CONTENT: {"final": ["554 5.7.1 looks like spam"]},
    Scene.REFUSES_LOGIN: {"mail": ["530 5.7.0 authentication required"]},
    Scene.SAYS_TOO_LARGE: {"mail": ["552 5.3.4 message too big"]},
    Scene.HANGS_UP_BEFORE_PAYLOAD: {"rcpt": [Do.EOF]},
    Scene.HANGS_BEFORE_PAYLOAD: {"rcpt": [Do.HANG]},
    Scene.HANGS_UP_AFTER_PAYLOAD: {"final": [Do.EOF]},
    Scene.HANGS_AFTER_PAYLOAD: {"final": [Do.HANG]},
    Scene.TALKS_GIBBERISH: {"rcpt": ["hello there"]},
}


class SmtpBench:
    address = ADDRESS
    kinds: Mapping[Scene, Kind] = {}

    @asynccontextmanager
    async def stage(self, scene: Scene) -> AsyncIterator[Stage]:
        async with ScriptedSmtp(SMTP_SCRIPTS[scene]) as server:
            channel = SmtpChannel(SmtpSettings.parse(server.url, connections=4, timeout=patience(scene)))
            stage = Stage(channel, server.reached["final"], server.reached["hung_up"], [])
            yield stage
            await channel.close()
            stage.accepted.extend(one.data.decode().split("\r\n")[2] for one in server.received)

    def unreachable(self) -> Channel[Any]:
        return SmtpChannel(SmtpSettings.parse("smtp://127.0.0.1:1", timeout=timedelta(seconds=5)))

    def message(self, text: str) -> EmailMessage:
        return EmailMessage("news@shop.example", ADDRESS, f"Subject: x\r\n\r\n{text}\r\n".encode(), "delivery-1")


@dataclass
class PushBench:
    """FCM or APNs over HTTP/2 and TLS."""

    provider: type[Apns] | type[Fcm]
    address: str
    replies: Mapping[Scene, Reply]
    kinds: Mapping[Scene, Kind] = field(
        default_factory=lambda: {
            # What a push service finds wrong with a notification is wrong with all of them.
            Scene.REFUSES_CONTENT: (OutcomeKind.REFUSED, OutcomeScope.CHANNEL),
            # It answers only what it has heard to the end.
            Scene.TALKS_GIBBERISH: (OutcomeKind.IN_DOUBT, OutcomeScope.RECIPIENT),
        }
    )

    @asynccontextmanager
    async def stage(self, scene: Scene) -> AsyncIterator[Stage]:
        provider = self.provider()
        async with AsyncExitStack() as stack:
            # Access tokens come from a server of their own, which no scene concerns.
            tokens = await stack.enter_async_context(PushSink(provider, tls=server_tls()))
            before = scene in (Scene.HANGS_UP_BEFORE_PAYLOAD, Scene.HANGS_BEFORE_PAYLOAD)
            acts = {
                Scene.HANGS_UP_BEFORE_PAYLOAD: Push.CLOSE,
                Scene.HANGS_BEFORE_PAYLOAD: Push.HANG,
                Scene.HANGS_UP_AFTER_PAYLOAD: Push.CLOSE,
                Scene.HANGS_AFTER_PAYLOAD: Push.HANG,
                Scene.TALKS_GIBBERISH: Push.GARBAGE,
            }
            act = acts.get(scene)
            early = [act] if act is not None and before else []
            late = [act] if act is not None and not before else [self.replies[scene]] if scene in self.replies else []
            sink = PushSink(provider, script=late, early=early, tls=server_tls(), window=0 if before else 65_535)
            await stack.enter_async_context(sink)
            channel: Channel[Any]
            if isinstance(provider, Fcm):
                channel = fcm_channel(sink, tokens=tokens, timeout=patience(scene))
            else:
                channel = apns_channel(sink, timeout=patience(scene))
            stage = Stage(channel, sink.reached["request"], sink.reached["given_up"], [])
            yield stage
            await channel.close()
            assert sink.complaints == []
            stage.accepted.extend(title_of(one) for one in provider.shown)

    def unreachable(self) -> Channel[Any]:
        nowhere = PushSink(lambda push: Reply(200), port=1)
        return fcm_channel(nowhere) if self.provider is Fcm else apns_channel(nowhere)

    def message(self, text: str) -> Any:
        return fcm_push(text) if self.provider is Fcm else apns_push(text)


def title_of(shown: Shown) -> str:
    found: str = (shown.payload.get("notification") or shown.payload["aps"]["alert"])["title"]
    return found


def patience(scene: Scene) -> timedelta:
    return timedelta(seconds=1 if "HANGS" in scene.name else 30)


LATER = {"retry-after": "300"}
APNS = PushBench(
    Apns,
    DEVICE,
    {
        Scene.SAYS_LATER: apns_error(429, "TooManyRequests", headers=LATER),
        Scene.IS_CLOSING: apns_error(503, "Shutdown"),
        Scene.SAYS_ADDRESS_IS_WRONG: apns_error(410, "Unregistered", timestamp=1_700_000_000_000),
        Scene.REFUSES_CONTENT: apns_error(400, "BadCollapseId"),
        Scene.REFUSES_LOGIN: apns_error(403, "TopicDisallowed"),
        Scene.SAYS_TOO_LARGE: apns_error(413, "PayloadTooLarge"),
    },
)
FCM = PushBench(
    Fcm,
    FCM_DEVICE,
    {
        Scene.SAYS_LATER: fcm_error(429, "QUOTA_EXCEEDED", fcm=True, device_quota=True, headers=LATER),
        Scene.IS_CLOSING: fcm_error(503, "UNAVAILABLE", fcm=True),
        Scene.SAYS_ADDRESS_IS_WRONG: fcm_error(404, "UNREGISTERED", FCM_DEVICE, fcm=True),
        Scene.REFUSES_CONTENT: fcm_error(400, "INVALID_ARGUMENT", field="message.data[0].value"),
        Scene.REFUSES_LOGIN: fcm_error(403, "PERMISSION_DENIED"),
        Scene.SAYS_TOO_LARGE: fcm_error(400, "INVALID_ARGUMENT", "Message is too big", fcm=True),
    },
)


@pytest.fixture(params=[SmtpBench(), APNS, FCM], ids=["smtp", "apns", "fcm"])
def bench(request: pytest.FixtureRequest) -> Bench:
    made: Bench = request.param
    return made


KINDS: dict[Scene, Kind] = {
    Scene.ACCEPTS: (OutcomeKind.ACCEPTED, OutcomeScope.RECIPIENT),
    Scene.SAYS_LATER: (OutcomeKind.DEFERRED, OutcomeScope.RECIPIENT),
    Scene.IS_CLOSING: (OutcomeKind.DEFERRED, OutcomeScope.HOST),
    Scene.SAYS_ADDRESS_IS_WRONG: (OutcomeKind.REFUSED, OutcomeScope.RECIPIENT),
    Scene.REFUSES_CONTENT: (OutcomeKind.REFUSED, OutcomeScope.RECIPIENT),
    Scene.REFUSES_LOGIN: (OutcomeKind.DEFERRED, OutcomeScope.CHANNEL),
    Scene.SAYS_TOO_LARGE: (OutcomeKind.REFUSED, OutcomeScope.CHANNEL),
    Scene.HANGS_UP_BEFORE_PAYLOAD: (OutcomeKind.DEFERRED, OutcomeScope.RECIPIENT),
    Scene.HANGS_BEFORE_PAYLOAD: (OutcomeKind.DEFERRED, OutcomeScope.RECIPIENT),
    Scene.HANGS_UP_AFTER_PAYLOAD: (OutcomeKind.IN_DOUBT, OutcomeScope.RECIPIENT),
    Scene.HANGS_AFTER_PAYLOAD: (OutcomeKind.IN_DOUBT, OutcomeScope.RECIPIENT),
    Scene.TALKS_GIBBERISH: (OutcomeKind.DEFERRED, OutcomeScope.RECIPIENT),
}


@pytest.mark.parametrize("scene", Scene)
async def test_an_answer_or_a_broken_connection_is_an_outcome_and_never_an_exception(
    bench: Bench, scene: Scene
) -> None:
    async with bench.stage(scene) as stage:
        outcome = await stage.channel.send(bench.message("Hello"))
    assert (outcome.kind, outcome.scope) == {**KINDS, **bench.kinds}[scene]


@pytest.mark.parametrize("scene", Scene)
async def test_the_channel_carries_the_next_message_whatever_became_of_the_last(bench: Bench, scene: Scene) -> None:
    async with bench.stage(scene) as stage:
        first = await stage.channel.send(bench.message("first"))
        second = await stage.channel.send(bench.message("second"))
    assert second.kind is OutcomeKind.ACCEPTED
    arrived = ["first"] if first.kind is OutcomeKind.ACCEPTED else []
    assert stage.accepted == [*arrived, "second"]


@pytest.mark.parametrize("scene", Scene)
async def test_only_a_refusal_of_the_address_suppresses_and_no_address_stands_in_an_outcome(
    bench: Bench, scene: Scene
) -> None:
    async with bench.stage(scene) as stage:
        outcome = await stage.channel.send(bench.message("Hello"))
    assert outcome.bad_address == (scene is Scene.SAYS_ADDRESS_IS_WRONG)
    assert bench.address not in repr(outcome)


async def test_a_wait_that_the_provider_asks_for_is_passed_on(bench: Bench) -> None:
    async with bench.stage(Scene.SAYS_LATER) as stage:
        outcome = await stage.channel.send(bench.message("Hello"))
    assert outcome.retry_after == timedelta(minutes=5)


async def test_an_unreachable_provider_defers_and_speaks_for_the_host(bench: Bench) -> None:
    channel = bench.unreachable()
    outcome = await channel.send(bench.message("Hello"))
    await channel.close()
    assert (outcome.kind, outcome.scope) == (OutcomeKind.DEFERRED, OutcomeScope.HOST)


async def test_a_cancelled_send_closes_its_connection_and_is_cancelled(bench: Bench) -> None:
    async with bench.stage(Scene.HANGS_AFTER_PAYLOAD) as stage:
        sending: asyncio.Task[Outcome] = asyncio.create_task(stage.channel.send(bench.message("cancelled")))
        await stage.payload_left.wait()
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        await stage.hung_up.wait()
        assert (await stage.channel.send(bench.message("next"))).kind is OutcomeKind.ACCEPTED
    assert stage.accepted == ["next"]


async def test_many_sends_at_once_all_arrive(bench: Bench) -> None:
    async with bench.stage(Scene.ACCEPTS) as stage:
        outcomes = await asyncio.gather(*(stage.channel.send(bench.message(f"number {n}")) for n in range(50)))
    assert {outcome.kind for outcome in outcomes} == {OutcomeKind.ACCEPTED}
    assert sorted(stage.accepted) == sorted(f"number {n}" for n in range(50))


async def test_a_closed_channel_defers(bench: Bench) -> None:
    async with bench.stage(Scene.ACCEPTS) as stage:
        await stage.channel.close()
        outcome = await stage.channel.send(bench.message("Hello"))
    assert outcome.kind is OutcomeKind.DEFERRED
    assert stage.accepted == []
