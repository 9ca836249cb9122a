from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from tests.support import servers


@pytest.fixture(scope="package")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.Server]:
    """One server with the example graphs for all tests of the API; each test makes what it needs."""
    with servers.start(servers.EXAMPLES, tmp_path_factory.mktemp("api"), args=["--no-reload"]) as started:
        yield started


@pytest.fixture
def api(server: servers.Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=30) as client:
        yield client


@pytest.fixture
def thread_id(api: httpx.Client) -> str:
    made: str = api.post("/threads", json={}).json()["thread_id"]
    return made
