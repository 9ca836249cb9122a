from __future__ import annotations

from typing import Any

import anyio
import pytest

from matins.domain.runs import RunStatus
from matins.engine.queue import claimer
from matins.storage import queue
from tests.support.engine import Node

pytestmark = pytest.mark.anyio


async def test_a_run_whose_thread_was_held_as_its_turn_came_waits_for_no_poll(
    engine: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever begins to wait for a run holds its thread for a moment, and may do so as the run before it ends."""
    monkeypatch.setattr(claimer, "POLL_SECONDS", 3600)
    engine.wakes.claims()  # from here on it waits for as long
    looked, claim = anyio.Event(), queue.claim

    async def observed(*arguments: Any, **options: Any) -> Any:
        found = await claim(*arguments, **options)
        looked.set()
        return found

    monkeypatch.setattr(queue, "claim", observed)
    run = await engine.later("pair")
    async with engine.pool.connection() as conn, conn.transaction():
        await conn.execute("SELECT FROM matins.thread WHERE thread_id = $1 FOR NO KEY UPDATE", run.thread_id)
        await engine.fetch("UPDATE matins.run SET due_at = matins.now() WHERE run_id = $1", run.run_id)
        engine.wakes.claims()
        with anyio.fail_after(20):
            await looked.wait()
        found = await engine.get(run.run_id)
        assert found is not None
        assert found.status is RunStatus.PENDING
    assert (await engine.ended(run.run_id)).status is RunStatus.SUCCESS
