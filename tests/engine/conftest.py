from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from matins.storage.pool import Pool, open_pool
from tests.support.engine import MOVABLE_CLOCK


@pytest.fixture
async def moving(database: str) -> AsyncIterator[Pool]:
    """A pool on a database whose clock a test can move."""
    async with open_pool(database, size=10) as opened:
        async with opened.connection() as conn:
            await conn.execute(MOVABLE_CLOCK)
        yield opened
