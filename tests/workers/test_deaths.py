from __future__ import annotations

import os
import signal
from pathlib import Path

import anyio
import pytest

from matins.domain.errors import Unavailable
from matins.domain.frames import Frame
from matins.workers.flight import Died, Outcome
from tests.support.pools import RunPool, until

pytestmark = pytest.mark.anyio


async def test_a_killed_worker_reports_its_runs_at_once_and_the_desk_steps_in(run_pool: RunPool) -> None:
    async with run_pool() as running:
        outcomes: list[Outcome] = []
        with anyio.fail_after(20):
            for _ in range(3):
                await running.begin("sleep", 600, outcomes=outcomes)
            settled = await running.settled("echo", 1)
            victim = int(settled.values or b"0")
            os.kill(victim, signal.SIGKILL)
            with anyio.fail_after(5):  # nothing else is done about a worker that is silent for 60 s
                await running.until(lambda: len(outcomes) == 3)
                again = await running.settled("echo", 1)
            assert outcomes == [Died(-signal.SIGKILL, companions=2)] * 3
            assert int(again.values or b"0") != victim
            await running.until(lambda: running.pool.ready_count == 2)


@pytest.mark.parametrize(
    ("function", "argument", "died", "cause"),
    [
        ("leave", 3, Died(3, companions=0), "exit code 3"),
        ("leave", 0, Died(0, companions=0), "exit code 0"),
        ("segfault", None, Died(-signal.SIGSEGV, companions=0), "SIGSEGV"),
    ],
)
async def test_a_worker_that_ends_itself_is_a_death_with_its_cause(
    run_pool: RunPool, function: str, argument: object, died: Died, cause: str
) -> None:
    async with run_pool() as running:
        frames: list[Frame] = []
        with anyio.fail_after(20):
            outcome = await running.run(function, argument, frames=frames)
            assert outcome == died
            assert died.cause == cause
            assert len(frames) == 1, "what it sent before is not lost"
            await running.settled("echo", 1)


async def test_the_children_of_a_dead_worker_are_dead_when_its_runs_are_reported(run_pool: RunPool) -> None:
    async with run_pool() as running:
        outcomes: list[Outcome] = []
        with anyio.fail_after(20):
            child = int(await running.begin("spawn_child", "", outcomes=outcomes))
            settled = await running.settled("echo", 1)
            os.kill(int(settled.values or b"0"), signal.SIGKILL)
            await running.until(lambda: bool(outcomes))
            await running.until(lambda: _is_gone(child))


async def test_a_read_survives_the_death_of_the_desk(run_pool: RunPool, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    async with run_pool() as running:
        answers: list[int] = []

        async def read() -> None:
            answers.append(int(await running.pool.call("wait_until", bytes(gate), timeout_s=20)))

        with anyio.fail_after(20):
            running.group.start_soon(read)
            await running.until(lambda: len(_takers(gate)) == 1)
            (desk,) = _takers(gate)
            os.kill(desk, signal.SIGKILL)
            await running.until(lambda: len(_takers(gate)) == 2)
            gate.touch()
            await running.until(lambda: bool(answers))
            assert {desk, *answers} == _takers(gate)
            await running.until(lambda: running.pool.ready_count == 2)


async def test_a_write_is_not_repeated_when_the_desk_dies(run_pool: RunPool, tmp_path: Path) -> None:
    gate = tmp_path / "gate"

    async def kill() -> None:
        await until(lambda: len(_takers(gate)) == 1)
        (desk,) = _takers(gate)
        os.kill(desk, signal.SIGKILL)

    async with run_pool() as running:
        with anyio.fail_after(20):
            running.group.start_soon(kill)
            with pytest.raises(Unavailable):
                await running.pool.call("update_state", bytes(gate), timeout_s=20)
            await running.until(lambda: running.pool.ready_count == 2)
    assert len(_takers(gate)) == 1


async def test_a_call_that_kills_takes_two_processes_and_no_more(run_pool: RunPool) -> None:
    async with run_pool() as running:
        with anyio.fail_after(20):
            with pytest.raises(Unavailable):
                await running.pool.call("die", b"", timeout_s=20)
            assert len(running.exited) == 2
            await running.until(lambda: running.pool.ready_count == 2)


async def test_nothing_survives_the_serving_process(run_pool: RunPool) -> None:
    async with run_pool() as running:
        with anyio.fail_after(20):
            child = int(await running.begin("spawn_child", ""))
            workers = running.alive
        running.group.cancel_scope.cancel()
    assert all(_is_gone(pid) for pid in workers)
    with anyio.fail_after(20):
        await until(lambda: _is_gone(child))


def _takers(gate: Path) -> set[int]:
    """The processes that took the call with this gate."""
    return {int(path.suffix[1:]) for path in gate.parent.glob(f"{gate.name}.*")}


def _is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()[0] == "Z"
    except FileNotFoundError:
        return True


async def test_what_may_end_its_process_runs_apart_and_leaves_one_to_the_rest(run_pool: RunPool) -> None:
    async with run_pool() as running:
        pool = running.pool
        with anyio.fail_after(20):
            await running.until(lambda: pool.ready_count == 2)
            suspect, companion = pool.reserve(crashes=1), pool.reserve(crashes=1)
            assert suspect is not None
            assert companion is not None
            clean = pool.reserve()
            assert clean is not None
            assert len({each.process for each in (suspect, companion)}) == 1
            assert clean.process is not suspect.process
            assert pool.ready_count == 1
            assert pool.reserve(crashes=2) is None
            asked = await pool.call("pid", b"", timeout_s=20)
            assert clean.process is not None
            assert int(asked) == clean.process.pid
            await running.until(lambda: pool.ready_count == 2)  # another one steps in for what is apart
            alone = pool.reserve(crashes=2)
            assert alone is not None
            assert alone.process not in (suspect.process, clean.process)
            assert pool.reserve(crashes=3) is None
            for reservation in (suspect, companion, clean, alone):
                reservation.release()
            assert pool.free_lanes() == 10
            assert pool.ready_count >= 3
