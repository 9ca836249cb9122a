"""The HTTP server: uvicorn on a socket that somebody else opened, and what we need of it beyond its defaults."""

from __future__ import annotations

import asyncio
import select
import socket
from collections.abc import Callable
from contextlib import contextmanager
from typing import Any, Final

import anyio
import uvicorn
from anyio.abc import TaskStatus
from starlette.types import ASGIApp

# Imported here and not by name in uvicorn: a user's file must not shadow httptools.
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

UNSENT_BYTES: Final = 128 * 1024
"""How much the kernel takes for a connection before it can send it. By default megabytes, for each that is slow."""
SILENCE_MILLISECONDS: Final = 45_000
"""How long the machine of a client may leave unanswered what we send: it was cut off. Heartbeats see to it that
something is sent."""
LOOK_SECONDS: Final = 0.25
"""How often a connection is looked at whose client will send no more."""
GOODBYE_SECONDS: Final = 1
"""How long open connections have, once nothing more will be sent on them."""

_TOO_SLOW: Final = b'{"detail":"The request took too long to come in","code":"request_timeout"}'
_REFUSAL: Final = (
    b"HTTP/1.1 408 Request Timeout\r\ncontent-type: application/json\r\nconnection: close\r\n"
    b"content-length: %d\r\n\r\n%b" % (len(_TOO_SLOW), _TOO_SLOW)
)


class _Uvicorn(uvicorn.Server):
    """Leaves signals to us."""

    @contextmanager
    def capture_signals(self):  # type: ignore[no-untyped-def]  # noqa: ANN202
        """Capture none."""
        yield


class Connection(HttpToolsProtocol):
    """HTTP/1.1 as uvicorn speaks it, but for clients that send no more, and requests that trickle in.

    The head of a request has `head_s` seconds; of its body at least `body_bytes` must come in every `body_s` seconds
    that it is read. A connection on which nothing comes is closed after uvicorn's `timeout_keep_alive`.

    uvicorn takes the end of what a client sends for the end of the client. But `nc -N`, and some proxies, say after
    their request that no more will come, and wait for the reply. A client that is gone says the very same on the wire;
    only what is sent to it tells the two apart, for then its kernel answers with a reset:

        client's end, a reply under way -> reading stops, the reply is told and sends a word
            a reset came back -> the connection is lost, as after any disconnect
            nothing came back -> the reply goes on to its end, then the connection is closed

    Reading is what would show the reset, and it has stopped; so the socket is looked at from time to time. A reply
    asks to be told by `scope["client_done"]`. To one that does not, the client's end is a disconnect as ever, if it
    receives, but what it sends still goes out.

    `scope["abort"]` lets a reply drop its connection with all that is unsent on it.
    """

    head_s: float = 10.0
    body_s: float = 30.0
    body_bytes: int = 30 * 1024

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._client_done: Final = asyncio.Event()
        self._is_told = False
        self._is_upgraded = False
        self._awaits: tuple[float, Callable[[], None]] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._read = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Let a connection wait for its first request no longer than for the next one."""
        super().connection_made(transport)
        if self.client is not None and hasattr(socket, "TCP_USER_TIMEOUT"):
            transport.get_extra_info("socket").setsockopt(
                socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, SILENCE_MILLISECONDS
            )
        self.timeout_keep_alive_task = self.loop.call_later(
            self.timeout_keep_alive, self.timeout_keep_alive_handler
        )

    def connection_lost(self, exc: Exception | None) -> None:
        """Let nothing strike any more."""
        self._unset_timer()
        self._unset_keepalive_if_required()  # uvicorn forgets it when there is an exception
        super().connection_lost(exc)

    def eof_received(self) -> bool:  # type: ignore[override]
        """Stay open for a reply that is under way; a request that is not complete will never be."""
        if self._is_idle or self.cycle.more_body:
            return False
        self._unset_timer()  # of a next request, of which no more will come
        self._client_done.set()
        self.cycle.message_event.set()  # whoever receives is to look
        self.loop.call_later(LOOK_SECONDS, self._look)
        return True

    def _look(self) -> None:
        """Let go of a client that has answered our last word with a reset."""
        if self.transport.is_closing():
            return
        poll = select.poll()
        poll.register(self.transport.get_extra_info("socket").fileno(), 0)
        if poll.poll(0):  # an error or a hang-up, which are told unasked
            self.transport.abort()
        else:
            self.loop.call_later(LOOK_SECONDS, self._look)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        async def told(scope: Any, receive: Any, send: Any) -> None:
            is_read = False

            async def receive_until_done() -> Any:
                nonlocal is_read
                while not (is_read and self._is_disconnect):
                    message = await receive()
                    if not is_read or message["type"] != "http.request":
                        is_read = is_read or not message.get("more_body")
                        return message
                    # Else it was woken by the client's end, which the reply is told otherwise.
                return {"type": "http.disconnect"}

            await app(scope, receive_until_done, send)

        super()._start_asgi_task(cycle, told)

    @property
    def _is_disconnect(self) -> bool:
        return self._client_done.is_set() and not self._is_told

    @property
    def _is_idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _tell(self) -> asyncio.Event:
        self._is_told = True
        return self._client_done

    def on_response_complete(self) -> None:
        """Close after the last reply to a client that sends no more."""
        is_last = not self.pipeline
        self._is_told = False
        super().on_response_complete()
        if is_last and self._client_done.is_set():
            self.transport.close()

    def handle_websocket_upgrade(self) -> None:
        """Leave the connection to another protocol."""
        self._is_upgraded = True
        self._unset_timer()
        super().handle_websocket_upgrade()

    def data_received(self, data: bytes) -> None:
        """Take what came, and wait for the rest only so long."""
        super().data_received(data)
        if self._is_upgraded:
            return
        if self._awaits is None and self._is_idle:  # empty lines are no request, but no silence either
            self._await(self.head_s, self._head_is_due)
        if (
            self._awaits is not None and self._timer is None
        ):  # most requests come in one piece: no timer for them
            self._timer = self.loop.call_later(*self._awaits)

    def on_message_begin(self) -> None:
        """Begin a request."""
        super().on_message_begin()
        more: dict[str, Any] = {"abort": self.transport.abort, "client_done": self._tell}
        self.scope.update(more)  # type: ignore[typeddict-item]
        self._await(self.head_s, self._head_is_due)

    def on_headers_complete(self) -> None:
        """Begin its body."""
        super().on_headers_complete()
        self._read = 0
        self._await(self.body_s, self._body_is_due)

    def on_body(self, body: bytes) -> None:
        """Count what is read of it."""
        self._read += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """End the request."""
        self._unset_timer()
        super().on_message_complete()

    def _await(self, seconds: float, strike: Callable[[], None]) -> None:
        self._unset_timer()
        self._awaits = (seconds, strike)

    def _head_is_due(self) -> None:
        if self._is_idle:
            self.transport.write(_REFUSAL)
            self.transport.close()
        else:  # it is the head of a next request: the reply to this one goes first
            self._timer = self.loop.call_later(self.head_s, self._head_is_due)

    def _body_is_due(self) -> None:
        if (
            self._read < self.body_bytes and not self.flow.read_paused
        ):  # else it is we who keep the client waiting
            if not self.cycle.response_started:
                self.transport.write(_REFUSAL)
            self.transport.close()
        else:
            self._read = 0
            self._timer = self.loop.call_later(self.body_s, self._body_is_due)

    def _unset_timer(self) -> None:
        self._awaits = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class Http:
    """An HTTP server on a socket that listens."""

    def __init__(self, app: ASGIApp, listener: socket.socket, *, has_websockets: bool = False) -> None:
        self._listener: Final = listener
        self._server: Final = _Uvicorn(
            uvicorn.Config(
                app,
                http=Connection,
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
