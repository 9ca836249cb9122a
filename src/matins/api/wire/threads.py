"""Shapes of threads and their state."""

from __future__ import annotations

from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec

from matins.api.wire.json import Checkpoint, Json, Limit, Offset, Order, compact, instant
from matins.domain.threads import Thread as Stored

Status = Literal["idle", "busy", "interrupted", "error"]


class Thread(msgspec.Struct, kw_only=True):
    """A thread. `error` and `interrupts` are there from its first run or state write on. Source: observed."""

    thread_id: UUID
    created_at: str
    updated_at: str
    state_updated_at: str
    metadata: msgspec.Raw
    status: str
    config: msgspec.Raw
    values: msgspec.Raw | None
    error: msgspec.Raw | msgspec.UnsetType | None = msgspec.UNSET
    interrupts: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


def thread(stored: Stored) -> Thread:
    """Give a stored thread as clients see it."""
    shown = Thread(
        thread_id=stored.thread_id,
        created_at=instant(stored.created_at),
        updated_at=instant(stored.updated_at),
        state_updated_at=instant(stored.state_updated_at),
        metadata=compact(stored.metadata),
        status=stored.status.value,
        config=msgspec.Raw(stored.config),
        values=compact(stored.values) if stored.values is not None else None,
    )
    if stored.interrupts is not None:
        shown.error = msgspec.Raw(stored.error) if stored.error is not None else None
        shown.interrupts = msgspec.Raw(stored.interrupts)
    return shown


class TimeToLive(msgspec.Struct, kw_only=True):
    """How long an idle thread lives, in minutes, and what then happens."""

    ttl: Annotated[float, msgspec.Meta(ge=0, le=52_560_000)]
    strategy: Literal["delete", "keep_latest"] = "delete"


class ThreadCreate(msgspec.Struct, kw_only=True):
    """What creates a thread."""

    thread_id: UUID | msgspec.UnsetType = msgspec.UNSET
    metadata: Json = {}
    if_exists: Literal["raise", "do_nothing"] = "raise"
    ttl: TimeToLive | msgspec.UnsetType = msgspec.UNSET
    supersteps: list[Any] = []


class ThreadPatch(msgspec.Struct, kw_only=True):
    """What changes a thread: `metadata` is merged into its own, key by key."""

    metadata: Json = {}
    ttl: TimeToLive | msgspec.UnsetType = msgspec.UNSET


class ThreadsPrune(msgspec.Struct, kw_only=True):
    """Which threads to prune, and how: delete them, or keep the newest checkpoint of each."""

    thread_ids: Annotated[list[UUID], msgspec.Meta(max_length=1000)]
    strategy: Literal["delete", "keep_latest"] = "delete"


class ThreadsPruned(msgspec.Struct, kw_only=True):
    """How many threads were pruned."""

    pruned_count: int


class ThreadCount(msgspec.Struct, kw_only=True):
    """Which threads to count. `metadata` and `values` must be contained in the thread's."""

    metadata: Json = {}
    values: Json = {}
    status: Status | msgspec.UnsetType = msgspec.UNSET


class ThreadSearch(ThreadCount, kw_only=True):
    """Which threads to find. An empty `ids` filters nothing."""

    ids: list[str] = []
    limit: Limit = 10
    offset: Offset = 0
    sort_by: Literal["thread_id", "status", "created_at", "updated_at", "state_updated_at"] = "updated_at"
    sort_order: Order = "desc"
    extract: Json = {}
    select: list[
        Literal[
            "thread_id",
            "created_at",
            "updated_at",
            "state_updated_at",
            "metadata",
            "config",
            "status",
            "values",
            "interrupts",
        ]
    ] = []


class ThreadState(msgspec.Struct, kw_only=True):
    """A thread's state at one of its checkpoints; this one is of a thread that has none. Source: observed."""

    values: Any = msgspec.field(default_factory=dict)
    next: list[str] = []
    tasks: list[Json] = []
    metadata: Json | None = None
    created_at: str | None = None
    checkpoint: Checkpoint | None = None
    parent_checkpoint: Checkpoint | None = None
    interrupts: list[Json] = []
    checkpoint_id: str | None = None
    parent_checkpoint_id: str | None = None


class StateAt(msgspec.Struct, kw_only=True):
    """Which state to read."""

    checkpoint: Checkpoint
    subgraphs: bool = False


class StateUpdate(msgspec.Struct, kw_only=True):
    """What changes a thread's state, as if the node `as_node` had written it."""

    values: Json | list[Any] | None = None
    as_node: str | msgspec.UnsetType = msgspec.UNSET
    checkpoint: Checkpoint | msgspec.UnsetType = msgspec.UNSET
    checkpoint_id: str | msgspec.UnsetType | None = msgspec.UNSET


class StateUpdated(msgspec.Struct, kw_only=True):
    """The checkpoint that an update wrote."""

    checkpoint: Checkpoint
    configurable: Checkpoint
    checkpoint_id: str


class History(msgspec.Struct, kw_only=True):
    """Which states to list, newest first. `before` is a checkpoint's id, the checkpoint, or a config that names it."""

    limit: Limit = 1
    before: str | Json | msgspec.UnsetType = msgspec.UNSET
    metadata: Json = {}
    checkpoint: Checkpoint | msgspec.UnsetType = msgspec.UNSET
