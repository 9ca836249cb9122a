from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest

from matins.workers import process
from matins.workers.pool import Pool
from matins.workers.process import Launch
from tests.support.pools import ROOT, Running, RunPool


@pytest.fixture(scope="session")
def anyio_backend() -> tuple[str, dict[str, bool]]:
    return "asyncio", {"use_uvloop": True}  # as the serving process


@pytest.fixture
def run_pool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunPool:
    """Give what runs a pool of toy workers.

    A worker is silent for `silent_s` before anything follows from it: long enough for a machine that stalls,
    unless a test is about silence.
    """

    @asynccontextmanager
    async def running(
        *, workers: int = 1, lanes: int = 10, surplus_s: float = 30.0, silent_s: float = 60.0
    ) -> AsyncIterator[Running]:
        monkeypatch.setattr(process, "STUCK_SECONDS", max(process.STUCK_SECONDS, silent_s))
        monkeypatch.setattr(process, "SILENT_SECONDS", silent_s)
        code = tmp_path / "code"
        code.write_text("first")
        launch = Launch(code, lanes, {"PYTHONPATH": str(ROOT)}, main="tests.support.toy_worker")

        async def on_graphs(graphs: bytes) -> None:
            held.graphs.append(graphs)

        def on_spawn(pid: int) -> None:
            held.spawned.append(pid)
            held.spawned_at.append(time.monotonic())

        pool = Pool(
            launch,
            workers=workers,
            on_graphs=on_graphs,
            on_spawn=on_spawn,
            on_exit=lambda pid: held.exited.append(pid),  # noqa: PLW0108 - `held` comes later
            surplus_s=surplus_s,
        )
        held = Running(pool, code)
        async with anyio.create_task_group() as held.group:
            with anyio.fail_after(20):
                await held.group.start(pool.run)
                await held.until(lambda: pool.ready_count == workers + 1)
            yield held
            held.group.cancel_scope.cancel()
        assert not held.alive, "the pool left processes behind"

    return running
