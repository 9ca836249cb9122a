"""Runs that call the server from inside: who they are, and what they wait for.

Each attempt gets a token of its own, which travels in its Execute and is known here while the attempt is under way.
A run that waits for another one lends its lane, so that however deep runs are nested, one of them can go on: what
occupies a lane is never waiting for a lane.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from matins.domain.errors import WaitsForItself
from matins.domain.ids import RunId, ThreadId
from matins.domain.runs import Run
from matins.workers.pool import Pool as Workers

_MOST: Final = 2**15 - 1  # the column is a smallint


@dataclass(frozen=True, slots=True)
class Caller:
    """An attempt of a run, under way here. `creator`: the claims of the user whose run it is, as JSON."""

    run_id: RunId
    thread_id: ThreadId
    attempt: int
    priority: int
    creator: bytes | None

    @property
    def childs_priority(self) -> int:
        """The priority of the runs that it creates: before what waits for no running run."""
        return min(self.priority + 1, _MOST)


class Callers:
    """The attempts under way here, by their tokens. `wake` is told when a lane was lent."""

    def __init__(self, *, workers: Workers, wake: Callable[[], None]) -> None:
        self._workers: Final = workers
        self._wake: Final = wake
        self._known: Final[dict[str, Caller]] = {}
        self._waiting: Final[dict[UUID, list[Caller]]] = {}  # by the run they wait for, and its thread

    @contextmanager
    def admitted(self, run: Run) -> Iterator[str]:
        """Let an attempt call, by the token that this gives, for the length of the block."""
        token = secrets.token_urlsafe(32)
        self._known[token] = Caller(run.run_id, run.thread_id, run.attempt, run.priority, run.creator)
        try:
            yield token
        finally:
            del self._known[token]

    def find(self, token: str) -> Caller | None:
        """Give whose token it is; None when no attempt under way here has it."""
        return self._known.get(token)

    @contextmanager
    def waiting(self, caller: Caller | None, run_id: RunId, *, behind: ThreadId | None) -> Iterator[None]:
        """Have a caller wait for a run, which may use its lane meanwhile. No caller: nothing.

        `behind`: the thread on which that run waits its turn, or runs.
        Raises: WaitsForItself when that turn would come after the caller's own end.
        """
        if caller is None:
            yield
            return
        for one in self._line_of(caller):
            if one.thread_id == behind:
                raise WaitsForItself(caller.run_id, one.run_id, one.thread_id)
        awaited = [each for each in (run_id, behind) if each is not None]
        for each in awaited:
            self._waiting.setdefault(each, []).append(caller)
        try:
            with self.lending(caller):
                yield
        finally:
            for each in awaited:
                self._waiting[each].remove(caller)
                if not self._waiting[each]:
                    del self._waiting[each]

    @contextmanager
    def lending(self, caller: Caller | None) -> Iterator[None]:
        """Have a caller listen to what others do, who may use its lane meanwhile. No caller: nothing."""
        if caller is None:
            yield
            return
        with self._workers.lent((caller.run_id, caller.attempt)):
            self._wake()
            yield

    def _line_of(self, caller: Caller) -> list[Caller]:
        """Give the caller, and who waits for it or for its thread, and so on: none ends before the caller has ended.

        As far as this node knows: a run may also wait for one that another node carries.
        """
        line = [caller]
        for one in line:  # it grows meanwhile
            for awaited in (one.run_id, one.thread_id):
                line += [other for other in self._waiting.get(awaited, ()) if other not in line]
        return line
