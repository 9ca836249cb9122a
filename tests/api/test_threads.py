from __future__ import annotations

import re
from uuid import uuid4

import httpx
import pytest

from tests.wire.compatibility import covers

INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}\+00:00")


@covers("Requests and answers", "every body", "every time")
def test_a_fresh_thread_has_the_keys_of_the_contract(api: httpx.Client) -> None:
    response = api.post("/threads", json={"metadata": {"a": {"b": "\u00e9"}}})
    assert response.status_code == 200
    assert '"metadata":{"a":{"b":"\u00e9"}}' in response.text
    thread = response.json()
    assert list(thread) == [
        "thread_id",
        "created_at",
        "updated_at",
        "state_updated_at",
        "metadata",
        "status",
        "config",
        "values",
    ]
    assert (thread["status"], thread["config"], thread["values"]) == ("idle", {}, None)
    assert all(INSTANT.fullmatch(thread[name]) for name in ("created_at", "updated_at", "state_updated_at"))
    assert api.get(f"/threads/{thread['thread_id']}").json() == thread


def test_a_thread_that_exists_is_refused_or_given(api: httpx.Client, thread_id: str) -> None:
    again = api.post("/threads", json={"thread_id": thread_id, "metadata": {"new": 1}})
    assert (again.status_code, again.json()["detail"]) == (409, f"Thread with ID {thread_id} already exists")
    given = api.post(
        "/threads", json={"thread_id": thread_id, "if_exists": "do_nothing", "metadata": {"new": 1}}
    )
    assert given.json()["metadata"] == {}


@covers("PATCH /threads/{thread_id}", "204")
def test_metadata_is_merged_and_minimal_answers_are_empty(api: httpx.Client, thread_id: str) -> None:
    api.patch(f"/threads/{thread_id}", json={"metadata": {"a": 1, "b": 2}})
    thread = api.patch(f"/threads/{thread_id}", json={"metadata": {"b": None, "c": 3}}).json()
    assert thread["metadata"] == {"a": 1, "b": None, "c": 3}
    minimal = api.patch(f"/threads/{thread_id}", json={}, headers={"prefer": "return=minimal"})
    assert (minimal.status_code, minimal.content) == (204, b"")


def test_a_deleted_thread_is_gone(api: httpx.Client, thread_id: str) -> None:
    assert api.delete(f"/threads/{thread_id}").status_code == 204
    assert api.get(f"/threads/{thread_id}").status_code == 404
    assert api.delete(f"/threads/{thread_id}").status_code == 404
    assert api.patch(f"/threads/{thread_id}", json={}).status_code == 404


def test_pages_tell_the_true_total_and_where_the_next_begins(api: httpx.Client) -> None:
    mark = {"mark": str(uuid4())}
    made = [api.post("/threads", json={"metadata": mark}).json()["thread_id"] for _ in range(5)]
    first = api.post("/threads/search", json={"metadata": mark, "limit": 2, "sort_by": "created_at"})
    assert [each["thread_id"] for each in first.json()] == made[:2:-1]
    assert (first.headers["x-pagination-total"], first.headers["x-pagination-next"]) == ("5", "2")
    last = api.post(
        "/threads/search", json={"metadata": mark, "limit": 2, "offset": 4, "sort_by": "created_at"}
    )
    assert [each["thread_id"] for each in last.json()] == made[:1]
    assert last.headers["x-pagination-total"] == "5"
    assert "x-pagination-next" not in last.headers
    beyond = api.post("/threads/search", json={"metadata": mark, "offset": 1000})
    assert (beyond.json(), beyond.headers["x-pagination-total"]) == ([], "5")
    assert api.post("/threads/count", json={"metadata": mark}).json() == 5


def test_a_search_filters_and_selects(api: httpx.Client, thread_id: str) -> None:
    found = api.post("/threads/search", json={"ids": [thread_id], "select": ["thread_id", "status"]})
    assert found.json() == [{"thread_id": thread_id, "status": "idle"}]
    none = api.post("/threads/search", json={"ids": [thread_id], "values": {"x": 1}})
    assert (none.status_code, none.json()) == (200, [])
    assert api.post("/threads/search", json={"ids": [thread_id], "status": "busy"}).json() == []


@covers("POST /threads", "422")
@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"thread_id": "abc"}, 422),
        ({"metadata": []}, 422),
        ({"if_exists": None}, 422),
        ({"if_exists": "zzz"}, 422),
        ({"ttl": 5}, 422),
        ({"ttl": {"ttl": -5}}, 422),
        ({"supersteps": [{"updates": []}], "metadata": {"graph_id": "slow"}}, 422),
        ({"supersteps": [{"updates": [{"values": {}}]}], "metadata": {"graph_id": "slow"}}, 422),
        ({"supersteps": [{"updates": [{"values": {}, "as_node": "step"}]}]}, 422),
        ({"supersteps": [{"updates": [{"as_node": "step"}]}], "metadata": {"graph_id": "nope"}}, 404),
        ({"ttl": {"ttl": 1e300}}, 422),
        ({"ttl": {"ttl": 5, "strategy": "zzz"}}, 422),
        ({"ttl": {"ttl": 5}}, 200),
        ({"unknown": 1}, 200),
    ],
)
def test_what_does_not_fit_is_refused(api: httpx.Client, body: object, status: int) -> None:
    response = api.post("/threads", json=body)
    assert response.status_code == status
    assert status == 200 or isinstance(response.json()["detail"], str)


@covers("POST /threads/search", "400", "422")
@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"limit": 0}, 422),
        ({"limit": 1001}, 422),
        ({"ids": ["abc"]}, 400),
        ({"sort_by": "owner"}, 422),
        ({"extract": {"first": "bogus.path"}}, 422),
        ({"extract": {"first": "values..x"}}, 422),
        ({"extract": {"first": 5}}, 422),
        ({"extract": {str(n): "values" for n in range(11)}}, 422),
    ],
)
def test_a_search_that_makes_no_sense_is_refused(api: httpx.Client, body: object, status: int) -> None:
    assert api.post("/threads/search", json=body).status_code == status


def test_an_id_that_is_none_is_refused(api: httpx.Client) -> None:
    response = api.get("/threads/abc")
    assert (response.status_code, response.json()["detail"]) == (422, "Invalid thread ID: must be a UUID")


@covers("Refusal", "422 unholdable")
@pytest.mark.parametrize(
    "raw",
    [
        b'{"metadata":{"a":"\\u0000"}}',
        b'{"metadata":{"a":18446744073709551616}}',
        b'{"metadata":{"a":"\\ud800"}}',
    ],
)
def test_json_that_cannot_be_stored_is_refused(api: httpx.Client, raw: bytes) -> None:
    assert api.post("/threads", content=raw).status_code == 422
