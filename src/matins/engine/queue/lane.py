"""Runs under way here: each from its claim to its settling, through a worker.

What came of it in the worker decides what is written: settled, put back into the queue, or nothing, when another
attempt holds the run. What is streamed and answered leaves this node only while it holds its lease, and after the
database has it.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from functools import partial
from typing import Final

import anyio
import msgspec
from anyio.abc import TaskGroup, TaskStatus

from matins import telemetry
from matins.domain.errors import Error, LeaseLost, Unavailable
from matins.domain.frames import ERROR, Frame
from matins.domain.ids import RunId
from matins.domain.runs import CRASH_LIMIT, OVERDUE, Change, Held, Run, RunError, RunKwargs, StopReason
from matins.domain.webhooks import webhook_of
from matins.engine import failures, forks, spending
from matins.engine.callers import Callers
from matins.engine.lease import Lease
from matins.engine.queue import policed
from matins.engine.streams.hub import Hub
from matins.engine.streams.log import Log
from matins.engine.streams.wake import Wakes
from matins.storage import queue
from matins.storage.pool import Conn, Pool
from matins.workers.flight import Abandoned, Died, NotStarted, Outcome
from matins.workers.pool import Pool as Workers
from matins.workers.pool import Reservation
from matins.workers.protocol import Execute, Settled, Spent

_CHANGES: Final = {
    "success": Change.SUCCEEDED,
    "error": Change.FAILED,
    "timeout": Change.TIMED_OUT,
    "stopped": Change.STOPPED,
    "skipped": Change.STOPPED,  # nothing of it is left to say so
}

BEAT_SECONDS: Final = 0.5
"""How often the lanes look whether the lease is still held, and which runs take too long."""

DESK_SECONDS: Final = 5.0
"""How long the end of a stopped run may wait for what the desk knows of its thread."""

CANCELLED: Final = msgspec.json.encode(
    RunError("UserInterrupt", "interrupt requested via POST /threads/{thread_id}/runs/{run_id}/cancel")
)
"""Source: observed as Thread.error after a cancellation."""


@dataclass(slots=True)
class _Lane:
    """What is kept of a run's stream, when it has run too long, and how many calls of models it has made."""

    log: Log
    until: float
    calls: int = 0


class Lanes:
    """The runs that this node has under way."""

    def __init__(
        self,
        *,
        pool: Pool,
        workers: Workers,
        hub: Hub,
        lease: Lease,
        wakes: Wakes,
        limit_s: float = math.inf,
    ) -> None:
        self._pool: Final = pool
        self._workers: Final = workers
        self._hub: Final = hub
        self._lease: Final = lease
        self._wakes: Final = wakes
        self._limit_s: Final = limit_s
        self.callers: Final = Callers(workers=workers, wake=wakes.claims)
        self._held: dict[Held, _Lane] = {}
        self._group: TaskGroup | None = None
        self._emptied = anyio.Event()

    async def run(self, *, task_status: TaskStatus[None]) -> None:
        """Be the home of all lanes; they end with it."""
        async with anyio.create_task_group() as group:
            self._group = group
            task_status.started()
            was_held = True
            while True:
                await anyio.sleep(BEAT_SECONDS)
                if was_held and not self._lease.is_held:
                    self._let_go()
                self._end_overdue()
                was_held = self._lease.is_held

    @property
    def held(self) -> list[Held]:
        """What is under way here."""
        return list(self._held)

    def holds(self, run_id: RunId) -> bool:
        """Whether the run is under way here."""
        return any(held.run_id == run_id for held in self._held)

    def start(self, run: Run, reservation: Reservation) -> None:
        """Start a run that this node has just claimed, in a lane that was kept for it."""
        if self._group is None:
            raise RuntimeError("Lanes.run has not started")
        limit_s = min(self._limit_s, policed.limit_s(run))
        lane = _Lane(Log(self._pool, run.held, is_followed=run.is_followed), time.monotonic() + limit_s)
        self._held[run.held] = lane
        self._group.start_soon(self._carry, run, reservation, lane.log)

    def stop(self, run_id: RunId, reason: StopReason, *, attempt: int | None = None) -> None:
        """Ask a run's lane to stop, if it is under way here: that attempt, or whichever it is."""
        for held in self._held:
            if held.run_id == run_id and attempt in (None, held.attempt):
                self._workers.stop((held.run_id, held.attempt), reason)

    def keep(self, held: Held) -> None:
        """Keep what a run streams from now on, if it is under way here: somebody follows it elsewhere."""
        if held in self._held:
            self._held[held].log.follow()

    def keeps(self, held: Held) -> bool:
        """Whether what the run streams is kept, as it is under way here."""
        return held in self._held and self._held[held].log.keeps

    async def hand_back(self, *, grace_s: float) -> None:
        """Let the lanes finish for `grace_s` seconds, then put what is left back into the queue, uncharged."""
        with anyio.move_on_after(grace_s):
            while self._held:
                self._emptied = anyio.Event()
                await self._emptied.wait()
        left = self.held
        for held in left:
            self._workers.stop((held.run_id, held.attempt), StopReason.DRAIN)
        if left:
            await self._release(left, charge=0)

    def _let_go(self) -> None:
        """Stop everything: the lease has run out, others may have these runs by now. Asks no database."""
        telemetry.log().error(telemetry.NODE_LEASE_LOST, runs=len(self._held))
        for held in self._held:
            self._workers.stop((held.run_id, held.attempt), StopReason.LOST)

    def _end_overdue(self) -> None:
        """Stop what has run longer than it may. Asked again it is the same stop."""
        now = time.monotonic()
        for held, lane in self._held.items():
            if lane.until < now:
                self._workers.stop((held.run_id, held.attempt), StopReason.TIMEOUT)

    def _is_overdue(self, held: Held) -> bool:
        return held in self._held and self._held[held].until < time.monotonic()

    async def _carry(self, run: Run, reservation: Reservation, log: Log) -> None:
        """One run, from its claim to its end here."""
        try:
            await self._execute(run, reservation, log)
        except LeaseLost:
            telemetry.log().info(telemetry.RUN_REAPED, run_id=str(run.run_id), attempt=run.attempt)
        except Unavailable as away:
            # The database stayed away: the lease runs out and some node takes the run up again.
            telemetry.log().warning(telemetry.DATABASE_AWAY, run_id=str(run.run_id), error=str(away))
        except Exception:  # noqa: BLE001 - the wall of a lane: the reaper puts the run back
            telemetry.log().exception(telemetry.LOOP_FAILED, run_id=str(run.run_id))
        finally:
            reservation.release()
            self._held.pop(run.held, None)
            self._emptied.set()
            self._wakes.claims()
            if run.cron_id is not None:
                self._wakes.slots()
            if webhook_of(run) is not None:
                self._wakes.reports()
            self._wakes.news()  # who follows it here may have to look for it elsewhere from now on

    async def _execute(self, run: Run, reservation: Reservation, log: Log) -> None:
        try:
            log.keeps = log.keeps or msgspec.json.decode(run.kwargs, type=RunKwargs).resumable
            if run.stop is not None:  # asked to stop while it was on its way back into the queue
                reservation.release()
                await self._settle(run, await self._stopped(run), log)
                return
            with self.callers.admitted(run) as token:
                left = spending.Allowance()
                if run.cron_id is not None:
                    left = await self._pool.run(partial(policed.allowance, run=run), transaction=False)
                order = _order(run, token, left)
                outcome = await self._workers.execute(
                    reservation, order, partial(self._pass_on, run, log), partial(self._spend, run)
                )
            await self._conclude(run, outcome, log)
        except (LeaseLost, Unavailable):
            raise
        except Exception as unexpected:  # noqa: BLE001 - the wall of a lane: the run ends as an error
            telemetry.log().exception(telemetry.LOOP_FAILED, run_id=str(run.run_id))
            failure = RunError(type(unexpected).__name__, "The run's result could not be recorded.")
            await self._fail(run, failure, log)

    async def _spend(self, run: Run, calls: list[Spent]) -> None:
        """Put on record what the run has spent; others of its cron may be to stop for it."""
        lane = self._held[run.held]
        lane.calls += len(calls)
        work = partial(spending.note, run=run, calls=calls, number=lane.calls)
        while self._lease.is_held:  # what was spent is not forgotten for a database that is away
            try:
                if await self._pool.run(work):
                    self._wakes.tell_queue()
                    self._wakes.holds()
                return
            except Unavailable:
                continue
        raise LeaseLost(str(run.run_id))

    async def _try_again(self, run: Run, settled: Settled, log: Log) -> None:
        """Have the run tried again after an error that may pass; else that is its end."""
        after_s = await self._pool.run(partial(policed.retry, run=run))
        if after_s is not None:
            telemetry.log().warning(
                telemetry.RUN_RETRIED, run_id=str(run.run_id), attempt=run.attempt, after_s=after_s
            )
            self._wakes.tell_queue()
            return
        await self._pass_on(run, log, [Frame(ERROR, settled.error or b"null")])
        await self._settle(run, settled, log)

    async def _pass_on(self, run: Run, log: Log, frames: list[Frame]) -> None:
        """Keep frames, if the run is resumable or followed elsewhere, then hand them to those who listen."""
        if not self._lease.is_held:
            raise LeaseLost(str(run.run_id))
        frames = await log.keep(frames)
        self._hub.publish(run.run_id, frames)
        if log.is_followed:
            self._wakes.tell_followers(run.thread_id)

    async def _conclude(self, run: Run, outcome: Outcome, log: Log) -> None:
        """Write what became of the run in its worker."""
        match outcome:
            case Settled(outcome="lost"):
                raise LeaseLost(str(run.run_id))
            case Settled(outcome="stopped", reason=StopReason.DRAIN.value):
                await self._release([run.held], charge=0)
            case Settled(is_transient=True):
                await self._try_again(run, outcome, log)
            case Settled():
                await self._settle(run, outcome, log)
            case NotStarted():
                await self._release([run.held], charge=0)
            case Abandoned() if self._is_overdue(run.held):
                await self._fail(run, OVERDUE, log, outcome="timeout")
            case Abandoned():
                await self._settle(run, await self._stopped(run), log)
            case Died():
                await self._after_death(run, outcome, log)

    async def _stopped(self, run: Run) -> Settled:
        """Give the end of a run that is stopped without having said what it left behind: the desk tells."""
        stopped = Settled(run.run_id, run.attempt, "stopped", has_next=True, reply=b"{}")
        kwargs = msgspec.json.decode(run.kwargs, type=RunKwargs)
        asked = {"graph_id": kwargs.graph_id, "thread_id": run.thread_id, "config": kwargs.config}
        try:
            answer = await self._workers.call("state", msgspec.json.encode(asked), timeout_s=DESK_SECONDS)
        except Error:  # the thread keeps the values it has, and says that something is left to do
            return stopped
        state = msgspec.json.decode(answer, type=_State)
        return msgspec.structs.replace(
            stopped,
            values=None if state.checkpoint_id is None else bytes(state.values),
            interrupts=msgspec.json.encode(
                {task.id: task.interrupts for task in state.tasks if task.interrupts}
            ),
            has_next=bool(state.tasks),
            checkpoint_id=state.checkpoint_id,
        )

    async def _after_death(self, run: Run, death: Died, log: Log) -> None:
        """Charge the run for its process's death; end it when that was once too often."""
        if run.crashes + 1 < CRASH_LIMIT:
            await self._release([run.held], charge=1)
            return
        message = f"The process that ran this died {run.crashes + 1} times, the last time of {death.cause}."
        await self._fail(run, RunError("WorkerDied", message), log)

    async def _fail(self, run: Run, failure: RunError, log: Log, *, outcome: str = "error") -> None:
        """End the run as an error of ours."""
        error = msgspec.json.encode(failure)
        await self._pass_on(run, log, [Frame(ERROR, error)])
        settled = Settled(
            run.run_id, run.attempt, outcome, error=error, reply=b'{"__error__":' + error + b"}"
        )
        await self._settle(run, settled, log)

    async def _settle(self, run: Run, settled: Settled, log: Log) -> None:
        """Record the end, then tell those who wait for it. A database that is away is waited for, while we may."""
        stopped = settled.outcome == "stopped"
        end = queue.End(
            change=_CHANGES[settled.outcome],
            values=settled.values,
            interrupts=settled.interrupts if settled.values is not None else None,
            has_next=settled.has_next,
            checkpoint_id=settled.checkpoint_id,
            error=CANCELLED if stopped else settled.error,
            event_seq=log.seq,
            keeps=log.keeps,
            is_untouched=settled.is_untouched,
            reply=settled.reply,
            output=settled.output,
            skipped=settled.reason if settled.outcome == "skipped" else None,
        )
        reply = settled.reply
        tries = 0

        async def write(conn: Conn) -> bool:
            nonlocal tries, reply
            tries += 1
            try:
                ended = await forks.settle(conn, run, end)
                if ended is None:
                    reply = b"{}"
                else:
                    await failures.judge(conn, ended)
                return ended is None or ended.is_followed
            except LeaseLost:
                # A second try may find the work done by a first whose COMMIT was not answered.
                if tries == 1 or not await queue.was_settled(conn, run.held):
                    raise
                return True

        while True:
            if not self._lease.is_held:
                raise LeaseLost(str(run.run_id))
            try:
                is_followed = await self._pool.run(write)
                break
            except Unavailable:
                continue
        telemetry.log().debug(
            telemetry.RUN_ENDED, run_id=str(run.run_id), outcome=settled.outcome, attempt=run.attempt
        )
        self._hub.end(run.run_id, reply)
        if is_followed:
            self._wakes.tell_followers(run.thread_id)

    async def _release(self, held: list[Held], *, charge: int) -> None:
        released = await self._pool.run(lambda conn: queue.release(conn, held, charge=charge))
        for each in released:
            telemetry.log().info(
                telemetry.RUN_REQUEUED,
                run_id=str(each.held.run_id),
                attempt=each.held.attempt,
                crashes=each.crashes,
            )
        self._wakes.tell_queue()


class _Task(msgspec.Struct):
    id: str
    interrupts: list[msgspec.Raw]


class _State(msgspec.Struct):
    """What is needed of the state of a thread."""

    values: msgspec.Raw
    tasks: list[_Task]
    checkpoint_id: str | None


def _order(run: Run, token: str, left: spending.Allowance) -> Execute:
    return Execute(
        run_id=run.run_id,
        thread_id=run.thread_id,
        attempt=run.attempt,
        assistant_id=run.assistant_id,
        kwargs=run.kwargs,
        metadata=run.metadata,
        offered_at=time.monotonic(),
        creator=run.creator,
        cron_id=run.cron_id,
        token=token,
        tokens_left=left.tokens,
        usd_left=left.usd,
    )
