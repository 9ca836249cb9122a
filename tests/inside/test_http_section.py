"""What stands before clients does not stand before runs: a prefix, the user's own application, resources left out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from langgraph_sdk import get_client

from tests.inside.conftest import GRAPHS
from tests.support import servers

pytestmark = pytest.mark.anyio


async def test_runs_call_the_server_whatever_stands_before_clients(tmp_path: Path, database: str) -> None:
    env = {"DATABASE_URI": database, "BG_JOB_SHUTDOWN_GRACE_PERIOD_SECS": "0"}
    config = GRAPHS.parent / "guarded.json"
    with servers.start(config, tmp_path, command="serve", env=env) as server:
        async with httpx.AsyncClient(base_url=server.url) as http:
            assert (await http.post("/agents/runs/wait", json={})).status_code == 403
        async with get_client(url=f"{server.url}/agents", headers={"x-key": "known"}) as client:
            with anyio.fail_after(60):
                nested: Any = await client.runs.wait(None, "wait", input={"depth": 2})
                found: Any = await client.runs.wait(None, "calls", input={"do": "search_threads"})
    assert nested["seen"] == ["0", "1", "2"]
    assert found["did"] == "found"
