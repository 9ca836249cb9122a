from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from matins.domain.access import EVERYONE
from matins.domain.errors import WaitsForItself
from matins.domain.ids import AssistantId, RunId, ThreadId, uuid7
from matins.domain.runs import Run, RunStatus
from matins.engine.callers import Caller, Callers
from matins.engine.requests import RunRequest
from matins.workers.pool import Pool
from matins.workers.process import Launch
from tests.support.engine import node


async def _ignore(_: bytes) -> None: ...


@pytest.fixture
def woken() -> list[None]:
    return []


@pytest.fixture
def callers(woken: list[None]) -> Callers:
    """Callers of a node whose workers have not started: there is no lane to lend."""
    pool = Pool(Launch(Path("langgraph.json"), 1), workers=1, on_graphs=_ignore)
    return Callers(workers=pool, wake=lambda: woken.append(None))


def run(*, priority: int = 0, creator: bytes | None = None) -> Run:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    return Run(
        run_id=RunId(uuid7()),
        thread_id=ThreadId(uuid7()),
        assistant_id=AssistantId(uuid7()),
        cron_id=None,
        scheduled_for=None,
        status=RunStatus.RUNNING,
        attempt=1,
        crashes=0,
        priority=priority,
        multitask_strategy="enqueue",
        metadata=b"{}",
        kwargs=b"{}",
        temporary=False,
        stop=None,
        last_checkpoint_id=None,
        error=None,
        creator=creator,
        due_at=now,
        created_at=now,
        updated_at=now,
        started_at=now,
        ended_at=None,
    )


def admitted(callers: Callers) -> Caller:
    with callers.admitted(run()) as token:
        found = callers.find(token)
    assert found is not None
    return found


def test_an_attempt_is_known_by_its_token_while_it_is_under_way(callers: Callers) -> None:
    one = run(priority=3, creator=b'{"identity":"alice"}')
    with callers.admitted(one) as token, callers.admitted(run()) as other:
        assert token != other
        caller = callers.find(token)
        assert caller is not None
        assert (caller.run_id, caller.thread_id, caller.creator) == (one.run_id, one.thread_id, one.creator)
        assert caller.childs_priority == 4
        assert callers.find("") is None
    assert callers.find(token) is None


def test_the_deepest_priority_fits_its_column(callers: Callers) -> None:
    with callers.admitted(run(priority=2**15 - 1)) as token:
        caller = callers.find(token)
        assert caller is not None
        assert caller.childs_priority == 2**15 - 1


def test_who_is_no_run_waits_for_what_it_likes(callers: Callers, woken: list[None]) -> None:
    with callers.waiting(None, RunId(uuid7()), behind=ThreadId(uuid7())):
        assert not woken


def test_a_lane_that_is_lent_wakes_who_claims(callers: Callers, woken: list[None]) -> None:
    with callers.waiting(admitted(callers), RunId(uuid7()), behind=ThreadId(uuid7())):
        assert woken == [None]


def test_a_run_does_not_wait_behind_itself(callers: Callers) -> None:
    one = admitted(callers)
    with (
        pytest.raises(WaitsForItself, match="until it has ended"),
        callers.waiting(one, RunId(uuid7()), behind=one.thread_id),
    ):
        pass
    with callers.waiting(one, RunId(uuid7()), behind=None):  # nothing is left behind
        pass


def test_a_child_does_not_wait_behind_its_parent_that_waits_for_it(callers: Callers) -> None:
    parent, child, grandchild = (admitted(callers) for _ in range(3))
    with (
        callers.waiting(parent, child.run_id, behind=child.thread_id),
        callers.waiting(child, grandchild.run_id, behind=None),
        pytest.raises(WaitsForItself, match=f"held by run {parent.run_id}"),
        callers.waiting(grandchild, RunId(uuid7()), behind=parent.thread_id),
    ):
        pass
    with callers.waiting(grandchild, RunId(uuid7()), behind=parent.thread_id):  # it waits no longer
        pass


def test_two_runs_do_not_wait_behind_each_other(callers: Callers) -> None:
    one, other = admitted(callers), admitted(callers)
    with (
        callers.waiting(one, RunId(uuid7()), behind=other.thread_id),
        pytest.raises(WaitsForItself),
        callers.waiting(other, RunId(uuid7()), behind=one.thread_id),
    ):
        pass


@pytest.mark.anyio
async def test_a_child_starts_while_its_node_is_leaving_and_others_do_not(database: str) -> None:
    async with node(database) as running:
        running.runs.is_draining = True
        parent = await running.submit("echo", input={"messages": []})
        assert parent.status is RunStatus.PENDING
        caller = Caller(parent.run_id, parent.thread_id, 1, 5, b'{"identity":"alice"}')
        child = await running.runs.submit(
            RunRequest(assistant_id="echo", input={"messages": []}),
            run_id=RunId(uuid7()),
            thread_id=None,
            scope=EVERYONE,
            parent=caller,
        )
        assert (child.status, child.priority) == (RunStatus.RUNNING, 6)
        assert child.creator == b'{"identity":"alice"}'
