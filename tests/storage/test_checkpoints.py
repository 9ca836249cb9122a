from __future__ import annotations

from urllib.parse import urlsplit
from uuid import uuid4

import pytest
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.store.postgres.aio import AsyncPostgresStore

from matins.domain.runs import Held
from matins.storage import checkpoints
from matins.storage.checkpoints import Batch, BlobRow, CheckpointRow, WriteRow
from matins.storage.migrate import migrate
from matins.storage.pool import Pool, open_connection
from matins.storage.sql import load
from tests.support import databases, rows

pytestmark = pytest.mark.anyio

THREAD = "t"

SCHEMA = """
SELECT 'column' AS kind, table_name || '.' || column_name AS name,
    concat_ws(' ', ordinal_position, data_type, is_nullable, column_default) AS definition
FROM information_schema.columns WHERE table_schema = 'public'
UNION ALL
SELECT 'index', indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'
UNION ALL
SELECT 'constraint', conrelid::regclass || '.' || conname, pg_get_constraintdef(oid)
FROM pg_constraint WHERE connamespace = 'public'::regnamespace
ORDER BY 1, 2
"""


async def schema(dsn: str) -> list[tuple[str, ...]]:
    async with open_connection(dsn) as connection:
        found = [tuple(row) for row in await connection.fetch(SCHEMA)]
        for table in ("checkpoint_migrations", "store_migrations"):
            found += [
                (table, str(row["v"])) for row in await connection.fetch(f"SELECT v FROM {table} ORDER BY v")
            ]
    return found


async def set_up_theirs(dsn: str) -> None:
    async with AsyncPostgresSaver.from_conn_string(dsn) as saver:
        await saver.setup()
    async with AsyncPostgresStore.from_conn_string(dsn) as store:
        await store.setup()


async def test_our_migration_makes_what_langgraphs_own_setup_makes(
    database: str, empty_database: str
) -> None:
    await set_up_theirs(empty_database)
    assert await schema(database) == await schema(empty_database)


async def test_what_langgraph_wrote_before_stays_in_sight_of_a_role_called_as_our_schema(
    empty_database: str,
) -> None:
    dsn = databases.at(empty_database, urlsplit(empty_database).path[1:], role="matins")
    root: RunnableConfig = {"configurable": {"thread_id": THREAD, "checkpoint_ns": ""}}
    async with AsyncPostgresSaver.from_conn_string(dsn) as saver:
        await saver.setup()
        await saver.aput(root, empty_checkpoint(), {"source": "input"}, {})
    await migrate(dsn)
    async with open_connection(dsn) as connection:
        found = await checkpoints.get_newest(connection, thread_id=THREAD, checkpoint_ns="")
    assert found is not None
    assert found.row.metadata == b'{"source": "input"}'


async def test_langgraphs_own_setup_changes_nothing_of_ours(database: str) -> None:
    before = await schema(database)
    await set_up_theirs(database)
    assert await schema(database) == before


def point(
    number: int, parent: int | None = None, *, ns: str = "", thread: str = THREAD, run: str = "r"
) -> Batch:
    """A checkpoint with one value of its own, one that all share, and one write."""
    batch = Batch()
    batch.add(
        [
            BlobRow(thread, ns, "own", f"{number}", "msgpack", b"own"),
            BlobRow(thread, ns, "shared", "0", "msgpack", b"shared"),
            CheckpointRow(
                thread,
                ns,
                f"{number}",
                None if parent is None else f"{parent}",
                b'{"v": 4, "channel_values": {}, "channel_versions": {"own": "%d", "shared": "0"}}' % number,
                b'{"run_id": "%s", "step": %d}' % (run.encode(), number),
            ),
            WriteRow(thread, ns, f"{number}", "task", "", 0, "own", "msgpack", b"write"),
        ]
    )
    return batch


async def count(pool: Pool, thread: str = THREAD) -> dict[str, int]:
    async with pool.connection() as conn:
        return {
            table: await conn.fetchval(f"SELECT count(*) FROM checkpoint{table} WHERE thread_id = $1", thread)
            for table in ("s", "_blobs", "_writes")
        }


@pytest.fixture
async def held(pool: Pool) -> Held:
    async with pool.connection() as conn:
        return await rows.running(conn)


async def test_a_batch_may_be_written_twice(pool: Pool, held: Held) -> None:
    async with pool.connection() as conn:
        for _ in range(2):
            assert await checkpoints.insert_held(conn, held, point(1))
            found = await checkpoints.get_newest(conn, thread_id=THREAD, checkpoint_ns="")
            assert found is not None
            assert found.row.checkpoint_id == "1"
            assert sorted(map(tuple, found.blobs)) == [
                ("own", "msgpack", b"own"),
                ("shared", "msgpack", b"shared"),
            ]
            assert list(map(tuple, found.writes)) == [("task", "own", "msgpack", b"write")]
            assert found.sends == []


async def test_a_refused_batch_writes_nothing_and_says_so(pool: Pool, held: Held) -> None:
    async with pool.connection() as conn:
        await rows.take_away(conn, held)
        assert not await checkpoints.insert_held(conn, held, point(1))
    assert set((await count(pool)).values()) == {0}


async def test_rows_of_one_key_in_one_batch_follow_the_rule_of_the_table(pool: Pool) -> None:
    def write(idx: int, blob: bytes) -> WriteRow:
        return WriteRow(THREAD, "", "1", "task", "", idx, "c", "msgpack", blob)

    def blob(value: bytes) -> BlobRow:
        return BlobRow(THREAD, "", "c", "1", "msgpack", value)

    given: list[WriteRow | BlobRow] = [
        write(0, b"first"), write(0, b"second"), write(-1, b"first"), write(-1, b"second"),
        blob(b"1"), blob(b"2"),
    ]  # fmt: skip
    together, apart = Batch(), [Batch() for _ in given]
    together.add(given)
    for batch, row in zip(apart, given, strict=True):
        batch.add([row])
    answers = []
    for batches in ([together], apart):
        async with pool.connection() as conn:
            for batch in batches:
                await checkpoints.insert(conn, batch)
            writes = await conn.fetch("SELECT idx, blob FROM checkpoint_writes ORDER BY idx")
            blobs = await conn.fetch("SELECT blob FROM checkpoint_blobs")
            answers.append([tuple(row) for row in [*writes, *blobs]])
            await checkpoints.delete(conn, thread_ids=[THREAD])
    assert answers[0] == answers[1] == [(-1, b"second"), (0, b"first"), (b"1",)]


async def test_a_search_filters_orders_and_limits(pool: Pool) -> None:
    async with pool.connection() as conn:
        for number in range(1, 6):
            await checkpoints.insert(conn, point(number, number - 1))
        await checkpoints.insert(conn, point(1, ns="inner:1"))
        await checkpoints.insert(conn, point(9, thread="other"))

        async def found(**filters: object) -> list[str]:
            stored = await checkpoints.search(conn, **filters)  # type: ignore[arg-type]
            return [f"{one.row.checkpoint_ns}{one.row.checkpoint_id}" for one in stored]

        assert sorted(await found()) == ["1", "2", "3", "4", "5", "9", "inner:11"]
        assert await found(thread_id=THREAD, checkpoint_ns="") == ["5", "4", "3", "2", "1"]
        assert await found(thread_id=THREAD, checkpoint_ns="inner:1") == ["inner:11"]
        assert await found(thread_id=THREAD, before="3", checkpoint_ns="") == ["2", "1"]
        assert await found(thread_id=THREAD, limit=2) == ["5", "4"]
        assert await found(thread_id=THREAD, checkpoint_id="2") == ["2"]
        assert await found(metadata=b'{"step": 4}') == ["4"]
        assert await found(thread_id=THREAD, metadata=b'{"step": 4, "run_id": "x"}') == []


async def test_keep_latest_leaves_a_checkpoint_its_blobs_and_its_writes(pool: Pool) -> None:
    async with pool.connection() as conn:
        for number in range(1, 6):
            await checkpoints.insert(conn, point(number, number - 1 or None))
        await checkpoints.insert(conn, point(5, 4, thread="other"))
        before = await checkpoints.get_newest(conn, thread_id=THREAD, checkpoint_ns="")
        for _ in range(2):
            await checkpoints.keep_latest(conn, thread_id=THREAD)
            after = await checkpoints.get_newest(conn, thread_id=THREAD, checkpoint_ns="")
            assert after is not None
            assert before is not None
            assert after.row == before.row._replace(parent_checkpoint_id=None)
            assert (after.blobs, after.writes) == (before.blobs, before.writes)
    assert await count(pool) == {"s": 1, "_blobs": 2, "_writes": 1}
    assert await count(pool, "other") == {"s": 1, "_blobs": 2, "_writes": 1}


async def test_keep_latest_drops_a_subgraphs_call_with_the_checkpoint_that_made_it(pool: Pool) -> None:
    async with pool.connection() as conn:
        for number in (1, 2):
            await checkpoints.insert(conn, point(number))
            await checkpoints.insert(conn, point(number, ns=f"call:{number}"))
            await checkpoints.insert(conn, point(number, ns="stateful"))
        await conn.execute(
            "UPDATE checkpoints"
            " SET metadata = jsonb_build_object('parents', jsonb_build_object('', checkpoint_id))"
            " WHERE checkpoint_ns <> ''"
        )
        await checkpoints.keep_latest(conn, thread_id=THREAD)
        kept = await conn.fetch("SELECT checkpoint_ns, checkpoint_id FROM checkpoints ORDER BY 1, 2")
    assert list(map(tuple, kept)) == [("", "2"), ("call:2", "2"), ("stateful", "2")]
    assert await count(pool) == {"s": 3, "_blobs": 6, "_writes": 3}


async def test_what_runs_put_is_deleted_but_for_values_that_others_use(pool: Pool) -> None:
    async with pool.connection() as conn:
        for number, run in ((1, "a"), (2, "b"), (3, "b")):
            await checkpoints.insert(conn, point(number, run=run))
        await checkpoints.insert(conn, point(4, run="b", thread="other"))
        await checkpoints.delete_of_runs(conn, run_ids=["b"], thread_id=THREAD)
        assert await count(pool) == {"s": 1, "_blobs": 2, "_writes": 1}
        assert await count(pool, "other") == {"s": 1, "_blobs": 2, "_writes": 1}
        await checkpoints.delete_of_runs(conn, run_ids=["a", "b"])
    assert set((await count(pool)).values()) | set((await count(pool, "other")).values()) == {0}


async def test_a_copy_is_whole_and_a_delete_leaves_others_alone(pool: Pool) -> None:
    async with pool.connection() as conn:
        for number in (1, 2):
            await checkpoints.insert(conn, point(number))
        await checkpoints.copy(conn, source=THREAD, target="copy")
        source = await checkpoints.search(conn, thread_id=THREAD)
        copied = await checkpoints.search(conn, thread_id="copy")
        assert [one.row._replace(thread_id=THREAD) for one in copied] == [one.row for one in source]
        assert [(one.blobs, one.writes) for one in copied] == [(one.blobs, one.writes) for one in source]
        await checkpoints.delete(conn, thread_ids=[THREAD, "none"])
    assert set((await count(pool)).values()) == {0}
    assert await count(pool, "copy") == {"s": 2, "_blobs": 3, "_writes": 2}


@pytest.mark.parametrize("name", sorted(load("checkpoints")))
async def test_every_query_is_understood_by_the_database(pool: Pool, name: str) -> None:
    query = load("checkpoints")[name]
    async with pool.connection() as conn:
        statement = await conn.prepare(query.text)
        assert bool(statement.get_attributes()) is (query.returns != "exec")


async def test_the_newest_checkpoint_is_found_by_index_among_many(pool: Pool) -> None:
    async with pool.transaction() as conn:
        await conn.execute(
            "INSERT INTO checkpoints (thread_id, checkpoint_ns, checkpoint_id, checkpoint)"
            " SELECT thread::text, '', point::text, '{}' FROM generate_series(1, 200) AS thread,"
            " generate_series(1, 50) AS point"
        )
        await conn.execute("ANALYZE checkpoints")
        thread_id = str(uuid4())
        for name, more in (("get_newest", "''"), ("search", "'', NULL, NULL, NULL, 10")):
            await conn.execute(f"PREPARE {name} AS {load('checkpoints')[name].text}")
            plan = await conn.fetch(f"EXPLAIN EXECUTE {name} ('{thread_id}', {more})")
            assert not [row[0] for row in plan if "Seq Scan on checkpoints" in row[0]]
