from __future__ import annotations

import statistics
import time
from pathlib import Path

import anyio
import pytest

from matins.domain.frames import Frame
from matins.workers import process
from matins.workers.flight import Outcome
from matins.workers.protocol import Settled
from tests.support.pools import RunPool

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("function", ["block_until", "hold_gil_until"])
async def test_a_worker_that_stands_still_holds_up_no_call_and_no_new_run(
    run_pool: RunPool, tmp_path: Path, function: str
) -> None:
    gate = tmp_path / "gate"
    async with run_pool(surplus_s=0.1, silent_s=process.SILENT_SECONDS) as running:
        outcomes: list[Outcome] = []
        runs: list[float] = []
        calls: list[float] = []
        with anyio.fail_after(60):
            await running.begin(function, str(gate), outcomes=outcomes)
            while len(runs) < 50 or len(running.spawned) < 3:  # until one is started in its stead
                began = time.monotonic()
                await running.settled("echo", 1)
                runs.append(time.monotonic() - began)
                began = time.monotonic()
                await running.pool.call("pid", b"", timeout_s=30)
                calls.append(time.monotonic() - began)
                await anyio.sleep(0.01)  # leaves the processor to the one that starts
            assert outcomes == [], "it stands still, and nothing waited for it"
            # The first ones are behind it, until its silence is noticed.
            assert statistics.median(runs) < 0.25
            assert statistics.median(calls) < 0.25
            gate.touch()
            await running.until(lambda: bool(outcomes))
            assert isinstance(outcomes[0], Settled)
            # It is back, so there is one too many, which goes.
            await running.until(lambda: len(running.alive) == 2)
            await running.until(lambda: running.pool.ready_count == 2)


async def test_calls_behind_one_that_blocks_are_asked_elsewhere_and_it_is_not(
    run_pool: RunPool, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"

    def takers() -> list[int]:
        return [int(path.suffix[1:]) for path in tmp_path.glob("gate.*")]

    async with run_pool(silent_s=0.5) as running:
        answers: list[int] = []

        async def block() -> None:
            await running.pool.call("block_until", bytes(gate), timeout_s=30)

        async def ask() -> None:
            answers.append(int(await running.pool.call("pid", b"", timeout_s=30)))

        with anyio.fail_after(30):
            async with anyio.create_task_group() as blocked:
                blocked.start_soon(block)
                await running.until(lambda: bool(takers()))
                async with anyio.create_task_group() as behind:
                    for _ in range(3):
                        behind.start_soon(ask)
                await ask()
                gate.touch()
        assert len(answers) == 4
        assert len(takers()) == 1
        assert takers()[0] not in answers


async def test_every_worker_standing_still_costs_a_bounded_number_of_processes(
    run_pool: RunPool, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    async with run_pool(lanes=1, silent_s=process.SILENT_SECONDS) as running:
        began: list[Frame] = []
        done: list[Outcome] = []

        async def run() -> None:
            done.append(await running.run("block_until", str(gate), frames=began))

        with anyio.fail_after(60):
            for _ in range(7):
                running.group.start_soon(run)
            await running.until(lambda: len(began) == 1 + 4)
            await anyio.sleep(process.STUCK_SECONDS + 0.5)  # now another one would be started for the last
            assert len(running.spawned) == 1 + 4
            assert done == []
            gate.touch()
            await running.until(lambda: len(done) == 7)


async def test_plain_load_starts_no_process(run_pool: RunPool) -> None:
    """Ten lanes that compute 0.2 s at a time: 2 s from beat to beat, but what they stream is heard."""
    async with run_pool(silent_s=1.5) as running:
        done: list[Settled] = []

        async def run() -> None:
            done.append(await running.settled("compute", 0.2))

        with anyio.fail_after(60):
            for _ in range(10):
                running.group.start_soon(run)
            while len(done) < 10:
                await running.pool.call("pid", b"", timeout_s=30)
                await anyio.sleep(0.01)
        assert len({settled.values for settled in done}) == 1, "all in one process"
        assert len(running.spawned) == 2


async def test_the_line_that_blocks_is_named_once(
    run_pool: RunPool, capfd: pytest.CaptureFixture[str]
) -> None:
    async with run_pool() as running:
        with anyio.fail_after(20):
            await running.settled("block", 2.5)
        said = capfd.readouterr().err.splitlines()
        lines = [line for line in said if "toy_worker.py:" in line and "function=block" in line]
        assert len(lines) == 1
