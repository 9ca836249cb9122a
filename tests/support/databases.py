"""A Postgres of the tests' own, and one migrated template that each test gets a copy of."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import anyio
import asyncpg

from matins.embedded import EmbeddedPostgres
from matins.storage.migrate import migrate

TEMPLATE = "matins_template"
ROLE = "postgres"


def at(uri: str, name: str, *, role: str = ROLE) -> str:
    """Give the DSN of another database of the same server."""
    return urlunsplit(urlsplit(uri)._replace(netloc=f"{role}@", path=f"/{name}"))


async def _execute(uri: str, *statements: str) -> None:
    connection = await asyncpg.connect(uri)
    for statement in statements:
        await connection.execute(statement)
    await connection.close()


@contextmanager
def server(data_dir: Path) -> Iterator[str]:
    """Run a server that does not sync to disk and holds the migrated template; gives its DSN."""
    postgres = EmbeddedPostgres(data_dir)
    postgres.start()
    try:
        anyio.run(
            _execute,
            postgres.uri,
            "ALTER SYSTEM SET fsync = off",
            "ALTER SYSTEM SET synchronous_commit = off",
            "ALTER SYSTEM SET full_page_writes = off",
            "SELECT pg_reload_conf()",
            "CREATE ROLE matins SUPERUSER LOGIN",  # called as our schema: a case of its own
            f"CREATE DATABASE {TEMPLATE}",
        )
        anyio.run(migrate, at(postgres.uri, TEMPLATE))
        yield at(postgres.uri, "postgres")
    finally:
        postgres.stop()


@contextmanager
def database(server_uri: str, *, template: str = TEMPLATE) -> Iterator[str]:
    """Make a database for one test, a copy of the template, and drop it at the end; gives its DSN."""
    name = f"test_{uuid4().hex}"
    anyio.run(_execute, server_uri, f"CREATE DATABASE {name} TEMPLATE {template}")
    try:
        yield at(server_uri, name)
    finally:
        anyio.run(_execute, server_uri, f"DROP DATABASE {name} WITH (FORCE)")
