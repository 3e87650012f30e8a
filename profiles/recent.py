"""Whom this process met lately: profile ids by what others call the people, so that nobody is looked up every time.

A guess and never the truth. Whoever builds on it locks the people before the end of the transaction and looks whether
they still live, as profiles/seen.py does; if not, all is rolled back, forgotten here, and begins with a look-up.
"""

import asyncio
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from uuid import UUID

from db.transactions import connections_made

MOST = 50_000
"""Names kept a generation, of which there are two: some 15 MB together."""

LONGEST_TURN_S = 5.0
"""Seconds that a batch waits for those before it; then PostgreSQL's locks decide, as they do between processes.

Several times as long as PostgreSQL takes to find a deadlock (deadlock_timeout, 1 s): else whoever waits for a batch
that stands in one gives up its turn and stands in the next, and so on for as long as batches come."""


class Recent:
    """Profile ids by one kind of name, those asked for last; at most twice `most` of them.

    Two generations in place of an order: when the young one is full, the old one is dropped and it takes its place.
    """

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._young: dict[UUID, dict[str, int]] = {}
        self._old: dict[UUID, dict[str, int]] = {}
        self._names = 0
        self._connections = 0
        self._under_way: dict[UUID, list[Claim]] = {}

    def recall(self, workspace_id: UUID, names: Iterable[str]) -> dict[str, int]:
        """Those of `names` that are known, with whom they meant. Asked inside of the transaction that builds on it."""
        if self._connections != connections_made():
            # Perhaps to another database under the same name, such as one restored: ids may be other people's there.
            self._connections = connections_made()
            self._young, self._old, self._names = {}, {}, 0
        young, old = self._young.get(workspace_id, {}), self._old.get(workspace_id, {})
        # Sets are compared without a step of Python a name.
        wanted = set(names)
        recalled = {name: old[name] for name in old.keys() & wanted} if old else {}
        recalled.update([(name, young[name]) for name in young.keys() & wanted])
        return recalled

    @contextmanager
    def claim(self, workspace_id: UUID) -> Iterator["Claim"]:
        """A batch's claim, good until the block ends, which is when its transaction has ended."""
        claim = Claim(self._under_way.setdefault(workspace_id, []))
        try:
            yield claim
        finally:
            claim.release()

    def remember(self, workspace_id: UUID, people: Mapping[str, int]) -> None:
        """What was found and is committed."""
        young = self._young.setdefault(workspace_id, {})
        before = len(young)
        young.update(people)
        self._names += len(young) - before
        if self._names > self._most:
            self._old, self._young, self._names = self._young, {}, 0

    def forget(self, workspace_id: UUID, names: Iterable[str]) -> None:
        """Look these up the next time: what was remembered of one of them is no longer so."""
        young, old = self._young.get(workspace_id, {}), self._old.get(workspace_id, {})
        for name in names:
            if young.pop(name, None) is not None:
                self._names -= 1
            old.pop(name, None)


class Claim:
    """Which names a batch has come with, while it is under way in this process.

    It locks those of them that nobody else under way has come with, if it must, in the middle of its transaction, and
    all others at its end, when those who came before have ended. So nobody holds in PostgreSQL what an earlier one
    wants at its end, and nobody waits there for who waits in here.
    """

    def __init__(self, under_way: list["Claim"]) -> None:
        self._under_way = under_way
        self._names: set[str] = set()
        self._before: list[Claim] = []
        self._ended = asyncio.Event()
        under_way.append(self)

    def take(self, names: set[str], others: Collection[str] = ()) -> set[str]:
        """Those of `names` that nobody else under way has come with; once a claim. Whoever comes with one of them, or
        of `others`, from now on waits for this batch."""
        free, wanted = set(names), names.union(others)
        for other in self._under_way:
            if other is not self and not wanted.isdisjoint(other._names):
                self._before.append(other)
                free -= other._names
        self._names = wanted
        return free

    async def turn(self) -> None:
        """Return when all have ended who had taken names before that this one wanted too, or after a while.

        One person may have two names, by which two batches wait for each other, one here and one in PostgreSQL; that
        only PostgreSQL finds out, as soon as both wait there.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(LONGEST_TURN_S):
                for other in self._before:
                    await other._ended.wait()

    def release(self) -> None:
        """Let go of the names, and of the claims before, which whoever waits for this one would keep with it."""
        if self in self._under_way:
            self._under_way.remove(self)
        self._names = set()
        self._before.clear()
        self._ended.set()
