"""A webhook's receiver: a real HTTP server on a real port, which does with each request what a test wants.

with sinks.start() as sink:
    url = sink.url("/hook")
    sink.behaviour["/hook"] = 500
    [first] = sink.wait_for("/hook")
"""

from __future__ import annotations

import json
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar, Literal, TypeAlias

Behaviour: TypeAlias = int | Literal["hang", "drop", "redirect", "babble", "flood"]
"""A status to answer with; or what else to do: never answer, close the connection, send elsewhere, answer with what
is no HTTP, answer well but never come to an end."""


@dataclass(frozen=True)
class Received:
    """One request as it came in."""

    path: str
    headers: dict[str, str]
    raw: bytes

    @property
    def body(self) -> Any:
        return json.loads(self.raw)

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]


@dataclass
class Sink:
    """What came in, and what is done with it: `behaviour` by path, 200 where none is named."""

    port: int
    behaviour: dict[str, Behaviour] = field(default_factory=dict)
    received: list[Received] = field(default_factory=list)
    let_go: threading.Event = field(default_factory=threading.Event)
    _changed: threading.Condition = field(default_factory=threading.Condition)

    def url(self, path: str, *, host: str = "127.0.0.1", scheme: str = "http") -> str:
        return f"{scheme}://{host}:{self.port}{path}"

    def of(self, path: str) -> list[Received]:
        return [each for each in self.received if each.path == path]

    def wait_for(self, path: str, count: int = 1, *, timeout_s: float = 30) -> list[Received]:
        """Wait until that many requests came in; gives them, the oldest first."""
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while len(self.of(path)) < count:
                assert self._changed.wait(deadline - time.monotonic()), (
                    f"{len(self.of(path))} of {count} at {path}"
                )
            return self.of(path)

    def take(self, request: Received) -> Behaviour:
        with self._changed:
            self.received.append(request)
            self._changed.notify_all()
        return self.behaviour.get(request.path, 200)


class _Handler(BaseHTTPRequestHandler):
    sink: ClassVar[Sink]

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers.get("content-length", 0)))
        headers = {name.lower(): value for name, value in self.headers.items()}
        behaviour = self.sink.take(Received(self.path, headers, raw))
        match behaviour:
            case "hang":
                self.sink.let_go.wait(60)
            case "drop":
                self.connection.shutdown(socket.SHUT_RDWR)
            case "babble":
                self.wfile.write(b"220 secret banner\r\n")
            case "flood":
                self.send_response(200)
                self.end_headers()
                while not self.sink.let_go.is_set():
                    self.wfile.write(b"x" * 65536)
            case "redirect":
                self.send_response(302)
                self.send_header("location", self.sink.url("/elsewhere"))
                self.send_header("content-length", "0")
                self.end_headers()
            case _:
                self.send_response(behaviour)
                self.send_header("content-length", "6")
                self.end_headers()
                self.wfile.write(b"secret")

    def do_GET(self) -> None:
        """What a redirect that is followed becomes."""
        self.do_POST()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - as the base class has it
        """Say nothing."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no error."""


@contextmanager
def start(*, port: int = 0, tls: ssl.SSLContext | None = None) -> Iterator[Sink]:
    """Receive on a free port, or on that one, for the length of the block; with `tls` over HTTPS."""
    handler = type("Handler", (_Handler,), {})
    server = _Server(("127.0.0.1", port), handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    sink = Sink(server.server_address[1])
    handler.sink = sink  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield sink
    finally:
        sink.let_go.set()
        server.shutdown()
        thread.join()
        server.server_close()
