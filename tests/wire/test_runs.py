from __future__ import annotations

import time
from uuid import uuid4

import httpx
import pytest

from matins.domain.ids import system_assistant_id
from tests.support.waiting import until
from tests.wire.compatibility import covers
from tests.wire.sdks import Refused, Sdk

SAID = {"messages": [{"role": "user", "content": "hi"}]}


@pytest.fixture
def thread(sdk: Sdk) -> str:
    thread_id: str = sdk("threads.create")["thread_id"]
    return thread_id


@covers("POST /threads/{thread_id}/runs/wait", "200")
@covers("What wait and join answer", "the state")
def test_wait_gives_the_state_that_the_run_leaves(sdk: Sdk, thread: str) -> None:
    values = sdk("runs.wait", thread, "echo", input=SAID)
    assert [(message["type"], message["content"]) for message in values["messages"]] == [
        ("human", "hi"),
        ("ai", "hi"),
    ]
    [run] = sdk("runs.list", thread)
    assert sdk.created[-1] == {"run_id": run["run_id"], "thread_id": thread}
    assert sdk("threads.get_state", thread)["values"] == values


@covers("POST /threads/{thread_id}/runs", "200", "Content-Location:")
@covers("GET /threads/{thread_id}/runs/{run_id}", "200")
@covers("GET /threads/{thread_id}/runs/{run_id}/join", "200")
@covers("Run", "the keys", "metadata", "status", "kwargs", "*")
@covers("RunCreate", "metadata", "config")
def test_a_created_run_is_pending_and_ends_in_success(sdk: Sdk, thread: str) -> None:
    run = sdk(
        "runs.create",
        thread,
        "echo",
        input=SAID,
        metadata={"mm": 1},
        config={"configurable": {"c": 1}, "tags": ["t"], "recursion_limit": 50},
        multitask_strategy="enqueue",
    )
    assert list(run) == [
        *("run_id", "thread_id", "assistant_id", "metadata", "status", "kwargs"),
        *("multitask_strategy", "created_at", "updated_at", "langsmith_session_name"),
    ]
    assert (run["status"], run["thread_id"], run["multitask_strategy"]) == ("pending", thread, "enqueue")
    assert run["metadata"] == {
        "created_by": "system",
        "graph_id": "echo",
        "assistant_id": str(system_assistant_id("echo")),
        "mm": 1,
    }
    assert sdk.created[-1] == {"run_id": run["run_id"], "thread_id": thread}
    assert sdk("runs.join", thread, run["run_id"])["messages"][-1]["content"] == "hi"
    ended = sdk("runs.get", thread, run["run_id"])
    assert ended["status"] == "success"
    assert ended["kwargs"]["config"]["configurable"]["c"] == 1
    assert ended["updated_at"] > run["created_at"]


@covers("What wait and join answer", "of a finished run")
def test_join_gives_each_run_its_own_answer(sdk: Sdk, thread: str) -> None:
    first = sdk("runs.create", thread, "events", input={"n": 1})["run_id"]
    second = sdk("runs.create", thread, "events", input={"n": 2})["run_id"]
    assert sdk("runs.join", thread, second)["written"] == 2
    assert sdk("runs.join", thread, first)["written"] == 1


def test_runs_are_listed_newest_first(sdk: Sdk, thread: str) -> None:
    ids: list[str] = []
    for n in range(3):
        sdk("runs.wait", thread, "events", input={"n": n})
        ids.insert(0, sdk.created[-1]["run_id"])
    assert [run["run_id"] for run in sdk("runs.list", thread)] == ids
    assert [run["run_id"] for run in sdk("runs.list", thread, limit=1, offset=1)] == ids[1:2]
    assert len(sdk("runs.list", thread, status="success")) == 3
    assert sdk("runs.list", thread, status="pending") == []
    some = sdk("runs.list", thread, select=["run_id", "status"], limit=1)
    assert some == [{"run_id": ids[0], "status": "success"}]


def test_a_bad_column_names_the_good_ones(sdk: Sdk, thread: str) -> None:
    with pytest.raises(Refused, match="Invalid select columns") as refused:
        sdk("runs.list", thread, select=["bogus"])
    assert refused.value.status == 422


@covers("POST /runs/wait", "200")
@covers("RunWithoutThread", "on_completion")
def test_a_run_without_a_thread_leaves_nothing(sdk: Sdk) -> None:
    assert sdk("runs.wait", None, "events", input={"n": 2}) == {"n": 2, "written": 2}
    created = sdk.created[-1]
    hidden = created["thread_id"]
    with pytest.raises(Refused) as refused:
        sdk("threads.get", hidden)
    assert refused.value.status == 404


@covers("RunWithoutThread", "on_completion")
def test_a_run_without_a_thread_can_keep_the_one_that_it_got(sdk: Sdk) -> None:
    sdk("runs.wait", None, "events", input={"n": 2}, on_completion="keep")
    kept = sdk("threads.get", sdk.created[-1]["thread_id"])
    assert kept["values"] == {"n": 2, "written": 2}
    assert kept["status"] == "idle"


@covers("POST /runs", "200", "thread_id")
def test_a_background_run_without_a_thread_goes_with_it(sdk: Sdk) -> None:
    run = sdk("runs.create", None, "events", input={"n": 2})
    assert run["status"] == "pending"
    assert sdk.created[-1]["run_id"] == run["run_id"]

    def is_gone() -> bool:
        try:
            sdk("threads.get", run["thread_id"])
        except Refused as refused:
            return refused.status == 404
        return False

    until(is_gone)


@covers("What wait and join answer", "__error__")
@covers("Run", "status")
def test_a_graph_that_fails_is_an_error_in_a_success(sdk: Sdk, thread: str) -> None:
    failure = {"error": "ValueError", "message": "boom happened"}
    answer = sdk("runs.wait", thread, "failing", input={"x": 1}, raise_error=False)
    assert answer == {"__error__": failure}
    run_id = sdk.created[-1]["run_id"]
    assert sdk("runs.get", thread, run_id)["status"] == "error"
    assert sdk("runs.join", thread, run_id) == {"__error__": failure}


def test_an_sdk_raises_how_a_graph_failed(sdk: Sdk) -> None:
    with pytest.raises(Exception, match="boom happened"):
        sdk("runs.wait", None, "failing", input={"x": 1})


@covers("Run", "one at a time")
@covers("Thread", "status while runs wait")
@covers("RunOnThread", "multitask_strategy")
def test_runs_of_a_thread_wait_for_each_other(sdk: Sdk, thread: str) -> None:
    first = sdk("runs.create", thread, "slow", input={"delay": 600})["run_id"]
    others = [sdk("runs.create", thread, "events", input={"n": n})["run_id"] for n in range(3)]
    assert sdk("threads.get", thread)["status"] == "busy"
    assert [sdk("runs.get", thread, run)["status"] for run in others] == ["pending"] * 3
    sdk("runs.cancel", thread, first, wait=True)
    sdk("runs.join", thread, others[-1])
    runs = {run["run_id"]: run for run in sdk("runs.list", thread)}
    ended = [runs[run]["updated_at"] for run in (first, *others)]
    assert ended == sorted(ended)
    assert [runs[run]["status"] for run in (first, *others)] == ["interrupted", *["success"] * 3]


@covers("RunOnThread", "multitask_strategy")
@covers("POST /threads/{thread_id}/runs", "409")
@covers("POST /threads/{thread_id}/runs/wait", "409")
@covers("POST /threads/{thread_id}/runs/stream", "409")
@pytest.mark.parametrize("how", ["create", "wait", "stream"])
def test_a_run_that_would_have_to_wait_is_rejected_when_that_is_asked(
    sdk: Sdk, thread: str, how: str
) -> None:
    run = sdk("runs.create", thread, "slow", input={"delay": 30})
    with pytest.raises(Refused, match="Thread is already running a task") as refused:
        sdk(f"runs.{how}", thread, "echo", input=SAID, multitask_strategy="reject")
    assert refused.value.status == 409
    assert len(sdk("runs.list", thread)) == 1
    sdk("runs.cancel", thread, run["run_id"], wait=True)


@covers("RunOnThread", "if_not_exists")
@covers("POST /threads/{thread_id}/runs", "404")
@covers("Thread", "metadata")
def test_a_thread_that_is_not_there_is_made_when_that_is_asked(sdk: Sdk) -> None:
    wanted = str(uuid4())
    with pytest.raises(Refused, match="Thread or assistant not found") as refused:
        sdk("runs.wait", wanted, "events", input={"n": 1})
    assert refused.value.status == 404
    sdk("runs.wait", wanted, "events", input={"n": 1}, if_not_exists="create", metadata={"m": 1})
    assert sdk("threads.get", wanted)["metadata"]["m"] == 1


@covers("POST /threads/{thread_id}/runs/{run_id}/cancel", "200", "?wait", "404 ended")
@covers("Run", "status")
@covers("Thread", "error after a cancel", "status after an interrupt")
@covers("When a client goes away", "thread of a cancelled run")
def test_a_running_run_is_cancelled(sdk: Sdk, thread: str) -> None:
    run = sdk("runs.create", thread, "slow", input={"delay": 60})
    until(lambda: sdk("threads.get_state", thread)["next"] == ["step"])
    assert sdk("runs.get", thread, run["run_id"])["status"] == "running"
    began = time.monotonic()
    sdk("runs.cancel", thread, run["run_id"], wait=True)
    assert time.monotonic() - began < 3
    assert sdk("runs.get", thread, run["run_id"])["status"] == "interrupted"
    stopped = sdk("threads.get", thread)
    assert stopped["status"] == "interrupted"
    assert stopped["error"]["error"] == "UserInterrupt"
    assert sdk("threads.get_state", thread)["next"] == ["step"]
    with pytest.raises(Refused, match="No matching runs to cancel") as refused:
        sdk("runs.cancel", thread, run["run_id"])
    assert refused.value.status == 404


@covers("POST /threads/{thread_id}/runs/{run_id}/cancel", "202", "a pending run")
def test_a_pending_run_is_cancelled_at_once(sdk: Sdk, thread: str) -> None:
    running = sdk("runs.create", thread, "slow", input={"delay": 60})
    pending = sdk("runs.create", thread, "echo", input=SAID)
    assert sdk("runs.cancel", thread, pending["run_id"]) is None
    assert sdk("runs.get", thread, pending["run_id"])["status"] == "interrupted"
    sdk("runs.cancel", thread, running["run_id"], wait=True)


@covers("DELETE /threads/{thread_id}/runs/{run_id}", "204", "404", "any state")
@covers("GET /threads/{thread_id}/runs/{run_id}", "404")
def test_a_run_is_deleted_in_whatever_state(sdk: Sdk, thread: str) -> None:
    ended = sdk("runs.create", thread, "events", input={"n": 1})["run_id"]
    sdk("runs.join", thread, ended)
    running = sdk("runs.create", thread, "slow", input={"delay": 60})["run_id"]
    pending = sdk("runs.create", thread, "echo", input=SAID)["run_id"]
    for run in (ended, pending, running):
        sdk("runs.delete", thread, run)
        for call in ("get", "delete"):
            with pytest.raises(Refused) as refused:
                sdk(f"runs.{call}", thread, run)
            assert refused.value.status == 404
    until(lambda: sdk("threads.get", thread)["status"] != "busy")
    assert sdk("runs.wait", thread, "events", input={"n": 5})["written"] == 5


@covers("GET /threads/{thread_id}/runs", "404")
@covers("GET /threads/{thread_id}/runs/{run_id}/join", "404")
@covers("GET /threads/{thread_id}/runs/{run_id}/stream", "404")
@covers("POST /threads/{thread_id}/runs/{run_id}/cancel", "404 unknown")
@covers("Defects", "an unknown run is a 200")
def test_what_is_not_there_is_not_found(sdk: Sdk, thread: str) -> None:
    unknown = str(uuid4())
    for call, args in (
        ("get", (thread, unknown)),
        ("join", (thread, unknown)),
        ("join_stream", (thread, unknown)),
        ("cancel", (thread, unknown)),
        ("delete", (thread, unknown)),
        ("list", (unknown,)),
        ("create", (thread, unknown)),
    ):
        with pytest.raises(Refused) as refused:
            sdk(f"runs.{call}", *args)
        assert (call, refused.value.status) == (call, 404)


@covers("RunCreate", "assistant_id unknown")
def test_an_unknown_graph_is_refused_with_the_known_ones(sdk: Sdk, thread: str) -> None:
    with pytest.raises(Refused, match=r"Invalid assistant: 'nope'(.|\n)*ask, bulk, chat, echo") as refused:
        sdk("runs.create", thread, "nope")
    assert refused.value.status == 422


@covers("POST /runs", "Content-Location:")
@covers("GET /runs/{run_id}", "200", "404")
@covers("GET /runs/{run_id}/join", "200", "404")
@covers("GET /runs/{run_id}/stream", "404")
def test_a_run_is_reached_by_its_id_alone(http: httpx.Client) -> None:
    # Kept, so that it can still be asked for when it ends before we come to that.
    wanted = {"assistant_id": "slow", "input": {"delay": 0.5}, "on_completion": "keep"}
    created = http.post("/runs", json=wanted)
    run = created.json()
    place = f"/runs/{run['run_id']}"
    assert created.headers["content-location"] == place
    assert http.get(place).json()["run_id"] == run["run_id"]
    assert http.get(f"{place}/join").json()["done"] == 1
    for path in ("", "/join", "/stream"):
        assert http.get(f"/runs/{uuid4()}{path}").status_code == 404


@covers("POST /runs/stream", "Content-Location:", "Location:")
@covers("GET /runs/{run_id}/stream", "200")
@covers("Defects", "a stream without a thread cannot be taken up")
def test_a_stream_without_a_thread_can_be_followed_where_it_says(http: httpx.Client) -> None:
    wanted = {
        "assistant_id": "slow",
        "input": {"delay": 1, "steps": 2},
        "stream_resumable": True,
        "stream_mode": "updates",
        "on_completion": "keep",  # so that it can still be followed when it ends before we come back
    }
    with http.stream("POST", "/runs/stream", json=wanted) as response:
        run_id = response.headers["content-location"].removeprefix("/runs/")
        assert response.headers["location"] == f"/runs/{run_id}/stream"
        next(response.iter_raw())
    rest = http.get(response.headers["location"], headers={"last-event-id": "-1"})
    assert rest.text.startswith("event: metadata\r\n")
    assert rest.text.count("event: updates\r\n") == 3


@covers("POST /threads/{thread_id}/runs", "Content-Location:")
@covers("POST /threads/{thread_id}/runs/wait", "Content-Location:", "Location:")
@covers("POST /threads/{thread_id}/runs/stream", "Content-Location:", "Location:")
@covers("POST /runs/wait", "Content-Location:", "Location:")
def test_a_long_request_says_where_its_run_is(http: httpx.Client) -> None:
    thread_id = http.post("/threads", json={}).json()["thread_id"]
    wanted = {"assistant_id": "events", "input": {"n": 1}}
    created = http.post(f"/threads/{thread_id}/runs", json=wanted)
    assert created.headers["content-location"] == f"/threads/{thread_id}/runs/{created.json()['run_id']}"
    for path, after in (("wait", "join"), ("stream", "stream")):
        response = http.post(f"/threads/{thread_id}/runs/{path}", json=wanted)
        place = response.headers["content-location"]
        assert place.startswith(f"/threads/{thread_id}/runs/")
        assert response.headers["location"] == f"{place}/{after}"
    hidden = http.post("/runs/wait", json=wanted)
    assert hidden.headers["content-location"].startswith("/threads/")
    assert hidden.headers["location"] == f"{hidden.headers['content-location']}/join"


@covers("POST /threads/{thread_id}/runs/{run_id}/cancel", "200", "202", "Location:", "?wait")
def test_a_cancelled_run_says_that_it_stopped(http: httpx.Client) -> None:
    thread_id = http.post("/threads", json={}).json()["thread_id"]
    for wait, status in (("0", 202), ("false", 202), ("1", 200), ("true", 200)):
        run = http.post(
            f"/threads/{thread_id}/runs", json={"assistant_id": "slow", "input": {"delay": 60}}
        ).json()
        response = http.post(f"/threads/{thread_id}/runs/{run['run_id']}/cancel", params={"wait": wait})
        assert response.status_code == status
        assert response.content == (b"{}" if status == 200 else b"")
        if status == 200:
            assert response.headers["location"].endswith(f"/runs/{run['run_id']}/join")


@covers("POST /threads/{thread_id}/runs/{run_id}/cancel", "?action", "?wait")
@covers("Defects", "an action that there is not is taken")
def test_a_cancel_that_makes_no_sense_is_refused(http: httpx.Client) -> None:
    place = f"/threads/{uuid4()}/runs/{uuid4()}/cancel"
    for bad in ({"action": "zzz"}, {"wait": "maybe"}):
        assert http.post(place, params=bad).status_code == 422
