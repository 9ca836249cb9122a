"""A node as a service manager, a terminal or an editor treats it: who is signalled, and what is left behind."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from pathlib import Path
from typing import Final

import anyio
import asyncpg
import httpx
import pytest
from anyio import to_thread

from tests.support import servers
from tests.support.pools import until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="finds the processes of a server in /proc")

PROJECT: Final = Path(__file__).parent / "project" / "langgraph.json"
STARTING: Final = """
import subprocess
from langgraph.graph import START, StateGraph

def start(state):
    return {"pid": subprocess.Popen(["sleep", "600"]).pid}

graph = StateGraph(dict).add_node("start", start).add_edge(START, "start").compile()
"""
"""A graph that starts a program and leaves it running."""


@pytest.mark.anyio
async def test_a_sigterm_to_every_process_lets_runs_end_and_crons_fire(tmp_path: Path) -> None:
    effects, the_end = tmp_path / "effects", tmp_path / "the_end"
    effects.touch()
    env = {"EFFECTS": str(effects), "BG_JOB_SHUTDOWN_GRACE_PERIOD_SECS": "60"}
    with servers.start(PROJECT, tmp_path, args=["--no-reload"], env=env) as server:
        async with httpx.AsyncClient(base_url=server.url, timeout=30) as http:
            thread = (await http.post("/threads", json={})).json()["thread_id"]
            body = {"assistant_id": "steps", "input": {"steps": 2, "until": str(the_end)}}
            run = (await http.post(f"/threads/{thread}/runs", json=body)).json()["run_id"]
            every = {"assistant_id": "steps", "schedule": "@every 1s", "input": {}}
            (await http.post("/runs/crons", json=every)).raise_for_status()
        connection = await asyncpg.connect(server.database_uri)
        with anyio.fail_after(60):
            await until(lambda: " step1" in effects.read_text())
            for _ in range(2):  # all at once, as systemd does, and then each is told again
                for pid in server.pids:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGTERM)
                await until(lambda: "node.stopping" in server.log.read_text())
            told = await connection.fetchval("SELECT matins.now()")
            fired = "SELECT count(*) FROM matins.cron_fire WHERE scheduled_for > $1 AND outcome = 'fired'"
            while await connection.fetchval(fired, told) < 2:  # noqa: ASYNC110 - the server tells nobody
                await anyio.sleep(0.05)
            await connection.close()
            the_end.touch()
            assert await to_thread.run_sync(server.wait_exit) == 0
        await to_thread.run_sync(server.wait_gone)
        await to_thread.run_sync(server.start)
        async with httpx.AsyncClient(base_url=server.url, timeout=30) as http:
            ended = (await http.get(f"/threads/{thread}/runs/{run}")).json()
        assert ended["status"] == "success"
    steps = [line.split()[3] for line in effects.read_text().splitlines() if run in line]
    assert steps == ["step1", "step2", "end"], "nothing was done twice"


def test_what_a_graph_has_started_ends_with_the_parent(tmp_path: Path) -> None:
    config = tmp_path / "langgraph.json"
    config.write_text(json.dumps({"graphs": {"starting": "./starting.py:graph"}}))
    (tmp_path / "starting.py").write_text(STARTING)
    with servers.start(config, tmp_path, args=["--no-reload"]) as server:
        body = {"assistant_id": "starting", "input": {}}
        answer = httpx.post(f"{server.url}/runs/wait", json=body, timeout=30)
        assert answer.json()["pid"] in server.pids
        server.kill()  # waits until nothing is left, that program among them


def test_files_of_the_users_shadow_no_module_of_the_server(tmp_path: Path) -> None:
    project = tmp_path / "project"
    (project / "email").mkdir(parents=True)
    (project / "email" / "__init__.py").write_text("raise RuntimeError('not the module that was meant')\n")
    (project / "starlette.py").write_text("raise RuntimeError('nor this')\n")
    (project / "agent.py").write_text(STARTING.replace('["sleep", "600"]', '["true"]'))
    (project / "langgraph.json").write_text(json.dumps({"graphs": {"agent": "./agent.py:graph"}}))
    port = servers.free_port()
    server = servers.Server(
        [str(Path(sys.executable).with_name("matins")), "dev", "--port", str(port)],
        port=port,
        log=tmp_path / "server.log",
        data_dir=project / ".matins",
        cwd=project,
    )
    with servers.clearing_away(server):
        server.start()
        assert server.answers()
