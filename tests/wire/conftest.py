"""One server for all wire tests, and every client before a relay of its own."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal

from tests.support import servers
from tests.support.servers import Server
from tests.wire import sdks
from tests.wire.relay import Relay
from tests.wire.sdks import Sdk

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The walk over the routes comes last of these tests, while the relays still know what the others did."""
    places = [place for place, item in enumerate(items) if item.path.parent == HERE]
    ours = sorted((items[place] for place in places), key=lambda item: item.path.name == "test_routes.py")
    for place, item in zip(places, ours, strict=True):
        items[place] = item


@pytest.fixture(scope="package")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("wire")
    with servers.start(HERE / "graphs" / "langgraph.json", directory, args=["--no-reload"]) as running:
        yield running


@pytest.fixture(scope="package")
def portal() -> Iterator[BlockingPortal]:
    with start_blocking_portal() as started:
        yield started


@pytest.fixture(scope="package")
def relays(server: Server, portal: BlockingPortal) -> Iterator[dict[str, Relay]]:
    """A relay for each kind of client, and one for plain HTTP."""
    found = {kind: Relay(server.port) for kind in (*sdks.KINDS, "http")}
    running = [portal.start_task(relay.run)[0] for relay in found.values()]
    yield found
    for future in running:
        future.cancel()


@pytest.fixture(scope="package")
def connected(relays: dict[str, Relay], portal: BlockingPortal) -> Iterator[Callable[[str], Sdk]]:
    """Give the client of a kind, connected once."""
    with ExitStack() as stack:
        made: dict[str, Sdk] = {}

        def connect(kind: str) -> Sdk:
            if kind not in made:
                made[kind] = stack.enter_context(sdks.connect(kind, relays[kind].url, portal))
            return made[kind]

        yield connect


@pytest.fixture(params=sdks.KINDS)
def sdk(request: pytest.FixtureRequest, connected: Callable[[str], Sdk]) -> Sdk:
    """Each of the four clients in turn."""
    return connected(request.param)


@pytest.fixture(scope="package")
def http(relays: dict[str, Relay]) -> Iterator[httpx.Client]:
    """Plain HTTP."""
    with httpx.Client(base_url=relays["http"].url, timeout=30) as client:
        yield client


@pytest.fixture(scope="package")
def stored(server: Server) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
    """The server's database, for what no client is shown."""
    with psycopg.connect(server.database_uri, autocommit=True) as connection:
        yield connection


@pytest.fixture(scope="package")
def rows(stored: psycopg.Connection[tuple[Any, ...]]) -> Callable[[], dict[str, int]]:
    """Count the rows of every table that the API writes."""
    tables = ("assistant", "thread", "run", "cron", "cron_fire", "webhook_delivery")
    counts = ", ".join(f"'{table}', (SELECT count(*) FROM matins.{table})" for table in tables)

    def count() -> dict[str, int]:
        found: Any = stored.execute(f"SELECT json_build_object({counts})").fetchone()
        return found[0] if isinstance(found[0], dict) else json.loads(found[0])

    return count
