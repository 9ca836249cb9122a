from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from uuid import uuid4

import anyio
import pytest

from matins.domain.access import EVERYONE
from matins.domain.errors import Invalid, NotFound, RunNotFound, ThreadBusy
from matins.domain.ids import RunId, ThreadId, system_assistant_id, uuid7
from matins.domain.runs import Run, RunStatus
from matins.domain.threads import ThreadStatus
from matins.engine.priorities import Priorities
from matins.engine.requests import RunRequest
from matins.engine.runs import Runs
from matins.engine.webhooks.guard import Guard
from matins.manifest.webhooks import Webhooks
from matins.storage import threads
from tests.support.engine import Node, Twice, create_cron, decoded, until
from tests.support.work import Work

pytestmark = pytest.mark.anyio

GRAPHS = Path(__file__).parent / "graphs" / "langgraph.json"


async def thread_status(engine: Node, thread_id: ThreadId) -> ThreadStatus:
    found = await engine.pool.run(lambda conn: threads.get(conn, thread_id, scope=EVERYONE))
    assert found is not None
    return found.status


async def has_let_go(engine: Node, run_id: RunId) -> None:
    async def gone() -> bool:
        return not engine.lanes.holds(run_id)

    await until(gone)


async def is_gone(engine: Node, thread_id: ThreadId) -> bool:
    return not await engine.fetch("SELECT FROM matins.thread WHERE thread_id = $1", thread_id)


# -- submit


async def test_a_run_on_an_idle_thread_starts_at_once_and_the_next_waits_for_it(
    engine: Node, work: Work
) -> None:
    thread = await engine.thread()
    first = await engine.submit("steps", thread_id=thread, input=work.input())
    second = await engine.submit("pair", thread_id=thread)
    assert (first.status, second.status) == (RunStatus.RUNNING, RunStatus.PENDING)
    await work.reached(1)
    assert await thread_status(engine, thread) is ThreadStatus.BUSY
    work.allow(9)
    ended = [await engine.ended(run.run_id) for run in (first, second)]
    assert [run.status for run in ended] == [RunStatus.SUCCESS] * 2
    assert ended[1].started_at is not None
    assert ended[0].ended_at is not None
    assert ended[1].started_at > ended[0].ended_at
    assert work.started == [1, 2, 3]
    assert await thread_status(engine, thread) is ThreadStatus.IDLE


async def test_who_will_not_wait_is_refused_on_a_busy_thread_and_leaves_nothing(
    engine: Node, work: Work
) -> None:
    thread = await engine.thread()
    run = await engine.submit("steps", thread_id=thread, input=work.input())
    with pytest.raises(ThreadBusy):
        await engine.submit("pair", thread_id=thread, multitask_strategy="reject")
    work.allow(9)
    await engine.ended(run.run_id)
    after = await engine.submit("pair", thread_id=thread, multitask_strategy="reject")
    await engine.ended(after.run_id)
    assert await engine.value("SELECT count(*) FROM matins.run WHERE thread_id = $1", thread) == 2


async def test_a_refused_run_gives_its_lane_back(engine: Node) -> None:
    free = engine.workers.free_lanes()
    for graph in ("nobody", str(uuid4())):
        with pytest.raises((NotFound, Invalid)):
            await engine.submit(graph)
    assert engine.workers.free_lanes() == free


async def test_an_assistant_is_named_by_its_graph_or_its_id(engine: Node) -> None:
    assert (await engine.wait("pair"))["done"] == 2
    assert (await engine.wait(str(system_assistant_id("pair"))))["done"] == 2
    with pytest.raises(Invalid, match="pair, steps"):
        await engine.submit("nobody")
    with pytest.raises(NotFound):
        await engine.submit(str(uuid4()))


async def test_a_thread_that_is_not_there_is_made_only_when_asked_for(engine: Node) -> None:
    thread = ThreadId(uuid7())
    with pytest.raises(NotFound):
        await engine.submit("pair", thread_id=thread)
    assert await is_gone(engine, thread)
    run = await engine.submit("pair", thread_id=thread, if_not_exists="create")
    assert (await engine.ended(run.run_id)).status is RunStatus.SUCCESS
    assert await thread_status(engine, thread) is ThreadStatus.IDLE


async def test_many_that_make_the_same_thread_at_once_all_run_one_by_one(engine: Node) -> None:
    thread = ThreadId(uuid7())
    made: list[Run] = []

    async def submit() -> None:
        made.append(await engine.submit("pair", thread_id=thread, if_not_exists="create"))

    async with anyio.create_task_group() as group:
        for _ in range(8):
            group.start_soon(submit)
    ended = [await engine.ended(run.run_id) for run in made]
    assert {run.status for run in ended} == {RunStatus.SUCCESS}
    assert await thread_status(engine, thread) is ThreadStatus.IDLE


async def test_a_run_for_later_waits_for_its_time(engine: Node) -> None:
    run = await engine.submit("pair", thread_id=await engine.thread(), after_seconds=1)
    assert run.status is RunStatus.PENDING
    ended = await engine.ended(run.run_id)
    assert ended.started_at is not None
    assert 0 <= (ended.started_at - run.due_at).total_seconds() < 0.5


async def test_more_runs_than_lanes_all_end(engine: Node) -> None:
    made = [await engine.submit("pair", thread_id=await engine.thread()) for _ in range(40)]
    assert {(await engine.ended(run.run_id)).status for run in made} == {RunStatus.SUCCESS}
    assert engine.workers.free_lanes() == 10


async def test_a_run_without_a_thread_leaves_nothing_unless_it_is_kept(engine: Node) -> None:
    run = await engine.submit("pair")
    kept = await engine.submit("pair", on_completion="keep")
    assert (await engine.ended(kept.run_id)).status is RunStatus.SUCCESS
    await has_let_go(engine, run.run_id)
    assert await is_gone(engine, run.thread_id)
    assert not await is_gone(engine, kept.thread_id)


async def test_a_thread_at_a_breakpoint_rests_interrupted_also_after_a_run_that_never_started(
    engine: Node,
) -> None:
    thread = await engine.thread()
    await engine.wait("pair", thread_id=thread, interrupt_before=["second"])
    assert await thread_status(engine, thread) is ThreadStatus.INTERRUPTED
    later = await engine.submit("pair", thread_id=thread, after_seconds=3600)
    assert await thread_status(engine, thread) is ThreadStatus.BUSY
    await engine.runs.cancel(thread, later.run_id, scope=EVERYONE, wait=False)
    assert await thread_status(engine, thread) is ThreadStatus.INTERRUPTED


# -- cancel and delete


async def test_a_running_run_is_cancelled_and_its_thread_goes_on(engine: Node, work: Work) -> None:
    thread = await engine.thread()
    run = await engine.submit("steps", thread_id=thread, input=work.input())
    waiting = await engine.submit("pair", thread_id=thread)
    await work.reached(1)
    with anyio.fail_after(5):
        await engine.runs.cancel(thread, run.run_id, scope=EVERYONE, wait=True)
    stopped = await engine.get(run.run_id)
    assert stopped is not None
    assert stopped.status is RunStatus.INTERRUPTED
    assert (await engine.ended(waiting.run_id)).status is RunStatus.SUCCESS
    assert work.started == [1]


async def test_a_pending_run_is_cancelled_without_ever_starting(engine: Node, work: Work) -> None:
    thread = await engine.thread()
    run = await engine.submit("steps", thread_id=thread, input=work.input())
    waiting = await engine.submit("pair", thread_id=thread)
    await engine.runs.cancel(thread, waiting.run_id, scope=EVERYONE, wait=True)
    cancelled = await engine.get(waiting.run_id)
    assert cancelled is not None
    assert (cancelled.status, cancelled.attempt) == (RunStatus.INTERRUPTED, 0)
    work.allow(9)
    await engine.ended(run.run_id)
    assert await thread_status(engine, thread) is ThreadStatus.IDLE


async def test_a_cancelled_temporary_run_takes_its_thread_along(engine: Node) -> None:
    for act in (engine.runs.delete, lambda *at, **how: engine.runs.cancel(*at, **how, wait=False)):
        run = await engine.submit("pair", after_seconds=3600)
        await act(run.thread_id, run.run_id, scope=EVERYONE)
        assert await is_gone(engine, run.thread_id)


async def test_what_has_ended_or_never_was_cannot_be_cancelled(engine: Node) -> None:
    thread = await engine.thread()
    run = await engine.submit("pair", thread_id=thread)
    await engine.ended(run.run_id)
    for run_id in (run.run_id, RunId(uuid7())):
        with pytest.raises(NotFound):
            await engine.runs.cancel(thread, run_id, scope=EVERYONE, wait=False)


async def test_a_running_run_that_is_deleted_stops_and_writes_nothing_more(engine: Node, work: Work) -> None:
    thread = await engine.thread()
    run = await engine.submit("steps", thread_id=thread, input=work.input())
    await work.reached(1)
    await engine.runs.delete(thread, run.run_id, scope=EVERYONE)
    work.allow(9)
    await has_let_go(engine, run.run_id)
    assert await engine.get(run.run_id) is None
    assert work.started == [1]
    assert await thread_status(engine, thread) is ThreadStatus.IDLE
    with pytest.raises(RunNotFound):
        await engine.runs.delete(thread, run.run_id, scope=EVERYONE)


async def test_a_run_whose_thread_is_deleted_is_stopped(engine: Node, work: Work) -> None:
    thread = await engine.thread()
    run = await engine.submit("steps", thread_id=thread, input=work.input())
    await work.reached(1)
    await engine.pool.run(lambda conn: threads.delete(conn, [thread], scope=EVERYONE))
    await has_let_go(engine, run.run_id)  # it waits for leave and would never have written
    assert work.started == [1]


async def test_a_wish_to_stop_that_a_lane_did_not_hear_is_heard(engine: Node, work: Work) -> None:
    """As when another node was asked."""
    thread = await engine.thread()
    run = await engine.submit("steps", thread_id=thread, input=work.input())
    await work.reached(1)
    async with engine.pool.connection() as conn:
        await conn.execute(
            "UPDATE matins.run SET stop = 'interrupt', stop_at = matins.now() WHERE run_id = $1", run.run_id
        )
    assert (await engine.ended(run.run_id)).status is RunStatus.INTERRUPTED


@pytest.mark.parametrize("stops", [["second"], []])
async def test_a_run_that_is_stopped_on_its_way_back_leaves_what_is_saved(
    engine: Node, stops: list[str]
) -> None:
    """As when its process died before it had heard that it was cancelled."""
    thread = await engine.thread()
    if stops:
        await engine.wait("pair", thread_id=thread, interrupt_before=stops)
    run = await engine.submit("pair", thread_id=thread, after_seconds=3600)
    async with engine.pool.connection() as conn:
        await conn.execute('UPDATE matins.thread SET "values" = NULL')
        await conn.execute(
            "UPDATE matins.run SET stop = 'interrupt', stop_at = matins.now(), attempt = 1, due_at = matins.now()"
            " WHERE run_id = $1",
            run.run_id,
        )
    engine.wakes.claims()
    assert (await engine.ended(run.run_id)).status is RunStatus.INTERRUPTED
    [row] = await engine.fetch('SELECT status, "values" FROM matins.thread WHERE thread_id = $1', thread)
    assert row["status"] == (ThreadStatus.INTERRUPTED if stops else ThreadStatus.IDLE)
    assert decoded(row["values"]) == ({"done": 1} if stops else None)


# -- the fence


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
async def test_a_run_that_is_taken_away_starts_no_further_node_and_settles_nothing(
    engine: Node, work: Work, durability: str
) -> None:
    thread = await engine.thread()
    work.allow(1)
    run = await engine.submit("steps", thread_id=thread, input=work.input(9), durability=durability)
    await work.reached(2)
    async with engine.pool.connection() as conn:  # by a node that lives
        other = uuid4()
        await conn.execute(
            "INSERT INTO matins.node (node_id, name, version, lease_until)"
            " VALUES ($1, 'other', '0', matins.now() + interval '1h')",
            other,
        )
        await conn.execute(
            "UPDATE matins.run SET attempt = attempt + 1, node_id = $2 WHERE run_id = $1", run.run_id, other
        )
    facts = "SELECT r::text, t::text, (SELECT count(*) FROM checkpoints WHERE thread_id = $1::uuid::text)"
    facts += " FROM matins.run r JOIN matins.thread t USING (thread_id) WHERE thread_id = $1"
    before = await engine.fetch(facts, thread)
    work.allow(9)
    await has_let_go(engine, run.run_id)
    assert work.started == [1, 2]
    assert await engine.fetch(facts, thread) == before
    await engine.pool.run(lambda conn: threads.delete(conn, [thread], scope=EVERYONE))


# -- the reaper


async def test_a_claim_whose_commit_was_not_answered_goes_back_and_runs(engine: Node) -> None:
    run = await engine.later("pair")
    await engine.take(run, engine.lease.node_id)
    ended = await engine.ended(run.run_id)
    assert (ended.status, ended.attempt, ended.crashes) == (RunStatus.SUCCESS, 2, 0)


# -- a COMMIT whose reply was lost: the work is done, and is done again


def repeating(engine: Node, between: Callable[[], Awaitable[None]] | None = None) -> Runs:
    return Runs(
        pool=Twice(engine.pool, between),
        workers=engine.workers,
        lanes=engine.lanes,
        hub=engine.hub,
        following=engine.following,
        lease=engine.lease,
        wakes=engine.wakes,
        webhooks=Guard(Webhooks()),
        priorities=Priorities(pool=engine.pool, workers=engine.workers),
    )


async def test_a_submission_that_is_repeated_is_one_run_that_starts_at_once(engine: Node) -> None:
    run = await repeating(engine).submit(
        RunRequest(assistant_id="pair", input={"done": 0}, if_not_exists="create"),
        run_id=RunId(uuid7()),
        thread_id=ThreadId(uuid7()),
        scope=EVERYONE,
    )
    ended = await engine.ended(run.run_id)
    assert (ended.status, ended.attempt) == (RunStatus.SUCCESS, 1)
    assert await engine.value("SELECT count(*) FROM matins.run WHERE thread_id = $1", run.thread_id) == 1


async def test_a_submission_that_is_repeated_starts_nothing_that_another_node_holds_by_now(
    engine: Node, work: Work
) -> None:
    run_id, thread_id = RunId(uuid7()), ThreadId(uuid7())

    async def reaped() -> None:
        async with engine.pool.connection() as conn:
            await conn.execute(
                "UPDATE matins.run SET attempt = 2, node_id = $2 WHERE run_id = $1", run_id, uuid4()
            )

    free = engine.workers.free_lanes()
    run = await repeating(engine, reaped).submit(
        RunRequest(assistant_id="steps", input=work.input(), if_not_exists="create"),
        run_id=run_id,
        thread_id=thread_id,
        scope=EVERYONE,
    )
    assert run.attempt == 2
    assert not engine.lanes.holds(run_id)
    assert engine.workers.free_lanes() == free
    await engine.pool.run(lambda conn: threads.delete(conn, [thread_id], scope=EVERYONE))
    assert work.started == []


async def test_a_cancellation_and_a_deletion_can_be_repeated(engine: Node, work: Work) -> None:
    runs = repeating(engine)
    pending = await engine.later("pair")
    await runs.cancel(pending.thread_id, pending.run_id, scope=EVERYONE, wait=True)
    cancelled = await engine.get(pending.run_id)
    assert cancelled is not None
    assert cancelled.status is RunStatus.INTERRUPTED
    await runs.delete(pending.thread_id, pending.run_id, scope=EVERYONE)
    assert await engine.get(pending.run_id) is None
    temporary = await engine.submit("pair", after_seconds=3600)
    await runs.delete(temporary.thread_id, temporary.run_id, scope=EVERYONE)
    assert await is_gone(engine, temporary.thread_id)


# -- crons, to the end


async def test_a_cron_on_a_thread_runs_there_at_each_slot(engine: Node) -> None:
    thread = await engine.thread()
    cron = await create_cron(
        engine.pool,
        "@every 1s",
        thread_id=thread,
        graphs=engine.workers,
        assistant="pair",
        payload={"input": {"done": 0}},
    )
    engine.due()

    async def twice() -> bool:
        ended = "SELECT count(*) FROM matins.run WHERE cron_id = $1 AND status = 'success'"
        return bool(await engine.value(ended, cron.cron_id) >= 2)

    await until(twice)
    late = await engine.value(
        "SELECT max(extract(epoch FROM started_at - scheduled_for)) FROM matins.run WHERE cron_id = $1",
        cron.cron_id,
    )
    assert late < 0.5
    found = await engine.pool.run(lambda conn: threads.get(conn, thread, scope=EVERYONE))
    assert found is not None
    assert json.loads(found.values or b"null")["done"] == 2
    await engine.pool.run(lambda conn: threads.delete(conn, [thread], scope=EVERYONE))
