"""Streams between nodes: followed here, carried there."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, TypeVar

import anyio
import pytest

from matins.domain.access import EVERYONE
from matins.domain.frames import Frame
from matins.domain.ids import RunId, ThreadId, uuid7
from matins.domain.runs import Run, RunStatus
from matins.engine.requests import RunRequest
from matins.engine.runs import Interest
from matins.engine.streams.following import Following
from matins.engine.streams.watch import LOOK_SECONDS, Watch
from matins.storage import queue, threads
from matins.storage.pool import Conn, Pool
from tests.support import databases
from tests.support.engine import Node, node, running, until

pytestmark = pytest.mark.anyio

T = TypeVar("T")
CONFIG = Path(__file__).parent / "graphs" / "langgraph.json"
PATIENCE_SECONDS = 30


@pytest.fixture(scope="module")
def shared(postgres: str) -> Iterator[str]:
    with databases.database(postgres) as dsn:
        yield dsn


@pytest.fixture(scope="module", params=[True, False], ids=["heard", "lost"])
async def nodes(request: pytest.FixtureRequest, shared: str) -> AsyncIterator[tuple[Node, Node]]:
    """Two nodes, of which the second carries all runs; with every NOTIFY heard, and with every one lost."""
    async with AsyncExitStack() as stack:
        here = await stack.enter_async_context(node(shared, CONFIG, hears=request.param))
        there = await stack.enter_async_context(node(shared, CONFIG, hears=request.param))
        here.runs.is_draining = here.claimer.is_draining = True
        yield here, there


@pytest.fixture
def gate(tmp_path: Path) -> Callable[[int], None]:
    """Let the steps of a run go on, up to that number."""

    def allow(number: int) -> None:
        (tmp_path / "next").write_text(str(number))
        (tmp_path / "next").rename(tmp_path / "allowed")  # never seen half written

    (tmp_path / "started").touch()
    allow(0)
    return allow


async def submit(
    at: Node,
    graph: str,
    *,
    thread_id: ThreadId | None = None,
    interest: Interest = Interest.NONE,
    run_id: RunId | None = None,
    **asked: Any,
) -> Run:
    return await at.runs.submit(
        RunRequest(assistant_id=graph, **{"input": {"done": 0}, **asked}),
        run_id=run_id or RunId(uuid7()),
        thread_id=thread_id,
        scope=EVERYONE,
        interest=interest,
    )


class Reader:
    """Collects what a follower is given."""

    def __init__(self) -> None:
        self.frames: list[Frame] = []
        self.has_ended = False
        self._more = anyio.Event()

    async def read(self, batches: AsyncIterator[list[Frame] | None]) -> None:
        async for frames in batches:
            self.frames += frames or []
            self._changed()
        self.has_ended = True
        self._changed()

    def _changed(self) -> None:
        self._more.set()
        self._more = anyio.Event()

    async def until(self, holds: Callable[[], bool]) -> None:
        with anyio.fail_after(PATIENCE_SECONDS):
            while not holds():
                await self._more.wait()

    async def to_the_end(self) -> list[Frame]:
        await self.until(lambda: self.has_ended)
        return self.frames

    @property
    def said(self) -> list[tuple[str, Any]]:
        return [(frame.event, json.loads(frame.data)) for frame in self.frames]


async def step(folder: Path, number: int) -> None:
    """Wait until a step has begun."""
    with anyio.fail_after(PATIENCE_SECONDS):
        while str(number) not in (folder / "started").read_text().split():  # noqa: ASYNC110 - another process's
            await anyio.sleep(0.01)


async def test_what_is_submitted_here_and_carried_there_is_seen_from_its_beginning(
    nodes: tuple[Node, Node],
) -> None:
    here, _ = nodes
    for temporary in (True, False):
        run_id = RunId(uuid7())
        thread_id = None if temporary else await here.thread()
        with here.hub.subscribe(run_id) as subscription, anyio.fail_after(PATIENCE_SECONDS):
            run = await submit(
                here,
                "pair",
                run_id=run_id,
                thread_id=thread_id,
                interest=Interest.EVENTS,
                stream_mode=["updates"],
            )
            assert run.status is RunStatus.PENDING
            reader = Reader()
            await reader.read(here.following.follow(run, subscription, is_new=True))
        assert reader.said == [
            ("metadata", {"run_id": str(run_id), "attempt": 1}),
            ("updates", {"first": {"done": 1}}),
            ("updates", {"second": {"done": 2}}),
        ]


async def test_a_run_without_a_thread_that_is_awaited_here_and_carried_there_is_answered(
    nodes: tuple[Node, Node],
) -> None:
    here, _ = nodes
    run_id = RunId(uuid7())
    with here.hub.subscribe(run_id, frames=False) as subscription, anyio.fail_after(PATIENCE_SECONDS):
        run = await submit(here, "pair", run_id=run_id, interest=Interest.REPLY)
        replies = [reply async for reply in here.following.reply(run, subscription) if reply is not None]
    assert [json.loads(reply)["done"] for reply in replies] == [2]
    # Its thread goes all the same, when it was there for long enough.
    assert await here.value("SELECT count(*) FROM matins.stream_event WHERE run_id = $1", run_id) <= 1
    await here.fetch(
        "UPDATE matins.run SET ended_at = ended_at - interval '1 hour' WHERE run_id = $1", run_id
    )
    await here.pool.run(lambda conn: queue.reap_left_behind(conn, limit=10))
    assert await here.get(run_id) is None
    thread = await here.pool.run(lambda conn: threads.get(conn, run.thread_id, scope=EVERYONE))
    assert thread is None


async def test_who_comes_later_sees_what_comes_after_it_came(
    nodes: tuple[Node, Node], gate: Callable[[int], None], tmp_path: Path
) -> None:
    here, there = nodes
    run = await submit(
        there,
        "steps",
        thread_id=await there.thread(),
        input={"folder": str(tmp_path), "steps": 3},
        stream_mode=["updates"],
    )
    gate(1)
    await step(tmp_path, 2)
    reader = Reader()
    with here.hub.subscribe(run.run_id) as subscription:
        async with anyio.create_task_group() as group:
            group.start_soon(reader.read, here.following.follow(run, subscription))
            [held] = [held for held in there.lanes.held if held.run_id == run.run_id]

            async def is_kept() -> bool:
                return there.lanes.keeps(held)

            await until(is_kept, PATIENCE_SECONDS)
            gate(3)
            await reader.to_the_end()
    assert reader.said == [("updates", {"step": {"done": number}}) for number in (2, 3)]


async def test_a_resumable_run_is_joined_anywhere_after_any_of_its_events(
    nodes: tuple[Node, Node], gate: Callable[[int], None], tmp_path: Path
) -> None:
    here, there = nodes
    run = await submit(
        there,
        "steps",
        thread_id=await there.thread(),
        input={"folder": str(tmp_path), "steps": 4},
        stream_mode=["updates"],
        stream_resumable=True,
    )
    gate(2)
    await step(tmp_path, 3)
    readers = {after: Reader() for after in (0, 2, 10**9, None)}
    async with AsyncExitStack() as stack, anyio.create_task_group() as group:
        for after, reader in readers.items():
            subscription = stack.enter_context(here.hub.subscribe(run.run_id))
            group.start_soon(reader.read, here.following.follow(run, subscription, after=after))
        await readers[0].until(lambda: len(readers[0].frames) == 3)

        async def all_listen() -> bool:
            return all(each.thread_id for each in here.hub.subscriptions)

        await until(all_listen, PATIENCE_SECONDS)
        gate(4)
        for reader in readers.values():
            await reader.to_the_end()
    whole = readers[0].frames
    assert [frame.seq for frame in whole] == [1, 2, 3, 4, 5]
    assert readers[2].frames == whole[2:]
    assert readers[None].frames == readers[10**9].frames == whole[3:], "only what is still to come"
    ended = await here.ended(run.run_id)
    for after, wanted in ((0, whole), (4, whole[4:]), (10**9, []), (None, [])):
        reader = Reader()
        with here.hub.subscribe(run.run_id) as subscription, anyio.fail_after(PATIENCE_SECONDS):
            await reader.read(here.following.follow(ended, subscription, after=after))
        assert reader.frames == wanted


async def test_a_run_is_stopped_from_anywhere_and_those_who_follow_it_see_its_end(
    nodes: tuple[Node, Node], gate: Callable[[int], None], tmp_path: Path
) -> None:
    here, there = nodes
    run = await submit(
        there, "steps", thread_id=await there.thread(), input={"folder": str(tmp_path), "steps": 9}
    )
    gate(1)
    await step(tmp_path, 2)
    with here.hub.subscribe(run.run_id) as subscription, anyio.fail_after(PATIENCE_SECONDS):
        async with anyio.create_task_group() as group:
            reader = Reader()
            group.start_soon(reader.read, here.following.follow(run, subscription))
            await here.runs.cancel(run.thread_id, run.run_id, scope=EVERYONE, wait=True)
            await reader.to_the_end()
    found = await here.get(run.run_id)
    assert found is not None
    assert found.status is RunStatus.INTERRUPTED


async def test_a_thread_is_followed_over_its_runs_wherever_they_run(nodes: tuple[Node, Node]) -> None:
    here, there = nodes
    thread_id = await here.thread()
    readers = [Reader(), Reader()]
    asked: dict[str, Any] = {"thread_id": thread_id, "stream_mode": ["updates"]}
    runs: list[Run] = []
    async with AsyncExitStack() as stack, anyio.create_task_group() as group:
        for at, reader in zip(nodes, readers, strict=True):
            subscription = stack.enter_context(at.hub.subscribe(thread_id))
            await at.watch.keep_thread(thread_id)
            group.start_soon(reader.read, at.following.follow_thread(thread_id, subscription, after=None))
        runs += [await submit(at, "pair", **asked) for at in (there, here, there)]
        for reader in readers:
            await reader.until(lambda reader=reader: len(reader.frames) == 12)  # type: ignore[misc]
        await here.pool.run(lambda conn: threads.delete(conn, [thread_id], scope=EVERYONE))
        for reader in readers:
            await reader.to_the_end()
    assert readers[0].frames == readers[1].frames
    assert [frame.seq for frame in readers[0].frames] == list(range(1, 13))
    assert readers[0].said == [
        each
        for run in runs
        for each in (
            ("metadata", {"run_id": str(run.run_id), "attempt": 1}),
            ("updates", {"first": {"done": 1}}),
            ("updates", {"second": {"done": 2}}),
            ("metadata", {"status": "run_done", "run_id": str(run.run_id)}),
        )
    ]


async def test_who_follows_a_thread_sees_the_rest_of_a_run_under_way(
    nodes: tuple[Node, Node], gate: Callable[[int], None], tmp_path: Path
) -> None:
    here, there = nodes
    run = await submit(
        there,
        "steps",
        thread_id=await there.thread(),
        input={"folder": str(tmp_path), "steps": 2},
        stream_mode=["updates"],
    )
    gate(1)
    await step(tmp_path, 2)
    reader = Reader()
    with here.hub.subscribe(run.thread_id) as subscription:
        await here.watch.keep_thread(run.thread_id)
        async with anyio.create_task_group() as group:
            group.start_soon(
                reader.read, here.following.follow_thread(run.thread_id, subscription, after=None)
            )
            [held] = [held for held in there.lanes.held if held.run_id == run.run_id]

            async def is_kept() -> bool:
                return there.lanes.keeps(held)

            await until(is_kept, PATIENCE_SECONDS)
            gate(2)
            await reader.until(lambda: len(reader.frames) == 2)
            group.cancel_scope.cancel()
    assert [event for event, _ in reader.said] == ["updates", "metadata"]


async def test_what_nobody_follows_elsewhere_is_not_kept(nodes: tuple[Node, Node]) -> None:
    _, there = nodes
    run_id = RunId(uuid7())
    thread_id = await there.thread()
    with there.hub.subscribe(run_id) as subscription, anyio.fail_after(PATIENCE_SECONDS):
        run = await submit(there, "pair", run_id=run_id, thread_id=thread_id, interest=Interest.EVENTS)
        reader = Reader()
        await reader.read(there.following.follow(run, subscription, is_new=True))
    assert [frame.seq for frame in reader.frames] == [0] * len(reader.frames)
    assert await there.value("SELECT count(*) FROM matins.stream_event WHERE thread_id = $1", thread_id) == 0


class Counting(Pool):
    """Counts what is asked of the database."""

    def __init__(self, pool: Pool) -> None:
        super().__init__(pool._pool)
        self.asked = 0

    async def run(
        self, work: Callable[[Conn], Awaitable[T]], *, transaction: bool = True, patience_s: float = 8
    ) -> T:
        self.asked += 1
        return await super().run(work, transaction=transaction, patience_s=patience_s)


async def test_five_hundred_who_wait_hold_no_connection_and_ask_once_a_second(
    nodes: tuple[Node, Node],
) -> None:
    here, _ = nodes
    pool = Counting(here.pool)
    runs = [await submit(here, "pair", thread_id=await here.thread(), after_seconds=3600) for _ in range(50)]
    watch = Watch(
        pool=pool,
        hub=here.hub,
        wakes=here.wakes,
        node_id=here.lease.node_id,
        holds=here.lanes.holds,
    )
    following = Following(pool=pool, workers=here.workers, hub=here.hub, watch=watch, holds=here.lanes.holds)
    readers = [Reader() for _ in range(500)]
    async with AsyncExitStack() as stack, running(watch), anyio.create_task_group() as group:
        for number, reader in enumerate(readers):
            run = runs[number % len(runs)]
            subscription = stack.enter_context(here.hub.subscribe(run.run_id))
            group.start_soon(reader.read, following.follow(run, subscription))

        async def are_known() -> bool:
            return bool(
                await here.value(
                    "SELECT bool_and(followed_on <> '{}') FROM matins.run WHERE run_id = ANY($1)",
                    [run.run_id for run in runs],
                )
            )

        await until(are_known, PATIENCE_SECONDS)
        began, before = time.monotonic(), pool.asked
        for _ in range(30):
            await anyio.sleep(LOOK_SECONDS / 10)
            assert here.pool._pool.get_size() <= 10
        waited_s = time.monotonic() - began
        assert 1 <= pool.asked - before <= waited_s / LOOK_SECONDS + 1
        for run in runs:
            await here.runs.cancel(run.thread_id, run.run_id, scope=EVERYONE, wait=False)
        for reader in readers:
            assert await reader.to_the_end() == []
