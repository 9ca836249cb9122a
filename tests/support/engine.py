"""A whole node without HTTP: lease, workers, lanes, reaper, claimer, scheduler and runs, as server.py composes them."""

from __future__ import annotations

import json
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar
from uuid import UUID

import anyio
import msgspec
from anyio.abc import TaskStatus

from matins.domain.access import EVERYONE
from matins.domain.budgets import DEFAULT_CEILINGS, Ceilings
from matins.domain.crons import Cron
from matins.domain.ids import NodeId, RunId, ThreadId, uuid7
from matins.domain.runs import Run
from matins.engine import assistants, crons
from matins.engine.catching_up import CatchingUp
from matins.engine.lease import Lease
from matins.engine.looks import Looks
from matins.engine.metrics import Metrics
from matins.engine.priorities import Priorities
from matins.engine.queue.claimer import Claimer
from matins.engine.queue.lane import Lanes
from matins.engine.queue.reaper import Reaper
from matins.engine.requests import RunRequest
from matins.engine.runs import Runs
from matins.engine.scheduler import Scheduler
from matins.engine.streams.following import Following
from matins.engine.streams.hub import Hub
from matins.engine.streams.wake import Wake, Wakes
from matins.engine.streams.watch import Watch
from matins.engine.webhooks.guard import Guard
from matins.manifest.webhooks import Webhooks
from matins.storage import runs as stored_runs
from matins.storage import threads
from matins.storage.pool import Conn, Pool, open_pool
from matins.workers.pool import Pool as Workers
from matins.workers.process import Launch

T = TypeVar("T")
EXAMPLES = Path(__file__).parents[2] / "examples" / "langgraph.json"


class Part(Protocol):
    async def run(self, *, task_status: TaskStatus[None]) -> None: ...


@asynccontextmanager
async def running(part: Part) -> AsyncIterator[None]:
    """Have a part running, ready, for the length of the block."""
    async with anyio.create_task_group() as group:
        await group.start(part.run)
        yield
        group.cancel_scope.cancel()


@dataclass(frozen=True)
class Graphs:
    """What the workers say of their graphs, where no worker is needed."""

    graphs: bytes = b'{"echo":{}}'


class HeldLease:
    """A lease that is held, for parts whose lease is not what is tested."""

    is_held = True
    may_reap = False

    def __init__(self) -> None:
        self.node_id = NodeId(uuid7())


async def until(holds: Callable[[], Awaitable[Any]], timeout_s: float = 30) -> Any:
    """Wait for what only the database shows; gives what `holds` gave."""
    with anyio.fail_after(timeout_s):
        while not (found := await holds()):  # noqa: ASYNC110 - a row sets no event
            await anyio.sleep(0.02)
    return found


@dataclass
class Node:
    """The parts of a node, and what tests do with them."""

    pool: Pool
    hub: Hub
    lease: Lease
    workers: Workers
    lanes: Lanes
    claimer: Claimer
    following: Following
    runs: Runs
    scheduler: Scheduler
    wakes: Wakes
    watch: Watch
    due: Wake
    dsn: str

    async def thread(self, thread_id: ThreadId | None = None) -> ThreadId:
        made = thread_id or ThreadId(uuid7())
        await self.pool.run(lambda conn: threads.insert(conn, made, scope=EVERYONE))
        return made

    async def submit(self, graph: str, *, thread_id: ThreadId | None = None, **asked: Any) -> Run:
        return await self.runs.submit(
            RunRequest(assistant_id=graph, **{"input": {"done": 0}, **asked}),
            run_id=RunId(uuid7()),
            thread_id=thread_id,
            scope=EVERYONE,
        )

    async def wait(self, graph: str, *, thread_id: ThreadId | None = None, **asked: Any) -> dict[str, Any]:
        """Run a graph and give its reply."""
        run_id = RunId(uuid7())
        with self.hub.subscribe(run_id) as subscription, anyio.fail_after(20):
            run = await self.runs.submit(
                RunRequest(assistant_id=graph, **{"input": {"done": 0}, **asked}),
                run_id=run_id,
                thread_id=thread_id,
                scope=EVERYONE,
            )
            async for reply in self.following.reply(run, subscription):
                if reply is not None:
                    return dict(json.loads(reply))
        raise AssertionError("no reply")

    async def later(self, graph: str) -> Run:
        """Submit a run that does not start by itself."""
        return await self.submit(graph, thread_id=await self.thread(), after_seconds=3600)

    async def take(self, run: Run, holder: UUID) -> None:
        """Have a run held by a node, as after its claim."""
        async with self.pool.connection() as conn:
            await conn.execute(
                "UPDATE matins.run SET status = 'running', attempt = 1, node_id = $2, due_at = matins.now()"
                " WHERE run_id = $1",
                run.run_id,
                holder,
            )

    async def get(self, run_id: RunId) -> Run | None:
        return await self.pool.run(
            lambda conn: stored_runs.get(conn, run_id, thread_id=None, scope=EVERYONE), transaction=False
        )

    async def ended(self, run_id: RunId, timeout_s: float = 20) -> Run:
        async def look() -> Run | None:
            run = await self.get(run_id)
            return run if run is not None and run.status.is_terminal else None

        found: Run = await until(look, timeout_s)
        return found

    async def fetch(self, query: str, *arguments: Any) -> list[Any]:
        async with self.pool.connection() as conn:
            return list(await conn.fetch(query, *arguments))

    async def value(self, query: str, *arguments: Any) -> Any:
        async with self.pool.connection() as conn:
            return await conn.fetchval(query, *arguments)


@asynccontextmanager
async def node(
    dsn: str,
    config: Path = EXAMPLES,
    *,
    lanes: int = 10,
    predecessor: NodeId | None = None,
    is_alone: bool = False,
    node_id: NodeId | None = None,
    limit_s: float = math.inf,
    hears: bool = True,
) -> AsyncIterator[Node]:
    """Run a node of one worker and its desk on a database; without `hears`, every NOTIFY is lost on it."""
    due, hub = Wake(), Hub()
    async with AsyncExitStack() as stack:
        pool = await stack.enter_async_context(open_pool(dsn, size=10))
        lease = Lease(dsn, node_id=node_id or NodeId(uuid7()), name="test", version="0")
        wakes = Wakes(dsn, node_id=lease.node_id, follows=hub.follows)

        async def on_graphs(graphs: bytes) -> None:
            await pool.run(lambda conn: assistants.ensure_system(conn, assistants.decode_graphs(graphs)))
            wakes.tell_queue()

        environ = {"DATABASE_URI": dsn, "LANGGRAPH_STRICT_MSGPACK": "true"}
        workers = Workers(Launch(config, lanes, environ), workers=1, on_graphs=on_graphs)
        carried = Lanes(pool=pool, workers=workers, hub=hub, lease=lease, wakes=wakes, limit_s=limit_s)
        reaper = Reaper(
            pool=pool,
            lanes=carried,
            lease=lease,
            wakes=wakes,
            predecessor=predecessor,
            is_alone=is_alone,
            retention_s=3600,
        )
        claimer = Claimer(
            pool=pool,
            workers=workers,
            lanes=carried,
            lease=lease,
            wake=wakes.claims,
            is_pressed=lambda: False,
        )
        watch = Watch(pool=pool, hub=hub, wakes=wakes, node_id=lease.node_id, holds=carried.holds)
        following = Following(pool=pool, workers=workers, hub=hub, watch=watch, holds=carried.holds)
        runs = Runs(
            pool=pool,
            workers=workers,
            lanes=carried,
            hub=hub,
            following=following,
            lease=lease,
            wakes=wakes,
            webhooks=Guard(Webhooks(allows_loopback=True)),
            priorities=Priorities(pool=pool, workers=workers),
        )
        looks = Looks()
        metrics = Metrics(pool=pool, looks=looks, lanes_in_use=lambda: len(carried.held))
        scheduler = Scheduler(
            pool=pool,
            graphs=workers,
            lease=lease,
            wake=due,
            looks=looks,
            metrics=metrics,
            on_fired=wakes.tell_slots,
            on_displaced=lambda each, found: runs.make_way(each.thread_id, each.run_id, each.reason, found),
        )
        catching_up = CatchingUp(
            pool=pool,
            graphs=workers,
            lease=lease,
            wake=wakes.slots,
            metrics=metrics,
            on_fired=wakes.tell_queue,
        )
        if hears:
            await stack.enter_async_context(running(wakes))
        for part in (lease, workers, carried, watch, reaper, claimer, scheduler, catching_up):
            await stack.enter_async_context(running(part))
        yield Node(
            pool, hub, lease, workers, carried, claimer, following, runs, scheduler, wakes, watch, due, dsn
        )


class Twice(Pool):
    """What a lost reply to COMMIT does: the transaction is there, and is tried again."""

    def __init__(self, pool: Pool, between: Callable[[], Awaitable[None]] | None = None) -> None:
        super().__init__(pool._pool)
        self._between = between

    async def run(
        self, work: Callable[[Conn], Awaitable[T]], *, transaction: bool = True, patience_s: float = 8
    ) -> T:
        first = await super().run(work, transaction=transaction, patience_s=patience_s)
        if not transaction:
            return first
        if self._between is not None:
            await self._between()
        return await super().run(work, transaction=transaction, patience_s=patience_s)


@asynccontextmanager
async def scheduling(
    pool: Pool,
    *,
    on_fired: Callable[[], None] = lambda: None,
    looks: Looks | None = None,
    metrics: Metrics | None = None,
    ceilings: Ceilings = DEFAULT_CEILINGS,
) -> AsyncIterator[Wake]:
    """Run a scheduler, and what catches up, alone; gives what wakes the scheduler."""
    due, slots, looks = Wake(), Wake(), looks or Looks()
    metrics = metrics or Metrics(pool=pool, looks=looks, lanes_in_use=lambda: 0)
    lease: Any = HeldLease()

    def fired() -> None:
        slots()
        on_fired()

    scheduler = Scheduler(
        pool=pool,
        graphs=Graphs(),
        lease=lease,
        wake=due,
        looks=looks,
        metrics=metrics,
        on_fired=fired,
        on_displaced=lambda *_: None,
        ceilings=ceilings,
    )
    catching_up = CatchingUp(
        pool=pool,
        graphs=Graphs(),
        lease=lease,
        wake=slots,
        metrics=metrics,
        on_fired=on_fired,
        ceilings=ceilings,
    )
    async with running(scheduler), running(catching_up):
        yield due


async def create_cron(
    pool: Pool,
    schedule: str | None,
    *,
    thread_id: ThreadId | None = None,
    graphs: assistants.Graphs | None = None,
    assistant: str = "echo",
    payload: dict[str, Any] | None = None,
    **asked: Any,
) -> Cron:
    """Create a cron as a client does."""
    request = crons.CronRequest(
        assistant_id=assistant,
        schedule=schedule,
        payload=payload or {"input": {"messages": [{"role": "user", "content": "tick"}]}},
        **asked,
    )

    async def work(conn: Conn) -> Cron:
        return await crons.create(
            conn, request, thread_id=thread_id, graphs=graphs or Graphs(), scope=EVERYONE
        )

    return await pool.run(work)


# It begins five seconds after a minute: what is due at the next is due then, and not also at the one after.
MOVABLE_CLOCK = """
    CREATE TABLE matins.test_offset (by interval NOT NULL);
    INSERT INTO matins.test_offset SELECT date_trunc('minute', clock_timestamp()) + interval '65 s' - clock_timestamp();
    CREATE OR REPLACE FUNCTION matins.now() RETURNS timestamptz LANGUAGE sql VOLATILE
    AS 'SELECT clock_timestamp() + (SELECT by FROM matins.test_offset)';
"""


async def move_clock(pool: Pool, **by: float) -> None:
    """Let time pass in the database, once MOVABLE_CLOCK was installed: `move_clock(pool, hours=3)`."""
    interval = " ".join(f"{amount} {unit}" for unit, amount in by.items())
    async with pool.connection() as conn:
        await conn.execute(f"UPDATE matins.test_offset SET by = by + '{interval}'::interval")


def decoded(text: bytes | None) -> Any:
    return None if text is None else msgspec.json.decode(text)
