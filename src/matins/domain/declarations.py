"""Declaration: a cron as the project's code says it, under a key. Compared field by field with what was and what is.

All is compared in a normal form, with every field and its default: of a declaration, of the one before it, of a cron.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC
from enum import StrEnum
from typing import Annotated, Any, Final, Literal, TypeAlias
from uuid import UUID

import msgspec

from matins.domain.configs import section
from matins.domain.crons import Cron, instant_of_end
from matins.domain.errors import Invalid
from matins.domain.ids import AssistantId
from matins.domain.schedules import zone_within

NO_LONGER: Final = "no longer declared"
"""Why a cron is paused whose declaration is gone."""

LONGEST_KEY: Final = 200

Normal: TypeAlias = Mapping[str, Any]
"""Every field of a declaration: its assistant's id, its end in UTC, a policy without nulls."""

_Text: TypeAlias = Annotated[str, msgspec.Meta(min_length=1)]


class Declaration(msgspec.Struct, frozen=True, kw_only=True):
    """What a cron is declared to be. Other fields are ignored."""

    graph: _Text | None = None
    assistant_id: _Text | None = None
    schedule: _Text
    timezone: _Text | None = None
    thread_id: UUID | None = None
    input: Any = None
    config: dict[str, Any] = {}
    context: dict[str, Any] = {}
    metadata: dict[str, Any] = {}
    policy: dict[str, Any] = {}
    webhook: _Text | None = None
    on_run_completed: Literal["delete", "keep"] | None = None
    end_time: str | None = None
    enabled: bool = True

    @property
    def assistant(self) -> str:
        """What names its assistant."""
        return self.graph or self.assistant_id or ""

    def normal(self, assistant_id: AssistantId) -> Normal:
        """Give its normal form. `assistant_id` is the assistant that it names. Raises: Invalid."""
        return {
            "assistant_id": str(assistant_id),
            "schedule": self.schedule,
            "timezone": self.timezone or zone_within(self.schedule),
            "thread_id": str(self.thread_id) if self.thread_id else None,
            "input": self.input,
            "config": _config(self.config),
            "context": self.context,
            "metadata": self.metadata,
            "policy": {name: value for name, value in self.policy.items() if value is not None},
            "webhook": self.webhook,
            "on_run_completed": None if self.thread_id else self.on_run_completed or "delete",
            "end_time": None if self.end_time is None else instant_of_end(self.end_time).isoformat(),
            "enabled": self.enabled,
        }


class Found(msgspec.Struct, kw_only=True):
    """A declaration as a worker found it: its fields, or why there are none."""

    key: str
    place: str
    fields: Any = None
    trouble: str | None = None

    def read(self) -> Declaration:
        """Give the declaration. Raises: Invalid."""
        if self.trouble is not None:
            raise Invalid(f"{self.place}: {self.trouble}")
        try:
            read = msgspec.convert(self.fields, Declaration)
        except msgspec.ValidationError as unfit:
            raise Invalid(f"{self.place}: {unfit}") from None
        if not 0 < len(self.key) <= LONGEST_KEY:
            raise Invalid(f"{self.place}: a key must have 1 to {LONGEST_KEY} characters")
        if (read.graph is None) == (read.assistant_id is None):
            raise Invalid(f"{self.place}: name either `graph` or `assistant_id`")
        return read


class Unreadable(msgspec.Struct, kw_only=True):
    """A file whose declarations are not known."""

    place: str
    trouble: str


class Findings(msgspec.Struct, kw_only=True):
    """All that the project declares. Each key is in it once."""

    crons: list[Found]
    unreadable: list[Unreadable]


class Action(StrEnum):
    """What was done about a key."""

    CREATED = "created"
    CHANGED = "changed"
    PAUSED = "paused"
    RESUMED = "resumed"
    UNCHANGED = "unchanged"
    DRIFTED = "drifted"  # the cron is not as declared, though the declaration did not change: it is left so
    INVALID = "invalid"


def normal_of(cron: Cron) -> Normal:
    """Give the normal form of a cron as it is."""
    payload: dict[str, Any] = msgspec.json.decode(cron.payload)
    return {
        "assistant_id": str(cron.assistant_id),
        "schedule": cron.schedule,
        "timezone": cron.timezone,
        "thread_id": str(cron.thread_id) if cron.thread_id else None,
        "input": payload.get("input"),
        "config": _config(section(payload, "config")),
        "context": payload.get("context") or {},
        "metadata": msgspec.json.decode(cron.metadata),
        "policy": msgspec.json.decode(cron.policy or b"{}"),
        "webhook": payload.get("webhook"),
        "on_run_completed": cron.on_run_completed,
        "end_time": cron.end_time.astimezone(UTC).isoformat() if cron.end_time else None,
        "enabled": cron.enabled or cron.done_at is not None,  # one that has fired once is as it was declared
    }


def differing(one: Normal, other: Normal) -> list[str]:
    """Name the fields in which two differ, in the order of a declaration."""
    return [name for name in other if one.get(name) != other[name]]


def _config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Give a config without the cron's own id, which each cron's has."""
    configurable = {
        name: value for name, value in section(config, "configurable").items() if name != "cron_id"
    }
    others = {name: value for name, value in config.items() if name != "configurable"}
    return {**others, "configurable": configurable} if configurable else others
