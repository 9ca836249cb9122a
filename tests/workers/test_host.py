"""The worker's real main: LangGraph, Postgres and a langgraph.json."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import TypeAlias

import anyio
import pytest

from matins.domain.frames import Frame
from matins.storage.pool import Pool as Database
from matins.workers import process
from matins.workers.pool import GraphsFailed, Pool
from matins.workers.process import Launch
from matins.workers.protocol import Settled
from tests.support import orders

pytestmark = pytest.mark.anyio

GRAPHS = """
import os
from langgraph.graph import END, START, MessagesState, StateGraph

def answer(state):
    return {"messages": [("ai", os.environ["GREETING"])]}

echo = StateGraph(MessagesState).add_node("answer", answer).add_edge(START, "answer").compile()
"""

RunHost: TypeAlias = Callable[[str], AbstractAsyncContextManager[Pool]]


@pytest.fixture
def run_host(tmp_path: Path, database: str, monkeypatch: pytest.MonkeyPatch) -> RunHost:
    """Give what runs a pool of workers on a langgraph.json with that `graphs.py`."""
    monkeypatch.setattr(process, "SILENT_SECONDS", 60)  # as in run_pool
    monkeypatch.setattr(process, "STUCK_SECONDS", 60)

    @asynccontextmanager
    async def running(source: str) -> AsyncIterator[Pool]:
        (tmp_path / "graphs.py").write_text(source)
        config = tmp_path / "langgraph.json"
        config.write_text(
            json.dumps(
                {"dependencies": ["."], "graphs": {"echo": "./graphs.py:echo"}, "env": {"GREETING": "hello"}}
            )
        )
        environ = {"DATABASE_URI": database, "LANGGRAPH_STRICT_MSGPACK": "true"}

        async def on_graphs(_: bytes) -> None:
            pass

        workers = Pool(Launch(config, 10, environ), workers=1, on_graphs=on_graphs)
        async with anyio.create_task_group() as group:
            with anyio.fail_after(60):
                await group.start(workers.run)
            yield workers
            group.cancel_scope.cancel()

    return running


async def test_a_graph_runs_in_a_worker_and_its_state_can_be_asked_for(
    run_host: RunHost, pool: Database
) -> None:
    async with run_host(GRAPHS) as workers:
        assert json.loads(workers.graphs) == {"echo": {"name": None, "description": None}}
        held = await orders.claim(pool)
        order = orders.order(held, "echo", input={"messages": [{"role": "user", "content": "hi"}]})
        frames: list[Frame] = []

        async def collect(batch: list[Frame]) -> None:
            frames.extend(batch)

        with anyio.fail_after(20):
            while (reservation := workers.reserve()) is None:
                await workers.changed()
            settled = await workers.execute(reservation, order, collect)
            assert isinstance(settled, Settled)
            assert settled.outcome == "success", settled.error
            said = [message["content"] for message in json.loads(settled.values or b"{}")["messages"]]
            assert said == ["hi", "hello"]
            assert [frame.event for frame in frames][-1] == "values"
            asked = json.dumps({"graph_id": "echo", "thread_id": str(held.thread_id)}).encode()
            state = json.loads(await workers.call("state", asked, timeout_s=20))
            assert [message["content"] for message in state["values"]["messages"]] == said


async def test_a_graph_that_cannot_be_imported_is_named(run_host: RunHost) -> None:
    with pytest.raises(BaseExceptionGroup) as raised:
        async with run_host("import no_such_module"):
            pytest.fail("it started")
    assert raised.group_contains(GraphsFailed, match=r"graphs\.echo.*no_such_module")
