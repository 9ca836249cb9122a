"""A run whose lease is taken away, in a real server: it starts no further node and changes no row."""

from __future__ import annotations

import re
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


async def under_way(
    http: httpx.AsyncClient, effects: Path, durability: str, the_end: Path
) -> tuple[str, str]:
    """Begin a run on a thread; gives thread and run while it is in its third step, until there is that file."""
    thread_id = (await http.post("/threads", json={})).json()["thread_id"]
    body = {
        "assistant_id": "steps",
        "input": {"steps": STEPS, "holds": 3, "until": str(the_end)},
        "durability": durability,
        "stream_resumable": True,
        "stream_mode": ["values", "updates"],
    }
    run_id = (await http.post(f"/threads/{thread_id}/runs", json=body)).json()["run_id"]
    with anyio.fail_after(20):
        await until(lambda: len(started(effects, run_id)) == 3)
    return thread_id, run_id


async def contents(database: asyncpg.Connection[Any], thread_id: str, run_id: str) -> dict[str, list[Any]]:
    found = {
        table: await database.fetch(query, run_id if table == "run" else thread_id)
        for table, query in TABLES.items()
    }
    return {table: sorted(map(repr, rows)) for table, rows in found.items()}


async def ended(server: Server, database: asyncpg.Connection[Any], run_id: str, the_end: Path) -> None:
    """Let the step that is under way end, and wait until nothing of the run executes any more."""
    await anyio.Path(the_end).touch()
    left = re.compile(rf"run\.reaped .*{run_id}")
    busy = (
        "SELECT count(*) FROM pg_stat_activity WHERE state LIKE '%transaction%' AND pid <> pg_backend_pid()"
    )
    with anyio.fail_after(20):
        await until(lambda: bool(left.search(server.log.read_text())))
        while await database.fetchval(busy):  # noqa: ASYNC110 - the server tells nobody
            await anyio.sleep(0.05)


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
async def test_a_run_that_another_node_has_claimed_starts_no_further_node_and_changes_no_row(
    server: Server,
    http: httpx.AsyncClient,
    database: asyncpg.Connection[Any],
    effects: Path,
    durability: str,
    tmp_path: Path,
) -> None:
    thread_id, run_id = await under_way(http, effects, durability, tmp_path / "the_end")
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
    await ended(server, database, run_id, tmp_path / "the_end")
    assert started(effects, run_id) == ["step1", "step2", "step3"]
    assert await contents(database, thread_id, run_id) == before


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
@pytest.mark.parametrize("what", ["run", "thread"])
async def test_a_deleted_run_starts_no_further_node_and_leaves_no_row(
    server: Server,
    http: httpx.AsyncClient,
    database: asyncpg.Connection[Any],
    effects: Path,
    what: str,
    durability: str,
    tmp_path: Path,
) -> None:
    thread_id, run_id = await under_way(http, effects, durability, tmp_path / "the_end")
    path = f"/threads/{thread_id}" if what == "thread" else f"/threads/{thread_id}/runs/{run_id}"
    answer = await http.delete(path)
    assert answer.status_code == httpx.codes.NO_CONTENT
    before = await contents(database, thread_id, run_id)
    assert before["run"] == []
    await ended(server, database, run_id, tmp_path / "the_end")
    assert started(effects, run_id) == ["step1", "step2", "step3"]
    assert await contents(database, thread_id, run_id) == before
    if what == "thread":
        assert not any(before.values())
    else:
        thread = (await http.get(f"/threads/{thread_id}")).json()
        assert thread["status"] == "idle"
        body = {"assistant_id": "steps", "input": {"steps": 1}}
        assert (await http.post(f"/threads/{thread_id}/runs/wait", json=body)).json()["done"] == 1
