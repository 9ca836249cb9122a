"""Runs: submit, cancel, delete; and follow one to its end, wherever it runs."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import msgspec

from matins.domain.access import EVERYONE, Scope
from matins.domain.assistants import Assistant
from matins.domain.configs import Json, merged_config, mirrored, refuse_both
from matins.domain.errors import NotFound, RunNotFound, ThreadNotFound, Unavailable
from matins.domain.frames import Frame
from matins.domain.ids import RunId, ThreadId, uuid7
from matins.domain.multitask import decide
from matins.domain.runs import NewRun, Run, RunKwargs, RunStatus, StopReason
from matins.engine import assistants, replies
from matins.engine.callers import Caller
from matins.engine.lease import Lease
from matins.engine.queue.lane import Lanes
from matins.engine.streams.hub import Hub, Subscription
from matins.storage import frames as frame_log
from matins.storage import runs, stops, threads
from matins.storage.pool import Conn, Pool
from matins.workers.pool import Pool as Workers

HEARTBEAT_SECONDS: Final = 5.0
"""Source: the contract's heartbeat, independent of other data."""

LOOK_SECONDS: Final = 1.0
"""How often the database is asked after a run that is followed here and carried elsewhere, or by nobody yet."""

STOP_PATIENCE_SECONDS: Final = 12.0
"""How long `cancel` waits for a run to stop: its lane has 10 s, then it is settled over its head."""

_PAGE: Final = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRequest:
    """What a client asks for when it creates a run. Source: wire contract of run creation."""

    assistant_id: str
    input: object = None
    command: object = None
    checkpoint: Json | None = None
    metadata: Json = field(default_factory=dict)
    config: Json = field(default_factory=dict)
    context: Json = field(default_factory=dict)
    webhook: str | None = None
    interrupt_before: str | list[str] | None = None
    interrupt_after: str | list[str] | None = None
    stream_mode: list[str] = field(default_factory=lambda: ["values"])
    stream_subgraphs: bool = False
    stream_resumable: bool = False
    multitask_strategy: str = "enqueue"
    if_not_exists: str = "reject"
    after_seconds: float = 0
    durability: str = "async"
    strict_resume: bool = False
    on_completion: str = "delete"
    feedback_keys: list[str] | None = None


def kwargs_of(request: RunRequest, assistant: Assistant, *, temporary: bool) -> RunKwargs:
    """Give what a run executes: the request's, over what the assistant brings."""
    config, context = mirrored(request.config, request.context)
    base_config = msgspec.json.decode(assistant.config, type=dict[str, object])
    base_context = msgspec.json.decode(assistant.context, type=dict[str, object])
    return RunKwargs(
        graph_id=assistant.graph_id,
        input=request.input,
        command=request.command,
        config=merged_config(base_config, config),
        context={**base_context, **context},
        stream_mode=request.stream_mode,
        stream_subgraphs=request.stream_subgraphs,
        resumable=request.stream_resumable,
        interrupt_before=request.interrupt_before,
        interrupt_after=request.interrupt_after,
        checkpoint=request.checkpoint,
        durability=request.durability,
        strict_resume=request.strict_resume,
        temporary=temporary,
        webhook=request.webhook,
        feedback_keys=request.feedback_keys,
    )


def metadata_of(metadata: Mapping[str, object], assistant: Assistant) -> Json:
    """Give a run's metadata: the assistant's, what the client said, and whose run it is."""
    return {
        **msgspec.json.decode(assistant.metadata, type=dict[str, object]),
        **metadata,
        "graph_id": assistant.graph_id,
        "assistant_id": str(assistant.assistant_id),
    }


class Runs:
    """Runs as clients deal with them."""

    def __init__(
        self, *, pool: Pool, workers: Workers, lanes: Lanes, hub: Hub, lease: Lease, wake: Callable[[], None]
    ) -> None:
        self._pool: Final = pool
        self._workers: Final = workers
        self._lanes: Final = lanes
        self._hub: Final = hub
        self._lease: Final = lease
        self._wake: Final = wake
        self.is_draining = False

    async def submit(
        self,
        request: RunRequest,
        *,
        run_id: RunId,
        thread_id: ThreadId | None,
        scope: Scope,
        parent: Caller | None = None,
    ) -> Run:
        """Create a run, on a fresh thread when none is named, and start it here at once when that can be.

        `parent` is the run that creates it, if one does.
        Raises: NotFound, ThreadBusy, Invalid, Unavailable.
        """
        refuse_both(request.config, request.context)
        fresh = thread_id is None
        on = thread_id or ThreadId(uuid7())
        # A run that may finish while we are leaving may need its children for that.
        is_welcome = not self.is_draining or parent is not None
        may_claim = request.after_seconds <= 0 and self._lease.is_held and is_welcome
        reservation = self._workers.reserve() if may_claim else None
        tries = 0
        claimed = False
        displaced = _Displaced()

        async def work(conn: Conn) -> Run:
            nonlocal tries, claimed, displaced
            tries += 1
            if tries > 1:  # the COMMIT of a former try may have gone through
                already = await runs.get(conn, run_id, thread_id=on, scope=scope)
                if already is not None:
                    return already
            claims = reservation is not None
            displaced = _Displaced()
            run = await self._insert(
                conn,
                request,
                run_id,
                on,
                scope=scope,
                fresh=fresh,
                claims=claims,
                parent=parent,
                displaced=displaced,
            )
            claimed = run.status is RunStatus.RUNNING
            return run

        try:
            run = await self._pool.run(work)
        except BaseException:
            if reservation is not None:
                reservation.release()
            raise
        if reservation is not None:
            # Still the attempt that was claimed as it was inserted? Found again, it may be somebody else's by now.
            if claimed and run.status is RunStatus.RUNNING and run.attempt == 1:
                self._lanes.start(run, reservation)
            else:
                reservation.release()
        for other, reason in displaced.stopping:
            self._lanes.stop(other, reason)
        for other in displaced.ended:
            self._hub.end(other, b"{}")
        if run.status is RunStatus.PENDING:
            self._wake()
        return run

    async def submit_all(
        self, requests: Sequence[RunRequest], *, scope: Scope, parent: Caller | None = None
    ) -> list[Run]:
        """Create runs, each on a thread of its own: all of them or none.

        Raises: NotFound, Invalid, Unavailable.
        """
        for request in requests:
            refuse_both(request.config, request.context)
        wanted = [(request, RunId(uuid7()), ThreadId(uuid7())) for request in requests]

        async def work(conn: Conn) -> list[Run]:
            made = []
            for request, run_id, on in wanted:
                already = await runs.get(conn, run_id, thread_id=on, scope=scope)  # by a former try's COMMIT
                made.append(
                    already
                    or await self._insert(
                        conn, request, run_id, on, scope=scope, fresh=True, claims=False, parent=parent
                    )
                )
            return made

        made = await self._pool.run(work)
        self._wake()
        return made

    async def _insert(
        self,
        conn: Conn,
        request: RunRequest,
        run_id: RunId,
        thread_id: ThreadId,
        *,
        scope: Scope,
        fresh: bool,
        claims: bool,
        parent: Caller | None,
        displaced: _Displaced | None = None,
    ) -> Run:
        assistant = await assistants.resolve(conn, request.assistant_id, graphs=self._workers, scope=scope)
        temporary = fresh and request.on_completion == "delete"
        metadata = metadata_of(request.metadata, assistant)
        encoded = msgspec.json.encode(metadata)
        made = fresh
        if fresh:
            await threads.insert(conn, thread_id, scope=scope, metadata=encoded)
        elif await threads.lock(conn, thread_id, scope=scope) is None:
            if request.if_not_exists == "create":
                made = await threads.insert(conn, thread_id, scope=scope, metadata=encoded) is not None
            if not made and await threads.lock(conn, thread_id, scope=scope) is None:
                message = "Thread or assistant not found."
                raise NotFound(message)
        in_flight = [] if made else await runs.in_flight(conn, thread_id)
        makes_way = decide(request.multitask_strategy, in_flight=len(in_flight))
        if makes_way is not None and displaced is not None:
            in_flight = await displaced.stop(conn, in_flight, makes_way)
        kwargs = kwargs_of(request, assistant, temporary=temporary)
        run = await runs.insert(
            conn,
            NewRun(
                run_id=run_id,
                thread_id=thread_id,
                assistant_id=assistant.assistant_id,
                metadata=encoded,
                kwargs=msgspec.json.encode(kwargs),
                multitask_strategy=request.multitask_strategy,
                temporary=temporary,
                after_seconds=request.after_seconds,
                priority=parent.childs_priority if parent else 0,
                parent_run_id=parent.run_id if parent else None,
                creator=parent.creator if parent else None,
            ),
            scope=scope,
            claimed_by=self._lease.node_id if claims and not in_flight else None,
        )
        whose = {"graph_id": assistant.graph_id, "assistant_id": str(assistant.assistant_id)}
        await threads.occupy(
            conn, thread_id, metadata=msgspec.json.encode(whose), config=msgspec.json.encode(kwargs.config)
        )
        return run

    async def cancel(
        self,
        thread_id: ThreadId,
        run_id: RunId,
        *,
        scope: Scope,
        wait: bool,
        reason: StopReason = StopReason.INTERRUPT,
    ) -> None:
        """Stop a run: a pending one at once, a running one through its lane. With ROLLBACK it is undone.

        With `wait`, returns when nothing of it executes any more, or it was settled over its head.
        Raises: NotFound when there is no such run, or it has ended.
        """
        with self._hub.subscribe(run_id, frames=False) as subscription:
            tried: Run | None = None

            async def work(conn: Conn) -> Run:
                nonlocal tried
                thread = await threads.lock(conn, thread_id, scope=scope)
                run = await runs.get(conn, run_id, thread_id=thread_id, scope=scope)
                if tried is not None and (run is None or run.status.is_terminal):
                    return tried  # a former try's COMMIT has gone through, or it ended by itself just now
                if thread is None:
                    raise ThreadNotFound(thread_id)
                if run is None:
                    message = "No runs found to cancel."
                    raise NotFound(message)
                found = await stops.stop(conn, run_id, reason)
                if found is None:
                    message = (
                        "No matching runs to cancel. Please verify the thread ID and run IDs are correct, and the "
                        "runs haven't been deleted or completed."
                    )
                    raise NotFound(message)
                if found is RunStatus.PENDING:
                    await threads.vacate(conn, run)
                tried = replace(run, status=found)
                return tried

            run = await self._pool.run(work)
            if run.status is not RunStatus.RUNNING:
                self._hub.end(run_id, b"{}")
                self._wake()
                return
            self._lanes.stop(run_id, reason)
            if wait:
                deadline = time.monotonic() + STOP_PATIENCE_SECONDS
                async for _ in self.follow(run, subscription):
                    if time.monotonic() > deadline:
                        return

    async def delete(self, thread_id: ThreadId, run_id: RunId, *, scope: Scope) -> None:
        """Delete a run in whatever state; one that executes is stopped and can write nothing more.

        Raises: RunNotFound.
        """
        tries = 0

        async def work(conn: Conn) -> bool:
            nonlocal tries
            tries += 1
            await threads.lock(conn, thread_id, scope=scope)
            run = await runs.get(conn, run_id, thread_id=thread_id, scope=scope)
            if run is None:
                if tries == 1:
                    raise RunNotFound(run_id)
                return True  # a former try's COMMIT has gone through
            await runs.delete(conn, run_id, thread_id=thread_id, scope=scope)
            if not run.status.is_terminal:
                await threads.vacate(conn, run)
            return not run.status.is_terminal

        if await self._pool.run(work):
            self._lanes.stop(run_id, StopReason.LOST)
            self._hub.end(run_id, b"{}")
            self._wake()

    async def follow(self, run: Run, subscription: Subscription) -> AsyncIterator[list[Frame] | None]:
        """Give the run's frames as they come, in batches, until it has ended, wherever it runs.

        None says that a heartbeat is due.
        Raises: Unavailable when the reader fell too far behind.
        """
        beat_at = time.monotonic() + HEARTBEAT_SECONDS
        patience_s = 0.0 if run.status.is_terminal else LOOK_SECONDS
        while True:
            frames = await subscription.receive(patience_s)
            if frames:
                yield frames
            elif subscription.is_broken:
                message = "The reader fell too far behind."
                raise Unavailable(message)
            elif subscription.has_ended:
                return
            elif await self._has_ended(run):
                if rest := await subscription.receive(0):  # it was carried here while we asked
                    yield rest
                return
            if time.monotonic() >= beat_at:
                yield None
                beat_at = time.monotonic() + HEARTBEAT_SECONDS

    async def replay(
        self, run: Run, subscription: Subscription, *, after: int | None
    ) -> AsyncIterator[list[Frame] | None]:
        """Give the run's kept frames after that number, then follow it; with `after` None only what is still to come.

        No frame is given twice: what was kept and is live too is told by its number.
        """
        seen = after
        if after is not None:
            while True:
                kept = await self._kept(run, seen or 0)
                if not kept:
                    break
                seen = kept[-1].seq
                yield kept
        async for frames in self.follow(run, subscription):
            if frames is None or seen is None:
                yield frames
                continue
            fresh = [frame for frame in frames if frame.seq == 0 or frame.seq > seen]
            if fresh:
                seen = max(seen, fresh[-1].seq)
                yield fresh

    async def _kept(self, run: Run, after: int) -> list[Frame]:
        return await self._pool.run(
            lambda conn: frame_log.read_after(conn, run.run_id, after, limit=_PAGE), transaction=False
        )

    async def reply(self, run: Run, subscription: Subscription) -> AsyncIterator[bytes | None]:
        """Give None whenever a heartbeat is due and, when the run has ended, what `wait` and `join` answer."""
        async for frames in self.follow(run, subscription):
            if frames is None:
                yield None
        if subscription.reply is not None:
            yield subscription.reply
        else:
            yield await replies.on_record(self._pool, self._workers, run)

    async def _has_ended(self, run: Run) -> bool:
        """Ask the database, unless the run is under way here."""
        if self._lanes.holds(run.run_id):
            return False
        now = await self._pool.run(
            lambda conn: runs.get(conn, run.run_id, thread_id=None, scope=EVERYONE), transaction=False
        )
        return now is None or now.status.is_terminal


class _Displaced:
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
