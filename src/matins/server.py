"""The serving process: builds every part and passes it to those that need it; then waits to be told to go.

Parts run side by side on one exit stack, each in a task group of its own, so that they leave in reverse order and
the crash of one takes all down: the parent then starts a successor on the same listening socket.

    pool -> wakes -> lease -> workers -> lanes -> watch -> private http -> reaper -> claimer -> sweeper -> courier
         -> declarations -> scheduler -> catching up -> http
"""

from __future__ import annotations

import gc
import os
import signal
import socket
import sys
import zoneinfo
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Final, Protocol
from uuid import UUID

import anyio
from anyio.abc import TaskStatus

from matins import __version__, telemetry
from matins.api.app import build
from matins.api.custom import load as load_custom
from matins.api.custom import say_what_is_stale
from matins.api.inside import Inside, private_socket, socket_path
from matins.api.lifespan import AppFailed
from matins.api.parts import Parts
from matins.api.serving import Http
from matins.child import Parent
from matins.domain.errors import Error, Unavailable
from matins.domain.ids import NodeId, uuid7
from matins.engine import assistants
from matins.engine.catching_up import CatchingUp
from matins.engine.declarations import Declarations
from matins.engine.heartbeat import Heartbeat
from matins.engine.lease import Lease
from matins.engine.looks import Looks
from matins.engine.metrics import Metrics
from matins.engine.priorities import Priorities
from matins.engine.queue.claimer import Claimer
from matins.engine.queue.lane import Lanes
from matins.engine.queue.reaper import Reaper
from matins.engine.runs import Runs
from matins.engine.scheduler import Scheduler
from matins.engine.streams.following import Following
from matins.engine.streams.hub import Hub
from matins.engine.streams.wake import Wake, Wakes
from matins.engine.streams.watch import Watch
from matins.engine.sweeper import Sweeper
from matins.engine.webhooks.courier import Courier
from matins.engine.webhooks.guard import Guard
from matins.engine.webhooks.sender import Sender
from matins.greeting import greet
from matins.manifest import read as read_manifest
from matins.manifest import webhooks
from matins.manifest.http import HttpSection
from matins.manifest.reading import ManifestError
from matins.settings import Settings, SettingsError
from matins.settings import read as read_settings
from matins.storage import queue
from matins.storage.migrate import migrate
from matins.storage.pool import normalise_dsn, open_pool
from matins.workers.pool import GraphsFailed
from matins.workers.pool import Pool as Workers
from matins.workers.process import Launch
from matins.workers.protocol import CONNECTIONS, STORE_CONNECTIONS
from matins.workers.reload import Reloader

CONFIGURATION_ERROR: Final = 2
_NOT_FOR_SCHEDULERS: Final = frozenset({"assistants", "threads", "runs", "store", "webhooks"})
"""The routes that a node does without which only fires crons: all but those about the server itself."""

DATABASE_PATIENCE_SECONDS: Final = 30.0


class Part(Protocol):
    """Anything that runs until it is cancelled, and says when it is ready."""

    async def run(self, *, task_status: TaskStatus[None]) -> None:
        """Run."""
        ...


@asynccontextmanager
async def running(part: Part) -> AsyncIterator[None]:
    """Have a part running, ready, for the length of the block."""
    async with anyio.create_task_group() as group:
        await group.start(part.run)
        yield
        group.cancel_scope.cancel()


async def serve(
    settings: Settings, *, listener: socket.socket, parent: Parent, predecessor: NodeId | None
) -> None:
    """Run the serving process until SIGTERM.

    Raises: AppFailed, GraphsFailed, ManifestError, Unavailable.
    """
    log = telemetry.log()
    manifest = read_manifest(settings.config)
    for warning in manifest.warnings:
        log.warning(telemetry.CONFIG_WARNING, text=warning)
    custom = None if settings.fires_only else load_custom(manifest)
    for parameter in normalise_dsn(settings.database_uri)[1]:
        log.warning(telemetry.CONFIG_WARNING, text=f"DATABASE_URI: {parameter} is not used")
    rules = webhooks.instead(manifest.webhooks, settings.webhooks)
    guard = Guard(rules, networks=settings.webhook_networks)
    sender = Sender(guard, headers=rules.filled_in(os.environ), secrets=settings.webhook_secrets)
    node_id = NodeId(uuid7())
    parent.tell("node", node_id=str(node_id))
    applied = await _patiently(lambda: migrate(settings.database_uri))
    if applied:
        log.info(telemetry.DATABASE_MIGRATED, files=applied)
    due, declared, hub = Wake(), Wake(), Hub()
    wakes = Wakes(settings.database_uri, node_id=node_id, follows=hub.follows)
    async with AsyncExitStack() as stack:
        pool = await stack.enter_async_context(open_pool(settings.database_uri, size=settings.connections))
        lease = Lease(settings.database_uri, node_id=node_id, name=socket.gethostname(), version=__version__)

        async def on_graphs(graphs: bytes) -> None:
            await pool.run(lambda conn: assistants.ensure_system(conn, assistants.decode_graphs(graphs)))
            wakes.tell_queue()
            declared()  # the last thing: what it wakes asks those that serve from here on

        workers = Workers(
            Launch(
                settings.config,
                settings.lanes,
                # Strict msgpack is read by LangGraph once, when it is imported: a stored checkpoint never runs code.
                {
                    "DATABASE_URI": settings.database_uri,
                    "LANGGRAPH_STRICT_MSGPACK": "true",
                    "MATINS_SOCKET": str(socket_path(node_id)),
                },
            ),
            workers=settings.workers,
            on_graphs=on_graphs,
            on_spawn=parent.worker,
            on_exit=parent.worker_gone,
        )
        graphs = assistants.Named(list(manifest.graphs)) if settings.fires_only else workers
        lanes = Lanes(pool=pool, workers=workers, hub=hub, lease=lease, wakes=wakes, limit_s=settings.limit_s)
        reaper = Reaper(
            pool=pool,
            lanes=lanes,
            lease=lease,
            wakes=wakes,
            predecessor=predecessor,
            is_alone=settings.is_alone,
            retention_s=settings.stream_ttl_s,
        )
        watch = Watch(pool=pool, hub=hub, wakes=wakes, node_id=node_id, holds=lanes.holds)
        following = Following(pool=pool, workers=workers, hub=hub, watch=watch, holds=lanes.holds)
        sweeper = Sweeper(pool=pool, lease=lease, config=manifest.sweeping)
        courier = Courier(
            pool=pool,
            sender=sender,
            lease=lease,
            wake=wakes.reports,
            delivers=manifest.http.delivers_webhooks,
        )
        priorities = Priorities(pool=pool, workers=workers)
        looks = Looks()
        metrics = Metrics(pool=pool, looks=looks, lanes_in_use=lambda: len(lanes.held))
        runs = Runs(
            pool=pool,
            workers=workers,
            lanes=lanes,
            hub=hub,
            following=following,
            lease=lease,
            wakes=wakes,
            webhooks=guard,
            priorities=priorities,
        )
        scheduler = Scheduler(
            pool=pool,
            graphs=graphs,
            lease=lease,
            wake=due,
            looks=looks,
            metrics=metrics,
            on_fired=wakes.tell_slots,
            on_displaced=lambda each, found: runs.make_way(each.thread_id, each.run_id, each.reason, found),
            ceilings=settings.ceilings,
        )
        claimer = Claimer(
            pool=pool,
            workers=workers,
            lanes=lanes,
            lease=lease,
            wake=wakes.claims,
            is_pressed=scheduler.is_pressed,
        )
        catching_up = CatchingUp(
            pool=pool,
            graphs=graphs,
            lease=lease,
            wake=wakes.slots,
            metrics=metrics,
            on_fired=wakes.tell_queue,
            ceilings=settings.ceilings,
        )
        declarations = Declarations(
            pool=pool, workers=workers, webhooks=guard, priorities=priorities, wake=declared, on_changed=due
        )
        parts = Parts(
            priorities=priorities,
            declarations=declarations,
            pool=pool,
            workers=workers,
            runs=runs,
            following=following,
            watch=watch,
            wakes=wakes,
            hub=hub,
            lease=lease,
            callers=lanes.callers,
            crons_changed=due,
            webhooks=guard,
            looks=looks,
            metrics=metrics,
            default_ttl=manifest.sweeping.default,
            http=manifest.http,
            ceilings=settings.ceilings,
        )
        # A run that calls from inside finds the routes where clients have them by default, and all of them.
        inner = Inside(build(replace(parts, http=HttpSection())), lanes.callers)
        private = Http(inner, stack.enter_context(private_socket(node_id, predecessor)))
        await stack.enter_async_context(running(parent))
        if custom is not None:
            await stack.enter_async_context(running(custom.lifespan))
        others: tuple[Part, ...] = (workers, lanes, watch, private, reaper, claimer, sweeper, courier)
        others = (*others, declarations)
        if settings.fires_only:
            others, parts = (), replace(parts, http=_of_schedulers(manifest.http))
        mine: tuple[Part, ...] = (wakes, lease, *others, scheduler, catching_up)
        for part in mine:
            await stack.enter_async_context(running(part))
        if settings.heartbeat_url:
            await stack.enter_async_context(running(Heartbeat(settings.heartbeat_url, looks=looks)))
        if settings.reloads:
            reloader = Reloader(workers, settings.config, on_change=partial(say_what_is_stale, manifest))
            await stack.enter_async_context(running(reloader))
        http = Http(build(parts, custom), listener, has_websockets=custom is not None)
        await stack.enter_async_context(running(http))
        gc.freeze()  # what lives as long as the process need not be looked through at each collection
        parent.tell("ready")
        log.info(
            telemetry.NODE_STARTED,
            node_id=str(node_id),
            workers=settings.workers,
            lanes=settings.lanes,
            # The pool's, the lease's, that of the wakes, and those of the workers and the desk.
            connections=settings.connections + 2 + (CONNECTIONS + STORE_CONNECTIONS) * (settings.workers + 1),
            max_connections=await pool.run(queue.max_connections, transaction=False),
        )
        if settings.is_dev and predecessor is None:
            greet(settings, list(assistants.known(workers)))
        await _told_to_go()
        log.info(telemetry.NODE_STOPPING, node_id=str(node_id), runs=len(lanes.held))
        claimer.is_draining = runs.is_draining = True
        await lanes.hand_back(grace_s=settings.grace_s)


def _of_schedulers(http: HttpSection) -> HttpSection:
    return replace(http, disabled=http.disabled | _NOT_FOR_SCHEDULERS)


async def _patiently(work: Callable[[], Awaitable[list[str]]]) -> list[str]:
    """Wait for a database that is still starting."""
    deadline = anyio.current_time() + DATABASE_PATIENCE_SECONDS
    while True:
        try:
            return await work()
        except Unavailable:
            if anyio.current_time() > deadline:
                raise
        await anyio.sleep(0.2)


async def _told_to_go() -> None:
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for _ in signals:
            break
    # Once is enough: a service manager tells every process, and so does the parent.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)


def _inherited(name: str) -> socket.socket | None:
    """Take over a socket that the parent passed on; no child of ours gets it."""
    number = os.environ.pop(name, "")
    if not number:
        return None
    os.set_inheritable(int(number), False)
    return socket.socket(fileno=int(number))


def main() -> int:
    """Run the serving process as the environment says; the exit code."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # a terminal that closes is the parent's to answer
    zoneinfo.reset_tzpath([])  # the rules of the tzdata package, the same on every machine, not the system's
    control, listener = _inherited("MATINS_CONTROL_FD"), _inherited("MATINS_LISTEN_FD")
    predecessor = os.environ.pop("MATINS_PREDECESSOR", "")
    try:
        settings = read_settings(os.environ)
    except SettingsError as error:
        sys.stderr.write(f"matins: {error}\n")
        return CONFIGURATION_ERROR
    telemetry.configure(level=settings.log_level, as_json=settings.log_json)
    if listener is None:
        sys.stderr.write(
            "matins: the serving process is started by its parent: use `matins dev` or `matins serve`\n"
        )
        return CONFIGURATION_ERROR

    async def work() -> None:
        await serve(
            settings,
            listener=listener,
            parent=Parent(control),
            predecessor=NodeId(UUID(predecessor)) if predecessor else None,
        )

    try:
        anyio.run(work, backend_options={"use_uvloop": True})
    except BaseException as raised:
        known = _known(raised)
        if known is None:
            raise
        sys.stderr.write(f"matins: {known}\n")
        return 1 if isinstance(known, Error) else CONFIGURATION_ERROR
    return 0


def _known(raised: BaseException) -> AppFailed | Error | GraphsFailed | ManifestError | None:
    """Give the reason for an end that one line explains; None when a traceback is needed."""
    if isinstance(raised, BaseExceptionGroup):
        return next((known for each in raised.exceptions if (known := _known(each)) is not None), None)
    return raised if isinstance(raised, (AppFailed, Error, GraphsFailed, ManifestError)) else None


if __name__ == "__main__":
    sys.exit(main())
