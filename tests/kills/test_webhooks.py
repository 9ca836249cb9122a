"""kill -9 between a report that has arrived and the note that it has: it arrives again, as the same one."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import httpx
import psycopg
import pytest

from tests.support import servers, sinks
from tests.support.waiting import until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="finds the processes of a server in /proc")

LOCAL = json.dumps({"url": {"require_https": False, "disable_loopback": False}})


def test_what_was_sent_by_a_process_that_died_is_sent_again_with_the_same_id(tmp_path: Path) -> None:
    with (
        sinks.start() as sink,
        servers.start(
            servers.EXAMPLES, tmp_path, args=["--no-reload"], env={"LANGGRAPH_WEBHOOKS": LOCAL}
        ) as server,
        httpx.Client(base_url=server.url, timeout=30) as client,
    ):
        sink.behaviour["/hook"] = "hang"  # it has the report and does not say so
        asked = {"assistant_id": "echo", "input": {"messages": []}, "webhook": sink.url("/hook")}
        run = client.post("/runs", json=asked)
        assert run.status_code == 200
        [first] = sink.wait_for("/hook")
        dead = server.serving
        os.kill(dead, signal.SIGKILL)
        until(lambda: dead not in server.pids)
        server.wait_ready()
        del sink.behaviour["/hook"]
        with psycopg.connect(server.database_uri, autocommit=True) as stored:
            [(attempts, delivered_at)] = stored.execute(
                "SELECT attempts, delivered_at FROM matins.webhook_delivery"
            ).fetchall()
            assert (attempts, delivered_at) == (1, None)
            stored.execute(
                "UPDATE matins.webhook_delivery SET next_attempt_at = matins.now()"
            )  # a claim's end
        _, second = sink.wait_for("/hook", 2)
        assert second.id == first.id
        assert second.body["run_id"] == run.json()["run_id"]
        [told] = until(lambda: client.get("/webhooks/deliveries", params={"status": "delivered"}).json())
        assert (told["delivery_id"], told["attempts"]) == (first.id, 2)
