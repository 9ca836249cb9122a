from __future__ import annotations

import signal
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from uuid import uuid4

import anyio
import anyio.lowlevel
import msgspec
import pytest

from matins.domain.errors import Conflict, Error, GraphNotFound, Unavailable
from matins.domain.frames import Frame
from matins.domain.runs import StopReason
from matins.workers import process
from matins.workers.flight import Abandoned, Died, NotStarted, Outcome
from matins.workers.protocol import WINDOW_OCTETS, Settled
from tests.support.pools import RunPool

pytestmark = pytest.mark.anyio


async def test_a_run_streams_its_frames_in_order_and_settles(run_pool: RunPool) -> None:
    async with run_pool() as running:
        frames: list[Frame] = []
        with anyio.fail_after(20):
            outcome = await running.settled("echo", 500, frames=frames)
        assert outcome.outcome == "success"
        assert [int(frame.data) for frame in frames] == list(range(500))
        assert running.graphs == [b"first"]
        assert running.pool.free_lanes() == 10


async def test_what_user_code_raises_settles_the_run_and_leaves_the_worker(run_pool: RunPool) -> None:
    async with run_pool() as running:
        with anyio.fail_after(20):
            outcome = await running.settled("fail", "no such luck")
            assert outcome.outcome == "error"
            assert b"no such luck" in (outcome.error or b"")
            await running.settled("echo", 1)
        assert running.exited == []


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("exit_program", "SystemExit: so long"),
        ("cancel_itself", "The run was cancelled from within"),
    ],
)
async def test_a_run_that_leaves_its_program_or_its_task_is_an_error_and_its_sibling_goes_on(
    run_pool: RunPool, tmp_path: Path, function: str, message: str
) -> None:
    gate = tmp_path / "gate"
    async with run_pool() as running:
        frames: list[Frame] = []
        outcomes: list[Outcome] = []
        with anyio.fail_after(20):
            await running.begin("wait_until", str(gate), outcomes=outcomes)
            settled = await running.settled(function, "so long", frames=frames)
            error = {"error": "InternalError", "message": message}
            assert settled.outcome == "error"
            assert msgspec.json.decode(settled.error or b"") == error
            assert msgspec.json.decode(settled.reply) == {"__error__": error}
            assert [(frame.event, msgspec.json.decode(frame.data)) for frame in frames] == [("error", error)]
            gate.touch()
            await running.until(lambda: bool(outcomes))
            assert isinstance(outcomes[0], Settled)
            assert outcomes[0].outcome == "success"
        assert running.exited == []


@pytest.mark.parametrize("method", ["exit_program", "cancel_itself"])
async def test_a_call_that_leaves_its_program_or_its_task_is_answered_and_leaves_the_worker(
    run_pool: RunPool, method: str
) -> None:
    async with run_pool() as running:
        with anyio.fail_after(20):
            with pytest.raises(Error, match="Internal error") as opaque:
                await running.pool.call(method, b"", timeout_s=20)
            assert opaque.type is Error
            assert int(await running.pool.call("pid", b"", timeout_s=20)) in running.alive
        assert running.exited == []


async def test_no_more_than_the_lanes_can_be_reserved(run_pool: RunPool) -> None:
    async with run_pool(lanes=2) as running:
        first, second = running.pool.reserve(), running.pool.reserve()
        assert first is not None
        assert second is not None
        assert running.pool.reserve() is None
        first.release()
        first.release()
        assert running.pool.free_lanes() == 1


async def test_stop_ends_a_run_with_its_reason(run_pool: RunPool) -> None:
    async with run_pool() as running:
        run_id = uuid4()

        async def stop(_: list[Frame]) -> None:
            assert running.pool.stop((run_id, 1), StopReason.TIMEOUT)

        with anyio.fail_after(20):
            outcome = await running.run("sleep", 600, run_id=run_id, on_frames=stop)
        assert isinstance(outcome, Settled)
        assert (outcome.outcome, outcome.reason) == ("stopped", StopReason.TIMEOUT)
        assert not running.pool.stop((run_id, 1), StopReason.TIMEOUT)


async def test_a_stop_right_behind_the_order_keeps_it_from_starting(
    run_pool: RunPool, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    async with run_pool() as running:
        run_id = uuid4()
        frames: list[Frame] = []
        outcomes: list[Outcome] = []
        with anyio.fail_after(20):
            async with anyio.create_task_group() as group:
                # While the worker stands still both arrive in one batch.
                await running.begin("block_until", str(gate), group=group)

                async def execute() -> None:
                    outcomes.append(await running.execute("echo", 3, run_id=run_id, frames=frames))

                group.start_soon(execute)
                await anyio.lowlevel.checkpoint()
                assert running.pool.stop((run_id, 1), StopReason.INTERRUPT)
                for _ in range(3):  # turns of the loop: then both are written
                    await anyio.lowlevel.checkpoint()
                gate.touch()
        assert outcomes == [NotStarted()]
        assert frames == []


async def test_a_run_whose_caller_is_gone_is_stopped_and_frees_its_lane(run_pool: RunPool) -> None:
    async with run_pool() as running:
        with anyio.fail_after(20):
            async with anyio.create_task_group() as group:
                await running.begin("flood", 1_000_000, group=group)
                group.cancel_scope.cancel()
            await running.until(lambda: running.pool.free_lanes() == 10)
        assert running.exited == []


async def test_a_lane_that_swallows_its_cancellation_is_given_up_and_its_worker_replaced(
    run_pool: RunPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "STOP_SECONDS", 0.5)
    async with run_pool() as running:
        run_id = uuid4()
        worker = running.spawned[0]

        async def stop(_: list[Frame]) -> None:
            running.pool.stop((run_id, 1), StopReason.INTERRUPT)

        with anyio.fail_after(20):
            async with anyio.create_task_group() as sibling:
                await running.begin("sleep", 600, group=sibling)
                outcome = await running.run("stubborn", 600, run_id=run_id, on_frames=stop)
                assert outcome == Abandoned()
                assert worker in running.alive, "its sibling still runs there"
                sibling.cancel_scope.cancel()
            await running.until(lambda: worker in running.exited)
            await running.until(lambda: running.pool.ready_count == 2)


async def test_a_stopped_run_that_blocks_for_ever_is_killed_with_its_worker(
    run_pool: RunPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "STOP_SECONDS", 0.5)
    async with run_pool(silent_s=process.STUCK_SECONDS) as running:
        run_id = uuid4()
        outcomes: list[Outcome] = []
        with anyio.fail_after(20):
            async with anyio.create_task_group() as group:
                await running.begin("sleep", 600, outcomes=outcomes, group=group)
                await running.begin("block", 600, run_id=run_id, outcomes=outcomes, group=group)
                assert running.pool.stop((run_id, 1), StopReason.TIMEOUT)
            assert outcomes == [Abandoned(), Died(-signal.SIGKILL, companions=0)]
            await running.settled("echo", 1)


async def test_a_slow_consumer_holds_its_own_run_at_a_window_and_no_other(run_pool: RunPool) -> None:
    async with run_pool() as running:
        held = anyio.Event()
        sizes: list[int] = []

        async def slow(frames: list[Frame]) -> None:
            sizes.append(sum(len(frame.data) for frame in frames))
            await held.wait()

        with anyio.fail_after(60):
            async with anyio.create_task_group() as group:
                group.start_soon(partial(running.run, "flood", 20_000, on_frames=slow))
                await running.until(lambda: bool(sizes))
                for _ in range(20):  # the same worker meanwhile serves another run to its end
                    await running.settled("echo", 200)
                held.set()
        assert sum(sizes) == 20_000 * 1024
        assert max(sizes) <= WINDOW_OCTETS + 1024


async def test_drained_workers_finish_their_runs(run_pool: RunPool, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    async with run_pool() as running:
        outcomes: list[Outcome] = []
        old = running.alive
        with anyio.fail_after(20):
            await running.begin("wait_until", str(gate), outcomes=outcomes)
            await running.pool.reload()
            await running.until(lambda: len(old & running.alive) == 1)  # the other one had nothing to finish
            gate.touch()
            await running.until(lambda: bool(outcomes))
            assert isinstance(outcomes[0], Settled)
            assert outcomes[0].outcome == "success"
            await running.until(lambda: not old & running.alive)


async def test_calls_are_answered_and_refusals_keep_their_kind(run_pool: RunPool, tmp_path: Path) -> None:
    async with run_pool() as running:
        assert int(await running.pool.call("pid", b"", timeout_s=20)) in running.alive
        with pytest.raises(GraphNotFound, match="nothing"):
            await running.pool.call("unknown", b"", timeout_s=20)
        with pytest.raises(Conflict, match="busy"):
            await running.pool.call("update_state", b"", timeout_s=20)
        with pytest.raises(Error, match="Internal error") as opaque:
            await running.pool.call("no such method", b"", timeout_s=20)
        assert opaque.type is Error
        with pytest.raises(Unavailable):
            await running.pool.call("wait_until", bytes(tmp_path / "never"), timeout_s=0.1)


async def test_calls_go_to_a_process_without_runs(run_pool: RunPool) -> None:
    async with run_pool() as running:
        with anyio.fail_after(20):
            settled = await running.settled("echo", 1)
            await running.begin("sleep", 600)
            busy = int(settled.values or b"0")
            assert int(await running.pool.call("pid", b"", timeout_s=20)) != busy


async def test_a_lane_that_is_lent_can_be_had_and_is_one_again_afterwards(
    run_pool: RunPool, tmp_path: Path
) -> None:
    run_id, gate = uuid4(), tmp_path / "gate"
    async with run_pool(lanes=1) as running:
        pool = running.pool
        outcomes: list[Outcome] = []
        with anyio.fail_after(20):
            await running.begin("wait_until", str(gate), run_id=run_id, outcomes=outcomes)
            assert pool.reserve() is None
            for reasons in (1, 2):  # one lane, for however many reasons
                with ExitStack() as lent:
                    for _ in range(reasons):
                        lent.enter_context(pool.lent((run_id, 1)))
                    assert pool.free_lanes() == 1
                    await running.settled("echo", 1)
                assert pool.free_lanes() == 0
            with pool.lent((run_id, 1)):
                taken = pool.reserve()
                assert taken is not None
            assert pool.free_lanes() == 0  # one more than there are, for now
            taken.release()
            assert pool.free_lanes() == 0
            with pool.lent((run_id, 1)):
                gate.touch()
                await running.until(lambda: bool(outcomes))
                assert pool.free_lanes() == 1
            assert pool.free_lanes() == 1
            with pool.lent((run_id, 1)):  # it is over: nothing to lend
                assert pool.free_lanes() == 1


async def test_a_worker_is_in_use_as_long_as_runs_in_it_wait(run_pool: RunPool, tmp_path: Path) -> None:
    run_id, gate = uuid4(), tmp_path / "gate"
    async with run_pool(surplus_s=0.05) as running:
        pool = running.pool
        outcomes: list[Outcome] = []
        with anyio.fail_after(20), pool.lent((run_id, 1)):
            await running.begin("wait_until", str(gate), run_id=run_id, outcomes=outcomes)
            with pool.lent((run_id, 1)):
                [process] = [each for each in pool._processes() if each.flights]
                assert (process.in_use, process.is_idle) == (0, False)
                process.suspicion = 1
                assert process.is_quarantined  # what may end it, waits in it
                gate.touch()
                await running.until(lambda: bool(outcomes))
            assert process.is_idle
