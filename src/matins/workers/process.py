"""One worker, as the serving side sees it: start it, hear it, speak to it, bury it.

A worker is spawned by exec, in a session of its own, and holds the only other end of its link. Its death is
its waitpid and never an EOF, which grandchildren can fake or hide. While it is still a zombie its process
group is killed, so that the group's number is surely its own; then it is reaped, what it had sent is read to
the end, and only then its runs learn how they ended.

Silence is counted in the turns of our own loop, not by the clock: when this process was held up, its workers
were not silent.
"""

from __future__ import annotations

import math
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, assert_never

import anyio
import msgspec
from anyio import to_thread

from matins.domain.runs import StopReason
from matins.workers.flight import Abandoned, Died, Flight, Key, NotStarted
from matins.workers.link import Link, connect
from matins.workers.protocol import (
    OFFER_SECONDS,
    Answer,
    Beat,
    Call,
    Credit,
    Drain,
    Events,
    Execute,
    Failed,
    FromWorker,
    Ready,
    Refused,
    Settled,
    Spent,
    Started,
    Stop,
    Taken,
    ToWorker,
    octets,
)

SILENT_SECONDS: Final = 0.12
"""A worker that was not heard for so long (two beats missed) is offered nothing and asked nothing."""

STUCK_SECONDS: Final = 1.0
"""A worker that was not heard for so long is not counted on any more: another one is started."""

STOP_SECONDS: Final = 10.0
"""How long a lane may take to obey a Stop before it is given up, and its worker with it."""

LEAVE_SECONDS: Final = 10.0
"""How long a draining worker without runs may take to exit before it is killed."""

_LAST_WORDS_SECONDS: Final = (
    0.5  # a dead group's end of the link closes at once; only a leaked descriptor delays it
)


@dataclass(frozen=True, slots=True)
class Launch:
    """What a worker is started with. `environ` is added to ours; `main` is the module that is run."""

    config: Path
    lanes: int
    environ: dict[str, str] = field(default_factory=dict)
    main: str = "matins.workers.host"


class _Asked:
    """A call under way. `answer` stays None when the process died, or fell silent before it took the call.

    One that was taken does not move: it may be what holds the worker, and must not go on to hold the next.
    """

    def __init__(self, *, may_move: bool) -> None:
        self.answer: Answer | None = None
        self.may_move = may_move
        self.done = anyio.Event()


class Process:
    """A worker process. Build it with `start`, then let `run` follow it until it is dead.

    `changed` is called whenever what it can take may have changed. `suspicion` is 1 when it was last reserved for a
    run under which a process died before, 2 when that happened to the run more than once.
    """

    def __init__(self, popen: subprocess.Popen[bytes], end: socket.socket, launch: Launch) -> None:
        self.pid: Final = popen.pid
        self.lanes: Final = launch.lanes
        self.ready: Ready | None = None
        self.failed: Failed | None = None
        self.is_draining = False
        self.is_condemned = False
        self.is_dead = False
        self.is_announced = False
        self.in_use = 0
        self.suspicion = 0
        self.silent_s = 0.0
        self.flights: dict[Key, Flight] = {}
        self.changed: Callable[[], None] = lambda: None
        self._popen = popen
        self._end = end
        self._link: Link[FromWorker, ToWorker] | None = None
        self._asked: dict[int, _Asked] = {}
        self._calls = 0
        self._leaving_s = 0.0

    @classmethod
    def start(cls, launch: Launch) -> Process:
        """Spawn it, on a thread that lives as long as we do: a worker dies with its parent thread."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        with theirs:
            popen = subprocess.Popen(
                # -P: a file of the user's must not shadow a module of ours; their own directories come later.
                [sys.executable, "-P", "-m", launch.main],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
                env=os.environ
                | launch.environ
                | {
                    "MATINS_LINK_FD": str(theirs.fileno()),
                    "MATINS_PARENT_PID": str(os.getpid()),
                    "MATINS_CONFIG": str(launch.config),
                    "MATINS_LANES": str(launch.lanes),
                },
            )
        return cls(popen, ours, launch)

    async def run(self) -> int:
        """Follow it until it is dead and buried; give its exit code, negative for a signal."""
        code = 0
        with anyio.CancelScope(shield=True):  # ends with the process: whoever cancels this has killed it
            link: Link[FromWorker, ToWorker] = await connect(
                self._end, received=self._received, lost=lambda: None, incoming=FromWorker
            )
            self._link = link
            code = await to_thread.run_sync(_bury, self._popen, limiter=anyio.CapacityLimiter(math.inf))
            with anyio.move_on_after(_LAST_WORDS_SECONDS):
                await link.closed.wait()
            self._ended(code)
            link.close()
        return code

    def kill(self) -> None:
        """End it now; its group follows when it is buried."""
        self._popen.kill()

    @property
    def is_healthy(self) -> bool:
        """Whether it can be offered runs and calls now."""
        return (
            self.ready is not None
            and self.silent_s < SILENT_SECONDS
            and not (self.is_draining or self.is_condemned or self.is_dead)
        )

    @property
    def is_useful(self) -> bool:
        """Whether it is, or will soon be, one of those that are wanted."""
        if self.is_draining or self.is_condemned or self.is_dead:
            return False
        return self.ready is None or self.silent_s < STUCK_SECONDS

    @property
    def is_quarantined(self) -> bool:
        """Whether it runs what may end it, so that nothing else is to depend on it."""
        return self.suspicion > 0 and not self.is_idle

    @property
    def is_idle(self) -> bool:
        """Whether no run is in it or on its way: also none that has lent its lane."""
        return self.in_use == 0 and not self.flights

    @property
    def free(self) -> int:
        """How many lanes are free: fewer than none for a while, when runs take back lanes that they had lent."""
        return self.lanes - self.in_use

    def offer(self, flight: Flight, order: Execute) -> None:
        """Send an order into a lane that was counted in `in_use`."""
        if self.is_dead or self._link is None:
            self.in_use -= 1
            flight.end(NotStarted())
            return
        self.flights[flight.key] = flight
        try:
            self._link.post(msgspec.structs.replace(order, offered_at=time.monotonic()))
        except BaseException:
            self._landed(flight.key)
            raise
        self._link.flush()

    def lend(self, flight: Flight) -> None:
        """Count a run's lane as free, for one more reason: it waits for another run."""
        flight.loans += 1
        if flight.loans == 1:
            self.in_use -= 1
            self.changed()

    def take_back(self, flight: Flight) -> None:
        """Have a reason less to lend a run's lane."""
        flight.loans -= 1
        if flight.loans == 0 and flight.key in self.flights:
            self.in_use += 1

    def credit(self, flight: Flight, consumed: int) -> None:
        """Tell the lane that so many octets of its frames were consumed."""
        self._post(Credit(*flight.key, consumed))

    def stop(self, flight: Flight, reason: StopReason) -> None:
        """Ask the lane to stop; from now it has STOP_SECONDS."""
        if flight.stopping_s is None:
            flight.stopping_s = 0.0
        self._post(Stop(*flight.key, reason))

    def drain(self) -> None:
        """Give it nothing new; it exits when its lanes are done."""
        self.is_draining = True
        if self._link is None or self.ready is None:
            self.kill()
        else:
            self._link.post(Drain())

    async def ask(self, method: str, params: bytes, *, may_move: bool) -> Answer | None:
        """Put a call and wait for its answer; None when it died, or, if it `may_move`, fell silent untaken."""
        if self._link is None or self.is_dead:
            return None
        self._calls += 1
        call_id = self._calls
        asked = self._asked[call_id] = _Asked(may_move=may_move)
        try:
            self._link.post(Call(call_id, method, params))
            await asked.done.wait()
        finally:
            self._asked.pop(call_id, None)
        return asked.answer

    def tick(self, seconds: float, *, has_alternative: bool) -> None:
        """Let a turn of the pool's loop pass: count silence, give up what waits for a silent or deaf worker.

        `has_alternative`: another worker could take what waits here.
        """
        self.silent_s += seconds
        if self.silent_s >= (SILENT_SECONDS if has_alternative else OFFER_SECONDS):
            for flight in self.flights.values():
                if not flight.is_started and flight.outcome is None:
                    flight.end(NotStarted())
                    self._post(Stop(*flight.key, StopReason.LOST))  # behind the Execute: it will not start
            for asked in self._asked.values():
                if asked.may_move:
                    asked.done.set()
        for flight in self.flights.values():
            if flight.stopping_s is not None:
                flight.stopping_s += seconds
                if flight.stopping_s >= STOP_SECONDS:
                    flight.end(Abandoned())
                    self.is_condemned = True
        is_over = all(flight.outcome is not None for flight in self.flights.values())
        if self.is_condemned and (is_over or self.silent_s >= STUCK_SECONDS):
            self.kill()  # what stands still takes its siblings along: they could not go on either
        if self.is_draining and not self.flights and not self._asked:
            self._leaving_s += seconds
            if self._leaving_s >= LEAVE_SECONDS:
                self.kill()

    def _post(self, message: ToWorker) -> None:
        if self._link is not None:
            self._link.post(message)

    def _received(self, batch: list[FromWorker]) -> None:
        was_silent = self.silent_s >= SILENT_SECONDS
        self.silent_s = 0.0
        for message in batch:
            match message:
                case Events():
                    self._heard(message)
                case Spent():
                    if (flight := self.flights.get((message.run_id, message.attempt))) is not None:
                        flight.spend(message)
                case Started():
                    if (flight := self.flights.get((message.run_id, message.attempt))) is not None:
                        flight.is_started = True
                case Settled() | Refused():
                    self._landed((message.run_id, message.attempt), message)
                case Taken():
                    if (asked := self._asked.get(message.call_id)) is not None:
                        asked.may_move = False
                case Answer():
                    if (asked := self._asked.get(message.call_id)) is not None:
                        asked.answer = message
                        asked.done.set()
                case Ready():
                    self.ready = message
                    self.changed()
                case Failed():
                    self.failed = message
                    self.changed()
                    self.kill()  # it would leave by itself, unless a thread of the user's holds it
                case Beat():
                    pass
                case _:
                    assert_never(message)
        if was_silent:
            self.changed()

    def _heard(self, events: Events) -> None:
        flight = self.flights.get((events.run_id, events.attempt))
        if flight is not None and flight.is_heard:
            flight.put(events.frames)
        else:  # nobody listens: let the lane run on to its end
            self._post(Credit(events.run_id, events.attempt, octets(events.frames)))

    def _landed(self, key: Key, last: Settled | Refused | None = None) -> None:
        flight = self.flights.pop(key, None)
        if flight is None:
            return
        if flight.loans == 0:
            self.in_use -= 1
        flight.end(last if isinstance(last, Settled) else NotStarted())
        self.changed()

    def _ended(self, code: int) -> None:
        self.is_dead = True
        flights, self.flights = list(self.flights.values()), {}
        victims = sum(flight.is_started and flight.outcome is None for flight in flights)
        for flight in flights:
            flight.end(Died(code, companions=victims - 1) if flight.is_started else NotStarted())
        for asked in self._asked.values():
            asked.done.set()


def _bury(popen: subprocess.Popen[bytes]) -> int:
    """Wait for its death, kill what is left of its group, reap it. In a thread of its own."""
    if sys.platform == "linux":
        with suppress(ChildProcessError):
            os.waitid(os.P_PID, popen.pid, os.WEXITED | os.WNOWAIT)
    else:
        popen.wait()
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(popen.pid, signal.SIGKILL)
    return popen.wait()
