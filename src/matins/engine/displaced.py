"""The runs of a thread that make way for a new one."""

from __future__ import annotations

from collections.abc import Sequence

from matins.domain.ids import RunId
from matins.domain.runs import RunStatus, StopReason
from matins.storage import stops
from matins.storage.pool import Conn


class Displaced:
    """The runs that made way for a new one, as they were found: what was running is told to stop, the rest ended."""

    def __init__(self) -> None:
        self.runs: list[tuple[RunId, StopReason, RunStatus]] = []

    async def stop(
        self, conn: Conn, in_flight: Sequence[tuple[RunId, RunStatus]], reason: StopReason
    ) -> list[tuple[RunId, RunStatus]]:
        """Stop these runs and give those that are still in flight. The caller holds the thread's row."""
        for run_id, _ in in_flight:
            found = await stops.stop(conn, run_id, reason) or RunStatus.PENDING
            self.runs.append((run_id, reason, found))
        return [(run_id, found) for run_id, _, found in self.runs if found is RunStatus.RUNNING]
