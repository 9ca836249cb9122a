from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from matins.storage.pool import Pool, open_pool
from tests.support import databases
from tests.support.engine import MOVABLE_CLOCK, Node, node
from tests.support.work import GRAPHS, Work


@pytest.fixture
async def moving(database: str) -> AsyncIterator[Pool]:
    """A pool on a database whose clock a test can move."""
    async with open_pool(database, size=10) as opened:
        async with opened.connection() as conn:
            await conn.execute(MOVABLE_CLOCK)
        yield opened


@pytest.fixture(scope="module")
def shared_database(postgres: str) -> Iterator[str]:
    with databases.database(postgres) as uri:
        yield uri


@pytest.fixture(scope="module")
async def engine(shared_database: str) -> AsyncIterator[Node]:
    async with node(shared_database, GRAPHS) as running:
        yield running


@pytest.fixture
def work(tmp_path: Path) -> Work:
    return Work(tmp_path)
