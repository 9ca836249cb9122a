"""Configurations of assistants and runs: how they mirror `context` and how one overrides the other."""

from __future__ import annotations

from collections.abc import Mapping

from matins.domain.errors import BadRequest

Json = dict[str, object]


def section(of: Mapping[str, object], key: str) -> Json:
    """Give the object that stands under `key`, or an empty one."""
    value = of.get(key)
    return dict(value) if isinstance(value, dict) else {}


def refuse_both(config: Mapping[str, object], context: Mapping[str, object]) -> None:
    """Refuse a request that gives `config.configurable` and `context` at once.

    Raises: BadRequest. Source: observed text of the 400.
    """
    if context and section(config, "configurable"):
        message = (
            "Cannot specify both configurable and context. Prefer setting context alone. Context was introduced in "
            "LangGraph 0.6.0 and is the long term planned replacement for configurable."
        )
        raise BadRequest(message)


def mirrored(config: Mapping[str, object], context: Mapping[str, object]) -> tuple[Json, Json]:
    """Give config and context, each with what only the other said: `configurable` and `context` mirror each other."""
    configurable = section(config, "configurable")
    if context and not configurable:
        return {**config, "configurable": dict(context)}, dict(context)
    if configurable and not context:
        return dict(config), configurable
    return dict(config), dict(context)


def merged_config(base: Mapping[str, object], over: Mapping[str, object]) -> Json:
    """Give an assistant's config overridden by a run's; `configurable` is merged key by key, tags are joined."""
    config: Json = {**base, **over}
    config["configurable"] = {**section(base, "configurable"), **section(over, "configurable")}
    tags = [tag for part in (base, over) for tag in _tags(part)]
    if tags:
        config["tags"] = list(dict.fromkeys(tags))
    return config


def _tags(config: Mapping[str, object]) -> list[str]:
    tags = config.get("tags")
    return [tag for tag in tags if isinstance(tag, str)] if isinstance(tags, list) else []
