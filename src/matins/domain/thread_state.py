"""The parts of a thread's state that a client asks for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from matins.domain.errors import BadRequest, Invalid

FIELDS: Final = (
    *("values", "next", "tasks", "metadata", "created_at", "checkpoint", "parent_checkpoint", "interrupts"),
    *("checkpoint_id", "parent_checkpoint_id"),
)

_VALUE: Final = "values."


def check(names: Sequence[str]) -> list[str]:
    """Give the names, each a field of a state or `values.<key>`. Raises: Invalid."""
    for name in names:
        if name not in FIELDS and not (name.startswith(_VALUE) and len(name) > len(_VALUE)):
            message = f"Cannot select '{name[:100]}'. Expected values.<key> or one of: {', '.join(FIELDS)}"
            raise Invalid(message)
    return list(names)


def checkpoint_named(named: str | Mapping[str, Any]) -> str:
    """Give the ID of a checkpoint in any of the forms that clients send: an ID, a checkpoint, a config.

    Raises: BadRequest.
    """
    if isinstance(named, str):
        return named
    inner = named.get("configurable", named)
    found = inner.get("checkpoint_id") if isinstance(inner, Mapping) else None
    if not isinstance(found, str):
        raise BadRequest("before must name a checkpoint_id")
    return found


def selected(state: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Give the state with only the named fields, of `values` perhaps only some keys; all of it when none is named."""
    if not names:
        return dict(state)
    found = {field: state[field] for field in FIELDS if field in names}
    keys = {name.removeprefix(_VALUE) for name in names if name.startswith(_VALUE)}
    if keys and "values" not in names:
        values = state["values"]
        found["values"] = (
            {key: value for key, value in values.items() if key in keys}
            if isinstance(values, Mapping)
            else {}
        )
    return found
