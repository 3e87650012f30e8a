"""GraphQL over HTTP (graphql.github.io/graphql-over-http): media types, statuses and GET."""

import httpx2
import pytest

from tests.app.caller import Caller

JSON, GRAPHQL_JSON = "application/json", "application/graphql-response+json"
WORKSPACE = "query W { workspace { name } }"
BROKEN = {
    "does not parse": {"query": "{ workspace"},
    "is not valid": {"query": "{ workspac { name } }"},
    "lacks a variable": {"query": "query P($id: ID!) { profile(id: $id) { id } }"},
}


def accepting(console: Caller, accept: str) -> dict[str, str]:
    return console.all_headers() | {"Accept": accept}


@pytest.mark.parametrize("accept", [GRAPHQL_JSON, f"{JSON}; q=0.5, {GRAPHQL_JSON}; charset=utf-8"])
async def test_who_accepts_it_is_answered_in_the_media_type_of_graphql(console: Caller, accept: str) -> None:
    answer = await console.http.post("/graphql", json={"query": WORKSPACE}, headers=accepting(console, accept))
    assert answer.headers["content-type"] == f"{GRAPHQL_JSON}; charset=utf-8"
    assert answer.status_code == 200
    assert list(answer.json()["data"]) == ["workspace"]


@pytest.mark.parametrize("accept", [JSON, "*/*", "text/html, */*;q=0.1"])
async def test_all_others_are_answered_in_json(console: Caller, accept: str) -> None:
    answer = await console.http.post("/graphql", json={"query": WORKSPACE}, headers=accepting(console, accept))
    assert (answer.status_code, answer.headers["content-type"]) == (200, f"{JSON}; charset=utf-8")


@pytest.mark.parametrize("name", list(BROKEN))
@pytest.mark.parametrize(("accept", "status"), [(GRAPHQL_JSON, 400), (JSON, 200)])
async def test_what_cannot_be_begun_has_no_data(console: Caller, name: str, accept: str, status: int) -> None:
    answer = await console.http.post("/graphql", json=BROKEN[name], headers=accepting(console, accept))
    assert answer.status_code == status
    assert list(answer.json()) == ["errors"]


async def test_a_refused_field_answers_200_with_data(console: Caller) -> None:
    query = {"query": '{ workspace { name } placement(key: "a", id: "b") { id } }'}
    answer = await console.http.post("/graphql", json=query, headers=accepting(console, GRAPHQL_JSON))
    assert answer.status_code == 200
    assert answer.json()["errors"][0]["path"] == ["placement"]
    assert answer.json()["data"]["placement"] is None


async def test_a_query_may_come_by_get(console: Caller) -> None:
    parameters = {
        "query": "query S($name: String) { segments(name: $name) { edges { cursor } } }",
        "operationName": "S",
        "variables": '{"name": "none"}',
        "extensions": "{}",
    }
    answer = await console.http.get("/graphql", params=parameters, headers=console.all_headers())
    assert (answer.status_code, answer.json()) == (200, {"data": {"segments": {"edges": []}}})


async def refusal(console: Caller, http: httpx2.AsyncClient, parameters: dict[str, str]) -> tuple[int, str]:
    answer = await http.get("/graphql", params=parameters, headers=accepting(console, JSON))
    return answer.status_code, answer.json()["errors"][0]["message"]


async def test_a_get_changes_nothing(console: Caller, http: httpx2.AsyncClient) -> None:
    change = 'mutation { placementCreate(input: {key: "top", name: "Top"}) { placement { id } } }'
    assert await refusal(console, http, {"query": change}) == (405, "GET is for queries; send mutations with POST.")
    assert (await console.post("{ placements { key } }")).json() == {"data": {"placements": []}}


async def test_a_get_without_a_good_query_says_what_is_wrong(console: Caller, http: httpx2.AsyncClient) -> None:
    assert await refusal(console, http, {}) == (400, "The field query must hold a GraphQL document.")
    status, message = await refusal(console, http, {"query": WORKSPACE, "variables": "{"})
    assert (status, message.partition(":")[0]) == (400, "The parameter variables is no JSON")


async def test_a_get_needs_a_key_as_well(http: httpx2.AsyncClient) -> None:
    answer = await http.get("/graphql", params={"query": WORKSPACE}, headers={"Accept": GRAPHQL_JSON})
    assert (answer.status_code, answer.headers["content-type"]) == (401, GRAPHQL_JSON)
