"""What threads and runs must do: a pure model, without clock, database or server.

A thread has a newest checkpoint, a Place; each run starts from the one that is newest when its turn comes and leaves
others on top. In this model a run stands at its next step until somebody lets it through (`step`), and everything that
needs no step happens at once: the next of the queue starts, a plan without steps ends.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

Step = tuple[str, str]

CANCELLED: Final = "UserInterrupt"
CRASH_LIMIT: Final = 3


class Refused(Exception):
    """The server must answer with this status, and change nothing."""

    def __init__(self, status: int) -> None:
        self.status = status


@dataclass(frozen=True, slots=True)
class Place:
    """The newest checkpoint of a thread, and how many there are up to it; with depth 0 there is none.

    `todo` None: no run has said yet what is to be done. `plan`: an input that is stored and not yet taken in. `asked`:
    the question that its step has put. `answer`: what was said before its step came to ask.
    """

    depth: int = 0
    log: tuple[str, ...] = ()
    todo: tuple[Step, ...] | None = None
    plan: tuple[Step, ...] | None = None
    asked: str | None = None
    answer: str | None = None

    @property
    def next(self) -> list[str]:
        """The nodes that are left to run."""
        return ["__start__"] if self.plan is not None else ["step"] if self.todo else []

    @property
    def values(self) -> dict[str, object] | None:
        """The state, as the API shows it; None without a checkpoint."""
        if self.depth == 0:
            return None
        todo = {} if self.todo is None else {"todo": [list(step) for step in self.todo]}
        return {"log": list(self.log), **todo}

    def given(self, plan: Sequence[Step]) -> Place:
        """The checkpoint of an input: what was unfinished is given up."""
        return Place(self.depth + 1, self.log, self.todo, plan=tuple(plan))

    def taken_in(self) -> Place:
        """The checkpoint after that of an input, if that was the newest."""
        return self if self.plan is None else Place(self.depth + 1, self.log, self.plan)

    def logged(self, entry: str) -> Place:
        """The checkpoint after a step that was done."""
        return Place(self.depth + 1, (*self.log, entry), (self.todo or ())[1:])

    def updated(self, entry: str) -> Place:
        """The checkpoint that a client writes as if it were the step."""
        return Place(self.depth + 1, (*self.log, entry), self.todo)


@dataclass(slots=True)
class Run:
    """A run. It has a `plan`, or an `answer`, or, with neither, goes on where the thread stands."""

    name: str
    strategy: str
    plan: tuple[Step, ...] | None = None
    answer: str | None = None
    is_delayed: bool = False
    status: str = "pending"
    crashes: int = 0
    base: Place | None = None
    left: Place | None = None
    error: str | None = None

    @property
    def is_in_flight(self) -> bool:
        return self.status in ("pending", "running")


@dataclass(slots=True)
class Thread:
    """A thread and its runs, the oldest first. `shown`, `asks`, `error`: what the row shows since it last came to rest.

    `low`: how many of its oldest checkpoints were there all the time since somebody last looked.
    """

    place: Place = field(default_factory=Place)
    runs: list[Run] = field(default_factory=list)
    shown: dict[str, object] | None = None
    asks: str | None = None
    error: str | None = None
    resting: str = "idle"
    had_runs: bool = False
    was_written: bool = False
    low: int = 0

    # What clients see

    @property
    def status(self) -> str:
        return "busy" if self.in_flight else self.resting

    @property
    def in_flight(self) -> list[Run]:
        return [run for run in self.runs if run.is_in_flight]

    @property
    def running(self) -> Run | None:
        return next((run for run in self.runs if run.status == "running"), None)

    def named(self, name: str) -> Run:
        return next(run for run in self.runs if run.name == name)

    def runs_still(self, run: Run) -> bool:
        """Whether it was not stopped."""
        return any(each.name == run.name and each.status == "running" for each in self.runs)

    @property
    def at(self) -> Step | None:
        """The step at which a run stands."""
        return self.place.todo[0] if self.running and self.place.todo else None

    # What clients do

    def create(self, run: Run) -> None:
        if self.in_flight:
            if run.strategy == "reject":
                raise Refused(409)
            if run.strategy == "interrupt":
                self._stop(self.in_flight)
            if run.strategy == "rollback":
                self._undo(self.in_flight)
        self.runs.append(run)
        self.had_runs = True
        self._turn()

    def cancel(self, run: Run) -> None:
        if not run.is_in_flight:
            raise Refused(404)
        self._stop([run])
        self._turn()

    def roll_back(self, run: Run) -> None:
        if not run.is_in_flight:
            raise Refused(404)
        self._undo([run])
        self._turn()

    def delete(self, run: Run) -> None:
        """The row alone: what it has written stays, and the thread shows what it showed before."""
        self.runs.remove(run)
        self._turn()

    def update(self, entry: str) -> None:
        if not self.had_runs:
            raise Refused(400)  # which graph, no run has said
        if self.in_flight:
            raise Refused(409)
        self._rest(self.place.updated(entry))

    # What happens

    def step(self) -> None:
        """Let the run through that stands at a step."""
        run, place = self.running, self.place
        assert run is not None
        assert place.todo
        name, kind = place.todo[0]
        if kind == "fail":
            self._end(run, "error", error="ValueError")
        elif kind == "ask" and place.answer is None:
            self.place = replace(place, asked=name)
            self._end(run, "success")
        else:
            self.place = place.logged(f"{name}={place.answer}" if kind == "ask" else name)
            self._go_on(run)
        self._turn()

    def crash(self) -> None:
        """The process of the running run dies: it starts again where it stood, but not for ever."""
        run = self.running
        assert run is not None
        run.crashes += 1
        if run.crashes == CRASH_LIMIT:
            run.status, run.error, run.left = "error", "WorkerDied", self.place
            self.error, self.resting, self.was_written = (
                run.error,
                "error",
                True,
            )  # nobody is left to say the values
            self._turn()

    def reached(self, checkpoints: int | None) -> None:
        """The run in hand has not come to its first step: of its input's two checkpoints it has written none or one.

        With None it has not even started: it waits for one before it to be gone.
        """
        run = self.running
        assert run is not None
        assert run.base is not None
        assert run.plan
        self.place = run.base.given(run.plan) if checkpoints else run.base
        if checkpoints is None:
            run.status = "pending"

    # How

    def _turn(self) -> None:
        """Start the next of the queue."""
        while self.running is None and self.in_flight and not self.in_flight[0].is_delayed:
            run = self.in_flight[0]
            run.status, run.base = "running", self.place
            if run.plan is not None:
                self.place = self.place.given(run.plan).taken_in()
            elif self.place.depth == 0 and run.answer is None:
                self._end(run, "error", error="EmptyInputError")
                continue
            elif self.place.depth == 0:
                self.place = Place(2, todo=None)
            elif run.answer is not None and self.place.todo and self.place.plan is None:
                self.place = replace(self.place, answer=run.answer)
            else:
                self.place = self.place.taken_in()
            self._go_on(run)

    def _go_on(self, run: Run) -> None:
        if not self.place.todo:
            self._end(run, "success")

    def _end(self, run: Run, status: str, *, error: str | None = None) -> None:
        run.status, run.error, run.left = status, error, self.place
        self._rest(self.place, error=error)

    def _rest(self, place: Place, *, error: str | None = None) -> None:
        self.place, self.error, self.was_written = place, error, True
        if place.values is not None:
            self.shown, self.asks = place.values, place.asked
        failed = error not in (None, CANCELLED)
        self.resting = "error" if failed else "interrupted" if place.next else "idle"

    def _stop(self, runs: list[Run]) -> None:
        for run in runs:
            if run.status == "running":
                self._end(run, "interrupted", error=CANCELLED)
            run.status = "interrupted"

    def _undo(self, runs: list[Run]) -> None:
        for run in runs:
            if run.status == "running":
                assert run.base is not None
                self.place = run.base
                self.low = min(self.low, run.base.depth)
            self.runs.remove(run)


def stopped_early(before: Thread, change: Callable[[Thread], None]) -> list[Thread]:
    """Give what may be instead when that stops a run of which nobody knows how far it had come."""
    possible = []
    for checkpoints in (None, 0, 1):
        model = copy.deepcopy(before)
        model.reached(checkpoints)
        change(model)
        possible.append(model)
    return possible
