"""Reading langgraph.json: what is wrong with it is said in one line that names the file and the key.

Each section's module reads its own keys with these, and gives what was not configured as None or its default.
"""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path


class ManifestError(Exception):
    """langgraph.json cannot be used. The text is one line that names the file and the key."""


def mapping(path: Path, key: str, value: object) -> dict[str, object]:
    """Give an object. Raises: ManifestError."""
    if not isinstance(value, dict):
        raise ManifestError(f"{path}: {key}: must be an object, not {kind(value)}")
    return value


def section(path: Path, key: str, value: object) -> dict[str, object]:
    """Give a section; an absent one is empty. Raises: ManifestError when it is no object."""
    return {} if value is None else mapping(path, key, value)


def flag(path: Path, key: str, value: object, *, default: bool) -> bool:
    """Give true or false. Raises: ManifestError."""
    if value is None:
        return default
    if not isinstance(value, bool):
        raise ManifestError(f"{path}: {key}: must be true or false, not {kind(value)}")
    return value


def text(path: Path, key: str, value: object) -> str | None:
    """Give a string, or None when it is absent. Raises: ManifestError."""
    if not isinstance(value, str | None):
        raise ManifestError(f"{path}: {key}: must be a string, not {kind(value)}")
    return value


def number(path: Path, key: str, value: object, *, least: float) -> float | None:
    """Give a number of at least `least`, or None when it is absent. Raises: ManifestError."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ManifestError(f"{path}: {key}: must be a number, not {kind(value)}")
    if not value >= least:
        raise ManifestError(f"{path}: {key}: must be at least {least:g}, not {value}")
    return value


def texts(path: Path, key: str, value: object) -> tuple[str, ...] | None:
    """Give a list of strings, or None when it is absent. Raises: ManifestError."""
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise ManifestError(f"{path}: {key}: must be a list of strings")
    return tuple(value)


def did_you_mean(path: Path, section: str, inside: Mapping[str, object], known: list[str]) -> list[str]:
    """Warn of each key that nobody knows, with the one that was probably meant."""
    warnings: list[str] = []
    for key in inside:
        if key in known:
            continue
        near = get_close_matches(str(key), known, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        name = f"{section}.{key}" if section else key
        warnings.append(f"{path}: {name}: unknown key, ignored{hint}")
    return warnings


def place(path: Path, key: str, named: str) -> Path:
    """Give where a path in the file leads to."""
    place = path.parent / named
    try:
        place = place.resolve()
        place.stat()
    except FileNotFoundError:
        pass  # said by the caller, who knows what it should be
    except (OSError, ValueError) as unusable:  # a name that is too long; a NUL
        raise ManifestError(f"{path}: {key}: {named!r} cannot be used: {unusable}") from unusable
    return place


def kind(value: object) -> str:
    """The JSON name of a value's type."""
    if value is None:
        return "null"
    names = {bool: "a boolean", int: "a number", float: "a number", str: "a string", list: "a list"}
    return names.get(type(value), "an object")
