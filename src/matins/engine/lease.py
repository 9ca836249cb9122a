"""This node's lease: the right to hold runs.

    renewed every RENEW_SECONDS, for LEASE_SECONDS, by a thread and a connection of their own: a busy loop here must
    not cost the lease
    held     -> claims, starts, writes, streams
    run out  -> lets nothing out and stops its runs: another node may have them by now
    regained -> a new tenure; only after one whole lease of it may this node reap others, or the first to come back
                after an outage would reap everybody

Whether the lease is held is decided here on CLOCK_BOOTTIME, which goes on while the machine sleeps, from the moment
the last granted renewal was *sent*. Whether another node's has run out is decided by the database.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Final

import anyio
from anyio.abc import TaskStatus

from matins import telemetry
from matins.domain.errors import Unavailable
from matins.domain.ids import NodeId
from matins.storage import queue
from matins.storage.pool import Conn, open_connection

RENEW_SECONDS: Final = 3.0
AGAIN_SECONDS: Final = 0.2
"""The pause between two tries to reach a database that is away."""

GOODBYE_SECONDS: Final = 2.0
WATCH_SECONDS: Final = 1.0
"""How often the keeper's thread is looked at."""

_CLOCK: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class Lease:
    """One node's lease, kept by `run`."""

    def __init__(self, dsn: str, *, node_id: NodeId, name: str, version: str) -> None:
        self.node_id: Final = node_id
        self._dsn: Final = dsn
        self._name: Final = name
        self._version: Final = version
        self._expires = 0.0
        self._tenure_s = 0.0
        self._stopping = threading.Event()

    @property
    def is_held(self) -> bool:
        """Whether this node may act now."""
        return time.clock_gettime(_CLOCK) < self._expires

    @property
    def may_reap(self) -> bool:
        """Whether the lease has been held without a gap for one whole lease."""
        return self.is_held and self._tenure_s >= queue.LEASE_SECONDS

    async def run(self, *, task_status: TaskStatus[None]) -> None:
        """Keep the lease; started when it is first held. Strikes the node off when cancelled.

        Raises: RuntimeError when the keeper ended by itself: without it the node would stand still unnoticed.
        """
        held = anyio.Event()
        loop = asyncio.get_running_loop()
        keeper = threading.Thread(
            target=lambda: asyncio.run(self._keep(lambda: loop.call_soon_threadsafe(held.set))),
            name="lease",
            daemon=True,
        )
        keeper.start()
        try:
            while keeper.is_alive() and not held.is_set():
                with anyio.move_on_after(WATCH_SECONDS):
                    await held.wait()
            if held.is_set():
                task_status.started()
            while keeper.is_alive():  # noqa: ASYNC110 - what may end it may keep it from saying so
                await anyio.sleep(WATCH_SECONDS)
            raise RuntimeError("the lease's keeper has ended")
        finally:
            self._stopping.set()
            with anyio.move_on_after(GOODBYE_SECONDS, shield=True):
                await anyio.to_thread.run_sync(keeper.join, GOODBYE_SECONDS)
            self._expires = 0.0

    async def _keep(self, granted: Callable[[], object]) -> None:
        """Renew until told to stop, whatever happens: a node whose keeper died would stand still unnoticed."""
        is_away = False  # said once, not at every try
        while not self._stopping.is_set():
            try:
                async with open_connection(self._dsn) as connection:
                    while not self._stopping.is_set():
                        await self._renew(connection, granted)
                        is_away = False
                        await self._pause(RENEW_SECONDS)
                    with anyio.fail_after(1):
                        await queue.leave(connection, [self.node_id])
            except Unavailable as away:
                if not is_away:
                    telemetry.log().warning(telemetry.DATABASE_AWAY, error=str(away))
                is_away = True
                await self._pause(AGAIN_SECONDS)
            except Exception:  # noqa: BLE001 - the wall of a loop iteration: the next connection may do better
                telemetry.log().exception(telemetry.LOOP_FAILED)
                await self._pause(RENEW_SECONDS)

    async def _renew(self, connection: Conn, granted: Callable[[], object]) -> None:
        sent = time.clock_gettime(_CLOCK)
        with anyio.fail_after(RENEW_SECONDS):
            self._tenure_s = await queue.renew(
                connection, node_id=self.node_id, name=self._name, version=self._version
            )
        is_first, was_held = self._expires == 0.0, self.is_held
        self._expires = sent + queue.LEASE_SECONDS
        if is_first:
            granted()
        elif not was_held:
            telemetry.log().info(telemetry.NODE_LEASE_REGAINED, node_id=str(self.node_id))

    async def _pause(self, seconds: float) -> None:
        """Wait, or less when told to stop."""
        await anyio.to_thread.run_sync(self._stopping.wait, seconds)
