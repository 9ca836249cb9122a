"""Runs: submit, cancel, delete. How one is followed to its end: streams/following.py."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from enum import Enum, auto
from typing import Final

import msgspec

from matins.domain.access import Scope
from matins.domain.configs import refuse_both
from matins.domain.errors import NotFound, RunNotFound, ThreadNotFound
from matins.domain.ids import RunId, ThreadId, uuid7
from matins.domain.multitask import decide
from matins.domain.priorities import priority_in_queue
from matins.domain.runs import NewRun, Run, RunStatus, StopReason
from matins.engine import assistants
from matins.engine.callers import Caller
from matins.engine.displaced import Displaced
from matins.engine.lease import Lease
from matins.engine.priorities import Priorities
from matins.engine.queue.lane import Lanes
from matins.engine.requests import RunRequest, kwargs_of, metadata_of
from matins.engine.streams.following import Following
from matins.engine.streams.hub import Hub
from matins.engine.streams.wake import Wakes
from matins.engine.webhooks.guard import Guard
from matins.storage import runs, stops, threads
from matins.storage.pool import Around, Conn, Pool
from matins.workers.pool import Pool as Workers

STOP_PATIENCE_SECONDS: Final = 12.0
"""How long `cancel` waits for a run to stop: its lane has 10 s, then it is settled over its head."""


class Interest(Enum):
    """What the client that creates a run stays for."""

    NONE = auto()
    REPLY = auto()
    EVENTS = auto()


class Runs:
    """Runs as clients deal with them. `webhooks` lets pass where they may report to."""

    def __init__(
        self,
        *,
        pool: Pool,
        workers: Workers,
        lanes: Lanes,
        hub: Hub,
        following: Following,
        lease: Lease,
        wakes: Wakes,
        webhooks: Guard,
        priorities: Priorities,
    ) -> None:
        self._pool: Final = pool
        self._workers: Final = workers
        self._lanes: Final = lanes
        self._hub: Final = hub
        self._following: Final = following
        self._lease: Final = lease
        self._wakes: Final = wakes
        self._wake: Final = wakes.tell_queue
        self._webhooks: Final = webhooks
        self._priorities: Final = priorities
        self.is_draining = False

    async def submit(
        self,
        request: RunRequest,
        *,
        run_id: RunId,
        thread_id: ThreadId | None,
        scope: Scope,
        parent: Caller | None = None,
        interest: Interest = Interest.NONE,
        around: Around[Run] | None = None,
    ) -> Run:
        """Create a run, on a fresh thread when none is named, and start it here at once when that can be.

        `parent` is the run that creates it, if one does. `interest`: what its client will ask for on this node,
        wherever the run is carried. `around` may add to the transaction what stands or falls with the run.
        Raises: NotFound, ThreadBusy, Invalid, Unavailable; what `around` raises.
        """
        refuse_both(request.config, request.context)
        await self._webhooks.check([request.webhook])
        assigned = await self._assigned(request, thread_id, scope=scope, parent=parent)
        fresh = thread_id is None
        on = thread_id or ThreadId(uuid7())
        # A run that may finish while we are leaving may need its children for that.
        is_welcome = not self.is_draining or parent is not None
        may_claim = request.after_seconds <= 0 and self._lease.is_held and is_welcome
        reservation = self._workers.reserve() if may_claim else None
        tries = 0
        claimed = False
        displaced = Displaced()

        async def work(conn: Conn) -> Run:
            nonlocal tries, claimed, displaced
            tries += 1
            if tries > 1:  # the COMMIT of a former try may have gone through
                already = await runs.get(conn, run_id, thread_id=on, scope=scope)
                if already is not None:
                    return already
            claims = reservation is not None
            displaced = Displaced()
            run = await self._insert(
                conn,
                request,
                run_id,
                on,
                scope=scope,
                fresh=fresh,
                claims=claims,
                assigned=assigned,
                parent=parent,
                displaced=displaced,
                interest=interest,
            )
            claimed = run.status is RunStatus.RUNNING
            return run

        try:
            run = await self._pool.run(around(work) if around else work)
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
        for other, reason, found in displaced.runs:
            self.make_way(on, other, reason, found)
        if run.status is RunStatus.PENDING:
            self._wake()
        return run

    async def submit_all(
        self,
        requests: Sequence[RunRequest],
        *,
        scope: Scope,
        parent: Caller | None = None,
        around: Around[list[Run]] | None = None,
    ) -> list[Run]:
        """Create runs, each on a thread of its own: all of them or none. `parent` and `around` as for one.

        Raises: NotFound, Invalid, Unavailable; what `around` raises.
        """
        for request in requests:
            refuse_both(request.config, request.context)
        await self._webhooks.check(request.webhook for request in requests)
        wanted = [
            (
                request,
                RunId(uuid7()),
                ThreadId(uuid7()),
                await self._assigned(request, None, scope=scope, parent=parent),
            )
            for request in requests
        ]

        async def work(conn: Conn) -> list[Run]:
            made = []
            for request, run_id, on, assigned in wanted:
                already = await runs.get(conn, run_id, thread_id=on, scope=scope)  # by a former try's COMMIT
                made.append(
                    already
                    or await self._insert(
                        conn,
                        request,
                        run_id,
                        on,
                        scope=scope,
                        fresh=True,
                        claims=False,
                        assigned=assigned,
                        parent=parent,
                    )
                )
            return made

        made = await self._pool.run(around(work) if around else work)
        self._wake()
        return made

    async def _assigned(
        self, request: RunRequest, thread_id: ThreadId | None, *, scope: Scope, parent: Caller | None
    ) -> int | None:
        return await self._priorities.assign(
            request.assistant_id,
            thread_id=thread_id,
            metadata=request.metadata,
            scope=scope,
            creator=parent.creator if parent else None,
        )

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
        assigned: int | None,
        parent: Caller | None,
        displaced: Displaced | None = None,
        interest: Interest = Interest.NONE,
    ) -> Run:
        assistant = await assistants.resolve(conn, request.assistant_id, graphs=self._workers, scope=scope)
        temporary = fresh and request.on_completion == "delete"
        metadata = metadata_of(request.metadata, assistant)
        encoded = msgspec.json.encode(metadata)
        thread = None if fresh else await threads.lock(conn, thread_id, scope=scope)
        made = False
        if thread is None:
            if fresh or request.if_not_exists == "create":
                thread = await threads.insert(conn, thread_id, scope=scope, metadata=encoded)
            made = thread is not None
            thread = thread or await threads.lock(conn, thread_id, scope=scope)
        if thread is None:
            raise NotFound("Thread or assistant not found.")
        priority = priority_in_queue(assigned if thread.priority is None else thread.priority)
        in_flight = [] if made else await runs.in_flight(conn, thread_id)
        makes_way = decide(request.multitask_strategy, in_flight=len(in_flight))
        if makes_way is not None and displaced is not None:
            in_flight = await displaced.stop(conn, in_flight, makes_way)
        kwargs = kwargs_of(request, assistant, temporary=temporary)
        claims = claims and not in_flight
        here = [self._lease.node_id] if not claims and interest is not Interest.NONE else []
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
                followed_on=here if interest is Interest.EVENTS else (),
                awaited_on=here,
                priority=max(priority, parent.childs_priority) if parent else priority,
                parent_run_id=parent.run_id if parent else None,
                creator=parent.creator if parent else None,
            ),
            scope=scope,
            claimed_by=self._lease.node_id if claims else None,
        )
        whose = {"graph_id": assistant.graph_id, "assistant_id": str(assistant.assistant_id)}
        await threads.occupy(
            conn,
            thread_id,
            metadata=msgspec.json.encode(whose),
            config=msgspec.json.encode(kwargs.config),
            priority=assigned,
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
                    raise NotFound("No runs found to cancel.")
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
                self._give_up(thread_id, run_id)
                return
            self._lanes.stop(run_id, reason)
            self._wakes.tell_holder(thread_id)
            if wait:
                deadline = time.monotonic() + STOP_PATIENCE_SECONDS
                async for _ in self._following.follow(run, subscription):
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
            self._give_up(thread_id, run_id)

    def make_way(self, thread_id: ThreadId, run_id: RunId, reason: StopReason, found: RunStatus) -> None:
        """Tell those concerned of a run that a committed transaction has stopped, as it was found then."""
        if found is RunStatus.RUNNING:
            self._lanes.stop(run_id, reason)
            self._wakes.tell_holder(thread_id)
        else:
            self._give_up(thread_id, run_id)

    def _give_up(self, thread_id: ThreadId, run_id: RunId) -> None:
        """Tell all who wait for a run that it will not be carried any further."""
        self._hub.end(run_id, b"{}")
        self._wakes.tell_followers(thread_id)
        self._wakes.reports()
        self._wake()
