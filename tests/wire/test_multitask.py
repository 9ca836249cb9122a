"""What a new run does on a busy thread, and what a cancellation leaves."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import httpx
import pytest

from tests.support.waiting import until
from tests.wire.sdks import Refused, Sdk

SLOW = {"steps": 100, "delay": 60}
QUICK = {"steps": 1, "delay": 0}


@pytest.fixture
def thread(sdk: Sdk) -> str:
    """A thread on which one run has ended."""
    thread_id: str = sdk("threads.create")["thread_id"]
    sdk("runs.wait", thread_id, "slow", input=QUICK)
    return thread_id


def begun(sdk: Sdk, thread: str) -> str:
    """Start a run that has stored something, and goes on for a while; its id."""
    run: str = sdk("runs.create", thread, "slow", input=SLOW)["run_id"]
    until(
        lambda: any(
            (each["metadata"] or {}).get("run_id") == run
            for each in sdk("threads.get_history", thread, limit=100)
        )
    )
    return run


def history(sdk: Sdk, thread: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = sdk("threads.get_history", thread, limit=100)
    return found


def test_a_run_that_interrupts_ends_the_others_and_keeps_what_they_did(sdk: Sdk, thread: str) -> None:
    running = begun(sdk, thread)
    waiting = sdk("runs.create", thread, "slow", input=SLOW)["run_id"]
    before = history(sdk, thread)
    sdk("runs.wait", thread, "slow", input=QUICK, multitask_strategy="interrupt")
    assert [sdk("runs.get", thread, run)["status"] for run in (running, waiting)] == ["interrupted"] * 2
    kept = {state["checkpoint_id"] for state in history(sdk, thread)}
    assert {state["checkpoint_id"] for state in before} <= kept
    assert sdk("threads.get", thread)["status"] == "idle"


def test_a_run_that_rolls_back_undoes_the_others(sdk: Sdk, thread: str) -> None:
    before = history(sdk, thread)
    running = begun(sdk, thread)
    waiting = sdk("runs.create", thread, "slow", input=SLOW)["run_id"]
    run = sdk("runs.create", thread, "slow", input=QUICK, multitask_strategy="rollback")
    assert run["multitask_strategy"] == "rollback"
    sdk("runs.join", thread, run["run_id"])
    for undone in (running, waiting):
        with pytest.raises(Refused) as refused:
            sdk("runs.get", thread, undone)
        assert refused.value.status == 404
    after = history(sdk, thread)
    assert after[-len(before) :] == before
    assert {state["metadata"]["run_id"] for state in after[: -len(before)]} == {run["run_id"]}


def test_a_cancelled_run_is_undone_when_that_is_asked(sdk: Sdk, thread: str) -> None:
    before, shown = history(sdk, thread), sdk("threads.get", thread)
    run = begun(sdk, thread)
    waiting = sdk("runs.create", thread, "slow", input=QUICK, after_seconds=3600)["run_id"]
    sdk("runs.cancel", thread, waiting, action="rollback", wait=True)
    assert sdk("threads.get", thread)["status"] == "busy"
    sdk("runs.cancel", thread, run, action="rollback", wait=True)
    assert len(sdk("runs.list", thread)) == 1
    assert history(sdk, thread) == before
    after = sdk("threads.get", thread)
    for key in ("status", "values", "interrupts", "error", "state_updated_at"):
        assert after[key] == shown[key]


def test_a_stream_of_a_run_that_is_undone_ends_without_an_error(sdk: Sdk, thread: str) -> None:
    streamed = sdk.start("runs.stream", thread, "slow", input=SLOW, stream_mode="values")
    until(lambda: sdk("threads.get", thread)["status"] == "busy")
    run = sdk("runs.list", thread)[0]["run_id"]
    sdk("runs.cancel", thread, run, action="rollback", wait=True)
    assert {event.event for event in streamed.result(30)} <= {"metadata", "values"}


def test_an_answer_that_nothing_waits_for_can_be_refused(http: httpx.Client) -> None:
    assert http.get("/info").json()["flags"]["strict_resume"] is True
    thread = http.post("/threads", json={}).json()["thread_id"]
    http.post(f"/threads/{thread}/runs/wait", json={"assistant_id": "ask", "input": {}})
    before = http.get(f"/threads/{thread}").json()
    asked = {"assistant_id": "ask", "command": {"resume": {uuid4().hex: "x"}}}
    reply = http.post(f"/threads/{thread}/runs/wait", json={**asked, "strict_resume": True})
    assert reply.json()["__error__"]["error"] == "UnknownInterruptError"
    after = http.get(f"/threads/{thread}").json()
    for key in ("status", "values", "interrupts", "error"):
        assert after[key] == before[key]
    assert before["status"] == "interrupted"
