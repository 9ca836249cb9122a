"""Crons as code, from the files of a project to what clients see of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support import servers
from tests.support.servers import Server
from tests.support.waiting import until
from tests.wire.compatibility import covers

GRAPH = """
from typing import TypedDict
from langgraph.graph import START, StateGraph

class State(TypedDict, total=False):
    n: int

graph = StateGraph(State).add_node("step", lambda state: None).add_edge(START, "step").compile()
"""
YEARLY = {"graph": "agent", "schedule": "0 0 1 1 *", "input": {"n": 1}}
FILE = """
def crons():
    return {"by file": {"graph": "agent", "schedule": "0 6 * * *", "policy": {"condition": "./gates.py:no"}}}
"""
GATES = """
def no():
    return False
"""


def declare(folder: Path, **crons: Any) -> None:
    """Write langgraph.json with these crons."""
    config = {"graphs": {"agent": "./graph.py:graph"}, "crons": crons}
    (folder / "langgraph.json").write_text(json.dumps(config))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("declarations") / "project"
    (made / "schedules").mkdir(parents=True)
    (made / "graph.py").write_text(GRAPH)
    (made / "gates.py").write_text(GATES)
    (made / "schedules" / "mine.py").write_text(FILE)
    declare(made, digest=YEARLY, bad={**YEARLY, "schedule": "never", "schedul": "x"})
    return made


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Server]:
    with servers.start(folder / "langgraph.json", folder.parent) as running:
        yield running


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=30) as made:
        yield made


def crons(client: httpx.Client) -> dict[str, Any]:
    """The crons that have a key, by it."""
    found = client.post("/runs/crons/search", json={"limit": 100}).raise_for_status().json()
    return {cron["key"]: cron for cron in found if "key" in cron}


def sync(client: httpx.Client, **asked: Any) -> dict[str, Any]:
    response = client.post("/runs/crons/sync", json=asked).raise_for_status().json()
    assert response["dry_run"] is asked.get("dry_run", False)
    return {change["key"]: change for change in response["changes"]}


@pytest.fixture
def when(client: httpx.Client) -> Callable[[Callable[[dict[str, Any]], Any]], dict[str, Any]]:
    """Wait until the crons are as is said of them; gives them."""

    def wait(holds: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
        found: dict[str, Any] = until(lambda: holds(now := crons(client)) and now, timeout_s=30)
        return found

    return wait


@covers("Cron", "key")
@covers("POST /runs/crons/sync", "200")
@covers("CronSync", "dry_run")
@covers("CronsSynced", "*")
@covers("CronDeclared", "*")
def test_what_the_project_declares_is_there_after_its_start_and_follows_its_code(
    client: httpx.Client, server: Server, folder: Path, when: Any
) -> None:
    found = when(lambda now: len(now) == 2)
    digest, by_file = found["digest"], found["by file"]
    assert (digest["schedule"], digest["payload"]["input"], digest["enabled"]) == (
        "0 0 1 1 *",
        {"n": 1},
        True,
    )
    assert by_file["policy"]["condition"] == "./gates.py:no"
    changes = sync(client, dry_run=True)
    assert {key: change["action"] for key, change in changes.items()} == {
        "bad": "invalid",
        "by file": "unchanged",
        "digest": "unchanged",
    }
    assert "never" in changes["bad"]["reason"]
    assert changes["digest"]["cron_id"] == digest["cron_id"]

    # A person's edit stays.
    client.patch(f"/runs/crons/{digest['cron_id']}", json={"schedule": "0 0 2 1 *"}).raise_for_status()
    drifted = sync(client)["digest"]
    assert (drifted["action"], drifted["fields"]) == ("drifted", ["schedule"])
    assert crons(client)["digest"]["schedule"] == "0 0 2 1 *"

    # The code changes while it is served.
    declare(folder, digest={**YEARLY, "input": {"n": 2}}, more={**YEARLY, "enabled": False})
    found = when(lambda now: "more" in now and now["digest"]["payload"]["input"] == {"n": 2})
    assert (found["digest"]["schedule"], found["more"]["enabled"]) == ("0 0 2 1 *", False)
    (folder / "schedules" / "mine.py").write_text(FILE.replace("0 6", "0 7"))
    when(lambda now: now["by file"]["schedule"] == "0 7 * * *")
    (folder / "schedules" / "mine.py").write_text("crons = {}")
    found = when(lambda now: not now["by file"]["enabled"])
    assert found["by file"]["paused_reason"] == "no longer declared"
    assert found["by file"]["cron_id"] == by_file["cron_id"]

    # What only its graph can tell is found out too.
    thread_id = client.post("/threads", json={}).json()["thread_id"]
    forks = {**YEARLY, "thread_id": thread_id, "policy": {"context_policy": "fork"}}
    declare(folder, digest={**YEARLY, "input": {"n": 2}}, more={**YEARLY, "enabled": False}, forks=forks)
    refused = until(lambda: sync(client, dry_run=True).get("forks"), timeout_s=30)
    assert refused["action"] == "invalid"
    assert "needs a graph with `messages`" in refused["reason"]

    # A start makes nothing anew.
    before = crons(client)
    server.stop()
    server.start()
    assert {change["action"] for change in sync(client).values()} == {"unchanged", "drifted", "invalid"}
    assert crons(client) == before
    warned = server.log.read_text()
    assert "crons.bad.schedul: unknown key, ignored; did you mean 'schedule'?" in warned
    assert "cron.declared" in warned
