"""LangGraph's checkpoint tables: fenced and unfenced writes, reads, delete, copy, prune, measure.

Rows of text, bytes and encoded JSON go in and out; what they mean is for graphs/checkpoints.py to know.
Thread ids are text here, as LangGraph's tables have them. Functions without a fence expect that the caller's
transaction holds the thread's row and that no run of it is running.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple
from uuid import UUID

from matins.domain.runs import Held
from matins.storage.pool import Conn
from matins.storage.sql import load


class CheckpointRow(NamedTuple):
    """A row of `checkpoints`; `checkpoint` and `metadata` are encoded JSON."""

    thread_id: str
    checkpoint_ns: str
    checkpoint_id: str
    parent_checkpoint_id: str | None
    checkpoint: bytes
    metadata: bytes


class BlobRow(NamedTuple):
    """A row of `checkpoint_blobs`: one value of one channel at one version."""

    thread_id: str
    checkpoint_ns: str
    channel: str
    version: str
    type: str
    blob: bytes | None


class WriteRow(NamedTuple):
    """A row of `checkpoint_writes`: what a task wrote on top of a checkpoint. A negative `idx` is special."""

    thread_id: str
    checkpoint_ns: str
    checkpoint_id: str
    task_id: str
    task_path: str
    idx: int
    channel: str
    type: str
    blob: bytes


@dataclass(slots=True)
class Batch:
    """Rows for one statement, each key once: a statement may not touch a row twice.

    `over`: which of the writes stand on a checkpoint that is another run's.
    """

    checkpoints: dict[tuple[str, str, str], CheckpointRow] = field(default_factory=dict)
    blobs: dict[tuple[str, str, str, str], BlobRow] = field(default_factory=dict)
    writes: dict[tuple[str, str, str, str, int], WriteRow] = field(default_factory=dict)
    over: set[tuple[str, str, str, int]] = field(default_factory=set)

    def add(self, rows: Iterable[CheckpointRow | BlobRow | WriteRow]) -> None:
        """Add rows in the order they were made; of two with one key the database's rule decides."""
        for row in rows:
            match row:
                case CheckpointRow():
                    self.checkpoints[row[:3]] = row
                case BlobRow():
                    self.blobs.setdefault(row[:4], row)
                case WriteRow() if row.idx < 0:
                    self.writes[(*row[:4], row.idx)] = row
                case WriteRow():
                    self.writes.setdefault((*row[:4], row.idx), row)

    def __bool__(self) -> bool:
        return bool(self.checkpoints or self.blobs or self.writes)

    def columns(self) -> list[Sequence[Any]]:
        """Give the parameters of the insert: one array a column."""
        return [
            *_transpose(list(self.checkpoints.values()), 6),
            *_transpose(list(self.blobs.values()), 6),
            *_transpose(list(self.writes.values()), 9),
        ]

    def columns_over(self) -> list[Sequence[Any]]:
        """Give the keys of `over`, one array a column."""
        return [*_transpose(list(self.over), 4)]


def _transpose(rows: Sequence[tuple[Any, ...]], width: int) -> Sequence[Sequence[Any]]:
    return list(zip(*rows, strict=True)) if rows else [()] * width


@dataclass(frozen=True, slots=True)
class Stored:
    """A checkpoint with all that belongs to it, still encoded.

    `blobs` are (channel, type, blob); `writes` are (task_id, channel, type, blob) in the order LangGraph
    applies them; `sends` are (type, blob), of checkpoints older than format 4.
    """

    row: CheckpointRow
    blobs: Sequence[tuple[str, str, bytes | None]]
    writes: Sequence[tuple[str, str, str, bytes]]
    sends: Sequence[tuple[str, bytes]]


@dataclass(frozen=True, slots=True)
class Deltas:
    """What a DeltaChannel is rebuilt from: a seed, encoded JSON or (type, blob), and writes, oldest first."""

    channel: str
    writes: Sequence[tuple[str, str, str, bytes]]
    seed_inline: bytes | None
    seed_blob: tuple[str, bytes] | None


class Size(NamedTuple):
    """How many rows, and how many bytes in them."""

    rows: int
    octets: int


@dataclass(frozen=True, slots=True)
class Sizes:
    """What a thread's checkpoints take: they themselves, the writes on them, and values by channel."""

    checkpoints: Size
    writes: Size
    channels: dict[str, Size]


_FILE: Final = "checkpoints"


async def insert_held(conn: Conn, held: Held, batch: Batch) -> bool:
    """Write the rows if that attempt holds its run, in one statement; give whether it does. May be repeated.

    Holds the run's row in share mode while it writes, so that no new attempt can begin under it.
    """
    return bool(
        await conn.fetchval(
            load(_FILE)["insert_held"].text,
            held.run_id,
            held.attempt,
            *batch.columns(),
            *batch.columns_over(),
        )
    )


async def is_held(conn: Conn, held: Held) -> bool:
    """Give whether that attempt holds its run at this moment; no ground to write anything on."""
    return bool(await conn.fetchval(load(_FILE)["is_held"].text, held.run_id, held.attempt))


async def insert(conn: Conn, batch: Batch) -> None:
    """Write the rows, unfenced, in one statement. May be repeated."""
    await conn.execute(load(_FILE)["insert"].text, *batch.columns())


async def get_newest(conn: Conn, *, thread_id: str, checkpoint_ns: str) -> Stored | None:
    """Give the newest checkpoint of a namespace, in one statement."""
    record = await conn.fetchrow(load(_FILE)["get_newest"].text, thread_id, checkpoint_ns)
    return None if record is None else _stored(record)


async def search(
    conn: Conn,
    *,
    thread_id: str | None = None,
    checkpoint_ns: str | None = None,
    checkpoint_id: str | None = None,
    before: str | None = None,
    metadata: bytes | None = None,
    limit: int | None = None,
) -> list[Stored]:
    """Give the checkpoints that match all that is given, newest first, in one statement.

    `before` is a checkpoint's id; `metadata` is a JSON object that theirs must contain.
    """
    records = await conn.fetch(
        load(_FILE)["search"].text,
        thread_id,
        checkpoint_ns,
        checkpoint_id,
        before,
        metadata,
        limit,
    )
    return [_stored(record) for record in records]


async def list_deltas(
    conn: Conn,
    *,
    thread_id: str,
    checkpoint_ns: str,
    checkpoint_id: str | None,
    channels: Sequence[str],
) -> list[Deltas]:
    """Give for each channel what its value at a checkpoint (without an id: the newest) is rebuilt from."""
    records = await conn.fetch(
        load(_FILE)["list_deltas"].text,
        thread_id,
        checkpoint_ns,
        checkpoint_id,
        channels,
    )
    return [
        Deltas(
            record["channel"],
            record["writes"],
            record["seed_inline"],
            None if record["seed_type"] is None else (record["seed_type"], record["seed_blob"]),
        )
        for record in records
    ]


async def delete(conn: Conn, *, thread_ids: Sequence[str]) -> None:
    """Delete all checkpoints of these threads, with their writes and blobs."""
    await conn.execute(load(_FILE)["delete"].text, thread_ids)


async def delete_of_runs(conn: Conn, *, run_ids: Sequence[str], thread_id: str | None = None) -> None:
    """Delete the checkpoints whose metadata names one of these runs; slow without their thread."""
    await conn.execute(load(_FILE)["delete_of_runs"].text, run_ids, thread_id)


async def undo(conn: Conn, *, run_id: UUID, thread_id: UUID) -> None:
    """Leave the thread's checkpoints as they were before the run, which must not be able to write any more."""
    await conn.execute(load(_FILE)["put_back"].text, run_id, str(thread_id))
    await delete_of_runs(conn, run_ids=[str(run_id)], thread_id=str(thread_id))


async def forget_undo(conn: Conn) -> None:
    """Forget what is kept for undoing runs that have ended."""
    await conn.execute(load(_FILE)["forget_undo"].text)


async def copy(conn: Conn, *, source: str, target: str) -> None:
    """Copy all checkpoints of a thread, with their writes and blobs, to a thread that has none."""
    await conn.execute(load(_FILE)["copy"].text, source, target)


async def list_delta_threads(conn: Conn, *, thread_ids: Sequence[str]) -> list[str]:
    """Give those threads whose values are spread over many checkpoints (DeltaChannel): not to be pruned."""
    records = await conn.fetch(load(_FILE)["list_delta_threads"].text, thread_ids)
    return sorted(record["thread_id"] for record in records)


async def keep_latest(conn: Conn, *, thread_id: str) -> None:
    """Delete all but the newest checkpoint of each namespace; never for a thread of `list_delta_threads`."""
    await conn.execute(load(_FILE)["keep_latest"].text, thread_id)


async def merge_metadata(conn: Conn, *, thread_id: str, metadata: bytes) -> None:
    """Merge metadata into that of the newest root checkpoint, if there is one; LangGraph's own keys stay."""
    await conn.execute(load(_FILE)["merge_checkpoint_metadata"].text, thread_id, metadata)


async def measure(conn: Conn, *, thread_id: str) -> Sizes:
    """Measure what a thread's checkpoints take."""
    [record] = await conn.fetch(load(_FILE)["measure_checkpoints"].text, thread_id)
    return Sizes(
        Size(record["checkpoints"], record["checkpoint_bytes"]),
        Size(record["writes"], record["write_bytes"]),
        {channel: Size(versions, octets) for channel, versions, octets in record["channels"] or ()},
    )


def _stored(record: Any) -> Stored:
    return Stored(
        CheckpointRow(
            record["thread_id"],
            record["checkpoint_ns"],
            record["checkpoint_id"],
            record["parent_checkpoint_id"],
            record["checkpoint"],
            record["metadata"],
        ),
        record["blobs"],
        record["writes"],
        record["sends"],
    )
