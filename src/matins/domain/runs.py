"""Run: one execution of a graph on a thread, and the rules of its life.

    pending --claimed--> running --succeeded | failed | timed out | stopped--> success | error | timeout | interrupted
       ^                    |
       +-----released-------+   (its worker died, its node's lease ran out, a deploy: the next claim is a new attempt)
    pending --cancelled--> interrupted

A run that is rolled back is no more: what it wrote is undone and its row is deleted, in one transaction.

Every write to a running run names the attempt that made it; the database refuses an attempt that is not the
present one. `attempt` is that fence. `crashes` is another matter: it counts the deaths the run is charged with.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final
from uuid import UUID

import msgspec

from matins.domain.ids import AssistantId, CronId, NodeId, RunId, ThreadId


class RunStatus(StrEnum):
    """Source: RunStatus in langgraph_sdk/schema.py."""

    PENDING = "pending"
    RUNNING = "running"
    SUCCESS = "success"
    ERROR = "error"
    TIMEOUT = "timeout"
    INTERRUPTED = "interrupted"

    @property
    def is_terminal(self) -> bool:
        """Whether nothing more will happen to a run of this status."""
        return self not in (RunStatus.PENDING, RunStatus.RUNNING)


class Change(StrEnum):
    """What can happen to a run."""

    CLAIMED = "claimed"
    RELEASED = "released"
    CANCELLED = "cancelled"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    STOPPED = "stopped"


NEXT: Final[dict[tuple[RunStatus, Change], RunStatus]] = {
    (RunStatus.PENDING, Change.CLAIMED): RunStatus.RUNNING,
    (RunStatus.PENDING, Change.CANCELLED): RunStatus.INTERRUPTED,
    (RunStatus.RUNNING, Change.RELEASED): RunStatus.PENDING,
    (RunStatus.RUNNING, Change.SUCCEEDED): RunStatus.SUCCESS,
    (RunStatus.RUNNING, Change.FAILED): RunStatus.ERROR,
    (RunStatus.RUNNING, Change.TIMED_OUT): RunStatus.TIMEOUT,
    (RunStatus.RUNNING, Change.STOPPED): RunStatus.INTERRUPTED,
}
"""The whole life of a run. What is not here cannot happen."""


def sources(change: Change) -> list[RunStatus]:
    """Give the statuses that a change may come from."""
    return [status for status, happening in NEXT if happening is change]


def target(change: Change) -> RunStatus:
    """Give the status that a change leads to."""
    return next(after for (_, happening), after in NEXT.items() if happening is change)


CRASH_LIMIT: Final = 3
"""A run whose process died under it this often is ended as an error (`BG_JOB_MAX_RETRIES`)."""


class StopReason(StrEnum):
    """Why a running run is being stopped."""

    INTERRUPT = "interrupt"  # a person cancelled it
    ROLLBACK = "rollback"  # a person cancelled it and wants it undone
    TIMEOUT = "timeout"
    BUDGET = "budget"  # its cron may spend no more; said and felt inside a worker alone
    DRAIN = "drain"  # this process is leaving: hand the run back, uncharged
    LOST = "lost"  # another attempt holds the run: stop and write nothing


class RunError(msgspec.Struct, frozen=True):
    """What a client reads of a failure: the exception's type and its message."""

    error: str
    message: str


OVERDUE: Final = RunError("TimeoutError", "The run took longer than it may.")
"""How a run ends that its time limit ended (`BG_JOB_TIMEOUT_SECS`)."""


@dataclass(frozen=True, slots=True)
class Held:
    """A run and the attempt that claimed it: the pair that every fenced write names."""

    run_id: RunId
    thread_id: ThreadId
    attempt: int


@dataclass(frozen=True, slots=True)
class Run:
    """A run as stored. `kwargs`, `metadata`, `error` and `creator` are encoded JSON.

    `retries`: how often it was tried again after an error.
    `is_followed`: as it was claimed, somebody followed it from elsewhere, or its thread.
    """

    run_id: RunId
    thread_id: ThreadId
    assistant_id: AssistantId
    cron_id: CronId | None
    scheduled_for: datetime | None
    status: RunStatus
    attempt: int
    crashes: int
    priority: int
    multitask_strategy: str
    metadata: bytes
    kwargs: bytes
    temporary: bool
    stop: StopReason | None
    last_checkpoint_id: str | None
    error: bytes | None
    creator: bytes | None
    due_at: datetime
    created_at: datetime
    updated_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    retries: int = 0
    is_followed: bool = False

    @property
    def held(self) -> Held:
        """The pair that fences the present attempt."""
        return Held(self.run_id, self.thread_id, self.attempt)


@dataclass(frozen=True, slots=True, kw_only=True)
class NewRun:
    """A run about to be created. Its id was minted before the first try, so that a repeated insert makes no second.

    `followed_on`, `awaited_on`: nodes on which its events are followed already, or its reply is awaited.
    """

    run_id: RunId
    thread_id: ThreadId
    assistant_id: AssistantId
    metadata: bytes
    kwargs: bytes
    multitask_strategy: str = "enqueue"
    temporary: bool = False
    after_seconds: float = 0.0
    priority: int = 0
    parent_run_id: RunId | None = None
    cron_id: CronId | None = None
    scheduled_for: datetime | None = None
    creator: bytes | None = None
    followed_on: Sequence[NodeId] = ()
    awaited_on: Sequence[NodeId] = ()


class RunKwargs(msgspec.Struct, frozen=True, kw_only=True):
    """What a run executes, as stored in `run.kwargs` and sent to a worker.

    `graph_id` is resolved when the run is created; `config` and `context` are the assistant's merged with the
    request's; `input` and `command` stay as the client sent them. Of a cron's run, where the cron has one: `policy`, as
    it was given (domain/policies.py), and `next_slot`, the slot that follows. `forked_from`: the thread that it works
    on a copy of, where what it says in the end is posted, by a run that `posts`: it adds the messages of its command to
    the thread and does nothing else.
    """

    graph_id: str
    input: object = None
    command: object = None
    config: dict[str, object] = {}
    context: dict[str, object] = {}
    stream_mode: list[str] = msgspec.field(default_factory=lambda: ["values"])
    stream_subgraphs: bool = False
    resumable: bool = False
    interrupt_before: str | list[str] | None = None
    interrupt_after: str | list[str] | None = None
    checkpoint: dict[str, object] | None = None
    durability: str = "async"
    strict_resume: bool = False
    temporary: bool = False
    webhook: str | None = None
    feedback_keys: list[str] | None = None
    policy: dict[str, object] | msgspec.UnsetType = msgspec.UNSET
    next_slot: datetime | msgspec.UnsetType | None = msgspec.UNSET
    forked_from: UUID | msgspec.UnsetType = msgspec.UNSET
    posts: bool | msgspec.UnsetType = msgspec.UNSET
