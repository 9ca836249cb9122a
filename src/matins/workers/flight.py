"""One run under way in a worker, as the serving side sees it, and the ways it can end.

A flight buffers what its worker sent and its consumer has not taken: at most a window (workers/protocol.py),
since the worker waits for Credit. So a slow consumer holds its own run and nobody else's.
"""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeAlias
from uuid import UUID

import anyio

from matins.domain.frames import Frame
from matins.workers.protocol import Execute, Settled, Spent

Key: TypeAlias = tuple[UUID, int]
"""A run and the attempt."""

OnFrames: TypeAlias = Callable[[list[Frame]], Awaitable[None]]
OnSpent: TypeAlias = Callable[[list[Spent]], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Died:
    """The worker died under the run. `companions`: how many other runs died with it."""

    exit_code: int
    companions: int

    @property
    def cause(self) -> str:
        """What ended the process, for people: "SIGSEGV", "exit code 3"."""
        if self.exit_code >= 0:
            return f"exit code {self.exit_code}"
        try:
            return signal.Signals(-self.exit_code).name
        except ValueError:
            return f"signal {-self.exit_code}"


@dataclass(frozen=True, slots=True)
class NotStarted:
    """No lane took the run: refused, withdrawn unread, or its worker died before. It needs a new attempt.

    A new attempt and not the same: a withdrawal can cross a Started on its way, and then the fence decides.
    """


@dataclass(frozen=True, slots=True)
class Abandoned:
    """The run was told to stop and its lane did not: it may still execute, and the fence holds it."""


Outcome: TypeAlias = Settled | Died | NotStarted | Abandoned


class Flight:
    """The run's frames in order, and what it spent, then its outcome."""

    def __init__(self, order: Execute) -> None:
        self.key: Key = (order.run_id, order.attempt)
        self.outcome: Outcome | None = None
        self.is_started = False
        self.is_forsaken = False
        self.loans = 0  # for how many reasons its lane is lent
        self.stopping_s: float | None = None
        self._frames: list[Frame] = []
        self._spent: list[Spent] = []
        self._changed = anyio.Event()

    @property
    def is_heard(self) -> bool:
        """Whether anyone still wants its frames."""
        return self.outcome is None and not self.is_forsaken

    def put(self, frames: list[Frame]) -> None:
        """Add what the worker sent."""
        self._frames += frames
        self._changed.set()

    def end(self, outcome: Outcome) -> None:
        """Say how it ended. The first to say so is right."""
        if self.outcome is None:
            self.outcome = outcome
            self._changed.set()

    def spend(self, spent: Spent) -> None:
        """Add what a call of a model took."""
        self._spent.append(spent)
        self._changed.set()

    async def take(self) -> tuple[list[Frame], list[Spent]]:
        """Wait for frames, or what was spent, and give all there is; nothing when it is over and all was taken."""
        while not self._frames and not self._spent and self.outcome is None:
            self._changed = anyio.Event()
            await self._changed.wait()
        frames, self._frames = self._frames, []
        spent, self._spent = self._spent, []
        return frames, spent
