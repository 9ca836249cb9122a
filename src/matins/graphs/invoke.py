"""One run: an Execute becomes a call of `graph.astream`, its chunks become frames, its end a Settled.

    pump (the lane's own task)                    sender (its child)
    chunk -> frame -> outbox ------ wakes ------> everything in the outbox -> emit(), awaited
          <-- waits while the outbox is full ---

The sender runs when the pump waits for the graph, so an idle graph's event leaves at once and a busy one's
leave in batches. A slow link fills the outbox, and the full outbox holds the pump.

Rules:
1. After a stop for LOST nothing leaves. No node of the root graph starts before the fence has confirmed the
   one before it, whatever the durability: LangGraph alone would run on after its writes were refused.
2. A stop is one native cancellation of the lane's task, not an anyio scope: a scope cancels again on every
   turn of the loop, and would break LangGraph off while it saves what the graph has done.
3. What user code raises ends its run, never the worker: also SystemExit, KeyboardInterrupt and
   CancelledError.
"""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Any, Final

import anyio
import anyio.lowlevel
import msgspec
from langchain_core.runnables import RunnableConfig
from langgraph.errors import UnknownInterruptError
from langgraph.types import StateSnapshot

from matins import telemetry
from matins.domain.errors import LeaseLost, Unavailable
from matins.domain.frames import Frame
from matins.domain.ids import RunId, ThreadId
from matins.domain.runs import OVERDUE, Held, RunError, RunKwargs, StopReason
from matins.graphs import events, frames
from matins.graphs.attempts import Start, starts
from matins.graphs.checkpoints import Saver
from matins.graphs.conditions import SaidNo
from matins.graphs.configure import context_for, run_config
from matins.graphs.containment import contain, unwrapped
from matins.graphs.inside import called_by
from matins.graphs.metering import BudgetExceeded, Meter
from matins.graphs.outputs import output_of
from matins.graphs.registry import Graph, Registry
from matins.graphs.serde import encode
from matins.graphs.transient import is_transient
from matins.storage.pool import Pool
from matins.workers.protocol import Execute, Settled

Emit = Callable[[list[Frame]], Awaitable[None]]

OUTBOX_BYTES: Final = 64 * 1024
"""How much may wait for the link before the graph is held: a few hundred tokens, or one large state."""

AWAY_ATTEMPTS: Final = 5
"""An attempt that the database was away for is not the run's fault: it goes back to the queue. But not for ever, for it
may be away only for what this run writes."""

GOODBYE_SECONDS: Final = 2.0
"""How long the last frames of a stopped or failed run may wait for the link."""


class Stopping:
    """The stop of one attempt: asked for from anywhere in the worker, felt by the lane that runs it."""

    def __init__(self) -> None:
        self.reason: StopReason | None = None
        self._lane: asyncio.Task[Any] | None = None
        self._cancelled = False

    def ask(self, reason: StopReason) -> None:
        """End the attempt; the first reason stands, but LOST outdoes every other."""
        if self.reason is None or reason is StopReason.LOST:
            self.reason = reason
        if self._lane is not None and not self._cancelled:
            self._cancelled = True
            self._lane.cancel()

    def begin(self) -> None:
        """Let the running task feel the stop from now on: at once, if it was asked for before."""
        self._lane = asyncio.current_task()
        if self.reason is not None:
            self.ask(self.reason)

    async def end(self) -> None:
        """Let the running task feel no stop any more, and take back one that it has not felt yet."""
        lane, self._lane = self._lane, None
        if self._cancelled and lane is not None:
            with suppress(asyncio.CancelledError):
                await anyio.lowlevel.checkpoint()  # a cancellation that is on its way strikes here
            lane.uncancel()


class _Outbox:
    """The frames that have not left yet, and never will once the run is lost."""

    def __init__(self, emit: Emit, stop: Stopping) -> None:
        self.frames: list[Frame] = []
        self.size = 0
        self._emit = emit
        self._stop = stop
        self._wake = asyncio.Event()
        self._room = asyncio.Event()
        self._closed = False

    def put(self, frame: Frame) -> None:
        self.frames.append(frame)
        self._wake.set()

    def close(self) -> None:
        self._closed = True
        self._wake.set()

    def wake(self) -> None:
        self._wake.set()

    async def room(self) -> None:
        """Wait until the frames may grow again."""
        while self.size >= OUTBOX_BYTES:
            self._room.clear()
            await self._room.wait()

    async def send(self) -> None:
        """Send whatever there is, until closed."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self.frames and self._stop.reason is not StopReason.LOST:
                batch, self.frames, self.size = self.frames, [], 0
                self._room.set()
                await self._emit(batch)
            if self._closed:
                return


@dataclass(slots=True)
class _End:
    """How it went: the outcome and, when it is no success, why; `reason` says why its slot is skipped."""

    outcome: str
    failure: RunError | None = None
    snapshot: StateSnapshot | None = None
    is_untouched: bool = False
    is_transient: bool = False
    reason: str | None = None


async def execute(
    order: Execute, *, registry: Registry, pool: Pool, emit: Emit, stop: Stopping, meter: Meter | None = None
) -> Settled:
    """Run an attempt to its end, emitting its frames in order, and say how it ended. `meter` is told of its calls.

    Never raises for what the graph did; what `emit` raises comes through. Nothing of the run executes
    afterwards.
    """
    contain()
    outbox = _Outbox(emit, stop)
    end = _End("success")
    async with anyio.create_task_group() as sender:
        sender.start_soon(outbox.send)
        with called_by(order.token):
            end = await _run(order, registry, pool, outbox, stop, meter=meter)
        if meter is not None:
            await meter.settled()
        if stop.reason is StopReason.LOST:
            end = _End("lost")
        if end.failure is not None and not end.is_transient:
            outbox.put(frames.error(end.failure))
        outbox.close()
        if end.outcome != "success":  # a client that does not read must not hold a run that is over
            patience_s = 0 if end.outcome == "lost" else GOODBYE_SECONDS
            sender.cancel_scope.deadline = anyio.current_time() + patience_s
    return _settled(order, end, stop.reason)


async def _run(
    order: Execute, registry: Registry, pool: Pool, outbox: _Outbox, stop: Stopping, *, meter: Meter | None
) -> _End:
    held = Held(RunId(order.run_id), ThreadId(order.thread_id), order.attempt)
    end = _End("success")
    stop.begin()
    try:
        kwargs = msgspec.json.decode(order.kwargs, type=RunKwargs)
        await registry.conditions.ask(order, kwargs, pool=pool)
        config = run_config(order, kwargs)
        if meter is not None:
            config["callbacks"] = [meter]
        saver = Saver.for_run(pool, held, lambda: stop.ask(StopReason.LOST), allowed=registry.allowed)
        outbox.put(frames.metadata(order.run_id, order.attempt))
        opening = registry.open(kwargs.graph_id, config, checkpointer=saver, context=kwargs.context)
        async with opening as graph:
            try:
                begins = starts(graph, order, kwargs, saver=saver, config=config, pool=pool)
                async with aclosing(begins):
                    async for start in begins:
                        await _pump(graph, start, kwargs, saver=saver, outbox=outbox, stop=stop)
            except BaseException as raised:  # noqa: BLE001 - a wall: see rule 3
                end = _ended_by(raised, order, stop)
            await stop.end()
            if end.outcome not in ("success", "lost"):
                # LangGraph does not wait for the last writes of a graph that is broken off.
                await saver.confirm()
            if end.outcome != "lost":
                end.snapshot = await graph.aget_state({"configurable": {"thread_id": str(order.thread_id)}})
    except BaseException as raised:  # noqa: BLE001 - a wall: the factory's code, and reading the state
        if end.outcome == "success":
            end = _ended_by(raised, order, stop)
    await stop.end()
    return end


async def _pump(
    graph: Graph, begins: Start, kwargs: RunKwargs, *, saver: Saver, outbox: _Outbox, stop: Stopping
) -> None:
    """Stream one call of the graph into the outbox."""
    start, config = begins
    framing = frames.Framing(kwargs.stream_mode, subgraphs=kwargs.stream_subgraphs)
    asked: dict[str, Any] = {  # checked at the door: the literals of LangGraph's signature are wider here
        "stream_mode": framing.modes,
        "interrupt_before": kwargs.interrupt_before,
        "interrupt_after": kwargs.interrupt_after,
        "durability": kwargs.durability,
    }
    context, subgraphs = context_for(graph, kwargs), kwargs.stream_subgraphs

    def chunks(config: RunnableConfig) -> Any:
        return graph.astream(start, config, context=context, subgraphs=subgraphs, **asked)

    async def held_chunks(config: RunnableConfig) -> AsyncGenerator[events.Chunk, None]:
        """The chunks, the graph held after each as the loop below would hold it, which runs in another task."""
        async with aclosing(chunks(config)) as stream:
            async for chunk in stream:
                yield chunk
                await anyio.lowlevel.checkpoint()
                if stop.reason is not None:
                    raise asyncio.CancelledError
                await outbox.room()
                if framing.ends_node(chunk) and kwargs.durability != "sync":
                    await saver.confirm()

    if framing.has_events:
        stream = events.with_events(held_chunks, start, config, subgraphs=subgraphs)
    else:
        stream = chunks(config)
    add = framing.add
    async with aclosing(stream):
        async for chunk in stream:
            if stop.reason is not None:
                raise asyncio.CancelledError  # again: a node has swallowed the first
            out = outbox.frames
            before = len(out)
            node_ended = add(chunk, out)
            if len(out) > before:
                outbox.size += len(out[-1].data) + 32
                outbox.wake()
                if outbox.size >= OUTBOX_BYTES:
                    await outbox.room()
            if node_ended and not framing.has_events and kwargs.durability != "sync":
                await saver.confirm()


def _ended_by(raised: BaseException, order: Execute, stop: Stopping) -> _End:
    """Give the end that an exception means."""
    is_away = isinstance(raised, Unavailable) and order.attempt < AWAY_ATTEMPTS
    if stop.reason is StopReason.LOST or isinstance(raised, LeaseLost) or is_away:
        stop.reason = StopReason.LOST
        return _End("lost")
    if isinstance(raised, SaidNo):
        return _End("skipped", reason=str(raised))
    if isinstance(raised, asyncio.CancelledError):
        if stop.reason is StopReason.TIMEOUT:
            return _End("timeout", OVERDUE)
        if stop.reason is StopReason.BUDGET:
            return _End("error", RunError(BudgetExceeded.__name__, str(BudgetExceeded())))
        if stop.reason is not None:
            return _End("stopped")
        lane = asyncio.current_task()
        if lane is not None and lane.cancelling():
            raise raised  # not the graph's and not a stop: the worker itself is ending
    original = unwrapped(raised)
    telemetry.log().error(
        telemetry.RUN_ENDED,
        run_id=str(order.run_id),
        attempt=order.attempt,
        outcome="error",
        trace=_trace(original),  # not exc_info: renderers show local variables with it, which may be secrets
    )
    failure = RunError(type(original).__name__, _text(original))
    return _End(
        "error",
        failure,
        is_untouched=isinstance(original, UnknownInterruptError),
        is_transient=_retries(order) and is_transient(original),
    )


class _Retrying(msgspec.Struct):
    policy: dict[str, object] = {}


def _retries(order: Execute) -> bool:
    """Whether the run is to be tried again after an error that may pass."""
    return bool(msgspec.json.decode(order.kwargs, type=_Retrying).policy.get("retry"))


def _trace(raised: BaseException) -> str:
    try:
        return "".join(traceback.format_exception(raised))
    except Exception:  # noqa: BLE001 - a wall: user code, as in _text
        return type(raised).__name__


def _text(raised: BaseException) -> str:
    try:
        return str(raised)
    except Exception:  # noqa: BLE001 - a wall: an exception's __str__ is user code
        return ""


def _settled(order: Execute, end: _End, reason: StopReason | None) -> Settled:
    if end.outcome == "lost":
        return Settled(order.run_id, order.attempt, "lost", reason=reason)
    if end.outcome == "skipped":
        return Settled(order.run_id, order.attempt, "skipped", reason=end.reason)
    stopped = end.outcome in ("stopped", "timeout")
    state = end.snapshot
    error = None if end.failure is None else frames.error(end.failure).data
    values = encode(state.values) if state is not None and state.created_at is not None else None
    if error is not None:
        reply = b'{"__error__":' + error + b"}"
    elif stopped or state is None:
        reply = b"{}"
    elif state.interrupts:
        whole = state.values if isinstance(state.values, dict) else {}
        reply = encode({**whole, "__interrupt__": state.interrupts})
    else:
        reply = values or b"{}"
    return Settled(
        order.run_id,
        order.attempt,
        end.outcome,
        values=values,
        interrupts=encode(interrupts_of(state)) if state is not None else b"{}",
        has_next=state is not None and has_next(state),
        checkpoint_id=None if state is None else state.config.get("configurable", {}).get("checkpoint_id"),
        error=error,
        reply=reply,
        reason=reason if stopped else None,
        is_untouched=end.is_untouched,
        is_transient=end.is_transient,
        output=output_of(values) if order.cron_id and values and end.outcome == "success" else None,
    )


def has_next(state: StateSnapshot) -> bool:
    """Whether nodes are left to run. Not `state.next`: it leaves out those whose writes wait for the others."""
    return bool(state.tasks)


def interrupts_of(state: StateSnapshot) -> dict[str, list[dict[str, Any]]]:
    """Give the pending interrupts, task id -> list."""
    return {
        task.id: [{"id": interrupt.id, "value": interrupt.value} for interrupt in task.interrupts]
        for task in state.tasks
        if task.interrupts
    }
