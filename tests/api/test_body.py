from __future__ import annotations

import contextlib
from typing import Any

import msgspec
import pytest

from matins.api import body
from matins.domain.errors import Invalid
from tests.wire.compatibility import covers


def nested(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


def in_value(text: bytes) -> bytes:
    return b'{"a":' + text + b"}"


@pytest.mark.parametrize(
    "raw",
    [
        b'{"a":"\\u0000"}',
        b'{"\\u0000":1}',
        b'{"a":"\\\\\\u0000"}',
        b'{"a":"x\x00y"}',
        b'{"a":"\\ud800"}',
        b'{"a":"\\udc00 and more"}',
        b'{"a":"\\ud800\\u0041"}',
        b'{"a":"\xed\xa0\x80"}',
        b'{"a":"\xff"}',
        b'{"a":NaN}',
        b'{"a":Infinity}',
        b'{"a":1e400}',
        in_value(b"18446744073709551616"),
        in_value(b"-9223372036854775809"),
        in_value(b"[[123,99999999999999999999]]"),
        in_value(b"1" * 5000),
        nested(65),
        in_value(nested(64)),
        nested(100_000),
        b"[" * 100_000,
        b'{"a":' * 70 + b"1" + b"}" * 70,
        b'\xef\xbb\xbf{"a":1}',
        '{"a":1}'.encode("utf-16"),
        b"",
        b"{",
        b'{"a":1} x',
        b'{"a":"\n"}',
        b"{'a':1}",
    ],
    ids=lambda raw: f"{len(raw)} {raw[:24]!r}",
)
def test_json_that_cannot_be_held_everywhere_is_refused(raw: bytes) -> None:
    with pytest.raises(Invalid):
        body.decode(raw, object)


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        (b'{"a":"\\\\u0000"}', {"a": "\\u0000"}),
        (b'{"a":"\\ud83d\\ude00"}', {"a": "\U0001f600"}),
        (in_value(b"9223372036854775808"), {"a": 2**63}),
        (in_value(b"18446744073709551615"), {"a": 2**64 - 1}),
        (in_value(b"-9223372036854775808"), {"a": -(2**63)}),
        (in_value(b"0.12345678901234567890123"), {"a": 0.12345678901234567890123}),
        (b'{"a":"1234567890123456789012345"}', {"a": "1234567890123456789012345"}),
        (b'{"lc":1}', {"lc": 1}),
        (b'{"a":"' + b"[" * 200 + b'"}', {"a": "[" * 200}),
        (b'{"a":"\\"' + b"[{" * 200 + b'"}', {"a": '"' + "[{" * 200}),
        (b" {} ", {}),
        (b"[" + b"[]," * 100 + b"{}]", [*([[]] * 100), {}]),
    ],
    ids=lambda raw: f"{len(raw)} {raw[:24]!r}" if isinstance(raw, bytes) else "",
)
def test_what_only_looks_suspicious_is_taken(raw: bytes, value: object) -> None:
    assert body.decode(raw, object) == value


def test_nesting_may_be_64_deep() -> None:
    body.check(nested(64))
    body.check(in_value(nested(63)))


@pytest.mark.parametrize(
    "raw",
    [
        b"[" + b"{}," * 10_000_000 + b"{}]",
        b'{"a":"' + b'\\"[' * 10_000_000 + b'"}',
        b"[" * 65 + b'"' + b'\\"' * 10_000_000,
        b"[" * 65 + b'"' + b'\\"' * 10_000_000 + b"\\",
    ],
    ids=["small objects", "a string of escapes", "a string that never ends", "one that ends in an escape"],
)
def test_the_largest_bodies_are_checked_in_linear_time(raw: bytes) -> None:
    """A second or two; what takes the square of it meets no time-out that a test has."""
    with contextlib.suppress(Invalid):
        body.check(raw)


class Shape(msgspec.Struct):
    schedule: str
    inner: dict[str, list[int]] = {}


@covers("Refusal", "422 unfit")
@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"{}", '"schedule" is a required property'),
        (b'{"schedule":5}', "Expected string, got integer, in schedule"),
        (b'{"schedule":null}', "Expected string, got null, in schedule"),
        (b"[1]", "Expected object, got array"),
        (b"", "Invalid JSON in request body"),
    ],
)
def test_a_refusal_names_what_does_not_fit(raw: bytes, text: str) -> None:
    with pytest.raises(Invalid) as refused:
        body.decode(raw, Shape)
    assert str(refused.value) == text


def test_unknown_fields_are_ignored() -> None:
    read: Any = body.decode(b'{"schedule":"x","more":[{}]}', Shape)
    assert read == Shape("x")
