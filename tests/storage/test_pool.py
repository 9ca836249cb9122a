from __future__ import annotations

import anyio
import pytest

from matins.domain.errors import Conflict, Invalid, Unavailable
from matins.domain.ids import ThreadId
from matins.storage.pool import Conn, Pool, normalise_dsn, open_connection
from tests.support import databases, rows

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("value", [2**70, -(2**70)])
async def test_a_value_that_no_parameter_can_carry_is_invalid_and_not_tried_again(
    pool: Pool, value: int
) -> None:
    tries = 0

    async def work(conn: Conn) -> None:
        nonlocal tries
        tries += 1
        await conn.fetchval("SELECT $1::bigint", value)

    with pytest.raises(Invalid):
        await pool.run(work)
    assert tries == 1


async def test_a_value_that_the_database_cannot_hold_is_invalid(pool: Pool) -> None:
    with pytest.raises(Invalid):
        await pool.run(lambda conn: conn.fetchval("SELECT $1::jsonb", b'"\\u0000"'))


async def test_what_is_there_already_is_a_conflict(pool: Pool) -> None:
    async def twice(conn: Conn) -> None:
        thread = await rows.thread(conn)
        await conn.execute("INSERT INTO matins.thread (thread_id) VALUES ($1)", thread)

    with pytest.raises(Conflict, match="thread_pkey"):
        await pool.run(twice)


async def test_work_whose_connection_is_cut_is_done_again_from_its_start(pool: Pool) -> None:
    tries = 0

    async def work(conn: Conn) -> int:
        nonlocal tries
        tries += 1
        await rows.thread(conn)
        if tries == 1:
            await conn.execute("SELECT pg_terminate_backend(pg_backend_pid())")
        return tries

    assert await pool.run(work) == 2
    async with pool.connection() as conn:
        assert await conn.fetchval("SELECT count(*) FROM matins.thread") == 1


async def test_transactions_that_wait_for_each_other_both_end(pool: Pool) -> None:
    async with pool.connection() as conn:
        one, other = await rows.thread(conn), await rows.thread(conn)

    half_way = {one: anyio.Event(), other: anyio.Event()}
    tries = 0

    async def touch(first: ThreadId, second: ThreadId) -> None:
        update = "UPDATE matins.thread SET updated_at = now() WHERE thread_id = $1"

        async def work(conn: Conn) -> None:
            nonlocal tries
            tries += 1
            await conn.execute("SET LOCAL deadlock_timeout = '10ms'")
            await conn.execute(update, first)
            half_way[first].set()
            await half_way[second].wait()
            await conn.execute(update, second)

        await pool.run(work)

    with anyio.fail_after(30):
        async with anyio.create_task_group() as group:
            group.start_soon(touch, one, other)
            group.start_soon(touch, other, one)
    assert tries >= 3, "one of them was done again"


async def test_a_statement_that_an_operator_cancels_is_no_fault_of_the_request(pool: Pool) -> None:
    async def work(conn: Conn) -> None:
        await conn.execute("SELECT pg_cancel_backend(pg_backend_pid()), pg_sleep(5)")

    with pytest.raises(Unavailable):
        await pool.run(work, patience_s=0.1)


async def test_a_connection_of_ones_own_speaks_the_errors_of_the_domain(database: str) -> None:
    with pytest.raises(Unavailable):
        async with open_connection(database) as conn:
            await conn.execute("SELECT pg_terminate_backend(pg_backend_pid())")


async def test_a_database_that_does_not_exist_is_named(postgres: str) -> None:
    with pytest.raises(Invalid, match='database "no_such_database" does not exist'):
        async with open_connection(databases.at(postgres, "no_such_database")):
            pytest.fail("it was reached")


def test_what_asyncpg_does_not_know_is_taken_from_a_dsn_and_named() -> None:
    given = "postgres+psycopg://u:p@a,b/db?keepalives=1&connect_timeout=3&sslmode=require&pgbouncer=true"
    assert normalise_dsn(given) == (
        "postgresql://u:p@a,b/db?sslmode=require&target_session_attrs=read-write",
        ["keepalives", "pgbouncer"],
    )
