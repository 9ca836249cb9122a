from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

import msgspec
import pytest

from matins.domain.access import EVERYONE, Scope
from matins.domain.errors import LeaseLost
from matins.domain.ids import RunId, ThreadId
from matins.domain.runs import Change, Held, RunStatus, StopReason
from matins.domain.webhooks import DeliveryStatus
from matins.storage import queue, runs, stops, threads, webhooks
from matins.storage.pool import Conn, Pool
from matins.storage.webhooks import Filter
from tests.support import rows

pytestmark = pytest.mark.anyio

URL = "https://hooks.com/x"
HOOKED = b'{"webhook":"https://hooks.com/x"}'
DAY = 24 * 3600.0


async def running(conn: Conn, *, temporary: bool = False, owner: str = "") -> Held:
    """A run with a webhook, under way."""
    held = await rows.running(conn)
    await conn.execute(
        "UPDATE matins.run SET kwargs = $2, temporary = $3, owner = $4 WHERE run_id = $1",
        held.run_id, HOOKED, temporary, owner,
    )  # fmt: skip
    return held


async def pending(conn: Conn, *, temporary: bool = False) -> tuple[ThreadId, RunId]:
    """A run with a webhook that waits, on a thread with a state."""
    thread_id = await rows.thread(conn)
    await conn.execute('UPDATE matins.thread SET "values" = $2 WHERE thread_id = $1', thread_id, b'{"x":1}')
    run_id = await rows.pending(conn, thread_id, temporary=temporary)
    await conn.execute("UPDATE matins.run SET kwargs = $2 WHERE run_id = $1", run_id, HOOKED)
    return thread_id, run_id


async def reports(conn: Conn, run_id: RunId) -> list[Any]:
    found = await conn.fetch("SELECT payload FROM matins.webhook_delivery WHERE run_id = $1", run_id)
    return [msgspec.json.decode(row["payload"]) for row in found]


@pytest.mark.parametrize("temporary", [False, True])
@pytest.mark.parametrize(
    ("change", "status"),
    [
        (Change.SUCCEEDED, "success"),
        (Change.FAILED, "error"),
        (Change.TIMED_OUT, "timeout"),
        (Change.STOPPED, "interrupted"),
    ],
)
async def test_however_a_run_ends_it_reports_once(
    pool: Pool, change: Change, status: str, temporary: bool
) -> None:
    async with pool.transaction() as conn:
        held = await running(conn, temporary=temporary)
        await queue.settle(conn, held, queue.End(change, values=b'{"x":1}'))
        [told] = await reports(conn, held.run_id)
        assert (told["status"], told["values"]) == (status, {"x": 1})
        [found] = await webhooks.list_(conn, Filter(run_id=held.run_id), scope=EVERYONE, limit=9, offset=0)
    assert (found.thread_id, found.url, found.status) == (
        None if temporary else held.thread_id,
        URL,
        DeliveryStatus.PENDING,
    )


async def test_an_end_without_a_state_reports_the_one_that_the_thread_has(pool: Pool) -> None:
    async with pool.transaction() as conn:
        held = await running(conn)
        await conn.execute(
            'UPDATE matins.thread SET "values" = $2 WHERE thread_id = $1', held.thread_id, b'{"y":2}'
        )
        await queue.settle(conn, held, queue.End(Change.FAILED))
        [told] = await reports(conn, held.run_id)
    assert told["values"] == {"y": 2}


async def test_an_end_that_is_refused_reports_nothing(pool: Pool) -> None:
    async with pool.transaction() as conn:
        held = await running(conn)
        await rows.take_away(conn, held)
    with pytest.raises(LeaseLost):
        await pool.run(lambda conn: queue.settle(conn, held, queue.End(Change.SUCCEEDED)))
    async with pool.connection() as conn:
        assert await reports(conn, held.run_id) == []


async def test_a_run_without_a_webhook_reports_nothing(pool: Pool) -> None:
    async with pool.transaction() as conn:
        held = await rows.running(conn)
        await queue.settle(conn, held, queue.End(Change.SUCCEEDED))
        assert await reports(conn, held.run_id) == []


@pytest.mark.parametrize("temporary", [False, True])
async def test_a_run_that_is_cancelled_while_it_waits_reports_though_its_thread_goes(
    pool: Pool, temporary: bool
) -> None:
    async with pool.transaction() as conn:
        thread_id, run_id = await pending(conn, temporary=temporary)
        assert await stops.stop(conn, run_id, StopReason.INTERRUPT) is RunStatus.PENDING
        if temporary:
            await threads.delete(conn, [thread_id], scope=EVERYONE)
        [told] = await reports(conn, run_id)
    assert (told["status"], told["values"], told["run_started_at"]) == ("interrupted", {"x": 1}, None)


async def test_a_run_that_is_undone_reports_nothing(pool: Pool) -> None:
    async with pool.transaction() as conn:
        held = await running(conn)
        assert await stops.stop(conn, held.run_id, StopReason.ROLLBACK) is RunStatus.RUNNING
        assert await queue.settle(conn, held, queue.End(Change.SUCCEEDED, values=b'{"x":1}')) is None
        _, run_id = await pending(conn)
        assert await stops.stop(conn, run_id, StopReason.ROLLBACK) is RunStatus.PENDING
        assert await conn.fetchval("SELECT count(*) FROM matins.webhook_delivery") == 0


async def test_a_thread_and_a_run_that_are_deleted_take_their_deliveries_along(pool: Pool) -> None:
    async with pool.transaction() as conn:
        first, second, other = [await running(conn) for _ in range(3)]
        for held in (first, second, other):
            await queue.settle(conn, held, queue.End(Change.SUCCEEDED))
        await threads.delete(conn, [first.thread_id], scope=EVERYONE)
        await runs.delete(conn, second.run_id, thread_id=second.thread_id, scope=EVERYONE)
        assert [len(await reports(conn, held.run_id)) for held in (first, second, other)] == [0, 0, 1]


async def test_a_scope_lists_counts_and_replays_only_its_own(pool: Pool) -> None:
    async with pool.transaction() as conn:
        for owner in ("alice", "bob", "bob"):
            await queue.settle(conn, await running(conn, owner=owner), queue.End(Change.SUCCEEDED))
        bob, alice = Scope("bob"), Scope("alice")
        found = await webhooks.list_(conn, Filter(), scope=bob, limit=9, offset=0)
        assert len(found) == await webhooks.count(conn, Filter(), scope=bob, limit=9) == 2
        [mine] = await webhooks.list_(conn, Filter(), scope=alice, limit=9, offset=0)
        await webhooks.settle(conn, mine.delivery_id)
        assert await webhooks.get(conn, mine.delivery_id, scope=bob) is None
        assert await webhooks.replay(conn, mine.delivery_id, scope=bob) is None
        replayed = await webhooks.replay(conn, mine.delivery_id, scope=alice)
    assert replayed is not None
    assert replayed.status is DeliveryStatus.PENDING


async def test_a_late_failure_does_not_undo_what_came_after_it(pool: Pool) -> None:
    async with pool.transaction() as conn:
        held = await running(conn)
        await queue.settle(conn, held, queue.End(Change.SUCCEEDED))
        [first] = await webhooks.claim(conn, {"hooks.com": 1})
        await conn.execute("UPDATE matins.webhook_delivery SET next_attempt_at = matins.now()")
        [second] = await webhooks.claim(conn, {"hooks.com": 1})
        assert (first.attempt, second.attempt) == (1, 2)
        await webhooks.retry(conn, first, after_s=None, error="late")
        found = await webhooks.get(conn, first.delivery_id, scope=EVERYONE)
        assert found is not None
        assert (found.status, found.last_error) == (DeliveryStatus.PENDING, None)
        await webhooks.settle(conn, first.delivery_id)  # it has arrived, whichever try it was
        await webhooks.retry(conn, second, after_s=1, error="late")
        found = await webhooks.get(conn, first.delivery_id, scope=EVERYONE)
    assert found is not None
    assert (found.status, found.last_error) == (DeliveryStatus.DELIVERED, None)


async def test_each_host_gets_its_own_room(pool: Pool) -> None:
    async with pool.transaction() as conn:
        for host, number in (("a.com", 5), ("b.com", 2), ("c.com", 1)):
            for _ in range(number):
                await conn.execute(
                    "INSERT INTO matins.webhook_delivery (delivery_id, run_id, url, host, payload)"
                    " VALUES ($1, $2, '', $3, '{}')",
                    uuid4(), uuid4(), host,
                )  # fmt: skip
        assert await webhooks.due_hosts(conn) == ["a.com", "b.com", "c.com"]
        claimed = await webhooks.claim(conn, {"a.com": 3, "b.com": 3})
        assert sorted(each.host for each in claimed) == ["a.com"] * 3 + ["b.com"] * 2
        assert await webhooks.due_hosts(conn) == ["a.com", "c.com"]


async def test_what_ended_long_ago_is_forgotten_what_is_dead_later(pool: Pool) -> None:
    async def insert(conn: Conn, **ended: str) -> UUID:
        delivery_id = uuid4()
        columns = "".join(f", {name}" for name in ended)
        values = "".join(f", matins.now() - interval '{ago}'" for ago in ended.values())
        await conn.execute(
            f"INSERT INTO matins.webhook_delivery (delivery_id, run_id, url, payload{columns})"
            f" VALUES ($1, $2, '', '{{}}'{values})",
            delivery_id, uuid4(),
        )  # fmt: skip
        return delivery_id

    async with pool.transaction() as conn:
        kept = {
            await insert(conn, created_at="90 days"),
            await insert(conn, delivered_at="23 hours"),
            await insert(conn, dead_at="2 days"),
        }
        for gone in ({"delivered_at": "25 hours"}, {"delivered_at": "90 days"}, {"dead_at": "31 days"}):
            await insert(conn, **gone)
        assert await webhooks.forget(conn, delivered_s=DAY, dead_s=30 * DAY, limit=1) == 2
        assert await webhooks.forget(conn, delivered_s=DAY, dead_s=30 * DAY, limit=10) == 1
        assert await webhooks.forget(conn, delivered_s=DAY, dead_s=30 * DAY, limit=10) == 0
        left = await conn.fetch("SELECT delivery_id FROM matins.webhook_delivery")
    assert {row["delivery_id"] for row in left} == kept
