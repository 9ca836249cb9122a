from __future__ import annotations

import json
from collections.abc import AsyncGenerator

import pytest
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.conformance import checkpointer_test, validate
from langgraph.checkpoint.conformance.capabilities import Capability

from matins.graphs.checkpoints import Saver
from matins.storage.pool import Pool
from tests.support import rows

pytestmark = pytest.mark.anyio


async def test_langgraphs_own_suite_passes_with_every_capability(pool: Pool) -> None:
    @checkpointer_test(name="matins, thread")
    async def on_thread() -> AsyncGenerator[BaseCheckpointSaver[str], None]:
        async with pool.transaction() as conn:
            yield Saver.for_thread(conn)

    report = await validate(on_thread)
    failures = {name: result.failures for name, result in report.results.items() if result.failures}
    assert failures == {}
    assert all(result.passed for result in report.results.values()), json.dumps(report.to_dict())
    assert len(report.results) == len(Capability)


async def test_langgraphs_own_suite_passes_behind_the_fence(pool: Pool) -> None:
    @checkpointer_test(name="matins, run")
    async def of_run() -> AsyncGenerator[BaseCheckpointSaver[str], None]:
        async with pool.connection() as conn:
            held = await rows.running(conn)
        yield Saver.for_run(pool, held, lambda: pytest.fail("the run is held"))

    report = await validate(of_run, capabilities={"put", "put_writes", "get_tuple", "list"})
    assert {name: result.failures for name, result in report.results.items() if result.failures} == {}
    assert [result.passed for result in report.results.values()].count(True) == 4
