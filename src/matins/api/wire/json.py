"""Pieces that the shapes of several resources share."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal, TypeAlias

import msgspec

Json: TypeAlias = dict[str, Any]
Order: TypeAlias = Literal["asc", "desc"]
Id: TypeAlias = Annotated[str, msgspec.Meta(extra_json_schema={"format": "uuid"})]
"""An ID that is refused where it is used, in the words of the contract."""
Limit: TypeAlias = Annotated[int, msgspec.Meta(ge=1, le=1000)]
Offset: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=2**62)]


class Config(msgspec.Struct, kw_only=True):
    """A RunnableConfig, as far as a client may set one. Source: Config in langgraph_sdk/schema.py."""

    tags: list[str] | msgspec.UnsetType = msgspec.UNSET
    recursion_limit: Annotated[int, msgspec.Meta(ge=1)] | msgspec.UnsetType = msgspec.UNSET
    configurable: Json | msgspec.UnsetType = msgspec.UNSET
    metadata: Json | msgspec.UnsetType = msgspec.UNSET
    run_name: str | msgspec.UnsetType = msgspec.UNSET
    max_concurrency: Annotated[int, msgspec.Meta(ge=1)] | msgspec.UnsetType | None = msgspec.UNSET

    def plain(self) -> dict[str, object]:
        """The config as the engine takes it: only what was given."""
        given: dict[str, object] = msgspec.to_builtins(self)
        return given


class Checkpoint(msgspec.Struct, kw_only=True):
    """Where in a thread's history. Source: CheckpointConfig of the API."""

    thread_id: str | msgspec.UnsetType | None = msgspec.UNSET
    checkpoint_ns: str | msgspec.UnsetType | None = msgspec.UNSET
    checkpoint_id: str | msgspec.UnsetType | None = msgspec.UNSET
    checkpoint_map: Json | msgspec.UnsetType | None = msgspec.UNSET

    def plain(self) -> dict[str, object]:
        """The coordinates that were given."""
        given: dict[str, object] = msgspec.to_builtins(self)
        return {name: value for name, value in given.items() if value is not None}


def instant(moment: datetime) -> str:
    """Give a time as the API writes it: UTC, with microseconds. Source: observed."""
    return moment.isoformat(timespec="microseconds")


def compact(stored: bytes) -> msgspec.Raw:
    """Give JSON as Postgres writes it (`jsonb`) without its spaces."""
    return msgspec.Raw(msgspec.json.format(stored, indent=-1))


def contained(wanted: Json) -> bytes | None:
    """Give a filter as encoded JSON, or None when it filters nothing."""
    return msgspec.json.encode(wanted) if wanted else None
