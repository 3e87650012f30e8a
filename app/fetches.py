"""Fetches of banners that the reply memory has no answer to (app/replies.py): who asks, what they are answered, and how
long that may be sent again to the same request."""

from collections import OrderedDict
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import blake2b
from typing import Generic, TypeVar

from app.auth import CLIENT_TOKEN_PREFIX, Caller, bearer_of, require
from app.context import Services
from app.plans import Plan
from app.replies import Key, Proof, Replies, Reply
from app.serving import Asked, Served, serve
from campaigns.banner_stops import FOREVER
from campaigns.banners import LONGEST_AGE
from profiles.keys import Scope

REMEMBERED = timedelta(seconds=1)
"""So long a key is not proven again, beside the time for which app/auth.py remembers it."""
TOKEN_REMEMBERED = timedelta(minutes=1)
"""So long a token of an identity provider is not, whose keys may be taken back; ours are good until they expire."""
MOST_PROOFS = MOST_QUESTIONS = 1_024
LONGEST_QUESTION = 8_192
"""Bytes of a query string or body that is kept."""
LONGEST_AUTHORIZATION = 256
"""The same of an Authorization header: that of a key has 60, and whoever likes puts blanks into it."""

AUTHORIZATION, CLIENT_TOKEN, VIEWER = b"authorization", b"x-muster-client-token", b"x-muster-viewer"
LANGUAGE = b"accept-language"

K = TypeVar("K")
V = TypeVar("V")
HeaderValues = dict[bytes, bytes]


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


class Fetches:
    """Answers fetches. `services` is set when the application starts."""

    def __init__(self) -> None:
        self.services: Services
        self.replies = Replies()
        self.proofs: Latest[bytes | None, Proof] = Latest(MOST_PROOFS)
        """Of keys, by the Authorization headers that carry them."""
        self.questions: Latest[bytes, Question] = Latest(MOST_QUESTIONS)
        """Many ask the same."""

    async def answer(self, key: Key, question: Question, *, now: datetime) -> tuple[Reply, bool]:
        """The answer to a request for which there is no reply, and whether it brings a new viewer token. Raises
        MusterError."""
        caller, proof = await self.prove(key, now=now)
        await self.services.boards.kept_of(caller.workspace_id, now=now)
        # A reply may have ended while these were waited for.
        now = self.services.clock()
        # Often nothing was amiss but that the key had to be proven again, or the board read.
        if (reply := self.replies.find(key, now=now)) is not None:
            return reply, False
        _, _, _, viewer, language = key
        served = await serve(
            self.services,
            caller,
            question.asked,
            viewer_token=text_of(viewer),
            accept_language=text_of(language),
            now=now,
        )
        reply = self.reply(key, question, caller, proof, served)
        is_new = served.sight.token is not None
        # Only who has a token comes back as the same; and what a secret key opens is not kept by its name.
        if viewer is not None and not is_new and not caller.is_server:
            self.replies.keep((key[0], proof.authorization, *key[2:]), reply)
        return reply, is_new

    async def prove(self, key: Key, *, now: datetime) -> tuple[Caller, Proof]:
        """Who asks, and what proves it; raises ApiError UNAUTHENTICATED or FORBIDDEN, and what the database
        raises."""
        _, authorization, token, _, _ = key
        authenticator = self.services.authenticator
        proof = self.proofs.find(authorization)
        if proof is None or now >= proof.until:
            proof = await self.prove_again(authorization, proof, now=now)
        caller = await authenticator.acting(proof.caller, text_of(token), now=now)
        return require(caller, Scope.READ, from_apps=True), proof

    async def prove_again(self, authorization: bytes | None, before: Proof | None, *, now: datetime) -> Proof:
        """What an Authorization header proves now. What was answered to another caller by it is nobody's any more."""
        bearer = bearer_of(text_of(authorization))
        if bearer is None:
            return Proof(None, None, FOREVER)
        caller = await self.services.authenticator.bearer(bearer, now=now)
        if caller.key_id is None:
            # A token is one person's: nobody else is helped by what it proved, and so many would push out the keys.
            return Proof(authorization, caller, token_until(caller, bearer, now))
        # One that expires in between opens nothing more, for those either to whom nothing was answered yet.
        until = min(now + REMEMBERED, caller.expires_at or FOREVER)
        if before is not None and before.caller == caller:
            before.until = until
            return before
        proof = Proof(authorization, caller, until)
        if authorization is not None and len(authorization) <= LONGEST_AUTHORIZATION:
            self.proofs.keep(authorization, proof)
        return proof

    def reply(self, key: Key, question: Question, caller: Caller, proof: Proof, served: Served) -> Reply:
        """What is answered, with what it was made of."""
        parts = question.plan.answer(served, question.asked)
        token = text_of(key[2])
        proven_until = FOREVER if token is None else token_until(caller, token, served.now)
        return Reply(
            parts=parts,
            etag=etag_of(parts, served.viewer.key) if question.plan.is_tagged else b"",
            fresh_until=served.good_until - LONGEST_AGE,
            good_until=min(served.good_until, proven_until),
            proof=proof,
            kept=served.kept,
            made_at=served.kept.number,
            profile_id=served.viewer.profile_id,
        )


def etag_of(parts: tuple[bytes, ...], viewer: str) -> bytes:
    """Of what was decided for a viewer. Weak: the age in it is another one each second (RFC 9110 8.8.1)."""
    digest = blake2b(b"".join(parts), digest_size=12, key=viewer.encode("utf-8", "replace")[:64])
    return b'W/"' + digest.hexdigest().encode() + b'"'


def token_until(caller: Caller, token: str, now: datetime) -> datetime:
    """Until when a client token, by which this is the caller, need not be proven again."""
    ends_at = caller.expires_at or FOREVER
    return ends_at if token.startswith(CLIENT_TOKEN_PREFIX) else min(ends_at, now + TOKEN_REMEMBERED)


def text_of(value: bytes | None) -> str | None:
    return None if value is None else value.decode("latin-1")
