"""Execute orders and what becomes of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

import anyio
import msgspec

from matins.domain.frames import Frame
from matins.domain.runs import Held, RunKwargs
from matins.graphs.invoke import Stopping, execute
from matins.graphs.registry import Registry
from matins.storage.pool import Pool
from matins.workers.protocol import Execute, Settled

ASSISTANT = UUID(int=7)


def order(held: Held, graph_id: str, *, metadata: dict[str, Any] | None = None, **kwargs: Any) -> Execute:
    return Execute(
        run_id=held.run_id,
        thread_id=held.thread_id,
        attempt=held.attempt,
        assistant_id=ASSISTANT,
        kwargs=msgspec.json.encode(RunKwargs(graph_id=graph_id, **kwargs)),
        metadata=msgspec.json.encode(metadata or {}),
        offered_at=0.0,
    )


async def claim(pool: Pool, *, thread_id: UUID | None = None, attempt: int = 1) -> Held:
    """Insert a run that this attempt holds, on a new thread or on one that has no running run."""
    thread, run = thread_id or uuid4(), uuid4()
    async with pool.connection() as conn:
        await conn.execute(
            "INSERT INTO matins.thread (thread_id, status) VALUES ($1, 'busy') ON CONFLICT DO NOTHING", thread
        )
        await conn.execute(
            "UPDATE matins.run SET status = 'success', node_id = NULL, ended_at = now()"
            " WHERE thread_id = $1 AND status = 'running'",
            thread,
        )
        await conn.execute(
            "INSERT INTO matins.run (run_id, thread_id, assistant_id, kwargs, status, attempt, node_id)"
            " VALUES ($1, $2, $3, '{}', 'running', $4, $5)",
            run, thread, ASSISTANT, attempt, uuid4(),
        )  # fmt: skip
    return Held(run, thread, attempt)  # type: ignore[arg-type]


async def finish(pool: Pool, held: Held) -> None:
    """End the run in the database."""
    async with pool.connection() as conn:
        await conn.execute(
            "UPDATE matins.run SET status = 'success', node_id = NULL, ended_at = now() WHERE run_id = $1",
            held.run_id,
        )


@dataclass
class Lane:
    """Executes orders as a worker's lane would; keeps the frames, in order."""

    registry: Registry
    pool: Pool
    stop: Stopping = field(default_factory=Stopping)
    batches: list[list[Frame]] = field(default_factory=list)
    on_frame: Callable[[Frame], None] | None = None
    gate: anyio.Event | None = None

    @property
    def frames(self) -> list[tuple[str, Any]]:
        return [(frame.event, msgspec.json.decode(frame.data)) for batch in self.batches for frame in batch]

    @property
    def events(self) -> list[str]:
        return [frame.event for batch in self.batches for frame in batch]

    async def _emit(self, batch: list[Frame]) -> None:
        if self.gate is not None:
            await self.gate.wait()
        self.batches.append(batch)
        for frame in batch:
            if self.on_frame:
                self.on_frame(frame)

    async def execute(self, order: Execute) -> Settled:
        return await execute(order, registry=self.registry, pool=self.pool, emit=self._emit, stop=self.stop)
