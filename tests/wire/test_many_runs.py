from __future__ import annotations

from collections.abc import Callable
from uuid import uuid4

import httpx
import pytest

from tests.support.waiting import until
from tests.wire.compatibility import covers
from tests.wire.sdks import KINDS, Refused, Sdk

SLOW = {"delay": 600}
with_cancel_many = pytest.mark.parametrize("sdk", [kind for kind in KINDS if kind != "js-2.0"], indirect=True)


def wanted(graph: str, **more: object) -> dict[str, object]:
    """What creates a run of a batch; JavaScript's SDK takes the assistant by another name."""
    return {"assistant_id": graph, "assistantId": graph, **more}


@covers("POST /runs/batch", "200")
def test_a_batch_makes_a_run_of_each_on_a_thread_of_its_own(sdk: Sdk) -> None:
    batch = [wanted("events", input={"n": n}, on_completion="keep", metadata={"n": n}) for n in range(5)]
    made = sdk("runs.create_batch", batch)
    assert [run["metadata"]["n"] for run in made] == list(range(5))
    assert {run["status"] for run in made} == {"pending"}
    assert len({run["thread_id"] for run in made}) == 5
    for number, run in enumerate(made):
        assert sdk("runs.join", run["thread_id"], run["run_id"])["written"] == number


@covers("POST /runs/batch", "all or none", "422")
def test_a_batch_with_one_that_cannot_be_makes_none(
    http: httpx.Client, rows: Callable[[], dict[str, int]]
) -> None:
    good = {"assistant_id": "echo", "input": None}
    before = rows()
    for batch, status in (
        ([good, {"assistant_id": "nope"}], 422),
        ([good, {"assistant_id": str(uuid4())}], 404),
        ([good, {"input": 1}], 422),
        ([good, {**good, "context": {"a": 1}, "config": {"configurable": {"b": 1}}}], 400),
        ([], 422),
        (good, 422),
        ([good] * 1001, 422),
    ):
        response = http.post("/runs/batch", json=batch)
        assert (response.status_code, list(response.json())) == (status, ["detail", "code"])
    assert rows() == before


@covers("POST /runs/cancel", "204", "404")
@covers("CancelMany", "thread_id", "run_ids")
@with_cancel_many
def test_runs_of_a_thread_are_cancelled_by_their_ids(sdk: Sdk) -> None:
    thread = sdk("threads.create")["thread_id"]
    runs = [sdk("runs.create", thread, "slow", input=SLOW)["run_id"] for _ in range(3)]
    until(lambda: sdk("runs.get", thread, runs[0])["status"] == "running")
    sdk("runs.cancel_many", thread_id=thread, run_ids=[*runs[:2], str(uuid4())])
    until(lambda: sdk("runs.get", thread, runs[2])["status"] == "running")
    assert [sdk("runs.get", thread, run)["status"] for run in runs[:2]] == ["interrupted"] * 2
    with pytest.raises(Refused, match="No runs found to cancel") as refused:
        sdk("runs.cancel_many", thread_id=thread, run_ids=runs[:2])
    assert refused.value.status == 404
    sdk("runs.cancel_many", thread_id=thread, run_ids=runs[2:])
    until(lambda: sdk("threads.get", thread)["status"] == "interrupted")


@covers("CancelMany", "status")
@with_cancel_many
def test_runs_are_cancelled_by_their_status(sdk: Sdk) -> None:
    thread = sdk("threads.create")["thread_id"]
    first = sdk("runs.create", thread, "slow", input=SLOW)["run_id"]
    second = sdk("runs.create", thread, "slow", input=SLOW)["run_id"]
    until(lambda: sdk("runs.get", thread, first)["status"] == "running")
    sdk("runs.cancel_many", status="pending")
    assert [sdk("runs.get", thread, run)["status"] for run in (first, second)] == ["running", "interrupted"]
    later = sdk("runs.create", thread, "slow", input=SLOW)["run_id"]
    sdk("runs.cancel_many", status="all")
    until(lambda: sdk("threads.get", thread)["status"] == "interrupted")
    assert [sdk("runs.get", thread, run)["status"] for run in (first, later)] == ["interrupted"] * 2
    sdk("runs.cancel_many", status="running")  # nothing is left, and that is fine


@covers("POST /runs/cancel", "?action=rollback")
@with_cancel_many
def test_runs_that_are_cancelled_together_are_undone_when_that_is_asked(sdk: Sdk) -> None:
    thread = sdk("threads.create")["thread_id"]
    runs = [sdk("runs.create", thread, "slow", input=SLOW)["run_id"] for _ in range(3)]
    sdk("runs.cancel_many", thread_id=thread, run_ids=runs, action="rollback")
    until(lambda: sdk("runs.list", thread) == [])
    assert sdk("threads.get", thread)["status"] == "idle"


@covers("POST /runs/cancel", "422", "404", "?action")
def test_which_runs_to_cancel_is_said_in_one_way(http: httpx.Client) -> None:
    thread, run = str(uuid4()), str(uuid4())
    for asked in (
        {},
        {"thread_id": thread},
        {"run_ids": [run]},
        {"thread_id": thread, "run_ids": []},
        {"status": "all", "thread_id": thread},
        {"status": "all", "run_ids": [run]},
        {"status": "success"},
        {"thread_id": thread, "run_ids": ["abc"]},
    ):
        assert http.post("/runs/cancel", json=asked).status_code == 422
    assert http.post("/runs/cancel?action=zzz", json={"status": "all"}).status_code == 422
    assert http.post("/runs/cancel", json={"thread_id": thread, "run_ids": [run]}).status_code == 404
    assert http.post("/runs/cancel", json={"status": "all"}).status_code == 204
