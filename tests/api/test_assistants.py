from __future__ import annotations

from uuid import uuid4

import httpx
import pytest

from tests.wire.compatibility import covers

ECHO = "046b5dc7-2108-582c-9c6c-31d556d138f0"


def test_each_graph_has_the_assistant_that_clients_expect(api: httpx.Client) -> None:
    echo = api.get(f"/assistants/{ECHO}").json()
    assert list(echo) == [
        "assistant_id",
        "graph_id",
        "config",
        "context",
        "metadata",
        "name",
        "created_at",
        "updated_at",
        "version",
        "description",
    ]
    assert (echo["graph_id"], echo["metadata"], echo["version"]) == ("echo", {"created_by": "system"}, 1)


def test_an_assistant_is_created_found_and_deleted(api: httpx.Client) -> None:
    mark = str(uuid4())
    made = api.post(
        "/assistants",
        json={"graph_id": "echo", "metadata": {"mark": mark}, "name": f"My {mark}", "context": {"c": 1}},
    ).json()
    assert made["config"] == {"configurable": {"c": 1}}
    found = api.post(
        "/assistants/search", json={"metadata": {"mark": mark}, "select": ["assistant_id", "name"]}
    )
    assert found.json() == [{"assistant_id": made["assistant_id"], "name": f"My {mark}"}]
    assert found.headers["x-pagination-total"] == "1"
    assert api.post("/assistants/count", json={"name": f"mY {mark}"}).json() == 1
    assert api.delete(f"/assistants/{made['assistant_id']}").status_code == 204
    assert api.get(f"/assistants/{made['assistant_id']}").status_code == 404
    assert api.delete(f"/assistants/{made['assistant_id']}").status_code == 404


def test_an_assistant_that_exists_is_refused_or_given(api: httpx.Client) -> None:
    asked = {"graph_id": "echo", "assistant_id": str(uuid4())}
    made = api.post("/assistants", json=asked).json()
    assert api.post("/assistants", json=asked).status_code == 409
    given = api.post("/assistants", json={**asked, "name": "Other", "if_exists": "do_nothing"})
    assert given.json() == made


def test_threads_may_go_with_their_assistant(api: httpx.Client, thread_id: str) -> None:
    made = api.post("/assistants", json={"graph_id": "echo"}).json()["assistant_id"]
    api.post(f"/threads/{thread_id}/runs/wait", json={"assistant_id": made, "input": {"messages": []}})
    assert api.delete(f"/assistants/{made}?delete_threads=true").status_code == 204
    assert api.get(f"/threads/{thread_id}").status_code == 404


def test_a_deleted_system_assistant_comes_back_when_it_is_used(api: httpx.Client) -> None:
    failing = api.post("/assistants/search", json={"graph_id": "failing"}).json()[0]["assistant_id"]
    assert api.delete(f"/assistants/{failing}").status_code == 204
    assert "__error__" in api.post("/runs/wait", json={"assistant_id": "failing", "input": {}}).json()
    assert api.get(f"/assistants/{failing}").status_code == 200


@covers("POST /assistants", "422")
@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 422),
        ({"graph_id": 5}, 422),
        ({"graph_id": "nope"}, 404),
        ({"graph_id": "echo", "config": {"configurable": {"a": 1}}, "context": {"b": 1}}, 400),
        ({"graph_id": "echo", "config": {"recursion_limit": 0}}, 422),
        ({"graph_id": "echo", "description": None}, 200),
    ],
)
def test_what_does_not_fit_is_refused(api: httpx.Client, body: object, status: int) -> None:
    assert api.post("/assistants", json=body).status_code == status


def test_a_search_for_an_unknown_graph_names_the_known_ones(api: httpx.Client) -> None:
    response = api.post("/assistants/search", json={"graph_id": "nope"})
    assert response.status_code == 404
    assert response.json()["detail"].startswith("Graph 'nope' not found. Expected one of: ['ask', ")


def test_names_of_graphs_are_no_ids_in_paths(api: httpx.Client) -> None:
    response = api.get("/assistants/echo")
    assert (response.status_code, response.json()["detail"]) == (422, "Invalid assistant ID: must be a UUID")


@covers("PATCH /assistants/{assistant_id}", "its version")
@covers("AssistantPatch", "description", "context")
def test_a_change_of_nothing_is_a_version_too_and_null_takes_a_description_away(api: httpx.Client) -> None:
    made = api.post("/assistants", json={"graph_id": "echo", "description": "d", "context": {"a": 1}}).json()
    place = f"/assistants/{made['assistant_id']}"
    same = api.patch(place, json={}).json()
    assert same == {**made, "version": 2, "updated_at": same["updated_at"]}
    assert api.patch(place, json={"unknown": 1}).json()["version"] == 3
    assert api.patch(place, json={"description": None}).json()["description"] is None
    assert api.patch(place, json={"context": {}}).json()["config"] == {}


@covers("PATCH /assistants/{assistant_id}", "400", "404")
@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"graph_id": 5}, 422),
        ({"graph_id": ""}, 404),
        ({"name": None}, 422),
        ({"metadata": []}, 422),
        ({"config": {"recursion_limit": 0}}, 422),
        ({"config": {"configurable": {"a": 1}}, "context": {"b": 1}}, 400),
        ([1], 422),
    ],
)
def test_a_change_that_makes_no_sense_is_refused_and_makes_no_version(
    api: httpx.Client, change: object, status: int
) -> None:
    place = f"/assistants/{api.post('/assistants', json={'graph_id': 'echo'}).json()['assistant_id']}"
    response = api.patch(place, json=change)
    assert response.status_code == status
    assert isinstance(response.json()["detail"], str)
    assert len(api.post(f"{place}/versions", json={}).json()) == 1


@covers("POST /assistants/{assistant_id}/latest", "422")
@pytest.mark.parametrize(
    "body", [{}, {"version": "1"}, {"version": None}, {"version": 2**40}, {"version": 1.5}]
)
def test_a_version_is_a_number(api: httpx.Client, body: object) -> None:
    place = f"/assistants/{api.post('/assistants', json={'graph_id': 'echo'}).json()['assistant_id']}"
    assert api.post(f"{place}/latest", json=body).status_code == 422
    assert api.post(f"{place}/latest", json={"version": -1}).status_code == 404
    assert api.post("/assistants/echo/latest", json={"version": 1}).status_code == 422


@covers("GET /assistants/{assistant_id}/graph", "?xray")
@covers("GET /assistants/{assistant_id}/schemas", "422")
def test_how_deep_a_drawing_goes_is_a_switch_or_a_number(api: httpx.Client) -> None:
    place = f"/assistants/{ECHO}/graph"
    plain = api.get(place)
    assert api.get(place, params={"xray": "false"}).json() == plain.json()
    assert list(plain.json()) == ["nodes", "edges"]
    for xray in ("true", "True", "1", "3"):
        assert api.get(place, params={"xray": xray}).status_code == 200
    for xray in ("0", "-1", "abc", "1.5", "\u0663", "9" * 400):
        answer = api.get(place, params={"xray": xray})
        assert (answer.status_code, answer.json()["detail"]) == (422, "Invalid xray value")
    assert api.get("/assistants/nope/graph").status_code == 404
    assert api.get("/assistants/echo/schemas").status_code == 422


@covers("POST /assistants/search", "422")
@pytest.mark.parametrize(
    "body",
    [{"limit": 0}, {"limit": 1001}, {"offset": -1}, {"sort_by": "owner"}, {"select": ["bogus"]}, None],
)
def test_a_search_that_makes_no_sense_is_refused(api: httpx.Client, body: object) -> None:
    assert api.post("/assistants/search", json=body).status_code == 422


@covers("AssistantSearch", "sort_by")
def test_names_sort_as_plain_strings_and_every_key_sorts(api: httpx.Client) -> None:
    mark = {"mark": str(uuid4())}
    made = [
        api.post("/assistants", json={"graph_id": graph, "name": name, "metadata": mark}).json()
        for graph, name in (("echo", "b"), ("ask", "C"), ("chat", "a"))
    ]

    def names(key: str) -> list[str]:
        asked = {"metadata": mark, "sort_by": key, "sort_order": "asc"}
        return [each["name"] for each in api.post("/assistants/search", json=asked).json()]

    assert names("name") == ["C", "a", "b"]
    assert names("graph_id") == ["C", "a", "b"]
    assert names("created_at") == names("updated_at") == ["b", "C", "a"]
    by_id = sorted(made, key=lambda each: str(each["assistant_id"]))
    assert names("assistant_id") == [each["name"] for each in by_id]


@covers("GET /assistants/{assistant_id}/subgraphs", "?recurse", "no subgraphs")
def test_a_graph_without_subgraphs_has_none_however_it_is_asked(api: httpx.Client) -> None:
    for recurse in ("true", "0", "zzz"):
        response = api.get(f"/assistants/{ECHO}/subgraphs", params={"recurse": recurse})
        assert (response.status_code, response.json()) == (200, {})


@covers("POST /assistants/{assistant_id}/versions", "405")
def test_versions_are_asked_for_by_post(api: httpx.Client) -> None:
    assert api.get(f"/assistants/{ECHO}/versions").status_code == 405


@covers("Assistant", "system assistants")
def test_a_system_assistant_tells_what_its_graph_is_described_as(api: httpx.Client) -> None:
    assert api.get(f"/assistants/{ECHO}").json()["description"] == "Says back what it was told."
