"""Schemathesis asks the server everything that its document allows, and much that it does not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from tests.support import servers, sinks
from tests.support.servers import ROOT
from tests.support.waiting import until

EXAMPLES: Final = os.environ.get("SCHEMA_EXAMPLES", "5")
"""How many cases are made up for each operation."""

PHASES: Final = os.environ.get("SCHEMA_PHASES", "examples,fuzzing,stateful")
SEED: Final = os.environ.get("SCHEMA_SEED", "1")


@pytest.mark.timeout(0)
def test_every_operation_does_what_the_document_says(tmp_path: Path) -> None:
    config = tmp_path / "langgraph.json"
    graphs = {"echo": f"{ROOT}/examples/echo.py:graph", "ask": f"{ROOT}/examples/ask.py:graph"}
    webhooks = {"url": {"require_https": False, "disable_loopback": False}}
    config.write_text(json.dumps({"dependencies": ["."], "graphs": graphs, "webhooks": webhooks}))
    report = tmp_path / "report.ndjson"
    with servers.start(config, tmp_path, args=["--no-reload"]) as server, sinks.start() as sink:
        told = {
            "SCHEMA_SERVER": server.url,
            "SCHEMA_SINK": sink.url("/hook"),
            "SCHEMA_DELIVERY": delivered(server.url, sink.url("/hook")),
        }
        ran = subprocess.run(
            [
                *(sys.executable, "-m", "schemathesis.cli"),
                *("--config-file", str(Path(__file__).parent / "schemathesis.toml")),
                *("run", f"{server.url}/openapi.json", "--phases", PHASES, "--workers", "1", "--no-color"),
                *("--max-examples", EXAMPLES, "--seed", SEED, "--include-path-regex", "."),
                *("--request-timeout", "30", "--continue-on-failure", "--generation-database", "none"),
                *("--report-ndjson-path", str(report)),
            ],
            cwd=ROOT,
            env=os.environ | told,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        document = httpx.get(f"{server.url}/openapi.json").json()
    sys.stdout.write(ran.stdout)
    assert ran.returncode == 0, ran.stdout
    described = {
        f"{method.upper()} {path}" for path, methods in document["paths"].items() for method in methods
    }
    found = answers(report)
    assert sorted(each for each in described if not any(status < 300 for status in found[each])) == []


def delivered(url: str, hook: str) -> str:
    """Give a delivery that was made to the hook."""
    with httpx.Client(base_url=url, timeout=30) as http:
        asked = {"messages": [{"role": "user", "content": "hi"}]}
        run = http.post("/runs", json={"assistant_id": "echo", "input": asked, "webhook": hook}).json()
        wanted: dict[str, Any] = {"run_id": run["run_id"], "status": "delivered"}
        until(lambda: http.get("/webhooks/deliveries", params=wanted).json())
        [delivery] = http.get("/webhooks/deliveries", params=wanted).json()
        return str(delivery["delivery_id"])


def answers(report: Path) -> dict[str, set[int]]:
    """Give the statuses with which each operation answered."""
    found: dict[str, set[int]] = defaultdict(set)
    with report.open() as lines:
        for line in lines:
            recorder = json.loads(line).get("ScenarioFinished", {}).get("recorder", {})
            for number, case in recorder.get("cases", {}).items():
                response = recorder["interactions"].get(number, {}).get("response")
                if response:
                    value = case["value"]
                    found[f"{value['method']} {value['path']}"].add(response["status_code"])
    return found
