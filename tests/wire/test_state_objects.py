"""States as they look: their keys, their tasks, and what stands in both of subgraphs."""

from __future__ import annotations

from uuid import UUID

import httpx
import pytest

from matins import __version__
from tests.wire.compatibility import covers
from tests.wire.sdks import Sdk


@pytest.fixture
def thread(sdk: Sdk) -> str:
    thread_id: str = sdk("threads.create")["thread_id"]
    return thread_id


@covers("ThreadState", "the keys", "tasks[]", "interrupts", "metadata")
def test_a_state_has_the_keys_of_the_contract(sdk: Sdk, thread: str) -> None:
    sdk("runs.wait", thread, "ask", input={"question": "Who?"}, metadata={"mine": 1})
    state = sdk("threads.get_state", thread)
    assert list(state) == [
        *("values", "next", "tasks", "metadata", "created_at", "checkpoint", "parent_checkpoint"),
        *("interrupts", "checkpoint_id", "parent_checkpoint_id"),
    ]
    assert list(state["checkpoint"]) == ["checkpoint_id", "thread_id", "checkpoint_ns"]
    [task] = state["tasks"]
    assert list(task) == ["id", "name", "path", "error", "interrupts", "checkpoint", "state", "result"]
    [asked] = task.pop("interrupts")
    assert (list(asked), asked["value"], len(asked["id"])) == (["id", "value"], {"q": "Who?"}, 32)
    assert state["interrupts"] == [asked]
    assert (task.pop("id"), task) == (
        next(iter(sdk("threads.get", thread)["interrupts"])),
        {
            "name": "ask",
            "path": ["__pregel_pull", "ask"],
            "error": None,
            "checkpoint": None,
            "state": None,
            "result": None,
        },
    )
    [run] = sdk("runs.list", thread)
    about = state["metadata"]
    assert about.pop("langgraph_version")
    assert about == {
        "created_by": "system",
        "langgraph_auth_user_id": "",
        "mine": 1,
        "graph_id": "ask",
        "assistant_id": run["assistant_id"],
        "run_attempt": 1,
        "matins_version": __version__,
        "run_id": run["run_id"],
        "user_id": "",
        "source": "loop",
        "step": 0,
        "parents": {},
    }


@covers("ThreadState", "tasks[].error")
def test_a_task_that_failed_tells_its_exception(sdk: Sdk, thread: str) -> None:
    sdk("runs.wait", thread, "failing", input={"x": 1}, raise_error=False)
    [task] = sdk("threads.get_state", thread)["tasks"]
    assert (task["name"], task["error"]) == ("fail", "ValueError('boom happened')")


@covers("ThreadState", "tasks[]")
def test_a_task_that_is_done_tells_what_it_gave(sdk: Sdk, thread: str) -> None:
    sdk("runs.wait", thread, "events", input={"n": 1})
    [_, before, _] = sdk("threads.get_history", thread)
    assert [(task["name"], task["result"]) for task in before["tasks"]] == [("work", {"written": 1})]


@covers("Thread", "interrupts")
@covers("ThreadState", "interrupts")
def test_what_a_subgraph_asks_stands_under_its_parents_task(sdk: Sdk, thread: str) -> None:
    sdk("runs.wait", thread, "inner", input={"x": 1})
    state = sdk("threads.get_state", thread)
    [task] = state["tasks"]
    assert sdk("threads.get", thread)["interrupts"] == {task["id"]: task["interrupts"]}
    assert state["interrupts"] == task["interrupts"]


@covers("Thread", "interrupts")
def test_a_breakpoint_asks_nothing(sdk: Sdk, thread: str) -> None:
    sdk("runs.wait", thread, "ask", input={"question": "Who?"}, interrupt_before=["ask"])
    assert sdk("threads.get", thread)["interrupts"] == {}
    assert sdk("threads.get_state", thread)["interrupts"] == []


@covers("StateAt", "subgraphs")
@covers("GET /threads/{thread_id}/state/{checkpoint_id}", "?subgraphs")
def test_the_state_of_a_subgraph_stands_in_a_state_of_any_time(sdk: Sdk, thread: str) -> None:
    sdk("runs.wait", thread, "inner", input={"x": 1})
    at = sdk("threads.get_state", thread)["checkpoint"]
    for where in ({"checkpoint": at}, {"checkpoint_id": at["checkpoint_id"]}):
        [task] = sdk("threads.get_state", thread, subgraphs=True, **where)["tasks"]
        assert (task["checkpoint"], task["state"]["values"]) == (None, {"x": 2})
        [task] = sdk("threads.get_state", thread, **where)["tasks"]
        assert (task["checkpoint"]["checkpoint_ns"], task["state"]) == (f"child:{task['id']}", None)


@covers("History", "checkpoint")
@covers("Checkpoint", "checkpoint_map")
def test_the_history_of_a_subgraph_can_be_read(sdk: Sdk, thread: str) -> None:
    sdk("runs.wait", thread, "inner", input={"x": 1})
    root = sdk("threads.get_state", thread, subgraphs=True)
    [task] = root["tasks"]
    inside = task["state"]["checkpoint"]
    namespace = inside["checkpoint_ns"]
    assert inside["checkpoint_map"] == {
        "": root["checkpoint_id"],
        namespace: inside["checkpoint_id"],
    }
    history = sdk("threads.get_history", thread, checkpoint={"checkpoint_ns": namespace})
    assert [state["values"].get("x") for state in history] == [2, 1, None][: len(history)]
    assert {state["checkpoint"]["checkpoint_ns"] for state in history} == {namespace}


@covers("StateUpdate", "checkpoint")
def test_a_state_is_changed_at_a_checkpoint_in_either_form(sdk: Sdk, thread: str) -> None:
    sdk("runs.wait", thread, "events", input={"n": 1})
    first = sdk("threads.get_history", thread)[-1]["checkpoint"]
    changed = sdk("threads.update_state", thread, values={"n": 5}, as_node="__start__", checkpoint=first)
    state = sdk("threads.get_state", thread)
    assert state["checkpoint"] == changed["checkpoint"]
    assert state["parent_checkpoint"] == first
    assert (state["values"], state["next"]) == ({"n": 5}, ["work"])


@covers("StateUpdate", "values")
def test_a_change_of_nothing_is_a_checkpoint_too(http: httpx.Client) -> None:
    thread_id = http.post("/threads", json={}).json()["thread_id"]
    http.post(f"/threads/{thread_id}/runs/wait", json={"assistant_id": "events", "input": {"n": 1}})
    place = f"/threads/{thread_id}/state"
    for body in ({}, {"values": None}, {"values": {}, "as_node": "work"}):
        before = http.get(place).json()
        response = http.post(place, json=body)
        assert response.status_code == 200
        after = http.get(place).json()
        assert after["values"] == before["values"]
        assert after["checkpoint_id"] == response.json()["checkpoint_id"] != before["checkpoint_id"]


@covers("Requests and answers", "ids of checkpoints")
def test_ids_of_checkpoints_sort_by_time(sdk: Sdk, thread: str) -> None:
    sdk("runs.wait", thread, "slow", input={"delay": 0, "steps": 3})
    ids = [state["checkpoint_id"] for state in sdk("threads.get_history", thread)]
    assert {UUID(each).version for each in ids} == {6}
    assert ids == sorted(ids, reverse=True)
