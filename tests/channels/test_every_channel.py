"""What every channel must do, whatever it speaks: one module, run against each adapter.

An adapter joins by a `Bench`: how to build it against a local server, and which server each scene needs.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum, auto
from typing import Protocol

import pytest

from channels.base import Channel, EmailMessage, Outcome, OutcomeKind, OutcomeScope
from channels.smtp import SmtpChannel, SmtpSettings
from tests.servers import Act, Do, ScriptedSmtp

ADDRESS = "ann@example.com"


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

    channel: Channel
    payload_left: asyncio.Event
    hung_up: asyncio.Event
    accepted: list[str]


class Bench(Protocol):
    def stage(self, scene: Scene) -> AbstractAsyncContextManager[Stage]: ...

    def unreachable(self) -> Channel: ...


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
    @asynccontextmanager
    async def stage(self, scene: Scene) -> AsyncIterator[Stage]:
        patience = timedelta(seconds=1 if "HANGS" in scene.name else 30)
        async with ScriptedSmtp(SMTP_SCRIPTS[scene]) as server:
            channel = SmtpChannel(SmtpSettings.parse(server.url, connections=4, timeout=patience))
            stage = Stage(channel, server.reached["final"], server.reached["hung_up"], [])
            yield stage
            await channel.close()
            stage.accepted.extend(one.data.decode() for one in server.received)

    def unreachable(self) -> Channel:
        return SmtpChannel(SmtpSettings.parse("smtp://127.0.0.1:1", timeout=timedelta(seconds=5)))


@pytest.fixture(params=[SmtpBench()], ids=["smtp"])
def bench(request: pytest.FixtureRequest) -> Bench:
    made: Bench = request.param
    return made


def message(text: str = "Hello") -> EmailMessage:
    return EmailMessage("news@shop.example", ADDRESS, f"Subject: x\r\n\r\n{text}\r\n".encode(), "delivery-1")


KINDS = {
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
        outcome = await stage.channel.send(message())
    assert (outcome.kind, outcome.scope) == KINDS[scene]


@pytest.mark.parametrize("scene", Scene)
async def test_the_channel_carries_the_next_message_whatever_became_of_the_last(bench: Bench, scene: Scene) -> None:
    async with bench.stage(scene) as stage:
        first = await stage.channel.send(message("first"))
        second = await stage.channel.send(message("second"))
    assert second.kind is OutcomeKind.ACCEPTED
    arrived = ["Subject: x\r\n\r\nfirst\r\n"] if first.kind is OutcomeKind.ACCEPTED else []
    assert stage.accepted == [*arrived, "Subject: x\r\n\r\nsecond\r\n"]


@pytest.mark.parametrize("scene", Scene)
async def test_only_a_refusal_of_the_address_suppresses_and_no_address_stands_in_an_outcome(
    bench: Bench, scene: Scene
) -> None:
    async with bench.stage(scene) as stage:
        outcome = await stage.channel.send(message())
    assert outcome.bad_address == (scene is Scene.SAYS_ADDRESS_IS_WRONG)
    assert ADDRESS not in repr(outcome)


async def test_a_wait_that_the_provider_asks_for_is_passed_on(bench: Bench) -> None:
    async with bench.stage(Scene.SAYS_LATER) as stage:
        outcome = await stage.channel.send(message())
    assert outcome.retry_after == timedelta(minutes=5)


async def test_an_unreachable_provider_defers_and_speaks_for_the_host(bench: Bench) -> None:
    outcome = await bench.unreachable().send(message())
    assert (outcome.kind, outcome.scope) == (OutcomeKind.DEFERRED, OutcomeScope.HOST)


async def test_a_cancelled_send_closes_its_connection_and_is_cancelled(bench: Bench) -> None:
    async with bench.stage(Scene.HANGS_AFTER_PAYLOAD) as stage:
        sending: asyncio.Task[Outcome] = asyncio.create_task(stage.channel.send(message("cancelled")))
        await stage.payload_left.wait()
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        await stage.hung_up.wait()
        assert (await stage.channel.send(message("next"))).kind is OutcomeKind.ACCEPTED
    assert stage.accepted == ["Subject: x\r\n\r\nnext\r\n"]


async def test_many_sends_at_once_all_arrive(bench: Bench) -> None:
    async with bench.stage(Scene.ACCEPTS) as stage:
        outcomes = await asyncio.gather(*(stage.channel.send(message(f"number {n}")) for n in range(50)))
    assert {outcome.kind for outcome in outcomes} == {OutcomeKind.ACCEPTED}
    assert sorted(stage.accepted) == sorted(f"Subject: x\r\n\r\nnumber {n}\r\n" for n in range(50))


async def test_a_closed_channel_defers(bench: Bench) -> None:
    async with bench.stage(Scene.ACCEPTS) as stage:
        await stage.channel.close()
        outcome = await stage.channel.send(message())
    assert outcome.kind is OutcomeKind.DEFERRED
    assert stage.accepted == []
