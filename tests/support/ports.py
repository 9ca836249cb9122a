"""An ASGI application on a real port, in this process."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import anyio
import uvicorn
from starlette.types import ASGIApp

from matins.api.serving import Connection


class _Uvicorn(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def listening(app: ASGIApp, http: type[Connection] = Connection) -> AsyncIterator[str]:
    """Serve the application for the length of the block; gives its URL."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = uvicorn.Config(app, http=http, ws="none", lifespan="off", log_config=None)
        server = _Uvicorn(config)
        async with anyio.create_task_group() as group:
            group.start_soon(lambda: server.serve(sockets=[listener]))
            while not server.started:  # noqa: ASYNC110 - uvicorn has no event to wait for
                await anyio.sleep(0.002)
            try:
                yield f"http://127.0.0.1:{listener.getsockname()[1]}"
            finally:
                server.should_exit = True
