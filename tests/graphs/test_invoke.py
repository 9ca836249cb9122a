from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from matins import manifest
from matins.graphs.registry import Registry
from matins.storage.pool import Pool
from tests.support.orders import Lane, claim, order

pytestmark = pytest.mark.anyio

EXAMPLES = Path(__file__).parents[2] / "examples" / "langgraph.json"


@pytest.fixture(scope="module")
def examples() -> Registry:
    return Registry.load(manifest.read(EXAMPLES))


def human(text: str) -> dict[str, object]:
    return {"messages": [{"role": "user", "content": text}]}


async def test_an_echo_run_streams_its_values_and_settles_with_them(pool: Pool, examples: Registry) -> None:
    held = await claim(pool)
    lane = Lane(examples, pool)
    settled = await lane.execute(order(held, "echo", input=human("hi")))
    assert settled.outcome == "success"
    values = msgspec.json.decode(settled.values or b"")
    assert [message["content"] for message in values["messages"]] == ["hi", "hi"]
    assert msgspec.json.decode(settled.reply) == values
    assert settled.has_next is False
    assert settled.checkpoint_id is not None
    assert lane.events == ["metadata", "values", "values"]
    assert lane.frames[0][1] == {"run_id": str(held.run_id), "attempt": 1}
    assert lane.frames[-1][1] == values
