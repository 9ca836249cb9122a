"""Worker side: what becomes of each message. N lanes run orders, calls are answered, the loop beats.

    Execute -> Refused (stale, draining, or its Stop came in the same batch)
            -> Started, Events ..., Settled: exactly one, whatever happens in between
    Call    -> Answer: exactly one

It knows no graph: how an order is executed and a call answered is given to it. A lane whose user code
swallows its cancellation stays busy; the serving side gives it up by a deadline of its own.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Generic, Protocol, TypeAlias, TypeVar, assert_never
from uuid import UUID

import anyio
import msgspec
from anyio.abc import TaskGroup

from matins import telemetry
from matins.domain.errors import Error
from matins.domain.frames import ERROR, Frame
from matins.domain.runs import RunError, StopReason
from matins.workers.link import Link
from matins.workers.protocol import (
    BEAT_SECONDS,
    OFFER_SECONDS,
    WINDOW_OCTETS,
    Answer,
    Beat,
    Call,
    Credit,
    Drain,
    Events,
    Execute,
    FromWorker,
    Refused,
    Settled,
    Spent,
    Started,
    Stop,
    Taken,
    ToWorker,
    octets,
)

Emit: TypeAlias = Callable[[list[Frame]], Awaitable[None]]
Tell: TypeAlias = Callable[[Spent], None]
Answerer: TypeAlias = Callable[[str, bytes], Awaitable[bytes]]


class Stopping(Protocol):
    """The stop of one attempt, which its executor feels."""

    def ask(self, reason: StopReason) -> None:
        """End the attempt."""


_S = TypeVar("_S", bound=Stopping)


@dataclass(slots=True)
class _Lane(Generic[_S]):
    """An order under way, and how much of its events is not consumed yet."""

    order: Execute
    link: Link[ToWorker, FromWorker]
    stop: _S
    unconsumed: int = 0
    credited: anyio.Event | None = None

    async def emit(self, frames: list[Frame]) -> None:
        """Send frames; wait while more than a window of them is not consumed."""
        self.link.post(Events(self.order.run_id, self.order.attempt, frames))
        self.link.flush()
        self.unconsumed += octets(frames)
        while self.unconsumed > WINDOW_OCTETS:
            self.credited = anyio.Event()
            await self.credited.wait()

    def tell(self, spent: Spent) -> None:
        """Tell what was spent, now."""
        self.link.post(spent)
        self.link.flush()

    def credit(self, consumed: int) -> None:
        """Let it send so much more."""
        self.unconsumed -= consumed
        if self.credited is not None and self.unconsumed <= WINDOW_OCTETS:
            self.credited.set()
            self.credited = None


class Lanes(Generic[_S]):
    """What a worker does. `received` takes what comes over the link; `run` serves until drained."""

    def __init__(
        self,
        *,
        execute: Callable[[Execute, Emit, _S, Tell], Awaitable[Settled]],
        stopping: Callable[[], _S],
        answer: Answerer,
        beat: Callable[[], None],
    ) -> None:
        self._execute: Final = execute
        self._stopping: Final = stopping
        self._answer: Final = answer
        self._beat: Final = beat
        self._lanes: dict[tuple[UUID, int], _Lane[_S]] = {}
        self._calls = 0
        self._is_draining = False
        self._link: Link[ToWorker, FromWorker] | None = None
        self._group: TaskGroup | None = None

    async def run(self, link: Link[ToWorker, FromWorker]) -> None:
        """Beat and serve; return when drained."""
        async with anyio.create_task_group() as group:
            self._link, self._group = link, group
            while not (self._is_draining and not self._lanes and not self._calls):
                self._beat()
                link.post(Beat())
                await anyio.sleep(BEAT_SECONDS)

    def received(self, batch: list[ToWorker]) -> None:
        """Take a batch. An order whose Stop is behind it in the same batch never starts."""
        if self._link is None or self._group is None:
            raise RuntimeError("messages before Ready")
        stops = {(message.run_id, message.attempt) for message in batch if isinstance(message, Stop)}
        for message in batch:
            match message:
                case Execute():
                    if self._is_draining or (message.run_id, message.attempt) in stops or _is_stale(message):
                        self._link.post(Refused(message.run_id, message.attempt))
                    else:
                        self._begin(message, self._link, self._group)
                case Credit():
                    if (lane := self._lanes.get((message.run_id, message.attempt))) is not None:
                        lane.credit(message.octets)
                case Stop():
                    if (lane := self._lanes.get((message.run_id, message.attempt))) is not None:
                        lane.stop.ask(StopReason(message.reason))
                case Call():
                    self._calls += 1
                    self._group.start_soon(self._serve, message, self._link)
                case Drain():
                    self._is_draining = True
                case _:
                    assert_never(message)

    def _begin(self, order: Execute, link: Link[ToWorker, FromWorker], group: TaskGroup) -> None:
        lane = _Lane(order, link, self._stopping())
        self._lanes[order.run_id, order.attempt] = lane
        link.post(Started(order.run_id, order.attempt))
        link.flush()  # the lane may block the loop at once, and the offer must not look unread
        group.start_soon(self._drive, lane)

    async def _drive(self, lane: _Lane[_S]) -> None:
        run_id = str(lane.order.run_id)
        try:
            lane.link.post(await self._execute(lane.order, lane.emit, lane.stop, lane.tell))
        except BaseException as failure:
            if self._is_ending:
                raise
            telemetry.log().exception(telemetry.LOOP_FAILED, run_id=run_id)
            self._fail(lane, failure)
        finally:
            del self._lanes[lane.order.run_id, lane.order.attempt]
            lane.link.flush()

    def _fail(self, lane: _Lane[_S], failure: BaseException) -> None:
        """End a run in the graph's stead."""
        text = f"{type(failure).__name__}: {failure}".encode("utf-8", "replace").decode()
        if isinstance(failure, asyncio.CancelledError):
            text = "The run was cancelled from within"
        error = msgspec.json.encode(RunError(error="InternalError", message=text))
        run_id, attempt = lane.order.run_id, lane.order.attempt
        lane.link.post(Events(run_id, attempt, [Frame(ERROR, error)]))
        reply = b'{"__error__":' + error + b"}"
        lane.link.post(Settled(run_id, attempt, "error", error=error, reply=reply))

    @property
    def _is_ending(self) -> bool:
        """Whether it is the worker that ends, and not user code that cancels its own task or leaves."""
        return self._group is None or self._group.cancel_scope.cancel_called

    async def _serve(self, call: Call, link: Link[ToWorker, FromWorker]) -> None:
        link.post(Taken(call.call_id))
        link.flush()
        answer = Answer(call.call_id, error=Error.__name__, message="Internal error")
        try:
            answer = Answer(call.call_id, await self._answer(call.method, call.params))
        except Error as refusal:
            answer = Answer(call.call_id, error=type(refusal).__name__, message=str(refusal))
        except BaseException:
            if self._is_ending:
                raise
            telemetry.log().exception(telemetry.LOOP_FAILED, method=call.method)
        finally:
            self._calls -= 1
            try:
                link.post(answer)
            except ValueError:
                link.post(
                    Answer(
                        call.call_id,
                        error=Error.__name__,
                        message="The answer is too large",
                    )
                )
            link.flush()


def _is_stale(order: Execute) -> bool:
    return not math.isclose(order.offered_at, 0) and time.monotonic() - order.offered_at > OFFER_SECONDS
