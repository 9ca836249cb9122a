"""The user's `priority.assign`: what waits longest does not always come first."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import psycopg
import pytest
from langgraph_sdk import get_client
from langgraph_sdk.client import LangGraphClient
from langgraph_sdk.errors import UnprocessableEntityError

from matins.graphs.priority import Assigner
from matins.graphs.registry import GraphFailed
from matins.manifest import read
from tests.support import databases, servers
from tests.support.servers import Server
from tests.support.waiting import until

pytestmark = pytest.mark.anyio

GRAPH = """
from pathlib import Path
from typing import TypedDict

import anyio
from langgraph.graph import START, StateGraph


class State(TypedDict, total=False):
    name: str
    folder: str


async def step(state: State) -> None:
    folder = Path(state["folder"])
    with (folder / "order").open("a") as order:
        order.write(state["name"] + "\\n")
    while state["name"] == "holds the lane" and not (folder / "go").exists():
        await anyio.sleep(0.01)


graph = StateGraph(State).add_node(step).add_edge(START, "step").compile()
"""

PRIORITY = """
import json
from pathlib import Path

from langgraph_sdk import Priority

priority = Priority()


@priority.assign
async def assign(ctx):
    with (Path(__file__).parent / "asked").open("a") as asked:
        seen = {name: getattr(ctx, name) for name in ctx.__slots__ if name not in ("user", "permissions")}
        asked.write(json.dumps({**seen, "identity": ctx.user.identity, "permissions": list(ctx.permissions)}) + "\\n")
    given = {**ctx.thread_metadata, **ctx.run_metadata}.get("assign")
    if given == "raise":
        raise RuntimeError("a bug in the user's code")
    return None if given is None else {"priority": given, "fairness_group": "some"}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("priority")


@pytest.fixture(scope="module")
def stored_in(postgres: str) -> Iterator[str]:
    with databases.database(postgres) as uri:
        yield uri


@pytest.fixture(scope="module")
def server(folder: Path, stored_in: str) -> Iterator[Server]:
    (folder / "graph.py").write_text(GRAPH)
    (folder / "priority.py").write_text(PRIORITY)
    config = folder / "langgraph.json"
    config.write_text(
        json.dumps({"graphs": {"steps": "./graph.py:graph"}, "priority": {"path": "./priority.py:priority"}})
    )
    env = {"DATABASE_URI": stored_in, "N_JOBS_PER_WORKER": "1", "BG_JOB_SHUTDOWN_GRACE_PERIOD_SECS": "0"}
    with servers.start(config, folder, command="serve", env=env, args=["--workers", "1"]) as running:
        yield running


@pytest.fixture
async def client(server: Server) -> AsyncIterator[LangGraphClient]:
    async with get_client(url=server.url) as made:
        yield made


def lines(file: Path) -> list[str]:
    return file.read_text().splitlines() if file.exists() else []


def asked(folder: Path) -> list[Any]:
    """What the user's function was asked about since the last look."""
    found = [json.loads(line) for line in lines(folder / "asked")]
    (folder / "asked").unlink(missing_ok=True)
    return found


async def test_what_waits_is_begun_by_the_priority_of_its_thread(
    client: LangGraphClient, folder: Path, stored_in: str, tmp_path: Path
) -> None:
    async def submit(name: str, thread_id: str | None = None, **more: Any) -> Any:
        return await client.runs.create(
            thread_id, "steps", input={"name": name, "folder": str(tmp_path)}, metadata=more
        )

    urgent = await client.threads.create(metadata={"assign": -5})
    holding = await submit("holds the lane", (await client.threads.create())["thread_id"])
    await anyio.to_thread.run_sync(until, lambda: lines(tmp_path / "order"))
    asked(folder)
    await submit("patient", (await client.threads.create(metadata={"assign": 5}))["thread_id"])
    await submit("plain")
    await submit("urgent", urgent["thread_id"])
    await submit("urgent, second", urgent["thread_id"])
    await submit("by its own metadata", assign=-4)
    cron: Any = await client.crons.create(
        "steps",
        schedule="@every 1s",
        input={"name": "cron", "folder": str(tmp_path)},
        metadata={"assign": -3},
        end_time=None,
    )
    with psycopg.connect(stored_in, autocommit=True) as stored:
        waiting = "SELECT count(*) FROM matins.run WHERE cron_id = %s"
        await anyio.to_thread.run_sync(
            until, lambda: stored.execute(waiting, [cron["cron_id"]]).fetchone() != (0,)
        )
        await client.crons.delete(cron["cron_id"])
        (tmp_path / "go").touch()
        unfinished = "SELECT count(*) FROM matins.run WHERE status IN ('pending', 'running')"
        await anyio.to_thread.run_sync(until, lambda: stored.execute(unfinished).fetchone() == (0,))
    order = lines(tmp_path / "order")
    assert list(dict.fromkeys(order)) == [
        "holds the lane", "urgent", "urgent, second", "by its own metadata", "cron", "plain", "patient",
    ]  # fmt: skip
    questions = asked(folder)
    # Once for a thread, and for a cron once, before its first fire.
    assert [(each["thread_metadata"], each["run_metadata"]) for each in questions] == [
        ({"assign": 5}, {}),
        ({}, {}),
        ({"assign": -5}, {}),
        ({}, {"assign": -4}),
        ({}, {"assign": -3}),
    ]
    assert [each["cron_id"] for each in questions] == [None, None, None, None, cron["cron_id"]]
    assert questions[2]["thread_id"] == urgent["thread_id"]
    assert {(each["graph_id"], each["assistant_id"], each["identity"]) for each in questions} == {
        ("steps", holding["assistant_id"], "")
    }


@pytest.mark.parametrize("given", ["raise", 6, True, "1"])
async def test_a_bug_in_it_is_logged_and_holds_up_no_run(
    client: LangGraphClient, folder: Path, server: Server, tmp_path: Path, given: object
) -> None:
    thread = await client.threads.create(metadata={"assign": given})
    asked(folder)
    for name in ("one", "two"):
        values = await client.runs.wait(
            thread["thread_id"], "steps", input={"name": name, "folder": str(tmp_path)}
        )
        assert values["name"] == name  # type: ignore[call-overload]
    assert len(asked(folder)) == 2, "nothing was stored, so it is asked again"
    assert "priority.failed" in server.log.read_text()


async def test_a_run_that_names_no_assistant_is_refused_as_ever(client: LangGraphClient) -> None:
    with pytest.raises(UnprocessableEntityError, match="Invalid assistant"):
        await client.runs.create(None, "nobody")


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("priority = 1", "'priority' is int, not a langgraph_sdk.Priority"),
        ("1/0", "ZeroDivisionError"),
        ("", "AttributeError"),
    ],
)
def test_what_is_no_priority_is_said_at_the_start(tmp_path: Path, code: str, message: str) -> None:
    (tmp_path / "graph.py").touch()
    (tmp_path / "priority.py").write_text(code)
    config = tmp_path / "langgraph.json"
    config.write_text(
        json.dumps({"graphs": {"steps": "./graph.py:graph"}, "priority": {"path": "./priority.py:priority"}})
    )
    with pytest.raises(GraphFailed, match=rf"{re.escape(str(config))}: priority\.path: .*{message}"):
        Assigner.load(read(config))
