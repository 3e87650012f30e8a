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
        self._claimed: dict[UUID, dict[str, Claim]] = {}

    def recall(self, workspace_id: UUID, names: Iterable[str]) -> dict[str, int]:
        """Those of `names` that are known, with whom they meant. Asked inside of the transaction that builds on it."""
        if self._connections != connections_made():
            # Perhaps to another database under the same name, such as one restored: ids may be other people's there.
            self._connections = connections_made()
            self._young, self._old, self._names = {}, {}, 0
        young, old = self._young.get(workspace_id, {}), self._old.get(workspace_id, {})
        return {name: id for name in names if (id := young.get(name) or old.get(name))}

    @contextmanager
    def claim(self, workspace_id: UUID) -> Iterator["Claim"]:
        """A batch's claim, good until the block ends, which is when its transaction has ended."""
        claim = Claim(self._claimed.setdefault(workspace_id, {}))
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

    def __init__(self, claimed: dict[str, "Claim"]) -> None:
        self._claimed = claimed
        self._mine: set[str] = set()
        self._before: set[Claim] = set()
        self._ended = asyncio.Event()

    def take(self, names: set[str], others: Collection[str] = ()) -> set[str]:
        """Those of `names` that nobody else under way has come with. Whoever comes with one of them, or of `others`,
        from now on waits for this batch."""
        wanted = names.union(others)
        taken = self._claimed.keys() & wanted
        self._before.update(self._claimed[name] for name in taken)
        self._before.discard(self)
        self._claimed.update(dict.fromkeys(wanted, self))
        self._mine |= wanted
        return names - taken

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
        for name in self._mine:
            # Who came later waits for this one, and is whom the next one waits for.
            if self._claimed.get(name) is self:
                del self._claimed[name]
        self._mine.clear()
        self._before.clear()
        self._ended.set()
