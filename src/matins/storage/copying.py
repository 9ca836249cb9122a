"""Rows that are written many at a time, by COPY: each is made as PostgreSQL takes it, which may be long before.

What goes through the parameters of a statement is encoded value by value at the moment it is sent; such a row is only
sent, and read without being parsed. Source: PostgreSQL's manual, COPY, "Binary Format".
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from io import BytesIO
from struct import Struct
from typing import Final, TypeAlias
from uuid import UUID

from matins.storage.pool import Conn

Value: TypeAlias = UUID | str | bool | datetime | None

_BEGIN: Final = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_END: Final = b"\xff\xff"
_COUNT: Final = Struct("!h")
_LENGTH: Final = Struct("!i")
_SMALLINT: Final = Struct("!ih")
_TIMESTAMP: Final = Struct("!iq")
_EPOCH: Final = datetime(2000, 1, 1, tzinfo=UTC)
_NULL: Final = _LENGTH.pack(-1)


def fields(*values: Value) -> bytes:
    """Give the fields of columns of type uuid, text, boolean and timestamptz."""
    return b"".join(map(_field, values))


def json(value: bytes | None) -> bytes:
    """Give the field of a column of type json."""
    return _NULL if value is None else _LENGTH.pack(len(value)) + value


def jsonb(value: bytes) -> bytes:
    """Give the field of a column of type jsonb."""
    return json(b"\x01" + value)


def smallint(value: int | None) -> bytes:
    """Give the field of a column of type smallint."""
    return _NULL if value is None else _SMALLINT.pack(2, value)


async def copy(conn: Conn, table: str, columns: Sequence[str], rows: Iterable[bytes]) -> None:
    """Insert rows into matins.`table`, in their order, each the fields of these columns; others get their defaults.

    Raises: what an INSERT of these rows would.
    """
    count = _COUNT.pack(len(columns))
    source = BytesIO(b"".join((_BEGIN, *(part for row in rows for part in (count, row)), _END)))
    await conn.copy_to_table(table, schema_name="matins", columns=columns, source=source, format="binary")


def _field(value: Value) -> bytes:
    match value:
        case None:
            return _NULL
        case UUID():
            return b"\0\0\0\x10" + value.bytes
        case bool():
            return b"\0\0\0\x01" + bytes([value])
        case datetime():
            return _TIMESTAMP.pack(8, (value - _EPOCH) // timedelta(microseconds=1))
        case str():
            return json(value.encode())
