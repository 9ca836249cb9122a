"""The HTTP server: uvicorn on a socket that somebody else opened, and what we need of it beyond its defaults."""

from __future__ import annotations

import socket
from contextlib import contextmanager
from typing import Final

import anyio
import uvicorn
from anyio.abc import TaskStatus
from starlette.types import ASGIApp

# Imported here and not by name in uvicorn: a user's file must not shadow httptools.
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

UNSENT_BYTES: Final = 128 * 1024
"""How much the kernel takes for a connection before it can send it. By default megabytes, for each that is slow."""
GOODBYE_SECONDS: Final = 1
"""How long open connections have, once nothing more will be sent on them."""


class _Uvicorn(uvicorn.Server):
    """Leaves signals to us."""

    @contextmanager
    def capture_signals(self):  # type: ignore[no-untyped-def]  # noqa: ANN202
        """Capture none."""
        yield


class _Connection(HttpToolsProtocol):
    """Lets a reply drop its connection with all that is unsent on it: `scope["abort"]`."""

    def on_message_begin(self) -> None:
        """Begin a request."""
        super().on_message_begin()
        self.scope["abort"] = self.transport.abort  # type: ignore[typeddict-unknown-key]


class Http:
    """An HTTP server on a socket that listens."""

    def __init__(self, app: ASGIApp, listener: socket.socket, *, has_websockets: bool = False) -> None:
        self._listener: Final = listener
        self._server: Final = _Uvicorn(
            uvicorn.Config(
                app,
                http=_Connection,
                ws="auto" if has_websockets else "none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_keep_alive=75,
                timeout_graceful_shutdown=GOODBYE_SECONDS,
            )
        )

        # A client that reads nothing holds little of the kernel's memory; the window of one that reads stays its own.
        if listener.family != socket.AF_UNIX and hasattr(socket, "TCP_NOTSENT_LOWAT"):
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)

    async def run(self, *, task_status: TaskStatus[None]) -> None:
        """Serve; cancelled, let open requests end for a moment. `serve` itself must never be cancelled."""
        async with anyio.create_task_group() as group:
            with anyio.CancelScope(shield=True):
                group.start_soon(self._until_cancelled, task_status)
                await self._server.serve(sockets=[self._listener])
            group.cancel_scope.cancel()

    async def _until_cancelled(self, task_status: TaskStatus[None]) -> None:
        try:
            while not self._server.started:  # noqa: ASYNC110 - uvicorn has no event to wait for
                await anyio.sleep(0.005)
            task_status.started()
            await anyio.sleep_forever()
        finally:
            self._server.should_exit = True
