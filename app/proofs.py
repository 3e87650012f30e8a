"""Reads what people write in children that can be killed: the port campaigns.proofs.Proofs. ADR 0013.

The event loop only waits. A child that takes too long, too much memory, or dies, costs its own request a clear refusal
and nobody else anything; the next request starts another.
"""

import asyncio
import logging
import signal
import socket
import struct
import subprocess
import sys
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import orjson

from campaigns.emails import EmailContent
from campaigns.errors import CampaignError
from campaigns.proofs import Preview, Proof, Trial
from campaigns.push_content import PushContent
from campaigns.push_proofs import PushPreview, PushTrial

logger = logging.getLogger(__name__)

ROOT = Path(__file__).parents[1]
START_TIMEOUT_S = 30.0
LARGEST_ANSWER = 16 * 1024 * 1024
ANSWERS_OF_A_CHILD = 500
"""Then it makes room for another: memory that a process has given back is never all of it."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What reading one content may cost."""

    memory_bytes: int = 256 * 1024 * 1024
    """Of a child's address space."""
    cpu_s: int = 1
    """Seconds of work; the kernel counts whole ones, so up to one more."""
    wall: timedelta = timedelta(seconds=1.8)
    """From a request to its answer, waiting for a child included: 2 seconds with all that the API does around it."""
    fair: timedelta = timedelta(seconds=1)
    """Of it a content must have had to be called too costly; who had less is told to come again."""
    children: int = 2
    """At once, in one process of ours."""
    waiting: int = 32
    """Requests that wait for a child; more are refused."""
    of_one: int = 16
    """Requests of one workspace at a time, so that others have room to wait too."""


Subject = EmailContent | PushContent | Trial | PushTrial
"""What a child is asked about."""


class Lost(Exception):
    """The child ended without an answer."""


class Child:
    """One `python -m app.proofreader`, asked by one task at a time."""

    def __init__(
        self, process: "subprocess.Popen[bytes]", reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.process, self._reader, self._writer = process, reader, writer
        self.answers = 0

    @classmethod
    async def start(cls, limits: Limits) -> "Child":
        """A child that is ready. Raises Lost or TimeoutError when it does not come to life."""
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                process = launch(theirs, limits)
        except OSError:
            ours.close()
            raise
        try:
            reader, writer = await asyncio.open_unix_connection(sock=ours)
        except BaseException:
            ours.close()
            process.kill()
            process.wait()
            raise
        child = cls(process, reader, writer)
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                await child.hear()
        except BaseException:
            child.kill()
            raise
        return child

    async def ask(self, request: bytes) -> dict[str, Any]:
        """What the child answers. Raises Lost."""
        self._writer.write(struct.pack(">I", len(request)) + request)
        self.answers += 1
        return await self.hear()

    async def hear(self) -> dict[str, Any]:
        try:
            (size,) = struct.unpack(">I", await self._reader.readexactly(4))
            if size > LARGEST_ANSWER:
                raise Lost
            heard: dict[str, Any] = orjson.loads(await self._reader.readexactly(size))
        except (asyncio.IncompleteReadError, ConnectionError, orjson.JSONDecodeError) as fault:
            raise Lost from fault
        return heard

    def kill(self) -> int:
        """End the child at once, whatever it does; gives its exit code, negative for a signal."""
        self._writer.transport.abort()
        self.process.kill()
        return self.process.wait()  # milliseconds: nothing holds up SIGKILL

    async def closed(self) -> None:
        """Wait until our end of the socket is closed, after `kill`."""
        with suppress(OSError):
            await self._writer.wait_closed()


def launch(theirs: socket.socket, limits: Limits) -> "subprocess.Popen[bytes]":
    """The process, with nothing of ours but the socket: no other file, and an environment without secrets."""
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "app.proofreader", str(limits.memory_bytes), str(limits.cpu_s)],
        stdin=theirs.fileno(),
        stdout=subprocess.DEVNULL,
        env={"PYTHONPATH": str(ROOT)},
        cwd="/",
        start_new_session=True,  # Ctrl-C is ours
    )


class Proofreaders:
    """A few children, made when wanted and anew when one was killed. For one event loop."""

    def __init__(self, limits: Limits = Limits()) -> None:
        self.limits = limits
        self.spares: list[asyncio.Task[Child]] = []
        """Children that wait for work, or are being started."""
        self.busy: set[Child] = set()
        self.turns = asyncio.Semaphore(limits.children)
        self.waiting = 0
        self.asking: Counter[UUID] = Counter()
        """Requests under way, by workspace; none of those that have none."""
        self.is_closed = False

    def prepare(self) -> None:
        """Have a child ready for the first request; must be called inside the event loop."""
        if not self.spares:
            self.spares.append(self.started())

    async def prove(self, content: EmailContent | PushContent, *, workspace_id: UUID) -> Proof:
        what = "prove_push" if isinstance(content, PushContent) else "prove"
        return Proof.from_json(await self.ask(what, content, workspace_id))

    async def preview(self, trial: Trial, *, workspace_id: UUID) -> Preview:
        return Preview.from_json(await self.ask("preview", trial, workspace_id))

    async def preview_push(self, trial: PushTrial, *, workspace_id: UUID) -> PushPreview:
        return PushPreview.from_json(await self.ask("preview_push", trial, workspace_id))

    async def ask(self, what: str, subject: Subject, workspace_id: UUID) -> dict[str, Any]:
        """The value a child makes of `subject`. Raises CampaignError: its refusal, or why there is none."""
        request = orjson.dumps({"do": what, "of": subject})
        is_full = self.turns.locked() and self.waiting >= self.limits.waiting
        if is_full or self.asking[workspace_id] >= self.limits.of_one:
            raise busy()
        self.asking[workspace_id] += 1
        try:
            answer = await self.in_turn(request)
        finally:
            self.asking -= Counter((workspace_id,))  # which leaves nothing where nothing is left
        if refusal := answer.get("refusal"):
            raise CampaignError(refusal["code"], refusal["message"], field=tuple(refusal["field"]))
        if "fault" in answer:
            logger.error("proofreader failed", extra={"fault": answer["fault"]})
            raise RuntimeError("proofreader failed")
        value: dict[str, Any] = answer["value"]
        return value

    async def in_turn(self, request: bytes) -> dict[str, Any]:
        """What a child answers, once it is this request's turn, before its time is up."""
        deadline = asyncio.get_running_loop().time() + self.limits.wall.total_seconds()
        self.waiting += 1
        try:
            async with asyncio.timeout_at(deadline):
                await self.turns.acquire()
        except TimeoutError:
            raise busy() from None
        finally:
            self.waiting -= 1
        try:
            return await self.ask_a_child(request, deadline)
        finally:
            self.turns.release()

    async def ask_a_child(self, request: bytes, deadline: float) -> dict[str, Any]:
        """A child's answer; the child is kept unless it is used up, and killed whenever it does not answer."""
        spare = self.taken()
        try:
            async with asyncio.timeout_at(deadline):
                child = await asyncio.shield(spare)
        except (asyncio.CancelledError, TimeoutError) as gone:
            self.spares.append(spare)
            if isinstance(gone, TimeoutError):
                raise busy() from None
            raise
        self.busy.add(child)
        answer: dict[str, Any] | None = None
        began = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout_at(deadline):
                answer = await child.ask(request)
        except TimeoutError:
            if deadline - began < self.limits.fair.total_seconds():
                raise busy() from None
            raise too_costly(f"takes longer than {self.limits.wall.total_seconds():g} seconds") from None
        except Lost as lost:
            if child.kill() == -signal.SIGXCPU:
                raise too_costly(f"takes more than {self.limits.cpu_s} seconds of work") from lost
            raise too_costly("takes too much memory, or nests too deeply") from lost
        finally:
            # Also when whoever asked has gone: this child's next answer would be to a question nobody remembers.
            self.busy.discard(child)
            is_usable = answer is not None and "last" not in answer and child.answers < ANSWERS_OF_A_CHILD
            if not is_usable or self.is_closed:
                child.kill()
            if not self.is_closed:
                self.spares.append(spare if is_usable else self.started())
        return answer

    def taken(self) -> "asyncio.Task[Child]":
        """A spare that lives, else a child on its way. One that ended while nobody asked it anything, the machine being
        short of memory, says nothing about what is asked now."""
        while self.spares:
            spare = self.spares.pop(0)
            if not spare.done():
                return spare
            if spare.exception() is None:
                if spare.result().process.poll() is None:
                    return spare
                spare.result().kill()
        return self.started()

    def started(self) -> "asyncio.Task[Child]":
        """A child on its way."""
        return asyncio.create_task(Child.start(self.limits))

    async def close(self) -> None:
        """End every child."""
        self.is_closed = True
        for spare in self.spares:
            spare.cancel()  # does nothing to one that is ready
        await asyncio.gather(*self.spares, return_exceptions=True)
        ready = [spare.result() for spare in self.spares if not spare.cancelled() and not spare.exception()]
        children = [*ready, *self.busy]
        for child in children:
            child.kill()
        for child in children:
            await child.closed()


def busy() -> CampaignError:
    """The refusal of a content that nobody could look at."""
    message = "Too many contents are being read at this moment; try again in a few seconds."
    return CampaignError("BUSY", message, field=("content",))


def too_costly(why: str) -> CampaignError:
    """The refusal of a content whose child was ended, or had to be."""
    logger.warning("proofreader ended", extra={"why": why})
    message = f"Reading this content {why}, so it was stopped; use fewer and simpler tags and elements."
    return CampaignError("TEMPLATE_TOO_COSTLY", message, field=("content",))
