"""Telling a person what is held of them: one document has it all, and nobody gets it who should not."""

from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import httpx2
import pytest

from app.exports import ExportClaim, export_link, read_claim
from campaigns.banners import Viewer
from campaigns.tokens import Signer
from db.transactions import transaction
from profiles import disclosure
from profiles.addresses import AddressHasher, Channel
from profiles.models import KeyKind
from tests.app.caller import Caller
from tests.app.conftest import ENVIRON, MakeCaller
from tests.app.test_api_campaigns import make, people, work
from tests.app.test_api_erasing import NEEDLES, REFUSED, tell
from tests.campaigns.factories import ScriptedChannel
from tests.conftest import Database

URL = "https://muster.example"
VISITOR = Viewer.stranger()
ROWS = f"""
SELECT ensure_month('banner_event', '2026-01-01Z'), ensure_month('delivery_event', now());
INSERT INTO profile_alias (workspace_id, anonymous_id, profile_id) VALUES ($1, '{VISITOR.key}', $2);
INSERT INTO suppression (workspace_id, channel, address_hash, reason) SELECT $1, 'EMAIL', email_hash, 'COMPLAINT'
  FROM profile WHERE workspace_id = $1 AND id = $2;
INSERT INTO segment (id, workspace_id, name, type, status)
  VALUES ('00000000-0000-0000-0000-0000000000a1', $1, 'needle-segment', 'STATIC', 'ACTIVE');
INSERT INTO membership (workspace_id, segment_id, profile_id, entered_at, exited_at, reason, exit_reason)
  VALUES ($1, '00000000-0000-0000-0000-0000000000a1', $2, '2026-01-01Z', '2026-02-01Z', 'needle-in', 'needle-out');
INSERT INTO segment_rank (workspace_id, segment_id, profile_id, order_value)
  VALUES ($1, '00000000-0000-0000-0000-0000000000a1', $2, 4711.5);
INSERT INTO link (workspace_id, campaign_id, dispatch_id, place, url)
  SELECT workspace_id, campaign_id, id, 77, 'https://needle.example/link' FROM dispatch WHERE workspace_id = $1;
INSERT INTO delivery_event (workspace_id, dispatch_id, campaign_id, profile_id, kind, link_id)
  SELECT workspace_id, dispatch_id, campaign_id, $2, 'click', id FROM link WHERE workspace_id = $1 AND place = 77;
INSERT INTO placement (id, workspace_id, key, name)
  VALUES ('00000000-0000-0000-0000-0000000000b1', $1, 'needle-place', 'place');
INSERT INTO banner_event (workspace_id, viewer, event_key, token_month, kind, campaign_id, placement_id,
  content_version, occurred_at)
  SELECT $1, v.viewer, uuidv7(), '2026-01-01Z', 'DISMISS', c.id, '00000000-0000-0000-0000-0000000000b1', v.version,
    '2026-01-02Z'
  FROM campaign c CROSS JOIN (VALUES ('{Viewer.known(0).id.hex()}'::uuid, 41), ('{VISITOR.id.hex()}'::uuid, 42),
    ('{Viewer("eada", None).id.hex()}'::uuid, 43)) v (viewer, version) WHERE c.workspace_id = $1;
INSERT INTO banner_tally (workspace_id, subject_id, viewer, impressions, last_day, on_last_day, days)
  VALUES ($1, '00000000-0000-0000-0000-0000000000b1', '{VISITOR.id.hex()}', 4712, '2026-01-02', 1, 1);
INSERT INTO banner_stop (workspace_id, subject_id, profile_id, reason)
  VALUES ($1, '00000000-0000-0000-0000-0000000000b1', $2, 'DISMISSED');
"""
SUPPRESSED_PHONE = """
INSERT INTO suppression (workspace_id, channel, address_hash, reason) VALUES ($1, 'PUSH', $2, 'MANUAL')
"""
NAMING_PEOPLE = """
SELECT DISTINCT c.table_name, c.column_name FROM information_schema.columns c
JOIN pg_class t ON t.relname = c.table_name AND NOT t.relispartition AND t.relkind IN ('r', 'p')
WHERE c.table_schema = 'public' AND (c.column_name ~ '(profile|anonymous|external)_ids?$' OR c.column_name = 'viewer'
  OR c.column_name IN ('address_hash', 'email_hash', 'subject', 'actor', 'answer', 'audience', 'evaluated'))
"""
TOLD = {
    "profile", "profile_alias", "profile_brand", "consent", "suppression", "device", "event", "membership",
    "segment_rank", "delivery", "delivery_event", "banner_event", "banner_tally", "banner_stop",
}  # fmt: skip
LEFT_OUT = {
    "profile_date": "the dates among the traits, once more",
    "profile_change": "waits for seconds until somebody has acted on it",
    "dispatch": "a bitmap of whom a campaign was for, of which the ledger has the messages",
    "pulse": "a bitmap of whom segments looked at lately",
    "request": "ids of what a key made, for a day",
    "audit_entry": "who did what with a key",
}
"""Tables that name people and are not told, with the reason."""


async def fetched(console: Caller, profile_id: str) -> dict[str, Any]:
    """The document of a person."""
    made = await console.data("ProfileExport", input={"profileId": profile_id})
    response = await console.http.get(made["url"].removeprefix(URL))
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


async def written_of(console: Caller, profile_id: int, statements: str) -> None:
    """Run statements that know the workspace as $1 and the person as $2."""
    statements = statements.replace(Viewer.known(0).id.hex(), Viewer.known(profile_id).id.hex())
    async with transaction(console.workspace_id) as connection:
        for statement in statements.split(";\n"):
            if statement.strip():
                given = statement.replace("$1", f"'{console.workspace_id}'::uuid").replace("$2", str(profile_id))
                await connection.execute(given)


async def test_everything_that_is_held_of_a_person_is_in_one_document(console: Caller, database: Database) -> None:
    """T-26: a needle in every table that holds something of people, and each is found; nothing of others is."""
    ada = await tell(console)
    await people(console, "bob")
    bob = {"messageId": "of bob", "name": "visit", "externalId": "bob", "properties": {"what": "of-bob-only"}}
    await console.data("EventsTrack", input={"events": [bob]})
    one = await make(console, name="needle-campaign")
    await console.data("CampaignSend", input={"id": one})
    await work(console, one, ScriptedChannel(lambda message: REFUSED))
    # The ledger is the loser's, all else the winner's from here on.
    winner = (await console.data("ProfileUpsert", input={"externalId": "lovelace"}))["profileId"]
    await console.data("ProfileMerge", input={"loserId": ada, "winnerId": winner})
    await written_of(console, int(winner.removeprefix("prf_")), ROWS)
    phone = AddressHasher(ENVIRON["MUSTER_ADDRESS_KEY"].encode()).hash(Channel.PUSH, "token-of-a-phone")
    async with transaction(console.workspace_id) as connection:
        await connection.execute(SUPPRESSED_PHONE, console.workspace_id, phone)

    made = await console.data("ProfileExport", input={"profileId": ada})
    response = await console.http.get(made["url"].removeprefix(URL))
    headers = response.headers
    assert headers["content-disposition"] == f'attachment; filename="{winner}.json"'
    assert (headers["cache-control"], headers["referrer-policy"]) == ("no-store", "no-referrer")
    assert not [needle for needle in NEEDLES if needle not in response.text]
    assert "bob" not in response.text
    told = response.json()
    assert [made["profileId"], told["profileId"]] == [winner, winner]
    assert list(told) == [
        "profileId", "exportedAt", "profiles", "aliases", "brands", "consents", "devices", "events", "suppressions",
        "memberships", "ranks", "deliveries", "responses", "bannerStops", "bannerEvents", "bannerCounts",
    ]  # fmt: skip
    assert [one["profileId"] for one in told["profiles"]] == [ada, winner]
    assert told["profiles"][0]["mergedIntoProfileId"] == winner
    assert told["profiles"][1]["traits"] == {"name": "wollstonecraft", "born": "1815-12-10"}
    assert {one["anonymousId"] for one in told["aliases"]} == {"cookie-of-ada", VISITOR.key}
    assert [one["name"] for one in told["brands"]] == ["Shop"]
    assert [(one["topic"], one["source"]) for one in told["consents"]] == [("news", "of-hers-only")]
    assert [one["token"] for one in told["devices"]] == ["token-of-a-phone"]
    assert [one["properties"] for one in told["events"]] == [{"what": "of-hers-only"}]
    suppressed = {(one["channel"], one["reason"]) for one in told["suppressions"]}
    assert suppressed == {("EMAIL", "COMPLAINT"), ("PUSH", "MANUAL")}
    assert told["memberships"] == [
        {
            "segmentId": "seg_" + "0" * 30 + "a1",
            "segmentName": "needle-segment",
            "enteredAt": "2026-01-01T00:00:00+00:00",
            "reason": "needle-in",
            "exitedAt": "2026-02-01T00:00:00+00:00",
            "exitReason": "needle-out",
        }
    ]
    assert [one["orderValue"] for one in told["ranks"]] == [4711.5]
    (delivery,) = told["deliveries"]
    kept = {name: delivery[name] for name in ("campaignId", "campaignName", "channel", "status", "reason")}
    assert kept == {
        "campaignId": one,
        "campaignName": "needle-campaign",
        "channel": "EMAIL",
        "status": "FAILED",
        "reason": "MAILBOX_REFUSED",
    }
    assert "Loveletter" in delivery["detail"]
    (click,) = told["responses"]
    assert (click["kind"], click["url"], click["byMachine"]) == ("CLICK", "https://needle.example/link", False)
    seen = {(one["kind"], one["contentVersion"], one["placementKey"]) for one in told["bannerEvents"]}
    assert seen == {("DISMISS", version, "needle-place") for version in (41, 42, 43)}
    assert [one["impressions"] for one in told["bannerCounts"]] == [4712]
    (stop,) = told["bannerStops"]
    assert stop == {"reason": "DISMISSED", "placementId": "plc_" + "0" * 30 + "b1"}
    (entry,) = (await console.data("AuditLog", action="profileExport"))["edges"]
    assert (entry["node"]["object"], entry["node"]["outcome"]) == (ada, "DONE")


async def test_a_table_that_names_people_is_told_or_is_said_why_not(database: Database) -> None:
    connection = await asyncpg.connect(database.owner_url)
    try:
        found = {row["table_name"] for row in await connection.fetch(NAMING_PEOPLE)}
    finally:
        await connection.close()
    assert found == TOLD | LEFT_OUT.keys()


async def test_many_rows_are_read_page_by_page_and_each_is_told_once(
    console: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disclosure, "PAGE", 3)
    ada = (await console.data("ProfileUpsert", input={"externalId": "ada"}))["profileId"]
    at = "2026-03-01T00:00:00Z"
    events = [
        {"messageId": f"{place}", "name": "visit", "externalId": "ada", "occurredAt": at, "properties": {"n": place}}
        for place in range(7)
    ]
    await console.data("EventsTrack", input={"events": events})
    for place in range(6):
        said = {"profileId": ada, "channel": "EMAIL", "topic": f"t{place}", "status": "SUBSCRIBED", "source": "web"}
        await console.data("ConsentUpdate", input=said)
    told = await fetched(console, ada)
    assert sorted(one["properties"]["n"] for one in told["events"]) == list(range(7))
    assert [one["topic"] for one in told["consents"]] == [f"t{place}" for place in range(6)]
    assert (told["deliveries"], told["bannerEvents"]) == ([], [])


async def test_a_link_ends_is_whole_and_tells_nothing_of_the_erased(
    console: Caller, caller: MakeCaller, http: httpx2.AsyncClient
) -> None:
    ada = await tell(console)
    made = await console.data("ProfileExport", input={"profileId": ada})
    path = made["url"].removeprefix(URL)
    assert (await http.get(path[:-1] + ("A" if path[-1] != "A" else "B"))).status_code == 404
    assert (await http.get("/v1/exports/x")).status_code == 404
    signer = Signer(ENVIRON["MUSTER_TOKEN_KEY"].encode())
    claim = read_claim(signer, path.removeprefix("/v1/exports/"))
    assert claim is not None
    over = ExportClaim(claim.workspace_id, claim.profile_id, datetime.now(UTC) - timedelta(seconds=1))
    late = await http.get(export_link(signer, "", over))
    assert (late.status_code, late.json()["error"]["code"]) == (410, "EXPIRED")
    # Whoever may not forget people may not have all of them told.
    for scopes in (("read",), ("ingest",), ("send", "campaigns", "segments")):
        answer = await (await caller(console.workspace_id, *scopes)).ask("ProfileExport", input={"profileId": ada})
        assert answer["errors"][0]["extensions"]["code"] == "FORBIDDEN"
    app = await caller(console.workspace_id, kind=KeyKind.PUBLISHABLE)
    answer = await app.ask("ProfileExport", input={"profileId": ada})
    assert answer["errors"][0]["extensions"]["code"] == "FORBIDDEN"
    await console.data("ProfileErase", input={"profileId": ada})
    assert await console.refusal("ProfileExport", input={"profileId": ada}) == ("ERASED", ["input", "profileId"])
    gone = await http.get(path)
    assert (gone.status_code, gone.json()["error"]["code"]) == (410, "ERASED")
