"""The reply memory: whoever asks with the same bytes is answered the same, and nothing is sent again that is over."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import Any
from uuid import UUID

import httpx2
import orjson
import pytest
from pyroaring import BitMap

from app import fetches, replies
from app.auth import Caller as Proven
from app.banner_json import AGE
from app.boards import CHANGES_KEPT, Kept
from app.fetches import TOKEN_REMEMBERED, token_until
from app.main import create_app
from app.replies import Key, Proof, Replies, Reply, own_size
from app.resources import segment_sources
from app.serving import Served, serve
from app.settings import Settings
from campaigns.board_reading import BoardReader, Refreshed
from profiles import keys
from profiles.models import KeyKind
from segments import pulse
from tests.app.caller import Caller, operation_text
from tests.app.conftest import resources_of
from tests.app.test_api_banners import show
from tests.app.test_banner_serving import Moved, get, process, signed_in, titles, until

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
ADA = 7
KEY: Key = (b"?placement=x", b"Bearer k", b"mct_ada", b"v", b"de")
SHARED = b"x" * 300


def reply_of(kept: Kept, **more: Any) -> Reply:
    """A reply that holds."""
    proof = Proof(b"Bearer k", None, NOW + MINUTE)
    parts = (b'{"maxAgeSeconds":', AGE, b",", SHARED, b"}")
    found = Reply(parts, b'W/"tag"', NOW, NOW + MINUTE, proof, kept, kept.number, ADA)
    for name, value in more.items():
        setattr(found, name, value)
    return found


def read(replaced: bool = False, *touched: int) -> Callable[[Kept, Reply], None]:
    """A reading that found something different."""
    return lambda kept, reply: kept.take(Refreshed(kept.board, replaced, BitMap(touched)))


def expired(kept: Kept, reply: Reply) -> None:
    reply.good_until = NOW


def unproven(kept: Kept, reply: Reply) -> None:
    reply.proof.until = NOW


def held_up(kept: Kept, reply: Reply) -> None:
    kept.began_at = monotonic() - 1.9


def away(kept: Kept, reply: Reply) -> None:
    kept.began_at, kept.away = monotonic() - 3_000, True


def away_for_long(kept: Kept, reply: Reply) -> None:
    kept.began_at, kept.away = monotonic() - 3_601, True


@pytest.mark.parametrize(
    ("happens", "holds"),
    [
        (read(), True),
        (read(False, 5, 6), True),
        (read(False, 5, ADA), False),
        (read(True), False),
        (expired, False),
        (unproven, False),
        (held_up, False),
        (away, True),
        (away_for_long, False),
    ],
    ids=["nothing", "others", "ada", "banners", "time", "key", "held up", "away", "away for long"],
)
def test_a_reply_is_sent_again_only_while_all_it_was_made_of_stands(
    happens: Callable[[Kept, Reply], None], holds: bool
) -> None:
    memory, kept = Replies(), Kept(BoardReader(UUID(int=1)), 0.0, began_at=monotonic())
    reply = reply_of(kept)
    memory.keep(KEY, reply)
    assert memory.find(KEY, now=NOW) is reply
    happens(kept, reply)
    assert (memory.find(KEY, now=NOW) is reply) is holds
    assert (reply.made_at == kept.number) is (holds or kept.number == 0), "no change is looked at twice"


def test_a_reply_older_than_the_changes_that_are_known_is_sent_no_more() -> None:
    """Whom the first of them touched nobody knows any more: it may have been ada."""
    kept = Kept(BoardReader(UUID(int=1)), 0.0, began_at=monotonic())
    before = reply_of(kept)
    read(False, ADA)(kept, before)
    others = reply_of(kept)
    for _ in range(CHANGES_KEPT):
        assert (before.holds(NOW), kept.holds(others.made_at, ADA)) == (False, True)
        read(False, 5)(kept, others)
    assert (before.holds(NOW), others.holds(NOW)) == (False, True)


def test_a_reply_is_found_by_all_of_what_asked() -> None:
    """One byte that is different, or not there, is somebody else."""
    memory, kept = Replies(), Kept(BoardReader(UUID(int=1)), 0.0, began_at=monotonic())
    memory.keep(KEY, reply_of(kept))
    for place, part in enumerate(KEY):
        for other in ((part or b"") + b"x", b"", None):
            changed = (*KEY[:place], other, *KEY[place + 1 :])
            assert memory.find(changed, now=NOW) is None  # type: ignore[arg-type]


def test_what_is_kept_is_bounded_by_all_of_its_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Anybody may be many visitors, and ask for much. What many share counts once; what was used last stays."""
    monkeypatch.setattr(replies, "MOST_BYTES", 20_000)
    memory, kept = Replies(), Kept(BoardReader(UUID(int=1)), 0.0, began_at=monotonic())
    memory.keep(KEY, reply_of(kept))
    for visitor in range(60):
        name = str(visitor).encode()
        shared = SHARED if visitor % 2 else name * 100
        key = (*KEY[:3], name, KEY[4])
        for _ in range(2):  # in place of itself
            memory.keep(key, reply_of(kept, parts=(bytes(visitor), bytes(bytearray(shared)), b"}")))
        assert memory.find(KEY, now=NOW), "used again and again"
        sizes = sum(own_size(*one) for one in memory.kept.items())
        parts = {part for one in memory.kept.values() for part in one.parts[1::2]} | {key[0] for key in memory.kept}
        assert memory.size == sizes + sum(replies.OBJECTS_OF_SHARED + len(one) for one in parts) <= 20_000
        assert memory.shared.keys() == parts
    left = [key[3] for key in memory.kept if key != KEY]
    assert KEY in memory.kept
    assert left == [str(visitor).encode() for visitor in range(60 - len(left), 60)]
    assert 5 < len(left) < 20
    assert len({id(one.parts[1]) for one in memory.kept.values() if one.parts[1] == SHARED}) == 1


def test_only_so_many_that_were_found_are_passed_over_for_one_that_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Were it all of a full memory, one fetch would hold up all others. What was passed over has to be found anew."""
    memory, kept = Replies(), Kept(BoardReader(UUID(int=1)), 0.0, began_at=monotonic())
    names = [b"%02d" % number for number in range(replies.CHANCES + 5)]
    keys: list[Key] = [(*KEY[:3], name, KEY[4]) for name in names]
    for key in keys[:-2]:
        memory.keep(key, reply_of(kept))
        assert memory.find(key, now=NOW)
    monkeypatch.setattr(replies, "MOST_BYTES", memory.size)
    gone = []
    for key in keys[-2:]:
        before = {*memory.kept}
        memory.keep(key, reply_of(kept))
        gone += [key[3] for key in before - {*memory.kept}]
    # Behind it are two more that were found, one that was not, and then those of the first round.
    assert gone == [names[replies.CHANCES], names[-2]]
    assert memory.size <= replies.MOST_BYTES


def test_the_age_of_a_reply_is_what_is_left_of_it() -> None:
    reply = reply_of(Kept(BoardReader(UUID(int=1)), 0.0))
    ages = [reply.age(NOW + timedelta(seconds=second)) for second in (-100, 0, 0.5, 59.5, 60, 61)]
    assert ages == [b"60", b"60", b"59", b"0", b"0", b"0"]
    assert reply.body(ages[2]) == b'{"maxAgeSeconds":59,' + SHARED + b"}"


def test_a_token_of_ours_is_good_until_it_expires_and_another_is_proven_each_minute() -> None:
    """An identity provider may take a key back."""
    later = NOW + timedelta(hours=1)
    caller = Proven(UUID(int=1), KeyKind.PUBLISHABLE, expires_at=later)
    assert token_until(caller, "mct_x", NOW) == later
    assert token_until(caller, "a.b.c", NOW) == NOW + TOKEN_REMEMBERED
    assert token_until(caller, "a.b.c", later) == later


@pytest.fixture
def clock() -> Moved:
    return Moved()


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Served]:
    """What was decided anew."""
    found: list[Served] = []

    async def noted(*given: Any, **more: Any) -> Served:
        found.append(await serve(*given, **more))
        return found[-1]

    monkeypatch.setattr(fetches, "serve", noted)
    return found


async def test_each_is_answered_as_if_nothing_were_kept(
    console: Caller,
    app_caller: Caller,
    foreigner: Caller,
    workspace: UUID,
    settings: Settings,
    made: list[Served],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Requests that differ in one thing each, over and over: two people, keys, languages, tokens of one person, a
    stolen viewer token, a key of another workspace, other questions, both ways. All of them at one instant."""
    await console.data("ProfilesUpsert", input={"profiles": [{"externalId": "ada"}, {"externalId": "ben"}]})
    team = (await console.data("SegmentCreate", input={"name": "VIPs", "type": "STATIC"}))["segment"]["id"]
    await console.data("SegmentActivate", input={"id": team})
    await console.data("SegmentMembersAdd", input={"id": team, "externalIds": ["ada"]})
    hello = {
        "title": "Hello {{name}}",
        "translations": [{"locale": "de", "title": "Hallo {{name}}"}],
        "variables": [{"name": "name", "default": "you"}],
    }
    await show(console, "Hello", content={"banner": hello}, segmentIds=[team], rules={"priority": 1})
    await show(console, "For all")
    await console.data("PlacementCreate", input={"key": "basket", "name": "Basket"})
    _, secret = await keys.create(workspace, name="other", kind=KeyKind.PUBLISHABLE, scopes=("ingest",))
    _, foreign = await keys.create(foreigner.workspace_id, name="o", kind=KeyKind.PUBLISHABLE, scopes=("ingest",))
    claims = {"name": "Ada"}
    named = (await console.data("ClientTokenCreate", input={"externalId": "ada", "claims": claims}))["token"]
    now = datetime.now(UTC)
    app = create_app(settings, opener=resources_of, clock=lambda: now)
    async with app.router.lifespan_context(app):
        transport = httpx2.ASGITransport(app=app, raise_app_exceptions=False)
        async with httpx2.AsyncClient(transport=transport, base_url="https://muster.example") as client:
            here = Caller(client, workspace, app_caller.key)
            ada, ben = [await signed_in(console, here, name) for name in ("ada", "ben")]
            hers, his = ada.all_headers(), ben.all_headers()
            viewer = "x-muster-viewer"
            people: list[dict[str, str]] = [
                hers,
                his,
                hers | {"accept-language": "de"},
                hers | {"accept-language": "fr"},
                hers | {"x-muster-client-token": named},
                hers | {"Authorization": f"Bearer {secret}"},
                hers | {"Authorization": f"Bearer {foreign}"},
                his | {viewer: hers[viewer]},
                hers | {viewer: his[viewer]},
            ]
            thieves = [{"Authorization": hers["Authorization"], viewer: hers[viewer]}]
            asked = [
                "?placement=home-top",
                "?placement=basket",
                "?placement=home-top&locale=de",
                "?placement=x&offline=true",
            ]
            bodies = [
                {"query": operation_text(name), "variables": {"placements": [place]}}
                for name, place in (("Banners", "home-top"), ("Banners", "basket"), ("BannersOffline", "home-top"))
            ]
            for body in bodies:  # read once by what executes it
                await client.post("/graphql", json=body, headers=hers)

            async def all_answers(who: list[dict[str, str]]) -> list[tuple[Any, ...]]:
                got = [await client.get(f"/v1/banners{one}", headers=headers) for headers in who for one in asked]
                got += [await client.post("/graphql", json=one, headers=headers) for headers in who for one in bodies]
                return [(one.status_code, one.content, one.headers.get("etag")) for one in got]

            first = await all_answers(people)
            made.clear()
            again = await all_answers(people)
            decided = len(made)
            with monkeypatch.context() as patch:
                patch.setattr(Replies, "find", lambda *_, **__: None)
                anew = await all_answers(people)
            assert first == again == anew
            texts = {one[1] for one in first if one[0] == 200}
            assert all(
                any(text in one for one in texts) for text in (b"Hello you", b"Hallo you", b"Hello Ada", b"For all")
            )
            # Those who show another's viewer token are given their own, and are not found again by the other's.
            assert decided == 2 * (len(asked) + len(bodies))
            stolen = await all_answers(thieves)
            assert all(b"Hello" not in body and b'"viewerToken":null' not in body for _, body, _ in stolen)


async def test_a_reply_ends_with_its_window_its_viewer_token_and_what_somebody_did(
    console: Caller, app_caller: Caller, workspace: UUID, settings: Settings, clock: Moved, made: list[Served]
) -> None:
    """Whether it is sent again is told by what is decided anew."""
    await console.data("PlacementCreate", input={"key": "home-top", "name": "Top", "rotationWindowSeconds": 3_600})
    team = (await console.data("SegmentCreate", input={"name": "VIPs", "type": "STATIC"}))["segment"]["id"]
    await console.data("SegmentActivate", input={"id": team})
    hour = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) + timedelta(hours=1)

    def at(**later: float) -> None:
        clock.ahead = hour + timedelta(**later) - datetime.now(UTC)

    async with process(settings, clock) as (_, client):
        at(minutes=50)
        here = Caller(client, workspace, app_caller.key)
        await show(console, "For all", rules={"limits": {"lifetime": 1}})
        token = (await console.data("ClientTokenCreate", input={"externalId": "zoe", "expiresInSeconds": 86_400}))[
            "token"
        ]
        zoe = here.with_headers(x_muster_client_token=token)
        await until(zoe, ["For all"])
        zoe = zoe.with_headers(x_muster_viewer=(await get(zoe)).json()["viewerToken"])
        await until(zoe, ["For all"])
        unknown = (await get(zoe)).json()
        made.clear()

        # As long as what proves somebody.
        short = {"externalId": "ann", "expiresInSeconds": 60}
        token = (await Caller(client, workspace, console.key).data("ClientTokenCreate", input=short))["token"]
        ann = here.with_headers(x_muster_client_token=token)
        ann = ann.with_headers(x_muster_viewer=(await get(ann)).json()["viewerToken"])
        before = await get(ann)
        made.clear()
        at(minutes=50, seconds=55)
        assert ((await get(ann)).content, made) == (before.content, [])
        at(minutes=51, seconds=5)
        assert (await get(ann)).status_code == 401

        # As long as her token says that nobody knows her.
        await console.data("ProfileUpsert", input={"externalId": "zoe"})
        at(minutes=54)
        assert (await get(zoe)).json()["viewer"] == unknown["viewer"] == "ezoe"
        assert made == []
        at(minutes=56)
        known = (await get(zoe)).json()
        assert known["viewer"].startswith("p")
        zoe = zoe.with_headers(x_muster_viewer=known["viewerToken"])

        # Until the end of the window, with an age that shrinks.
        before = await get(zoe)
        made.clear()
        for second, longest in ((0, 10), (5, 5), (9.5, 0)):
            at(minutes=59, seconds=50 + second)
            reply = await get(zoe)
            age = reply.json()["maxAgeSeconds"]
            assert (reply.headers["cache-control"], age <= longest) == (f"private, max-age={age}", True)
            assert reply.headers["content-length"] == str(len(reply.content))
            assert reply.json()["placements"] == before.json()["placements"]
        assert made == []
        at(minutes=60)
        after = await get(zoe)
        assert len(made) == 1
        told = [one.json()["placements"][0]["banner"]["impressionToken"] for one in (before, after)]
        assert told[0] != told[1]

        # Until it was seen as often as it may be.
        event = {"id": "1", "kind": "IMPRESSION", "token": told[1], "occurredAt": clock().isoformat(), "sessionId": "s"}
        headers = zoe.all_headers() | {"content-type": "application/json"}
        answer = await client.post("/v1/banner-events", content=orjson.dumps({"events": [event]}), headers=headers)
        assert answer.json()["accepted"] == 1
        await until(zoe, [None])

        # And one for her team goes when she is forgotten.
        await show(console, "For VIPs", segmentIds=[team])
        await console.data("SegmentMembersAdd", input={"id": team, "externalIds": ["zoe"]})
        await until(zoe, ["For VIPs"])
        profile = await console.data("Profile", externalId="zoe")
        await console.data("ProfileErase", input={"profileId": profile["id"]})
        async with asyncio.timeout(60):
            while await titles(zoe) != [None]:
                await pulse.beat(workspace, sources=segment_sources())
