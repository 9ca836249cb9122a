"""Cancel many runs at once: those that are named, or all in some status."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from matins.domain.access import Scope
from matins.domain.errors import NotFound
from matins.domain.ids import RunId, ThreadId
from matins.domain.runs import StopReason
from matins.engine.runs import Runs
from matins.storage import runs as stored
from matins.storage.pool import Pool

_PAGE: Final = 1000


async def cancel_named(
    runs: Runs, thread_id: ThreadId, run_ids: Sequence[RunId], reason: StopReason, *, scope: Scope
) -> None:
    """Cancel runs of a thread; those that have ended are passed over.

    Raises: NotFound when none of them could be cancelled.
    """
    if not await _cancel(
        runs, [(run_id, thread_id) for run_id in dict.fromkeys(run_ids)], reason, scope=scope
    ):
        message = "No runs found to cancel."
        raise NotFound(message)


async def cancel_in(
    runs: Runs, pool: Pool, statuses: Sequence[str], reason: StopReason, *, scope: Scope
) -> None:
    """Cancel every run that is in one of these statuses now, the oldest first."""
    after = 0
    while True:
        found = await pool.run(
            lambda conn, after=after: stored.list_in(conn, statuses, scope=scope, after=after, limit=_PAGE),  # type: ignore[misc]
            transaction=False,
        )
        await _cancel(runs, [(each.run_id, each.thread_id) for each in found], reason, scope=scope)
        if len(found) < _PAGE:
            return
        after = found[-1].seq


async def _cancel(
    runs: Runs, wanted: Sequence[tuple[RunId, ThreadId]], reason: StopReason, *, scope: Scope
) -> int:
    """Cancel those that can be, and give how many."""
    cancelled = 0
    for run_id, thread_id in wanted:
        try:
            await runs.cancel(thread_id, run_id, scope=scope, wait=False, reason=reason)
            cancelled += 1
        except NotFound:
            continue  # it has ended
    return cancelled
