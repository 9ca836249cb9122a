from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest

from matins.workers.pool import Pool
from matins.workers.process import Launch
from tests.support.pools import ROOT, Running, RunPool


@pytest.fixture(scope="session")
def anyio_backend() -> tuple[str, dict[str, bool]]:
    return "asyncio", {"use_uvloop": True}  # as the serving process


@pytest.fixture
def run_pool(tmp_path: Path) -> RunPool:
    @asynccontextmanager
    async def running(
        *, workers: int = 1, lanes: int = 10, surplus_s: float = 30.0
    ) -> AsyncIterator[Running]:
        code = tmp_path / "code"
        code.write_text("first")
        launch = Launch(code, lanes, {"PYTHONPATH": str(ROOT)}, main="tests.support.toy_worker")

        async def on_graphs(graphs: bytes) -> None:
            held.graphs.append(graphs)

        pool = Pool(
            launch,
            workers=workers,
            on_graphs=on_graphs,
            on_spawn=lambda pid: held.spawned.append(pid),  # noqa: PLW0108 - `held` comes later
            on_exit=lambda pid: held.exited.append(pid),  # noqa: PLW0108 - the same
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
