"""What the process boundary costs: orders, calls and events through real worker processes, without LangGraph.

    python bench/link.py

Each figure is the median of five rounds after one that is not counted.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any
from uuid import uuid4

import anyio
import msgspec

from matins import telemetry
from matins.domain.frames import Frame
from matins.workers.pool import Pool
from matins.workers.process import Launch
from matins.workers.protocol import Execute, Settled

ROOT = Path(__file__).parents[1]
ROUNDS = 5


async def main() -> None:
    with tempfile.NamedTemporaryFile("w") as code:
        code.write("{}")
        code.flush()
        launch = Launch(Path(code.name), 10, {"PYTHONPATH": str(ROOT)}, main="tests.support.toy_worker")
        pool = Pool(launch, workers=1, on_graphs=_ignore)
        async with anyio.create_task_group() as group:
            await group.start(pool.run)
            while pool.ready_count < 2:
                await pool.changed()
            await measure(pool)
            group.cancel_scope.cancel()


async def measure(pool: Pool) -> None:
    """Print the figures."""
    await report(
        "runs of one event, alone, ms each", lambda: timed(pool, 1, 500, "echo", 1), lambda s: s / 500 * 1000
    )
    await report(
        "runs of one event, 8 at once, runs/s", lambda: timed(pool, 8, 250, "echo", 1), lambda s: 2000 / s
    )
    await report("calls, 8 at once, calls/s", lambda: calls(pool, 8, 250), lambda s: 2000 / s)
    await report(
        "events, 50 a message, events/s", lambda: timed(pool, 1, 1, "batches", 200_000), lambda s: 200_000 / s
    )
    await report(
        "events, one a message, events/s", lambda: timed(pool, 1, 1, "echo", 50_000), lambda s: 50_000 / s
    )
    await report(
        "frames of 1 KiB, one a message, MiB/s",
        lambda: timed(pool, 1, 1, "flood", 50_000),
        lambda s: 48.83 / s,
    )


async def report(name: str, round_: Callable[[], Awaitable[float]], figure: Callable[[float], float]) -> None:
    await round_()
    figures = [figure(await round_()) for _ in range(ROUNDS)]
    print(f"{name:42} {statistics.median(figures):12,.2f}   ({min(figures):,.2f} to {max(figures):,.2f})")


async def timed(pool: Pool, at_once: int, each: int, function: str, argument: int) -> float:
    kwargs = msgspec.json.encode([function, argument])
    arrived = 0

    async def count(frames: list[Frame]) -> None:
        nonlocal arrived
        arrived += len(frames)

    async def run() -> None:
        for _ in range(each):
            while (reservation := pool.reserve()) is None:
                await pool.changed()
            order = Execute(uuid4(), uuid4(), 1, uuid4(), kwargs, b"{}")
            outcome = await pool.execute(reservation, order, count)
            assert isinstance(outcome, Settled), outcome
            assert outcome.outcome == "success", outcome

    seconds = await at(run, at_once)
    assert arrived == at_once * each * argument, f"{arrived} frames arrived"
    return seconds


async def calls(pool: Pool, at_once: int, each: int) -> float:
    async def run() -> None:
        for _ in range(each):
            assert int(await pool.call("pid", b"", timeout_s=5)) > 0

    return await at(run, at_once)


async def at(run: Callable[[], Coroutine[Any, Any, None]], at_once: int) -> float:
    started = time.perf_counter()
    async with anyio.create_task_group() as group:
        for _ in range(at_once):
            group.start_soon(run)
    return time.perf_counter() - started


async def _ignore(_: bytes) -> None:
    pass


if __name__ == "__main__":
    telemetry.configure(level="WARNING", as_json=False)
    print(f"{os.cpu_count()} cores")
    anyio.run(main, backend_options={"use_uvloop": True})
