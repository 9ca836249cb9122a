"""How a saver reaches the database: only reading, on a thread that is held, or as a run behind its fence.

No LangGraph here, only rows. The run's way in is the one with machinery: one statement in flight, those that
wait travel together in the next; a refusal is told the moment it is known; what was written is remembered, so
that the state a run ends on needs no read.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, Protocol, TypeVar

import anyio

from matins.domain.errors import LeaseLost, Unavailable
from matins.domain.runs import Held
from matins.storage import checkpoints
from matins.storage.checkpoints import Batch, BlobRow, CheckpointRow, Stored, WriteRow
from matins.storage.pool import Conn, Pool, translated

T = TypeVar("T")
Row = CheckpointRow | BlobRow | WriteRow

PATIENCE_S: Final = 12.0
"""How long a run waits for a database that restarts. A lease is 15 s; then another may have the run."""


class Access(Protocol):
    """What a saver needs of the database."""

    async def read(self, work: Callable[[Conn], Awaitable[T]]) -> T:
        """Read what needs no common snapshot."""
        ...

    async def get(self, thread_id: str, checkpoint_ns: str, checkpoint_id: str | None) -> Stored | None:
        """Give one checkpoint; without an id, the newest of the namespace."""
        ...

    async def write(self, rows: Sequence[Row], *, blobs: Mapping[str, str]) -> None:
        """Write rows: committed, or part of the holder's transaction, when this returns.

        `blobs`: of the checkpoint among the rows, the version of each channel whose value stands in a blob.
        """
        ...

    async def change(self, work: Callable[[Conn], Awaitable[None]]) -> None:
        """Delete, copy or prune: what only the holder of a thread may do."""
        ...

    def check(self) -> None:
        """Raise LeaseLost when it is already known that nothing may be written any more."""
        ...


class Reading:
    """Reads only."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def read(self, work: Callable[[Conn], Awaitable[T]]) -> T:
        """As Access; again from its start while the database is away."""
        return await self._pool.run(work, transaction=False, patience_s=PATIENCE_S)

    async def get(self, thread_id: str, checkpoint_ns: str, checkpoint_id: str | None) -> Stored | None:
        """As Access."""
        return await self.read(lambda conn: _get(conn, thread_id, checkpoint_ns, checkpoint_id))

    async def write(self, rows: Sequence[Row], *, blobs: Mapping[str, str]) -> None:
        """Refuse."""
        raise NotImplementedError("This checkpointer only reads.")

    async def change(self, work: Callable[[Conn], Awaitable[None]]) -> None:
        """Refuse."""
        raise NotImplementedError("This checkpointer only reads.")

    def check(self) -> None:
        """As Access; never raises."""


class OnThread:
    """Everything, unfenced, in the transaction of one connection that holds the thread's row."""

    def __init__(self, conn: Conn) -> None:
        self._conn = conn
        # LangGraph saves in the background, and a connection does one thing at a time.
        self._lock = anyio.Lock()

    async def read(self, work: Callable[[Conn], Awaitable[T]]) -> T:
        """As Access."""
        # Translated here: between here and the transaction is user code, whose OSError is none of the database's.
        async with self._lock:
            with translated():
                return await work(self._conn)

    async def get(self, thread_id: str, checkpoint_ns: str, checkpoint_id: str | None) -> Stored | None:
        """As Access."""
        return await self.read(lambda conn: _get(conn, thread_id, checkpoint_ns, checkpoint_id))

    async def write(self, rows: Sequence[Row], *, blobs: Mapping[str, str]) -> None:  # noqa: ARG002 - remembers nothing
        """As Access."""
        batch = Batch()
        batch.add(rows)
        await self.read(lambda conn: checkpoints.insert(conn, batch))

    async def change(self, work: Callable[[Conn], Awaitable[None]]) -> None:
        """As Access."""
        await self.read(work)

    def check(self) -> None:
        """As Access; never raises."""


class OfRun:
    """Reads, and writes that the database refuses when the attempt no longer holds its run."""

    def __init__(self, pool: Pool, held: Held, on_lost: Callable[[], None]) -> None:
        self._pool = pool
        self._held = held
        self._on_lost = on_lost
        self._is_lost = False
        self._queue: dict[_Waiting, None] = {}
        self._found: set[tuple[str, str]] = set()
        self._lock = anyio.Lock()
        self.memory = Memory(str(held.thread_id))

    async def read(self, work: Callable[[Conn], Awaitable[T]]) -> T:
        """As Access; again from its start while the database is away."""
        return await self._pool.run(work, transaction=False, patience_s=PATIENCE_S)

    async def get(self, thread_id: str, checkpoint_ns: str, checkpoint_id: str | None) -> Stored | None:
        """As Access, from memory when this run put it and nobody can have put a newer one."""
        if (
            not self._is_lost
            and (known := self.memory.get(thread_id, checkpoint_ns, checkpoint_id)) is not None
        ):
            return known
        stored = await self.read(lambda conn: _get(conn, thread_id, checkpoint_ns, checkpoint_id))
        if stored is not None:
            self._found.add((stored.row.checkpoint_ns, stored.row.checkpoint_id))
            self.memory.note_read(stored)
        return stored

    async def write(self, rows: Sequence[Row], *, blobs: Mapping[str, str]) -> None:
        """As Access; without rows it only asks whether the run is still held.

        Raises: LeaseLost when it is not, Unavailable when the database stayed away.
        """
        self.check()
        mine = _Waiting(rows, blobs)
        self._queue[mine] = None
        try:
            async with self._lock:  # taking it lets those that are about to write join the queue
                if mine.is_written:
                    return
                self.check()
                if mine.away is not None:
                    raise mine.away
                await self._flush()
        finally:
            self._queue.pop(mine, None)

    async def _flush(self) -> None:
        """Write all that waits in one statement; unless it fails by an outage, each then tries for itself."""
        together = list(self._queue)
        batch = Batch()
        for waiting in together:
            batch.add(waiting.rows)
        # On a checkpoint that was there before, whose other writes are not ours: a rollback puts back what they hide.
        batch.over = {
            (ns, checkpoint_id, task_id, idx)
            for _, ns, checkpoint_id, task_id, idx in batch.writes
            if (ns, checkpoint_id) in self._found
        }
        try:
            is_held = await self.read(
                lambda conn: (
                    checkpoints.insert_held(conn, self._held, batch)
                    if batch
                    else checkpoints.is_held(conn, self._held)
                )
            )
        except Unavailable as away:
            for waiting in together:
                waiting.away = away
            raise
        if not is_held:
            self._is_lost = True
            # At once: LangGraph saves in the background and would run all nodes before it looks.
            self._on_lost()
            self.check()
        for waiting in together:
            waiting.is_written = True
            self._queue.pop(waiting, None)
            self.memory.note_written(waiting.rows, waiting.blobs)

    async def change(self, work: Callable[[Conn], Awaitable[None]]) -> None:
        """Refuse."""
        raise NotImplementedError("A run may not delete, copy or prune checkpoints.")

    def check(self) -> None:
        """As Access."""
        if self._is_lost:
            raise LeaseLost(f"Attempt {self._held.attempt} no longer holds run {self._held.run_id}.")


class _Waiting:
    """Rows on their way, and how it ended."""

    def __init__(self, rows: Sequence[Row], blobs: Mapping[str, str]) -> None:
        self.rows = rows
        self.blobs = blobs
        self.is_written = False
        self.away: Unavailable | None = None


class Memory:
    """The newest root checkpoint that a run has put, as rows: what the database would answer, or nothing.

    It forgets what is older. Values that the run did not write itself it knows from the checkpoints that the
    run read; when one is missing it does not answer.
    """

    def __init__(self, thread_id: str) -> None:
        self._thread_id = thread_id
        self._newest: CheckpointRow | None = None
        self._needed: Mapping[str, str] = {}
        self._blobs: dict[tuple[str, str], tuple[str, str, bytes | None]] = {}
        self._writes = Batch()

    @property
    def newest_id(self) -> str | None:
        """The id of that checkpoint."""
        return None if self._newest is None else self._newest.checkpoint_id

    def get(self, thread_id: str, checkpoint_ns: str, checkpoint_id: str | None) -> Stored | None:
        """Give the checkpoint when it is the one asked for and every part of it is known."""
        newest = self._newest
        if newest is None or (thread_id, checkpoint_ns) != newest[:2]:
            return None
        if checkpoint_id not in (None, newest.checkpoint_id):
            return None
        if not all(key in self._blobs for key in self._needed.items()):
            return None
        writes = [row for row in self._writes.writes.values() if row.checkpoint_id == newest.checkpoint_id]
        writes.sort(key=lambda row: (row.task_path, row.task_id, row.idx))
        return Stored(
            newest,
            [self._blobs[key] for key in self._needed.items()],
            [(row.task_id, row.channel, row.type, row.blob) for row in writes],
            (),
        )

    def note_read(self, stored: Stored) -> None:
        """Keep the values of a checkpoint that the run may go on from."""
        if self._is_root(stored.row):
            versions = json.loads(stored.row.checkpoint)["channel_versions"]
            self._blobs.update(
                {(blob[0], str(versions[blob[0]])): (blob[0], blob[1], blob[2]) for blob in stored.blobs}
            )

    def note_written(self, rows: Sequence[Row], blobs: Mapping[str, str]) -> None:
        """Keep what was committed: the newest checkpoint, its values, the writes on it or on a later one."""
        for row in filter(self._is_root, rows):
            match row:
                case BlobRow():
                    self._blobs.setdefault((row.channel, row.version), (row.channel, row.type, row.blob))
                case WriteRow():
                    self._writes.add((row,))
                case CheckpointRow():
                    if self._newest is None or row.checkpoint_id >= self._newest.checkpoint_id:
                        self._newest, self._needed = row, blobs
        if self._newest is not None:
            newest_id, needed = self._newest.checkpoint_id, set(self._needed.items())
            self._blobs = {key: blob for key, blob in self._blobs.items() if key in needed}
            self._writes.writes = {
                key: row for key, row in self._writes.writes.items() if row.checkpoint_id >= newest_id
            }

    def _is_root(self, row: Row) -> bool:
        return row.thread_id == self._thread_id and row.checkpoint_ns == ""


async def _get(conn: Conn, thread_id: str, checkpoint_ns: str, checkpoint_id: str | None) -> Stored | None:
    if checkpoint_id is None:
        return await checkpoints.get_newest(conn, thread_id=thread_id, checkpoint_ns=checkpoint_ns)
    found = await checkpoints.search(
        conn,
        thread_id=thread_id,
        checkpoint_ns=checkpoint_ns,
        checkpoint_id=checkpoint_id,
    )
    return found[0] if found else None
