from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import anyio
import pytest

from matins.domain.access import EVERYONE
from matins.domain.errors import Invalid, Unavailable
from matins.storage import threads
from matins.storage.migrate import migrate, migrations, script
from matins.storage.pool import open_connection, open_pool
from matins.storage.threads import Filter
from tests.support import engine, postgres15

pytestmark = pytest.mark.anyio

NAMES = [migration.name for migration in migrations()]


def test_the_migrations_are_numbered_without_a_gap() -> None:
    assert [migration.version for migration in migrations()] == list(range(1, len(NAMES) + 1))


async def test_an_empty_database_gets_all_and_a_second_run_applies_nothing(empty_database: str) -> None:
    assert await migrate(empty_database) == NAMES
    assert await migrate(empty_database) == []


async def test_of_many_migrators_at_once_each_file_is_applied_by_one(empty_database: str) -> None:
    applied: list[str] = []

    async def run() -> None:
        applied.extend(await migrate(empty_database))

    async with anyio.create_task_group() as group:
        for _ in range(4):
            group.start_soon(run)
    assert sorted(applied) == NAMES


async def test_a_database_that_another_file_was_applied_to_is_refused(database: str) -> None:
    async with open_connection(database) as connection:
        await connection.execute("UPDATE matins.migration SET checksum = 'other' WHERE version = 2")
    with pytest.raises(Invalid, match=NAMES[1]):
        await migrate(database)


async def test_a_database_of_a_newer_matins_is_refused(database: str) -> None:
    async with open_connection(database) as connection:
        await connection.execute("INSERT INTO matins.migration VALUES (9999, 'later.sql', '')")
    with pytest.raises(Invalid, match="9999"):
        await migrate(database)


async def test_a_migration_that_fails_leaves_nothing_of_itself(empty_database: str) -> None:
    async with open_connection(empty_database) as connection:
        await connection.execute("CREATE TABLE store (prefix int)")  # in the way of the second file
    with pytest.raises(Exception, match="text_pattern_ops"):
        await migrate(empty_database)
    async with open_connection(empty_database) as connection:
        assert await connection.fetchval("SELECT array_agg(version) FROM matins.migration") == [1]
        assert await connection.fetchval("SELECT to_regclass('checkpoints')") is None
        await connection.execute("DROP TABLE store")
    assert await migrate(empty_database) == NAMES[1:]


async def test_threads_that_are_there_are_counted_by_their_metadata(empty_database: str) -> None:
    before, _, _ = script().partition("BEGIN;\n-- 0004")
    async with open_connection(empty_database) as connection:
        await connection.execute(before)
        await connection.execute(
            "INSERT INTO matins.thread (thread_id, metadata) VALUES (gen_random_uuid(), $1)",
            b'{"n":1,"deep":{"x":1}}',
        )
    assert "0004_threads.sql" in await migrate(empty_database)
    async with open_connection(empty_database) as connection:
        for metadata, expected in ((b'{"n":1}', 1), (b'{"n":-1}', 0), (b'{"deep":{"x":1}}', 1)):
            assert await threads.count(connection, Filter(metadata=metadata), scope=EVERYONE) == expected


async def test_the_printed_script_makes_the_same_database(empty_database: str, database: str) -> None:
    async with open_connection(empty_database) as connection:
        for statements in script().split("\n\nBEGIN;"):  # a driver's, unlike psql, sends all as one query
            await connection.execute(f"BEGIN;{statements}" if "COMMIT;" in statements else statements)
    assert await migrate(empty_database) == []
    everything = (
        "SELECT n.nspname, c.relname, c.relkind FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE n.nspname IN ('public', 'matins') ORDER BY 1, 2"
    )
    found = []
    for dsn in (empty_database, database):
        async with open_connection(dsn) as connection:
            found.append([tuple(row) for row in await connection.fetch(everything)])
    assert found[0] == found[1]


async def test_an_account_that_may_make_nothing_finds_a_migrated_database_as_it_is(database: str) -> None:
    async with open_connection(database) as connection:
        role = f"guest_{uuid4().hex}"
        await connection.execute(f"CREATE ROLE {role} LOGIN")
        await connection.execute(
            f"GRANT USAGE ON SCHEMA matins TO {role}; GRANT SELECT ON matins.migration TO {role}"
        )
    assert await migrate(database.replace("postgres@", f"{role}@")) == []


async def test_a_database_that_is_not_there_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="cannot be reached"):
        await migrate(f"postgresql://nobody@/none?host={tmp_path}")


@pytest.fixture(scope="module")
def oldest() -> Iterator[str]:
    if not postgres15.BINARIES.exists():
        pytest.skip("PostgreSQL 15 is not installed here")
    with (
        tempfile.TemporaryDirectory(prefix="pg15-", dir="/tmp") as folder,
        postgres15.server(Path(folder)) as uri,
    ):
        yield uri


async def test_the_oldest_postgresql_that_is_supported_takes_the_schema_and_fires_a_cron(oldest: str) -> None:
    assert await migrate(oldest) == NAMES
    async with open_pool(oldest, size=4) as pool:
        async with pool.connection() as conn:
            await conn.execute(engine.MOVABLE_CLOCK)
        cron = await engine.create_cron(pool, "* * * * *")
        async with engine.scheduling(pool):
            await engine.move_clock(pool, minutes=1)

            async def fired() -> object:
                async with pool.connection() as conn:
                    return await conn.fetchval(
                        "SELECT run_id FROM matins.cron_fire WHERE cron_id = $1", cron.cron_id
                    )

            assert await engine.until(fired)
