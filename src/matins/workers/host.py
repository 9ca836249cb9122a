"""The worker's main: `python -m matins.workers.host`, started by workers/process.py and by nobody else.

Puts together what a worker is: the link to the serving process, the user's graphs, the database, the lanes.
Nothing survives the serving process: on Linux the kernel kills the worker with it, everywhere the link's end
does.

From the environment: MATINS_LINK_FD, MATINS_PARENT_PID, MATINS_CONFIG (the path of langgraph.json),
MATINS_LANES, MATINS_SOCKET (where graphs reach the API), MATINS_FROM_MANIFEST (the names that `env` gave when the
node was started), DATABASE_URI, and as settings LOG_LEVEL and LOG_JSON.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from functools import partial
from pathlib import Path
from typing import Final

import anyio
import msgspec

from matins import telemetry
from matins.graphs import calls, inside, invoke
from matins.graphs.containment import contain
from matins.graphs.metering import Meter
from matins.graphs.prices import Prices
from matins.graphs.priority import Assigner
from matins.graphs.registry import GraphFailed, Registry
from matins.graphs.store import Store, opened_store
from matins.manifest import read
from matins.manifest.reading import ManifestError
from matins.storage.pool import Pool, open_pool
from matins.workers.lanes import Emit, Lanes, Tell
from matins.workers.lifeline import end_the_session, take_link, tie_to_parent
from matins.workers.link import Link, connect
from matins.workers.protocol import (
    CONNECTIONS,
    Execute,
    Failed,
    FromWorker,
    Ready,
    Settled,
    ToWorker,
)
from matins.workers.threads import Threads
from matins.workers.watchdog import Watchdog

_DECIDED: Final = ("DATABASE_URI", "LANGGRAPH_STRICT_MSGPACK")
"""What the serving process says, whatever `env` does."""

_GOODBYE_SECONDS: Final = 5.0


class Worker:
    """One end of the link and what is behind it."""

    def __init__(self, end: socket.socket, *, config: Path, lanes: int, dsn: str, api: str) -> None:
        self._end = end
        self._api = api
        self._config = config
        self._threads = Threads(max(32, 4 * lanes))
        self._dsn = dsn
        self._is_leaving = False

    async def run(self) -> int:
        """Import the graphs, serve until drained; give the exit code."""
        with inside.installed(self._api, waiting=self._threads.waiting):
            async with opened_store(self._dsn) as store:
                return await self._run(store)

    async def _run(self, store: Store) -> int:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(self._threads)
        contain()
        lanes: Lanes[invoke.Stopping] | None = None

        def received(batch: list[ToWorker]) -> None:
            if lanes is not None:  # nothing is asked of a worker before it is Ready
                lanes.received(batch)

        link: Link[ToWorker, FromWorker] = await connect(
            self._end, received=received, lost=self._lost, incoming=ToWorker
        )
        try:
            manifest = read(self._config)
            for name in os.environ.pop("MATINS_FROM_MANIFEST", "").split(","):
                if name not in _DECIDED:  # `env` may have changed since
                    os.environ.pop(name, None)
            manifest.export(os.environ)
            registry = Registry.load(manifest, store=store)
            assigner = Assigner.load(manifest)
        except (GraphFailed, ManifestError) as failure:
            link.post(Failed(str(failure), getattr(failure, "trace", "")))
            await self._leave(link)
            return 1
        watchdog = Watchdog()
        async with open_pool(self._dsn, size=CONNECTIONS, application="matins worker") as pool:
            lanes = Lanes(
                execute=partial(_execute, registry=registry, pool=pool, prices=Prices(manifest.prices)),
                stopping=invoke.Stopping,
                answer=partial(calls.answer, registry=registry, assigner=assigner, pool=pool),
                beat=watchdog.turned,
            )
            link.post(Ready(msgspec.json.encode(registry.describe()), assigner.assigns))
            watchdog.start()
            await lanes.run(link)
            await self._leave(link)
        return 0

    async def _leave(self, link: Link[ToWorker, FromWorker]) -> None:
        self._is_leaving = True
        link.close()
        with anyio.move_on_after(_GOODBYE_SECONDS):
            await link.closed.wait()

    def _lost(self) -> None:
        """Take everything down with us when the serving process is gone."""
        if not self._is_leaving:
            end_the_session()


async def _execute(
    order: Execute,
    emit: Emit,
    stop: invoke.Stopping,
    tell: Tell,
    *,
    registry: Registry,
    pool: Pool,
    prices: Prices,
) -> Settled:
    meter = None
    if order.cron_id is not None:
        meter = Meter(order, prices=prices, tell=tell, ask_to_stop=stop.ask)
    return await invoke.execute(order, registry=registry, pool=pool, emit=emit, stop=stop, meter=meter)


def main() -> None:
    """Be a worker."""
    tie_to_parent()
    end = take_link()
    # A service manager tells every process of ours; the serving process decides when a worker goes. Handlers, not
    # SIG_IGN: that would be inherited by what a graph starts.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    as_json = os.environ.get("LOG_JSON", "").lower() in ("1", "true")
    telemetry.configure(level=os.environ.get("LOG_LEVEL", "INFO"), as_json=as_json)
    worker = Worker(
        end,
        config=Path(os.environ["MATINS_CONFIG"]),
        lanes=int(os.environ["MATINS_LANES"]),
        dsn=os.environ["DATABASE_URI"],
        api=os.environ.pop("MATINS_SOCKET", ""),
    )
    sys.exit(anyio.run(worker.run))


if __name__ == "__main__":
    main()
