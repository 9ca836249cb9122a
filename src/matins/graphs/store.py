"""LangGraph's store, on our database: what a graph gets as `get_store()`, `runtime.store` and `store: BaseStore`.

The tables are made by our migrations. It is LangGraph's own, with its own driver, so its connections come on top of
the worker's: none until a graph uses it, and never more than a few.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any, Final
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

from langgraph.store.base import Op, Result
from langgraph.store.postgres import AsyncPostgresStore
from psycopg import pq
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool

from matins.storage.pool import normalise_dsn
from matins.workers.protocol import STORE_CONNECTIONS

_PATIENCE_SECONDS: Final = 10.0
"""How long a use may wait for a connection, as when the database is away."""


class Store(AsyncPostgresStore):
    """The store of one process. Its first use opens the connections."""

    __slots__ = ("_connections",)

    def __init__(self, dsn: str) -> None:
        connections: AsyncConnectionPool[Any] = AsyncConnectionPool(
            _conninfo(dsn),
            min_size=0,
            max_size=STORE_CONNECTIONS,
            timeout=_PATIENCE_SECONDS,
            open=False,
            name="matins store",
            kwargs={
                "autocommit": True,
                "row_factory": dict_row,
                "prepare_threshold": None,  # a pooler between may give each transaction another session
                "application_name": "matins store",
                "connect_timeout": 5,
            },
            check=AsyncConnectionPool.check_connection,
        )
        self._connections = connections
        super().__init__(connections)

    async def abatch(self, ops: Iterable[Op]) -> list[Result]:
        """Do everything that is asked of the store: its other methods, sync ones too, all end here."""
        await self._connections.open()
        return await super().abatch(ops)

    async def aclose(self) -> None:
        """Close the connections; whoever still waits for one gets an error."""
        await self._connections.close(timeout=1)


@asynccontextmanager
async def opened_store(dsn: str) -> AsyncIterator[Store]:
    """Give the store of this process, and close it at the end."""
    store = Store(dsn)
    try:
        yield store
    finally:
        await store.aclose()


def _conninfo(dsn: str) -> str:
    """Give the database's address as libpq takes it, which knows other parameters than our driver does.

    What our driver would make a setting of the session becomes one here too.
    """
    parts = urlsplit(normalise_dsn(dsn)[0])
    known = {option.keyword.decode() for option in pq.Conninfo.get_defaults()}
    kept: dict[str, str] = {}
    settings: list[str] = []
    for key, value in parse_qsl(parts.query, keep_blank_values=True):
        if key in known:
            kept[key] = value
        elif key == "database":
            kept["dbname"] = value
        else:
            escaped = value.replace("\\", "\\\\").replace(" ", "\\ ")
            settings.append(f"-c {key}={escaped}")
    if settings:
        kept["options"] = " ".join([*([kept["options"]] if "options" in kept else []), *settings])
    return urlunsplit((parts.scheme, parts.netloc, parts.path, urlencode(kept, quote_via=quote), ""))
