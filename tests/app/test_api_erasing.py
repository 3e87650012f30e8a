"""Forgetting a person over GraphQL: nothing of them is left anywhere, and nothing of them comes back."""

from datetime import UTC, datetime

import asyncpg
import redis.asyncio

from app.resources import segment_sources
from campaigns.models import DeliveryState
from channels.base import Outcome, OutcomeKind
from db.transactions import transaction
from segments import pulse
from segments.engines.packed import PackedEngine
from segments.engines.postgres import PostgresEngine
from segments.nodes import Operator, Trait
from tests.app.caller import Caller
from tests.app.test_api_campaigns import make, people, work
from tests.campaigns.factories import TRY_LATER, ScriptedChannel
from tests.conftest import Database

NEEDLES = (
    "Loveletter",
    "wollstonecraft",
    "+15550100",
    "token-of-a-phone",
    "cookie-of-ada",
    "of-hers-only",
    "1815-12-10",
)
"""What only ada has: in her address, her traits, her phone number, her device, her visits, what she did, and dates."""
TABLES = """
SELECT c.oid::regclass::text AS name FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = 'public' AND c.relkind IN ('r', 'p') ORDER BY 1
"""
COLUMNS = """
SELECT column_name AS name FROM information_schema.columns
WHERE table_schema = 'public' AND table_name = 'profile' AND is_nullable = 'YES'
"""
SEEN = """
UPDATE profile SET phone_hash = '\\x01', first_seen_at = now(), last_seen_at = now(), seen_device_type = 'phone',
  seen_browser = 'Firefox', seen_country = 'GB', seen_city = 'London'
"""
REFUSED = Outcome(OutcomeKind.REFUSED, "MAILBOX_REFUSED", "RCPT", "550 5.2.1 <Loveletter@x.example> is closed")
ADA = {
    "externalId": "ada",
    "email": "Loveletter@x.example",
    "phone": "+15550100",
    "traits": {"name": "wollstonecraft", "born": "1815-12-10"},
}


async def tell(console: Caller) -> str:
    """All that is ever known of ada; the id of her profile."""
    ada: str = (await console.data("ProfileUpsert", input=ADA))["profileId"]
    await console.data("ProfileIdentify", input={"anonymousId": "cookie-of-ada", "externalId": "ada"})
    device = {"provider": "FCM", "token": "token-of-a-phone", "platform": "ANDROID", "externalId": "ada"}
    await console.data("DeviceRegister", input=device)
    said = {"profileId": ada, "channel": "EMAIL", "topic": "news", "status": "SUBSCRIBED", "source": "of-hers-only"}
    await console.data("ConsentUpdate", input=said)
    brand = (await console.data("BrandCreate", input={"name": "Shop"}))["brand"]["id"]
    await console.data("ProfileUpsert", input={"externalId": "ada", "brandIds": [brand]})
    event = {"messageId": "1", "name": "visit", "externalId": "ada", "properties": {"what": "of-hers-only"}}
    await console.data("EventsTrack", input={"events": [event]})
    return ada


async def found(database: Database) -> dict[str, set[str]]:
    """Tables (and `valkey`) that hold a needle, with which."""
    connection = await asyncpg.connect(database.owner_url)
    try:
        names = [row["name"] for row in await connection.fetch(TABLES)]
        texts = {
            name: "\n".join(row["text"] for row in await connection.fetch(f"SELECT t::text AS text FROM {name} t"))
            for name in names
        }
    finally:
        await connection.close()
    valkey = redis.asyncio.from_url(database.redis_url)
    texts["valkey"] = repr([(key, await valkey.dump(key)) async for key in valkey.scan_iter()])
    await valkey.aclose()
    hits = {name: {needle for needle in NEEDLES if needle in text} for name, text in texts.items()}
    return {name: needles for name, needles in hits.items() if needles}


async def people_with_a_brand(console: Caller) -> int:
    async with transaction(console.workspace_id) as connection:
        count: int = await connection.fetchval("SELECT count(DISTINCT profile_id) FROM profile_brand")
    return count


async def test_nothing_is_left_of_somebody_who_was_erased(console: Caller, database: Database) -> None:
    """T-26: every table and Valkey are looked through."""
    ada = await tell(console)
    one = await make(console)
    await console.data("CampaignSend", input={"id": one})
    await work(console, one, ScriptedChannel(lambda message: REFUSED))
    packing = PackedEngine(PostgresEngine(), fewest=0)
    called = Trait("name", Operator.EQUALS, "wollstonecraft")
    (met,) = await packing.ids(workspace_id=console.workspace_id, leaves=[called], now=datetime.now(UTC))
    assert len(met) == 1
    before = await found(database)
    places = {"profile", "profile_alias", "profile_date", "consent", "device", "event", "delivery", "pack_part"}
    assert places <= before.keys()
    assert set().union(*before.values()) == set(NEEDLES)
    assert await people_with_a_brand(console) == 1

    done = await console.data("ProfileErase", input={"profileId": ada})
    assert done["erasedId"] == ada
    assert await found(database) == {}
    assert await people_with_a_brand(console) == 0
    assert await console.data("Profile", id=ada) is None
    assert await console.data("Profile", externalId="ada") is None
    # What was sent stays, and names nobody.
    (edge,) = (await console.data("Deliveries", campaignId=one))["edges"]
    kept = (edge["node"]["status"], edge["node"]["reason"], edge["node"]["detail"])
    assert kept == (DeliveryState.FAILED.upper(), "MAILBOX_REFUSED", None)
    for _ in range(2):
        again = await console.data("ProfileErase", input={"profileId": ada})
        assert (again["erasedId"], again["erasedAt"]) == (ada, done["erasedAt"])


async def test_a_tombstone_says_that_somebody_was_here_and_nothing_of_them(console: Caller) -> None:
    """Whatever a column is called: what may be empty is, but for the external id, by which the person stays refused."""
    ada = await tell(console)
    known = ADA | {"timeZone": "Europe/London", "locale": "en-GB", "country": "GB", "city": "London"}
    await console.data("ProfileUpsert", input=known)
    async with transaction(console.workspace_id) as connection:
        names = await connection.fetch(COLUMNS)
        # Nothing tells all of it.
        await connection.execute(SEEN)
        before = dict(await connection.fetchrow("SELECT * FROM profile"))
    columns = {row["name"] for row in names} - {"external_id", "merged_into", "erased_at"}
    assert {name for name in columns if before[name] is None} == set()
    await console.data("ProfileErase", input={"profileId": ada})
    async with transaction(console.workspace_id) as connection:
        after = dict(await connection.fetchrow("SELECT * FROM profile"))
    assert {name for name in columns if after[name] is not None} == set()
    assert (after["external_id"], after["traits"]) == ("ada", {})


async def test_nothing_comes_back_of_somebody_who_was_erased(console: Caller) -> None:
    """T-26: data under the old id is refused, and the address stays suppressed whoever brings it."""
    ada = await tell(console)
    await console.data("ProfileErase", input={"profileId": ada})
    assert (await console.refusal("ProfileUpsert", input=ADA))[0] == "ERASED"
    event = {"messageId": "2", "name": "visit", "externalId": "ada"}
    answer = await console.ask("EventsTrack", input={"events": [event]})
    (error,) = answer["data"]["eventsTrack"]["userErrors"]
    assert error["code"] == "ERASED"
    who = {"anonymousId": "cookie-of-ada", "externalId": "ada"}
    assert (await console.refusal("ProfileIdentify", input=who))[0] == "ERASED"
    await console.data("ProfileUpsert", input=ADA | {"externalId": "ada again", "email": "loveletter@X.example"})
    await people(console, "bob")
    one = await make(console)
    assert (await console.data("CampaignDryRun", id=one))["skipped"] == [{"reason": "SUPPRESSED", "messages": 1}]
    await console.data("CampaignSend", input={"id": one})
    assert (await work(console, one)).recipients == ["bob@example.com"]


async def test_who_was_erased_leaves_all_segments_and_gets_no_mail_that_waits(console: Caller) -> None:
    ada = await tell(console)
    await people(console, "bob")
    made = await console.data("SegmentCreate", input={"name": "friends", "type": "STATIC"})
    friends = made["segment"]["id"]
    await console.data("SegmentActivate", input={"id": friends})
    await console.data("SegmentMembersAdd", input={"id": friends, "externalIds": ["ada", "bob"]})
    one = await make(console)
    await console.data("CampaignSend", input={"id": one})
    later = ScriptedChannel(lambda message: TRY_LATER)
    await work(console, one, later)
    await console.data("ProfileErase", input={"profileId": ada})
    while (done := await pulse.beat(console.workspace_id, sources=segment_sources())) is not None and done.more:
        pass
    page = await console.data("SegmentMembers", id=friends)
    assert [edge["node"]["externalId"] for edge in page["members"]["edges"]] == ["bob"]
    async with transaction(console.workspace_id) as connection:
        await connection.execute("UPDATE delivery SET not_before = now()")
    assert (await work(console, one)).recipients == ["bob@example.com"]
    rows = (await console.data("Deliveries", campaignId=one, status="SKIPPED"))["edges"]
    assert [(row["node"]["profile"]["id"], row["node"]["reason"]) for row in rows] == [(ada, "ERASED")]


async def test_erasing_whom_somebody_was_merged_into_erases_one_person(
    console: Caller, foreigner: Caller, database: Database
) -> None:
    ada = await tell(console)
    winner = (await console.data("ProfileUpsert", input={"externalId": "lovelace"}))["profileId"]
    await console.data("ProfileMerge", input={"loserId": ada, "winnerId": winner})
    for profile, code in ((ada, "NOT_FOUND"), (winner, "NOT_FOUND")):
        assert await foreigner.refusal("ProfileErase", input={"profileId": profile}) == (code, ["input", "profileId"])
    assert set().union(*(await found(database)).values()) == set(NEEDLES)
    assert (await console.data("ProfileErase", input={"profileId": ada}))["erasedId"] == winner
    assert await found(database) == {}
    for name in ("ada", "lovelace"):
        assert await console.data("Profile", externalId=name) is None
        assert (await console.refusal("ProfileUpsert", input={"externalId": name}))[0] == "ERASED"
    wrong = await console.refusal("ProfileErase", input={"profileId": "seg_" + "0" * 32})
    assert wrong == ("INVALID_ID", ["input", "profileId"])


async def test_what_servers_said_of_a_profile_that_was_merged_is_forgotten_too(
    console: Caller, database: Database
) -> None:
    """The mail went out under the profile that lost; its ledger row names that one for good."""
    ada = await tell(console)
    one = await make(console)
    await console.data("CampaignSend", input={"id": one})
    await work(console, one, ScriptedChannel(lambda message: REFUSED))
    winner = (await console.data("ProfileUpsert", input={"externalId": "lovelace"}))["profileId"]
    await console.data("ProfileMerge", input={"loserId": ada, "winnerId": winner})
    assert "Loveletter" in (await found(database))["delivery"]
    await console.data("ProfileErase", input={"profileId": winner})
    assert await found(database) == {}
