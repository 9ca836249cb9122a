from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from matins.workers.pool import GraphsFailed, Pool
from matins.workers.process import Launch
from tests.support.pools import ROOT, RunPool, until

pytestmark = pytest.mark.anyio


async def test_new_code_takes_over_only_when_all_of_it_is_ready(run_pool: RunPool) -> None:
    async with run_pool() as running:
        old = running.alive
        running.code.write_text("second")
        with anyio.fail_after(20):
            async with anyio.create_task_group() as group:
                group.start_soon(running.pool.reload)
                while len(running.graphs) == 1:
                    await running.settled("echo", 1)  # runs and calls are done meanwhile
                    await running.pool.call("pid", b"", timeout_s=20)
            assert running.graphs == [b"first", b"second"]
            assert running.pool.graphs == b"second"
            assert running.pool.ready_count == 2
            await running.until(lambda: not old & running.alive)
            await running.settled("echo", 1)


async def test_code_that_does_not_import_keeps_the_last_good_one_and_says_why(run_pool: RunPool) -> None:
    async with run_pool() as running:
        old = running.alive
        running.code.write_text("broken: line 3")
        with anyio.fail_after(20):
            await running.pool.reload()
            assert running.pool.failure is not None
            assert running.pool.failure.message == "broken: line 3"
            assert running.pool.graphs == b"first"
            await running.until(lambda: running.alive == old)
            assert len(running.spawned) == 3, "one process was enough to see it"
            await running.settled("echo", 1)
            running.code.write_text("third")
            await running.pool.reload()
        assert running.pool.failure is None
        assert running.pool.graphs == b"third"


async def test_a_reload_that_is_given_up_leaves_the_present_generation(run_pool: RunPool) -> None:
    async with run_pool() as running:
        old = running.alive
        with anyio.fail_after(20):
            async with anyio.create_task_group() as group:
                group.start_soon(running.pool.reload)
                await running.until(lambda: len(running.spawned) == 3)
                group.cancel_scope.cancel()
            await running.until(lambda: running.alive == old)
            await running.settled("echo", 1)
            assert running.graphs == [b"first"]


async def test_graphs_that_never_imported_end_the_pool_with_the_reason(tmp_path: Path) -> None:
    code = tmp_path / "code"
    code.write_text("broken: no such file")
    launch = Launch(code, 1, {"PYTHONPATH": str(ROOT)}, main="tests.support.toy_worker")

    async def on_graphs(_: bytes) -> None:
        pytest.fail("there are none")

    pool = Pool(launch, workers=1, on_graphs=on_graphs)
    with anyio.fail_after(20):
        with pytest.raises(BaseExceptionGroup) as raised:
            async with anyio.create_task_group() as group:
                await group.start(pool.run)
    assert raised.group_contains(GraphsFailed, match="broken: no such file")


async def test_workers_that_die_before_they_are_ready_are_started_ever_more_slowly(
    run_pool: RunPool,
) -> None:
    async with run_pool() as running:
        running.code.write_text("crash")
        with anyio.fail_after(30):
            await running.run("leave", 1)
            await running.until(lambda: len(running.spawned) == 2 + 3)
            third, fourth, fifth = running.spawned_at[2:]
            assert fourth - third > 0.5
            assert fifth - fourth > 1
            await running.settled("echo", 1)


async def test_a_process_that_fails_while_the_first_is_taken_over_is_replaced(tmp_path: Path) -> None:
    code = tmp_path / "code"
    code.write_text(f"first come, {tmp_path / 'gate'}")
    launch = Launch(code, 1, {"PYTHONPATH": str(ROOT)}, main="tests.support.toy_worker")
    exited: list[int] = []

    async def on_graphs(_: bytes) -> None:
        (tmp_path / "gate.go").touch()  # the second one fails now
        await until(lambda: len(exited) == 1)
        code.write_text("good")

    pool = Pool(launch, workers=1, on_graphs=on_graphs, on_exit=exited.append)
    with anyio.fail_after(20):
        async with anyio.create_task_group() as group:
            await group.start(pool.run)
            await until(lambda: pool.ready_count == 2)
            group.cancel_scope.cancel()


async def test_a_process_that_fails_and_hangs_is_killed_and_a_mended_one_takes_its_place(
    run_pool: RunPool,
) -> None:
    async with run_pool() as running:
        with anyio.fail_after(30):
            running.code.write_text("broken, and hangs")
            await running.run("leave", 1)
            await running.until(lambda: len(running.exited) == 2)
            assert running.pool.ready_count == 1
            running.code.write_text("mended")
            await running.until(lambda: running.pool.ready_count == 2)
