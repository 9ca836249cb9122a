from __future__ import annotations

import anyio
import pytest

from matins.domain.access import EVERYONE, Scope
from matins.domain.errors import IdempotencyKeyReused
from matins.storage import idempotency
from matins.storage.idempotency import Kept, Key
from matins.storage.pool import Conn, Pool

pytestmark = pytest.mark.anyio

KEY = Key("k", b"request")
RESPONSE = b'{"body":1}'
ANSWER = Kept(RESPONSE, None)


async def use(conn: Conn, key: Key = KEY, scope: Scope = EVERYONE) -> Kept | None:
    kept = await idempotency.claim(conn, key, scope=scope)
    if kept is None:
        await idempotency.update(conn, key, RESPONSE, scope=scope)
    return kept


async def test_a_key_gives_the_answer_that_was_kept(pool: Pool) -> None:
    assert await pool.run(use) is None
    assert await pool.run(use) == ANSWER


async def test_another_request_is_refused(pool: Pool) -> None:
    await pool.run(use)
    with pytest.raises(IdempotencyKeyReused):
        await pool.run(lambda conn: use(conn, Key("k", b"another")))
    assert await pool.run(lambda conn: use(conn, Key("K", b"another"))) is None


async def test_each_owner_has_keys_of_its_own(pool: Pool) -> None:
    await pool.run(use)
    assert await pool.run(lambda conn: use(conn, scope=Scope("alice"))) is None


WAITING = """
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE '%idempotency%'
"""


async def test_what_is_under_way_is_waited_for(pool: Pool) -> None:
    found: list[Kept | None] = []

    async def second() -> None:
        found.append(await pool.run(use))

    async with anyio.create_task_group() as group, pool.transaction() as conn:
        await use(conn)
        group.start_soon(second)
        async with pool.connection() as other:
            with anyio.fail_after(30):
                while await other.fetchval(WAITING) == 0:  # noqa: ASYNC110 - a lock sets no event
                    await anyio.sleep(0.01)
        assert found == []
    assert found == [ANSWER]


async def test_what_was_rolled_back_left_no_key(pool: Pool) -> None:
    async def fail(conn: Conn) -> None:
        await use(conn)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await pool.run(fail)
    assert await pool.run(use) is None


async def test_a_key_is_good_for_a_day(pool: Pool) -> None:
    await pool.run(use)
    async with pool.connection() as conn:
        age = "UPDATE matins.idempotency_key SET created_at = created_at - $1 * interval '1 hour'"
        await conn.execute(age, 23)
        assert await idempotency.trim(conn, limit=10) == 0
        assert await use(conn) == ANSWER
        await conn.execute(age, 2)
        assert await idempotency.claim(conn, Key("k", b"another"), scope=EVERYONE) is None
        assert await idempotency.trim(conn, limit=10) == 0  # it is a new one
        await conn.execute(age, 25)
        assert await idempotency.trim(conn, limit=10) == 1
