from __future__ import annotations

from typing import Any
from uuid import uuid4

import httpx
import pytest

from tests.wire.compatibility import covers

EMPTY: dict[str, Any] = {
    "values": {},
    "next": [],
    "tasks": [],
    "metadata": None,
    "created_at": None,
    "checkpoint": None,
    "parent_checkpoint": None,
    "interrupts": [],
    "checkpoint_id": None,
    "parent_checkpoint_id": None,
}


def test_a_thread_without_a_graph_has_an_empty_state(api: httpx.Client, thread_id: str) -> None:
    assert api.get(f"/threads/{thread_id}/state").json() == EMPTY
    assert api.get(f"/threads/{thread_id}/history").json() == []
    assert api.post(f"/threads/{thread_id}/history", json={"limit": 10}).json() == []


def test_a_thread_without_a_graph_has_no_state_to_change(api: httpx.Client, thread_id: str) -> None:
    response = api.post(f"/threads/{thread_id}/state", json={"values": {"x": 1}})
    assert response.status_code == 400
    assert response.json()["detail"].startswith(f"Thread '{thread_id}' has no assigned graph ID.")


@covers("GET /threads/{thread_id}/history", "404")
def test_a_thread_that_is_not_there_has_no_state(api: httpx.Client) -> None:
    nobody = f"/threads/{uuid4()}"
    assert api.get(f"{nobody}/state").status_code == 404
    assert api.get(f"{nobody}/history").status_code == 404
    assert api.post(f"{nobody}/state", json={}).status_code == 404


def test_metadata_that_names_no_graph_harms_nothing(api: httpx.Client) -> None:
    thread_id = api.post("/threads", json={"metadata": {"graph_id": 5}}).json()["thread_id"]
    assert api.get(f"/threads/{thread_id}/state").json() == EMPTY
    thread_id = api.post("/threads", json={"metadata": {"graph_id": "gone"}}).json()["thread_id"]
    assert api.get(f"/threads/{thread_id}/state").status_code == 404


def test_a_question_is_seen_in_the_state_and_answered(api: httpx.Client, thread_id: str) -> None:
    asked = api.post(
        f"/threads/{thread_id}/runs/wait", json={"assistant_id": "ask", "input": {"question": "Q?"}}
    )
    [question] = asked.json()["__interrupt__"]
    assert question["value"] == {"q": "Q?"}
    state = api.get(f"/threads/{thread_id}/state").json()
    assert state["next"] == ["ask"]
    assert [each["value"] for each in state["interrupts"]] == [{"q": "Q?"}]
    thread = api.get(f"/threads/{thread_id}").json()
    assert thread["status"] == "interrupted"
    assert [each["value"] for task in thread["interrupts"].values() for each in task] == [{"q": "Q?"}]
    answered = api.post(
        f"/threads/{thread_id}/runs/wait", json={"assistant_id": "ask", "command": {"resume": "Ada"}}
    )
    assert answered.json()["answer"] == "Thank you, Ada."
    assert api.get(f"/threads/{thread_id}").json()["status"] == "idle"


def test_state_is_read_at_any_checkpoint_and_listed_and_changed(api: httpx.Client, thread_id: str) -> None:
    api.post(
        f"/threads/{thread_id}/runs/wait", json={"assistant_id": "slow", "input": {"delay": 0, "steps": 2}}
    )
    assert len(api.get(f"/threads/{thread_id}/history").json()) == 1
    history = api.post(f"/threads/{thread_id}/history", json={"limit": 10}).json()
    assert [each["values"].get("done") for each in history][:3] == [2, 1, 0]
    second = history[1]
    by_id = api.get(f"/threads/{thread_id}/state/{second['checkpoint_id']}").json()
    by_checkpoint = api.post(
        f"/threads/{thread_id}/state/checkpoint", json={"checkpoint": second["checkpoint"]}
    ).json()
    assert by_id["values"] == by_checkpoint["values"] == second["values"]
    for before in (
        history[0]["checkpoint_id"],
        {"checkpoint_id": history[0]["checkpoint_id"]},
        {"configurable": {"checkpoint_id": history[0]["checkpoint_id"]}},
    ):
        older = api.post(f"/threads/{thread_id}/history", json={"before": before}).json()
        assert [each["checkpoint_id"] for each in older] == [second["checkpoint_id"]]
    for unknown in ("abc", str(uuid4())):
        nothing = api.get(f"/threads/{thread_id}/state/{unknown}").json()
        assert (nothing["values"], nothing["next"], nothing["checkpoint"]["checkpoint_id"]) == (
            {},
            [],
            unknown,
        )
    written = api.post(f"/threads/{thread_id}/state", json={"values": {"done": 7}, "as_node": "step"})
    assert written.status_code == 200
    state = api.get(f"/threads/{thread_id}/state").json()
    assert state["values"]["done"] == 7
    assert state["checkpoint"]["checkpoint_id"] == written.json()["checkpoint"]["checkpoint_id"]
    assert (
        api.post(f"/threads/{thread_id}/state", json={"values": {}, "as_node": "nonode"}).status_code == 400
    )


@covers("POST /threads/{thread_id}/history", "422")
def test_a_history_has_bounds(api: httpx.Client, thread_id: str) -> None:
    assert api.get(f"/threads/{thread_id}/history?limit=0").status_code == 422
    assert api.get(f"/threads/{thread_id}/history?limit=abc").status_code == 400
    assert api.post(f"/threads/{thread_id}/history", json={"limit": 1001}).status_code == 422


@pytest.mark.parametrize("before", [{"nothing": 1}, {"configurable": {}}, {"checkpoint_id": 5}])
def test_a_history_ends_before_a_checkpoint_also_where_there_is_none_yet(
    api: httpx.Client, thread_id: str, before: dict[str, object]
) -> None:
    refused = api.post(f"/threads/{thread_id}/history", json={"before": before})
    assert (refused.status_code, refused.json()["detail"]) == (400, "before must name a checkpoint_id")
