"""The serving process as a child: it tells its parent of its workers, and does not outlive it."""

from __future__ import annotations

import json
import os
import signal
import socket
from contextlib import suppress
from typing import Final, NoReturn

import anyio
from anyio.abc import TaskStatus


class Parent:
    """The process that started this one: told about our workers, and missed when it is gone."""

    def __init__(self, control: socket.socket | None) -> None:
        self._control: Final = control
        self._workers: Final[set[int]] = set()

    def worker(self, pid: int) -> None:
        """Tell of a worker that was started; it leads a process group."""
        self._workers.add(pid)
        self.tell("worker", pid=pid)

    def worker_gone(self, pid: int) -> None:
        """Tell of a worker that is dead and buried."""
        self._workers.discard(pid)
        self.tell("worker_gone", pid=pid)

    def tell(self, kind: str, **facts: object) -> None:
        """Say something to the parent, one line of JSON."""
        if self._control is not None:
            try:
                self._control.sendall(json.dumps({"kind": kind, **facts}).encode() + b"\n")
            except OSError:
                self._vanish()  # nobody would restart us, and a successor may want our port

    async def run(self, *, task_status: TaskStatus[None]) -> None:
        """Vanish when the parent does: its death is not ours to outlive."""
        task_status.started()
        if self._control is None:
            return
        self._control.setblocking(False)
        while True:
            await anyio.wait_readable(self._control)
            try:
                if self._control.recv(4096) == b"":
                    self._vanish()
            except BlockingIOError:
                continue
            except OSError:
                self._vanish()

    def _vanish(self) -> NoReturn:
        """End at once, with the workers and whatever they have started."""
        for pid in self._workers:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, signal.SIGKILL)
        os._exit(1)
