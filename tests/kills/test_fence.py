"""A run whose lease is taken away, in a real server: it starts no further node and changes no row."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import anyio
import asyncpg
import httpx
import pytest

from tests.support import servers
from tests.support.pools import until
from tests.support.servers import Server

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(sys.platform != "linux", reason="finds the processes of a server in /proc"),
]

PROJECT: Final = Path(__file__).parent / "project" / "langgraph.json"
STEPS: Final = 8
PAUSE_SECONDS: Final = 0.5
TABLES: Final = {
    "run": "SELECT * FROM matins.run WHERE run_id = $1",
    "thread": "SELECT * FROM matins.thread WHERE thread_id = $1",
    "stream_event": "SELECT * FROM matins.stream_event WHERE thread_id = $1",
    "checkpoints": "SELECT * FROM checkpoints WHERE thread_id = $1::text",
    "checkpoint_writes": "SELECT * FROM checkpoint_writes WHERE thread_id = $1::text",
    "checkpoint_blobs": "SELECT * FROM checkpoint_blobs WHERE thread_id = $1::text",
}


@pytest.fixture(scope="module")
def effects(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("fence") / "effects"
    path.touch()
    return path


@pytest.fixture(scope="module")
def server(effects: Path) -> Iterator[Server]:
    with servers.start(
        PROJECT, effects.parent, args=["--no-reload"], env={"EFFECTS": str(effects)}
    ) as server:
        yield server


@pytest.fixture
async def http(server: Server) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=server.url, timeout=30) as client:
        yield client


@pytest.fixture
async def database(server: Server) -> AsyncIterator[asyncpg.Connection[Any]]:
    connection = await asyncpg.connect(server.database_uri)
    yield connection
    await connection.close()


def started(effects: Path, run_id: str) -> list[str]:
    """The nodes of a run that began, in order."""
    return [what for run, _, _, what in map(str.split, effects.read_text().splitlines()) if run == run_id]


async def under_way(http: httpx.AsyncClient, effects: Path, durability: str) -> tuple[str, str]:
    """Begin a run on a thread; gives thread and run while it is in its third step."""
    thread_id = (await http.post("/threads", json={})).json()["thread_id"]
    body = {
        "assistant_id": "steps",
        "input": {"steps": STEPS, "pause": PAUSE_SECONDS},
        "durability": durability,
        "stream_resumable": True,
        "stream_mode": ["values", "updates"],
    }
    run_id = (await http.post(f"/threads/{thread_id}/runs", json=body)).json()["run_id"]
    with anyio.fail_after(20):
        await until(lambda: len(started(effects, run_id)) == 3)
    await anyio.sleep(PAUSE_SECONDS / 4)  # what came before is written, and the step is in its pause
    return thread_id, run_id


async def contents(database: asyncpg.Connection[Any], thread_id: str, run_id: str) -> dict[str, list[Any]]:
    found = {
        table: await database.fetch(query, run_id if table == "run" else thread_id)
        for table, query in TABLES.items()
    }
    return {table: sorted(map(repr, rows)) for table, rows in found.items()}


async def is_idle(database: asyncpg.Connection[Any]) -> None:
    """Wait until the step that was under way has long ended."""
    await anyio.sleep(PAUSE_SECONDS * 3)
    assert (
        await database.fetchval("SELECT count(*) FROM pg_stat_activity WHERE state = 'idle in transaction'")
        == 0
    )


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
async def test_a_run_that_another_node_has_claimed_starts_no_further_node_and_changes_no_row(
    server: Server, http: httpx.AsyncClient, database: asyncpg.Connection[Any], effects: Path, durability: str
) -> None:
    thread_id, run_id = await under_way(http, effects, durability)
    other = uuid4()
    async with database.transaction():
        await database.execute(
            "INSERT INTO matins.node (node_id, name, version, lease_until)"
            " VALUES ($1, 'another', '0', matins.now() + interval '1 hour')",
            other,
        )
        await database.execute(
            "UPDATE matins.run SET attempt = attempt + 1, node_id = $2 WHERE run_id = $1", run_id, other
        )
    before = await contents(database, thread_id, run_id)
    assert len(before["run"]) == len(before["thread"]) == 1
    assert before["stream_event"] != []
    assert (before["checkpoints"] == []) is (durability == "exit")
    await is_idle(database)
    assert started(effects, run_id) == ["step1", "step2", "step3"]
    assert await contents(database, thread_id, run_id) == before


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
@pytest.mark.parametrize("what", ["run", "thread"])
async def test_a_deleted_run_starts_no_further_node_and_leaves_no_row(
    http: httpx.AsyncClient, database: asyncpg.Connection[Any], effects: Path, what: str, durability: str
) -> None:
    thread_id, run_id = await under_way(http, effects, durability)
    path = f"/threads/{thread_id}" if what == "thread" else f"/threads/{thread_id}/runs/{run_id}"
    answer = await http.delete(path)
    assert answer.status_code == httpx.codes.NO_CONTENT
    before = await contents(database, thread_id, run_id)
    assert before["run"] == []
    await is_idle(database)
    assert started(effects, run_id) == ["step1", "step2", "step3"]
    assert await contents(database, thread_id, run_id) == before
    if what == "thread":
        assert not any(before.values())
    else:
        thread = (await http.get(f"/threads/{thread_id}")).json()
        assert thread["status"] == "idle"
        body = {"assistant_id": "steps", "input": {"steps": 1}}
        assert (await http.post(f"/threads/{thread_id}/runs/wait", json=body)).json()["done"] == 1
