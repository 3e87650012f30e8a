"""Who may do what: keys, scopes, client tokens, and tenants."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import httpx2
import pytest

from app import auth
from app.auth import Authenticator, KnownKeys
from app.checks import ROUTE as CHECK
from app.main import create_app
from app.problems import ApiError
from app.schema import Mutation, Query
from app.settings import Settings
from campaigns.tokens import Signer
from profiles import keys
from profiles.keys import Scope
from profiles.models import KeyKind
from tests.app.caller import Caller
from tests.app.conftest import MakeCaller


def root_fields(kind: type) -> dict[str, Any]:
    definition: Any = kind.__strawberry_definition__  # type: ignore[attr-defined]
    return {field.python_name: field for field in definition.fields}


NEEDS: dict[str, Scope] = {
    name: field.extensions[-1].scope for kind in (Query, Mutation) for name, field in root_fields(kind).items()
}


async def test_a_request_without_a_key_is_not_even_read(http: httpx2.AsyncClient) -> None:
    for headers in ({}, {"Authorization": "Basic bXNr"}, {"Authorization": "Bearer "}, {"Authorization": "Bearer x"}):
        response = await http.post("/graphql", content=b"{", headers=headers)
        assert response.status_code == 401
        assert response.headers["www-authenticate"] == "Bearer"
        (error,) = response.json()["errors"]
        assert error["extensions"]["code"] == "UNAUTHENTICATED"


async def test_a_key_opens_nothing_once_it_is_revoked_or_has_expired(console: Caller, http: httpx2.AsyncClient) -> None:
    soon = datetime.now(UTC) + timedelta(seconds=1)
    row, secret = await keys.create(
        console.workspace_id, name="short", kind=KeyKind.SECRET, scopes=["read"], expires_at=soon + timedelta(days=1)
    )
    assert await keys.find(secret, now=soon + timedelta(days=2)) is None
    await keys.revoke(console.workspace_id, row.id, now=soon)
    short = Caller(http, console.workspace_id, secret)
    assert (await short.post("{ workspace { id } }")).status_code == 401


async def test_a_key_in_use_opens_nothing_five_seconds_after_it_was_revoked(workspace: UUID, now: datetime) -> None:
    row, secret = await keys.create(workspace, name="busy", kind=KeyKind.SECRET, scopes=["read"])
    headers = {"authorization": f"Bearer {secret}"}
    authenticator = Authenticator(Signer(b"a token key of the tests, at least 32 bytes"))
    proven = await authenticator.caller(headers, now=now)
    await keys.revoke(workspace, row.id, now=now)
    assert await authenticator.caller(headers, now=now + timedelta(seconds=4)) == proven
    with pytest.raises(ApiError, match="revoked"):
        await authenticator.caller(headers, now=now + timedelta(seconds=5))


async def test_a_key_in_use_opens_nothing_once_its_time_is_over(workspace: UUID, now: datetime) -> None:
    end = now + timedelta(seconds=2)
    _, secret = await keys.create(workspace, name="short", kind=KeyKind.SECRET, scopes=["read"], expires_at=end)
    headers = {"authorization": f"Bearer {secret}"}
    authenticator = Authenticator(Signer(b"a token key of the tests, at least 32 bytes"))
    assert await authenticator.caller(headers, now=now) is not None
    with pytest.raises(ApiError, match="expired"):
        await authenticator.caller(headers, now=end)


async def test_a_key_in_use_opens_for_an_hour_without_the_database_and_no_longer(
    workspace: UUID, now: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As long as there are banners to be had (app/boards.py)."""
    _, secret = await keys.create(workspace, name="app", kind=KeyKind.PUBLISHABLE, scopes=["ingest"])
    known = KnownKeys()
    assert await known.find(secret, now=now) is not None

    async def nobody(secret: str, *, now: datetime) -> None:
        raise ConnectionError

    monkeypatch.setattr(keys, "find", nobody)
    for later in (timedelta(minutes=1), timedelta(minutes=59)):
        assert await known.find(secret, now=now + later) is not None
    with pytest.raises(ConnectionError):
        await known.find(secret, now=now + timedelta(hours=1))


async def test_keys_remembered_are_bounded_and_bad_ones_are_not_among_them(
    workspace: UUID, now: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auth, "MOST_REMEMBERED", 2)
    known = KnownKeys()
    for place in range(3):
        _, secret = await keys.create(workspace, name=str(place), kind=KeyKind.SECRET, scopes=["read"])
        assert await known.find(secret, now=now) is not None
        assert await known.find(secret[:-1], now=now) is None
    assert len(known.seen) == 2


async def ask_field(caller: Caller, name: str) -> dict[str, Any]:
    """The answer to a root field with an input that is formally right and names nothing that exists."""
    wanted = PROBES[name]
    response = await caller.post(wanted)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def probe(name: str, arguments: str, selection: str) -> str:
    head, *rest = name.split("_")
    field = head + "".join(part.capitalize() for part in rest)
    verb = "mutation" if name in root_fields(Mutation) else "query"
    return f"{verb} {{ {field}{arguments} {selection} }}"


ERRORS = "{ userErrors { code } }"
ONE = '(input: {id: "x"})'
PROBES: dict[str, str] = {
    name: probe(name, arguments, selection)
    for name, arguments, selection in [
        ("node", '(id: "x")', "{ id }"),
        ("nodes", '(ids: ["x"])', "{ id }"),
        ("workspace", "", "{ id }"),
        ("brands", "", "{ id }"),
        ("audit_log", "", "{ edges { cursor } }"),
        ("api_keys", "", "{ edges { cursor } }"),
        ("api_key_create", '(input: {name: ""})', ERRORS),
        ("segment", '(id: "x")', "{ id }"),
        ("segments", "", "{ edges { cursor } }"),
        ("evaluation", '(id: "x")', "{ id }"),
        ("is_member", '(segmentId: "x", externalId: "y")', ""),
        ("are_members", '(segmentId: "x", externalIds: ["y"])', "{ member }"),
        ("member_of", '(externalId: "x", segmentIds: ["y"])', "{ member }"),
        ("segment_estimate", "(input: {})", "{ size }"),
        ("segment_explain", '(segmentId: "x", externalId: "y")', "{ isMember }"),
        ("segment_overlap", '(ids: ["x"])', "{ inAll }"),
        ("field_catalogue", "", "{ isComplete }"),
        ("profile", '(externalId: "x")', "{ id }"),
        ("profiles", "", "{ edges { cursor } }"),
        ("saved_query", '(id: "x")', "{ id }"),
        ("saved_queries", "", "{ edges { cursor } }"),
        ("saved_query_preview", '(sql: "SELECT")', "{ __typename }"),
        ("saved_query_create", '(input: {name: "", sql: ""})', ERRORS),
        ("profile_identify", '(input: {externalId: "", anonymousId: ""})', ERRORS),
        ("profile_erase", '(input: {profileId: "x"})', ERRORS),
        ("profile_export", '(input: {profileId: "x"})', ERRORS),
        ("profile_merge", '(input: {loserId: "x", winnerId: "x"})', ERRORS),
        ("campaign", '(id: "x")', "{ id }"),
        ("campaigns", "", "{ edges { cursor } }"),
        ("campaign_dry_run", '(id: "x")', "{ audience }"),
        ("campaign_preview", "(input: {recipient: {sample: {}}})", "{ subject }"),
        ("campaign_push_preview", "(input: {recipient: {sample: {}}})", "{ problems { code } }"),
        ("push_credentials", "", "{ app }"),
        ("push_credential_set", '(input: {secret: {fcm: {serviceAccount: ""}}})', ERRORS),
        ("push_credential_test", "(input: {provider: FCM})", ERRORS),
        ("push_credential_delete", "(input: {provider: FCM})", ERRORS),
        ("deliveries", '(campaignId: "x")', "{ edges { cursor } }"),
        ("senders", "", "{ id }"),
        ("placement", '(key: "x")', "{ id }"),
        ("placements", "", "{ id }"),
        ("banners", '(placements: ["x"])', "{ maxAgeSeconds }"),
        ("workspace_update", "(input: {})", ERRORS),
        ("brand_create", '(input: {name: ""})', ERRORS),
        ("client_token_create", '(input: {externalId: "", expiresInSeconds: 0})', ERRORS),
        ("profile_upsert", '(input: {externalId: ""})', ERRORS),
        ("profiles_upsert", "(input: {profiles: []})", ERRORS),
        ("consent_update", '(input: {profileId: "x", channel: EMAIL, topic: "t", status: SUBSCRIBED})', ERRORS),
        ("suppression_add", '(input: {channel: EMAIL, address: "x"})', ERRORS),
        ("suppression_remove", '(input: {channel: EMAIL, address: "x"})', ERRORS),
        ("events_track", "(input: {events: []})", ERRORS),
        ("banner_events_track", "(input: {events: []})", ERRORS),
        ("device_register", '(input: {provider: FCM, token: "", platform: WEB})', ERRORS),
        ("device_unregister", '(input: {provider: FCM, token: ""})', ERRORS),
        ("segment_create", '(input: {name: "", type: STATIC})', ERRORS),
        ("segment_members_add", '(input: {id: "x", externalIds: []})', ERRORS),
        ("segment_members_remove", '(input: {id: "x", externalIds: []})', ERRORS),
        ("segment_members_import", '(input: {id: "x", text: ""})', ERRORS),
        ("segment_populate_from_query", '(input: {id: "x"})', ERRORS),
        ("segment_subtract", '(input: {id: "x", otherId: "x"})', ERRORS),
        ("campaign_create", '(input: {name: "", content: {email: {subject: ""}}})', ERRORS),
        ("campaign_schedule", '(input: {id: "x", at: "2020-01-01T00:00:00Z"})', ERRORS),
        ("in_doubt_resolve", '(input: {campaignId: "x", as: SENT})', ERRORS),
        ("sender_create", '(input: {fromName: "", fromAddress: "", postalAddress: ""})', ERRORS),
        ("placement_create", '(input: {key: "", name: ""})', ERRORS),
        *((name, ONE, ERRORS) for name in (
            "segment_update", "segment_activate", "segment_pause", "segment_unpublish", "segment_archive",
            "segment_duplicate", "segment_delete", "segment_evaluate", "segment_evaluation_approve",
            "saved_query_update", "saved_query_delete", "campaign_update", "campaign_unschedule",
            "campaign_send", "campaign_cancel", "campaign_pause", "campaign_resume", "campaign_reactivate",
            "campaign_duplicate", "campaign_delete", "campaign_test_send", "api_key_rotate", "api_key_revoke",
            "campaign_submit_for_approval", "campaign_approve", "campaign_reject",
            "placement_update", "placement_delete",
        )),
    ]
}  # fmt: skip


def codes(answer: dict[str, Any]) -> list[str]:
    return [error.get("extensions", {}).get("code", error["message"]) for error in answer.get("errors", [])]


async def test_every_field_is_refused_to_a_key_that_lacks_its_scope(caller: MakeCaller, workspace: UUID) -> None:
    assert PROBES.keys() == NEEDS.keys()
    by_scope = {scope: await caller(workspace, scope) for scope in Scope}
    for name, needed in NEEDS.items():
        for scope, one in by_scope.items():
            granted = scope is needed or (needed is Scope.READ and scope is not Scope.INGEST)
            refused = "FORBIDDEN" in codes(await ask_field(one, name))
            assert refused is not granted, f"{name} with {scope}"


PATHS: dict[str, tuple[str, str, Scope, bool]] = {
    "/v1/banners": ("GET", "/v1/banners?placement=x", Scope.READ, True),
    "/v1/events": ("POST", "/v1/events", Scope.INGEST, True),
    "/v1/banner-events": ("POST", "/v1/banner-events", Scope.INGEST, True),
    "/v1/segments:check": ("POST", "/v1/segments:check", Scope.READ, False),
    "/v1/segments/{id}/members:check": ("POST", "/v1/segments/x/members:check", Scope.READ, False),
    "/v1/segments/{id}/members.csv": ("GET", "/v1/segments/x/members.csv", Scope.READ, False),
    CHECK: ("GET", "/v1/segments/x/members/ada", Scope.READ, False),
}
"""How each is asked, the right it needs, and whether apps may."""
OPEN = {
    "/u/{token}", "/t/{token}", "/o/{token}.gif", "/v1/exports/{token}", "/healthz", "/readyz", "/readyz/banners",
    "/metrics",
}  # fmt: skip
"""They take no key: links carry tokens, and numbers have their own."""


async def test_every_path_is_refused_to_a_key_that_lacks_its_scope(
    caller: MakeCaller, workspace: UUID, app_caller: Caller, settings: Settings
) -> None:
    assert {route.path for route in create_app(settings).routes} == PATHS.keys() | OPEN | {"/graphql"}  # type: ignore[attr-defined]
    by_scope = {scope: await caller(workspace, scope) for scope in Scope}
    nobody = replace(app_caller, key=None)
    for path, (method, example, needed, for_apps) in PATHS.items():

        async def status(one: Caller, method: str = method, example: str = example) -> int:
            return (await one.http.request(method, example, headers=one.all_headers())).status_code

        for scope, one in by_scope.items():
            granted = scope is needed or (needed is Scope.READ and scope is not Scope.INGEST)
            assert (await status(one) == 403) is not granted, f"{path} with {scope}"
        assert (await status(app_caller) == 403) is not for_apps, path
        assert await status(nobody) == 401, path


FOR_APPS = {"banners", "banner_events_track", "events_track", "device_register", "device_unregister"}


async def test_an_app_may_fetch_banners_and_report_and_nothing_else(app_caller: Caller) -> None:
    for name in NEEDS:
        refused = "FORBIDDEN" in codes(await ask_field(app_caller, name))
        assert refused is (name not in FOR_APPS), name


async def test_a_key_that_only_ingests_reads_nobody(caller: MakeCaller, workspace: UUID) -> None:
    """The answer to its own write shows what it wrote, not what was known before."""
    ingester = await caller(workspace, "ingest")
    answer = await ingester.ask("ProfileUpsert", input={"externalId": "ada", "email": "ada@example.com"})
    assert codes(answer) == ["FORBIDDEN"]
    assert answer["data"]["profileUpsert"]["created"] is True
    assert answer["data"]["profileUpsert"]["profile"] is None


async def test_a_client_token_lets_an_app_act_as_its_profile_only(console: Caller, app_caller: Caller) -> None:
    made = await console.data("ClientTokenCreate", input={"externalId": "ada", "expiresInSeconds": 60})
    ada = app_caller.with_headers(x_muster_client_token=made["token"])
    device = {"provider": "FCM", "token": "t1", "platform": "ANDROID"}
    await ada.data("DeviceRegister", input=device)
    await ada.data("DeviceRegister", input=device | {"externalId": "ada"})
    assert await ada.refusal("DeviceRegister", input=device | {"externalId": "bob"}) == (
        "FORBIDDEN",
        ["input", "externalId"],
    )
    profile = await console.data("Profile", externalId="ada")
    assert [one["provider"] for one in profile["devices"]] == ["FCM"]
    assert await console.data("Profile", externalId="bob") is None


async def test_a_client_token_alone_is_enough(console: Caller, http: httpx2.AsyncClient) -> None:
    made = await console.data("ClientTokenCreate", input={"externalId": "ada"})
    ada = Caller(http, console.workspace_id, made["token"])
    event = {"messageId": "m1", "name": "login"}
    assert await ada.data("EventsTrack", input={"events": [event]}) == {
        "accepted": 1,
        "duplicates": 0,
        "userErrors": [],
    }
    assert (await console.data("Profile", externalId="ada"))["lastSeenAt"] is not None
    assert codes(await ada.ask("Profile", externalId="ada")) == ["FORBIDDEN"]


async def test_a_publishable_key_alone_names_nobody_you_know(app_caller: Caller) -> None:
    """Whom else it may name, and whom not: test_api_identity.py."""
    device = {"provider": "FCM", "token": "t1", "platform": "ANDROID"}
    assert await app_caller.refusal("DeviceRegister", input=device | {"externalId": "ada"}) == (
        "FORBIDDEN",
        ["input", "externalId"],
    )
    events = [{"messageId": "m1", "name": "visit", "externalId": "ada"}]
    payload = (await app_caller.ask("EventsTrack", input={"events": events}))["data"]["eventsTrack"]
    assert payload["accepted"] == 0
    assert [(e["code"], e["field"]) for e in payload["userErrors"]] == [
        ("FORBIDDEN", ["input", "events", "0", "externalId"])
    ]


@pytest.mark.parametrize(
    "spoil",
    [lambda token: token[:-2], lambda token: "mct_" + token[5:], lambda token: "mct_", lambda token: "mct_AAAA"],
    ids=["cut", "changed", "empty", "made up"],
)
async def test_a_client_token_that_is_not_ours_opens_nothing(
    console: Caller, app_caller: Caller, http: httpx2.AsyncClient, spoil: Any
) -> None:
    token = spoil((await console.data("ClientTokenCreate", input={"externalId": "ada"}))["token"])
    query = '{ banners(placements: ["x"]) { maxAgeSeconds } }'
    assert (await Caller(http, console.workspace_id, token).post(query)).status_code == 401
    with_key = app_caller.with_headers(x_muster_client_token=token)
    assert (await with_key.post(query)).status_code == 401


async def test_a_client_token_of_another_workspace_does_not_fit_the_key(foreigner: Caller, app_caller: Caller) -> None:
    made = await foreigner.data("ClientTokenCreate", input={"externalId": "ada"})
    ada = app_caller.with_headers(x_muster_client_token=made["token"])
    assert (await ada.post('{ banners(placements: ["x"]) { maxAgeSeconds } }')).status_code == 401


async def test_a_client_token_ends(console: Caller, http: httpx2.AsyncClient) -> None:
    for seconds in (0, 59, 86_401, -1):
        assert await console.refusal("ClientTokenCreate", input={"externalId": "ada", "expiresInSeconds": seconds}) == (
            "OUT_OF_RANGE",
            ["input", "expiresInSeconds"],
        )
    made = await console.data("ClientTokenCreate", input={"externalId": "ada", "expiresInSeconds": 60})
    ends = datetime.fromisoformat(made["expiresAt"])
    assert timedelta(0) < ends - datetime.now(UTC) <= timedelta(seconds=60)
    authenticator = http._transport.app.state.services.authenticator  # type: ignore[attr-defined]
    assert (await authenticator.client(made["token"], now=ends - timedelta(seconds=1))).acting_as == "ada"
    with pytest.raises(Exception, match="expired"):
        await authenticator.client(made["token"], now=ends)
