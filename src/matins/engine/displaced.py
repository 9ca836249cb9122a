"""The runs of a thread that make way for a new one."""

from __future__ import annotations

from collections.abc import Sequence

from matins.domain.ids import RunId
from matins.domain.runs import RunStatus, StopReason
from matins.storage import stops
from matins.storage.pool import Conn


class Displaced:
    """The runs that made way for a new one: those that have ended, and those that are told to stop."""

    def __init__(self) -> None:
        self.ended: list[RunId] = []
        self.stopping: list[tuple[RunId, StopReason]] = []

    async def stop(
        self, conn: Conn, in_flight: Sequence[tuple[RunId, RunStatus]], reason: StopReason
    ) -> list[tuple[RunId, RunStatus]]:
        """Stop these runs and give those that are still in flight. The caller holds the thread's row."""
        for run_id, _ in in_flight:
            if await stops.stop(conn, run_id, reason) is RunStatus.RUNNING:
                self.stopping.append((run_id, reason))
            else:
                self.ended.append(run_id)
        return [(run_id, RunStatus.RUNNING) for run_id, _ in self.stopping]
