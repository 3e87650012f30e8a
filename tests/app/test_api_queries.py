"""How many statements an operation runs: a query at most five, and no more for a page of fifty than for one of one; a
mutation at most what stands in CHANGES, and no more for fifty people than for one (no N+1).

A statement is a question about rows: not BEGIN, which takes the role and the workspace, nor COMMIT, nor settings of a
transaction, nor what asyncpg asks once a connection. Who calls is known from before (a key is looked up every 5
seconds), and so are the members of what was asked about before (segments/bases.py).
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, cast

import pytest
from asyncpg import Connection
from asyncpg.connection import LoggedQuery
from graphql import OperationType, print_ast
from tortoise.backends.asyncpg.client import AsyncpgDBClient
from tortoise.connection import get_connections

from app import auth
from db.transactions import transaction
from tests.app.caller import OPERATIONS, Caller
from tests.app.test_api_banners import placement
from tests.app.test_api_campaigns import make, people, work
from tests.app.test_api_isolation import filled_in, published

MOST = 5
PAGE = 50
NO_QUESTION = re.compile(
    r"\s*(BEGIN|COMMIT|ROLLBACK|SAVEPOINT|RELEASE|SET LOCAL|SELECT[^;]*\bset_config\(|WITH RECURSIVE typeinfo)"
    r"|SELECT keys_used\("
)
"""The last is written by itself, now and then: when keys were used."""
# Everything there is one of, so often that a page is full; names and ids apart, they are alike.
COPIES = (
    "INSERT INTO brand (workspace_id, name) SELECT $1, 'brand ' || n FROM generate_series(1, 50) n",
    """INSERT INTO profile_brand (workspace_id, brand_id, profile_id)
    SELECT $1, b.id, p.id FROM brand b CROSS JOIN profile p WHERE b.workspace_id = $1 AND p.workspace_id = $1
      AND right(b.name, 1) = right(p.external_id, 1)""",
    """INSERT INTO segment (workspace_id, name, type, status, definition, brand_id)
    SELECT $1, 'copy ' || n, type, status, definition, (SELECT id FROM brand WHERE name = 'brand ' || n)
    FROM segment CROSS JOIN generate_series(1, 50) n WHERE workspace_id = $1 AND name = 'nested'""",
    """INSERT INTO segment_reference (workspace_id, segment_id, uses_id)
    SELECT $1, c.id, r.uses_id FROM segment c CROSS JOIN segment_reference r
    WHERE c.workspace_id = $1 AND c.name LIKE 'copy %' AND r.workspace_id = $1 AND r.segment_id = $2""",
    """INSERT INTO evaluation (workspace_id, segment_id, definition_version, status, cause)
    SELECT $1, s.id, n, 'SUCCEEDED', 'REQUEST' FROM segment s CROSS JOIN generate_series(1, 50) n
    WHERE s.workspace_id = $1 AND s.id = $2 OR s.name = 'copy 1'""",
    """INSERT INTO campaign (workspace_id, name, channel, status, content, sender_id, started_at, brand_id)
    SELECT $1, 'copy ' || n, channel, status, content, sender_id, started_at,
      (SELECT id FROM brand WHERE name = 'brand ' || n)
    FROM campaign CROSS JOIN generate_series(1, 50) n WHERE workspace_id = $1 AND id = $3""",
    """INSERT INTO campaign_segment (workspace_id, campaign_id, segment_id, excluded)
    SELECT $1, c.id, s.segment_id, s.excluded FROM campaign c CROSS JOIN campaign_segment s
    WHERE c.workspace_id = $1 AND c.name LIKE 'copy %' AND s.workspace_id = $1 AND s.campaign_id = $3""",
    """INSERT INTO dispatch (workspace_id, campaign_id, kind, content, content_version, audience, audience_size,
      planned_at, finished_at)
    SELECT $1, c.id, d.kind, d.content, d.content_version, d.audience, d.audience_size, d.planned_at, d.finished_at
    FROM campaign c CROSS JOIN dispatch d
    WHERE c.workspace_id = $1 AND c.name LIKE 'copy %' AND d.workspace_id = $1 AND d.campaign_id = $3""",
    "INSERT INTO placement (workspace_id, key, name) SELECT $1, 'place-' || n, 'P' FROM generate_series(1, 50) n",
    """INSERT INTO saved_query (workspace_id, name, sql)
    SELECT $1, 'query ' || n, 'SELECT profile_id FROM profiles' FROM generate_series(1, 50) n""",
    """INSERT INTO sender (workspace_id, from_name, from_address, postal_address)
    SELECT $1, 'sender ' || n, 'a@example.com', 'here' FROM generate_series(1, 50) n""",
)

OWN = {
    "any": [
        {"trait": {"key": "plan", "operator": "EQUALS", "value": "premium"}},
        {"trait": {"key": "since", "operator": "WITHIN_LAST", "value": {"days": 9}}},
        {"attribute": {"name": "COUNTRY", "operator": "EXISTS"}},
        {"event": {"name": "purchase", "sum": {"property": "value", "operator": "GREATER_THAN", "value": 9}}},
        {"event": {"name": "view", "count": {"operator": "LESS_THAN", "value": 3}, "within": {"days": 30}}},
        {"sessions": {"count": {"operator": "GREATER_THAN", "value": 3}}},
        {"randomBucket": {"salt": "a", "from": 0, "to": 50}},
    ]
}
"""What the tables of people and of their events answer."""


@contextmanager
def statements() -> Iterator[list[str]]:
    """What is run meanwhile, on whatever connection of the pool."""
    pool: Any = cast(AsyncpgDBClient, get_connections().get("default"))._pool
    found: list[str] = []

    def note(logged: LoggedQuery) -> None:
        if not NO_QUESTION.match(logged.query):
            found.append(" ".join(logged.query.split()))

    async def prepare(connection: Connection) -> None:
        await before(connection)
        connection.add_query_logger(note)

    before, pool._init = pool._init, prepare
    held = [holder._con for holder in pool._holders if holder._con is not None]
    for connection in held:
        connection.add_query_logger(note)
    try:
        yield found
    finally:
        pool._init = before
        for connection in held:
            connection.remove_query_logger(note)


@pytest.fixture
async def house(console: Caller) -> dict[str, str]:
    """Ids of what a workspace has, in which every list has 50 rows and more, by kind."""
    await people(console, *(f"p{number}" for number in range(60)))
    static = (await console.data("SegmentCreate", input={"name": "S", "type": "STATIC"}))["segment"]["id"]
    await console.data("SegmentActivate", input={"id": static})
    await console.data("SegmentMembersAdd", input={"id": static, "externalIds": [f"p{n}" for n in range(60)]})
    other = (await console.data("SegmentCreate", input={"name": "O", "type": "STATIC"}))["segment"]["id"]
    await console.data("SegmentActivate", input={"id": other})
    campaign = await make(console)
    await console.data("CampaignSend", input={"id": campaign})
    await work(console, campaign)
    nested = {"all": [{"inSegment": static}, {"campaign": {"campaignId": campaign, "did": "OPENED"}}, OWN]}
    wanted = {"name": "nested", "type": "DYNAMIC", "definition": nested}
    dynamic = await console.data("SegmentCreate", input=wanted)
    async with transaction(console.workspace_id) as connection:
        for statement in COPIES:
            given = statement.replace("$1", f"'{console.workspace_id}'::uuid")
            given = given.replace("$2", f"'{dynamic['segment']['id'].removeprefix('seg_')}'::uuid")
            await connection.execute(given.replace("$3", f"'{campaign.removeprefix('cmp_')}'::uuid"))
    evaluations = (await console.data("SegmentEvaluations", id=dynamic["segment"]["id"]))["evaluations"]["edges"]
    return {
        "static": static,
        "other": other,
        "dynamic": dynamic["segment"]["id"],
        "campaign": campaign,
        "placement": await placement(console),
        "profile": (await console.data("Profile", externalId="p1"))["id"],
        "query": (await console.data("SavedQueries"))["edges"][0]["node"]["id"],
        "evaluation": evaluations[0]["node"]["id"],
    }


def reads() -> dict[str, bool]:
    """The queries that the console sends, and whether each is a page of as many as it is asked for."""
    console = {path.stem for path in (OPERATIONS / "console").glob("*.graphql")}
    return {
        name: any(
            one.variable.name.value == "first" and print_ast(one.type) == "Int!"
            for one in operation.variable_definitions or ()
        )
        for name, operation in sorted(published().items())
        if operation.operation is OperationType.QUERY and name in console
    }


async def run(console: Caller, operation: str, house: dict[str, str], **more: Any) -> int:
    """How many statements an operation runs, whose answer has no errors."""
    with statements() as found:
        answer = await console.ask(operation, **filled_in(GIVEN.get(operation, {}), {}, house), **more)
    assert "errors" not in answer, (operation, answer["errors"])
    assert next(iter(answer["data"].values())) is not None, operation
    return len(found)


async def test_an_operation_runs_five_statements_at_most_and_no_more_for_a_longer_page(
    console: Caller, house: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every query that the console sends."""
    monkeypatch.setattr(auth, "REMEMBERED", timedelta(hours=1))
    await console.data("Workspace")
    beyond = {}
    for operation, is_page in reads().items():
        if is_page:
            few = await run(console, operation, house, first=1)
            many = await run(console, operation, house, first=PAGE)
            assert many <= few, operation
        else:
            many = await run(console, operation, house)
        if many > MOST:
            beyond[operation] = many
    assert beyond == {}
    # A saved query is what somebody wrote: a statement of its own, as is the look at their texts.
    definition = {"all": [{"inSegment": house["static"]}, OWN, {"savedQuery": house["query"]}]}
    asked = await console.data("SegmentCreate", input={"name": "Q", "type": "DYNAMIC", "definition": definition})
    assert await run(console, "SegmentExplain", house | {"dynamic": asked["segment"]["id"]}) == 4 + 2
    # Last, since they change the house.
    await change_everything(console, house)


async def change_everything(console: Caller, house: dict[str, str]) -> None:
    """Every mutation that the console sends, in an order in which each has something to do."""
    mutations = {name for name, one in published().items() if one.operation is OperationType.MUTATION}
    console_has = {path.stem for path in (OPERATIONS / "console").glob("*.graphql")}
    assert {name for _, name, _ in CHANGES} | APART.keys() == mutations & console_has
    assert not {name for _, name, _ in CHANGES} & APART.keys()
    house = house | {"other profile": (await console.data("Profile", externalId="p2"))["id"]}
    beyond = {}
    for most, operation, given in CHANGES:
        with statements() as found:
            answer = await console.ask(operation, input=filled_in(given, {}, house))
        (payload,) = answer["data"].values()
        assert payload["userErrors"] == [], operation
        made = [one["id"] for one in payload.values() if isinstance(one, dict) and "id" in one]
        house["made"] = made[0] if made and operation.endswith(("Create", "Duplicate")) else house.get("made", "")
        if operation.endswith("Create") and made:
            house[operation] = made[0]
        if len(found) > most:
            beyond[operation] = len(found), [one[:60] for one in found]
    assert beyond == {}


GIVEN: dict[str, dict[str, Any]] = {
    **{name: {"id": "#campaign"} for name in ("Campaign", "CampaignDryRun", "CampaignResponses", "Node")},
    "CampaignBannerCounts": {"id": "#campaign", "first": "2026-01-01", "last": "2026-01-31"},
    **{name: {"id": "#dynamic"} for name in ("Segment", "SegmentChanges", "SegmentEvaluations")},
    "SegmentMembers": {"id": "#static"},
    "AreMembers": {"segmentId": "#static", "externalIds": ["p1", "p2"]},
    "IsMember": {"segmentId": "#static", "externalId": "p1"},
    "MemberOf": {"externalId": "p1", "segmentIds": ["#static"]},
    "Deliveries": {"campaignId": "#campaign"},
    "Evaluation": {"id": "#evaluation"},
    "Nodes": {"ids": ["#campaign", "#static", "#profile", "#placement"]},
    "Placement": {"id": "#placement"},
    "Profile": {"id": "#profile"},
    "SavedQuery": {"id": "#query"},
    "SavedQueryPreview": {"sql": "SELECT profile_id FROM profiles"},
    "SegmentEstimate": {"input": {"definition": {"identified": True}}},
    "SegmentExplain": {"segmentId": "#dynamic", "externalId": "p1"},
    "SegmentOverlap": {"ids": ["#static", "#other"]},
    "CampaignPreview": {"input": {"campaignId": "#campaign", "recipient": {"profileId": "#profile"}}},
    "CampaignPushPreview": {"input": {"content": {"title": "a", "body": "b"}, "recipient": {"sample": {}}}},
}

MAIL = {"subject": "Hello", "text": "Hello {{ sender.postal_address }} {{ unsubscribe_url }}"}
NAMING = {"all": [{"inSegment": "#static"}, {"inSegment": "#other"}, {"savedQuery": "#query"}]}
FIFTY = [f"p{number}" for number in range(PAGE)]
APART = {
    "CampaignApprove": 8,
    "CampaignReactivate": 6,
    "CampaignReject": 4,
    "InDoubtResolve": 12,
    "PushCredentialDelete": 3,
    "PushCredentialSet": 4,
    "PushCredentialTest": 4,
    "SegmentEvaluationApprove": 7,
}
"""Mutations that need a state of their own, of one campaign, evaluation or credential each: test_api_changes.py. Of the
statements about messages in doubt three count what is left of them."""
# Two are the entry of the log of what was done: before, so that nothing is done without one, and after. The others
# lock, look for what the change would break, write, and read of what is answered what was not written or locked. What
# is read under a lock is not in one statement with it, which would see what was before it waited. Hence more than
# eight for members, who are locked beside their segment and whose change others follow; for a definition, of which all
# that it names is looked at, whose evaluation ends and another is asked for; and for what freezes an audience, makes
# one person of two, or forgets one.
CHANGES: list[tuple[int, str, dict[str, Any]]] = [
    (3, "ApiKeyCreate", {"name": "a", "role": "VIEWER"}),
    (5, "ApiKeyRotate", {"id": "#made"}),
    (4, "ApiKeyRevoke", {"id": "#made"}),
    (4, "BrandCreate", {"name": "Acme"}),
    (3, "SenderCreate", {"fromName": "a", "fromAddress": "a@b.example.com", "postalAddress": "c"}),
    (5, "PlacementCreate", {"key": "x-top", "name": "a"}),
    (5, "PlacementUpdate", {"id": "#made", "name": "b"}),
    (5, "PlacementDelete", {"id": "#made"}),
    (0, "ClientTokenCreate", {"externalId": "p1"}),
    (2, "ConsentUpdate", {"profileId": "#profile", "channel": "EMAIL", "topic": "t", "status": "SUBSCRIBED"}),
    (3, "SuppressionAdd", {"channel": "EMAIL", "address": "z@example.com"}),
    (3, "SuppressionRemove", {"channel": "EMAIL", "address": "z@example.com"}),
    (4, "ProfileUpsert", {"externalId": "p1", "traits": {"a": 1}}),
    (1, "ProfilesUpsert", {"profiles": [{"externalId": one} for one in FIFTY]}),
    (4, "ProfileExport", {"profileId": "#profile"}),
    (4, "SavedQueryCreate", {"name": "Q2", "sql": "SELECT profile_id FROM profiles"}),
    (4, "SavedQueryUpdate", {"id": "#made", "name": "R"}),
    (5, "SavedQueryDelete", {"id": "#made"}),
    (5, "SegmentCreate", {"name": "n", "type": "DYNAMIC", "definition": {"identified": True}}),
    (5, "SegmentUpdate", {"id": "#made", "name": "nn"}),
    (7, "SegmentActivate", {"id": "#made"}),
    (5, "SegmentEvaluate", {"id": "#made"}),
    (6, "SegmentPause", {"id": "#made"}),
    (6, "SegmentDuplicate", {"id": "#made"}),
    (5, "SegmentArchive", {"id": "#SegmentCreate"}),
    (8, "SegmentDelete", {"id": "#SegmentCreate"}),
    (6, "SegmentCreate", {"name": "s", "type": "STATIC"}),
    (5, "SegmentActivate", {"id": "#made"}),
    (10, "SegmentMembersAdd", {"id": "#made", "externalIds": ["p1"]}),
    (9, "SegmentMembersAdd", {"id": "#made", "externalIds": FIFTY}),
    (9, "SegmentMembersRemove", {"id": "#made", "externalIds": ["p1"]}),
    (9, "SegmentMembersRemove", {"id": "#made", "externalIds": FIFTY}),
    (9, "SegmentMembersImport", {"id": "#made", "text": "\n".join(["external_id", *FIFTY])}),
    (12, "SegmentPopulateFromQuery", {"id": "#made", "definition": {"identified": True}}),
    (9, "SegmentSubtract", {"id": "#made", "otherId": "#static"}),
    (6, "SegmentUnpublish", {"id": "#made"}),
    (9, "SegmentCreate", {"name": "names", "type": "DYNAMIC", "definition": NAMING}),
    (8, "SegmentActivate", {"id": "#made"}),
    (14, "SegmentUpdate", {"id": "#made", "definition": {"not": NAMING}}),
    (
        5,
        "CampaignCreate",
        {"name": "c", "content": {"email": MAIL}, "segmentIds": ["#static"], "senderId": "#SenderCreate"},
    ),
    (5, "CampaignUpdate", {"id": "#made", "name": "cc"}),
    (7, "CampaignUpdate", {"id": "#made", "segmentIds": ["#static", "#other"]}),
    (8, "CampaignTestSend", {"id": "#made", "externalIds": ["p1"]}),
    (6, "CampaignSchedule", {"id": "#made", "at": "2090-01-01T00:00:00Z"}),
    (4, "CampaignUnschedule", {"id": "#made"}),
    (7, "CampaignSubmitForApproval", {"id": "#made"}),
    (12, "CampaignSend", {"id": "#made"}),
    (5, "CampaignPause", {"id": "#made"}),
    (8, "CampaignResume", {"id": "#made"}),
    (6, "CampaignCancel", {"id": "#made"}),
    (5, "CampaignDuplicate", {"id": "#made"}),
    (5, "CampaignDelete", {"id": "#made"}),
    (4, "WorkspaceUpdate", {"trackOpens": False}),
    (6, "ProfileIdentify", {"anonymousId": "an", "externalId": "p3"}),
    (10, "ProfileMerge", {"loserId": "#other profile", "winnerId": "#profile"}),
    (10, "ProfileErase", {"profileId": "#profile"}),
]
