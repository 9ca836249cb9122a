"""LangGraph's checkpointer over storage.checkpoints: tables and layout are those of its own for Postgres.

Only the asynchronous methods exist. State lives in the Access, which clones share: LangGraph clones a saver
with `copy.copy` to widen its allow-list by the types of a graph's schemas, which it does only when
LANGGRAPH_STRICT_MSGPACK was set before it was imported. A saver refuses to be made without.

A value of a type that is neither LangGraph's own, nor named in the graph's schemas, nor in `allowed` (see
`types_of`) is written as any other, and reads back as the plain value it was built from: a dict for a model
or a dataclass, the value for an enum. Nothing is ever pickled.
"""

from __future__ import annotations

import dataclasses
import json
import math
import random
import re
from collections.abc import (
    AsyncIterator,
    Callable,
    Collection,
    Iterable,
    Mapping,
    Sequence,
)
from enum import Enum
from types import ModuleType
from typing import Any, Final, cast

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    WRITES_IDX_MAP,
    BaseCheckpointSaver,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    DeltaChannelHistory,
    PendingWrite,
    get_checkpoint_id,
    get_serializable_checkpoint_metadata,
)
from langgraph.checkpoint.serde._msgpack import STRICT_MSGPACK_ENABLED
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.checkpoint.serde.types import TASKS, _DeltaSnapshot

from matins.domain.runs import Held
from matins.graphs.checkpoint_access import Access, OfRun, OnThread, Reading, Row
from matins.storage import checkpoints
from matins.storage.checkpoints import BlobRow, CheckpointRow, Stored, WriteRow
from matins.storage.pool import Conn, Pool

_NO_ALLOWED: Final[frozenset[tuple[str, str]]] = frozenset()
# A NUL in encoded JSON, not one that is spelled out behind an escaped backslash.
_NUL: Final = re.compile(rb"(?<!\\)((?:\\\\)*)\\u0000")
_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_FIRST_INEXACT: Final = 1e16  # from here on jsonb gives a float back as an integer


class Saver(BaseCheckpointSaver[str]):
    """LangGraph's checkpointer on our connections. Make one with `for_run`, `for_thread` or `reading`."""

    def __init__(self, access: Access, allowed: Collection[tuple[str, str]]) -> None:
        if not STRICT_MSGPACK_ENABLED:
            raise RuntimeError("LANGGRAPH_STRICT_MSGPACK=true must be set before LangGraph is imported.")
        super().__init__(serde=self.serde_for(allowed))
        self._access = access

    @staticmethod
    def serde_for(allowed: Collection[tuple[str, str]]) -> JsonPlusSerializer:
        """Give the serializer that builds LangGraph's types and those named, and never unpickles."""
        return JsonPlusSerializer(pickle_fallback=False, allowed_msgpack_modules=tuple(allowed) or None)

    @classmethod
    def for_run(
        cls,
        pool: Pool,
        held: Held,
        on_lost: Callable[[], None],
        *,
        allowed: Collection[tuple[str, str]] = _NO_ALLOWED,
    ) -> Saver:
        """Give the saver of one attempt of a run: each write is fenced by it, committed when it returns.

        The moment a write is refused `on_lost` is called, once; it must cancel the graph. That write and all
        later ones raise LeaseLost. While the database is away all wait up to 12 s, then raise Unavailable.
        """
        return cls(OfRun(pool, held, on_lost), allowed)

    @classmethod
    def for_thread(cls, conn: Conn, *, allowed: Collection[tuple[str, str]] = _NO_ALLOWED) -> Saver:
        """Give a saver inside a transaction that holds the thread's row: it writes, deletes, prunes."""
        return cls(OnThread(conn), allowed)

    @classmethod
    def reading(cls, pool: Pool, *, allowed: Collection[tuple[str, str]] = _NO_ALLOWED) -> Saver:
        """Give a saver that only reads."""
        return cls(Reading(pool), allowed)

    @property
    def last_checkpoint_id(self) -> str | None:
        """The newest root checkpoint that this run has put, None when it put none. Clones share it."""
        return self._access.memory.newest_id if isinstance(self._access, OfRun) else None

    async def confirm(self) -> None:
        """Ask the database whether the run is still held, with the writes that wait.

        LangGraph writes nothing between the nodes of a run with durability "exit"; a lane asks instead.
        Raises: LeaseLost, after `on_lost`, when it is not held; Unavailable.
        """
        await self._access.write((), blobs={})

    # Writing

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Store a checkpoint and the values that are new in it."""
        where = config["configurable"]
        thread_id, checkpoint_ns = str(where["thread_id"]), where["checkpoint_ns"]
        inline: dict[str, Any] = {}
        blobs: dict[str, str] = {}
        rows: list[Row] = []
        for channel, value in checkpoint["channel_values"].items():
            if _is_inline(value):
                inline[channel] = value
                continue
            if isinstance(value, _DeltaSnapshot):
                inline[channel] = True  # the mark that tells LangGraph's tables of a snapshot in the blobs
            version = new_versions.get(channel)
            if version is not None:
                rows.append(
                    BlobRow(
                        thread_id,
                        checkpoint_ns,
                        channel,
                        str(version),
                        *self.serde.dumps_typed(value),
                    )
                )
            blobs[channel] = str(checkpoint["channel_versions"].get(channel, version))
        rows.append(
            CheckpointRow(
                thread_id,
                checkpoint_ns,
                checkpoint["id"],
                get_checkpoint_id(config),
                _encode({**checkpoint, "channel_values": inline}),
                _encode(_finite(get_serializable_checkpoint_metadata(config, metadata))),
            )
        )
        await self._access.write(rows, blobs=blobs)
        return _config(thread_id, checkpoint_ns, checkpoint["id"])

    async def aput_writes(
        self,
        config: RunnableConfig,
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str = "",
    ) -> None:
        """Store what a task wrote on top of a checkpoint."""
        where = config["configurable"]
        rows = [
            WriteRow(
                str(where["thread_id"]),
                where["checkpoint_ns"],
                where["checkpoint_id"],
                task_id,
                task_path,
                WRITES_IDX_MAP.get(channel, index),
                channel,
                *self.serde.dumps_typed(value),
            )
            for index, (channel, value) in enumerate(writes)
        ]
        await self._access.write(rows, blobs={})

    def get_next_version(self, current: str | None, channel: None) -> str:  # noqa: ARG002 - LangGraph's
        """Give the version after `current`, with a random end.

        The random end keeps the blob of an attempt that died from being read as its successor's.
        LangGraph asks for it at the end of each step, so a lost lease ends the run here even when a node
        swallowed its cancellation.
        """
        self._access.check()
        number = 0 if current is None else int(str(current).split(".")[0])
        return f"{number + 1:032}.{random.random():016}"  # noqa: S311 - unique, not secret

    # Reading

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """Give the checkpoint that the config names, or the newest of its namespace."""
        where = config["configurable"]
        stored = await self._access.get(
            str(where["thread_id"]),
            where.get("checkpoint_ns", ""),
            get_checkpoint_id(config) or None,
        )
        return None if stored is None else self._decode(stored)

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,  # noqa: A002 - LangGraph's name
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        """Give the checkpoints that match, newest first."""
        where: Mapping[str, Any] = {} if config is None else config["configurable"]
        thread_id = where.get("thread_id")
        found = await self._access.read(
            lambda conn: checkpoints.search(
                conn,
                thread_id=None if thread_id is None else str(thread_id),
                checkpoint_ns=where.get("checkpoint_ns"),
                checkpoint_id=where.get("checkpoint_id") or None,
                before=None if before is None else get_checkpoint_id(before),
                metadata=_encode(filter) if filter else None,
                limit=limit,
            )
        )
        for stored in found:
            yield self._decode(stored)

    async def aget_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        """Give for each channel what its value is rebuilt from, in one statement."""
        if not channels:
            return {}
        where = config["configurable"]
        found = await self._access.read(
            lambda conn: checkpoints.list_deltas(
                conn,
                thread_id=str(where["thread_id"]),
                checkpoint_ns=where.get("checkpoint_ns", ""),
                checkpoint_id=get_checkpoint_id(config) or None,
                channels=channels,
            )
        )
        history: dict[str, DeltaChannelHistory] = {}
        for deltas in found:
            history[deltas.channel] = {"writes": self._decode_writes(deltas.writes)}
            if deltas.seed_blob is not None:
                history[deltas.channel]["seed"] = self.serde.loads_typed(deltas.seed_blob)
            elif deltas.seed_inline is not None:
                history[deltas.channel]["seed"] = json.loads(deltas.seed_inline)
        return history

    def _decode(self, stored: Stored) -> CheckpointTuple:
        row = stored.row
        checkpoint = cast("Checkpoint", json.loads(row.checkpoint))
        values = dict(checkpoint.get("channel_values") or {})
        for channel, kind, blob in stored.blobs:
            if kind != "empty":
                values[channel] = self.serde.loads_typed((kind, cast("bytes", blob)))
        if stored.sends:
            values[TASKS] = [self.serde.loads_typed((kind, blob)) for kind, blob in stored.sends]
            versions = checkpoint["channel_versions"]
            versions[TASKS] = (
                max(cast("dict[str, str]", versions).values())
                if versions
                else self.get_next_version(None, None)
            )
        checkpoint["channel_values"] = values
        return CheckpointTuple(
            _config(row.thread_id, row.checkpoint_ns, row.checkpoint_id),
            checkpoint,
            cast("CheckpointMetadata", json.loads(row.metadata)),
            _config(row.thread_id, row.checkpoint_ns, row.parent_checkpoint_id)
            if row.parent_checkpoint_id
            else None,
            self._decode_writes(stored.writes),
        )

    def _decode_writes(self, writes: Iterable[tuple[str, str, str, bytes]]) -> list[PendingWrite]:
        return [
            (task_id, channel, self.serde.loads_typed((kind, blob)))
            for task_id, channel, kind, blob in writes
        ]

    # Deleting, copying, pruning: on a thread that is held

    async def adelete_thread(self, thread_id: str) -> None:
        """Delete all checkpoints of a thread."""
        await self._access.change(lambda conn: checkpoints.delete(conn, thread_ids=[str(thread_id)]))

    async def adelete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Delete the checkpoints that these runs put."""
        if run_ids:
            await self._access.change(
                lambda conn: checkpoints.delete_of_runs(conn, run_ids=[str(run_id) for run_id in run_ids])
            )

    async def acopy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """Copy all checkpoints of a thread to one that has none."""
        await self._access.change(
            lambda conn: checkpoints.copy(conn, source=str(source_thread_id), target=str(target_thread_id))
        )

    async def aprune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """Leave the newest checkpoint of each namespace (`keep_latest`), or none (`delete`).

        Raises: NotImplementedError for `keep_latest` of a thread with a DeltaChannel, whose value needs all.
        """
        ids = [str(thread_id) for thread_id in thread_ids]
        match strategy:
            case "delete":
                await self._access.change(lambda conn: checkpoints.delete(conn, thread_ids=ids))
            case "keep_latest":
                await self._access.change(lambda conn: _keep_latest(conn, ids))
            case _:
                raise ValueError(f"Unknown prune strategy: {strategy!r}")


def types_of(modules: Iterable[ModuleType]) -> frozenset[tuple[str, str]]:
    """Give the models, dataclasses, named tuples and enums that these modules define, as an allow-list.

    A graph's own modules are its author's code; what they define may be built again from a checkpoint.
    """
    return frozenset(
        (found.__module__, found.__name__)
        for module in modules
        for found in vars(module).values()
        if isinstance(found, type)
        and found.__module__ == module.__name__
        and (
            dataclasses.is_dataclass(found)
            or issubclass(found, Enum)
            or hasattr(found, "model_validate")
            or hasattr(found, "_fields")
        )
    )


async def _keep_latest(conn: Conn, thread_ids: Sequence[str]) -> None:
    if refused := await checkpoints.list_delta_threads(conn, thread_ids=thread_ids):
        raise NotImplementedError(
            f"A thread that uses a DeltaChannel needs all its checkpoints: {', '.join(refused)}"
        )
    for thread_id in thread_ids:
        await checkpoints.keep_latest(conn, thread_id=thread_id)


def _config(thread_id: str, checkpoint_ns: str, checkpoint_id: str) -> RunnableConfig:
    return {
        "configurable": {
            "thread_id": thread_id,
            "checkpoint_ns": checkpoint_ns,
            "checkpoint_id": checkpoint_id,
        }
    }


def _is_inline(value: object) -> bool:
    """Whether a channel's value stands in the checkpoint's JSON: what reads back from there as it was."""
    if value is None or isinstance(value, bool):
        return True
    if type(value) is str:
        return "\0" not in value and (value.isascii() or not _SURROGATE.search(value))
    if type(value) is float:
        return abs(value) < _FIRST_INEXACT  # not for NaN
    return type(value) is int


def _encode(value: Any) -> bytes:
    """Encode as JSON that a jsonb column takes: a NUL is dropped, a lone surrogate becomes "?"."""
    encoded = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
    return _NUL.sub(rb"\1", encoded) if rb"\u0000" in encoded else encoded


def _finite(metadata: CheckpointMetadata) -> dict[str, Any]:
    """Leave out numbers that JSON has not: a config may carry them into the metadata."""
    return {
        key: value
        for key, value in metadata.items()
        if not (isinstance(value, float) and not math.isfinite(value))
    }
