"""Shapes of threads and their state."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, TypeAlias
from uuid import UUID

import msgspec

from matins.api.wire.json import Checkpoint, Id, Json, Limit, Offset, Order, compact, instant
from matins.domain.extraction import ROOTS
from matins.domain.thread_state import FIELDS
from matins.domain.threads import LONGEST_MINUTES
from matins.domain.threads import Thread as Stored
from matins.domain.threads import TimeToLive as StoredTimeToLive
from matins.storage.checkpoints import Sizes

Status = Literal["idle", "busy", "interrupted", "error"]

_NAMED: Final[Json] = {
    "type": "object",
    "properties": {"checkpoint_id": {"type": "string"}},
    "required": ["checkpoint_id"],
}

# These are read, and refused, where their sentences are.
StateField: TypeAlias = Annotated[
    str, msgspec.Meta(extra_json_schema={"pattern": rf"^({'|'.join(FIELDS)}|values\.[\s\S]+)$"})
]
Before: TypeAlias = Annotated[
    Json,
    msgspec.Meta(
        extra_json_schema={
            "anyOf": [
                {"maxProperties": 0},
                {"properties": {"configurable": _NAMED}, "required": ["configurable"]},
                {**_NAMED, "properties": {**_NAMED["properties"], "configurable": False}},
            ]
        }
    ),
]
Path: TypeAlias = Annotated[
    str,
    msgspec.Meta(extra_json_schema={"pattern": rf"^({'|'.join(ROOTS)})(\.[^.\[\]]+|\[-?[0-9]{{1,9}}\])*$"}),
]


class Expiry(msgspec.Struct, kw_only=True):
    """A thread's time to live, its own or the default. `expires_at` is null once it was pruned, until its next use."""

    strategy: str
    ttl_minutes: float
    expires_at: str | None


class Thread(msgspec.Struct, kw_only=True):
    """A thread. `error` and `interrupts` are there from its first run or state write on. Source: observed.

    `ttl` is there when a client asked to include it, and null where threads live for ever; `extracted` when a search
    was told what to extract.
    """

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
    ttl: Expiry | msgspec.UnsetType | None = msgspec.UNSET
    extracted: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


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
    if stored.extracted is not None:
        shown.extracted = compact(stored.extracted)
    return shown


def expiry(stored: Stored, default: StoredTimeToLive | None) -> Expiry | None:
    """Give a thread's time to live, or None when it lives for ever."""
    ttl = stored.ttl or default
    if ttl is None:
        return None
    expires_at = stored.expires_at(ttl)
    return Expiry(
        strategy=ttl.strategy,
        ttl_minutes=ttl.minutes,
        expires_at=instant(expires_at) if expires_at else None,
    )


class TimeToLive(msgspec.Struct, kw_only=True):
    """How long a thread lives after its last use, in minutes, and what then happens."""

    ttl: Annotated[float, msgspec.Meta(ge=0, le=LONGEST_MINUTES)]
    strategy: Literal["delete", "keep_latest"] = "delete"


class Update(msgspec.Struct, kw_only=True):
    """What one node wrote: `values`, or a `command` with an update and where to go. Source: SDKs, threads.create."""

    as_node: str
    values: Json | list[Any] | None = None
    command: Json | None = None


class Superstep(msgspec.Struct, kw_only=True):
    """What nodes wrote in one step."""

    updates: Annotated[list[Update], msgspec.Meta(min_length=1)]


class ThreadCreate(msgspec.Struct, kw_only=True):
    """What creates a thread. `supersteps` give it a state, by the graph that `metadata.graph_id` names."""

    thread_id: UUID | msgspec.UnsetType = msgspec.UNSET
    metadata: Json = {}
    if_exists: Literal["raise", "do_nothing"] = "raise"
    ttl: TimeToLive | msgspec.UnsetType = msgspec.UNSET
    supersteps: list[Superstep] = []


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

    ids: list[Id] = []
    limit: Limit = 10
    offset: Offset = 0
    sort_by: Literal["thread_id", "status", "created_at", "updated_at", "state_updated_at"] = "updated_at"
    sort_order: Order = "desc"
    extract: Annotated[dict[str, Path], msgspec.Meta(max_length=10)] = {}
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
    select: list[StateField] = []


class StatePatch(msgspec.Struct, kw_only=True):
    """Metadata to merge into a thread's, key by key."""

    metadata: Json


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
    before: str | Before | msgspec.UnsetType = msgspec.UNSET
    metadata: Json = {}
    checkpoint: Checkpoint | msgspec.UnsetType = msgspec.UNSET
    select: list[StateField] = []


class Taken(msgspec.Struct, kw_only=True):
    """How many there are, and the bytes that they take."""

    count: int
    bytes: int


class ChannelTaken(msgspec.Struct, kw_only=True):
    """How many values of a channel are kept, and the bytes that they take."""

    versions: int
    bytes: int


class ValuesTaken(Taken, kw_only=True):
    """The values that are kept, by channel. Those of simple types are counted with the checkpoints they stand in."""

    by_channel: dict[str, ChannelTaken]


class Storage(msgspec.Struct, kw_only=True):
    """What a thread's checkpoints take. Source: observed."""

    thread_id: UUID
    total_bytes: int
    checkpoints: Taken
    channel_values: ValuesTaken
    pending_writes: Taken


def storage(thread_id: UUID, sizes: Sizes) -> Storage:
    """Give what a thread takes as clients see it."""
    channels = sizes.channels
    values = ValuesTaken(
        count=sum(size.rows for size in channels.values()),
        bytes=sum(size.octets for size in channels.values()),
        by_channel={
            name: ChannelTaken(versions=size.rows, bytes=size.octets) for name, size in channels.items()
        },
    )
    return Storage(
        thread_id=thread_id,
        total_bytes=sizes.checkpoints.octets + values.bytes + sizes.writes.octets,
        checkpoints=Taken(count=sizes.checkpoints.rows, bytes=sizes.checkpoints.octets),
        channel_values=values,
        pending_writes=Taken(count=sizes.writes.rows, bytes=sizes.writes.octets),
    )
