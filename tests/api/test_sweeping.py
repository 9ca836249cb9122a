from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest

from tests.support import servers
from tests.support.waiting import until


@pytest.mark.parametrize("strategy", ["delete", "keep_latest"])
def test_a_server_sweeps_the_threads_of_its_own_past(tmp_path: Path, strategy: str) -> None:
    """Made before anything was configured, and swept by the default; the one with a time to live of its own is not."""
    config = tmp_path / "langgraph.json"
    graphs = {"graphs": {"slow": str(servers.EXAMPLES.parent / "slow.py") + ":graph"}}
    config.write_text(json.dumps(graphs))
    with servers.start(config, tmp_path, args=["--no-reload"]) as server:
        with httpx.Client(base_url=server.url, timeout=30) as http:
            plain, own = (
                http.post("/threads", json=body).json()["thread_id"] for body in ({}, {"ttl": {"ttl": 600}})
            )
            asked = {"assistant_id": "slow", "input": {"delay": 0, "steps": 2}}
            for thread in (plain, own):
                http.post(f"/threads/{thread}/runs/wait", json=asked).raise_for_status()
            state = http.get(f"/threads/{plain}/state").json()
            assert http.get(f"/threads/{plain}?include=ttl").json()["ttl"] is None
        server.stop()
        ttl = {"strategy": strategy, "default_ttl": 0.01, "sweep_interval_minutes": 0.01}
        config.write_text(json.dumps({**graphs, "checkpointer": {"ttl": ttl}}))
        server.start()

        with httpx.Client(base_url=server.url, timeout=30) as http:

            def history(thread: str) -> list[str]:
                found = http.post(f"/threads/{thread}/history", json={"limit": 10})
                return [each["checkpoint_id"] for each in found.json()] if found.status_code == 200 else []

            expected = [] if strategy == "delete" else [state["checkpoint_id"]]
            until(lambda: history(plain) == expected, timeout_s=30)
            assert len(history(own)) == 5
            swept = http.get(f"/threads/{plain}?include=ttl")
            if strategy == "delete":
                assert swept.status_code == 404
            else:
                assert swept.json()["values"] == state["values"]
                shown = {"strategy": "keep_latest", "ttl_minutes": 0.01, "expires_at": None}
                assert swept.json()["ttl"] == shown
                again = http.post(f"/threads/{plain}/runs/wait", json=asked).json()
                assert again["done"] == 2
