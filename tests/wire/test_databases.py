"""Which database a node is on."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import asyncpg
import pytest

from tests.support import servers

pytestmark = pytest.mark.anyio


async def has_schema(uri: str) -> bool:
    connection = await asyncpg.connect(uri)
    try:
        return bool(await connection.fetchval("SELECT to_regnamespace('matins') IS NOT NULL"))
    finally:
        await connection.close()


@pytest.mark.parametrize(("name", "is_used"), [("DATABASE_URI", True), ("DATABASE_URL", False)])
async def test_dev_leaves_the_projects_own_database_alone(
    tmp_path: Path, empty_database: str, name: str, is_used: bool
) -> None:
    config = tmp_path / "langgraph.json"
    graph = servers.EXAMPLES.parent / "echo.py"
    config.write_text(json.dumps({"graphs": {"echo": f"{graph}:graph"}, "env": {name: empty_database}}))
    server = servers.Server(
        [
            sys.executable,
            "-m",
            "matins",
            "dev",
            "--config",
            str(config),
            "--port",
            str(port := servers.free_port()),
        ],
        port=port,
        log=tmp_path / "server.log",
        data_dir=None if is_used else tmp_path / ".matins",
    )
    with servers.clearing_away(server):
        server.start()
        assert await has_schema(empty_database) is is_used
