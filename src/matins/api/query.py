"""What stands in a request's address: ids in the path, numbers, switches and lists in the query."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

import msgspec
from starlette.requests import Request

from matins.domain.errors import BadRequest, Invalid
from matins.domain.ids import AssistantId, CronId, RunId, ThreadId

_SWITCHES: Final = {"1": True, "true": True, "0": False, "false": False}


def thread_id(request: Request) -> ThreadId:
    """Give the thread that the path names. Raises: Invalid."""
    return ThreadId(_uuid(request, "thread_id", "thread ID"))


def run_id(request: Request) -> RunId:
    """Give the run that the path names. Raises: Invalid."""
    return RunId(_uuid(request, "run_id", "run ID"))


def assistant_id(request: Request) -> AssistantId:
    """Give the assistant that the path names. Raises: Invalid."""
    return AssistantId(_uuid(request, "assistant_id", "assistant ID"))


def cron_id(request: Request) -> CronId:
    """Give the cron that the path names. Raises: Invalid."""
    return CronId(_uuid(request, "cron_id", "cron ID"))


def delivery_id(request: Request) -> UUID:
    """Give the webhook's delivery that the path names. Raises: Invalid."""
    return _uuid(request, "delivery_id", "delivery ID")


def _uuid(request: Request, parameter: str, noun: str) -> UUID:
    try:
        return UUID(request.path_params[parameter])
    except ValueError:
        raise Invalid(f"Invalid {noun}: must be a UUID") from None


def integer(request: Request, name: str, default: int, *, least: int, most: int) -> int:
    """Give a number of the query, or the default when it is absent or empty.

    Raises: BadRequest when it is no number (the contract's text); Invalid when it is out of bounds.
    """
    text = request.query_params.get(name, "")
    if not text:
        return default
    try:
        number = int(text)
    except ValueError:
        raise BadRequest(f"invalid literal for int() with base 10: {text[:100]!r}") from None
    if not least <= number <= most:
        raise Invalid(f"{name} must be between {least} and {most}")
    return number


def switch(request: Request, name: str, *, default: bool = False) -> bool:
    """Give a switch of the query: 1, 0, true or false. Raises: Invalid."""
    text = request.query_params.get(name, "")
    if not text:
        return default
    if text.lower() not in _SWITCHES:
        raise Invalid(f"{name} must be true or false")
    return _SWITCHES[text.lower()]


def one_of(request: Request, name: str, allowed: Iterable[str]) -> str | None:
    """Give a choice of the query, or None when it is absent or empty. Raises: Invalid when it is none of them."""
    text = request.query_params.get(name) or None
    if text is not None and text not in list(allowed):
        raise Invalid(f"{name} must be one of {', '.join(allowed)}")
    return text


def instant(request: Request, name: str) -> datetime | None:
    """Give a time of the query, or None when it is absent or empty; one without an offset is UTC.

    Raises: Invalid when it is no ISO 8601 time.
    """
    text = request.query_params.get(name)
    # A '+' that was not escaped came as a space.
    return parsed_instant(name, text.replace(" ", "+") if "T" in text else text) if text else None


def parsed_instant(name: str, text: str) -> datetime:
    """Give a time; one without an offset is UTC. Raises: Invalid when it is no ISO 8601 time."""
    try:
        found = datetime.fromisoformat(text)
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise Invalid(f"{name} must be an ISO 8601 time, for example 2030-01-31T09:00:00Z") from None


def names(request: Request, name: str) -> list[str]:
    """Give a list of the query in any of the forms that clients send: repeated, a JSON array, or with commas.

    Source: Python's SDK repeats the parameter and sends an empty one for none, JavaScript's sends a JSON array.
    Raises: Invalid when it looks like a JSON array of strings and is none.
    """
    found: list[str] = []
    for text in request.query_params.getlist(name):
        if text.startswith("["):
            try:
                found += msgspec.json.decode(text, type=list[str])
            except msgspec.DecodeError:
                raise Invalid(f"{name} is not a JSON array of strings") from None
        else:
            found += [part for part in text.split(",") if part]
    return found
