from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any
from urllib.parse import parse_qs, urlsplit

import anyio
import asyncpg
import pytest
import structlog
from anyio.abc import ByteStream, SocketAttribute

from matins import telemetry
from matins.domain.ids import NodeId, ThreadId, uuid7
from matins.engine.streams.wake import Wake, Wakes
from matins.storage.notify import CHANNEL, LIMIT_BYTES
from tests.support.engine import running

pytestmark = pytest.mark.anyio

THREAD = ThreadId(uuid7())
PATIENCE_SECONDS = 20


def wakes(dsn: str, *followed: ThreadId) -> Wakes:
    return Wakes(dsn, node_id=NodeId(uuid7()), follows=lambda thread_id: thread_id in followed)


async def raised(wake: Wake) -> None:
    """Wait until a flag is raised."""
    with anyio.fail_after(PATIENCE_SECONDS):
        while not wake._event.is_set():  # noqa: ASYNC110 - `wait` does not say why it came back
            await anyio.sleep(0.01)
    await wake.wait(0)


async def ready(*nodes: Wakes) -> None:
    """Wait until each has a connection, and lower the flags that it raised for that."""
    for node in nodes:
        for flag in (node.claims, node.holds, node.news):
            await raised(flag)


def is_raised(wake: Wake) -> bool:
    return wake._event.is_set()


async def test_another_node_is_woken_for_what_concerns_it_and_for_nothing_else(database: str) -> None:
    here, there = wakes(database), wakes(database, THREAD)
    async with running(here), running(there):
        await ready(here, there)
        here.tell_queue()
        await raised(there.claims)
        assert not is_raised(there.holds)
        here.tell_followers(ThreadId(uuid7()))
        here.tell_holder(THREAD)  # in the order in which it is told
        await raised(there.holds)
        assert not is_raised(there.news)
        here.tell_followers(THREAD)
        await raised(there.news)
        assert not is_raised(here.news), "nobody follows it here"


async def test_this_node_is_woken_at_once_and_without_a_connection(database: str) -> None:
    alone = wakes(database, THREAD)
    alone.tell_queue()
    alone.tell_holder(THREAD)
    alone.tell_followers(THREAD)
    assert all(is_raised(flag) for flag in (alone.claims, alone.holds, alone.news))


async def test_what_comes_together_is_told_together(database: str) -> None:
    heard: list[str] = []
    connection = await asyncpg.connect(database)
    await connection.add_listener(CHANNEL, lambda *told: heard.append(str(told[-1])))
    here, there = wakes(database), wakes(database, THREAD)
    async with running(here), running(there):
        await ready(here, there)
        for _ in range(100):
            here.tell_queue()
            here.tell_holder(THREAD)
        await raised(there.holds)
        assert sum(f"h:{THREAD}" in text for text in heard) == 1
        # More than fits into one says that there may be something for everybody.
        await raised(there.claims)
        for _ in range(1000):
            here.tell_holder(ThreadId(uuid7()))
        await raised(there.claims)
        await raised(there.news)
        assert max(map(len, heard)) <= LIMIT_BYTES
    await connection.close()


async def test_a_connection_that_is_lost_is_opened_again_and_everybody_is_woken(database: str) -> None:
    here, there = wakes(database), wakes(database)
    connection = await asyncpg.connect(database)
    async with running(here), running(there):
        await ready(here, there)
        await connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
            " AND query LIKE '%pg_notify%' AND pid <> pg_backend_pid()"
        )
        await ready(here, there)
        here.tell_queue()
        await raised(there.claims)
    await connection.close()


@asynccontextmanager
async def deaf(dsn: str) -> AsyncIterator[str]:
    """Give the database behind something that hands on everything but notifications, as a pooler does."""
    place = {name: values[0] for name, values in parse_qs(urlsplit(dsn).query).items()}

    async def relay(client: ByteStream) -> None:
        server = await anyio.connect_unix(f"{place['host']}/.s.PGSQL.{place['port']}")

        async def up() -> None:
            async for piece in client:
                await server.send(piece)

        async def down() -> None:
            held = b""
            async for piece in server:
                held += piece
                while len(held) >= 5 and len(held) >= (size := 1 + int.from_bytes(held[1:5], "big")):
                    message, held = held[:size], held[size:]
                    if message[:1] != b"A":
                        await client.send(message)

        async with client, server, anyio.create_task_group() as group:
            for pump in (up, down):
                group.start_soon(_until_broken, pump, group.cancel_scope)

    async with (
        await anyio.create_tcp_listener(local_host="127.0.0.1") as listener,
        anyio.create_task_group() as group,
    ):
        group.start_soon(listener.serve, relay)
        port = listener.extra(SocketAttribute.local_port)  # noqa: S610 - no ORM is near
        parts = urlsplit(dsn)
        yield f"postgresql://{parts.username}@127.0.0.1:{port}{parts.path}?sslmode=disable"
        group.cancel_scope.cancel()


async def _until_broken(pump: Any, scope: anyio.CancelScope) -> None:
    with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
        await pump()
    scope.cancel()


async def test_a_node_that_does_not_hear_itself_says_so_and_still_tells_others(database: str) -> None:
    there = wakes(database)
    with structlog.testing.capture_logs() as logs:
        async with deaf(database) as behind, running(there):
            here = wakes(behind)
            async with running(here):
                await ready(here, there)
                there.tell_queue()
                here.tell_queue()
                await raised(there.claims)
                with anyio.fail_after(PATIENCE_SECONDS):
                    while not [each for each in logs if each["event"] == telemetry.NODE_POLLS]:  # noqa: ASYNC110
                        await anyio.sleep(0.05)
                here.tell_holder(THREAD)
                await raised(there.holds)
