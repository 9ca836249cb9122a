"""The gate at which every step of a toy graph waits: who stands there, who is let through, who has gone away.

A node knocks over a connection of its own and waits for a line; a node that is cancelled, or whose process dies, hangs
up. So both sides wait for what happens, never for a time.
"""

from __future__ import annotations

import json
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

PATIENCE_SECONDS: Final = 60.0
"""How long a knock may take: a worker may have to be started for it, on a slow machine."""

HELD: Final = "held"
"""A step that an open gate does not let through."""


@dataclass(eq=False, slots=True)
class Knock:
    """An attempt of a run at a step. `is_open`: it was let through; `is_gone`: its node has ended."""

    thread_id: str
    run_id: str
    attempt: int
    pid: int
    step: str
    _line: socket.socket = field(repr=False)
    is_open: bool = False
    is_gone: bool = False

    @property
    def waits(self) -> bool:
        return not (self.is_open or self.is_gone)


class Gate:
    """Everybody who ever knocked, in order. Make one with `gate`."""

    def __init__(self) -> None:
        self.knocks: list[Knock] = []
        self._lets_all = False
        self._changed = threading.Condition()  # on a lock that its holder may take again

    def waiting(self, thread_id: str) -> list[Knock]:
        """Those of a thread who stand there now."""
        with self._changed:
            return [knock for knock in self.knocks if knock.thread_id == thread_id and knock.waits]

    def until(self, holds: Callable[[], Any], *, what: str, patience_s: float = PATIENCE_SECONDS) -> Any:
        """Wait until something holds of those who knock; gives it."""
        with self._changed:
            found = None

            def look() -> Any:
                nonlocal found
                found = holds()
                return found

            assert self._changed.wait_for(look, patience_s), f"never came to the gate: {what}"
            return found

    def open(self, knock: Knock) -> None:
        """Let it through."""
        with self._changed:
            knock.is_open = True
        try:
            knock._line.sendall(b"go\n")
        except OSError:
            knock.is_gone = True  # it went away in the same moment

    @contextmanager
    def wide_open(self) -> Iterator[None]:
        """Let everybody through who is not HELD, for the length of the block."""
        self._lets_all = True
        try:
            yield
        finally:
            self._lets_all = False

    def forget(self) -> None:
        """Let everybody go, and forget who was here."""
        self.open_all()
        with self._changed:
            self.knocks.clear()

    def open_all(self) -> None:
        """Let through whoever waits."""
        for knock in [each for each in self.knocks if each.waits]:
            self.open(knock)

    def _attend(self, line: socket.socket) -> None:
        said = line.makefile("rb").readline()
        if not said:
            return
        knock = Knock(**json.loads(said), _line=line)
        with self._changed:
            self.knocks.append(knock)
            self._changed.notify_all()
        if self._lets_all and knock.step != HELD:
            self.open(knock)
        with suppress(OSError):
            line.recv(1)  # until it hangs up
        with self._changed:
            knock.is_gone = True
            self._changed.notify_all()


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    request_queue_size = 1024


@contextmanager
def gate(path: Path) -> Iterator[Gate]:
    """Keep a gate at that path for the length of the block."""
    kept = Gate()

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            kept._attend(self.request)

    with _Server(str(path), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield kept
        finally:
            kept.open_all()
            server.shutdown()
            thread.join()
