"""A server whose graphs call it, with as few lanes as make nesting hard."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from langgraph_sdk import get_client
from langgraph_sdk.client import LangGraphClient

from tests.support import databases, servers
from tests.support.servers import Server

GRAPHS = Path(__file__).parent / "graphs" / "langgraph.json"
LANES = 2


@pytest.fixture(scope="package")
def stored_in(postgres: str) -> Iterator[str]:
    """The DSN of the server's database."""
    with databases.database(postgres) as uri:
        yield uri


@pytest.fixture(scope="package", params=[1, 2], ids=["one worker", "two workers"])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, stored_in: str
) -> Iterator[Server]:
    env = {
        "DATABASE_URI": stored_in,
        "N_JOBS_PER_WORKER": str(LANES),
        "BG_JOB_SHUTDOWN_GRACE_PERIOD_SECS": "0",
    }
    directory, args = tmp_path_factory.mktemp("inside"), ["--workers", str(request.param)]
    with servers.start(GRAPHS, directory, command="serve", args=args, env=env) as running:
        yield running


@pytest.fixture
async def client(server: Server) -> AsyncIterator[LangGraphClient]:
    async with get_client(url=server.url) as made:
        yield made
