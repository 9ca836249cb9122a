from __future__ import annotations

from itertools import pairwise
from uuid import uuid4

import httpx
import pytest

from tests.wire.compatibility import covers
from tests.wire.sdks import KINDS, Refused, Sdk

SELECTING = [kind for kind in KINDS if kind != "js-2.0"]
"""The clients that can say which fields of a state they want."""


@pytest.fixture
def ran(sdk: Sdk) -> str:
    """A thread that the slow graph ran on, in two steps: five checkpoints."""
    thread_id: str = sdk("threads.create")["thread_id"]
    sdk("runs.wait", thread_id, "slow", input={"delay": 0, "steps": 2})
    return thread_id


@covers("GET /threads/{thread_id}/state", "no checkpoints")
def test_a_thread_that_nothing_ran_on_has_an_empty_state(sdk: Sdk) -> None:
    thread_id = sdk("threads.create")["thread_id"]
    assert sdk("threads.get_state", thread_id) == {
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
    assert sdk("threads.get_history", thread_id) == []


@covers("GET /threads/{thread_id}/state", "200")
@covers("ThreadState", "metadata", "*")
def test_the_state_is_what_the_run_left(sdk: Sdk, ran: str) -> None:
    state = sdk("threads.get_state", ran)
    assert state["values"] == {"delay": 0, "steps": 2, "done": 2}
    assert (state["next"], state["tasks"], state["interrupts"]) == ([], [], [])
    [run] = sdk("runs.list", ran)
    about = {"source": "loop", "step": 3, "graph_id": "slow", "run_id": run["run_id"]}
    assert state["metadata"].items() >= about.items()
    assert state["checkpoint"]["thread_id"] == ran
    assert state["checkpoint"]["checkpoint_ns"] == ""
    assert state["checkpoint_id"] == state["checkpoint"]["checkpoint_id"]
    assert state["parent_checkpoint_id"] == state["parent_checkpoint"]["checkpoint_id"]
    assert state["created_at"].endswith("+00:00")


@covers("POST /threads/{thread_id}/history", "200")
@covers("History", "limit", "metadata")
def test_the_history_leads_back_to_the_input(sdk: Sdk, ran: str) -> None:
    history = sdk("threads.get_history", ran)
    assert [state["metadata"]["source"] for state in history] == [*["loop"] * 4, "input"]
    assert [state["values"].get("done") for state in history] == [2, 1, 0, None, None]
    for state, parent in pairwise(history):
        assert state["parent_checkpoint"] == parent["checkpoint"]
    assert len(sdk("threads.get_history", ran, limit=2)) == 2
    inputs = sdk("threads.get_history", ran, metadata={"source": "input"})
    assert [state["checkpoint_id"] for state in inputs] == [history[-1]["checkpoint_id"]]


@covers("History", "before")
@covers("Defects", "a history before a checkpoint is a 500")
def test_a_history_goes_on_before_a_checkpoint_in_every_form_that_clients_send(sdk: Sdk, ran: str) -> None:
    ids = [state["checkpoint_id"] for state in sdk("threads.get_history", ran)]
    for before in (
        ids[1],
        {"checkpoint_id": ids[1]},
        {"configurable": {"checkpoint_id": ids[1]}},
        {"thread_id": ran, "checkpoint_ns": "", "checkpoint_id": ids[1]},
    ):
        found = sdk("threads.get_history", ran, before=before)
        assert [state["checkpoint_id"] for state in found] == ids[2:]


@covers("GET /threads/{thread_id}/history", "200", "?limit", "?before")
@covers("History", "limit")
def test_a_history_is_one_state_long_by_default(http: httpx.Client) -> None:
    thread_id = http.post("/threads", json={}).json()["thread_id"]
    http.post(
        f"/threads/{thread_id}/runs/wait", json={"assistant_id": "slow", "input": {"delay": 0, "steps": 2}}
    )
    [newest] = http.get(f"/threads/{thread_id}/history").json()
    assert http.post(f"/threads/{thread_id}/history", json={}).json() == [newest]
    before = http.get(f"/threads/{thread_id}/history", params={"before": newest["checkpoint_id"], "limit": 9})
    assert [state["values"].get("done") for state in before.json()] == [1, 0, None, None]


@covers("GET /threads/{thread_id}/state/{checkpoint_id}", "200")
@covers("POST /threads/{thread_id}/state/checkpoint", "200")
@covers("StateAt", "checkpoint")
@covers("Checkpoint", "checkpoint_id")
def test_the_state_at_a_checkpoint_can_be_read(sdk: Sdk, ran: str) -> None:
    former = sdk("threads.get_history", ran)[1]
    for at in ({"checkpoint_id": former["checkpoint_id"]}, {"checkpoint": former["checkpoint"]}):
        state = sdk("threads.get_state", ran, **at)
        assert state["values"]["done"] == 1
        assert state["next"] == ["step"]
        assert state["checkpoint_id"] == former["checkpoint_id"]


@covers("GET /threads/{thread_id}/state/{checkpoint_id}", "unknown checkpoint")
def test_an_unknown_checkpoint_is_an_empty_state(sdk: Sdk, ran: str) -> None:
    for unknown in (str(uuid4()), "abc"):
        state = sdk("threads.get_state", ran, checkpoint_id=unknown)
        assert (state["values"], state["next"], state["created_at"]) == ({}, [], None)


@covers("POST /threads/{thread_id}/state", "200")
@covers("StateUpdate", "values", "as_node")
@covers("StateUpdated", "checkpoint", "configurable", "checkpoint_id")
def test_a_state_is_changed_as_if_by_a_node(sdk: Sdk, ran: str) -> None:
    before = sdk("threads.get_state", ran)
    changed = sdk("threads.update_state", ran, values={"done": 7}, as_node="step")
    state = sdk("threads.get_state", ran)
    assert changed["checkpoint"] == state["checkpoint"]
    assert changed["checkpoint_id"] == state["checkpoint_id"] != before["checkpoint_id"]
    assert changed["configurable"]["checkpoint_id"] == state["checkpoint_id"]
    assert state["values"]["done"] == 7
    assert state["metadata"]["source"] == "update"
    thread = sdk("threads.get", ran)
    assert thread["values"]["done"] == 7
    assert thread["status"] == "idle"


@covers("Thread", "status after an interrupt")
@covers("RunCreate", "input")
def test_a_state_that_leaves_work_to_do_interrupts_the_thread_and_a_run_goes_on_from_it(
    sdk: Sdk, ran: str
) -> None:
    sdk("threads.update_state", ran, values={"done": 0}, as_node="begin")
    assert sdk("threads.get", ran)["status"] == "interrupted"
    assert sdk("threads.get_state", ran)["next"] == ["step"]
    assert sdk("runs.wait", ran, "slow")["done"] == 2
    assert sdk("threads.get", ran)["status"] == "idle"


@covers("StateUpdate", "checkpoint_id")
@covers("RunOnThread", "checkpoint_id")
def test_a_former_checkpoint_can_be_forked(sdk: Sdk, ran: str) -> None:
    former = sdk("threads.get_history", ran)[1]
    sdk("threads.update_state", ran, values={"steps": 3}, checkpoint_id=former["checkpoint_id"])
    assert sdk("threads.get_state", ran)["parent_checkpoint_id"] == former["checkpoint_id"]
    again = sdk(
        "runs.wait", ran, "slow", input={"delay": 0, "steps": 1}, checkpoint_id=former["checkpoint_id"]
    )
    assert again["done"] == 1


@covers("POST /threads/{thread_id}/state", "400 no graph", "400 no node")
def test_a_state_of_no_graph_or_by_no_node_is_refused(sdk: Sdk, ran: str) -> None:
    with pytest.raises(Refused, match="has no assigned graph ID") as refused:
        sdk("threads.update_state", sdk("threads.create")["thread_id"], values={"done": 1})
    assert refused.value.status == 400
    with pytest.raises(Refused, match="Node nonode does not exist") as refused:
        sdk("threads.update_state", ran, values={"done": 1}, as_node="nonode")
    assert refused.value.status == 400


@covers("POST /threads/{thread_id}/state", "409")
@covers("Defects", "a conflict tells what runs were called with")
def test_a_state_is_not_changed_under_a_run(sdk: Sdk) -> None:
    thread_id = sdk("threads.create")["thread_id"]
    run = sdk("runs.create", thread_id, "slow", input={"delay": 30})
    with pytest.raises(Refused) as refused:
        sdk("threads.update_state", thread_id, values={"done": 1}, as_node="step")
    assert refused.value.status == 409
    assert "kwargs" not in refused.value.text
    sdk("runs.cancel", thread_id, run["run_id"], wait=True)


@covers("GET /threads/{thread_id}/state", "?subgraphs")
@covers("ThreadState", "tasks", "tasks[].checkpoint", "tasks[].state")
@covers("StateAt", "checkpoint")
@covers("Checkpoint", "thread_id", "checkpoint_ns", "checkpoint_map")
def test_the_state_of_a_subgraph_can_be_read(sdk: Sdk) -> None:
    thread_id = sdk("threads.create")["thread_id"]
    sdk("runs.wait", thread_id, "inner", input={"x": 1})
    plain = sdk("threads.get_state", thread_id)
    deep = sdk("threads.get_state", thread_id, subgraphs=True)
    for state in (plain, deep):
        assert (state["values"], state["next"]) == ({"x": 1}, ["child"])
    [task] = plain["tasks"]
    namespace = f"child:{task['id']}"
    assert task["checkpoint"] == {"thread_id": thread_id, "checkpoint_ns": namespace}
    assert task["state"] is None
    [task] = deep["tasks"]
    child = task["state"]
    assert task["checkpoint"] is None
    assert (child["values"], child["next"]) == ({"x": 2}, ["ask"])
    assert child["checkpoint"]["checkpoint_ns"] == namespace
    assert [each["value"] for each in child["interrupts"]] == ["Who?"]
    alone = sdk("threads.get_state", thread_id, checkpoint=child["checkpoint"])
    assert (alone["values"], alone["checkpoint"]) == (child["values"], child["checkpoint"])


@covers("GET /threads/{thread_id}/state", "404")
@covers("GET /threads/{thread_id}/state/{checkpoint_id}", "404")
@covers("POST /threads/{thread_id}/state/checkpoint", "404")
@covers("POST /threads/{thread_id}/state", "404")
@covers("POST /threads/{thread_id}/history", "404")
def test_states_of_a_thread_that_is_not_there_are_not_found(sdk: Sdk) -> None:
    unknown = str(uuid4())
    for call, options in (
        ("get_state", {}),
        ("get_state", {"checkpoint_id": str(uuid4())}),
        ("get_state", {"checkpoint": {"checkpoint_id": str(uuid4())}}),
        ("update_state", {"values": {}}),
        ("get_history", {}),
    ):
        with pytest.raises(Refused) as refused:
            sdk(f"threads.{call}", unknown, **options)
        assert refused.value.status == 404


@covers("StateAt", "select")
@covers("History", "select")
@covers("GET /threads/{thread_id}/state", "?select")
@pytest.mark.parametrize("sdk", SELECTING, indirect=True)
def test_a_state_is_cut_to_what_is_selected(sdk: Sdk, ran: str) -> None:
    whole = sdk("threads.get_state", ran)
    former = sdk("threads.get_history", ran)[1]
    only_done = {"next": [], "values": {"done": 2}}
    assert sdk("threads.get_state", ran, select=["next", "values.done"]) == only_done
    assert sdk("threads.get_state", ran, select=["values.done", "values"]) == {"values": whole["values"]}
    for at in ({"checkpoint_id": former["checkpoint_id"]}, {"checkpoint": former["checkpoint"]}):
        state = sdk("threads.get_state", ran, select=["values.done", "values.zzz", "checkpoint"], **at)
        assert state == {"values": {"done": 1}, "checkpoint": former["checkpoint"]}
    history = sdk("threads.get_history", ran, select=["values.done"])
    assert [state["values"].get("done") for state in history] == [2, 1, 0, None, None]
    assert {tuple(state) for state in history} == {("values",)}
    fresh = sdk("threads.create")["thread_id"]
    assert sdk("threads.get_state", fresh, select=["next", "values.x"]) == {"next": [], "values": {}}
    with pytest.raises(Refused, match="Cannot select 'zzz'") as refused:
        sdk("threads.get_state", ran, select=["zzz"])
    assert refused.value.status == 422


@covers("GET /threads/{thread_id}/state/{checkpoint_id}", "?select")
@covers("GET /threads/{thread_id}/history", "?select")
def test_what_is_selected_is_said_in_any_form(http: httpx.Client) -> None:
    thread_id = http.post("/threads", json={}).json()["thread_id"]
    http.post(f"/threads/{thread_id}/runs/wait", json={"assistant_id": "slow", "input": {"delay": 0}})
    expected = {"values": {"done": 1}, "next": []}
    for asked in (
        "select=values.done&select=next",
        "select=values.done,next",
        'select=["values.done","next"]',
    ):
        assert http.get(f"/threads/{thread_id}/state?{asked}").json() == expected, asked
        assert http.get(f"/threads/{thread_id}/history?{asked}").json() == [expected], asked
    for wrong in ("select=values.", 'select=["next"', "select=[5]", "select=valuesx"):
        for path in ("state", "state/abc", "history"):
            assert http.get(f"/threads/{thread_id}/{path}?{wrong}").status_code == 422, (path, wrong)
    at = {"checkpoint": {"checkpoint_id": "abc"}}
    for body in ({**at, "select": ["zzz"]}, {**at, "select": "next"}, {**at, "select": [5]}):
        assert http.post(f"/threads/{thread_id}/state/checkpoint", json=body).status_code == 422, body
    forms: list[object] = [5, [], {"checkpoint_id": 5}, {"zzz": 1}, {"configurable": 5}]
    for before in forms:
        asked_for = {"before": before}
        assert http.post(f"/threads/{thread_id}/history", json=asked_for).status_code in (400, 422), before


@covers("PATCH /threads/{thread_id}/state", "204")
@covers("StatePatch", "metadata")
@pytest.mark.parametrize("sdk", ["js-1.15", "js-2.0"], indirect=True)
def test_metadata_is_merged_into_a_thread_and_its_state(sdk: Sdk, ran: str) -> None:
    former = sdk("threads.get_state", ran)
    for metadata in ({"mine": 1, "other": {"x": 1}}, {"other": {"y": 2}, "run_id": "zzz"}):
        assert sdk("threads.patch_state", ran, metadata) is None
    expected = {"mine": 1, "other": {"y": 2}}
    thread = sdk("threads.get", ran)
    assert thread["metadata"].items() >= {**expected, "run_id": "zzz"}.items()
    state = sdk("threads.get_state", ran)
    assert state == {**former, "metadata": {**former["metadata"], **expected}}
    fresh = sdk("threads.create")["thread_id"]
    sdk("threads.patch_state", {"configurable": {"thread_id": fresh}}, {"a": 1})
    assert sdk("threads.get", fresh)["metadata"] == {"a": 1}
    with pytest.raises(Refused) as refused:
        sdk("threads.patch_state", str(uuid4()), {})
    assert refused.value.status == 404


def test_metadata_is_not_merged_under_a_run_nor_anything_else(http: httpx.Client) -> None:
    thread_id = http.post("/threads", json={}).json()["thread_id"]
    path = f"/threads/{thread_id}/state"
    slow = {"assistant_id": "slow", "input": {"delay": 600}}
    run_id = http.post(f"/threads/{thread_id}/runs", json=slow).json()["run_id"]
    assert http.patch(path, json={"metadata": {"a": 1}}).status_code == 409
    http.post(f"/threads/{thread_id}/runs/{run_id}/cancel?wait=1").raise_for_status()
    assert http.patch(path, json={"metadata": {"a": 1}}).status_code == 204
    refused: list[object] = [{}, {"metadata": None}, {"metadata": 5}, []]
    for wrong in refused:
        assert http.patch(path, json=wrong).status_code == 422, wrong


@covers("GET /threads/{thread_id}/storage", "200")
@covers("Storage", "*")
@covers("Taken", "*")
@covers("ValuesTaken", "*")
@covers("ChannelTaken", "*")
def test_a_thread_says_what_its_state_takes(http: httpx.Client) -> None:
    thread_id = http.post("/threads", json={}).json()["thread_id"]
    nothing = {"count": 0, "bytes": 0}
    assert http.get(f"/threads/{thread_id}/storage").json() == {
        "thread_id": thread_id,
        "total_bytes": 0,
        "checkpoints": nothing,
        "channel_values": {**nothing, "by_channel": {}},
        "pending_writes": nothing,
    }
    said = {"messages": [{"role": "user", "content": "x" * 1000}]}
    http.post(f"/threads/{thread_id}/runs/wait", json={"assistant_id": "echo", "input": said})
    taken = http.get(f"/threads/{thread_id}/storage").json()
    history = http.post(f"/threads/{thread_id}/history", json={"limit": 100}).json()
    assert taken["checkpoints"]["count"] == len(history)
    channels = taken["channel_values"]["by_channel"]
    assert channels["messages"]["versions"] >= 2
    assert channels["messages"]["bytes"] > 3000  # the question, and then the question with its answer
    assert taken["channel_values"]["count"] == sum(each["versions"] for each in channels.values())
    assert taken["channel_values"]["bytes"] == sum(each["bytes"] for each in channels.values())
    assert taken["pending_writes"]["count"] > 0
    parts = ("checkpoints", "channel_values", "pending_writes")
    assert taken["total_bytes"] == sum(taken[part]["bytes"] for part in parts)
    assert http.get(f"/threads/{uuid4()}/storage").status_code == 404
    assert http.get("/threads/abc/storage").status_code == 422


def test_the_state_of_a_subgraph_can_be_changed_and_its_history_read(sdk: Sdk) -> None:
    thread_id = sdk("threads.create")["thread_id"]
    sdk("runs.wait", thread_id, "inner", input={"x": 1})
    [task] = sdk("threads.get_state", thread_id, subgraphs=True)["tasks"]
    child = task["state"]
    place = {"checkpoint_ns": child["checkpoint"]["checkpoint_ns"]}
    history = sdk("threads.get_history", thread_id, checkpoint=place)
    assert [state["values"] for state in history] == [{"x": 2}, {"x": 1}, {}]
    older = sdk("threads.get_history", thread_id, checkpoint=place, before=history[0]["checkpoint"])
    assert [state["checkpoint_id"] for state in older] == [state["checkpoint_id"] for state in history[1:]]
    written = sdk("threads.update_state", thread_id, values={"x": 5}, checkpoint=child["checkpoint"])
    assert written["checkpoint"]["checkpoint_ns"] == place["checkpoint_ns"]
    [task] = sdk("threads.get_state", thread_id, subgraphs=True)["tasks"]
    assert (task["state"]["values"], task["state"]["next"]) == ({"x": 5}, ["ask"])
    assert sdk("threads.get", thread_id)["status"] == "interrupted"
    assert sdk("runs.wait", thread_id, "inner", command={"resume": "Ada"}) == {"x": 5, "answer": "Ada"}
