"""A cron whose condition says no does nothing: no call of the graph, no run, no checkpoint, no report."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, LiteralString

import httpx
import psycopg
import pytest

from tests.support import databases, servers
from tests.support.waiting import until
from tests.wire.compatibility import covers

GRAPH = """
from pathlib import Path
from typing import Annotated, TypedDict
from langgraph.graph import START, StateGraph
from langgraph.graph.message import add_messages

class State(TypedDict, total=False):
    calls: str
    messages: Annotated[list, add_messages]

def step(state: State) -> None:
    with Path(state["calls"]).open("a") as calls:
        calls.write("called\\n")

graph = StateGraph(State).add_node(step).add_edge(START, "step").compile()
"""

GATES = """
import asyncio
import json
import sys
import threading
from functools import partial
from pathlib import Path

not_a_function = 1
asked = Path(__file__).parent / "asked"

def no():
    return False

async def note(about):
    with asked.open("a") as file:
        file.write(json.dumps(about) + "\\n")
    return False

def in_a_thread():
    assert threading.current_thread() is not threading.main_thread()
    return False

def once(about):
    return about["last_success"] is None

def raises():
    raise ValueError("boom")

def leaves():
    sys.exit(3)

async def cancels():
    raise asyncio.CancelledError

def runs_dry():
    return next(iter(()))

def forgets():
    pass

def two(one, another):
    return True
"""

YEARLY = "0 0 1 1 *"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("conditions") / "project"
    made.mkdir()
    (made / "graph.py").write_text(GRAPH)
    (made / "gates.py").write_text(GATES)
    (made / "broken.py").write_text("raise RuntimeError('not today')")
    (made.parent / "outside.py").write_text("def no():\n    return False")
    (made / "langgraph.json").write_text(
        json.dumps({"graphs": {"count": "./graph.py:graph"}, "dependencies": ["."]})
    )
    return made


@pytest.fixture(scope="module")
def database_uri(postgres: str) -> Iterator[str]:
    with databases.database(postgres) as uri:
        yield uri


@pytest.fixture(scope="module")
def client(folder: Path, database_uri: str) -> Iterator[httpx.Client]:
    env = {"DATABASE_URI": database_uri, "MATINS_WEBHOOK_NETWORKS": "127.0.0.0/8"}
    args = ["--workers", "1"]
    with (
        servers.start(folder / "langgraph.json", folder, command="serve", env=env, args=args) as server,
        httpx.Client(base_url=server.url, timeout=30) as made,
    ):
        yield made


@pytest.fixture(scope="module")
def stored(database_uri: str, client: httpx.Client) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
    with psycopg.connect(database_uri, autocommit=True) as connection:
        yield connection


@pytest.fixture
def made(client: httpx.Client) -> Iterator[list[str]]:
    """The crons that a test has made; they go with it."""
    crons: list[str] = []
    yield crons
    for cron_id in crons:
        client.delete(f"/runs/crons/{cron_id}")


def count(stored: psycopg.Connection[tuple[Any, ...]], rows: LiteralString, *arguments: str) -> int:
    row = stored.execute("SELECT count(*) FROM " + rows, arguments).fetchone()
    assert row is not None
    return int(row[0])


def create(client: httpx.Client, calls: Path, thread_id: str | None = None, **asked: Any) -> httpx.Response:
    body = {"assistant_id": "count", "schedule": "@every 1s", "input": {"calls": str(calls)}, **asked}
    return client.post(f"/threads/{thread_id}/runs/crons" if thread_id else "/runs/crons", json=body)


def decided(client: httpx.Client, cron_id: str, least: int = 1) -> list[dict[str, Any]]:
    """The fires of a cron that are no more under way, once there are some."""

    def look() -> list[dict[str, Any]]:
        found = client.get(f"/runs/crons/{cron_id}/fires?limit=1000").raise_for_status().json()
        return [fire for fire in found if fire["status"] not in ("pending", "running")]

    found: list[dict[str, Any]] = until(lambda: len(now := look()) >= least and now)
    return found


@covers("Policy", "condition")
@pytest.mark.parametrize(
    "kind", ["on a thread", "on a copy of a thread", "without a thread", "without a thread, kept"]
)
def test_one_that_says_no_leaves_nothing_but_its_row(
    client: httpx.Client,
    stored: psycopg.Connection[tuple[Any, ...]],
    made: list[str],
    tmp_path: Path,
    kind: str,
) -> None:
    calls = tmp_path / "calls"
    policy = {"condition": "./gates.py:no"}
    if kind == "on a copy of a thread":
        policy["context_policy"] = "fork"
    thread_id = client.post("/threads", json={}).json()["thread_id"] if kind.startswith("on a") else None
    threads = count(stored, "matins.thread")
    kept = {"on_run_completed": "keep"} if kind.endswith("kept") else {}
    hook = {"webhook": "http://127.0.0.1:9/hook"}
    response = create(client, calls, thread_id, policy=policy, **hook, **kept)
    assert response.status_code == 200, response.text
    cron_id = response.json()["cron_id"]
    made.append(cron_id)
    assert response.json()["policy"]["condition"] == policy["condition"]
    for fire in decided(client, cron_id, least=2):
        assert (fire["outcome"], fire["reason"], fire["trigger"]) == (
            "skipped", "its condition ./gates.py:no said no", "schedule",
        )  # fmt: skip
        assert (fire["run_id"], fire["status"], fire["started_at"], fire["thread_id"]) == (
            None, None, None, thread_id,
        )  # fmt: skip
    client.post(f"/runs/crons/{cron_id}/pause").raise_for_status()
    until(lambda: count(stored, "matins.run WHERE status IN ('pending', 'running')") == 0)
    assert not calls.exists()
    assert count(stored, "matins.thread") == threads
    assert count(stored, "matins.run WHERE cron_id = %s", cron_id) == 0
    assert count(stored, "matins.webhook_delivery") == 0
    if thread_id:
        thread = client.get(f"/threads/{thread_id}").json()
        assert (thread["status"], thread["values"]) == ("idle", None)
        assert client.get(f"/threads/{thread_id}/runs").json() == []
        assert count(stored, "checkpoints WHERE thread_id = %s", thread_id) == 0
        state = {"assistant_id": "count", "input": {"calls": str(calls)}}
        client.post(f"/threads/{thread_id}/runs/wait", json=state).raise_for_status()
        assert calls.read_text() == "called\n", "the thread is free for others"


def test_it_is_asked_about_the_slot_and_may_say_yes(
    client: httpx.Client, made: list[str], folder: Path, tmp_path: Path
) -> None:
    about = create(client, tmp_path / "calls", policy={"condition": "gates:note"}, metadata={"mine": 1})
    cron_id = about.json()["cron_id"]
    made.append(cron_id)
    *_, first = decided(client, cron_id)
    seen = [json.loads(line) for line in (folder / "asked").read_text().splitlines()]
    [asked] = [each for each in seen if each["cron_id"] == cron_id][:1]
    assert asked.pop("thread_id")
    assert asked.pop("metadata").items() >= {"mine": 1, "cron_id": cron_id}.items()
    assert asked == {
        "cron_id": cron_id,
        "scheduled_for": first["scheduled_for"],
        "last_success": None,
        "input": {"calls": str(tmp_path / "calls")},
    }
    once = create(client, tmp_path / "once", policy={"condition": "./gates.py:once"}).json()["cron_id"]
    made.append(once)
    *_, second, first = decided(client, once, least=2)
    assert (first["outcome"], first["status"], second["outcome"]) == ("fired", "success", "skipped")
    assert client.get(f"/runs/crons/{once}").json()["last_success"] == first["scheduled_for"]


def test_one_that_is_not_async_runs_in_a_thread(
    client: httpx.Client, made: list[str], tmp_path: Path
) -> None:
    policy = {"condition": "./gates.py:in_a_thread", "on_condition_error": "run"}
    made.append(create(client, tmp_path / "calls", policy=policy).json()["cron_id"])
    assert decided(client, made[0])[0]["outcome"] == "skipped"


@covers("Policy", "on_condition_error")
@pytest.mark.parametrize(
    ("named", "why"),
    [
        ("raises", "ValueError: boom"),
        ("leaves", "SystemExit: 3"),
        ("cancels", "CancelledError: "),
        ("runs_dry", "RuntimeError: coroutine raised StopIteration"),
        ("forgets", "TypeError: it gave None, not True or False"),
    ],
)
def test_a_failure_counts_as_the_policy_says(
    client: httpx.Client, made: list[str], tmp_path: Path, named: str, why: str
) -> None:
    condition = f"./gates.py:{named}"
    policy = {"condition": condition, "on_condition_error": "skip"}
    made += [
        create(client, tmp_path / "calls", policy=policy).json()["cron_id"],
        create(client, tmp_path / "calls", policy={"condition": condition}).json()["cron_id"],
    ]
    careful, plain = (decided(client, each)[-1] for each in made)
    assert (careful["outcome"], careful["reason"]) == ("skipped", f"its condition {condition} failed: {why}")
    assert (plain["outcome"], plain["status"]) == ("fired", "success")


def test_one_that_is_gone_at_a_fire_has_failed(
    client: httpx.Client, stored: psycopg.Connection[tuple[Any, ...]], made: list[str], tmp_path: Path
) -> None:
    policy = {"condition": "./gates.py:no", "on_condition_error": "skip"}
    made.append(create(client, tmp_path / "calls", schedule=YEARLY, policy=policy).json()["cron_id"])
    gone = json.dumps({**policy, "condition": "./gone.py:no"})
    stored.execute(
        "UPDATE matins.cron SET policy = %s, schedule = '@every 1s', next_run_date = matins.now(),"
        " due_at = matins.now() WHERE cron_id = %s",
        [gone, made[0]],
    )
    fire = decided(client, made[0])[-1]
    assert fire["outcome"] == "skipped"
    assert "policy.condition: no such file: ./gone.py" in fire["reason"]


def test_a_person_who_triggers_it_is_not_asked_about(
    client: httpx.Client, made: list[str], tmp_path: Path
) -> None:
    policy = {"condition": "./gates.py:no"}
    made.append(create(client, tmp_path / "calls", schedule=YEARLY, policy=policy).json()["cron_id"])
    client.post(f"/runs/crons/{made[0]}/trigger").raise_for_status()
    [fire] = decided(client, made[0])
    assert (fire["outcome"], fire["status"], fire["trigger"]) == ("fired", "success", "manual")
    assert (tmp_path / "calls").read_text() == "called\n"


def test_who_waits_for_the_run_is_answered(client: httpx.Client, made: list[str], tmp_path: Path) -> None:
    thread_id = client.post("/threads", json={}).json()["thread_id"]
    waits = {"assistant_id": "count", "input": {"calls": str(tmp_path / "mine")}, "after_seconds": 3}
    mine = client.post(f"/threads/{thread_id}/runs", json=waits).json()["run_id"]
    policy = {"condition": "./gates.py:no"}
    made.append(create(client, tmp_path / "calls", thread_id, policy=policy).json()["cron_id"])
    path = f"/threads/{thread_id}/runs"
    run_id = until(lambda: [each["run_id"] for each in client.get(path).json() if each["run_id"] != mine])[0]
    client.post(f"/runs/crons/{made[0]}/pause").raise_for_status()
    assert client.get(f"{path}/{run_id}/join").json() == {}
    assert [each["run_id"] for each in client.get(path).json()] == [mine]


@pytest.mark.parametrize(
    ("named", "detail"),
    [
        ("./gates.py:nope", "policy.condition: ./gates.py:nope: there is no 'nope'"),
        ("./gates.py:not_a_function", "policy.condition: ./gates.py:not_a_function: is int, not a function"),
        ("./gates.py:Path", "policy.condition: ./gates.py:Path: is type, not a function"),
        ("./gates.py:two", "policy.condition: two(one, another) must take no argument or one"),
        ("./gone.py:no", "policy.condition: no such file: ./gone.py"),
        ("./broken.py:no", "policy.condition: ./broken.py:no: RuntimeError: not today"),
        ("gates", "policy.condition: 'gates' must read"),
        ("gates.no", "policy.condition: 'gates.no' must read"),
        ("nothing.here:no", "policy.condition: nothing.here:no: there is no module 'nothing.here'"),
        ("../outside.py:no", "policy.condition: ../outside.py:no: is not in the directory of langgraph.json"),
        ("/etc/passwd.py:no", "policy.condition: /etc/passwd.py:no: is not in the directory of"),
        ("os:abort", "policy.condition: os:abort: there is no module 'os' in the project"),
        ("langgraph.graph:add_messages", "there is no module 'langgraph.graph' in the project"),
    ],
)
def test_what_cannot_be_one_is_refused_at_once(
    client: httpx.Client, made: list[str], tmp_path: Path, named: str, detail: str
) -> None:
    response = create(client, tmp_path / "calls", policy={"condition": named})
    assert (response.status_code, detail in response.text) == (422, True), response.text
    made.append(create(client, tmp_path / "calls", schedule=YEARLY).json()["cron_id"])
    response = client.patch(f"/runs/crons/{made[0]}", json={"policy": {"condition": named}})
    assert (response.status_code, detail in response.text) == (422, True), response.text
    assert client.get(f"/runs/crons/{made[0]}").json()["policy"]["condition"] is None
