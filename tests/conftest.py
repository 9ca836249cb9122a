from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from typing import Any

import hypothesis
import pytest
from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]

from matins.storage.pool import Pool, open_pool
from tests.support import databases

# As the parent sets it for each worker: LangGraph reads it once, when it is imported.
os.environ["LANGGRAPH_STRICT_MSGPACK"] = "true"

hypothesis.settings.register_profile(
    "matins", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)  # a slow machine is no error
hypothesis.settings.load_profile("matins")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "covers(subject, *aspects): what it shows of the API; see tests/wire/compatibility"
    )


FIRST = (
    "tests/wire/",
    "tests/model/test_model.py",
    "tests/engine/test_cron_years.py",
    "tests/model/",
    "tests/engine/",
)
"""What takes longest in one piece: begun last, it would keep one process busy while the others have nothing to do."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def place(item: pytest.Item) -> int:
        return next((n for n, prefix in enumerate(FIRST) if item.nodeid.startswith(prefix)), len(FIRST))

    items.sort(key=place)


class Together(LoadScopeScheduling):  # type: ignore[misc]
    """Where several processes share the tests: a file stays together, and all of wire, which walks what it asked."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.split("::", 1)[0]
        return "tests/wire" if file.startswith("tests/wire/") else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Together:
    return Together(config, log)


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The DSN of a server for all tests; `database` is what a test wants."""
    with databases.server(tmp_path_factory.mktemp("postgres")) as uri:
        yield uri


@pytest.fixture
def database(postgres: str) -> Iterator[str]:
    """The DSN of a migrated database of the test's own."""
    with databases.database(postgres) as uri:
        yield uri


@pytest.fixture
def empty_database(postgres: str) -> Iterator[str]:
    """The DSN of a database that nobody has migrated."""
    with databases.database(postgres, template="template0") as uri:
        yield uri


@pytest.fixture
async def pool(database: str) -> AsyncIterator[Pool]:
    async with open_pool(database, size=10) as opened:
        yield opened
