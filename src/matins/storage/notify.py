"""NOTIFY: hints between the nodes of a database. They may be lost; whoever acts on one has a poll behind it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

from matins.storage import sql
from matins.storage.pool import Conn, open_connection

CHANNEL: Final = "matins"
LIMIT_BYTES: Final = 7900
"""How long a text may be: PostgreSQL refuses 8000 bytes."""


@asynccontextmanager
async def listening(
    dsn: str, heard: Callable[[str], None], closed: Callable[[], None]
) -> AsyncIterator[Conn]:
    """Open a connection of its own on which every node's hints are heard; `closed` is called when it has ended.

    Raises: Unavailable, Invalid.
    """
    async with open_connection(dsn) as connection:
        await connection.add_listener(CHANNEL, lambda *told: heard(str(told[-1])))
        connection.add_termination_listener(lambda _: closed())
        yield connection


async def send(conn: Conn, text: str) -> None:
    """Tell all nodes. Must not be in a transaction: a NOTIFY holds a lock of the whole database over its commit."""
    await conn.execute(sql.load("notify")["send_hint"].text, CHANNEL, text)
