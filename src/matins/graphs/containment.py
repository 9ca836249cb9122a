"""Keep SystemExit and KeyboardInterrupt of user code inside its task.

asyncio lets these two through its loop: a node that calls `sys.exit()` would end the worker and every run in
it. So each task of the loop is made with a coroutine that turns them into `Left`, an ordinary failure of that
task.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from types import TracebackType
from typing import Any


class Left(Exception):
    """User code raised SystemExit or KeyboardInterrupt: `original`."""

    def __init__(self, original: BaseException) -> None:
        super().__init__(str(original))
        self.original = original


def unwrapped(raised: BaseException) -> BaseException:
    """Give the exception that user code raised."""
    return raised.original if isinstance(raised, Left) else raised


def contain() -> None:
    """Contain the tasks that the running loop makes from now on. Calling it again changes nothing."""
    loop = asyncio.get_running_loop()
    if loop.get_task_factory() is not _make_task:
        loop.set_task_factory(_make_task)


def _make_task(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> asyncio.Task[Any]:
    return asyncio.Task(_Contained(coroutine), loop=loop, **options)


class _Contained(Coroutine[Any, Any, Any]):
    """A coroutine seen through: only the two exceptions change on their way out.

    No `async def` around it: that would leave the inner one "never awaited" when a task is cancelled
    unstarted.
    """

    __slots__ = ("_inner",)

    def __init__(self, inner: Coroutine[Any, Any, Any]) -> None:
        self._inner = inner

    def send(self, value: Any) -> Any:
        try:
            return self._inner.send(value)
        except (SystemExit, KeyboardInterrupt) as raised:
            raise Left(raised) from raised

    def throw(self, kind: Any, value: Any = None, _trace: TracebackType | None = None) -> Any:
        try:
            return self._inner.throw(kind if value is None else value)
        except (SystemExit, KeyboardInterrupt) as raised:
            raise Left(raised) from raised

    def close(self) -> None:
        self._inner.close()

    def __await__(self) -> Any:
        return self._inner.__await__()

    def __getattr__(self, name: str) -> Any:
        # cr_frame, cr_running, __qualname__ ...: what debuggers and anyio ask a coroutine.
        return getattr(self._inner, name)
