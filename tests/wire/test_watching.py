"""Who watches the server: /metrics, /ok when its scheduler stands still, the heartbeat, what is logged of a fire."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from queue import Queue
from typing import Any, Self

import httpx
import psycopg
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support import servers
from tests.support.servers import Server
from tests.support.waiting import until
from tests.wire.compatibility import covers

CONFIG = Path(__file__).parent / "graphs" / "langgraph.json"
SAID = {"messages": [{"role": "user", "content": "tick"}]}

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def scrape(http: httpx.Client) -> Samples:
    response = http.get("/metrics").raise_for_status()
    assert response.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    }


def value(found: Samples, name: str, **labels: str) -> float:
    return found.get((f"matins_{name}", frozenset(labels.items())), 0.0)


def create(http: httpx.Client, **asked: Any) -> str:
    body = {"assistant_id": "echo", "schedule": "@every 1s", "input": SAID, **asked}
    cron_id: str = http.post("/runs/crons", json=body).raise_for_status().json()["cron_id"]
    return cron_id


@covers("GET /metrics", "200")
def test_what_fires_is_counted_and_how_late_it_was(http: httpx.Client) -> None:
    before = scrape(http)
    cron_id = create(http)
    fires = f"/runs/crons/{cron_id}/fires"
    until(lambda: len(http.get(fires, params={"status": "success"}).json()) >= 2)
    http.patch(f"/runs/crons/{cron_id}", json={"enabled": False}).raise_for_status()
    http.post(f"/runs/crons/{cron_id}/trigger").raise_for_status()
    until(lambda: http.get(fires, params={"trigger": "manual", "status": "success"}).json())
    after, ledger = scrape(http), http.get(fires, params={"limit": 1000}).json()
    http.delete(f"/runs/crons/{cron_id}").raise_for_status()

    def rise(name: str, **labels: str) -> float:
        return value(after, name, **labels) - value(before, name, **labels)

    on_time = [fire for fire in ledger if fire["trigger"] == "schedule"]
    assert rise("cron_fires_total", outcome="fired", trigger="schedule") >= len(on_time) >= 2
    assert rise("cron_fires_total", outcome="fired", trigger="manual") >= 1
    assert rise("cron_fire_lateness_seconds_count") == rise(
        "cron_fires_total", outcome="fired", trigger="schedule"
    )
    late_s = sum(fire["lateness_ms"] for fire in on_time) / 1000
    assert rise("cron_fire_lateness_seconds_sum") >= late_s - 0.01 * len(on_time)
    [newest, *_] = sorted((fire["ended_at"] for fire in ledger), reverse=True)
    assert (
        value(after, "cron_last_success_timestamp_seconds")
        >= datetime.fromisoformat(newest).timestamp() - 0.001
    )


def test_crons_runs_and_the_scheduler_are_measured(http: httpx.Client) -> None:
    thread_id = http.post("/threads", json={}).json()["thread_id"]
    later = {"assistant_id": "echo", "input": SAID, "after_seconds": 600}
    http.post(f"/threads/{thread_id}/runs", json=later).raise_for_status()
    off = create(http, enabled=False)
    first = scrape(http)
    found = until(
        lambda: (
            (seen := scrape(http))
            and value(seen, "scheduler_last_look_timestamp_seconds")
            > value(first, "scheduler_last_look_timestamp_seconds")
            and value(seen, "crons", state="paused") >= 1
            and seen
        )
    )
    http.delete(f"/runs/crons/{off}").raise_for_status()
    http.delete(f"/threads/{thread_id}").raise_for_status()
    assert value(found, "database_up") == 1
    assert value(found, "runs", status="pending") >= 1
    assert 0 <= value(found, "scheduler_lag_seconds") < 5
    assert ("matins_lanes_in_use", frozenset()) in found
    assert abs(value(found, "scheduler_last_look_timestamp_seconds") - time.time()) < 10  # noqa: TID251 - as Prometheus


class Watcher:
    """Who hears heartbeats."""

    def __init__(self) -> None:
        self.heard: Queue[str] = Queue()
        heard = self.heard

        class Answer(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.end_headers()
                heard.put(self.path)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
                """Say nothing."""

        self._server = HTTPServer(("127.0.0.1", 0), Answer)
        self.url = f"http://127.0.0.1:{self._server.server_port}/ping/secret"
        self._thread = threading.Thread(target=self._server.serve_forever)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture(scope="module")
def watcher() -> Iterator[Watcher]:
    with Watcher() as watching:
        yield watching


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory, watcher: Watcher) -> Iterator[Server]:
    """A server of its own, whose scheduler may be stopped."""
    env = {"MATINS_HEARTBEAT_URL": watcher.url, "LOG_JSON": "true"}
    directory = tmp_path_factory.mktemp("watched")
    with servers.start(CONFIG, directory, args=["--no-reload"], env=env) as running:
        yield running


@pytest.fixture
def asks(watched: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=watched.url, timeout=30) as client:
        yield client


def test_a_heartbeat_is_heard_at_the_first_look(watched: Server, watcher: Watcher) -> None:
    assert watcher.heard.get(timeout=10) == "/ping/secret"


@covers("GET /ok", "503")
@pytest.mark.parametrize("path", ["/", "/ok"])
def test_a_scheduler_that_does_not_look_is_not_ok(watched: Server, asks: httpx.Client, path: str) -> None:
    with psycopg.connect(watched.database_uri) as other:
        other.execute("LOCK TABLE matins.cron")
        refused = until(lambda: (said := asks.get(path)).status_code == 503 and said)
        line = refused.json()["detail"]
        assert line.startswith("The scheduler of this node has not looked at its crons for ")
        assert "\n" not in line
        assert asks.head(path).status_code == 503
        assert asks.get("/ready").status_code == 200, "it holds its lease"
        found = scrape(asks)
        assert value(found, "database_up") == 0
        assert not [name for name, _ in found if name == "matins_scheduler_lag_seconds"], "it is not known"
        assert (
            "matins_cron_fires_total",
            frozenset({("outcome", "fired"), ("trigger", "schedule")}),
        ) in found
    until(lambda: asks.get(path).status_code == 200)
    assert value(until(lambda: scrape(asks)), "database_up") == 1


def test_a_database_that_is_away_is_no_reason_to_restart_a_node_for_long(
    watched: Server, asks: httpx.Client
) -> None:
    """A supervisor that wants to see /ok fail for longer than a lease lets the node live."""
    stopped = watched.postgres_pids
    try:
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        began = time.monotonic()
        until(lambda: asks.get("/ok").status_code == 503)
        until(lambda: asks.get("/ok").status_code == 200, timeout_s=30)
        assert time.monotonic() - began < 20
        assert asks.get("/ready").status_code == 503
    finally:
        for pid in stopped:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
    until(lambda: asks.get("/ready").status_code == 200)
    until(lambda: asks.get("/ok").status_code == 200 and asks.get("/runs/crons/pause").status_code == 200)


def test_each_fire_is_a_line_of_the_log(watched: Server, asks: httpx.Client) -> None:
    cron_id = create(asks)
    asks.post(f"/runs/crons/{cron_id}/trigger").raise_for_status()
    fires = f"/runs/crons/{cron_id}/fires"
    until(lambda: asks.get(fires, params={"trigger": "schedule"}).json())
    asks.delete(f"/runs/crons/{cron_id}").raise_for_status()
    ledger = {fire["run_id"]: fire for fire in asks.get(fires, params={"limit": 1000}).json()}

    def logged() -> dict[str, dict[str, Any]]:
        lines = [json.loads(text) for text in watched.log.read_text().splitlines() if text.startswith("{")]
        return {each["run_id"]: each for each in lines if each["event"] == "cron.fired"}

    said = until(lambda: (found := logged()) and ledger.keys() <= found.keys() and found)
    for run_id, fire in ledger.items():
        line = said[run_id]
        assert (line["cron_id"], line["trigger"], line["outcome"]) == (cron_id, fire["trigger"], "fired")
        assert line["slot"] == fire["scheduled_for"]
        assert ("late_s" in line) == (fire["trigger"] == "schedule")
    assert {fire["trigger"] for fire in ledger.values()} == {"schedule", "manual"}
