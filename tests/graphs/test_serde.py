from __future__ import annotations

import json
from collections import OrderedDict, deque, namedtuple
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, ToolMessage
from langgraph.types import Command, Interrupt, Send
from pydantic import BaseModel

from matins.graphs.serde import encode

Pair = namedtuple("Pair", "a b")  # noqa: PYI024 - what users write


class Colour(Enum):
    RED = "red"


class Model(BaseModel):
    b: int = 1
    a: Any = None


@dataclass
class Plan:
    z: int
    steps: list[Any] = field(default_factory=list)


class Hostile:
    def __repr__(self) -> str:
        raise RuntimeError("no")


class Known:
    def __repr__(self) -> str:
        return "<known>"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"b": 1, "a": [None, True, 1.5, "ä"]}, '{"b":1,"a":[null,true,1.5,"ä"]}'),
        (Colour.RED, '"red"'),
        (datetime(2026, 11, 22, 12, 0, 0, 5, tzinfo=UTC), '"2026-11-22T12:00:00.000005+00:00"'),
        (date(2026, 11, 22), '"2026-11-22"'),
        (time(9, 30), '"09:30:00"'),
        (time(9, 30, tzinfo=UTC), '"09:30:00+00:00"'),
        ({time(9, 30, tzinfo=UTC): 1}, '{"09:30:00+00:00":1}'),
        (timedelta(seconds=90), "90.0"),
        (UUID(int=1), '"00000000-0000-0000-0000-000000000001"'),
        ((1, 2), "[1,2]"),
        ({1}, "[1]"),
        (deque([1, 2]), "[1,2]"),
        (Pair(1, 2), "[1,2]"),
        (OrderedDict(b=1, a=2), '{"b":1,"a":2}'),
        (b"\x00\xff", '"AP8="'),
        (Decimal("1.10"), '"1.10"'),
        (Path("a/b"), '"a/b"'),
        (Model(a=Plan(1)), '{"b":1,"a":{"z":1,"steps":[]}}'),
        (Plan(1, [Known()]), '{"z":1,"steps":["<known>"]}'),
        (ValueError("x"), "\"ValueError('x')\""),
        (Hostile(), '"<Hostile>"'),
        (Plan, f'"{Plan!r}"'),
        (Send("n", {"x": 1}), '{"node":"n","input":{"x":1}}'),
        (Interrupt(value=1, id="i"), '{"value":1,"id":"i","response_schema":null}'),
        (Command(goto="n"), '{"graph":null,"update":null,"resume":null,"goto":"n"}'),
        # What JSON or Postgres cannot hold.
        (float("nan"), "null"),
        ([float("inf"), 1], "[null,1]"),
        ("a\x00b", '"a\ufffdb"'),
        ({"k\x00": "\ud800"}, '{"k\ufffd":"\ufffd"}'),
        ("literally \\u0000", '"literally \\\\u0000"'),
        (
            [2**64 - 1, 2**64, -(2**63) - 1],
            '[18446744073709551615,"18446744073709551616","-9223372036854775809"]',
        ),
        ({1: "a", None: "b", 1.5: "d", Colour.RED: "e"}, '{"1":"a","null":"b","1.5":"d","red":"e"}'),
        ({(1, 2): 3}, '{"[1,2]":3}'),
        ({"x": {2**70: float("nan")}}, f'{{"x":{{"{2**70}":null}}}}'),
        (Model(a={"n": "\x00"}), '{"b":1,"a":{"n":"\ufffd"}}'),
        (Plan(1, ["\ud800"]), '{"z":1,"steps":["\ufffd"]}'),
    ],
)
def test_a_value_becomes_this_json(value: object, expected: str) -> None:
    assert encode(value).decode() == expected


def test_messages_have_the_keys_of_the_wire_in_their_order() -> None:
    plain = ["content", "additional_kwargs", "response_metadata", "type", "name", "id"]
    assert list(json.loads(encode(HumanMessage("hi", id="m1")))) == plain
    assert encode(HumanMessage("hi", id="m1")) == (
        b'{"content":"hi","additional_kwargs":{},"response_metadata":{},"type":"human","name":null,"id":"m1"}'
    )
    assert list(json.loads(encode(AIMessage("hi")))) == [
        *plain,
        "tool_calls",
        "invalid_tool_calls",
        "usage_metadata",
    ]
    assert list(json.loads(encode(ToolMessage("hi", tool_call_id="t")))) == [
        *plain,
        "tool_call_id",
        "artifact",
        "status",
    ]
    assert list(json.loads(encode(AIMessageChunk(content="hi")))) == [
        *plain, "tool_calls", "invalid_tool_calls", "usage_metadata", "tool_call_chunks", "chunk_position",
    ]  # fmt: skip


def test_what_has_no_end_is_cut() -> None:
    circle: list[Any] = []
    circle.append(circle)
    mapping: dict[str, Any] = {}
    mapping["self"] = mapping
    deep: Any = 1
    for _ in range(5000):
        deep = [deep]
    for endless in (circle, mapping, deep, Plan(1, circle), Model(a=deep)):
        json.loads(encode(endless))


text = st.text(st.characters(codec=None, categories=None))
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.binary() | st.dates() | st.timedeltas()
    | text | st.builds(Known) | st.builds(Hostile),
    lambda inner: st.lists(inner)
    | st.dictionaries(text | st.integers() | st.floats(), inner)
    | st.builds(Plan, st.integers(), st.lists(inner))
    | st.builds(lambda a: Model(a=a), inner),
    max_leaves=12,
)  # fmt: skip


@given(anything)
def test_nothing_fails_and_all_is_json_that_postgres_takes(value: object) -> None:
    encoded = encode(value)
    text = encoded.decode("utf-8", "strict")
    assert "\n" not in text

    def check(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        assert not any("\x00" in key for key, _ in pairs)
        return dict(pairs)

    def no_constant(name: str) -> None:
        pytest.fail(name)

    def strings(value: object) -> None:
        if isinstance(value, str):
            assert "\x00" not in value
        elif isinstance(value, list):
            for item in value:
                strings(item)
        elif isinstance(value, dict):
            for item in value.values():
                strings(item)

    strings(json.loads(text, object_pairs_hook=check, parse_constant=no_constant))
