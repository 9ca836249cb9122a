"""A pool of real processes that run tests/support/toy_worker.py."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TypeAlias
from uuid import UUID, uuid4

import anyio
import msgspec
from anyio.abc import TaskGroup

from matins.domain.frames import Frame
from matins.workers.flight import Outcome
from matins.workers.pool import Pool
from matins.workers.protocol import Execute

ROOT = Path(__file__).parents[2]


class Running:
    """A pool of toy workers, and what happened to it."""

    def __init__(self, pool: Pool, code: Path) -> None:
        self.pool = pool
        self.code = code
        self.spawned: list[int] = []
        self.exited: list[int] = []
        self.graphs: list[bytes] = []
        self.group: TaskGroup

    @property
    def alive(self) -> set[int]:
        return set(self.spawned) - set(self.exited)

    async def execute(
        self,
        function: str,
        argument: object,
        *,
        run_id: UUID | None = None,
        on_frames: Callable[[list[Frame]], Awaitable[None]] | None = None,
        frames: list[Frame] | None = None,
    ) -> Outcome:
        """Run a function of the toy worker as soon as a lane is free."""
        while (reservation := self.pool.reserve()) is None:
            await self.pool.changed()

        async def collect(batch: list[Frame]) -> None:
            if frames is not None:
                frames.extend(batch)

        kwargs = msgspec.json.encode([function, argument])
        order = Execute(run_id or uuid4(), uuid4(), 1, uuid4(), kwargs, b"{}")
        return await self.pool.execute(reservation, order, on_frames or collect)

    async def until(self, holds: Callable[[], bool]) -> None:
        await until(holds)


async def until(holds: Callable[[], bool]) -> None:
    """Wait for what only shows from outside: processes coming and going, files, octets."""
    while not holds():  # noqa: ASYNC110 - nobody could set an event
        await anyio.sleep(0.005)


RunPool: TypeAlias = Callable[..., AbstractAsyncContextManager[Running]]
