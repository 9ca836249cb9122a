from __future__ import annotations

from uuid import uuid4

import anyio
import pytest

from matins.domain.access import EVERYONE
from matins.domain.errors import LeaseLost
from matins.domain.ids import AssistantId, NodeId, RunId, ThreadId
from matins.domain.runs import NEXT, Change, Held, NewRun, Run, RunStatus, StopReason
from matins.storage import queue, runs, stops, threads
from matins.storage.pool import Conn, Pool
from tests.support import rows

pytestmark = pytest.mark.anyio

NODE = NodeId(uuid4())
SUCCESS = queue.End(Change.SUCCEEDED)


async def claim(pool: Pool, *, limit: int = 10, node_id: NodeId = NODE) -> list[Run]:
    heads = await pool.run(lambda conn: queue.heads(conn, limit=limit), transaction=False)
    return await pool.run(lambda conn: queue.claim(conn, heads, node_id=node_id, limit=limit))


async def status_of(pool: Pool, thread_id: ThreadId) -> str:
    found = await pool.run(lambda conn: threads.get(conn, thread_id, scope=EVERYONE))
    assert found is not None
    return found.status.value


async def get(pool: Pool, run_id: RunId) -> Run:
    found = await pool.run(lambda conn: runs.get(conn, run_id, thread_id=None, scope=EVERYONE))
    assert found is not None
    return found


async def settle(pool: Pool, held: Held, end: queue.End = SUCCESS) -> Run:
    settled = await pool.run(lambda conn: queue.settle(conn, held, end))
    assert settled is not None
    return settled


async def submit(conn: Conn, thread_id: ThreadId) -> RunId:
    """Submit as the engine does: the thread's row first."""
    await threads.lock(conn, thread_id, scope=EVERYONE)
    new = NewRun(
        run_id=RunId(uuid4()),
        thread_id=thread_id,
        assistant_id=AssistantId(uuid4()),
        metadata=b"{}",
        kwargs=b"{}",
    )
    run = await runs.insert(conn, new, scope=EVERYONE, claimed_by=None)
    await threads.occupy(conn, thread_id, metadata=b"{}", config=None)
    return run.run_id


async def test_the_first_of_a_thread_is_the_most_urgent_then_the_oldest(pool: Pool) -> None:
    async with pool.connection() as conn:
        thread = await rows.thread(conn)
        cron = await rows.pending(conn, thread, priority=-1)
        first = await rows.pending(conn, thread)
        second = await rows.pending(conn, thread)
        child = await rows.pending(conn, thread, priority=1)
    order = []
    for _ in range(4):
        [run] = await claim(pool)
        order.append(run.run_id)
        await settle(pool, run.held)
    assert order == [child, first, second, cron]
    assert await claim(pool) == []


async def test_what_is_less_urgent_than_asked_for_is_no_head(pool: Pool) -> None:
    async with pool.connection() as conn:
        for_cron, for_person, for_both = [await rows.thread(conn) for _ in range(3)]
        for thread, urgency in ((for_cron, -1), (for_person, 0), (for_both, -1), (for_both, 0)):
            await rows.pending(conn, thread, priority=urgency)
        crashed = await rows.thread(conn)
        await rows.pending(conn, crashed, priority=-1)
        await conn.execute("UPDATE matins.run SET crashes = 1 WHERE thread_id = $1", crashed)
    urgent = await pool.run(lambda conn: queue.heads(conn, limit=10, least_priority=0))
    assert [head.thread_id for head in urgent] == [for_person, for_both]
    every = await pool.run(lambda conn: queue.heads(conn, limit=10))
    assert {head.thread_id for head in every} == {for_cron, for_person, for_both, crashed}


async def test_between_threads_the_most_urgent_then_the_oldest_goes_first(pool: Pool) -> None:
    async with pool.connection() as conn:
        made = [
            await rows.pending(conn, await rows.thread(conn), priority=urgency) for urgency in (-1, 0, 1, 0)
        ]
    order = [(await claim(pool, limit=1))[0].run_id for _ in made]
    assert order == [made[2], made[1], made[3], made[0]]


async def test_a_head_that_is_not_yet_due_holds_its_thread_back_and_no_other(pool: Pool) -> None:
    async with pool.connection() as conn:
        waiting = await rows.thread(conn)
        await rows.pending(conn, waiting, due_in_s=600)
        await rows.pending(conn, waiting)
        other = await rows.pending(conn, await rows.thread(conn))
    assert [run.run_id for run in await claim(pool)] == [other]
    seconds = await pool.run(queue.seconds_to_next_due)
    assert seconds is not None
    assert 590 < seconds <= 600


async def test_nothing_is_due_when_nothing_waits_for_its_time(pool: Pool) -> None:
    async with pool.connection() as conn:
        await rows.pending(conn, await rows.thread(conn))
    assert await pool.run(queue.seconds_to_next_due) is None


async def test_a_thread_that_somebody_holds_is_passed_over_even_when_it_is_first(pool: Pool) -> None:
    async with pool.connection() as conn:
        held = await rows.thread(conn)
        await rows.pending(conn, held)
        free = await rows.pending(conn, await rows.thread(conn))
    heads = await pool.run(lambda conn: queue.heads(conn, limit=10))
    async with pool.transaction() as holder:
        await threads.lock(holder, held, scope=EVERYONE)
        with anyio.fail_after(2):
            claimed = await pool.run(lambda conn: queue.claim(conn, heads, node_id=NODE, limit=1))
    assert [run.run_id for run in claimed] == [free]


async def test_a_run_is_claimed_by_one_of_many_that_race_for_it(pool: Pool) -> None:
    async with pool.connection() as conn:
        made = {await rows.pending(conn, await rows.thread(conn)) for _ in range(40)}
    claimed: list[RunId] = []

    async def race() -> None:
        node_id = NodeId(uuid4())
        while found := await claim(pool, limit=7, node_id=node_id):
            claimed.extend(run.run_id for run in found)

    async with anyio.create_task_group() as group:
        for _ in range(5):
            group.start_soon(race)
    claimed += [
        run.run_id for run in await claim(pool, limit=100)
    ]  # what each left to another that let go of it
    assert len(claimed) == len(set(claimed))
    assert set(claimed) == made


async def test_a_claim_is_a_new_attempt_and_keeps_the_first_start(pool: Pool) -> None:
    async with pool.connection() as conn:
        await rows.pending(conn, await rows.thread(conn))
    [first] = await claim(pool)
    await pool.run(lambda conn: queue.release(conn, [first.held], charge=0))
    [second] = await claim(pool)
    assert (first.attempt, second.attempt) == (1, 2)
    assert second.started_at == first.started_at


async def test_at_most_one_run_of_a_thread_runs_whatever_happens_at_once(pool: Pool) -> None:
    async with pool.connection() as conn:
        ids = [await rows.thread(conn) for _ in range(3)]
    settled = []
    submitted = anyio.Event()

    async def submitter(number: int) -> None:
        await pool.run(lambda conn: submit(conn, ids[number % 3]))

    async def worker() -> None:
        while True:
            is_over = submitted.is_set()
            found = await claim(pool, limit=2)
            for run in found:
                async with pool.connection() as conn:
                    running = await conn.fetchval(
                        "SELECT count(*) FROM matins.run WHERE thread_id = $1 AND status = 'running'",
                        run.thread_id,
                    )
                assert running == 1
                await settle(pool, run.held)
                settled.append(run.run_id)
            if is_over and not found:
                return

    with anyio.fail_after(60):
        async with anyio.create_task_group() as group:
            for _ in range(4):
                group.start_soon(worker)
            async with anyio.create_task_group() as submitters:
                for number in range(50):
                    submitters.start_soon(submitter, number)
            submitted.set()
    while found := await claim(pool):  # a worker stops when another holds what is left
        for run in found:
            await settle(pool, run.held)
            settled.append(run.run_id)
    assert len(settled) == len(set(settled)) == 50
    assert {await status_of(pool, thread_id) for thread_id in ids} == {"idle"}


async def test_an_idle_thread_never_has_a_run_that_waits(pool: Pool) -> None:
    async with pool.connection() as conn:
        thread = await rows.thread(conn)
    for _ in range(25):  # a settle and a submission that meet
        await pool.run(lambda conn: submit(conn, thread))
        [run] = await claim(pool)
        async with anyio.create_task_group() as group:
            group.start_soon(settle, pool, run.held)
            group.start_soon(pool.run, lambda conn: submit(conn, thread))
        assert await status_of(pool, thread) == "busy"
        [next_run] = await claim(pool)
        await settle(pool, next_run.held)
        assert await status_of(pool, thread) == "idle"


@pytest.mark.parametrize(
    ("end", "status", "resting"),
    [
        (queue.End(Change.SUCCEEDED), "success", "idle"),
        (queue.End(Change.SUCCEEDED, has_next=True), "success", "interrupted"),
        (queue.End(Change.FAILED, error=b'{"error":"E","message":"m"}'), "error", "error"),
        (queue.End(Change.TIMED_OUT, error=b"{}"), "timeout", "error"),
        (queue.End(Change.STOPPED, has_next=True), "interrupted", "interrupted"),
        (queue.End(Change.STOPPED), "interrupted", "idle"),
    ],
    ids=lambda part: part.change.value if isinstance(part, queue.End) else part,
)
async def test_settling_ends_the_run_and_gives_the_thread_its_status(
    pool: Pool, end: queue.End, status: str, resting: str
) -> None:
    async with pool.connection() as conn:
        held = await rows.running(conn)
    run = await settle(pool, held, end)
    assert (run.status.value, await status_of(pool, held.thread_id)) == (status, resting)
    assert run.ended_at is not None


async def test_settling_writes_what_the_thread_shows_and_keeps_what_it_is_not_told(pool: Pool) -> None:
    async with pool.connection() as conn:
        held = await rows.running(conn)
    await settle(
        pool, held, queue.End(Change.SUCCEEDED, values=b'{"a":1}', interrupts=b'{"t":[]}', event_seq=7)
    )
    async with pool.connection() as conn:
        await rows.pending(conn, held.thread_id)
    [run] = await claim(pool)
    await settle(pool, run.held, queue.End(Change.FAILED, error=b'{"error":"E","message":"m"}', event_seq=3))
    thread = await pool.run(lambda conn: threads.get(conn, held.thread_id, scope=EVERYONE))
    assert thread is not None
    assert (thread.values, thread.interrupts) == (b'{"a": 1}', b'{"t":[]}')
    assert thread.error == b'{"error":"E","message":"m"}'
    async with pool.connection() as conn:
        assert await conn.fetchval("SELECT event_seq FROM matins.thread") == 7


async def test_a_thread_with_more_to_do_stays_busy_and_its_next_run_can_be_claimed(pool: Pool) -> None:
    async with pool.connection() as conn:
        thread = await rows.thread(conn)
        await rows.pending(conn, thread)
        second = await rows.pending(conn, thread)
    [first] = await claim(pool)
    assert await claim(pool) == []
    await settle(pool, first.held)
    assert await status_of(pool, thread) == "busy"
    assert [run.run_id for run in await claim(pool)] == [second]


@pytest.mark.parametrize("attempt", [0, 1, 3])
async def test_a_settle_of_another_attempt_changes_nothing(pool: Pool, attempt: int) -> None:
    async with pool.connection() as conn:
        held = await rows.running(conn)
        await rows.take_away(conn, held)
        before = [tuple(row) for row in await conn.fetch("SELECT * FROM matins.run, matins.thread")]
    with pytest.raises(LeaseLost):
        await settle(pool, Held(held.run_id, held.thread_id, attempt))
    async with pool.connection() as conn:
        assert [tuple(row) for row in await conn.fetch("SELECT * FROM matins.run, matins.thread")] == before


async def test_what_was_settled_once_is_not_settled_again(pool: Pool) -> None:
    async with pool.connection() as conn:
        held = await rows.running(conn)
    await settle(pool, held)
    assert await pool.run(lambda conn: queue.was_settled(conn, held))
    with pytest.raises(LeaseLost):
        await settle(pool, held, queue.End(Change.FAILED))
    assert (await get(pool, held.run_id)).status is RunStatus.SUCCESS


async def test_whether_an_attempt_settled_its_run_can_be_told(pool: Pool) -> None:
    async with pool.connection() as conn:
        held = await rows.running(conn)
        assert not await queue.was_settled(conn, held)
        await rows.take_away(conn, held)
        assert not await queue.was_settled(conn, held)
        await conn.execute("DELETE FROM matins.run")
        assert await queue.was_settled(conn, held)


async def test_a_temporary_run_takes_its_thread_with_its_checkpoints_along(pool: Pool) -> None:
    async with pool.connection() as conn:
        thread, bystander = await rows.thread(conn), await rows.thread(conn)
        run_id = await rows.pending(conn, thread, temporary=True)
        for each in (thread, bystander):
            await conn.execute(
                "INSERT INTO checkpoints (thread_id, checkpoint_id, checkpoint) VALUES ($1, 'a', '{}')",
                str(each),
            )
            await conn.execute(
                "INSERT INTO checkpoint_blobs (thread_id, channel, version, type) VALUES ($1, 'c', '1', 'empty')",
                str(each),
            )
            await conn.execute(
                "INSERT INTO checkpoint_writes (thread_id, checkpoint_id, task_id, idx, channel, blob)"
                " VALUES ($1, 'a', 't', 0, 'c', '')",
                str(each),
            )
    [run] = await claim(pool)
    await settle(pool, run.held)
    async with pool.connection() as conn:
        assert await runs.get(conn, run_id, thread_id=None, scope=EVERYONE) is None
        assert await threads.get(conn, thread, scope=EVERYONE) is None
        for table in ("checkpoints", "checkpoint_blobs", "checkpoint_writes"):
            left = await conn.fetch(f"SELECT thread_id FROM {table}")
            assert [row["thread_id"] for row in left] == [str(bystander)]


async def test_a_released_run_waits_again_charged_as_told_and_keeps_the_wish_to_stop(pool: Pool) -> None:
    async with pool.connection() as conn:
        held = await rows.running(conn)
        await stops.stop(conn, held.run_id, StopReason.INTERRUPT)
    [released] = await pool.run(lambda conn: queue.release(conn, [held], charge=1))
    assert (released.held, released.crashes, released.stop) == (held, 1, StopReason.INTERRUPT)
    run = await get(pool, held.run_id)
    assert (run.status, run.crashes, run.attempt) == (RunStatus.PENDING, 1, 1)
    assert await status_of(pool, held.thread_id) == "busy"
    assert await pool.run(lambda conn: queue.release(conn, [held], charge=1)) == []
    assert (await get(pool, held.run_id)).crashes == 1
    [again] = await claim(pool)
    assert (again.attempt, again.stop) == (2, StopReason.INTERRUPT)


async def test_a_stale_attempt_releases_nothing(pool: Pool) -> None:
    async with pool.connection() as conn:
        held = await rows.running(conn)
        await rows.take_away(conn, held)
    assert await pool.run(lambda conn: queue.release(conn, [held], charge=1)) == []
    assert (await get(pool, held.run_id)).status is RunStatus.RUNNING


@pytest.mark.parametrize("status", RunStatus)
@pytest.mark.parametrize("change", Change)
async def test_the_database_changes_a_run_only_as_the_table_says(
    pool: Pool, status: RunStatus, change: Change
) -> None:
    async with pool.connection() as conn:
        held = await rows.running(conn)
        await conn.execute(
            "UPDATE matins.run SET status = $2, node_id = CASE WHEN $2 = 'running' THEN node_id END,"
            " ended_at = CASE WHEN $2 NOT IN ('pending', 'running') THEN now() END WHERE run_id = $1",
            held.run_id,
            status.value,
        )

    async def happen(conn: Conn) -> None:
        match change:
            case Change.CLAIMED:
                await queue.claim(conn, [queue.Head(held.thread_id, 0)], node_id=NODE, limit=1)
            case Change.RELEASED:
                await queue.release(conn, [held], charge=0)
            case Change.CANCELLED:
                if status is RunStatus.PENDING:  # else it would be asked to stop
                    await stops.stop(conn, held.run_id, StopReason.INTERRUPT)
            case _:
                await queue.settle(conn, held, queue.End(change))

    try:
        await pool.run(happen)
    except LeaseLost:
        assert (status, change) not in NEXT
    assert (await get(pool, held.run_id)).status is NEXT.get((status, change), status)


async def test_a_node_finds_what_it_holds_and_what_it_should_stop(pool: Pool) -> None:
    async with pool.connection() as conn:
        for _ in range(2):
            await rows.pending(conn, await rows.thread(conn))
    first, second = await claim(pool)
    async with pool.connection() as conn:
        for reason in (StopReason.INTERRUPT, StopReason.ROLLBACK, StopReason.INTERRUPT):
            assert await stops.stop(conn, second.run_id, reason) is RunStatus.RUNNING
        found = {claimed.held: claimed for claimed in await queue.held_by(conn, NODE)}
        assert await queue.held_by(conn, NodeId(uuid4())) == []
    assert set(found) == {first.held, second.held}
    assert found[first.held].stop is None
    assert found[second.held].stop is StopReason.ROLLBACK  # it outdoes the other, before and after it


async def test_runs_of_nodes_without_a_lease_are_found_and_no_others(pool: Pool) -> None:
    alive, expired, unknown, condemned, me = (NodeId(uuid4()) for _ in range(5))
    held: dict[NodeId, Held] = {}
    async with pool.connection() as conn:
        for node_id in (alive, expired, unknown, condemned, me):
            held[node_id] = await rows.running(conn)
            await conn.execute(
                "UPDATE matins.run SET node_id = $2 WHERE run_id = $1", held[node_id].run_id, node_id
            )
        for node_id in (alive, expired, condemned, me):
            await queue.renew(conn, node_id=node_id, name="n", version="0")
        await conn.execute(
            "UPDATE matins.node SET lease_until = now() - interval '1s' WHERE node_id = ANY($1)",
            [expired, me],
        )
        without = await queue.of_dead_nodes(conn, node_id=me, known_dead=None, limit=10)
        known = await queue.of_dead_nodes(conn, node_id=me, known_dead=[condemned], limit=10)
        others = await queue.other_nodes(conn, me)
    assert set(without) == {held[expired], held[unknown]}
    assert known == [held[condemned]]  # and not what any other may still hold
    assert set(others) == {alive, expired, unknown, condemned}


async def test_a_lease_that_ran_out_begins_a_new_tenure(pool: Pool) -> None:
    async with pool.connection() as conn:
        assert await queue.renew(conn, node_id=NODE, name="n", version="0") < 1
        await conn.execute("UPDATE matins.node SET leased_since = leased_since - interval '20s'")
        assert await queue.renew(conn, node_id=NODE, name="n", version="0") > 20
        await conn.execute("UPDATE matins.node SET lease_until = now() - interval '1s'")
        assert await queue.renew(conn, node_id=NODE, name="n", version="0") < 1
        await conn.execute("UPDATE matins.node SET lease_until = now() - interval '61min'")
        await queue.forget_nodes(conn)
        assert await queue.other_nodes(conn, NodeId(uuid4())) == []


async def test_a_thread_shows_the_error_of_a_run_that_left_no_state(pool: Pool) -> None:
    """What a thread shows of errors and interrupts begins with its first run, whatever became of that."""
    async with pool.connection() as conn:
        held = await rows.running(conn)
    await settle(pool, held, queue.End(Change.FAILED, error=b'{"error":"E","message":"m"}'))
    thread = await pool.run(lambda conn: threads.get(conn, held.thread_id, scope=EVERYONE))
    assert thread is not None
    assert (thread.values, thread.interrupts, thread.error) == (None, b"{}", b'{"error":"E","message":"m"}')
