"""What can be said of a run when it is created, field by field."""

from __future__ import annotations

import time
from typing import Any
from uuid import uuid4

import httpx
import pytest

from matins.api.wire.runs import RunCreate
from matins.domain.ids import system_assistant_id
from tests.wire.compatibility import covers
from tests.wire.sdks import Refused, Sdk

SAID = {"messages": [{"role": "user", "content": "hi"}]}


@pytest.fixture
def thread(sdk: Sdk) -> str:
    thread_id: str = sdk("threads.create")["thread_id"]
    return thread_id


@covers("RunCreate", "command", "command.resume")
@covers("Run", "status of a question")
@covers("Defects", "a run that asked something is a success")
def test_a_run_is_resumed_by_a_command(sdk: Sdk, thread: str) -> None:
    answer = sdk("runs.wait", thread, "ask", input={"question": "Who?"})
    [asked] = answer["__interrupt__"]
    [run] = sdk("runs.list", thread)
    assert run["status"] == "success"
    assert sdk("runs.join", thread, run["run_id"]) == answer
    done = sdk("runs.wait", thread, "ask", command={"resume": {asked["id"]: "Ada"}})
    assert done["answer"] == "Thank you, Ada."


@covers("RunCreate", "interrupt_before", "input")
@covers("What wait and join answer", "at a breakpoint")
@covers("Thread", "status after an interrupt")
def test_a_run_stops_before_a_node_and_another_goes_on(sdk: Sdk, thread: str) -> None:
    stopped = sdk("runs.wait", thread, "ask", input={"question": "Who?"}, interrupt_before=["ask"])
    assert stopped == {"question": "Who?"}
    assert sdk("threads.get", thread)["status"] == "interrupted"
    assert sdk("runs.wait", thread, "ask")["__interrupt__"][0]["value"] == {"q": "Who?"}


@covers("RunCreate", "command.update", "command.goto")
def test_a_command_goes_to_a_node_and_updates_the_state(sdk: Sdk, thread: str) -> None:
    sdk("runs.wait", thread, "ask", input={"question": "Who?"})
    sdk("runs.wait", thread, "ask", command={"resume": "Ada"})
    done = sdk("runs.wait", thread, "ask", command={"update": {"answer": "Bob"}, "goto": "thank"})
    assert done["answer"] == "Thank you, Bob."


@covers("RunCreate", "context")
def test_a_graph_gets_its_context_and_configuration(sdk: Sdk, thread: str) -> None:
    run = sdk("runs.create", thread, "echo", input=SAID, context={"a": 1})
    assert run["kwargs"]["config"]["configurable"]["a"] == 1
    with pytest.raises(Refused, match="Cannot specify both") as refused:
        sdk("runs.create", thread, "echo", input=SAID, context={"a": 1}, config={"configurable": {"a": 2}})
    assert refused.value.status == 400
    sdk("runs.join", thread, run["run_id"])


@covers("RunCreate", "context", "config")
@covers("Config", "configurable")
def test_a_graph_that_takes_a_context_gets_it_in_either_form(sdk: Sdk, thread: str) -> None:
    for options, tone in (
        ({}, "plain"),
        ({"context": {"tone": "kind"}}, "kind"),
        ({"config": {"configurable": {"tone": "kind"}}}, "kind"),
        ({"config": {"configurable": {"tone": "kind", "other": 1}}}, "kind"),
    ):
        assert sdk("runs.wait", thread, "strict", input={}, **options) == {"tone": tone}


@covers("RunCreate", "after_seconds")
@covers("Thread", "status while runs wait")
def test_a_run_starts_later_when_that_is_asked(sdk: Sdk, thread: str) -> None:
    late = sdk("runs.create", thread, "events", input={"n": 1}, after_seconds=3600)["run_id"]
    assert sdk("threads.get", thread)["status"] == "busy"
    assert sdk("runs.get", thread, late)["status"] == "pending"
    sdk("runs.cancel", thread, late)
    began = time.monotonic()
    soon = sdk("runs.create", thread, "events", input={"n": 1}, after_seconds=1)["run_id"]
    assert sdk("runs.join", thread, soon)["written"] == 1
    assert time.monotonic() - began > 0.9


@covers("Config", "recursion_limit")
def test_a_run_of_too_many_steps_is_told_its_limit(sdk: Sdk, thread: str) -> None:
    answer = sdk(
        "runs.wait",
        thread,
        "slow",
        input={"delay": 0, "steps": 9},
        config={"recursion_limit": 3},
        raise_error=False,
    )
    assert answer["__error__"]["error"] == "GraphRecursionError"
    assert "3" in answer["__error__"]["message"]


@covers("RunCreate", "durability")
@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
def test_every_durability_leaves_the_same_state(sdk: Sdk, thread: str, durability: str) -> None:
    sdk("runs.wait", thread, "slow", input={"delay": 0, "steps": 2}, durability=durability)
    assert sdk("threads.get_state", thread)["values"]["done"] == 2
    kept = len(sdk("threads.get_history", thread))
    assert kept == (1 if durability == "exit" else 5)


EVERYTHING: dict[str, Any] = {
    "assistant_id": "told",
    "input": {},
    "command": {"update": {"told": {}}, "goto": "tell"},
    "metadata": {"mine": 1},
    "config": {
        "tags": ["t"],
        "recursion_limit": 7,
        "configurable": {"c": 1},
        "metadata": {"also": 1},
        "run_name": "named",
        "max_concurrency": 3,
    },
    "interrupt_before": ["nobody"],
    "interrupt_after": ["nobody"],
    "stream_mode": ["updates", "custom"],
    "stream_subgraphs": True,
    "stream_resumable": True,
    "feedback_keys": ["stars"],
    "on_disconnect": "cancel",
    "after_seconds": 0.001,
    "checkpoint_during": False,
}


@covers("RunCreate", "every endpoint")
@covers("Config", "run_name")
@covers("POST /runs/stream", "200")
def test_every_field_is_taken_alike_by_every_endpoint(http: httpx.Client) -> None:
    elsewhere = {
        "context",
        "webhook",
        "durability",
    }  # not beside `configurable`, not here, not beside the other
    assert EVERYTHING.keys() | elsewhere == set(RunCreate.__struct_fields__)
    thread_id = http.post("/threads", json={}).json()["thread_id"]
    taken = []
    for place in (f"/threads/{thread_id}/runs", "/runs"):
        kept = EVERYTHING if place != "/runs" else {**EVERYTHING, "on_completion": "keep"}
        runs = [http.post(place, json=kept).json()]
        if place == "/runs":
            runs += http.post("/runs/batch", json=[kept]).json()
        for how in ("wait", "stream"):
            location = http.post(f"{place}/{how}", json=kept).headers["content-location"]
            runs.append({"run_id": location.rpartition("/")[2]})
        for run in runs:
            http.get(f"/runs/{run['run_id']}/join").raise_for_status()
            stored = http.get(f"/runs/{run['run_id']}").json()
            taken.append({key: stored[key] for key in ("status", "metadata", "kwargs", "multitask_strategy")})
    assert taken == [taken[0]] * 7
    kwargs = taken[0]["kwargs"]
    assert (
        kwargs.items()
        >= {
            "input": {},
            "command": EVERYTHING["command"],
            "config": EVERYTHING["config"],
            "interrupt_before": ["nobody"],
            "interrupt_after": ["nobody"],
            "stream_mode": ["updates", "custom"],
            "feedback_keys": ["stars"],
            "durability": "exit",
            "temporary": False,
        }.items()
    )
    assert taken[0]["status"] == "success"


@covers("Config", "tags", "recursion_limit", "configurable", "metadata", "max_concurrency")
@covers("RunCreate", "config", "metadata")
def test_a_graph_is_told_what_its_run_was_configured_with(sdk: Sdk, thread: str) -> None:
    config = {**EVERYTHING["config"], "configurable": {"c": 1, "__pregel_checkpointer": "mine"}}
    told = sdk("runs.wait", thread, "told", input={}, config=config, metadata={"mine": 1})["told"]
    assert (told["tags"], told["recursion_limit"], told["max_concurrency"]) == (["t"], 7, 3)
    assert told["configurable"]["c"] == 1
    assert told["metadata"].items() >= {"mine": 1, "also": 1, "graph_id": "told", "run_attempt": 1}.items()


@covers("RunCreate", "config", "assistant_id")
def test_a_run_is_configured_over_its_assistant(sdk: Sdk) -> None:
    base = {"configurable": {"a": 1, "b": 1}, "tags": ["of"], "recursion_limit": 9}
    place = sdk("assistants.create", graph_id="told", config=base)["assistant_id"]
    config = {"configurable": {"b": 2}, "tags": ["run"], "recursion_limit": 8}
    for assistant, tags, limit in ((place, ["of", "run"], 8), ("told", ["run"], 8)):
        told = sdk("runs.wait", None, assistant, input={}, config=config)["told"]
        assert (told["tags"], told["recursion_limit"]) == (tags, limit)
        assert told["configurable"].get("a") == (1 if assistant == place else None)
        assert told["configurable"]["b"] == 2
    assert sdk("runs.create", None, str(system_assistant_id("told")), input={})["status"] == "pending"


@covers("RunCreate", "input")
def test_nothing_is_no_input_for_a_thread_that_nothing_ran_on(sdk: Sdk, thread: str) -> None:
    answer = sdk("runs.wait", thread, "events", input=None, raise_error=False)
    assert answer["__error__"] == {
        "error": "EmptyInputError",
        "message": "Received no input for __start__",
    }


@covers("RunCreate", "command")
def test_a_command_goes_before_the_input_and_an_empty_one_goes_on(sdk: Sdk, thread: str) -> None:
    sdk("runs.wait", thread, "ask", input={"question": "Who?"})
    options = {"input": {"question": "What?"}, "command": {"resume": "Ada"}}
    assert sdk("runs.wait", thread, "ask", **options)["answer"] == "Thank you, Ada."
    sdk("runs.wait", thread, "ask", input={"question": "Who?"}, interrupt_before=["ask"])
    assert sdk("runs.wait", thread, "ask", command={})["__interrupt__"][0]["value"] == {"q": "Who?"}


@covers("RunCreate", "command.resume")
@covers("What wait and join answer", "__interrupt__")
def test_of_two_questions_each_is_answered_by_its_id(sdk: Sdk, thread: str) -> None:
    asked = sdk("runs.wait", thread, "pair", input={})["__interrupt__"]
    assert sorted(each["value"] for each in asked) == ["Left?", "Right?"]
    wrong = sdk("runs.wait", thread, "pair", command={"resume": "x"}, raise_error=False)
    assert wrong["__error__"]["error"] == "RuntimeError"
    assert "you must specify the interrupt id when resuming" in wrong["__error__"]["message"]
    answers = {each["id"]: each["value"].lower() for each in asked}
    done = sdk("runs.wait", thread, "pair", command={"resume": answers})
    assert done == {"left": "left?", "right": "right?"}


@covers("RunCreate", "command.update", "command.goto")
@pytest.mark.parametrize(
    ("command", "answer"),
    [
        ({"goto": "thank", "update": [["answer", "Bob"]]}, "Thank you, Bob."),
        ({"goto": ["thank"], "update": {"answer": "Cid"}}, "Thank you, Cid."),
        ({"goto": {"node": "thank", "input": {"answer": "Dee"}}}, "Thank you, Dee."),
        ({"goto": [{"node": "thank", "input": {"answer": "Eve"}}]}, "Thank you, Eve."),
    ],
    ids=str,
)
def test_a_command_is_written_in_many_ways(
    http: httpx.Client, command: dict[str, object], answer: str
) -> None:
    place = f"/threads/{http.post('/threads', json={}).json()['thread_id']}/runs/wait"
    for body in ({"input": {"question": "?"}}, {"command": {"resume": "Ada"}}):
        http.post(place, json={"assistant_id": "ask", **body}).raise_for_status()
    done = http.post(place, json={"assistant_id": "ask", "command": command}).json()
    assert done["answer"] == answer


@covers("RunCreate", "interrupt_before", "interrupt_after")
def test_a_run_stops_at_the_nodes_that_are_named_and_no_others(sdk: Sdk, thread: str) -> None:
    def stops(**options: object) -> list[str]:
        sdk("runs.wait", thread, "slow", input={"delay": 0, "steps": 1}, **options)
        following: list[str] = sdk("threads.get_state", thread)["next"]
        return following

    assert stops(interrupt_after=["begin"]) == ["step"]
    assert stops(interrupt_after="*") == ["step"]
    assert stops(interrupt_before="*") == ["begin"]
    assert stops(interrupt_before=["step"]) == ["step"]
    assert stops(interrupt_before=["nobody"], interrupt_after=["nobody"]) == []


@covers("RunCreate", "order of refusals")
def test_what_does_not_fit_is_told_before_what_is_not_there(http: httpx.Client) -> None:
    place = f"/threads/{uuid4()}/runs"
    for how in ("", "/wait", "/stream"):
        for body, status, said in (
            ({"assistant_id": "nope", "input": {}, "durability": "zzz"}, 422, "durability"),
            ({"assistant_id": "nope"}, 422, "Invalid assistant: 'nope'"),
            ({"assistant_id": str(uuid4())}, 404, "Thread or assistant not found."),
            ({"assistant_id": "echo"}, 404, "Thread or assistant not found."),
        ):
            response = http.post(place + how, json=body)
            assert response.status_code == status
            assert said in response.json()["detail"]


@covers("RunCreate", "feedback_keys")
@covers("Server-sent events", "feedback")
@covers("Defects", "feedback keys fail a run")
def test_feedback_that_nobody_collects_harms_nothing(sdk: Sdk, thread: str) -> None:
    events = sdk("runs.stream", thread, "events", input={"n": 1}, feedback_keys=["stars"])
    assert [event.event for event in events] == ["metadata", "values", "values"]
    assert sdk("runs.list", thread)[0]["status"] == "success"


@covers("RunCreate", "checkpoint_during")
def test_a_run_without_checkpoints_on_its_way_keeps_the_last(http: httpx.Client) -> None:
    for during, kept in ((False, 1), (True, 4)):
        place = f"/threads/{http.post('/threads', json={}).json()['thread_id']}"
        body = {"assistant_id": "slow", "input": {"delay": 0}, "checkpoint_during": during}
        http.post(f"{place}/runs/wait", json=body).raise_for_status()
        assert len(http.post(f"{place}/history", json={"limit": 10}).json()) == kept


@covers("RunOnThread", "checkpoint", "checkpoint_id")
def test_a_run_begins_at_a_checkpoint_in_either_form(sdk: Sdk, thread: str) -> None:
    sdk("runs.wait", thread, "slow", input={"delay": 0, "steps": 2})
    former = sdk("threads.get_history", thread)[1]
    assert (former["values"]["done"], former["next"]) == (1, ["step"])
    for at in ({"checkpoint": former["checkpoint"]}, {"checkpoint_id": former["checkpoint_id"]}):
        assert sdk("runs.wait", thread, "slow", **at)["done"] == 2
        history = sdk("threads.get_history", thread, limit=2)
        assert history[-1]["parent_checkpoint_id"] == former["checkpoint_id"]
    nowhere = sdk("runs.wait", thread, "slow", checkpoint_id=str(uuid4()), raise_error=False)
    assert nowhere["__error__"]["error"] == "EmptyInputError"


@covers("Checkpoint", "thread_id")
def test_a_checkpoint_is_of_the_thread_of_the_path(sdk: Sdk, thread: str) -> None:
    other = sdk("threads.create")["thread_id"]
    sdk("runs.wait", thread, "events", input={"n": 1})
    at = {**sdk("threads.get_state", thread)["checkpoint"], "thread_id": other}
    assert sdk("threads.get_state", thread, checkpoint=at)["values"] == {"n": 1, "written": 1}


@covers("What wait and join answer", "masked errors")
def test_how_a_graph_failed_is_told_whatever_it_raised(sdk: Sdk, thread: str) -> None:
    answer = sdk("runs.wait", thread, "odd", input={"which": "nothing"}, raise_error=False)
    assert answer == {"__error__": {"error": "KeyError", "message": "'nothing'"}}


@covers("What wait and join answer", "of a cancelled run")
@covers("GET /threads/{thread_id}/runs/{run_id}/join", "Location:")
def test_a_cancelled_run_has_nothing_to_answer(http: httpx.Client) -> None:
    place = f"/threads/{http.post('/threads', json={}).json()['thread_id']}/runs"
    slow = {"assistant_id": "slow", "input": {"delay": 600}}
    run = http.post(place, json=slow).headers["content-location"]
    http.post(f"{run}/cancel?wait=1").raise_for_status()
    response = http.get(f"{run}/join")
    assert (response.status_code, response.json()) == (200, {})
    assert (response.headers["content-location"], response.headers["location"]) == (run, f"{run}/join")


@covers("GET /threads/{thread_id}/runs", "?limit")
@covers("Run", "langsmith_session_name")
def test_ten_runs_are_listed_unless_more_are_asked_for(http: httpx.Client) -> None:
    thread_id = http.post("/threads", json={}).json()["thread_id"]
    for _ in range(11):
        late = {"assistant_id": "events", "input": {"n": 0}, "after_seconds": 3600}
        http.post(f"/threads/{thread_id}/runs", json=late).raise_for_status()
    runs = http.get(f"/threads/{thread_id}/runs").json()
    assert len(runs) == 10
    assert {run["langsmith_session_name"] for run in runs} == {None}
    assert len(http.get(f"/threads/{thread_id}/runs?limit=11").json()) == 11
    http.delete(f"/threads/{thread_id}").raise_for_status()
