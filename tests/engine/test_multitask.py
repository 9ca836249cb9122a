"""A run that others make way for: `interrupt` and `rollback`, of a new run and of a cancellation."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from matins.domain.access import EVERYONE
from matins.domain.errors import NotFound
from matins.domain.ids import ThreadId
from matins.domain.runs import Run, RunStatus, StopReason
from matins.domain.threads import Thread
from matins.engine.priorities import Priorities
from matins.engine.runs import Runs
from matins.engine.webhooks.guard import Guard
from matins.manifest.webhooks import Webhooks
from matins.storage import checkpoints, threads
from tests.support.engine import Node, Twice, decoded, node, until
from tests.support.work import GRAPHS, Work

pytestmark = pytest.mark.anyio


async def thread_of(engine: Node, thread_id: ThreadId) -> Thread:
    found = await engine.pool.run(lambda conn: threads.get(conn, thread_id, scope=EVERYONE))
    assert found is not None
    return found


async def stored(engine: Node, thread_id: ThreadId) -> tuple[list[Any], ...]:
    """Everything that the database keeps of a thread's state."""
    own = await engine.fetch(
        'SELECT resting_status, "values", interrupts, error, state_updated_at FROM matins.thread'
        " WHERE thread_id = $1",
        thread_id,
    )
    langgraphs = [
        await engine.fetch(f"SELECT * FROM {table} WHERE thread_id = $1 ORDER BY {key}", str(thread_id))
        for table, key in (
            ("checkpoints", "checkpoint_ns, checkpoint_id"),
            ("checkpoint_blobs", "checkpoint_ns, channel, version"),
            ("checkpoint_writes", "checkpoint_ns, checkpoint_id, task_id, idx"),
        )
    ]
    return tuple([tuple(row) for row in found] for found in (own, *langgraphs))


async def status(engine: Node, run: Run) -> RunStatus | None:
    found = await engine.get(run.run_id)
    return None if found is None else found.status


async def gone(engine: Node, run: Run) -> None:
    async def is_gone() -> bool:
        return await engine.get(run.run_id) is None

    await until(is_gone)


async def asked(engine: Node, thread_id: ThreadId) -> dict[str, str]:
    """Give what the thread waits to be told: question -> id."""
    pending = decoded((await thread_of(engine, thread_id)).interrupts)
    return {each["value"]: each["id"] for task in pending.values() for each in task}


@pytest.mark.parametrize("strategy", ["interrupt", "rollback"])
async def test_on_an_idle_thread_nothing_makes_way(engine: Node, strategy: str) -> None:
    thread = await engine.thread()
    for _ in range(2):
        assert (await engine.wait("pair", thread_id=thread, multitask_strategy=strategy)) == {"done": 2}
    assert await engine.value("SELECT count(*) FROM matins.run WHERE thread_id = $1", thread) == 2


async def test_a_run_that_interrupts_ends_all_others_and_goes_on_from_what_they_left(
    engine: Node, work: Work
) -> None:
    thread = await engine.thread()
    first = await engine.submit("steps", thread_id=thread, input=work.input())
    waiting = [await engine.submit("pair", thread_id=thread) for _ in range(2)]
    work.allow(1)
    await work.reached(2)
    last = await engine.submit("steps", thread_id=thread, input={"steps": 2}, multitask_strategy="interrupt")
    assert (await engine.ended(first.run_id)).status is RunStatus.INTERRUPTED
    assert [await status(engine, run) for run in waiting] == [RunStatus.INTERRUPTED] * 2
    work.allow(9)
    assert (await engine.ended(last.run_id)).status is RunStatus.SUCCESS
    # The first step of the first run counts: the last one had only the second to do.
    assert work.started == [1, 2, 2]
    assert decoded((await thread_of(engine, thread)).values)["done"] == 2


async def test_a_run_that_rolls_back_undoes_all_others_and_goes_on_from_what_was_before(
    engine: Node, work: Work
) -> None:
    thread = await engine.thread()
    await engine.wait("pair", thread_id=thread)
    before = await stored(engine, thread)
    first = await engine.submit("steps", thread_id=thread, input=work.input(), stream_resumable=True)
    waiting = await engine.submit("pair", thread_id=thread)
    work.allow(1)
    await work.reached(2)
    last = await engine.submit("pair", thread_id=thread, multitask_strategy="rollback", after_seconds=3600)
    await gone(engine, first)
    assert await status(engine, waiting) is None
    assert await stored(engine, thread) == before
    events = "SELECT event FROM matins.stream_event WHERE thread_id = $1"
    assert await engine.fetch(f"{events} AND NOT of_thread", thread) == []
    assert (await thread_of(engine, thread)).status.value == "busy"
    await engine.runs.cancel(thread, last.run_id, scope=EVERYONE, wait=True, reason=StopReason.ROLLBACK)
    assert (await thread_of(engine, thread)).status.value == "idle"
    assert await stored(engine, thread) == before


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
async def test_a_cancellation_may_roll_back_a_running_run(engine: Node, work: Work, durability: str) -> None:
    thread = await engine.thread()
    await engine.wait("pair", thread_id=thread, interrupt_before=["second"])
    before = await stored(engine, thread)
    run = await engine.submit("steps", thread_id=thread, input=work.input(), durability=durability)
    work.allow(1)
    await work.reached(2)
    with anyio.fail_after(20):
        await engine.runs.cancel(thread, run.run_id, scope=EVERYONE, wait=True, reason=StopReason.ROLLBACK)
    assert await status(engine, run) is None
    assert await stored(engine, thread) == before
    assert (await thread_of(engine, thread)).status.value == "interrupted"
    with pytest.raises(NotFound):
        await engine.runs.cancel(thread, run.run_id, scope=EVERYONE, wait=True, reason=StopReason.ROLLBACK)


@pytest.mark.parametrize("graph", ["asking", "nested"])
async def test_an_answer_that_is_rolled_back_was_never_given(engine: Node, work: Work, graph: str) -> None:
    """Answers, and what the nodes then write, stand on checkpoints that were there before the run."""
    thread = await engine.thread()
    await engine.wait(graph, thread_id=thread, input={"folder": str(work.folder)})
    before = await stored(engine, thread)
    ids = await asked(engine, thread)
    answers = {ids["one?"]: "1", ids["once?"]: "3"}
    run = await engine.submit(graph, thread_id=thread, input=None, command={"resume": answers})
    await work.reached(1)
    await engine.runs.cancel(thread, run.run_id, scope=EVERYONE, wait=True, reason=StopReason.ROLLBACK)
    assert await stored(engine, thread) == before
    work.allow(1)
    await engine.wait(graph, thread_id=thread, input=None, command={"resume": answers})
    ids = await asked(engine, thread)
    assert set(ids) == {"two?"}
    reply = await engine.wait(graph, thread_id=thread, input=None, command={"resume": "2"})
    assert sorted(reply["heard"]) == ["1", "2", "3"]
    assert not await asked(engine, thread)


async def test_a_wish_to_undo_holds_also_for_a_run_that_ends_or_starts_anew_meanwhile(
    engine: Node, work: Work
) -> None:
    """The wish is on record before the lane hears of it; then the run ends as if nobody had asked."""
    thread = await engine.thread()
    await engine.wait("pair", thread_id=thread)
    before = await stored(engine, thread)
    run = await engine.submit("steps", thread_id=thread, input=work.input())
    await work.reached(1)
    async with engine.pool.connection() as conn:
        await conn.execute("UPDATE matins.run SET stop = 'rollback' WHERE run_id = $1", run.run_id)
    work.allow(9)
    await gone(engine, run)
    assert await stored(engine, thread) == before
    assert (await thread_of(engine, thread)).status.value == "idle"


async def test_a_run_that_went_back_into_the_queue_is_undone_whole(engine: Node, work: Work) -> None:
    thread = await engine.thread()
    run = await engine.submit("steps", thread_id=thread, input=work.input())
    work.allow(1)
    await work.reached(2)
    async with engine.pool.connection() as conn:
        await conn.execute(
            "UPDATE matins.run SET status = 'pending', node_id = NULL, due_at = matins.now() + interval '1 h'"
            " WHERE run_id = $1",
            run.run_id,
        )
    await engine.runs.cancel(thread, run.run_id, scope=EVERYONE, wait=True, reason=StopReason.ROLLBACK)
    assert await status(engine, run) is None
    assert await engine.fetch("SELECT FROM checkpoints WHERE thread_id = $1", str(thread)) == []


@pytest.mark.parametrize("reason", [StopReason.INTERRUPT, StopReason.ROLLBACK])
@pytest.mark.parametrize("runs_already", [True, False])
async def test_a_cancellation_whose_commit_was_not_answered_succeeds(
    engine: Node, work: Work, reason: StopReason, runs_already: bool
) -> None:
    thread = await engine.thread()
    run = await engine.submit(
        "steps", thread_id=thread, input=work.input(), after_seconds=0 if runs_already else 3600
    )
    doubtful = Runs(
        pool=Twice(engine.pool),
        workers=engine.workers,
        lanes=engine.lanes,
        hub=engine.hub,
        lease=engine.lease,
        following=engine.following,
        wakes=engine.wakes,
        webhooks=Guard(Webhooks()),
        priorities=Priorities(pool=engine.pool, workers=engine.workers),
    )
    await doubtful.cancel(thread, run.run_id, scope=EVERYONE, wait=True, reason=reason)
    left = await status(engine, run)
    assert left is (RunStatus.INTERRUPTED if reason is StopReason.INTERRUPT else None)


async def test_a_stateless_run_that_is_rolled_back_takes_its_thread_along(engine: Node, work: Work) -> None:
    run = await engine.submit("steps", input=work.input())
    await work.reached(1)
    await engine.runs.cancel(run.thread_id, run.run_id, scope=EVERYONE, wait=True, reason=StopReason.ROLLBACK)
    assert not await engine.fetch("SELECT FROM matins.thread WHERE thread_id = $1", run.thread_id)


async def test_an_answer_that_nothing_waits_for_is_refused_when_that_is_wished(
    engine: Node, work: Work
) -> None:
    thread = await engine.thread()
    await engine.wait("asking", thread_id=thread, input={"folder": str(work.folder)})
    before = await stored(engine, thread)
    unknown = {"0" * 32: "x"}
    reply = await engine.wait(
        "asking", thread_id=thread, input=None, command={"resume": unknown}, strict_resume=True
    )
    assert reply["__error__"]["error"] == "UnknownInterruptError"
    assert await stored(engine, thread) == before
    assert (await thread_of(engine, thread)).status.value == "interrupted"


async def test_what_is_kept_to_undo_a_run_is_forgotten_once_it_has_ended(engine: Node, work: Work) -> None:
    thread = await engine.thread()
    await engine.wait("asking", thread_id=thread, input={"folder": str(work.folder)})
    ids = await asked(engine, thread)
    work.allow(1)
    await engine.wait("asking", thread_id=thread, input=None, command={"resume": {ids["once?"]: "3"}})
    assert await engine.value("SELECT count(*) FROM matins.run_undo") > 0
    await engine.pool.run(checkpoints.forget_undo)
    assert await engine.value("SELECT count(*) FROM matins.run_undo") == 0


async def test_a_run_that_takes_too_long_is_ended(shared_database: str, work: Work) -> None:
    async with node(shared_database, GRAPHS, limit_s=0.1) as hasty:
        thread = await hasty.thread()
        reply = await hasty.wait("steps", thread_id=thread, input=work.input())
        assert reply == {
            "__error__": {"error": "TimeoutError", "message": "The run took longer than it may."}
        }
        [run] = await hasty.fetch("SELECT status, error FROM matins.run WHERE thread_id = $1", thread)
        assert run["status"] == "timeout"
        assert (await thread_of(hasty, thread)).status.value == "error"
