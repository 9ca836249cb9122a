"""Crons that fire, and the runs that they make."""

from __future__ import annotations

from concurrent.futures import Future
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx
import pytest

from matins.domain.crons import LATE
from tests.support.waiting import until
from tests.wire.compatibility import covers
from tests.wire.sdks import KINDS, Sdk

SAID = {"messages": [{"role": "user", "content": "What time is it?"}]}
DAILY = "27 15 * * *"


@pytest.fixture
def thread(sdk: Sdk) -> str:
    thread_id: str = sdk("threads.create")["thread_id"]
    return thread_id


def others_fire(sdk: Sdk) -> None:
    """Let another cron of every second fire twice: one that is on would have fired meanwhile."""
    witness = sdk("threads.create")["thread_id"]
    cron = sdk("crons.create_for_thread", witness, "echo", schedule="@every 1s", input=SAID)
    until(lambda: len(sdk("runs.list", witness)) >= 2)
    sdk("crons.delete", cron["cron_id"])


def ahead(**duration: float) -> datetime:
    return datetime.now(UTC) + timedelta(**duration)  # noqa: TID251 - the clock of a client


@covers("OfRuns", "context")
@pytest.mark.parametrize("asked", [{}, {"context": {"tone": "kind"}}], ids=["without", "with"])
def test_a_graph_gets_the_context_that_its_cron_was_given_and_nothing_else(
    http: httpx.Client, asked: dict[str, object]
) -> None:
    thread_id = http.post("/threads", json={}).json()["thread_id"]
    made = http.post(
        f"/threads/{thread_id}/runs/crons",
        json={"assistant_id": "strict", "schedule": "@every 1s", "input": {}, **asked},
    ).json()
    [run] = until(lambda: http.get(f"/threads/{thread_id}/runs?limit=1").json())
    http.delete(f"/runs/crons/{made['cron_id']}").raise_for_status()
    assert run["kwargs"]["context"] == asked.get("context", {})
    assert made["payload"]["config"]["configurable"]["cron_id"] == made["cron_id"]
    answer = http.get(f"/threads/{thread_id}/runs/{run['run_id']}/join").json()
    assert answer == {"tone": "kind" if asked else "plain"}


# JavaScript 2.0 sends neither a time zone nor, when it creates, an end.
@covers("CronCreate", "timezone")
@covers("CronPatch", "timezone")
@pytest.mark.parametrize("sdk", [kind for kind in KINDS if kind != "js-2.0"], indirect=True)
def test_a_change_of_time_zone_moves_the_next_date(sdk: Sdk, thread: str) -> None:
    cron = sdk("crons.create_for_thread", thread, "echo", schedule="30 9 * * *", timezone="Asia/Tokyo")
    assert cron["timezone"] == "Asia/Tokyo"
    assert cron["next_run_date"].endswith("T00:30:00+00:00")
    moved = sdk("crons.update", cron["cron_id"], timezone="Asia/Kolkata")
    assert moved["next_run_date"].endswith("T04:00:00+00:00")
    sdk("crons.delete", cron["cron_id"])


@covers("Defects", "runs of a cron do not name it")
def test_a_cron_fires_on_each_of_its_slots_and_stops_when_it_is_deleted(sdk: Sdk, thread: str) -> None:
    cron = sdk(
        "crons.create_for_thread", thread, "echo", schedule="@every 1s", input=SAID, metadata={"mine": 1}
    )
    first = datetime.fromisoformat(cron["next_run_date"])
    assert first > datetime.fromisoformat(cron["created_at"])
    until(lambda: len(sdk("runs.list", thread, status="success")) >= 2)
    sdk("crons.delete", cron["cron_id"])
    runs = sdk("runs.list", thread)[::-1]
    for number, run in enumerate(runs):  # from the first slot on: creating fired nothing
        slot = first + timedelta(seconds=number)
        assert run["metadata"]["cron_id"] == cron["cron_id"]
        assert datetime.fromisoformat(run["metadata"]["scheduled_for"]) == slot
        assert (run["metadata"]["mine"], run["metadata"]["graph_id"]) == (1, "echo")
        # Later still, it would have been missed.
        assert timedelta() <= datetime.fromisoformat(run["created_at"]) - slot <= LATE
    others_fire(sdk)
    assert len(sdk("runs.list", thread)) == len(runs)
    until(lambda: sdk("threads.get", thread)["status"] == "idle")
    assert len(sdk("threads.get_state", thread)["values"]["messages"]) == 2 * len(runs)


@covers("OfRuns", "enabled")
@pytest.mark.parametrize("sdk", ["py-sync"], indirect=True)
def test_a_cron_that_is_switched_off_does_not_fire_until_it_is_switched_on(sdk: Sdk, thread: str) -> None:
    cron_id = sdk("crons.create_for_thread", thread, "echo", schedule="@every 1s", input=SAID, enabled=False)[
        "cron_id"
    ]
    others_fire(sdk)
    assert sdk("runs.list", thread) == []
    changed = sdk("crons.update", cron_id, enabled=True)
    assert datetime.fromisoformat(changed["next_run_date"]) > datetime.fromisoformat(changed["updated_at"])
    until(lambda: sdk("runs.list", thread))
    sdk("crons.delete", cron_id)


@covers("CronCreate", "end_time")
@covers("Defects", "a cron with an end stops all others")
def test_a_cron_with_an_end_fires_until_then_and_disturbs_no_other(http: httpx.Client) -> None:
    ended, other = (http.post("/threads", json={}).json()["thread_id"] for _ in range(2))
    body = {"assistant_id": "echo", "schedule": "@every 1s", "input": SAID}
    end = ahead(seconds=5.5)
    crons = [
        http.post(f"/threads/{ended}/runs/crons", json={**body, "end_time": end.isoformat()}).json(),
        http.post(f"/threads/{other}/runs/crons", json=body).json(),
    ]

    def fired(thread_id: str) -> list[datetime]:
        """The slots of the thread's runs, the oldest first."""
        runs = http.get(f"/threads/{thread_id}/runs?limit=100").json()
        return sorted(datetime.fromisoformat(run["metadata"]["scheduled_for"]) for run in runs)

    until(lambda: http.get(f"/runs/crons/{crons[0]['cron_id']}").json()["next_run_date"] is None)
    until(lambda: max(fired(other), default=end) > end)
    first = datetime.fromisoformat(crons[0]["next_run_date"])
    slots = [first + timedelta(seconds=number) for number in range(6)]
    assert fired(ended) == [slot for slot in slots if slot <= end]
    for cron in crons:
        assert http.delete(f"/runs/crons/{cron['cron_id']}").status_code == 204


@covers("OfRuns", "on_run_completed")
@pytest.mark.parametrize("sdk", ["py-sync"], indirect=True)
def test_a_cron_without_a_thread_runs_on_threads_of_its_own(sdk: Sdk) -> None:
    tag = str(uuid4())
    made = [
        sdk(
            "crons.create",
            "events",
            schedule="@every 1s",
            input={"n": 1},
            metadata={"tag": f"{how} {tag}"},
            on_run_completed=how,
        )
        for how in ("keep", "delete")
    ]
    kept = until(lambda: sdk("threads.search", metadata={"tag": f"keep {tag}"}, status="idle"))
    for cron in made:
        sdk("crons.delete", cron["cron_id"])
    assert kept[0]["values"] == {"n": 1, "written": 1}
    until(lambda: sdk("threads.count", metadata={"tag": f"delete {tag}"}) == 0)


@pytest.mark.parametrize("sdk", ["py-sync"], indirect=True)
def test_many_crons_of_one_moment_each_make_their_run(sdk: Sdk, thread: str) -> None:
    pending: list[Future[Any]] = [
        sdk.start("crons.create_for_thread", thread, "echo", schedule="@every 2s", input=SAID)
        for _ in range(5)
    ]
    made = {future.result(15)["cron_id"] for future in pending}
    until(lambda: {run["metadata"].get("cron_id") for run in sdk("runs.list", thread, limit=100)} >= made)
    for cron_id in made:
        sdk("crons.delete", cron_id)


OF_RUNS: dict[str, Any] = {
    "metadata": {"mine": 1},
    "config": {"tags": ["t"], "recursion_limit": 7},
    "interrupt_before": ["nobody"],
    "interrupt_after": ["nobody"],
    "multitask_strategy": "reject",
    "stream_mode": ["updates", "custom"],
    "stream_subgraphs": True,
    "stream_resumable": True,
}


@covers("OfRuns", *OF_RUNS, "durability", "checkpoint_during")
@pytest.mark.parametrize(
    ("asked", "durability"), [({"durability": "sync"}, "sync"), ({"checkpoint_during": False}, "exit")]
)
def test_each_run_of_a_cron_gets_what_the_cron_says_of_its_runs(
    http: httpx.Client, asked: dict[str, object], durability: str
) -> None:
    thread_id = http.post("/threads", json={}).json()["thread_id"]
    body = {"assistant_id": "echo", "schedule": "@every 1s", "input": SAID, **OF_RUNS, **asked}
    made = http.post(f"/threads/{thread_id}/runs/crons", json=body).json()
    [run] = until(lambda: http.get(f"/threads/{thread_id}/runs?limit=1").json())
    http.delete(f"/runs/crons/{made['cron_id']}").raise_for_status()
    kwargs = run["kwargs"]
    assert (run["metadata"]["mine"], run["multitask_strategy"]) == (1, "reject")
    assert kwargs["config"].items() >= OF_RUNS["config"].items()
    assert (kwargs["durability"], kwargs["resumable"]) == (durability, True)
    for name in ("interrupt_before", "interrupt_after", "stream_mode", "stream_subgraphs"):
        assert kwargs[name] == OF_RUNS[name]
