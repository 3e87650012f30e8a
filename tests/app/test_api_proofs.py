"""What people write is read in children: hostile contents are refused, and nobody else notices (T-19)."""

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx2
import pytest

from app.main import create_app
from app.proofs import Child, Limits, Lost, Proofreaders, launch
from app.resources import Resources
from app.settings import Settings
from campaigns.emails import EmailContent
from campaigns.errors import CampaignError
from campaigns.proofs import prove
from profiles import keys
from profiles.keys import Scope
from profiles.models import KeyKind
from tests.app.caller import Caller
from tests.app.conftest import resources_of
from tests.campaigns.hostile import CONTENTS, TEMPLATES

PLAIN = {"email": {"subject": "x", "text": "{{ sender.postal_address }} {{ unsubscribe_url }}"}}
PATIENT = Limits(children=1, wall=timedelta(minutes=5))
"""One child, that nobody ends for being slow."""
SMALL = EmailContent("x", text="{{ traits.a }}")
PROOF = prove(SMALL)
OURS, THEIRS = UUID(int=1), UUID(int=2)


class Watched(Proofreaders):
    """Says when a request has come as far as to a child."""

    def __init__(self, limits: Limits) -> None:
        super().__init__(limits)
        self.asked = asyncio.Event()

    async def ask_a_child(self, request: bytes, deadline: float) -> dict[str, Any]:
        self.asked.set()
        return await super().ask_a_child(request, deadline)


@asynccontextmanager
async def console_with(limits: Limits, settings: Settings, workspace: UUID) -> AsyncIterator[tuple[Caller, Watched]]:
    """A caller of an API that reads contents in children."""
    proofs = Watched(limits)

    @asynccontextmanager
    async def opener(settings: Settings) -> AsyncIterator[Resources]:
        async with resources_of(settings) as resources:
            yield replace(resources, proofs=proofs)

    app = create_app(settings, opener=opener)
    _, secret = await keys.create(workspace, name="of a test", kind=KeyKind.SECRET, scopes=tuple(Scope))
    transport = httpx2.ASGITransport(app=app, raise_app_exceptions=False)
    try:
        async with (
            app.router.lifespan_context(app),
            httpx2.AsyncClient(transport=transport, base_url="https://muster.example") as http,
        ):
            yield Caller(http, workspace, secret), proofs
    finally:
        await proofs.close()


def given(content: EmailContent) -> dict[str, Any]:
    """A content as a client sends it."""
    return {"email": asdict(content)}


async def children(proofs: Proofreaders) -> list[Child]:
    return [await spare for spare in proofs.spares]


def status_of(child: Child, name: str) -> int:
    """A figure of /proc/PID/status, in bytes."""
    lines = Path(f"/proc/{child.process.pid}/status").read_text().splitlines()
    (line,) = [line for line in lines if line.startswith(f"{name}:")]
    return int(line.split()[1]) * 1024


async def campaigns(console: Caller) -> list[Any]:
    found: list[Any] = (await console.data("Campaigns"))["edges"]
    return found


async def test_every_hostile_content_is_refused_by_the_api_and_nothing_is_made(
    settings: Settings, workspace: UUID
) -> None:
    """T-19. An answer comes within 2 seconds, the wait for a child included, and no child has more than 256 MB: that is
    how they are asked and started."""
    assert Limits() == Limits(memory_bytes=256 * 2**20, cpu_s=1, wall=timedelta(seconds=1.8), children=2)
    async with console_with(Limits(), settings, workspace) as (console, proofs):
        for name, content in CONTENTS.items():
            code, path = "BUSY", None
            while code == "BUSY":  # a child that was killed is not replaced at once on a machine with much to do
                await children(proofs)
                code, path = await console.refusal("CampaignCreate", input={"name": "x", "content": given(content)})
            assert code.startswith(("TEMPLATE_", "MJML_", "NOT_A_VARIABLE", "TOO_MANY")), name
            assert path is not None
            assert path[:2] == ["input", "content"], name
            if name in TEMPLATES:
                tried = {"recipient": {"sample": {}}, "content": given(content)["email"]}
                await children(proofs)
                assert (await console.error("CampaignPreview", input=tried))["code"] == code, name
            if sys.platform == "linux":
                assert all(status_of(child, "VmPeak") <= 256 * 2**20 for child in await children(proofs))
        assert await campaigns(console) == []
        made = await console.data("CampaignCreate", input={"name": "x", "content": PLAIN})
        assert made["campaign"]["status"] == "DRAFT"


async def test_others_are_answered_while_a_child_hangs(settings: Settings, workspace: UUID) -> None:
    """T-19: the event loop only waits, so that what one content costs, costs nobody else anything."""
    async with console_with(PATIENT, settings, workspace) as (console, proofs):
        await console.data("CampaignCreate", input={"name": "first", "content": PLAIN})
        (child,) = await children(proofs)
        os.kill(child.process.pid, signal.SIGSTOP)
        proofs.asked.clear()
        slow = asyncio.create_task(console.refusal("CampaignCreate", input={"name": "x", "content": PLAIN}))
        await proofs.asked.wait()
        assert (await console.http.get("/healthz")).status_code == 200
        (edge,) = await campaigns(console)
        assert edge["node"]["name"] == "first"
        assert not slow.done()
        os.kill(child.process.pid, signal.SIGKILL)
        assert await slow == ("TEMPLATE_TOO_COSTLY", ["input", "content"])
        await console.data("CampaignCreate", input={"name": "second", "content": PLAIN})


async def test_a_child_that_hangs_is_killed_when_its_time_is_up(settings: Settings, workspace: UUID) -> None:
    limits = replace(PATIENT, wall=timedelta(milliseconds=50), fair=timedelta(0))
    async with console_with(limits, settings, workspace) as (console, proofs):
        (child,) = await children(proofs)
        os.kill(child.process.pid, signal.SIGSTOP)
        found = await console.refusal("CampaignCreate", input={"name": "x", "content": PLAIN})
        assert found == ("TEMPLATE_TOO_COSTLY", ["input", "content"])
        assert child.process.returncode == -signal.SIGKILL
        assert (await children(proofs))[0] is not child


async def test_who_waits_too_long_for_a_child_is_told_to_come_again(settings: Settings, workspace: UUID) -> None:
    """T-19: starting one counts. Nobody has looked at the content, so nobody calls it too costly."""
    async with console_with(PATIENT, settings, workspace) as (console, proofs):
        (ready,) = await children(proofs)
        starting: asyncio.Future[Child] = asyncio.get_running_loop().create_future()
        proofs.spares = [asyncio.ensure_future(there_at_last(starting))]
        proofs.limits = replace(PATIENT, wall=timedelta(milliseconds=50))
        found = await console.refusal("CampaignCreate", input={"name": "x", "content": PLAIN})
        assert found == ("BUSY", ["input", "content"])
        # Now one is there, but what is left of the time is too short to tell whether the content is costly.
        os.kill(ready.process.pid, signal.SIGSTOP)
        starting.set_result(ready)
        found = await console.refusal("CampaignCreate", input={"name": "x", "content": PLAIN})
        assert found == ("BUSY", ["input", "content"])
        assert ready.process.returncode == -signal.SIGKILL


async def there_at_last(child: "asyncio.Future[Child]") -> Child:
    return await child


async def test_a_child_that_died_while_nobody_asked_is_replaced_without_a_word() -> None:
    """Whoever asks next wrote nothing that costs too much; and nothing is left of what could not be started."""
    proofs = Proofreaders(PATIENT)
    try:
        proofs.spares = [asyncio.create_task(Child.start(PATIENT)), asyncio.create_task(never_started())]
        child = await proofs.spares[0]
        child.process.kill()
        await asyncio.to_thread(os.waitid, os.P_PID, child.process.pid, os.WEXITED | os.WNOWAIT)
        await asyncio.wait(proofs.spares)
        assert await proofs.prove(SMALL, workspace_id=OURS) == PROOF
        assert len(proofs.spares) == 1
    finally:
        await proofs.close()


async def never_started() -> Child:
    raise Lost


async def test_a_child_whose_start_is_given_up_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[subprocess.Popen[bytes]] = []

    def watched(theirs: socket.socket, limits: Limits) -> subprocess.Popen[bytes]:
        started.append(launch(theirs, limits))
        task.cancel()  # takes effect where it waits next: for its connection
        return started[0]

    monkeypatch.setattr("app.proofs.launch", watched)
    task = asyncio.create_task(Child.start(PATIENT))
    await asyncio.wait([task])
    assert task.cancelled()
    assert started[0].returncode == -signal.SIGKILL


EXPENSIVE = [("styles for everything", PATIENT, "seconds of work")]
if sys.platform == "linux":  # macOS limits no address space
    EXPENSIVE.append(("a long attribute", replace(PATIENT, cpu_s=120), "too much memory"))


@pytest.mark.parametrize(("name", "limits", "why"), EXPENSIVE)
async def test_work_and_memory_have_limits_that_the_kernel_keeps(name: str, limits: Limits, why: str) -> None:
    proofs = Proofreaders(limits)
    try:
        with pytest.raises(CampaignError) as refusal:
            await proofs.prove(CONTENTS[name], workspace_id=OURS)
        assert (refusal.value.code, refusal.value.field) == ("TEMPLATE_TOO_COSTLY", ("content",))
        assert why in refusal.value.message
        assert await proofs.prove(SMALL, workspace_id=OURS) == PROOF
    finally:
        await proofs.close()


async def test_a_child_has_no_secret_no_file_and_no_network(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MUSTER_TOKEN_KEY", "a secret of the process that starts it")
    child = await Child.start(Limits())
    try:
        process = Path(f"/proc/{child.process.pid}")
        if sys.platform == "linux":
            environ = process.joinpath("environ").read_text()
            assert [line.split("=")[0] for line in environ.split("\0") if line] == ["PYTHONPATH"]
            held = sorted(os.readlink(one).split(":")[0] for one in process.joinpath("fd").iterdir())
            assert held == ["/dev/null", "/dev/null", "socket"]
            limits = process.joinpath("limits").read_text()
            assert re.search(r"Max open files +3 +3 ", limits)
    finally:
        child.kill()
        await child.closed()


async def test_who_goes_away_takes_the_answer_along(settings: Settings, workspace: UUID) -> None:
    """An answer that nobody waits for must not become the answer to the next question."""
    async with console_with(PATIENT, settings, workspace) as (_, proofs):
        (child,) = await children(proofs)
        os.kill(child.process.pid, signal.SIGSTOP)
        gone = asyncio.create_task(proofs.prove(EmailContent("x", text="{{ traits.b }}"), workspace_id=OURS))
        await proofs.asked.wait()
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
        assert child.process.returncode == -signal.SIGKILL
        assert await proofs.prove(SMALL, workspace_id=OURS) == PROOF


async def test_more_than_can_wait_are_refused_at_once(settings: Settings, workspace: UUID) -> None:
    limits = replace(PATIENT, waiting=0)
    async with console_with(limits, settings, workspace) as (console, proofs):
        (child,) = await children(proofs)
        os.kill(child.process.pid, signal.SIGSTOP)
        slow = asyncio.create_task(proofs.prove(SMALL, workspace_id=OURS))
        await proofs.asked.wait()
        found = await console.refusal("CampaignCreate", input={"name": "x", "content": PLAIN})
        assert found == ("BUSY", ["input", "content"])
        os.kill(child.process.pid, signal.SIGCONT)
        assert await slow == PROOF


async def test_one_workspace_leaves_others_room_to_wait() -> None:
    """T-19: who sends a flood of costly contents is told so, and takes only their own turns."""
    proofs = Watched(replace(PATIENT, of_one=2))
    try:
        proofs.spares = [asyncio.create_task(Child.start(PATIENT))]
        (child,) = await children(proofs)
        os.kill(child.process.pid, signal.SIGSTOP)
        slow = [asyncio.create_task(proofs.prove(SMALL, workspace_id=OURS)) for _ in range(2)]
        await proofs.asked.wait()
        with pytest.raises(CampaignError) as refusal:
            await proofs.prove(SMALL, workspace_id=OURS)
        assert (refusal.value.code, refusal.value.field) == ("BUSY", ("content",))
        slow.append(asyncio.create_task(proofs.prove(SMALL, workspace_id=THEIRS)))
        os.kill(child.process.pid, signal.SIGCONT)
        assert await asyncio.gather(*slow) == [PROOF] * 3
        assert not proofs.asking
        assert await proofs.prove(SMALL, workspace_id=OURS) == PROOF
    finally:
        await proofs.close()
