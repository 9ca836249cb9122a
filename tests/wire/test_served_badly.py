"""An application that cannot be served ends the start with one line."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.support import servers

NO_START = """
from contextlib import asynccontextmanager
from fastapi import FastAPI

@asynccontextmanager
async def lifespan(app):
    raise ValueError("no model")
    yield

app = FastAPI(lifespan=lifespan)
"""


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("app = 1 / 0", "front.py:1: ZeroDivisionError: division by zero"),
        (NO_START, "front.py:7: ValueError: no model"),
    ],
)
def test_the_server_exits_with_2_and_says_why(tmp_path: Path, database: str, code: str, why: str) -> None:
    (tmp_path / "front.py").write_text(code)
    config = tmp_path / "langgraph.json"
    graphs = {"echo": f"{servers.EXAMPLES.parent / 'echo.py'}:graph"}
    config.write_text(json.dumps({"graphs": graphs, "http": {"app": "./front.py:app"}}))
    port = servers.free_port()
    server = servers.Server(
        [sys.executable, "-m", "matins", "serve", "--config", str(config), "--port", str(port)],
        port=port,
        log=tmp_path / "server.log",
        env={"DATABASE_URI": database},
    )
    with servers.clearing_away(server):
        server.launch()
        assert server.wait_exit(timeout_s=60) == 2
        last = server.log.read_text().splitlines()[-1]
        assert last.startswith(f"matins: {config}: http.app: ")
        assert last.endswith(why)
