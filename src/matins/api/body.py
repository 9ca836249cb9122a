"""Bodies: read and check a request's, decode it into a shape, encode a response.

The check is the only door for JSON: what has passed it can be stored by Postgres, carried by MessagePack and read by
any client. It works on the raw bytes at the speed of C and parses only when something looks suspicious, because it
stands in the way of every request.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Final, TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from matins.domain.errors import Invalid

T = TypeVar("T")

LIMIT_BYTES: Final = 32 * 1024 * 1024
"""The largest body that is read."""

DEPTH: Final = 64
"""How deep arrays and objects may nest: below what any encoder on the way to a graph and back gives up at."""

_MALFORMED: Final = "Invalid JSON in request body"
_INTEGERS: Final = range(-(2**63), 2**64)
_LONGEST_INTEGER: Final = 20  # characters of the longest of them

_NUL: Final = re.compile(
    rb"(?<!\\)(?:\\\\)*\\u0000"
)  # an even number of backslashes before it are characters
# Also one that never ends: else each quote in it would be tried as the beginning of another.
_STRING: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)', re.DOTALL)
_DIGITS: Final = bytes.maketrans(b"123456789", b"000000000")
_BRACKETS: Final = bytes.maketrans(b"{}", b"[]")
_NO_BRACKETS: Final = bytes(set(range(256)) - set(b"[]{}"))

_KINDS: Final = {"str": "string", "int": "integer", "float": "number", "bool": "boolean"}


class TooLarge(Invalid):
    """The body is larger than any that is read."""

    code = "too_large"

    def __init__(self) -> None:
        super().__init__(f"The request body is larger than {LIMIT_BYTES // 2**20} MiB")


async def read(request: Request, shape: type[T]) -> T:
    """Give the request's JSON in that shape.

    Raises: TooLarge; Invalid when it is no JSON, none that can be stored, or does not fit.
    """
    return decode(await read_raw(request), shape)


async def read_raw(request: Request) -> bytes:
    """Give the request's body, counting while it comes in.

    Raises: TooLarge.
    """
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > LIMIT_BYTES:
        raise TooLarge
    chunks: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > LIMIT_BYTES:
            raise TooLarge
        chunks.append(chunk)
    return b"".join(chunks)


def decode(raw: bytes, shape: type[T]) -> T:
    """Check JSON and give it in that shape. Of a key that is there twice, the last one counts.

    Raises: Invalid.
    """
    check(raw)
    try:
        return msgspec.json.decode(raw, type=shape)
    except msgspec.ValidationError as unfit:
        raise Invalid(_described(unfit)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Invalid(_MALFORMED) from None


def convert(value: object, shape: type[T]) -> T:
    """Give decoded JSON in that shape.

    Raises: Invalid.
    """
    try:
        return msgspec.convert(value, shape)
    except msgspec.ValidationError as unfit:
        raise Invalid(_described(unfit)) from None


def check(raw: bytes) -> None:
    """Refuse JSON that cannot be held everywhere; lone surrogates, NaN and the like are refused by the decoder.

    Raises: Invalid for what is not UTF-8, NUL characters, integers beyond 64 bits and nesting deeper than DEPTH.
    """
    try:
        raw.decode()
    except UnicodeDecodeError:
        raise Invalid(_MALFORMED) from None
    if raw.count(b"[") + raw.count(b"{") > DEPTH and _is_deep(raw):
        raise Invalid(f"JSON in request body is nested deeper than {DEPTH} levels")
    if b"\\u0000" in raw and _NUL.search(raw):
        raise Invalid("JSON in request body contains a NUL character (\\u0000), which cannot be stored")
    if b"0" * 19 in raw.translate(_DIGITS):
        try:
            json.loads(raw, parse_int=_integer)
        except ValueError:
            raise Invalid(_MALFORMED) from None


def _is_deep(raw: bytes) -> bool:
    """Whether brackets outside of strings nest deeper than DEPTH; each pass takes the innermost level away."""
    nesting = _STRING.sub(b"", raw).translate(_BRACKETS, _NO_BRACKETS)
    for _ in range(DEPTH):
        if not nesting:
            return False
        inner = nesting.replace(b"[]", b"")
        if len(inner) == len(nesting):
            return len(nesting) > DEPTH  # unbalanced: the decoder says so, if it may go that deep
        nesting = inner
    return bool(nesting)


def _integer(digits: str) -> int:
    if len(digits) > _LONGEST_INTEGER or (number := int(digits)) not in _INTEGERS:
        raise Invalid("JSON in request body contains an integer beyond 64 bits")
    return number


def _described(unfit: msgspec.ValidationError) -> str:
    """Say what does not fit as the contract does: properties are required, types have JSON's names."""
    text, _, path = str(unfit).partition(" - at ")
    place = path.strip("`").removeprefix("$").removeprefix(".")
    missing = re.fullmatch("Object missing required field `(.*)`", text)
    if missing:
        text = f'"{missing[1]}" is a required property'
    text = re.sub(
        "`([^`]*)`", lambda named: " or ".join(_KINDS.get(k, k) for k in named[1].split(" | ")), text
    )
    return f"{text}, in {place}" if place else text


def respond(value: object, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Give a response of compact JSON."""
    return Response(msgspec.json.encode(value), status, headers, "application/json")


def respond_raw(encoded: bytes, *, status: int = 200) -> Response:
    """Give a response of JSON that is encoded already."""
    return Response(encoded, status, media_type="application/json")


def nothing(status: int = 204) -> Response:
    """Give a response without a body."""
    return Response(status_code=status)
