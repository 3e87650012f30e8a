"""The reply memory: what was answered to fetches of banners, found again by the very bytes that asked (ADR 0027).

People come back to the screens they know, so most fetches have been answered before. A hit costs a look-up and a few
comparisons: nothing is parsed, proven, decided or written. A reply is sent again only while all that it was made of
still stands. Whoever changes something takes nothing out of here: a reply looks at what it was made of, and there the
change shows.
"""

from collections import OrderedDict
from dataclasses import dataclass
from datetime import datetime
from typing import TypeAlias

from app.auth import Caller
from app.banner_json import AGE
from app.boards import Kept
from campaigns.banners import LONGEST_AGE

Key: TypeAlias = tuple[bytes, bytes | None, bytes | None, bytes | None, bytes | None]
"""What asked, all that the answer depends on: the question (`?` and the query string of a GET, or the body of a POST),
then the headers Authorization, X-Muster-Client-Token, X-Muster-Viewer and Accept-Language. What is said to pages, the
media type and whether it is a 304 are worked out each time."""

MOST_BYTES = 40_000_000
"""Of all replies that are kept: anybody may ask for much, as many visitors."""
OBJECTS_OF_ONE = 900
"""Bytes that Python takes for the objects of one reply, beside what is in them."""
OBJECTS_OF_SHARED = 200
"""The same of a part that many share."""
CHANCES = 10
"""Replies found lately that are passed over for one that goes, at most: all of them would take milliseconds."""


@dataclass(slots=True, eq=False)
class Proof:
    """Whom an Authorization header proves, and until when nobody need ask again. All that a key was answered share it:
    one of those who send it has it proven for all."""

    authorization: bytes | None
    caller: Caller | None
    """None: there is no such header."""
    until: datetime


@dataclass(slots=True, eq=False)
class Reply:
    """What was answered to somebody, and what it was made of."""

    parts: tuple[bytes, ...]
    """AGE, itself, stands where its age belongs. Every second one, beginning with the second, may be part of many
    replies."""
    etag: bytes
    fresh_until: datetime
    """Until when it holds for LONGEST_AGE and more: then its age need not be worked out."""
    good_until: datetime
    """When its time is over, or what proves the viewer has to be looked at again."""
    proof: Proof
    kept: Kept
    made_at: int
    """The number of the board's last change that is known to have changed nothing here."""
    profile_id: int | None
    """Whose it is; None: a visitor nobody knows."""
    was_found: bool = False
    """Whether it was sent again since it was kept, or since it was last passed over."""

    def age(self, now: datetime) -> bytes:
        """How many whole seconds it holds at most."""
        if now <= self.fresh_until:
            return AGE
        return b"%d" % max(0, (self.fresh_until + LONGEST_AGE - now).total_seconds())

    def body(self, age: bytes) -> bytes:
        """What is sent."""
        if age is AGE:
            return b"".join(self.parts)
        return b"".join([age if one is AGE else one for one in self.parts])

    def holds(self, now: datetime) -> bool:
        """Whether the same would be answered now."""
        if now >= self.good_until or now >= self.proof.until or not self.kept.is_current():
            return False
        if self.made_at == self.kept.number:
            return True
        if not self.kept.holds(self.made_at, self.profile_id):
            return False
        self.made_at = self.kept.number
        return True


class Replies:
    """Those used lately, at most so many bytes of them.

    A queue in which whoever was found meanwhile goes to the end when their turn comes ("second chance"), not each time
    they are found: that would touch the neighbours of both places, half of what a hit costs when thousands come in
    turn and none of them is in the processor's cache.
    """

    def __init__(self) -> None:
        self.kept: OrderedDict[Key, Reply] = OrderedDict()
        self.shared: dict[bytes, tuple[bytes, int]] = {}
        """Questions and parts of many replies, each once, and of how many."""
        self.size = 0

    def find(self, key: Key, *, now: datetime) -> Reply | None:
        """What the same bytes were answered, if they would be answered the same now; else None."""
        reply = self.kept.get(key)
        if reply is None or not reply.holds(now):
            return None
        reply.was_found = True
        return reply

    def keep(self, key: Key, reply: Reply) -> None:
        """Keep one in place of that of before; where they are too much, those go that were not found for long."""
        if (before := self.kept.pop(key, None)) is not None:
            self.let_go(key, before)
        # Questions are asked by many too, and one of GraphQL is as long as its answer.
        key = (self.share(key[0]), *key[1:])
        reply.parts = tuple(self.share(one) if place % 2 else one for place, one in enumerate(reply.parts))
        self.kept[key] = reply
        self.size += own_size(key, reply)
        chances = CHANCES
        while self.size > MOST_BYTES:
            key, reply = self.kept.popitem(last=False)
            if reply.was_found and chances:
                chances -= 1
                reply.was_found = False
                self.kept[key] = reply
            else:
                self.let_go(key, reply)

    def share(self, part: bytes) -> bytes:
        """The object for these bytes that all replies have."""
        found, many = self.shared.get(part, (part, 0))
        self.shared[found] = found, many + 1
        if not many:
            self.size += OBJECTS_OF_SHARED + len(part)
        return found

    def let_go(self, key: Key, reply: Reply) -> None:
        """Count one no more that is not kept any more."""
        self.size -= own_size(key, reply)
        for part in (key[0], *reply.parts[1::2]):
            found, many = self.shared[part]
            if many > 1:
                self.shared[part] = found, many - 1
            else:
                del self.shared[part]
                self.size -= OBJECTS_OF_SHARED + len(part)


def own_size(key: Key, reply: Reply) -> int:
    """Bytes of what no other reply has."""
    return OBJECTS_OF_ONE + sum(len(one or b"") for one in key[1:]) + sum(map(len, reply.parts[::2]))
