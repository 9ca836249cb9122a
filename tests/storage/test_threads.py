from __future__ import annotations

import json
from uuid import uuid4

import pytest

from matins.domain.access import EVERYONE, Scope
from matins.domain.errors import Invalid
from matins.domain.ids import CronId, ThreadId
from matins.domain.runs import RunStatus, StopReason
from matins.domain.threads import Thread, ThreadStatus, TimeToLive
from matins.storage import order, runs, stops, thread_state, threads
from matins.storage.pool import Conn, Pool
from matins.storage.threads import Filter
from tests.support import rows

pytestmark = pytest.mark.anyio


async def insert(conn: Conn, metadata: bytes = b"{}", *, owner: str = "") -> ThreadId:
    thread = await threads.insert(conn, ThreadId(uuid4()), scope=Scope(owner), metadata=metadata)
    assert thread is not None
    return thread.thread_id


async def search(
    conn: Conn,
    wanted: Filter,
    *,
    scope: Scope = EVERYONE,
    sort_by: str = "created_at",
    direction: order.Direction = "asc",
    limit: int = 100,
    offset: int = 0,
) -> list[ThreadId]:
    found = await threads.search(
        conn, wanted, scope=scope, sort_by=sort_by, direction=direction, limit=limit, offset=offset
    )
    return [thread.thread_id for thread in found]


async def get(conn: Conn, thread_id: ThreadId) -> Thread:
    thread = await threads.get(conn, thread_id, scope=EVERYONE)
    assert thread is not None
    return thread


async def test_a_fresh_thread_is_idle_and_empty(pool: Pool) -> None:
    async with pool.connection() as conn:
        thread = await get(conn, await insert(conn, b'{"a":1}'))
    assert (thread.status, thread.metadata) == (ThreadStatus.IDLE, b'{"a": 1}')
    assert (thread.values, thread.interrupts, thread.error) == (None, None, None)
    assert thread.created_at.utcoffset() is not None


async def test_an_id_that_is_taken_is_not_taken_again(pool: Pool) -> None:
    async with pool.connection() as conn:
        thread_id = await insert(conn, b'{"first":true}')
        assert await threads.insert(conn, thread_id, scope=EVERYONE) is None
        assert (await get(conn, thread_id)).metadata == b'{"first": true}'


async def test_a_search_wants_every_part_to_match(pool: Pool) -> None:
    async with pool.connection() as conn:
        both = await insert(conn, b'{"a":1,"deep":{"x":1,"y":[1,2]}}')
        one = await insert(conn, b'{"a":1}')
        await conn.execute(
            "UPDATE matins.thread SET status = 'error', values = '{\"k\":2}' WHERE thread_id = $1", one
        )
        for wanted, expected in [
            (Filter(), [both, one]),
            (Filter(metadata=b'{"a":1}'), [both, one]),
            (Filter(metadata=b'{"deep":{"y":[2]}}'), [both]),
            (Filter(metadata=b'{"a":2}'), []),
            (Filter(status="error"), [one]),
            (Filter(values=b'{"k":2}'), [one]),
            (Filter(ids=[both, uuid4()]), [both]),
            (Filter(ids=[]), []),
            (Filter(ids=[both], status="error"), []),
        ]:
            assert await search(conn, wanted) == expected, wanted
            assert await threads.count(conn, wanted, scope=EVERYONE) == len(expected), wanted


async def test_everyone_sees_their_own(pool: Pool) -> None:
    ada, bob = Scope("ada"), Scope("bob")
    async with pool.connection() as conn:
        of_ada, of_bob = await insert(conn, owner="ada"), await insert(conn, owner="bob")
        assert await search(conn, Filter(), scope=ada) == [of_ada]
        assert await search(conn, Filter(), scope=EVERYONE) == [of_ada, of_bob]
        assert await threads.count(conn, Filter(), scope=bob) == 1
        assert await threads.count(conn, Filter(), scope=EVERYONE) == 2
        assert await threads.count(conn, Filter(), scope=EVERYONE, limit=1) == 1
        assert await threads.get(conn, of_ada, scope=bob) is None
        assert await threads.lock(conn, of_ada, scope=bob) is None
        assert await threads.update(conn, of_ada, scope=bob, metadata=b'{"stolen":1}') is None
        assert await threads.delete(conn, [of_ada], scope=bob) == []
        assert (await get(conn, of_ada)).metadata == b"{}"


@pytest.mark.parametrize("sort_by", order.THREADS)
async def test_pages_follow_each_other_without_gap_or_repeat_both_ways(pool: Pool, sort_by: str) -> None:
    async with pool.connection() as conn:
        made = [await insert(conn) for _ in range(7)]
        await conn.execute("UPDATE matins.thread SET created_at = now(), updated_at = now()")  # ties
        down: list[ThreadId] = []
        for offset in range(0, 9, 3):
            down += await search(conn, Filter(), sort_by=sort_by, direction="desc", limit=3, offset=offset)
        assert set(down) == set(made)
        assert len(down) == 7
        assert await search(conn, Filter(), sort_by=sort_by, direction="asc") == down[::-1]


async def test_what_is_no_column_cannot_be_sorted_by(pool: Pool) -> None:
    async with pool.connection() as conn:
        with pytest.raises(Invalid, match="Cannot sort by 'metadata; DROP TABLE'"):
            await search(conn, Filter(), sort_by="metadata; DROP TABLE")


async def test_an_update_merges_metadata_shallowly(pool: Pool) -> None:
    async with pool.connection() as conn:
        thread_id = await insert(conn, b'{"a":{"x":1},"b":1}')
        updated = await threads.update(conn, thread_id, scope=EVERYONE, metadata=b'{"a":{"y":2},"c":null}')
        assert updated is not None
        assert updated.metadata == b'{"a": {"y": 2}, "b": 1, "c": null}'
        assert updated.updated_at > updated.created_at
        assert await threads.update(conn, ThreadId(uuid4()), scope=EVERYONE, metadata=b"{}") is None


async def test_a_thread_that_shall_not_live_for_ever_has_a_date(pool: Pool) -> None:
    async with pool.connection() as conn:
        thread_id = ThreadId(uuid4())
        await threads.insert(conn, thread_id, scope=EVERYONE, ttl=TimeToLive("delete", 90))
        left = "SELECT round(extract(epoch FROM expires_at - now()) / 60)::int FROM matins.thread"
        assert await conn.fetchval(left) == 90
        await threads.update(conn, thread_id, scope=EVERYONE, metadata=b"{}")
        assert await conn.fetchval(left) == 90
        await threads.update(
            conn, thread_id, scope=EVERYONE, metadata=b"{}", ttl=TimeToLive("keep_latest", 0.5)
        )
        assert await conn.fetchval(left) in (0, 1)


@pytest.mark.parametrize("status", [ThreadStatus.IDLE, ThreadStatus.INTERRUPTED, ThreadStatus.ERROR])
async def test_a_thread_that_nothing_runs_on_any_more_rests_as_before(
    pool: Pool, status: ThreadStatus
) -> None:
    """Also one that stopped at a breakpoint, which has no interrupts to tell it by."""
    async with pool.connection() as conn:
        thread_id = await insert(conn)
        await thread_state.write_state(conn, thread_id, values=b"{}", interrupts=b"{}", status=status)
        await threads.occupy(conn, thread_id, metadata=b"{}", config=None)
        run_id = await rows.pending(conn, thread_id)
        run = await runs.get(conn, run_id, thread_id=thread_id, scope=EVERYONE)
        assert run is not None
        await threads.vacate(conn, run)
        assert (await get(conn, thread_id)).status is ThreadStatus.BUSY
        assert await stops.stop(conn, run_id, StopReason.INTERRUPT) is RunStatus.PENDING
        await threads.vacate(conn, run)
        assert (await get(conn, thread_id)).status is status


async def test_a_busy_thread_keeps_its_config_unless_told_another(pool: Pool) -> None:
    async with pool.connection() as conn:
        thread_id = await insert(conn, b'{"a":1}')
        await threads.occupy(conn, thread_id, metadata=b'{"b":2}', config=b'{"tags":["t"]}')
        await threads.occupy(conn, thread_id, metadata=b"{}", config=None)
        thread = await get(conn, thread_id)
    assert (thread.status, thread.metadata, thread.config) == (
        ThreadStatus.BUSY, b'{"a": 1, "b": 2}', b'{"tags":["t"]}',
    )  # fmt: skip


async def test_a_deleted_thread_takes_its_runs_events_crons_and_checkpoints_and_leaves_the_fires(
    pool: Pool,
) -> None:
    async with pool.connection() as conn:
        held = await rows.running(conn)
        cron = CronId(uuid4())
        await conn.execute(
            "INSERT INTO matins.stream_event (thread_id, seq, run_id, attempt, event, data) VALUES ($1,1,$2,1,'e','1')",
            held.thread_id,
            held.run_id,
        )
        await conn.execute(
            "INSERT INTO matins.cron (cron_id, assistant_id, thread_id, schedule, payload) VALUES ($1,$1,$2,'*','{}')",
            cron,
            held.thread_id,
        )
        await conn.execute(
            "INSERT INTO matins.cron_fire (cron_id, scheduled_for, outcome, run_id, status)"
            " VALUES ($1, now(), 'fired', $2, 'running')",
            cron,
            held.run_id,
        )
        await conn.execute(
            "INSERT INTO checkpoints (thread_id, checkpoint_id, checkpoint) VALUES ($1, 'a', '{}')",
            str(held.thread_id),
        )
        deleted = await threads.delete(conn, [held.thread_id, ThreadId(uuid4())], scope=EVERYONE)
        assert deleted == [held.thread_id]
        for table in ("matins.thread", "matins.run", "matins.stream_event", "matins.cron", "checkpoints"):
            assert await conn.fetchval(f"SELECT count(*) FROM {table}") == 0, table
        assert await conn.fetchval("SELECT count(*) FROM matins.cron_fire") == 1


async def test_the_time_to_live_begins_anew_with_each_use(pool: Pool) -> None:
    """Whatever moves updated_at is a use; what a sweep notes is none."""
    async with pool.connection() as conn:
        thread_id = ThreadId(uuid4())
        await threads.insert(conn, thread_id, scope=EVERYONE, ttl=TimeToLive("delete", 90))
        await conn.execute("UPDATE matins.thread SET expires_at = 'epoch', swept_at = now()")
        sees = (
            "SELECT expires_at = updated_at + interval '90 minutes' AND swept_at IS NULL FROM matins.thread"
        )
        assert not await conn.fetchval(sees)
        await threads.occupy(conn, thread_id, metadata=b"{}", config=None)
        assert await conn.fetchval(sees)
        await conn.execute("UPDATE matins.thread SET expires_at = 'epoch', swept_at = now()")
        await thread_state.write_state(
            conn, thread_id, values=None, interrupts=b"{}", status=ThreadStatus.IDLE
        )
        assert await conn.fetchval(sees)


async def test_a_copy_lives_as_long_as_its_original_from_now_on(pool: Pool) -> None:
    async with pool.connection() as conn:
        source, target = ThreadId(uuid4()), ThreadId(uuid4())
        await threads.insert(conn, source, scope=EVERYONE, ttl=TimeToLive("keep_latest", 90))
        await conn.execute("UPDATE matins.thread SET expires_at = 'epoch'")
        copied = await threads.copy(conn, source, target=target, scope=EVERYONE)
        assert copied is not None
        assert copied.ttl == TimeToLive("keep_latest", 90)
        left = "SELECT expires_at - now() > interval '89 minutes' FROM matins.thread WHERE thread_id = $1"
        assert await conn.fetchval(left, target)


ODD: list[object] = [
    None, True, False, 0, 1, 1.0, -1, 1.5, 10**18, "", "1", "null", "true", "ü\U0001f989", "x" * 5000, [], ["x"], {},
    {"a": 1}, {"a": {"b": [1, 2]}},
]  # fmt: skip


async def test_what_is_counted_by_a_key_is_what_has_it(pool: Pool) -> None:
    """By the index of keys and plain values, that is, or where that does not serve, by the metadata."""
    async with pool.connection() as conn:
        for value in ODD:
            await insert(conn, json.dumps({"key": value, "other": value}).encode())
        await conn.execute(  # as the threads of many runs are
            "INSERT INTO matins.thread (thread_id, metadata) SELECT gen_random_uuid(), m FROM unnest($1::jsonb[]) AS m",
            [json.dumps({"key": value, "new": value}).encode() for value in ODD],
        )
        changed = await insert(conn, b'{"key":"former"}')
        await threads.update(conn, changed, scope=EVERYONE, metadata=b'{"key":"latter","new":1}')
        gone = await insert(conn, b'{"key":"gone"}')
        await threads.delete(conn, [gone], scope=EVERYONE)
        for value in [*ODD, "former", "latter", "gone", "never"]:
            for wanted in ({"key": value}, {"key": value, "other": value}, {"new": value}):
                filtered = json.dumps(wanted).encode()
                contained = await conn.fetchval(
                    "SELECT count(*) FROM matins.thread WHERE metadata @> $1", filtered
                )
                assert await threads.count(conn, Filter(metadata=filtered), scope=EVERYONE) == contained
        assert await threads.count(conn, Filter(metadata=b'{"key":"latter"}'), scope=EVERYONE) == 1
        assert await threads.count(conn, Filter(metadata=b'{"key":"gone"}'), scope=EVERYONE) == 0


@pytest.mark.parametrize("few", [0, 5, 100])
@pytest.mark.parametrize("walk", [1, 4, 100])
async def test_threads_are_found_whichever_way_they_are_looked_for(
    pool: Pool, monkeypatch: pytest.MonkeyPatch, few: int, walk: int
) -> None:
    monkeypatch.setattr(threads, "FEW", few)
    monkeypatch.setattr(threads, "WALK", walk)
    async with pool.connection() as conn:
        made = [await insert(conn, b'{"odd":%s}' % str(n % 2).encode()) for n in range(20)]
        odd = Filter(metadata=b'{"odd":1}')
        orders: dict[order.Direction, list[ThreadId]] = {"asc": made[1::2], "desc": made[1::2][::-1]}
        for direction, expected in orders.items():
            for offset in (0, 3, 9, 10):
                found = await search(
                    conn, odd, sort_by="updated_at", direction=direction, limit=4, offset=offset
                )
                assert found == expected[offset : offset + 4]
        ours = Filter(metadata=b'{"odd":1}', ids=[made[1], made[2]])
        assert await search(conn, ours, sort_by="updated_at", direction="desc") == [made[1]]


async def test_a_search_shows_what_it_was_asked_to_extract(pool: Pool) -> None:
    async with pool.connection() as conn:
        full, fresh = await insert(conn, b'{"n":[1,[2,3]],"nothing":null}'), await insert(conn)
        await thread_state.write_state(
            conn,
            full,
            values=b'{"messages":[{"content":"a"},{"content":"b"}],"0":"zero"}',
            interrupts=b'{"task":[{"value":{"q":1}}]}',
            status=ThreadStatus.IDLE,
        )
        paths = {
            "last": ["values", "messages", "-1", "content"],
            "beyond": ["values", "messages", "2"],
            "nested": ["metadata", "n", "1", "-2"],
            "nothing": ["metadata", "nothing"],
            "question": ["interrupts", "task", "0", "value"],
            "config": ["config"],
        }
        found = await threads.search(
            conn,
            Filter(),
            scope=EVERYONE,
            sort_by="created_at",
            direction="asc",
            limit=9,
            offset=0,
            extract=json.dumps(paths).encode(),
        )
        assert [thread.thread_id for thread in found] == [full, fresh]
        of_full, of_fresh = (json.loads(thread.extracted or b"") for thread in found)
        assert of_full == {
            "last": "b", "beyond": None, "nested": 2, "nothing": None, "question": {"q": 1}, "config": {},
        }  # fmt: skip
        assert of_fresh == {**dict.fromkeys(paths), "config": {}}
