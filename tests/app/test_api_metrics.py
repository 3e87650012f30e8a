"""What operators see: GET /metrics, readiness, request and job ids in the log, traces."""

import json
import logging
import re
from collections.abc import Iterator
from contextvars import copy_context
from importlib import import_module
from time import monotonic
from typing import Any
from uuid import UUID

import httpx2
import pytest

from app import logs, metrics
from app.settings import load_settings
from app.traces import NOTHING, TRACES, Traces
from campaigns import sending
from db.transactions import across_workspaces
from tests.app.caller import Caller
from tests.app.conftest import running
from tests.app.test_api_campaigns import instant, make, people
from tests.app.test_api_evaluations import make as make_segment
from tests.campaigns.factories import ScriptedChannel, carrier
from tests.conftest import Database, on_server
from workers.turns import told

SAMPLE = re.compile(r"^(\w+?)(?:\{(.*)\})? (\S+)$", re.MULTILINE)


@pytest.fixture(autouse=True)
def looked_anew() -> None:
    """No test sees how another one's database stood."""
    metrics.LATEST.looked_at = float("-inf")


def samples(text: str) -> dict[str, float]:
    """Values by name and labels, as written."""
    return {f"{name}{{{labels}}}" if labels else name: float(value) for name, labels, value in SAMPLE.findall(text)}


async def scraped(http: httpx2.AsyncClient) -> dict[str, float]:
    answer = await http.get("/metrics")
    assert (answer.status_code, answer.headers["content-type"].split(";")[0]) == (200, "text/plain")
    return samples(answer.text)


async def test_requests_and_operations_are_counted_under_names_that_nobody_can_make_up(console: Caller) -> None:
    before = await scraped(console.http)
    await console.data("Campaigns")
    await console.post("query Mine { workspace { id } }")
    await console.post("{ nope }")
    await console.post("{ a: workspace { id } b: workspace { id } }")
    for n in range(5):
        await console.http.get(f"/nowhere/{n}")
        await console.http.get(f"/v1/segments/seg_{n}/members/{n}")
        await console.post(f"query Q{n} {{ workspace {{ id }} }}")
    after = await scraped(console.http)
    grown = {name: value - before.get(name, 0) for name, value in after.items() if value != before.get(name, 0)}
    operations = {name: value for name, value in grown.items() if name.startswith("muster_graphql_operations_total")}
    assert operations == {
        'muster_graphql_operations_total{field="campaigns",outcome="ok"}': 1,
        'muster_graphql_operations_total{field="workspace",outcome="ok"}': 6,
        'muster_graphql_operations_total{field="none",outcome="error"}': 1,
        'muster_graphql_operations_total{field="several",outcome="ok"}': 1,
    }
    assert grown['muster_http_requests_total{route="/graphql",status="200"}'] == 9
    assert grown['muster_http_requests_total{route="none",status="404"}'] == 5
    route = "/v1/segments/{id}/members/{external_id:path}"
    assert sum(value for name, value in grown.items() if f'total{{route="{route}"' in name) == 5
    assert not [name for name in after if "Mine" in name or "Q1" in name or "seg_1" in name]


async def test_fetches_of_banners_are_counted_where_they_are_answered(console: Caller) -> None:
    # A document is planned once it was executed.
    await console.post('{ banners(placements: ["top"]) { maxAgeSeconds } }')
    before = await scraped(console.http)
    await console.http.get("/v1/banners?placement=top", headers=console.all_headers())
    await console.post('{ banners(placements: ["top"]) { maxAgeSeconds } }')
    after = await scraped(console.http)
    for how in ("rest", "graphql"):
        name = f'muster_banner_fetches_total{{how="{how}"}}'
        assert after[name] - before[name] == 1


async def test_how_things_stand_is_told_without_a_look_at_the_ledger(console: Caller, database: Database) -> None:
    """Deliveries by state and channel, ages of queues, durations: of what dispatches keep."""
    await people(console, "ada", "bob")
    campaign = UUID(hex=(await make(console)).removeprefix("cmp_"))
    await console.data("CampaignSend", input={"id": f"cmp_{campaign.hex}"})
    async with across_workspaces() as connection:
        now = await connection.fetchval("SELECT now()")
    channel = ScriptedChannel()
    while await sending.deliver(
        console.workspace_id, campaign, carrier=carrier(channel), now=now, until=monotonic() + 10
    ):
        pass
    assert len(channel.received) == 2
    await console.data("Campaign", id=f"cmp_{campaign.hex}")
    # Nobody may read it now, not even who owns it.
    await on_server(database.owner_url, "ALTER TABLE delivery RENAME TO ledger")
    found = await scraped(console.http)
    assert found["muster_database_up"] == 1
    assert found['muster_campaigns{channel="EMAIL",status="SENT"}'] == 1
    assert found['muster_deliveries{channel="EMAIL",state="sent"}'] == 2
    assert found['muster_oldest_seconds{what="evaluation"}'] == 0
    assert found['muster_oldest_seconds{what="expired claim"}'] == 0
    assert found['muster_oldest_seconds{what="schedule"}'] == 0
    assert found['muster_evaluation_seconds{quantile="0.99"}'] >= 0
    assert found['muster_database_connections{state="busy"}'] >= 0
    assert found["process_resident_memory_bytes"] > 0


async def test_what_waits_is_told_by_the_age_of_the_oldest(console: Caller, database: Database) -> None:
    """Nothing else tells of a queue that nobody works on; what is not due, or over, does not wait."""
    await people(console, "ada")
    await console.data("SegmentActivate", input={"id": await make_segment(console)})
    for ahead in (1, 2):
        await console.data("CampaignSchedule", input={"id": await make(console), "at": instant(hours=ahead)})
    await console.data("CampaignSend", input={"id": await make(console)})
    await on_server(
        database.owner_url,
        "UPDATE evaluation SET queued_at = now() - interval '100 s'",
        "UPDATE campaign SET scheduled_at = scheduled_at - interval '1 h 200 s' WHERE status = 'SCHEDULED'",
        "UPDATE dispatch SET heartbeat_at = now() - interval '300 s'",
        "INSERT INTO claim (workspace_id, dispatch_id, owner, lease_until) SELECT workspace_id, id, id, now() + age"
        " FROM dispatch, unnest(ARRAY['-400 s', '-40 s', '400 s']::interval[]) age",
    )
    found = await scraped(console.http)
    ages = {"evaluation": 100, "schedule": 200, "silent dispatch": 300, "expired claim": 400}
    told = {what: found[f'muster_oldest_seconds{{what="{what}"}}'] for what in ages}
    assert all(age <= told[what] < age + 90 for what, age in ages.items()), told
    assert found['muster_evaluations{status="QUEUED"}'] == 1


async def test_a_database_that_is_away_is_told_and_the_rest_all_the_same(
    console: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away() -> list[Any]:
        raise OSError

    monkeypatch.setattr(metrics, "standing", away)
    found = await scraped(console.http)
    assert found["muster_database_up"] == 0
    assert not [name for name in found if name.startswith("muster_campaigns")]
    assert "process_cpu_seconds_total" in found


async def test_how_things_stand_is_looked_at_now_and_then_and_what_is_over_is_not_told(
    console: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks, standing = 0, metrics.standing

    async def counted() -> list[Any]:
        nonlocal looks
        looks += 1
        return await standing()

    monkeypatch.setattr(metrics, "standing", counted)
    campaign, draft = await make(console), 'muster_campaigns{channel="EMAIL",status="DRAFT"}'
    assert [(await scraped(console.http)).get(draft) for _ in range(3)] == [1, 1, 1]
    await console.data("CampaignDelete", input={"id": campaign})
    metrics.LATEST.looked_at -= metrics.STANDING_S
    assert (draft in await scraped(console.http), looks) == (False, 2)


async def test_connections_at_work_are_told_from_idle_ones(database: Database) -> None:
    outside = copy_context()  # as of somebody else's request
    async with across_workspaces():
        at_work = samples(outside.run(metrics.text).decode())
    after = samples(metrics.text().decode())
    busy, idle = (f'muster_database_connections{{state="{state}"}}' for state in ("busy", "idle"))
    assert (at_work[busy] - after[busy], at_work[idle] - after[idle]) == (1, -1)


async def test_two_who_scrape_at_once_are_both_told(console: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    """One looks, and the other gets what the look before found, not nothing."""
    await people(console, "ada")
    await make(console)
    assert (await scraped(console.http))['muster_campaigns{channel="EMAIL",status="DRAFT"}'] == 1
    metrics.LATEST.looked_at = float("-inf")
    looks, found = 0, metrics.standing

    async def slow() -> list[Any]:
        nonlocal looks
        looks += 1
        other = await scraped(console.http)
        assert other['muster_campaigns{channel="EMAIL",status="DRAFT"}'] == 1
        return await found()

    monkeypatch.setattr(metrics, "standing", slow)
    await scraped(console.http)
    assert looks == 1


def test_a_worker_does_not_tell_what_it_never_asked() -> None:
    """Its database would seem to be away."""
    assert b"muster_database_up" not in metrics.text()
    assert b"muster_database_connections" in metrics.text()
    assert b"muster_database_up" in metrics.text_of_all()


async def test_a_request_too_many_is_counted(console: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.rates.RequestRates.admits", lambda *_: False)
    before = await scraped(console.http)
    assert (await console.http.get("/v1/banners?placement=top")).status_code == 429
    after = await scraped(console.http)
    refused = 'muster_http_requests_total{route="none",status="429"}'
    assert after[refused] - before[refused] == 1


async def test_a_stream_is_no_slow_answer(console: Caller) -> None:
    """It is counted, and its length is not."""
    before = await scraped(console.http)
    await console.with_headers(Accept="text/event-stream").post("{ nope }")
    after = await scraped(console.http)
    count = 'muster_http_requests_total{route="/graphql",status="200"}'
    seconds = 'muster_http_request_seconds_count{route="/graphql"}'
    assert after[count] - before.get(count, 0) == 1
    assert after.get(seconds, 0) == before.get(seconds, 0)


async def test_only_the_machine_itself_or_a_token_opens_the_numbers(environ: dict[str, str]) -> None:
    token = "a token of the metrics, 32 characters"

    async def status(given: dict[str, str], address: str, **headers: str) -> int:
        async with running(load_settings(environ | given)) as app:
            transport = httpx2.ASGITransport(app=app, client=(address, 1))
            async with httpx2.AsyncClient(transport=transport, base_url="http://api") as http:
                return (await http.get("/metrics", headers=headers)).status_code

    assert await status({}, "127.0.0.1") == 200
    assert await status({}, "10.0.0.1") == 403
    # A proxy on the same machine that hands everything on.
    for header in ("X-Forwarded-For", "Forwarded", "X-Real-IP", "Via"):
        assert await status({}, "127.0.0.1", **{header: "203.0.113.9"}) == 403, header
    with_token = {"MUSTER_METRICS_TOKEN": token}
    assert await status(with_token, "127.0.0.1") == 403
    assert await status(with_token, "10.0.0.1", Authorization="Bearer wrong") == 403
    assert await status(with_token, "10.0.0.1", Authorization=f"Bearer {token}") == 200


# --- readiness ----------------------------------------------------------------------------------------------------


async def test_a_database_behind_the_code_is_not_ready(http: httpx2.AsyncClient, database: Database) -> None:
    """T-11: a process of a new version that came before `muster migrate` must get no requests."""
    assert (await http.get("/readyz")).json() == {"ready": True, "missing": []}
    await on_server(database.owner_url, "DELETE FROM tortoise_migrations WHERE name LIKE '0011%'")
    ready = await http.get("/readyz")
    assert (ready.status_code, ready.json()) == (503, {"ready": False, "missing": ["schema"]})
    await on_server(database.owner_url, "DROP FUNCTION migrations_missing")
    assert (await http.get("/readyz")).json() == {"ready": False, "missing": ["schema"]}


async def test_workers_that_sweep_no_more_are_told(http: httpx2.AsyncClient, database: Database) -> None:
    """T-11: a worker may announce itself and do nothing else; what others lost is then picked up by nobody."""
    async with across_workspaces() as connection:
        await connection.fetchval("SELECT worker_seen('00000000-0000-0000-0000-000000000001', '15 s')")
    assert (await http.get("/healthz")).json()["degraded"] == ["sweeper"]
    async with across_workspaces() as connection:
        assert await connection.fetchval("SELECT take_turn('sweep', '0 s')")
    assert (await http.get("/healthz")).json()["degraded"] == []
    await on_server(database.owner_url, "UPDATE turn SET taken_at = now() - interval '16 s'")
    assert (await http.get("/healthz")).json()["degraded"] == ["sweeper"]


# --- log lines ----------------------------------------------------------------------------------------------------


async def test_a_request_is_called_the_same_in_its_answer_and_in_the_log(
    http: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also after an exception that nobody expected; a name that a proxy gave is kept, unless it is an odd one."""
    lines: list[dict[str, Any]] = []

    async def broken(self: object) -> None:
        record = logging.makeLogRecord({"msg": "said", "levelname": "INFO", "name": "x"})
        lines.append(json.loads(logs.JsonFormatter().format(record)))
        raise RuntimeError

    monkeypatch.setattr("app.wakeups.Wakeups.is_reachable", broken)
    for given in ({}, {"X-Request-Id": "abc-1"}, {"X-Request-Id": "a b"}):
        answer = await http.get("/readyz", headers=given)
        assert answer.headers.get_list("x-request-id") == [lines[-1]["request_id"]]
    assert lines[1]["request_id"] == "abc-1"
    assert re.fullmatch("[0-9a-f]{16}", lines[0]["request_id"])
    assert re.fullmatch("[0-9a-f]{16}", lines[2]["request_id"])


async def test_a_turn_of_a_worker_is_named_in_the_log_and_counted() -> None:
    lines: list[dict[str, Any]] = []

    async def deliver(ctx: dict[str, Any], workspace_id: str, campaign_id: str) -> None:
        record = logging.makeLogRecord({"msg": "said", "levelname": "INFO", "name": "x"})
        lines.append(json.loads(logs.JsonFormatter().format(record)))

    before = samples(metrics.text().decode()).get('muster_job_seconds_count{job="deliver"}', 0)
    turn = told(deliver)
    await turn({"job_id": "17"}, "w", "c")
    assert (lines[0]["job"], lines[0]["job_id"]) == ("deliver", "17")
    assert turn.__qualname__ == deliver.__qualname__  # by which arq finds it
    assert samples(metrics.text().decode())['muster_job_seconds_count{job="deliver"}'] == before + 1


# --- traces -------------------------------------------------------------------------------------------------------


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """What is traced, kept in memory."""
    kept = import_module("opentelemetry.sdk.trace.export.in_memory_span_exporter").InMemorySpanExporter()
    monkeypatch.setattr(TRACES, "tracer", None)
    TRACES.begin(import_module("opentelemetry.sdk.trace.export").SimpleSpanProcessor(kept))
    yield kept
    kept.shutdown()


async def test_an_operation_a_turn_and_a_call_of_a_channel_are_a_span_each(console: Caller, spans: Any) -> None:
    await people(console, "ada")
    campaign = await make(console)
    await console.data("CampaignSend", input={"id": campaign})
    spans.clear()
    await console.data("Campaign", id=campaign)
    (operation,) = spans.get_finished_spans()
    assert operation.name == "operation campaign"
    spans.clear()
    sent = carrier(TRACES.of_channel(ScriptedChannel(), "smtp"))

    async def deliver(ctx: dict[str, Any], workspace_id: str, campaign_id: str) -> None:
        async with across_workspaces() as connection:
            now = await connection.fetchval("SELECT now()")
        await sending.deliver(
            console.workspace_id, UUID(hex=campaign_id[4:]), carrier=sent, now=now, until=monotonic() + 10
        )

    await told(deliver)({"job_id": "17"}, "w", campaign)
    found = {span.name: span for span in spans.get_finished_spans()}
    assert sorted(found) == ["channel smtp", "job deliver"]
    assert found["channel smtp"].attributes == {"muster.outcome": "ACCEPTED"}
    assert found["channel smtp"].context.trace_id == found["job deliver"].context.trace_id
    assert found["job deliver"].attributes == {"job_id": "17"}
    assert "ada" not in "".join(span.to_json() for span in found.values())


def test_what_broke_is_in_a_span_by_its_kind_alone(spans: Any) -> None:
    """The text of an exception may quote a row, and goes to no collector."""
    with pytest.raises(ValueError, match="ada"), TRACES.span("job deliver"):
        raise ValueError("Key (email)=(ada@example.com) exists")
    (span,) = spans.get_finished_spans()
    assert span.attributes == {"error.type": "ValueError"}
    assert not span.status.is_ok
    assert "ada" not in span.to_json()


def test_traces_that_are_off_are_nothing_at_all() -> None:
    """No span, no object a call, no other channel, and nothing of OpenTelemetry in the modules that work."""
    off, channel = Traces(), ScriptedChannel()
    assert off.span("a", b="c") is off.span("d") is NOTHING
    assert off.of_channel(channel, "smtp") is channel
