"""Connections: open them, hand out transactions, turn what the driver raises into what the domain knows.

Also where a database that is away for a moment becomes a delay: `run` repeats a whole transaction on a
serialization failure, a deadlock or a lost connection, for a bounded time. A function given to `run` must therefore
be safe to repeat after a COMMIT whose reply was lost: rows carry ids that were minted before the first try.
"""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Final, TypeAlias, TypeVar
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import anyio
import asyncpg
from asyncpg.pool import PoolConnectionProxy

from matins.domain.errors import Conflict, Invalid, Unavailable

Conn: TypeAlias = "PoolConnectionProxy[asyncpg.Record] | asyncpg.Connection[asyncpg.Record]"
T = TypeVar("T")
Work: TypeAlias = Callable[[Conn], Awaitable[T]]
"""What is done in one transaction, from its start again when it has to be."""
Around: TypeAlias = Callable[[Work[T]], Work[T]]
"""What adds to a transaction something that stands or falls with it."""

STATEMENT_SECONDS: Final = 10.0
"""The deadline of one statement; past it the driver asks the server to cancel it."""

PATIENCE_SECONDS: Final = 8.0
"""How long a request waits for a database that is away before it is refused with 503."""

_AWAY: Final = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # what a connection says that broke in the middle of something
    asyncpg.OperatorInterventionError,  # shut down, crashed, starting, cancelled by a hand that is not ours
    asyncpg.InsufficientResourcesError,  # connections, memory, disk
    asyncpg.ReadOnlySQLTransactionError,  # a primary that has just become a standby
)
_AGAIN: Final = (
    asyncpg.SerializationError,
    asyncpg.DeadlockDetectedError,
    asyncpg.LockNotAvailableError,
    asyncpg.InvalidCachedStatementError,  # another node has migrated the schema
)

# What libpq users put into a DSN and asyncpg does not know.
_DROPPED: Final = {
    "channel_binding",
    "gssencmode",
    "keepalives",
    "keepalives_count",
    "keepalives_idle",
    "keepalives_interval",
    "pgbouncer",
    "pool_size",
    "tcp_user_timeout",
}


def normalise_dsn(dsn: str) -> tuple[str, list[str]]:
    """Give the DSN as asyncpg takes it, and the names of the parameters that were dropped.

    SQLAlchemy's `postgresql+driver://` becomes `postgresql://`; several hosts get `target_session_attrs=read-write`.
    """
    parts = urlsplit(dsn)
    scheme = "postgresql" if parts.scheme.split("+")[0] in {"postgres", "postgresql"} else parts.scheme
    kept: list[tuple[str, str]] = []
    dropped: list[str] = []
    for key, value in parse_qsl(parts.query, keep_blank_values=True):
        if key in _DROPPED:
            dropped.append(key)
        elif key != "connect_timeout":  # connecting has a deadline of its own
            kept.append((key, value))
    if "," in parts.netloc and not any(key == "target_session_attrs" for key, _ in kept):
        kept.append(("target_session_attrs", "read-write"))
    return urlunsplit((scheme, parts.netloc, parts.path, urlencode(kept), "")), dropped


async def _prepare(connection: asyncpg.Connection[asyncpg.Record]) -> None:
    """Let JSON pass through as the bytes it is: what is opaque to us is never decoded."""
    await connection.set_type_codec(
        "json", schema="pg_catalog", format="binary", encoder=lambda value: value, decoder=bytes
    )
    await connection.set_type_codec(
        "jsonb",
        schema="pg_catalog",
        format="binary",
        encoder=lambda value: b"\x01" + value,
        decoder=lambda value: bytes(value[1:]),
    )


async def _as_it_is(_: asyncpg.Connection[asyncpg.Record]) -> None:
    """Skip asyncpg's own reset, a round trip at each release: nothing here leaves state in a session."""


@asynccontextmanager
async def open_connection(dsn: str) -> AsyncIterator[Conn]:
    """Open one connection outside any pool, for a lease or a migration; dropped at the end without a goodbye.

    Raises: Unavailable when it cannot be reached, Invalid when it refuses; Unavailable, Conflict, Invalid from what
    the driver raises inside.
    """
    with _reaching():
        connection = await asyncpg.connect(
            normalise_dsn(dsn)[0], timeout=5, command_timeout=STATEMENT_SECONDS
        )
    try:
        with translated():
            await _prepare(connection)
            yield connection
    finally:
        connection.terminate()


class Pool:
    """A bounded set of connections to one database."""

    def __init__(self, pool: asyncpg.Pool[asyncpg.Record]) -> None:
        self._pool = pool

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Conn]:
        """Lend a connection, each statement a transaction of its own.

        Raises: Unavailable, Conflict, Invalid from what the driver raises inside.
        """
        with translated():
            async with self._pool.acquire(timeout=5) as connection:
                yield connection

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Conn]:
        """Lend a connection inside one transaction: committed at the end, rolled back when something is raised."""
        with translated():
            async with self._pool.acquire(timeout=5) as connection, connection.transaction():
                yield connection

    async def run(
        self,
        work: Work[T],
        *,
        transaction: bool = True,
        patience_s: float = PATIENCE_SECONDS,
    ) -> T:
        """Run `work` in a transaction, again from its start when the database asks for it or was away.

        Raises: Unavailable when it stays away for `patience_s` seconds; whatever `work` raises of its own.
        """
        deadline = time.monotonic() + patience_s
        pause_s = 0.02
        while True:
            try:
                async with self.transaction() if transaction else self.connection() as connection:
                    return await work(connection)
            except Unavailable:
                if time.monotonic() + pause_s > deadline:
                    raise
            await anyio.sleep(pause_s * random.uniform(0.5, 1.0))  # noqa: S311 - spreads retries, guards nothing
            pause_s = min(pause_s * 2, 0.5)


@contextmanager
def _reaching() -> Iterator[None]:
    """Turn what the driver raises while it connects into ours, with its reason: only operators read it."""
    try:
        yield
    except asyncpg.ClientConfigurationError as bad:
        raise Invalid(f"The database's address cannot be used: {bad}") from bad
    except _AWAY as away:
        message = f"The database cannot be reached: {away or type(away).__name__}"
        raise Unavailable(message) from away
    except asyncpg.PostgresError as refused:  # a wrong password, no such database
        raise Invalid(f"The database refuses the connection: {refused}") from refused


@contextmanager
def translated() -> Iterator[None]:
    """Turn what the driver raises inside into the errors of the domain."""
    try:
        yield
    except _AWAY as away:
        if isinstance(away, asyncpg.InterfaceError) and isinstance(away, ValueError):
            message = f"The database cannot hold this value: {away}"  # the driver has found it out by itself
            raise Invalid(message) from away
        message = "The database is not available just now."
        raise Unavailable(message) from away
    except _AGAIN as again:
        message = "The database is busy with a conflicting change."
        raise Unavailable(message) from again
    except asyncpg.UniqueViolationError as violation:
        message = f"Conflict: {violation.constraint_name}"
        raise Conflict(message) from violation
    except asyncpg.DataError as unfit:
        message = f"The database cannot hold this value: {unfit}"
        raise Invalid(message) from unfit


@asynccontextmanager
async def open_pool(dsn: str, *, size: int, application: str = "matins") -> AsyncIterator[Pool]:
    """Open a pool of up to `size` connections and close it at the end, at once if the database is gone.

    Raises: Unavailable when the database cannot be reached.
    """
    with _reaching():
        pool = await asyncpg.create_pool(
            normalise_dsn(dsn)[0],
            min_size=min(2, size),
            max_size=size,
            timeout=5,
            command_timeout=STATEMENT_SECONDS,
            init=_prepare,
            reset=_as_it_is,
            max_inactive_connection_lifetime=300,
            server_settings={"application_name": application},
        )
    try:
        yield Pool(pool)
    finally:
        # What is still held is about to vanish with this process: never wait long for a server that is gone.
        with anyio.move_on_after(2, shield=True):
            await pool.close()
        pool.terminate()
