"""Fetches of banners, as fast as they can be answered: who asks, and what was answered a moment ago.

Proving a caller, reading a viewer token, deciding and writing cost tens of microseconds. All of it is kept a while for
those who fetched last, and an answer as long as it is true: until its time is over, banners or placements change, or
something about its very viewer does (app/boards.py: Kept.holds).
"""

from collections import OrderedDict
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from typing import Generic, TypeVar

from starlette.datastructures import Headers

from app.auth import Caller, require
from app.banner_json import AGE
from app.boards import Kept
from app.context import Services
from app.patience import UNREACHABLE
from app.plans import Plan
from app.problems import ApiError
from app.serving import Asked, Served, serve
from campaigns.banner_stops import FOREVER
from campaigns.banners import LONGEST_AGE, Viewer
from profiles.keys import Scope

REMEMBERED = timedelta(seconds=1)
"""So long a key is not proven again, beside the time for which app/auth.py remembers it. One of its callers proves it
for all."""
TOKEN_REMEMBERED = timedelta(minutes=1)
"""So long a client token is not, which costs more than all else of a fetch; never beyond its expiry."""
MOST_KEYS = 1_024
MOST_SESSIONS = 16_384
"""Callers of whom something is kept."""
MOST_ANSWERS = 4
"""Kept of each."""
MOST_BYTES = 48_000_000
"""Of all answers that are kept and the headers by which they are found: anybody may ask for much, as many visitors."""
LONGEST_AGE_S = int(LONGEST_AGE.total_seconds())
LONGEST_AGE_WRITTEN = b"%d" % LONGEST_AGE_S

AUTHORIZATION, CLIENT_TOKEN, VIEWER = b"authorization", b"x-muster-client-token", b"x-muster-viewer"
LANGUAGE = b"accept-language"

NEVER = datetime.min.replace(tzinfo=UTC)

K = TypeVar("K")
V = TypeVar("V")


class Latest(Generic[K, V]):
    """The values used last, at most so many."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.kept: OrderedDict[K, V] = OrderedDict()

    def find(self, key: K) -> V | None:
        """The value; None when it is not kept."""
        found = self.kept.get(key)
        if found is not None:
            self.kept.move_to_end(key)
        return found

    def keep(self, key: K, value: V) -> None:
        """Keep one, and drop the one that was not used for longest where there are too many."""
        self.kept[key] = value
        self.kept.move_to_end(key)
        if len(self.kept) > self.most:
            self.kept.popitem(last=False)


@dataclass(frozen=True, slots=True, eq=False)
class Question:
    """What is asked, and how the answer is written."""

    plan: Plan
    asked: Asked


@dataclass(frozen=True, slots=True)
class Answer:
    """What was answered to somebody, for as long as it is true."""

    parts: tuple[bytes, ...]
    """With AGE where its age belongs."""
    etag: bytes
    good_until: datetime
    oldest_until: datetime
    """Until when it holds for LONGEST_AGE and more: then its age need not be worked out."""
    made_at: int
    """The number of the board's last change."""

    @property
    def size(self) -> int:
        """Bytes; what several answers share is counted in each."""
        return sum(map(len, self.parts))

    def body(self, age: bytes) -> bytes:
        """What is sent."""
        return b"".join(self.parts).replace(AGE, age)

    def age(self, now: datetime) -> bytes:
        """How many whole seconds it holds at most."""
        if now <= self.oldest_until:
            return LONGEST_AGE_WRITTEN
        return b"%d" % max(0, (self.good_until - now).total_seconds())


@dataclass(slots=True)
class Session:
    """Somebody with a viewer token."""

    caller: Caller
    viewer: Viewer
    kept: Kept
    proven_until: datetime
    seen_until: datetime
    """Until when the viewer token names this viewer."""
    answers: "dict[Question, Answer]" = field(default_factory=dict)

    def holds(self, answer: Answer, now: datetime) -> bool:
        """Whether an answer would still be the same."""
        if now >= answer.good_until or now >= self.seen_until:
            return False
        return answer.made_at == self.kept.number or self.kept.holds(answer.made_at, self.viewer.profile_id)


HeaderValues = dict[bytes, bytes]
SessionKey = tuple[bytes | None, bytes | None, bytes | None, bytes | None]


class Fetches:
    """Answers fetches. `services` is set when the application starts."""

    def __init__(self) -> None:
        self.services: Services
        self.sessions: Latest[SessionKey, Session] = Latest(MOST_SESSIONS)
        self.keys: Latest[bytes | None, datetime] = Latest(MOST_KEYS)
        """Until when what an Authorization header carries is proven."""
        self.size = 0
        """Bytes of what is kept."""

    def find(self, headers: HeaderValues, question: Question, *, now: datetime) -> Answer | None:
        """What the same caller was answered, if it would be the same now and nobody need be proven again."""
        key = key_of(headers)
        session = self.sessions.find(key)
        if session is None or not self.is_proven(key, session, now=now):
            return None
        answer = session.answers.get(question)
        if answer is None or not session.holds(answer, now) or not self.services.boards.is_current(session.kept):
            return None
        return answer

    def is_proven(self, key: SessionKey, session: Session, *, now: datetime) -> bool:
        """Whether a caller and their key were proven a moment ago."""
        return now < session.proven_until and now < self.keys.kept.get(key[0], NEVER)

    async def answer(self, headers: HeaderValues, question: Question, *, now: datetime) -> tuple[Answer, bool]:
        """The answer to a question for which `find` has none, and whether it brings a new viewer token. Raises
        MusterError."""
        key = key_of(headers)
        session = self.sessions.find(key)
        if session is not None and self.is_proven(key, session, now=now):
            caller = session.caller
        else:
            caller = await self.prove(headers, now=now)
            if session is not None and caller == session.caller:
                session.proven_until = proven_until(caller, now)
                if (found := self.find(headers, question, now=now)) is not None:
                    return found, False
            else:
                session = None
        served = await serve(
            self.services,
            caller,
            question.asked,
            viewer_token=text_of(headers.get(VIEWER)),
            accept_language=text_of(headers.get(LANGUAGE)),
            now=now,
        )
        answer = answered(served, question)
        is_new = served.sight.token is not None
        # Only who has a token comes back as the same; and what a secret key opens is not kept by its name.
        if not is_new and not caller.is_server and key[2] is not None:
            self.remember(key, session, caller, served, question, answer)
        return answer, is_new

    async def prove(self, headers: HeaderValues, *, now: datetime) -> Caller:
        """Who asks; raises ApiError UNAUTHENTICATED or FORBIDDEN, UNAVAILABLE when nobody can be asked."""
        given = Headers(raw=[(name, headers[name]) for name in (AUTHORIZATION, CLIENT_TOKEN) if name in headers])
        try:
            caller = await self.services.authenticator.caller(given, now=now)
        except UNREACHABLE as fault:
            raise ApiError("UNAVAILABLE", "The database is away; ask again later.") from fault
        proven = require(caller, Scope.READ, from_apps=True)
        self.keys.keep(headers.get(AUTHORIZATION), now + REMEMBERED)
        return proven

    def remember(
        self,
        key: SessionKey,
        session: Session | None,
        caller: Caller,
        served: Served,
        question: Question,
        answer: Answer,
    ) -> None:
        """Keep an answer for the next time."""
        if (before := self.sessions.kept.pop(key, None)) is not None:
            self.size -= size_of(key, before)
        if session is None or session.viewer != served.viewer or session.kept is not served.kept:
            session = Session(
                caller, served.viewer, served.kept, proven_until(caller, served.now), served.sight.expires_at
            )
        if question not in session.answers and len(session.answers) >= MOST_ANSWERS:
            session.answers.clear()
        session.answers[question] = answer
        self.sessions.kept[key] = session
        self.size += size_of(key, session)
        while self.size > MOST_BYTES or len(self.sessions.kept) > MOST_SESSIONS:
            self.size -= size_of(*self.sessions.kept.popitem(last=False))


def key_of(headers: HeaderValues) -> SessionKey:
    """By what a caller is found again."""
    get = headers.get
    return get(AUTHORIZATION), get(CLIENT_TOKEN), get(VIEWER), get(LANGUAGE)


def answered(served: Served, question: Question) -> Answer:
    """What is answered, written."""
    parts = question.plan.answer(served, question.asked)
    digest = blake2b(b"".join(parts), digest_size=12, key=served.viewer.key.encode("utf-8", "replace")[:64])
    return Answer(
        parts=parts,
        # Weak: the age in it is another one each second (RFC 9110 8.8.1).
        etag=b'W/"' + digest.hexdigest().encode() + b'"',
        good_until=served.good_until,
        oldest_until=served.good_until - LONGEST_AGE,
        made_at=served.kept.number,
    )


def size_of(key: SessionKey, session: Session) -> int:
    """Bytes of what is kept of somebody."""
    return sum(len(one or b"") for one in key) + sum(one.size for one in session.answers.values())


def proven_until(caller: Caller, now: datetime) -> datetime:
    """Until when a caller need not be proven again."""
    return min(now + TOKEN_REMEMBERED, caller.expires_at or FOREVER)


def text_of(value: bytes | None) -> str | None:
    return None if value is None else value.decode("latin-1")
