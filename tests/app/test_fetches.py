"""First fetches: what is kept of whom, and for how long. Boards and keys are made up, nothing is read."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from time import monotonic
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID

import orjson
import pytest
from pyroaring import BitMap

from app.auth import Authenticator
from app.boards import FORGOTTEN_AFTER_S, Boards, Kept
from app.context import Services
from app.fetches import LONGEST_AUTHORIZATION, LONGEST_QUESTION, REMEMBERED, TOKEN_REMEMBERED, Fetches, Question
from app.jwks import Person
from app.main import Application
from app.plans import REST, REST_OFFLINE
from app.problems import ApiError
from app.replies import Key, Reply
from app.serving import Asked
from app.settings import Settings
from app.viewers import Claim, ViewerTokens
from campaigns.banner_rules import BannerRules
from campaigns.banner_stops import FOREVER
from campaigns.banner_tokens import ImpressionTokens
from campaigns.banners import Viewer
from campaigns.board import Banner, Board, Stops
from campaigns.board_reading import BoardReader
from campaigns.tokens import Signer
from profiles.keys import KeyIdentity
from profiles.models import KeyKind
from tests.app.caller import Caller
from tests.app.test_banner_serving import Moved, get, process
from tests.campaigns.test_banners import banner

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
MIDNIGHT = datetime(2026, 3, 2, tzinfo=UTC)
MONTH_S = 30 * 86_400
HOUR = timedelta(hours=1)
WORKSPACE = UUID(int=1)
ADA = 7
SIGNER = Signer(b"k" * 32)
APP = KeyIdentity(WORKSPACE, UUID(int=2), KeyKind.PUBLISHABLE, frozenset())
SERVER = replace(APP, kind=KeyKind.SECRET, scopes=frozenset({"read"}))
PLACE = banner(1).placement


class Provider:
    """An identity provider that says everybody is ada, for a day."""

    async def read(self, token: str) -> Person:
        return Person(WORKSPACE, "ada", {}, (NOW + timedelta(days=1)).timestamp())


class Fetching:
    """A process that was just started, and one viewer."""

    def __init__(self, key: KeyIdentity, board: Board) -> None:
        self.fetches, self.key, self.now = Fetches(), key, NOW
        self.kept = Kept(BoardReader(WORKSPACE), 0.0, began_at=monotonic() + 3_600)
        self.kept.reader.board = board
        known = SimpleNamespace(find=self.find)
        self.tokens = ViewerTokens(SIGNER)
        self.authenticator = Authenticator(SIGNER, known=cast(Any, known), issuer=cast(Any, Provider()))
        services = SimpleNamespace(
            authenticator=self.authenticator,
            boards=SimpleNamespace(kept_of=self.kept_of),
            viewer_tokens=self.tokens,
            impression_tokens=ImpressionTokens(SIGNER),
            clock=lambda: self.now,
        )
        self.fetches.services = cast(Services, services)

    async def find(self, secret: str, *, now: datetime) -> KeyIdentity | None:
        """As app/auth.py has it."""
        ends_at = self.key.expires_at
        return None if ends_at is not None and ends_at <= now else self.key

    async def kept_of(self, workspace_id: UUID, *, now: datetime) -> Kept:
        return self.kept

    def ours(self) -> bytes:
        """A client token of ada's."""
        return self.authenticator.client_token(WORKSPACE, "ada", expires_at=NOW + 2 * HOUR).encode()

    def viewer(self, external_id: str | None = "ada") -> bytes:
        """A viewer token of ada's, or of a visitor."""
        viewer = Viewer.known(ADA) if external_id else Viewer.stranger()
        return self.tokens.make(WORKSPACE, Claim(viewer, external_id, NOW + timedelta(days=60))).encode()

    async def ask(self, key: Key, *, offline: bool = False, now: datetime = NOW) -> Reply:
        """What is answered."""
        self.now = now
        question = Question(REST_OFFLINE if offline else REST, Asked((PLACE,), offline=offline))
        return (await self.fetches.answer(key, question, now=now))[0]


def house(key: KeyIdentity = APP, *banners: Banner) -> Fetching:
    """One banner for everyone, unless told otherwise, in windows of a month."""
    return Fetching(key, Board.of(WORKSPACE, banners or [banner(1)], window_s=MONTH_S))


async def test_only_who_comes_back_as_the_same_is_kept() -> None:
    """With a viewer token of their own, and never what a secret key opens: each visitor without one is a new one."""
    app, server = house(), house(SERVER)
    for viewer in (None, b"made up", app.viewer()):  # the last is ada's, of whom nothing is proven
        made = [await app.ask((b"?x", b"Bearer k", None, viewer, None)) for _ in range(3)]
        assert len({one.etag for one in made}) == 3, "somebody else each time"
    await server.ask((b"?x", b"Bearer k", None, server.viewer(None), None))
    assert not app.fetches.replies.kept | server.fetches.replies.kept
    people = [(b"Bearer k", None, app.viewer(None)), (None, app.ours(), app.viewer())]
    for one in people:
        assert await app.ask((b"?x", *one, None)) is await app.ask((b"?x", *one, None))
    assert len(app.fetches.replies.kept) == len(people)


@pytest.mark.parametrize(
    ("key", "token", "proven_for", "good_for"),
    [
        (APP, None, REMEMBERED, 2 * HOUR),
        (replace(APP, expires_at=NOW + REMEMBERED / 2), None, REMEMBERED / 2, REMEMBERED / 2),
        (APP, b"a.b.c", REMEMBERED, TOKEN_REMEMBERED),
        (None, None, FOREVER - NOW, 2 * HOUR),
        (None, b"a.b.c", FOREVER - NOW, TOKEN_REMEMBERED),
    ],
    ids=["key", "key that expires", "key and provider", "token", "provider"],
)
async def test_an_answer_holds_as_long_as_what_proves_its_viewer(
    key: KeyIdentity | None, token: bytes | None, proven_for: timedelta, good_for: timedelta
) -> None:
    """A key that expires opens nothing more, for nobody: not even what nobody was answered before."""
    one = house(key or APP)
    asked = (b"?x", b"Bearer k" if key else None, token or one.ours(), one.viewer(), None)
    reply = await one.ask(asked)
    assert (reply.proof.until, reply.good_until) == (NOW + proven_for, NOW + good_for)
    if key and key.expires_at:
        with pytest.raises(ApiError):
            await one.ask((b"?y", *asked[1:]), now=key.expires_at)


async def test_what_a_key_was_answered_is_over_when_it_proves_somebody_else() -> None:
    one = house()
    asked = (b"?x", b"Bearer k", None, one.viewer(None), None)
    before = await one.ask(asked)
    later = NOW + REMEMBERED
    assert not before.holds(later)
    assert await one.ask(asked, now=later) is before, "proven anew, for all that the key was answered"
    one.key = replace(APP, workspace_id=UUID(int=9))
    after = await one.ask(asked, now=later + REMEMBERED)
    assert (after is before, before.holds(later + REMEMBERED)) == (False, False)


async def test_a_header_that_is_long_is_not_kept() -> None:
    """Whoever has the key that everybody has may write it in as many ways as they like."""
    one = house()
    for blanks in range(LONGEST_AUTHORIZATION - 10, LONGEST_AUTHORIZATION):
        await one.ask((b"?x", b"Bearer " + b" " * blanks + b"k", None, None, None))
    assert len(one.fetches.proofs.kept) == 3


async def test_what_an_app_may_choose_from_by_itself_holds_until_the_next_day() -> None:
    """Then a banner is back that had stopped for the day, though it was not looked at while another came before it."""
    stopped = Stops(until=((MIDNIGHT, BitMap([ADA])),))
    one = house(APP, banner(1, rules=BannerRules(priority=1)), banner(2, stops=stopped))
    asked = (b"?x", None, one.authenticator.client_token(WORKSPACE, "ada", expires_at=MIDNIGHT + HOUR).encode())
    key: Key = (*asked, one.viewer(), None)
    before = await one.ask(key, offline=True, now=MIDNIGHT - HOUR)
    assert before.age(MIDNIGHT - timedelta(seconds=30)) == b"30"
    after = await one.ask(key, offline=True, now=MIDNIGHT)
    assert [b"Banner 2" in reply.body(b"0") for reply in (before, after)] == [False, True]


async def test_nothing_is_answered_again_from_a_board_that_nobody_reads_any_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Not even when PostgreSQL was away just then, while which the last board is shown for long."""
    boards, at, done = Boards(), monotonic(), asyncio.Event()

    async def wait() -> None:
        done.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(boards.bell, "wait", wait)
    kept = boards.kept[WORKSPACE] = Kept(
        BoardReader(WORKSPACE), at - FORGOTTEN_AFTER_S - 1, began_at=at, tried_at=at, away=True
    )
    reading = asyncio.create_task(boards.keep_reading(lambda: NOW))
    async with asyncio.timeout(60):
        await done.wait()
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    assert (boards.kept, kept.is_current()) == ({}, False)


async def test_a_question_that_is_long_is_answered_and_not_kept(app_caller: Caller, settings: Settings) -> None:
    """By GET and by POST: whoever likes puts blanks into it."""
    async with process(settings, Moved()) as (app, client):
        kept = cast(Application, app).front.fetches.questions.kept
        headers = app_caller.all_headers() | {"content-type": "application/json"}
        body = orjson.dumps({"query": '{ banners(placements: ["home-top"]) { viewer } }'})
        for blanks in (0, LONGEST_QUESTION):
            for _ in range(2):  # a document is planned once it was read
                posted = await client.post("/graphql", content=body + b" " * blanks, headers=headers)
                got = await client.get(f"/v1/banners?placement=home-top&x={'x' * blanks}", headers=headers)
                assert (posted.status_code, got.status_code) == (200, 200)
            assert {*kept} == {body, b"?placement=home-top&x="}


async def test_nothing_is_kept_of_a_question_nobody_may_ask(app_caller: Caller, settings: Settings) -> None:
    """Nor is what a GET was answered an answer to a POST with the same bytes, which are no JSON."""
    async with process(settings, Moved()) as (app, client):
        kept = cast(Application, app).front.fetches.questions.kept
        for place in ("a", "b"):
            assert (await client.get("/v1/banners", params={"placement": place})).status_code == 401
        assert not kept
        viewer = (await get(app_caller, "banners", http=client)).json()["viewerToken"]
        assert [*kept] == [b"?placement=banners"]
        visitor = app_caller.with_headers(x_muster_viewer=viewer)
        assert (await get(visitor, "banners", http=client)).status_code == 200
        headers = visitor.all_headers() | {"content-type": "application/json"}
        assert (await client.post("/graphql", content=b"?placement=banners", headers=headers)).status_code == 400
