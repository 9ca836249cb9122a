from __future__ import annotations

import pytest

from matins.domain.errors import Invalid
from matins.domain.extraction import parse


@pytest.mark.parametrize(
    ("path", "steps"),
    [
        ("values", ["values"]),
        ("values.messages[-1].content", ["values", "messages", "-1", "content"]),
        ("metadata.a b.ü-1", ["metadata", "a b", "ü-1"]),
        ("interrupts.task[0].value", ["interrupts", "task", "0", "value"]),
        ("values[0][1]", ["values", "0", "1"]),
        ("config.configurable.0", ["config", "configurable", "0"]),
    ],
)
def test_a_path_leads_from_a_root_over_keys_and_places(path: str, steps: list[str]) -> None:
    assert parse(path) == steps


@pytest.mark.parametrize("path", ["", "bogus.path", "valuesx", ".values", "[0]", "Values.x", " values"])
def test_a_path_begins_at_a_root(path: str) -> None:
    with pytest.raises(Invalid) as refused:
        parse(path)
    assert str(refused.value) == (
        f"Extract path '{path}' must start with one of: config, interrupts, metadata, values"
    )


@pytest.mark.parametrize(
    "path",
    ["values.", "values..x", "values[x]", "values[1", "values[]", "values.a]", "values[0]x", "values[1.5]"],
)
def test_a_path_goes_on_with_keys_and_places(path: str) -> None:
    with pytest.raises(Invalid, match=r"must go on with \.key or \[number\]"):
        parse(path)
