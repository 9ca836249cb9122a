"""A server on which no run may take longer than a second."""

from __future__ import annotations

from pathlib import Path

import httpx

from tests.support import servers
from tests.wire.compatibility import covers


@covers("Run", "status: timeout")
def test_a_run_that_takes_too_long_is_stopped_and_says_so(tmp_path: Path) -> None:
    with (
        servers.start(
            servers.EXAMPLES, tmp_path, args=["--no-reload"], env={"BG_JOB_TIMEOUT_SECS": "1"}
        ) as server,
        httpx.Client(base_url=server.url, timeout=60) as http,
    ):
        thread = f"/threads/{http.post('/threads', json={}).json()['thread_id']}"
        slow = {"assistant_id": "slow", "input": {"delay": 600}}
        waited = http.post(f"{thread}/runs/wait", json=slow)
        assert waited.status_code == 200
        assert waited.json()["__error__"]["error"] == "TimeoutError"
        assert http.get(waited.headers["content-location"]).json()["status"] == "timeout"
        assert http.get(waited.headers["location"]).json() == waited.json()
        assert http.get(thread).json()["status"] == "error"
        assert http.get(thread).json()["error"]["error"] == "TimeoutError"
        streamed = http.post(f"{thread}/runs/stream", json=slow).text
        assert streamed.split("\r\n\r\n")[-2].startswith("event: error\r\n")
