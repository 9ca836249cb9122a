"""Everything that can be refused, as one tree.

    Error
     +- NotFound          ThreadNotFound, RunNotFound, AssistantNotFound, CronNotFound, GraphNotFound
     +- Conflict          AlreadyExists, ThreadBusy, WaitsForItself, IdempotencyKeyReused
     +- Invalid           (InvalidSchedule and InvalidTimezone live in schedules.py)
     |   +- BadRequest    what the contract answers with 400 rather than 422
     +- Forbidden, Unauthenticated
     +- Unavailable       the database is away, or this node may not act now
     +- LeaseLost         internal: the attempt no longer holds its run; never reaches a client

Errors are built from facts; their text is what a client reads. No HTTP here: api/errors.py owns the statuses.
"""

from __future__ import annotations

from typing import ClassVar
from uuid import UUID


class Error(Exception):
    """The root. `code` is stable and is sent beside the text."""

    code: ClassVar[str] = "error"


class NotFound(Error):
    """What was named does not exist, or is not the caller's to see."""

    code = "not_found"

    def __init__(self, message: str = "Not Found") -> None:
        super().__init__(message)


class ThreadNotFound(NotFound):
    """No such thread."""

    def __init__(self, thread_id: UUID) -> None:
        super().__init__(f"Thread with ID {thread_id} not found")


class RunNotFound(NotFound):
    """No such run on that thread."""

    def __init__(self, run_id: UUID) -> None:
        super().__init__(f"Run {run_id} not found")


class AssistantNotFound(NotFound):
    """No such assistant."""

    def __init__(self, assistant_id: UUID) -> None:
        super().__init__(f"Assistant with ID {assistant_id} not found")


class CronNotFound(NotFound):
    """No such cron."""

    def __init__(self, cron_id: UUID) -> None:
        super().__init__(f"Cron '{cron_id}' not found")


class GraphNotFound(NotFound):
    """No graph of that name in langgraph.json."""

    def __init__(self, graph_id: str, known: list[str]) -> None:
        super().__init__(f"Graph '{graph_id}' not found. Expected one of: {sorted(known)}")


class Conflict(Error):
    """The request is at odds with what is there now."""

    code = "conflict"


class AlreadyExists(Conflict):
    """That id is taken."""

    code = "already_exists"


class ThreadBusy(Conflict):
    """The thread has a run in flight and the caller did not want to wait for it."""

    code = "thread_busy"

    def __init__(self) -> None:
        super().__init__(
            "Thread is already running a task. Wait for it to finish or choose a different multitask strategy."
        )


class IdempotencyKeyReused(Conflict):
    """The key came with another request before."""

    code = "idempotency_key_reused"

    def __init__(self) -> None:
        super().__init__(
            "This Idempotency-Key was used before, with another method, path or body. Use a new one for each request."
        )


class WaitsForItself(Conflict):
    """A run would wait for one that can only start after it has ended."""

    code = "waits_for_itself"

    def __init__(self, run_id: UUID, holder: UUID, thread_id: UUID) -> None:
        why = "" if holder == run_id else f" by run {holder}, which waits for this one"
        super().__init__(
            f"Run {run_id} would wait for itself: thread {thread_id} is held{why} until it has ended. Use another "
            "thread, or create the run without waiting for it."
        )


class Invalid(Error):
    """The request is understood and refused."""

    code = "invalid"


class BadRequest(Invalid):
    """As Invalid, where the contract answers 400."""

    code = "bad_request"


class Forbidden(Error):
    """The caller may not do this."""

    code = "forbidden"


class Unauthenticated(Error):
    """The caller did not say who they are."""

    code = "unauthenticated"


class Unavailable(Error):
    """Not now: the database is away or this node has lost its lease. Worth another try."""

    code = "unavailable"


class LeaseLost(Error):
    """The attempt no longer holds its run; nothing was written."""

    code = "lease_lost"
