"""A pool of real processes that run tests/support/toy_worker.py."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TypeAlias
from uuid import UUID, uuid4

import anyio
import anyio.lowlevel
import msgspec
from anyio.abc import TaskGroup

from matins.domain.frames import Frame
from matins.workers.flight import NotStarted, OnFrames, Outcome
from matins.workers.pool import Pool
from matins.workers.protocol import Execute, Settled

ROOT = Path(__file__).parents[2]


class Running:
    """A pool of toy workers, and what happened to it."""

    def __init__(self, pool: Pool, code: Path) -> None:
        self.pool = pool
        self.code = code
        self.spawned: list[int] = []
        self.spawned_at: list[float] = []
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
        on_frames: OnFrames | None = None,
        frames: list[Frame] | None = None,
    ) -> Outcome:
        """Offer a function of the toy worker to a lane as soon as one is free."""
        while (reservation := self.pool.reserve()) is None:
            with anyio.move_on_after(0.05):  # that another one fell silent is no news, and frees a lane too
                await self.pool.changed()

        async def collect(batch: list[Frame]) -> None:
            if frames is not None:
                frames.extend(batch)

        kwargs = msgspec.json.encode([function, argument])
        order = Execute(run_id or uuid4(), uuid4(), 1, uuid4(), kwargs, b"{}")
        return await self.pool.execute(reservation, order, on_frames or collect)

    async def run(
        self,
        function: str,
        argument: object,
        *,
        run_id: UUID | None = None,
        on_frames: OnFrames | None = None,
        frames: list[Frame] | None = None,
    ) -> Outcome:
        """Do as the engine does: a run that no lane took is offered again. A stalling machine refuses some."""
        while isinstance(
            outcome := await self.execute(
                function, argument, run_id=run_id, on_frames=on_frames, frames=frames
            ),
            NotStarted,
        ):
            await anyio.lowlevel.checkpoint()
        return outcome

    async def settled(self, function: str, argument: object, *, frames: list[Frame] | None = None) -> Settled:
        """Run a function that comes to its end."""
        outcome = await self.run(function, argument, frames=frames)
        assert isinstance(outcome, Settled), outcome
        return outcome

    async def begin(
        self,
        function: str,
        argument: object,
        *,
        run_id: UUID | None = None,
        outcomes: list[Outcome] | None = None,
        group: TaskGroup | None = None,
    ) -> bytes:
        """Start a run, in the pool's group if in no other, and give the data of its first frame."""
        began = anyio.Event()
        first: list[bytes] = []

        async def seen(frames: list[Frame]) -> None:
            first.append(frames[0].data)
            began.set()

        async def run() -> None:
            outcome = await self.run(function, argument, run_id=run_id, on_frames=seen)
            if outcomes is not None:
                outcomes.append(outcome)

        (group or self.group).start_soon(run)
        await began.wait()
        return first[0]

    async def until(self, holds: Callable[[], bool]) -> None:
        await until(holds)


async def until(holds: Callable[[], bool]) -> None:
    """Wait for what only shows from outside: processes coming and going, files, octets."""
    while not holds():  # noqa: ASYNC110 - nobody could set an event
        await anyio.sleep(0.005)


RunPool: TypeAlias = Callable[..., AbstractAsyncContextManager[Running]]
