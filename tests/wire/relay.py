"""A TCP relay in front of a server that notes which requests pass it and how they were answered.

What a client covers is measured here, not claimed by its tests.
"""

from __future__ import annotations

import contextlib
from collections import deque
from typing import Final

import anyio
import httptools
from anyio.abc import SocketAttribute, SocketStream, TaskGroup, TaskStatus


class Relay:
    """Relays to the server at `port`; `seen` holds method, path and status of every request that was answered.

    Set `cut_after`, and the next connection on which the server sends that is cut there, once.
    """

    def __init__(self, port: int) -> None:
        self.seen: Final[set[tuple[str, str, int]]] = set()
        self.cut_after: bytes | None = None
        self.url = ""
        self._port: Final = port

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Relay until cancelled."""
        listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
        port = listener.extra(SocketAttribute.local_port)  # noqa: S610 - no database is near
        self.url = f"http://127.0.0.1:{port}"
        task_status.started()
        async with listener:
            await listener.serve(self._relay)

    async def _relay(self, client: SocketStream) -> None:
        asked: deque[tuple[str, str]] = deque()
        async with (
            client,
            await anyio.connect_tcp("127.0.0.1", self._port) as server,
            anyio.create_task_group() as group,
        ):
            group.start_soon(self._pump, client, server, _Requests(asked), group)
            group.start_soon(self._pump, server, client, _Responses(asked, self.seen), group)

    async def _pump(
        self, source: SocketStream, target: SocketStream, notes: _Requests | _Responses, group: TaskGroup
    ) -> None:
        """Hand on bytes as they come; when one side ends, both do."""
        with contextlib.suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
            async for data in source:
                notes.feed(data)
                await target.send(data)
                if isinstance(notes, _Responses) and self.cut_after is not None and self.cut_after in data:
                    self.cut_after = None
                    break
        group.cancel_scope.cancel()


class _Requests:
    """Notes what a client asks."""

    def __init__(self, asked: deque[tuple[str, str]]) -> None:
        self._asked: Final = asked
        self._url = b""
        self._parser: Final = httptools.HttpRequestParser(self)

    def feed(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_begin(self) -> None:
        self._url = b""

    def on_url(self, part: bytes) -> None:
        self._url += part

    def on_headers_complete(self) -> None:
        path = httptools.parse_url(self._url).path.decode()
        self._asked.append((self._parser.get_method().decode(), path))


class _Responses:
    """Notes what the server answers, in the order of the requests."""

    def __init__(self, asked: deque[tuple[str, str]], seen: set[tuple[str, str, int]]) -> None:
        self._asked: Final = asked
        self._seen: Final = seen
        self._parser: Final = httptools.HttpResponseParser(self)

    def feed(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_headers_complete(self) -> None:
        method, path = self._asked.popleft()
        self._seen.add((method, path, self._parser.get_status_code()))
