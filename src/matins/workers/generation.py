"""The workers that run one state of the user's code: which of them does what.

There are no fixed roles. All processes are alike, and at any moment

    healthy, in order: those with runs first, then the eldest    =  P1 P2 ... Pn
    run workers                                                  =  the first `workers` of them
    desk (calls; the warm spare)                                 =  the next one, else the least busy
    quarantine                                                   =  one beyond the run workers, without runs

What is in quarantine, with runs that may end it, is none of P1 to Pn until they are over.

So when a run worker blocks, dies or is condemned, the desk is a run worker in the same instant, by
arithmetic, and what is started in its stead becomes the desk. Before the second one is up, the first serves
both.
"""

from __future__ import annotations

from typing import Final

import anyio

from matins.workers.process import Process
from matins.workers.protocol import Failed

SPARES: Final = 4
"""How many processes there may be beyond the run workers, the desk among them: blocked ones stay."""

FIRST_PAUSE_SECONDS: Final = 0.5
LONGEST_PAUSE_SECONDS: Final = 30.0


class Generation:
    """Processes with the same code. `goal` is how many are wanted now."""

    def __init__(self, number: int, *, workers: int, goal: int) -> None:
        self.number: Final = number
        self.goal = goal
        self.processes: list[Process] = []
        self.failed: Failed | None = None
        self.is_closed = False
        self.graphs = b"{}"
        self.assigns_priority = False
        self.surplus_s = 0.0
        self.decided = anyio.Event()
        self._workers = workers
        self._false_starts = 0
        self._pause_until = 0.0

    @property
    def is_complete(self) -> bool:
        """Whether all that are wanted are ready."""
        return sum(process.is_healthy for process in self.processes) >= self.goal

    def healthy(self) -> list[Process]:
        """Those that can be offered work, in the order that makes the roles."""
        fit = [process for process in self.processes if process.is_healthy and not process.is_quarantined]
        return sorted(fit, key=lambda process: process.is_idle)  # stable: the eldest first in each half

    def run_workers(self) -> list[Process]:
        """Those that take runs."""
        return self.healthy()[: self._workers]

    def desk(self) -> Process | None:
        """The one that takes calls."""
        healthy = self.healthy()
        if len(healthy) > self._workers:
            return healthy[self._workers]
        return min(healthy, key=lambda process: process.in_use, default=None)

    def quarantine(self, suspicion: int) -> list[Process]:
        """Those that can take a run under which a process died: the ones that share it, else an idle one to spare."""
        shared = [
            process
            for process in self.processes
            if process.is_healthy and process.is_quarantined and process.suspicion == suspicion == 1
        ]
        spare = [process for process in self.healthy()[self._workers :] if process.is_idle]
        return shared or spare[-1:]

    def missing(self, now: float, at_once: int) -> int:
        """How many processes to start now; not more than `at_once` at a time are starting."""
        if self.is_closed or self.failed is not None or now < self._pause_until:
            return 0
        useful = [process for process in self.processes if process.is_useful and not process.is_quarantined]
        starting = sum(process.ready is None for process in useful)
        present = sum(not process.is_draining for process in self.processes)
        return max(
            0,
            min(
                self.goal - len(useful),
                at_once - starting,
                self._workers + SPARES - present,
            ),
        )

    def superfluous(self) -> Process | None:
        """An idle one to let go when there are more than wanted: the eldest, but not the desk."""
        desk = self.desk()
        healthy = self.healthy()
        if len(healthy) <= self.goal:
            return None
        idle = (process for process in healthy if process.is_idle and process is not desk)
        return next(idle, None)

    def buried(self, process: Process, now: float) -> float:
        """Forget a dead process; give the pause before the next start: longer with each false start."""
        self.processes.remove(process)
        if process.ready is not None or process.is_draining:
            self._false_starts = 0
            return 0.0
        return self.stumbled(now)

    def stumbled(self, now: float) -> float:
        """Note a start that came to nothing; give the pause before the next."""
        pause_s: float = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2**self._false_starts)
        self._false_starts += 1
        self._pause_until = now + pause_s
        return pause_s

    def close(self) -> None:
        """Let the runs end and the processes go."""
        self.is_closed = True
        for process in self.processes:
            process.drain()
