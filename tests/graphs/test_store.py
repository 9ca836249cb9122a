from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit, urlunsplit

import anyio
import asyncpg
import psycopg
import pytest
from anyio import to_thread
from psycopg.conninfo import conninfo_to_dict
from psycopg_pool import PoolClosed

from matins.graphs.store import Store, _conninfo, opened_store

pytestmark = pytest.mark.anyio


async def connections(dsn: str) -> int:
    connection = await asyncpg.connect(dsn)
    found: int = await connection.fetchval(
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'matins store'"
        " AND datname = current_database()"
    )
    await connection.close()
    return found


async def test_the_store_is_opened_by_its_first_use_and_closed_at_the_end(database: str) -> None:
    async with opened_store(database) as store:
        assert await connections(database) == 0
        await store.aput(("a",), "k", {"n": 1})
        assert await connections(database) == 1
    assert await connections(database) == 0
    with pytest.raises(PoolClosed):
        await store.aget(("a",), "k")


async def test_however_much_is_asked_at_once_it_takes_two_connections(database: str) -> None:
    most = 0
    async with opened_store(database) as store, anyio.create_task_group() as group:

        async def ask(number: int) -> None:
            nonlocal most
            await store.abatch([])
            await store.aput(("a", str(number)), "k", {"n": number})
            await store.asearch(("a",), limit=100)
            most = max(most, await connections(database))

        for number in range(20):
            group.start_soon(ask, number)
    assert 1 <= most <= 2


async def test_what_one_process_stores_another_one_finds(database: str) -> None:
    async with opened_store(database) as one, opened_store(database) as other:
        await one.aput(("users", "u1"), "prefs", {"theme": "dark", "size": 3})
        await one.aput(("users", "u2"), "prefs", {"theme": "light"})
        item = await other.aget(("users", "u1"), "prefs")
        assert item is not None
        assert item.value == {"theme": "dark", "size": 3}
        found = await other.asearch(("users",), filter={"theme": "light"})
        assert [item.namespace for item in found] == [("users", "u2")]
        assert await other.alist_namespaces(prefix=("users",)) == [("users", "u1"), ("users", "u2")]
        await other.adelete(("users", "u1"), "prefs")
        assert await one.aget(("users", "u1"), "prefs") is None


async def test_its_sync_methods_work_in_a_thread_and_are_refused_in_the_loop(database: str) -> None:
    async with opened_store(database) as store:

        def use() -> Any:
            store.put(("a",), "k", {"n": 1})
            return store.get(("a",), "k")

        assert (await to_thread.run_sync(use)).value == {"n": 1}
        with pytest.raises(Exception, match=r"await store.aget\("):
            store.get(("a",), "k")


async def test_a_database_that_was_away_is_found_again(database: str) -> None:
    async with opened_store(database) as store:
        await store.aput(("a",), "k", {"n": 1})
        connection = await asyncpg.connect(database)
        await connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'matins store'"
            " AND datname = current_database()"
        )
        await connection.close()
        item = await store.aget(("a",), "k")
        assert item is not None


@pytest.mark.parametrize(
    "parameters",
    [
        "",
        "pool_size=5",
        "pgbouncer=true",
        "connect_timeout=3&keepalives=1&channel_binding=prefer",
        "search_path=public",
        "application_name=mine",
        "statement_timeout=30000&options=-c%20lock_timeout%3D5000",
    ],
)
@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+asyncpg"])
async def test_an_address_that_the_server_takes_is_one_for_the_store(
    database: str, scheme: str, parameters: str
) -> None:
    parts = urlsplit(database)
    query = "&".join(part for part in (parts.query, parameters) if part)
    address = urlunsplit((scheme, parts.netloc, parts.path, query, ""))
    async with opened_store(address) as store:
        await store.aput(("a",), "k", {"n": 1})


async def test_a_parameter_that_libpq_does_not_know_is_a_setting_of_the_session(database: str) -> None:
    parts = urlsplit(database)
    query = f"{parts.query}&" if parts.query else ""
    settings = "search_path=a,%20b&statement_timeout=30000&options=-c%20lock_timeout%3D5000"
    address = urlunsplit(parts._replace(query=query + settings))
    with psycopg.connect(_conninfo(address)) as connection:
        shown = [
            connection.execute(f"SHOW {name}").fetchone()
            for name in ("search_path", "statement_timeout", "lock_timeout")
        ]
    assert shown == [("a, b",), ("30s",), ("5s",)]


def test_several_hosts_are_tried_for_the_one_that_writes() -> None:
    known = conninfo_to_dict(_conninfo("postgres://u:p%40w@one:1,two:2/d?pgbouncer=1"))
    assert known["host"] == "one,two"
    assert known["port"] == "1,2"
    assert known["password"] == "p@w"
    assert known["target_session_attrs"] == "read-write"


async def test_a_store_that_is_never_used_needs_no_database() -> None:
    async with opened_store("postgresql://nobody@127.0.0.1:9/none") as store:
        assert isinstance(store, Store)
