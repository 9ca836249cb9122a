"""What a cron's runs see of their thread, over many fires; and runs on copies of it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from matins.domain.access import EVERYONE
from matins.domain.crons import Cron
from matins.domain.errors import ThreadBusy
from matins.domain.fires import Fire
from matins.domain.ids import RunId, ThreadId, uuid7
from matins.domain.runs import RunStatus
from matins.engine.triggering import trigger
from tests.support import databases
from tests.support.engine import Node, create_cron, node, until

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def shared(postgres: str) -> Iterator[str]:
    with databases.database(postgres) as uri:
        yield uri


@pytest.fixture(scope="module")
async def running(shared: str) -> AsyncIterator[Node]:
    async with node(shared) as started:
        yield started


async def on_thread(running: Node, **policy: Any) -> Cron:
    """Create a cron on a thread of its own that never fires by itself."""
    return await create_cron(
        running.pool,
        "0 0 1 1 *",
        thread_id=await running.thread(),
        graphs=running.workers,
        policy=policy,
    )


async def fire(running: Node, cron: Cron) -> Fire:
    run_id = RunId(uuid7())
    made = await running.pool.run(
        lambda conn: trigger(conn, cron.cron_id, run_id=run_id, graphs=running.workers, scope=EVERYONE)
    )
    running.wakes.tell_queue()
    return made


async def became(running: Node, fired: Fire) -> str:
    """Wait for what the ledger says of the fire's run in the end."""
    query = "SELECT status FROM matins.cron_fire WHERE run_id = $1 AND status NOT IN ('pending', 'running')"
    status: str = await until(lambda: running.value(query, fired.run_id))
    return status


async def messages(running: Node, thread_id: ThreadId | None) -> list[str]:
    values = await running.value('SELECT "values" FROM matins.thread WHERE thread_id = $1', thread_id)
    return [message["content"] for message in json.loads(values or "{}").get("messages", [])]


async def at_rest(running: Node, thread_id: ThreadId | None) -> None:
    query = "SELECT thread_id FROM matins.thread WHERE thread_id = $1 AND status <> 'busy'"
    await until(lambda: running.value(query, thread_id))


async def test_a_cron_that_writes_to_a_thread_for_ever_has_a_prompt_that_does_not_grow(running: Node) -> None:
    cron = await on_thread(running, last_n=20)
    sizes = []
    for _ in range(200):
        assert await became(running, await fire(running, cron)) == "success"
        sizes.append(len(await messages(running, cron.thread_id)))
    assert max(sizes) == 22
    assert sizes[20:] == [22] * 180


async def test_a_fork_works_beside_a_person_and_posts_once_when_the_thread_is_free(running: Node) -> None:
    cron = await on_thread(running, context_policy="fork")
    assert cron.thread_id is not None
    person = await running.submit("slow", thread_id=cron.thread_id, input={"delay": 60}, after_seconds=3600)
    fired = await fire(running, cron)
    assert fired.thread_id != cron.thread_id
    assert await became(running, fired) == "success"
    assert not await running.value("SELECT 1 FROM matins.thread WHERE thread_id = $1", fired.thread_id)
    assert not await running.value("SELECT 1 FROM checkpoints WHERE thread_id = $1", str(fired.thread_id))
    [posting] = await running.fetch(
        "SELECT run_id, status, cron_id, metadata FROM matins.run WHERE thread_id = $1 AND run_id <> $2",
        cron.thread_id,
        person.run_id,
    )
    assert (posting["status"], posting["cron_id"]) == ("pending", None)
    assert json.loads(posting["metadata"])["posted_by"] == str(fired.run_id)
    await running.runs.delete(cron.thread_id, person.run_id, scope=EVERYONE)
    assert (await running.ended(posting["run_id"])).status is RunStatus.SUCCESS
    await at_rest(running, cron.thread_id)
    assert await messages(running, cron.thread_id) == ["tick"]
    assert len(await running.fetch("SELECT 1 FROM matins.cron_fire WHERE cron_id = $1", cron.cron_id)) == 1
    again = await fire(running, cron)  # the next one has read what the last one said
    assert await became(running, again) == "success"
    await at_rest(running, cron.thread_id)
    assert await messages(running, cron.thread_id) == ["tick", "tick"]
    output = await running.value("SELECT output FROM matins.cron_fire WHERE run_id = $1", again.run_id)
    assert output == "tick"


async def test_a_fork_overlaps_its_own_cron_and_nobody_else(running: Node) -> None:
    cron = await on_thread(running, context_policy="fork")
    late = {"delay": 60, "messages": []}
    beside = await create_cron(
        running.pool,
        "0 0 1 1 *",
        thread_id=cron.thread_id,
        graphs=running.workers,
        assistant="slow",
        payload={"input": late},
        policy={"context_policy": "fork", "overlap": "skip"},
    )
    first = await fire(running, beside)
    with pytest.raises(ThreadBusy):
        await fire(running, beside)
    assert await became(running, await fire(running, cron)) == "success"
    assert first.thread_id is not None
    assert first.run_id is not None
    await running.runs.cancel(first.thread_id, first.run_id, scope=EVERYONE, wait=True)
    assert await became(running, first) == "interrupted"
