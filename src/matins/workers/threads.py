"""The threads of a worker, for what users' code does outside of the event loop."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager


class Threads(ThreadPoolExecutor):
    """An executor that makes up for threads that wait for runs.

    A run may wait in a thread for another one, which may need a thread too: runs that are nested deeply enough would
    wait for each other for ever.
    """

    def __init__(self, most: int) -> None:
        super().__init__(most, thread_name_prefix="matins")
        self._counting = threading.Lock()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Have one thread more for the length of the block, if there is work for it."""
        self._count(+1)
        try:
            # The executor counts a thread as idle when it has done something, also when more is in line: counted so, it
            # would keep another from being started.
            while self._idle_semaphore.acquire(timeout=0):
                pass
            self.submit(
                _nothing
            )  # a thread is started when something is submitted; what is in line goes first
            yield
        finally:
            self._count(-1)

    def _count(self, by: int) -> None:
        with self._counting:
            self._max_workers += by


def _nothing() -> None: ...
