from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import asyncpg
import pytest

from matins.storage.copying import copy, fields, json, jsonb, smallint
from matins.storage.pool import Pool

pytestmark = pytest.mark.anyio

COLUMNS = ("thread_id", "owner", "created_at", "metadata", "config", "interrupts", "priority", "expires_at")
MOMENTS = [
    datetime(1, 1, 1, tzinfo=UTC),
    datetime(1999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
    datetime(2026, 11, 1, 9, 0, 0, 1, tzinfo=UTC),
    datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
]
TEXTS = ["", "\\N", "a\tb\nc\r\\d", "\"'{},$1", "naïve 🕰", "\\x00"]


async def test_what_is_copied_is_what_is_read(pool: Pool) -> None:
    rows = [
        (uuid4(), text, moment, b'{"a": "\\\\t"}', b'[1,\n\t"\\\\"]', b"null", priority, None)
        for text in TEXTS
        for moment in MOMENTS
        for priority in (-5, 0, 5, None)
    ]
    async with pool.transaction() as conn:
        await copy(
            conn,
            "thread",
            COLUMNS,
            [
                fields(*row[:3])
                + jsonb(row[3])
                + json(row[4])
                + json(row[5])
                + smallint(row[6])
                + fields(row[7])
                for row in rows
            ],
        )
        found = await conn.fetch(f"SELECT {', '.join(COLUMNS)} FROM matins.thread")
    assert sorted(map(tuple, found), key=lambda row: row[0]) == sorted(rows, key=lambda row: row[0])


async def test_booleans_and_json_that_is_not_there(pool: Pool) -> None:
    slot = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(microseconds=1)
    crons = {uuid4(): True, uuid4(): False}
    columns = ("cron_id", "assistant_id", "schedule", "enabled", "next_run_date", "payload", "creator")
    async with pool.transaction() as conn:
        await copy(
            conn,
            "cron",
            columns,
            [
                fields(cron_id, uuid4(), "* * * * *", enabled, slot) + json(b"{}") + json(None)
                for cron_id, enabled in crons.items()
            ],
        )
        found = await conn.fetch("SELECT cron_id, enabled, creator, due_at FROM matins.cron")
    assert {row["cron_id"]: row["enabled"] for row in found} == crons
    assert {(row["creator"], row["due_at"]) for row in found} == {(None, slot)}  # triggers and defaults apply


async def test_a_row_that_the_database_refuses_refuses_them_all(pool: Pool) -> None:
    good, bad = uuid4(), uuid4()
    async with pool.connection() as conn:
        with pytest.raises(asyncpg.CheckViolationError):
            await copy(
                conn, "thread", ("thread_id", "status"), [fields(good, "idle"), fields(bad, "no such status")]
            )
        assert await conn.fetchval("SELECT count(*) FROM matins.thread") == 0
