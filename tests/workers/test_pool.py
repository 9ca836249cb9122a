from __future__ import annotations

import anyio
import pytest

from matins.domain.frames import Frame
from matins.workers.protocol import Settled
from tests.support.pools import RunPool

pytestmark = pytest.mark.anyio


async def test_a_run_streams_its_frames_in_order_and_settles(run_pool: RunPool) -> None:
    async with run_pool() as running:
        frames: list[Frame] = []
        with anyio.fail_after(5):
            outcome = await running.execute("echo", 500, frames=frames)
        assert isinstance(outcome, Settled)
        assert outcome.outcome == "success"
        assert [int(frame.data) for frame in frames] == list(range(500))
        assert running.graphs == [b"first"]
