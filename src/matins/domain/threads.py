"""Thread: a conversation that keeps its state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

import msgspec

from matins.domain.ids import ThreadId

LONGEST_MINUTES: Final = 52_560_000
"""The longest time to live: a hundred years."""


class ThreadStatus(StrEnum):
    """Source: ThreadStatus in langgraph_sdk/schema.py."""

    IDLE = "idle"
    BUSY = "busy"
    INTERRUPTED = "interrupted"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class TimeToLive:
    """How long a thread lives after its last use, in minutes, and what then happens: `delete` or `keep_latest`."""

    strategy: str
    minutes: float


@dataclass(frozen=True, slots=True)
class Thread:
    """A thread as stored. `metadata`, `config`, `values`, `interrupts`, `error` and `extracted` are encoded JSON.

    `ttl` is its own time to live, if it has one; `priority` what was assigned to it. `is_swept`: it was pruned when it
    expired and not used since.
    `extracted` is what a search was asked to show beside it.
    """

    thread_id: ThreadId
    metadata: bytes
    config: bytes
    status: ThreadStatus
    values: bytes | None
    interrupts: bytes | None
    error: bytes | None
    created_at: datetime
    updated_at: datetime
    state_updated_at: datetime
    ttl: TimeToLive | None = None
    priority: int | None = None
    is_swept: bool = False
    extracted: bytes | None = None

    def expires_at(self, ttl: TimeToLive) -> datetime | None:
        """Give when it expires with that time to live, counted from its last use; None when it was swept since."""
        return None if self.is_swept else self.updated_at + timedelta(minutes=ttl.minutes)


def resting_status(*, failed: bool, has_next: bool) -> ThreadStatus:
    """Give the status of a thread whose last run has just ended and that has no other in flight.

    `failed`: the run raised. `has_next`: its last checkpoint has nodes left to run, because of an interrupt, a
    breakpoint or a cancellation.
    Source: observed on the wire.
    """
    if failed:
        return ThreadStatus.ERROR
    return ThreadStatus.INTERRUPTED if has_next else ThreadStatus.IDLE


def questions(interrupts: bytes | None) -> list[dict[str, object]]:
    """Give a thread's pending interrupts, task id -> list, as one list: what waits for an answer."""
    pending = msgspec.json.decode(interrupts or b"{}", type=dict[str, list[dict[str, object]]])
    return [question(each) for task in pending.values() for each in task]


def question(interrupt: Mapping[str, object]) -> dict[str, object]:
    """Give one interrupt as streams, `wait` and `join` tell of it: of a `response_schema` the thread does not tell.

    Source: observed on the wire.
    """
    return {"value": interrupt.get("value"), "id": interrupt.get("id"), "response_schema": None}
