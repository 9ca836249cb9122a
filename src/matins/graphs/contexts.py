"""The context of a run: what the client said, as far as a schema knows it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from pydantic import BaseModel


def fitted(schema: Any, asked: Mapping[str, Any]) -> Any:
    """Give what a schema knows of what was asked; without a schema all of it.

    None when there is nothing and the schema cannot be built from nothing.
    """
    mirrored = {key: value for key, value in asked.items() if not key.startswith("__")}
    if schema is None:
        return mirrored or None
    known = _field_names(schema)
    if known is None:
        return mirrored
    mirrored = {key: value for key, value in mirrored.items() if key in known}
    if mirrored:
        return mirrored
    try:
        return schema()
    except Exception:  # noqa: BLE001 - a wall: the schema is user code; one with required fields is absent
        return None


def built(schema: Any, asked: Mapping[str, Any]) -> Any:
    """Give the context as the schema's own type, as LangGraph builds it for a node.

    Raises: what the schema raises for what does not fit it.
    """
    given = fitted(schema, asked)
    return schema(**given) if isinstance(given, dict) and _field_names(schema) is not None else given


def _field_names(schema: Any) -> set[str] | None:
    """Give the names a schema is built by; None for one that takes any, as a TypedDict does."""
    if isinstance(schema, type) and issubclass(schema, BaseModel):
        if schema.model_config.get("extra") == "allow":
            return None
        aliases = [(field.alias, field.validation_alias) for field in schema.model_fields.values()]
        return {*schema.model_fields, *(name for pair in aliases for name in pair if isinstance(name, str))}
    if is_dataclass(schema):
        return {field.name for field in fields(schema) if field.init}
    return None
