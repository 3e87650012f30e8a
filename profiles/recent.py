"""Whom this process met lately: profile ids by what others call the people, so that nobody is looked up every time.

A guess and never the truth. Whoever builds on it locks the people before the end of the transaction and looks whether
they still live, as profiles/seen.py does; if not, all is rolled back, forgotten here, and begins with a look-up.
"""

from collections.abc import Iterable, Mapping
from uuid import UUID

from db.transactions import connections_made

MOST = 50_000
"""Names kept a generation, of which there are two: some 15 MB together."""


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

    def recall(self, workspace_id: UUID, names: Iterable[str]) -> dict[str, int]:
        """Those of `names` that are known, with whom they meant. Asked inside of the transaction that builds on it."""
        if self._connections != connections_made():
            # Perhaps to another database under the same name, such as one restored: ids may be other people's there.
            self._connections = connections_made()
            self._young, self._old, self._names = {}, {}, 0
        young, old = self._young.get(workspace_id, {}), self._old.get(workspace_id, {})
        return {name: id for name in names if (id := young.get(name) or old.get(name))}

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
