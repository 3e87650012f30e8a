"""POST /v1/events for SDKs: a key, a batch, an honest report."""

from typing import Any

import httpx2

from tests.app.caller import Caller
from tests.app.test_api_identity import visitor

VISIT = {"messageId": "m1", "name": "visit", "anonymousId": "v1"}


async def send(caller: Caller, events: Any) -> httpx2.Response:
    return await caller.http.post("/v1/events", json={"events": events}, headers=caller.all_headers())


async def test_a_batch_is_accepted_and_a_repeat_adds_nothing(console: Caller, app_caller: Caller) -> None:
    """S4-07: events of pages and apps, from a key that everybody may have."""
    one = await visitor(app_caller)
    visit, full = (
        one.event("m1"),
        {
            "messageId": "m2",
            "name": "purchase",
            "anonymousId": one.anonymous_id,
            "occurredAt": "2026-01-02T03:04:05+01:00",
            "properties": {"value": 12.5, "items": [{"sku": "a"}]},
            "pagePath": "/cart",
            "deviceType": "mobile",
            "browser": "Firefox",
            "country": "DE",
            "city": "Berlin",
            "sessionId": "s1",
        },
    )
    first = await send(one.app, [visit, full])
    assert (first.status_code, first.json()) == (202, {"accepted": 2, "duplicates": 0, "errors": []})
    again = await send(one.app, [visit, full])
    assert again.json() == {"accepted": 0, "duplicates": 2, "errors": []}
    (found,) = (await console.data("Profiles"))["edges"]
    assert found["node"]["identified"] is False
    assert found["node"]["externalId"] is None


WRONG_EVENTS: list[tuple[Any, str, list[str] | None]] = [
    ("text", "NOT_AN_OBJECT", None),
    (VISIT | {"nmae": "x"}, "UNKNOWN_FIELD", ["nmae"]),
    (VISIT | {"name": 5}, "NOT_TEXT", ["name"]),
    ({"name": "visit", "anonymousId": "v1"}, "BLANK", ["messageId"]),
    ({"messageId": "m", "anonymousId": "v1"}, "BLANK", ["name"]),
    ({"messageId": "m", "name": "visit"}, "ONE_IDENTITY", None),
    (VISIT | {"occurredAt": "yesterday"}, "INVALID_TIME", ["occurredAt"]),
    (VISIT | {"occurredAt": "2026-01-01T00:00:00"}, "INVALID_TIME", ["occurredAt"]),
    (VISIT | {"occurredAt": 1}, "INVALID_TIME", ["occurredAt"]),
    (VISIT | {"occurredAt": "2999-01-01T00:00:00Z"}, "IN_THE_FUTURE", ["occurredAt"]),
    (VISIT | {"properties": [1]}, "NOT_AN_OBJECT", ["properties"]),
    (VISIT | {"country": "Atlantis"}, "UNKNOWN_COUNTRY", ["country"]),
]


async def test_a_bad_event_is_named_and_the_others_are_written(console: Caller) -> None:
    for place, (event, code, field) in enumerate(WRONG_EVENTS):
        good = VISIT | {"messageId": f"good {place}"}
        response = await send(console, [event, good])
        assert response.status_code == 202
        answer = response.json()
        assert (answer["accepted"], answer["duplicates"]) == (1, 0)
        (error,) = answer["errors"]
        assert (error["index"], error["code"], error["field"]) == (0, code, field)
        assert error["message"].endswith(".")


async def test_a_secret_key_may_name_anybody(console: Caller) -> None:
    response = await send(console, [{"messageId": "m", "name": "visit", "externalId": "ada"}])
    assert response.json()["accepted"] == 1
    assert (await console.data("Profile", externalId="ada"))["identified"] is True


async def test_no_key_is_401_and_a_key_without_the_scope_403(
    http: httpx2.AsyncClient, caller: Any, console: Caller
) -> None:
    nobody = await http.post("/v1/events", json={"events": [VISIT]})
    assert (nobody.status_code, nobody.json()["error"]["code"]) == (401, "UNAUTHENTICATED")
    assert nobody.headers["www-authenticate"] == "Bearer"
    reader = await send(await caller(console.workspace_id, "read"), [VISIT])
    assert (reader.status_code, reader.json()["error"]["code"]) == (403, "FORBIDDEN")


BROKEN: list[tuple[bytes, str]] = [
    (b"{", "INVALID_JSON"),
    (b"[]", "NO_EVENTS"),
    (b'{"events": {}}', "NO_EVENTS"),
    (b'{"events": [{"messageId": "\\u0000"}]}', "UNSTORABLE_TEXT"),
    (b'{"events": [{"messageId": "\\ud800"}]}', "INVALID_JSON"),
    (b"[" * 20_000, "INVALID_JSON"),
    (b"[" * 100_000, "TOO_MANY_VALUES"),
]


async def test_a_broken_body_is_answered_in_words(app_caller: Caller) -> None:
    for body, code in BROKEN:
        headers = app_caller.all_headers() | {"Content-Type": "application/json"}
        response = await app_caller.http.post("/v1/events", content=body, headers=headers)
        assert (response.status_code, response.json()["error"]["code"]) == (400, code)


async def test_more_than_a_thousand_events_are_refused_as_a_whole(console: Caller) -> None:
    events = [VISIT | {"messageId": str(number)} for number in range(1001)]
    response = await send(console, events)
    assert (response.status_code, response.json()["error"]["code"]) == (400, "TOO_MANY_ITEMS")
    assert (await console.data("Profiles"))["edges"] == []
    assert (await send(console, events[:1000])).json()["accepted"] == 1000


async def test_forms_and_gets_are_not_taken(app_caller: Caller) -> None:
    headers = app_caller.all_headers()
    form = await app_caller.http.post("/v1/events", data={"events": "[]"}, headers=headers)
    assert form.status_code == 415
    assert (await app_caller.http.get("/v1/events", headers=headers)).status_code == 405
