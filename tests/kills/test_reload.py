"""The code changes while the server works, Ctrl-C ends it, and everything goes on."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import anyio
import httpx
import pytest

from tests.support import servers
from tests.support.pools import until
from tests.support.servers import Server

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="finds the processes of a server in /proc")

STEPS: Final = (Path(__file__).parent / "project" / "steps.py").read_text()
SPEAKING: Final = """
import os
from langgraph.graph import END, START, StateGraph

NAMES = ("GREETING", "GONE", "MINE", "LANGGRAPH_STRICT_MSGPACK")

def speak(state):
    return {name: os.environ.get(name) for name in NAMES}

graph = StateGraph(dict).add_node("speak", speak).add_edge(START, "speak").add_edge("speak", END).compile()
"""
"""A graph that says what it finds in its environment."""

RELOAD_SECONDS: Final = 120.0


def code(version: int) -> str:
    """The graph of the project, whose runs say in `done` by which code they were counted."""
    return STEPS.replace('{"done": 0}', f'{{"done": {version * 1000}}}').replace(
        'state["done"] < state.get("steps", 1)', f'state["done"] < {version * 1000} + state.get("steps", 1)'
    )


@pytest.fixture
def project(tmp_path: Path) -> Path:
    directory = tmp_path / "project"
    directory.mkdir()
    (directory / "langgraph.json").write_text(
        json.dumps({"dependencies": ["."], "graphs": {"steps": "./steps.py:graph"}})
    )
    (directory / "steps.py").write_text(code(1))
    return directory


@pytest.fixture
def server(project: Path) -> Iterator[Server]:
    effects = project.parent / "effects"
    effects.touch()
    with servers.start(
        project / "langgraph.json",
        project.parent,
        env={"EFFECTS": str(effects)},
        data_dir=project / ".matins",
    ) as server:
        yield server


async def done(http: httpx.AsyncClient, **more: str) -> int:
    """Run the graph to its end; what it counted, where thousands are the version of the code."""
    body = {"assistant_id": "steps", "input": {"steps": 1, **more}}
    answer = await http.post("/runs/wait", json=body)
    answer.raise_for_status()
    return int(answer.json()["done"])


@pytest.mark.anyio
@pytest.mark.timeout(600)
async def test_new_code_takes_new_runs_and_old_runs_end_on_the_old(server: Server, project: Path) -> None:
    effects, the_end = project.parent / "effects", project.parent / "the_end"
    asked = 0
    is_over = False
    results: list[int] = []
    versions: list[int] = []

    async def keep_asking(http: httpx.AsyncClient) -> None:
        nonlocal asked
        while not is_over:
            (await http.get("/ok")).raise_for_status()
            versions.append(await done(http))
            asked += 2

    async def old_run(http: httpx.AsyncClient) -> None:
        results.append(await done(http, until=str(the_end)))

    async with httpx.AsyncClient(base_url=server.url, timeout=60) as http, anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(old_run, http)
        await until(lambda: effects.read_text().count(" step1001") == 3)
        for _ in range(4):
            group.start_soon(keep_asking, http)
        await until(lambda: len(versions) >= 20)
        assert set(versions) == {1001}

        (project / "steps.py").write_text(code(2))
        began = time.monotonic()
        with anyio.fail_after(RELOAD_SECONDS):
            await until(lambda: versions[-1] == 2001)
        print(
            f"\nnew code took over {time.monotonic() - began:.2f} s after the edit, {asked} requests so far"
        )

        seen = len(versions)
        (project / "steps.py").write_text("import nowhere_to_be_found\n")
        with anyio.fail_after(RELOAD_SECONDS):
            await until(lambda: "graphs.reload_failed" in server.log.read_text())
            refused = len(versions)
            await until(lambda: len(versions) >= refused + 20)
        assert set(versions[seen:]) <= {1001, 2001}
        assert versions[-1] == 2001
        assert "No module named 'nowhere_to_be_found'" in server.log.read_text()

        (project / "steps.py").write_text(code(3))
        with anyio.fail_after(RELOAD_SECONDS):
            await until(lambda: versions[-1] == 3001)
        assert results == []
        the_end.touch()
        with anyio.fail_after(RELOAD_SECONDS):
            await until(lambda: len(results) == 3)
        is_over = True
    assert results == [1001] * 3
    print(f"{asked} requests, none failed")


@pytest.mark.anyio
async def test_a_changed_env_file_is_what_the_new_code_finds(tmp_path: Path) -> None:
    config, env = tmp_path / "langgraph.json", tmp_path / ".env"
    config.write_text(json.dumps({"graphs": {"speak": "./speak.py:graph"}, "env": ".env"}))
    (tmp_path / "speak.py").write_text(SPEAKING)
    kept = "MINE=theirs\nLANGGRAPH_STRICT_MSGPACK=false\n"
    env.write_text(f"GREETING=hello\nGONE=soon\n{kept}")
    with servers.start(config, tmp_path, env={"MINE": "mine"}, data_dir=tmp_path / ".matins") as server:
        async with httpx.AsyncClient(base_url=server.url, timeout=60) as http:

            async def found() -> dict[str, str | None]:
                answer = await http.post("/runs/wait", json={"assistant_id": "speak", "input": {}})
                said: dict[str, str | None] = answer.raise_for_status().json()
                return said

            always = {"MINE": "mine", "LANGGRAPH_STRICT_MSGPACK": "true"}
            assert await found() == {"GREETING": "hello", "GONE": "soon", **always}
            env.write_text(f"GREETING=goodbye\n{kept}")
            with anyio.fail_after(RELOAD_SECONDS):
                while (said := await found())["GREETING"] == "hello":
                    pass
            assert said == {"GREETING": "goodbye", "GONE": None, **always}


@pytest.mark.anyio
async def test_ctrl_c_is_quick_and_runs_go_on_at_the_next_start(server: Server, project: Path) -> None:
    effects = project.parent / "effects"
    print(f"\ncold start {server.started_in_s:.2f} s")
    async with httpx.AsyncClient(base_url=server.url, timeout=30) as http:
        thread = (await http.post("/threads", json={})).json()["thread_id"]
        body = {"assistant_id": "steps", "input": {"steps": 12, "pause": 0.25}}
        run = (await http.post(f"/threads/{thread}/runs", json=body)).json()["run_id"]
        with anyio.fail_after(20):
            await until(lambda: effects.read_text().count(run) >= 4)
        began = time.monotonic()
        assert server.interrupt() == 0
        print(f"Ctrl-C took {time.monotonic() - began:.2f} s with a run under way")
        server.start()
        print(f"warm start {server.started_in_s:.2f} s")
        joined = await http.get(f"/threads/{thread}/runs/{run}/join")
        assert joined.json()["done"] == 1012
    steps = [line.split()[3] for line in effects.read_text().splitlines() if run in line]
    assert sorted(set(steps)) == sorted({"end", *(f"step{at}" for at in range(1001, 1013))})
    assert len(steps) <= 12 + 1 + 1, f"more than the step under way was repeated: {steps}"
    assert "run.requeued" in server.log.read_text(), (
        "it was killed 2 s after the grace, and handed nothing back"
    )


def test_the_data_directory_ignores_itself(server: Server, project: Path) -> None:
    subprocess.run(["git", "init", "--quiet", str(project)], check=True)
    listed = subprocess.run(
        ["git", "-C", str(project), "status", "--porcelain", "--untracked-files=all"],
        check=True,
        capture_output=True,
        text=True,
    )
    assert ".matins" not in listed.stdout
    assert "steps.py" in listed.stdout
