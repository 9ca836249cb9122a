"""Bring a database to the present schema: forward only, one transaction a file, one migrator at a time."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.resources import files
from typing import Final

from matins.domain.errors import Invalid
from matins.storage.pool import open_connection

_PATIENCE_SECONDS: Final = 600.0  # for a migration, and for another migrator
_LOCK: Final = 0x6D6174696E73  # "matins", as a number: the key of the advisory lock
_RECORDS: Final = """CREATE SCHEMA IF NOT EXISTS matins;
CREATE TABLE IF NOT EXISTS matins.migration (
    version integer PRIMARY KEY, name text NOT NULL, checksum text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT clock_timestamp());
"""


@dataclass(frozen=True, slots=True)
class Migration:
    """One file of migrations/."""

    version: int
    name: str
    text: str

    @property
    def checksum(self) -> str:
        """What the applied text is compared by."""
        return hashlib.sha256(self.text.encode()).hexdigest()


def migrations() -> list[Migration]:
    """Give all migrations, oldest first."""
    folder = files("matins.storage").joinpath("migrations")
    found = [path for path in folder.iterdir() if path.name.endswith(".sql")]
    return [
        Migration(int(path.name[:4]), path.name, path.read_text(encoding="utf-8"))
        for path in sorted(found, key=lambda path: path.name)
    ]


def script() -> str:
    """Give what `migrate` would do to an empty database, as a script for psql; it leaves the same records."""
    parts = [
        f"BEGIN;\n-- {migration.name}\n{migration.text.strip()}\n"
        "INSERT INTO matins.migration (version, name, checksum)"
        f" VALUES ({migration.version}, '{migration.name}', '{migration.checksum}');\nCOMMIT;\n"
        for migration in migrations()
    ]
    return "\n".join([_RECORDS, *parts])


async def migrate(dsn: str) -> list[str]:
    """Apply what is missing, under an advisory lock, and give the names of the files that were applied.

    Raises: Unavailable when the database cannot be reached; Invalid when it was migrated by a newer Matins or an
    applied file differs from ours.
    """
    known_here = migrations()
    applied: list[str] = []
    async with open_connection(dsn) as connection:
        for migration in known_here:
            async with connection.transaction():
                # A transaction's own lock: it holds through PgBouncer too, and goes with us if we die.
                await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK, timeout=_PATIENCE_SECONDS)
                # Asked first: an account that may not make tables may run a node on those that are there.
                if await connection.fetchval("SELECT to_regclass('matins.migration')") is None:
                    await connection.execute(_RECORDS)
                known = {
                    row["version"]: row["checksum"]
                    for row in await connection.fetch("SELECT version, checksum FROM matins.migration")
                }
                if known and max(known) > known_here[-1].version:
                    message = f"The database is at schema {max(known)}, newer than this Matins knows."
                    raise Invalid(message)
                if migration.version in known:
                    if known[migration.version] != migration.checksum:
                        message = f"The database was migrated by another {migration.name} than ours."
                        raise Invalid(message)
                    continue
                await connection.execute(migration.text, timeout=_PATIENCE_SECONDS)
                await connection.execute(
                    "INSERT INTO matins.migration (version, name, checksum) VALUES ($1, $2, $3)",
                    migration.version,
                    migration.name,
                    migration.checksum,
                )
                applied.append(migration.name)
    return applied
