"""Crons as code: what the project declares is made so, once, and what people edit is left alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from uuid import uuid4

import anyio
import msgspec
import pytest

from matins.domain.access import EVERYONE
from matins.domain.crons import KEPT_WHEN_DONE, Cron
from matins.engine import crons as engine
from matins.engine.declarations import Change, Declarations
from matins.engine.priorities import Priorities
from matins.engine.streams.wake import Wake
from matins.engine.webhooks.guard import Guard
from matins.graphs.registry import Registry
from matins.manifest import read
from matins.manifest.webhooks import Webhooks
from matins.storage import crons
from matins.storage.pool import Pool
from tests.support.engine import move_clock, running, until

pytestmark = pytest.mark.anyio

GRAPH = """
from typing import TypedDict
from langgraph.graph import START, StateGraph

class State(TypedDict, total=False):
    n: int

graph = StateGraph(State).add_node("step", lambda state: None).add_edge(START, "step").compile()
"""
DIGEST: dict[str, Any] = {
    "graph": "agent",
    "schedule": "0 9 * * 1-5",
    "timezone": "Europe/Berlin",
    "input": {"n": 1},
    "metadata": {"team": "a", "kind": "digest"},
    "policy": {"misfire": "skip", "grace_seconds": 60},
}


class Desk:
    """The desk of a project, as the engine asks it: the registry answers in this process."""

    graphs = b'{"agent":{},"other":{}}'
    assigns_priority = False

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.asked: list[str] = []

    async def call(self, method: str, params: bytes, *, timeout_s: float) -> bytes:
        self.asked.append(method)
        registry = Registry({}, read(self._folder / "langgraph.json"), None)
        if method == "condition":
            return await registry.conditions.answer(params)
        return await registry.declarations.answer()


class Project:
    """A project whose declarations a test writes, and what is made of them."""

    def __init__(self, folder: Path, pool: Pool) -> None:
        self.folder = folder
        self.pool = pool
        self.desk: Any = Desk(folder)
        self.wake = Wake()
        self.is_told = 0
        (folder / "graph.py").write_text(GRAPH)
        (folder / "schedules").mkdir()

    def declare(self, crons: Any = None, **files: str) -> None:
        """Write langgraph.json and, under names of their own, files of schedules/: no module is imported twice."""
        config = {"graphs": {"agent": "./graph.py:graph"}, "crons": crons or {}}
        (self.folder / "langgraph.json").write_text(json.dumps(config))
        for file in (self.folder / "schedules").glob("*.py"):
            file.unlink()
        for name, text in files.items():
            (self.folder / "schedules" / f"{name}.py").write_text(text)

    def declarations(self) -> Declarations:
        def told() -> None:
            self.is_told += 1

        return Declarations(
            pool=self.pool,
            workers=self.desk,
            webhooks=Guard(Webhooks()),
            priorities=Priorities(pool=self.pool, workers=self.desk),
            wake=self.wake,
            on_changed=told,
        )

    async def sync(self, **options: bool) -> dict[str, Change]:
        return {change.key: change for change in await self.declarations().sync(**options)}

    async def cron(self, key: str) -> Cron:
        found = await self.pool.run(lambda conn: crons.get_by_key(conn, key))
        assert found is not None
        return found

    async def patch(self, key: str, **change: Any) -> None:
        cron = await self.cron(key)
        asked = engine.CronChange(**change)
        await self.pool.run(lambda conn: engine.update(conn, cron.cron_id, asked, scope=EVERYONE))

    async def rows(self) -> int:
        async with self.pool.connection() as conn:
            number: int = await conn.fetchval("SELECT count(*) FROM matins.cron")
        return number


@pytest.fixture
def project(tmp_path: Path, moving: Pool) -> Project:
    return Project(tmp_path, moving)


def said(change: Change) -> tuple[str, list[str], str | None]:
    return change.action.value, change.fields, change.reason


async def test_what_is_declared_is_created_once_whoever_starts(project: Project) -> None:
    project.declare({"digest": DIGEST})
    assert said((await project.sync())["digest"]) == ("created", [], None)
    cron = await project.cron("digest")
    assert (cron.schedule, cron.timezone, cron.enabled) == ("0 9 * * 1-5", "Europe/Berlin", True)
    assert msgspec.json.decode(cron.payload)["input"] == {"n": 1}
    assert msgspec.json.decode(cron.policy or b"") == DIGEST["policy"]
    assert msgspec.json.decode(cron.metadata) == DIGEST["metadata"]
    assert cron.next_run_date is not None
    for _ in range(49):
        changes = await project.sync()
        assert said(changes["digest"]) == ("unchanged", [], None)
    assert await project.rows() == 1
    assert await project.cron("digest") == cron
    assert "condition" not in project.desk.asked


async def test_nodes_that_start_at_once_make_one(project: Project) -> None:
    project.declare({f"cron {number}": DIGEST for number in range(5)})
    found: list[dict[str, Change]] = []

    async def start() -> None:
        found.append(await project.sync())

    async with anyio.create_task_group() as group:
        for _ in range(8):
            group.start_soon(start)
    assert await project.rows() == 5
    for number in range(5):
        actions = sorted(changes[f"cron {number}"].action for changes in found)
        assert actions == ["created", *["unchanged"] * 7]


async def test_only_what_differs_in_the_declaration_is_changed(project: Project) -> None:
    project.declare({"digest": DIGEST})
    await project.sync()
    before = await project.cron("digest")
    await project.patch("digest", metadata={"team": "b"}, policy={"grace_seconds": 30})
    metadata = {"team": "a", "more": 1}
    project.declare(
        {"digest": {**DIGEST, "input": {"n": 2}, "metadata": metadata, "policy": {"grace_seconds": 60}}}
    )
    assert said((await project.sync())["digest"]) == ("changed", ["input", "metadata", "policy"], None)
    after = await project.cron("digest")
    assert msgspec.json.decode(after.payload)["input"] == {"n": 2}
    assert msgspec.json.decode(after.metadata) == {"team": "b", "more": 1}, "the edit of a person stays"
    assert msgspec.json.decode(after.policy or b"") == {"grace_seconds": 30}
    assert after.next_run_date == before.next_run_date
    assert said((await project.sync())["digest"]) == ("drifted", ["metadata", "policy"], None)


async def test_everything_that_is_declared_can_be_changed_and_taken_back(project: Project) -> None:
    thread_id = uuid4()
    async with project.pool.connection() as conn:
        await conn.execute("INSERT INTO matins.thread (thread_id) VALUES ($1)", thread_id)
    full = {
        **DIGEST,
        "graph": "other",
        "schedule": "@hourly",
        "timezone": "Asia/Tokyo",
        "thread_id": str(thread_id),
        "input": None,
        "config": {"tags": ["x"], "configurable": {"model": "m"}},
        "context": {"model": "m"},
        "metadata": {},
        "policy": {"overlap": "skip"},
        "webhook": "https://93.184.215.14/hook",
        "end_time": "2100-01-01T00:00:00",
        "enabled": False,
    }
    least = {"graph": "agent", "schedule": "@daily"}
    for declared in (least, full, least, full):
        project.declare({"digest": declared})
        change = (await project.sync())["digest"]
        assert change.action in ("created", "changed"), change
        assert said((await project.sync())["digest"]) == ("unchanged", [], None)
        cron = await project.cron("digest")
        assert cron.thread_id == (thread_id if declared is full else None)
        assert cron.on_run_completed == (None if declared is full else "delete")
        payload = msgspec.json.decode(cron.payload)
        assert payload["assistant_id"] == str(cron.assistant_id)
        assert payload["config"]["configurable"]["cron_id"] == str(cron.cron_id)
    assert await project.rows() == 1


async def test_dates_follow_the_rules_of_an_edit(project: Project) -> None:
    project.declare({"digest": {**DIGEST, "schedule": "@hourly"}})
    await project.sync()
    first = await project.cron("digest")
    await move_clock(project.pool, minutes=5)
    project.declare({"digest": {**DIGEST, "schedule": "*/10 * * * *"}})
    await project.sync()
    second = await project.cron("digest")
    assert first.next_run_date is not None
    assert second.next_run_date is not None
    assert second.revision == first.revision + 1
    project.declare({"digest": {**DIGEST, "schedule": "*/10 * * * *", "input": {"n": 9}}})
    await move_clock(project.pool, minutes=30)
    await project.sync()
    assert (await project.cron("digest")).next_run_date == second.next_run_date, (
        "the same schedule moves no date"
    )


async def test_what_a_person_edited_has_drifted_and_is_left_alone(project: Project) -> None:
    project.declare({"digest": DIGEST})
    await project.sync()
    await project.patch("digest", schedule="@daily", enabled=False)
    edited = await project.cron("digest")
    for _ in range(2):
        assert said((await project.sync())["digest"]) == ("drifted", ["schedule", "enabled"], None)
    assert await project.cron("digest") == edited
    await project.patch("digest", schedule=DIGEST["schedule"], enabled=True)
    assert (await project.sync())["digest"].action == "unchanged"
    await project.pool.run(lambda conn: engine.pause(conn, edited.cron_id, "too dear", scope=EVERYONE))
    assert said((await project.sync())["digest"]) == ("drifted", ["enabled"], "too dear")
    project.declare({"digest": {**DIGEST, "schedule": "@weekly"}})
    assert said((await project.sync())["digest"]) == ("changed", ["schedule"], None)
    cron = await project.cron("digest")
    assert (cron.schedule, cron.enabled) == ("@weekly", False)


async def test_what_is_declared_no_longer_is_paused_and_comes_back(project: Project) -> None:
    project.declare({"digest": DIGEST, "other": DIGEST})
    await project.sync()
    cron = await project.cron("digest")
    project.declare({"other": DIGEST})
    changes = await project.sync()
    assert said(changes["digest"]) == ("paused", ["enabled"], "no longer declared")
    assert changes["other"].action == "unchanged"
    paused = await project.cron("digest")
    assert (paused.enabled, paused.paused_reason) == (False, "no longer declared")
    assert list(await project.sync()) == ["other"]
    await project.patch("digest", enabled=True)
    await project.sync()
    assert (await project.cron("digest")).enabled, "what a person does with it now is his"
    await project.patch("digest", enabled=False)
    project.declare({"digest": {**DIGEST, "input": {"n": 3}}, "other": DIGEST})
    assert said((await project.sync())["digest"]) == ("resumed", ["input", "enabled"], None)
    back = await project.cron("digest")
    assert (back.cron_id, back.enabled, back.paused_reason) == (cron.cron_id, True, None)
    assert said((await project.sync())["digest"]) == ("unchanged", [], None)


async def test_one_that_has_fired_once_stays_as_it_was_declared(project: Project) -> None:
    project.declare({"once": {"graph": "agent", "schedule": "@at 2100-01-01T09:00[Europe/Paris]"}})
    assert (await project.sync())["once"].action == "created"
    assert (await project.cron("once")).timezone == "Europe/Paris"
    assert said((await project.sync())["once"]) == ("unchanged", [], None)
    async with project.pool.connection() as conn:
        done = "UPDATE matins.cron SET enabled = false, next_run_date = NULL, due_at = NULL, done_at = matins.now()"
        await conn.execute(done)
    await move_clock(project.pool, days=30)
    assert (
        await project.pool.run(lambda conn: crons.purge_done(conn, older_than=KEPT_WHEN_DONE, limit=9)) == 0
    )
    assert said((await project.sync())["once"]) == ("unchanged", [], None)
    project.declare({})
    await project.sync()
    assert (
        await project.pool.run(lambda conn: crons.purge_done(conn, older_than=KEPT_WHEN_DONE, limit=9)) == 1
    )


async def test_one_that_was_deleted_is_made_again(project: Project) -> None:
    project.declare({"digest": DIGEST})
    await project.sync()
    cron = await project.cron("digest")
    await project.pool.run(lambda conn: crons.delete(conn, cron.cron_id, scope=EVERYONE))
    assert (await project.sync())["digest"].action == "created"
    assert (await project.cron("digest")).cron_id != cron.cron_id


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"schedule": "61 * * * *"}, "61"),
        ({"schedule": None}, "langgraph.json: Expected `str`, got `null` - at `$.schedule`"),
        ({"timezone": "Europe/Berlinn"}, "Europe/Berlinn"),
        ({"graph": "nobody"}, "nobody"),
        ({"assistant_id": "agent"}, "name either `graph` or `assistant_id`"),
        ({"thread_id": "01990000-0000-7000-8000-000000000000"}, "Thread with ID"),
        ({"policy": {"misfires": "skip"}}, "misfires"),
        ({"policy": {"condition": "./gone.py:no"}}, "policy.condition: no such file: ./gone.py"),
        ({"webhook": "http://127.0.0.1/hook"}, "Webhook host blocked"),
        ({"end_time": "2001-01-01"}, "has already passed"),
        ({"end_time": "soon"}, "Invalid end_time"),
        ({"config": []}, "$.config"),
    ],
)
async def test_one_that_cannot_be_is_named_and_holds_up_no_other(
    project: Project, wrong: dict[str, Any], reason: str
) -> None:
    project.declare({"a": {**DIGEST, **wrong}, "b": DIGEST, "c": [1]})
    changes = await project.sync()
    assert (changes["a"].action, changes["a"].cron_id, changes["b"].action) == ("invalid", None, "created")
    assert reason in (changes["a"].reason or "")
    assert said(changes["c"]) == ("invalid", [], "langgraph.json: 'c' must be an object, not list")
    assert await project.rows() == 1
    project.declare({"a": DIGEST, "b": {**DIGEST, **wrong}})
    before = await project.cron("b")
    changes = await project.sync()
    assert (changes["a"].action, changes["b"].action) == ("created", "invalid")
    assert changes["b"].cron_id == before.cron_id
    assert await project.cron("b") == before, "it goes on as it was"


async def test_a_dry_run_says_the_same_and_does_nothing(project: Project) -> None:
    project.declare({"a": DIGEST, "b": DIGEST, "c": DIGEST})
    await project.sync()
    project.is_told = 0
    await project.patch("c", schedule="@daily")
    project.declare({"a": {**DIGEST, "input": 1}, "c": DIGEST, "d": DIGEST, "e": {**DIGEST, "schedule": "x"}})
    before = [await project.cron(key) for key in "abc"]
    tried = await project.sync(dry_run=True)
    assert [await project.cron(key) for key in "abc"] == before
    assert (await project.rows(), project.is_told) == (3, 0)
    done = await project.sync()
    assert [said(change) for change in tried.values()] == [said(change) for change in done.values()]
    assert [change.action for change in done.values()] == [
        "changed",
        "paused",
        "drifted",
        "created",
        "invalid",
    ]
    assert tried["d"].cron_id is None
    assert done["d"].cron_id is not None


async def test_files_of_schedules_declare_too(project: Project) -> None:
    project.declare(
        {"digest": DIGEST, "twice": DIGEST},
        one=f"crons = {{'report': {DIGEST!r}, 'twice': {DIGEST!r}}}",
        two="import datetime\ndef crons():\n"
        f"    return {{'dated': {{**{DIGEST!r}, 'end_time': datetime.datetime(2100, 1, 1)}}}}",
        _helper="raise RuntimeError",
    )
    changes = await project.sync()
    assert {key: change.action for key, change in changes.items()} == {
        "dated": "created",
        "digest": "created",
        "report": "created",
        "twice": "invalid",
    }
    assert msgspec.json.decode((await project.cron("report")).metadata) == DIGEST["metadata"]
    assert changes["twice"].reason == "schedules/one.py: 'twice' is declared in langgraph.json too"
    assert (await project.sync())["dated"].action == "unchanged"


async def test_while_a_file_cannot_be_read_nothing_is_paused(project: Project) -> None:
    project.declare({"digest": DIGEST}, whole=f"crons = {{'report': {DIGEST!r}}}")
    await project.sync()
    project.declare({}, broken="import nothing_of_the_kind", listed="crons = []", empty="")
    changes = await project.sync()
    assert {key: change.action for key, change in changes.items()} == {
        "schedules/broken.py": "invalid",
        "schedules/empty.py": "invalid",
        "schedules/listed.py": "invalid",
    }
    assert "nothing_of_the_kind" in (changes["schedules/broken.py"].reason or "")
    assert "not list" in (changes["schedules/listed.py"].reason or "")
    assert (await project.cron("digest")).enabled
    assert (await project.cron("report")).enabled
    project.declare({})
    assert {change.action for change in (await project.sync()).values()} == {"paused"}


async def test_it_is_done_when_other_code_is_served(project: Project) -> None:
    project.declare({"digest": DIGEST})
    async with running(project.declarations()):
        project.wake()
        await until(lambda: _count(project))
        project.declare({"digest": DIGEST, "more": DIGEST})
        project.wake()

        async def both() -> bool:
            return await project.rows() == 2

        await until(both)


async def _count(project: Project) -> int:
    return await project.rows()
