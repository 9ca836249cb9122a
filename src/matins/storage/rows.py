"""Rows to domain values."""

from __future__ import annotations

from dataclasses import fields
from typing import Final

from asyncpg import Record

from matins.domain.assistants import Assistant, Version
from matins.domain.crons import Cron
from matins.domain.runs import Run, RunStatus, StopReason
from matins.domain.threads import Thread, ThreadStatus, TimeToLive

_VERSION: Final = tuple(field.name for field in fields(Version))


def assistant(row: Record) -> Assistant:
    """Give the assistant of a row of matins.assistant."""
    return Assistant(updated_at=row["updated_at"], **{name: row[name] for name in _VERSION})


def version(row: Record) -> Version:
    """Give the version of a row of matins.assistant_version."""
    return Version(**{name: row[name] for name in _VERSION})


def thread(row: Record) -> Thread:
    """Give the thread of a row of matins.thread."""
    return Thread(
        thread_id=row["thread_id"],
        metadata=row["metadata"],
        config=row["config"],
        status=ThreadStatus(row["status"]),
        values=row["values"],
        interrupts=row["interrupts"],
        error=row["error"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        state_updated_at=row["state_updated_at"],
        ttl=TimeToLive(row["ttl_strategy"], row["ttl_minutes"]) if row["ttl_minutes"] is not None else None,
        priority=row["priority"],
        is_swept=row["swept_at"] is not None,
        extracted=row.get("extracted"),
    )


def run(row: Record) -> Run:
    """Give the run of a row of matins.run."""
    return Run(
        run_id=row["run_id"],
        thread_id=row["thread_id"],
        assistant_id=row["assistant_id"],
        cron_id=row["cron_id"],
        scheduled_for=row["scheduled_for"],
        status=RunStatus(row["status"]),
        attempt=row["attempt"],
        crashes=row["crashes"],
        priority=row["priority"],
        multitask_strategy=row["multitask_strategy"],
        metadata=row["metadata"],
        kwargs=row["kwargs"],
        temporary=row["temporary"],
        stop=StopReason(row["stop"]) if row["stop"] else None,
        last_checkpoint_id=row["last_checkpoint_id"],
        error=row["error"],
        creator=row["creator"],
        due_at=row["due_at"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        started_at=row["started_at"],
        ended_at=row["ended_at"],
        retries=row["retries"],
        is_followed=row.get("is_followed", False),
    )


def cron(row: Record) -> Cron:
    """Give the cron of a row of matins.cron."""
    return Cron(
        cron_id=row["cron_id"],
        assistant_id=row["assistant_id"],
        thread_id=row["thread_id"],
        owner=row["owner"],
        creator=row["creator"],
        schedule=row["schedule"],
        timezone=row["timezone"],
        end_time=row["end_time"],
        enabled=row["enabled"],
        paused_reason=row["paused_reason"],
        next_run_date=row["next_run_date"],
        revision=row["revision"],
        payload=row["payload"],
        metadata=row["metadata"],
        on_run_completed=row["on_run_completed"],
        policy=row["policy"],
        due_at=row["due_at"],
        done_at=row["done_at"],
        key=row["key"],
        declared=row["declared"],
        priority=row["priority"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
    )
