"""Serving side: the workers of this node, as the engine sees them.

    reserve(crashes=0) -> Reservation
    execute(reservation, order, on_frames, on_spent) -> Settled | Died | NotStarted | Abandoned
    call(method, params) -> JSON
    reload(): a new generation of workers imports the code first, then takes what is new; the old one drains

Decides nothing about runs: it carries them to a process and says what became of them. It keeps as many healthy
processes as wanted, whatever the user's code does to them. It never imports LangGraph or a graph.
"""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Final

import anyio
from anyio.abc import TaskGroup, TaskStatus

from matins import telemetry
from matins.domain import errors
from matins.domain.runs import StopReason
from matins.workers.flight import Flight, Key, NotStarted, OnFrames, OnSpent, Outcome
from matins.workers.generation import Generation
from matins.workers.process import STUCK_SECONDS, Launch, Process
from matins.workers.protocol import Answer, Execute, Failed, octets

TICK_SECONDS: Final = 0.025
"""How often silence is counted: a blocked worker is known within SILENT_SECONDS and one tick."""

SURPLUS_SECONDS: Final = 30.0
"""How long there may be more processes than wanted: blocking now and then must not cost starts."""

ALONE: Final = 2
"""From so many deaths on a run has a process for itself: it, or one that died with it, brings death."""

WRITES: Final = frozenset({"update_state"})
"""The calls that must not be put twice."""


class GraphsFailed(Exception):
    """The graphs cannot be imported and none were before. `message` is one line, `trace` the traceback."""

    def __init__(self, failed: Failed) -> None:
        super().__init__(failed.message)
        self.message = failed.message
        self.trace = failed.trace


class Reservation:
    """A lane kept for a run that is being claimed: give it to `execute`, or `release` it."""

    def __init__(self, process: Process, *, suspicion: int = 0) -> None:
        self.process: Process | None = process
        process.in_use += 1
        process.suspicion = suspicion

    def release(self) -> None:
        """Give the lane back. Without effect when it was used or released before."""
        process = self.take()
        if process is not None:
            process.in_use -= 1
            process.changed()

    def take(self) -> Process | None:
        """Give the process and no longer care for its lane."""
        process, self.process = self.process, None
        return process


class Pool:
    """`workers` run workers of `launch.lanes` lanes each, and the desk.

    `on_spawn` and `on_exit` get the pid of each process, which is also its process group. `on_graphs` gets
    the graphs
    as JSON (graph id -> {"name", "description"}) before the first run on a generation that serves them.
    """

    def __init__(
        self,
        launch: Launch,
        *,
        workers: int,
        on_graphs: Callable[[bytes], Awaitable[None]],
        on_spawn: Callable[[int], None] = lambda _: None,
        on_exit: Callable[[int], None] = lambda _: None,
        surplus_s: float = SURPLUS_SECONDS,
    ) -> None:
        self.failure: Failed | None = None
        self._launch: Final = launch
        self._workers: Final = workers
        self._on_graphs: Final = on_graphs
        self._on_spawn: Final = on_spawn
        self._on_exit: Final = on_exit
        self._surplus_s: Final = surplus_s
        self._at_once: Final = max(2, os.cpu_count() or 2)
        self._generations: list[Generation] = []
        self._current: Generation | None = None
        self._group: TaskGroup | None = None
        self._reloading = anyio.Lock()
        self._news = anyio.Event()

    async def run(self, *, task_status: TaskStatus[None]) -> None:
        """Keep the workers; started when the first is ready. Kills them all when cancelled.

        Raises: GraphsFailed when the graphs cannot be imported at the start.
        """
        failed: Failed | None = None
        async with anyio.create_task_group() as group:
            self._group = group
            try:
                group.start_soon(self._tick)
                first = self._begin(goal=self._workers + 1)
                await first.decided.wait()
                failed = first.failed
                if failed is None:
                    await self._adopt(first)
                    task_status.started()
                    await anyio.sleep_forever()
            finally:
                for generation in self._generations:
                    generation.is_closed = True
                    for process in generation.processes:
                        process.kill()
                group.cancel_scope.cancel()
        if failed is not None:
            raise GraphsFailed(failed)

    async def reload(self) -> None:
        """Start a generation on the code as it is now and, once all of it is ready, let it take what is new.

        When it fails to import, the present one keeps serving: `failure` says why. Cancelling leaves the
        present one.
        """
        async with self._reloading:
            generation = self._begin(goal=1)
            try:
                await generation.decided.wait()
                if generation.failed is None:
                    generation.goal = self._workers + 1
                    self._reconcile()
                    while not generation.is_complete and generation.failed is None:
                        await self._news.wait()
                if generation.failed is not None:
                    self.failure = generation.failed
                    telemetry.log().error(
                        telemetry.GRAPHS_RELOAD_FAILED,
                        message=generation.failed.message,
                        trace=generation.failed.trace,
                    )
                    return
                await self._adopt(generation)
            finally:
                if generation is not self._current:
                    generation.is_closed = True
                    for process in generation.processes:
                        process.kill()

    @property
    def ready_count(self) -> int:
        """How many processes can take work now."""
        return len(self._current.healthy()) if self._current else 0

    def free_lanes(self, *, crashes: int = 0) -> int:
        """How many runs under which so many processes died could be started now."""
        return sum(max(0, process.free) for process in self._fit_for(crashes))

    def reserve(self, *, crashes: int = 0) -> Reservation | None:
        """Keep a lane for a run under which so many processes died; None when there is none.

        On the run worker with most to spare. A run that may have ended its process gets one that only such runs
        share, and after its second death one for itself, while there are others for the rest: what it does then
        is felt by nobody else.
        """
        best = max(self._fit_for(crashes), key=lambda process: process.free, default=None)
        return (
            Reservation(best, suspicion=min(crashes, ALONE)) if best is not None and best.free > 0 else None
        )

    async def changed(self) -> None:
        """Wait until more lanes may be free than now."""
        await self._news.wait()

    async def execute(
        self, reservation: Reservation, order: Execute, on_frames: OnFrames, on_spent: OnSpent | None = None
    ) -> Outcome:
        """Run an order in the reserved lane, passing on its frames in order and what it spends; give how it ended.

        While `on_frames` works, frames gather up to a window, then the lane waits: no other run does. When this is
        cancelled or either raises, the lane is told to stop and writes nothing (StopReason.LOST).
        """
        process = reservation.take()
        if process is None:
            raise ValueError("The reservation was used or released before")
        flight = Flight(order)
        process.offer(flight, order)
        try:
            while any(taken := await flight.take()):
                if (spent := taken[1]) and on_spent is not None:
                    await on_spent(spent)
                if frames := taken[0]:
                    await on_frames(frames)
                    process.credit(flight, octets(frames))
        finally:
            if flight.outcome is None:
                flight.is_forsaken = True
                process.stop(flight, StopReason.LOST)
        return flight.outcome or NotStarted()

    def stop(self, key: Key, reason: StopReason) -> bool:
        """Tell a run's lane to stop: it settles, or is Abandoned in the end. False when it is not here."""
        for process in self._processes():
            if (flight := process.flights.get(key)) is not None:
                process.stop(flight, reason)
                return True
        return False

    @contextmanager
    def lent(self, key: Key) -> Iterator[None]:
        """Let another run have a run's lane for the length of the block. Nothing happens when it is not here."""
        process = next((process for process in self._processes() if key in process.flights), None)
        if process is None:
            yield
            return
        flight = process.flights[key]
        process.lend(flight)
        try:
            yield
        finally:
            process.take_back(flight)

    @property
    def graphs(self) -> bytes:
        """The graphs that are served, as JSON: graph id -> {"name", "description"}."""
        return self._current.graphs if self._current else b"{}"

    @property
    def assigns_priority(self) -> bool:
        """Whether the user's code says which threads come first."""
        return self._current is not None and self._current.assigns_priority

    async def call(self, method: str, params: bytes, *, timeout_s: float) -> bytes:
        """Ask the desk and give its answer as JSON.

        A read whose process dies or falls silent is asked again elsewhere.
        Raises: what the answer names, of domain.errors; Unavailable when nobody answers in time.
        """
        may_move = method not in WRITES
        deaths = 0
        with anyio.move_on_after(timeout_s):
            while deaths < 2:
                process = self._current.desk() if self._current else None
                if process is None:
                    await self._news.wait()
                    continue
                answer = await process.ask(method, params, may_move=may_move)
                if answer is not None:
                    return _result(answer)
                if process.is_dead:
                    deaths += 1
                    if not may_move:
                        break
        raise errors.Unavailable(f"No worker answered {method!r}")

    def _fit_for(self, crashes: int) -> list[Process]:
        if self._current is None:
            return []
        return self._current.quarantine(min(crashes, ALONE)) if crashes else self._current.run_workers()

    def _processes(self) -> Iterator[Process]:
        for generation in self._generations:
            yield from generation.processes

    def _begin(self, *, goal: int) -> Generation:
        number = self._generations[-1].number + 1 if self._generations else 1
        generation = Generation(number, workers=self._workers, goal=goal)
        self._generations.append(generation)
        self._reconcile()
        return generation

    async def _adopt(self, generation: Generation) -> None:
        """Make it the one that serves. What the graphs need elsewhere is made first."""
        await self._on_graphs(generation.graphs)
        old, self._current = self._current, generation
        generation.failed = (
            None  # a process that failed beside it is started anew, as any that dies from now on
        )
        self.failure = None
        if old is not None:
            old.close()
            telemetry.log().info(telemetry.GRAPHS_RELOADED, generation=generation.number)
        self._changed()

    def _reconcile(self) -> None:
        """Start what is missing."""
        if self._group is None or self._group.cancel_scope.cancel_called:
            return
        for generation in self._generations:
            for _ in range(generation.missing(time.monotonic(), self._at_once)):
                try:
                    process = Process.start(self._launch)
                except OSError as refused:  # no more processes, descriptors or memory: try again later
                    pause_s = generation.stumbled(time.monotonic())
                    telemetry.log().error(telemetry.WORKER_DIED, error=str(refused), pause_seconds=pause_s)
                    break
                generation.processes.append(process)
                self._on_spawn(process.pid)
                self._group.start_soon(self._follow, generation, process)

    async def _follow(self, generation: Generation, process: Process) -> None:
        """Be with a process until it is buried."""
        process.changed = lambda: self._heard_of(generation, process)
        code = await process.run()
        self._on_exit(process.pid)
        pause_s = generation.buried(process, time.monotonic())
        if generation.is_closed or process.is_draining:
            telemetry.log().info(telemetry.WORKER_RETIRED, pid=process.pid)
        else:
            reason = {"message": process.failed.message} if process.failed else {}
            telemetry.log().error(
                telemetry.WORKER_DIED,
                pid=process.pid,
                exit_code=code,
                pause_seconds=pause_s,
                **reason,
            )
        if generation.is_closed and not generation.processes:
            self._generations.remove(generation)
        self._reconcile()
        self._changed()

    def _heard_of(self, generation: Generation, process: Process) -> None:
        if process.failed is not None and not generation.decided.is_set():
            generation.failed = process.failed
            generation.decided.set()
        elif process.failed is not None and generation is not self._current:
            generation.failed = process.failed
        if process.ready is not None and not process.is_announced:
            process.is_announced = True
            telemetry.log().info(telemetry.WORKER_READY, pid=process.pid, generation=generation.number)
        if process.ready is not None and not generation.decided.is_set():
            generation.graphs = process.ready.graphs
            generation.assigns_priority = process.ready.assigns_priority
            generation.decided.set()
        self._changed()

    def _changed(self) -> None:
        news, self._news = self._news, anyio.Event()
        news.set()

    async def _tick(self) -> None:
        """Count silence, start what is missing, let go what is too many."""
        while True:
            await anyio.sleep(TICK_SECONDS)
            current = self._current
            for process in self._processes():
                was_s = process.silent_s
                process.tick(
                    TICK_SECONDS,
                    has_alternative=current is not None and current.desk() is not None,
                )
                if process.ready is not None and was_s < STUCK_SECONDS <= process.silent_s:
                    telemetry.log().warning(
                        telemetry.WORKER_BLOCKED,
                        pid=process.pid,
                        runs=[str(run_id) for run_id, _ in process.flights],
                    )
            self._reconcile()
            if current is None:
                continue
            superfluous = current.superfluous()
            current.surplus_s = 0.0 if superfluous is None else current.surplus_s + TICK_SECONDS
            if superfluous is not None and current.surplus_s > self._surplus_s:
                current.surplus_s = 0.0
                superfluous.drain()


def _result(answer: Answer) -> bytes:
    if answer.error is None:
        return answer.result
    kind = _errors().get(answer.error, errors.Error)
    error = kind.__new__(kind)  # its text is made already: the constructors take facts
    Exception.__init__(error, answer.message)
    raise error


def _errors() -> dict[str, type[errors.Error]]:
    """Every error of the domain by its name."""
    found: dict[str, type[errors.Error]] = {}
    waiting: list[type[errors.Error]] = [errors.Error]
    while waiting:
        kind = waiting.pop()
        found[kind.__name__] = kind
        waiting += kind.__subclasses__()
    return found
