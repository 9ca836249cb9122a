"""Any Python value -> JSON, without ever failing: no output of a graph may stop a stream or a settle.

What JSON or Postgres cannot hold becomes the nearest thing they can: NUL and lone surrogates U+FFFD, NaN and
the infinities null, an integer beyond 64 bits its decimal digits in a string (a float would change it), bytes
base64, sets lists, keys strings, an object that nobody knows its repr.
"""

from __future__ import annotations

import base64
import dataclasses
import math
import re
from collections.abc import Mapping
from datetime import date, time, timedelta
from enum import Enum
from typing import Any, Final
from uuid import UUID

import orjson
from langgraph.types import Send
from pydantic import BaseModel

_FAST: Final = orjson.OPT_SERIALIZE_NUMPY
_SLOW: Final = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS
_MAX_DEPTH: Final = 100  # the writer below recurses; a request may nest 64 deep, and orjson ends at 254
_UNHOLDABLE: Final = re.compile("[\x00\ud800-\udfff]")
_INT64: Final = range(-(2**63), 2**64)


def encode(value: object) -> bytes:
    """Give one line of compact JSON; messages, models and dataclasses keep the order of their fields."""
    try:
        encoded = orjson.dumps(value, _default, _FAST)
    except (TypeError, ValueError, RecursionError):
        return _encode_slowly(value)
    if b"\\u0000" in encoded:
        return _encode_slowly(value)
    return encoded


def _default(value: Any) -> object:
    """Give orjson something it knows for a value it does not."""
    try:
        return _plain(value)
    except Exception:  # noqa: BLE001 - a wall: __repr__, model_dump and the like are user code
        return f"<{type(value).__name__}>"


def _plain(value: Any) -> object:
    if isinstance(value, BaseModel):
        return value.model_dump()
    if isinstance(value, (set, frozenset, tuple)):
        return list(value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return base64.b64encode(value).decode()
    if isinstance(value, Send):
        return {"node": value.node, "input": value.arg}
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, type):
        return repr(value)
    if hasattr(value, "tolist"):  # a numpy array that orjson refuses: not contiguous, or of objects
        return value.tolist()
    if hasattr(value, "__iter__") and hasattr(value, "__len__") and not isinstance(value, BaseException):
        return list(value)
    return str(value) if hasattr(value, "__fspath__") or type(value).__module__ == "decimal" else repr(value)


def _encode_slowly(value: object) -> bytes:
    return orjson.dumps(_clean(value, _MAX_DEPTH), _default, _SLOW)


def _clean(value: object, depth: int) -> object:
    """Rebuild a value out of what JSON can hold."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, Enum):
        return _clean(value.value, depth - 1)
    if isinstance(value, str):
        return _UNHOLDABLE.sub("\ufffd", value)
    if isinstance(value, int):
        return int(value) if int(value) in _INT64 else str(int(value))
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, time):
        return value.isoformat()  # orjson refuses one with a time zone
    if isinstance(value, (date, UUID)):
        return value
    if depth <= 0:
        return _UNHOLDABLE.sub("\ufffd", _repr(value))
    if isinstance(value, Mapping):
        return {_key(key): _clean(item, depth - 1) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_clean(item, depth - 1) for item in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _clean(getattr(value, f.name, None), depth - 1) for f in dataclasses.fields(value)}
    return _clean(_default(value), depth - 1)


def _key(key: object) -> str:
    """Give a key as the JSON text of its value would read; a tuple, say, its repr."""
    if isinstance(key, Enum):
        key = key.value
    if not isinstance(key, str):
        written = _clean(key, 1)
        key = written if isinstance(written, str) else orjson.dumps(written, _default).decode().strip('"')
    return _UNHOLDABLE.sub("\ufffd", key)


def _repr(value: object) -> str:
    try:
        return repr(value)
    except Exception:  # noqa: BLE001 - a wall: user code, or a nesting that repr cannot end
        return f"<{type(value).__name__}>"
