from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import anyio
import pytest

from matins.domain.errors import Unavailable
from matins.domain.frames import Frame
from matins.workers.flight import Died, Outcome
from matins.workers.protocol import Settled
from tests.support.pools import Running, RunPool, until

pytestmark = pytest.mark.anyio


async def _first_frame(
    running: Running, *, outcomes: list[Outcome], function: str, argument: object
) -> bytes:
    """Begin a run in the pool's group; give its first frame's data."""
    first: list[bytes] = []

    async def seen(frames: list[Frame]) -> None:
        first.append(frames[0].data)

    async def execute() -> None:
        outcomes.append(await running.execute(function, argument, on_frames=seen))

    running.group.start_soon(execute)
    await running.until(lambda: bool(first))
    return first[0]


async def test_a_killed_worker_reports_its_runs_at_once_and_the_desk_steps_in(run_pool: RunPool) -> None:
    async with run_pool() as running:
        outcomes: list[Outcome] = []
        with anyio.fail_after(20):
            for _ in range(3):
                await _first_frame(running, outcomes=outcomes, function="sleep", argument=600)
            settled = await running.execute("echo", 1)
            assert isinstance(settled, Settled)
            victim = int(settled.values or b"0")
            started = time.monotonic()
            os.kill(victim, signal.SIGKILL)
            await running.until(lambda: len(outcomes) == 3)
            noticed = time.monotonic() - started
            again = await running.execute("echo", 1)
            took_over = time.monotonic() - started
            assert outcomes == [Died(-signal.SIGKILL, companions=2)] * 3
            assert isinstance(again, Settled)
            assert int(again.values or b"0") != victim
            assert noticed < 0.25
            assert took_over < 0.5
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
            outcome = await running.execute(function, argument, frames=frames)
            assert outcome == died
            assert died.cause == cause
            assert len(frames) == 1, "what it sent before is not lost"
            assert isinstance(await running.execute("echo", 1), Settled)


async def test_the_children_of_a_dead_worker_are_dead_when_its_runs_are_reported(run_pool: RunPool) -> None:
    async with run_pool() as running:
        outcomes: list[Outcome] = []
        with anyio.fail_after(20):
            child = int(await _first_frame(running, outcomes=outcomes, function="spawn_child", argument=""))
            settled = await running.execute("echo", 1)
            assert isinstance(settled, Settled)
            os.kill(int(settled.values or b"0"), signal.SIGKILL)
            await running.until(lambda: bool(outcomes))
            await running.until(lambda: _is_gone(child))


async def test_a_read_survives_the_death_of_the_desk_and_a_write_is_not_repeated(run_pool: RunPool) -> None:
    async with run_pool() as running:
        with anyio.fail_after(20):
            desk = int(await running.pool.call("pid", b"", timeout_s=2))
            answers: list[int] = []

            async def read() -> None:
                answers.append(int(await running.pool.call("sleep", b"0.3", timeout_s=5)))

            running.group.start_soon(read)
            await anyio.sleep(0.1)
            os.kill(desk, signal.SIGKILL)
            await running.until(lambda: bool(answers))
            assert answers[0] != desk
            await running.until(lambda: running.pool.ready_count == 2)

            desk = int(await running.pool.call("pid", b"", timeout_s=2))
            async with anyio.create_task_group() as group:
                group.start_soon(_kill_soon, desk)
                with pytest.raises(Unavailable):
                    await running.pool.call("update_state", b"", timeout_s=5)


async def test_a_call_that_kills_takes_two_processes_and_no_more(run_pool: RunPool) -> None:
    async with run_pool() as running:
        with anyio.fail_after(20):
            with pytest.raises(Unavailable):
                await running.pool.call("die", b"", timeout_s=5)
            assert len(running.exited) == 2
            await running.until(lambda: running.pool.ready_count == 2)


async def test_nothing_survives_the_serving_process(run_pool: RunPool) -> None:
    async with run_pool() as running:
        outcomes: list[Outcome] = []
        with anyio.fail_after(20):
            child = int(await _first_frame(running, outcomes=outcomes, function="spawn_child", argument=""))
            workers = running.alive
        running.group.cancel_scope.cancel()
    assert all(_is_gone(pid) for pid in workers)
    with anyio.fail_after(5):
        await until(lambda: _is_gone(child))


async def _kill_soon(pid: int) -> None:
    await anyio.sleep(0.1)
    os.kill(pid, signal.SIGKILL)


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
            asked = await pool.call("pid", b"", timeout_s=5)
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
