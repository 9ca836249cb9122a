"""`prices` of langgraph.json: what models cost, by the names that they report of themselves."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from matins.manifest.reading import ManifestError, kind, mapping


@dataclass(frozen=True, slots=True)
class Price:
    """US dollars for a million tokens."""

    input: float
    output: float


def read(path: Path, value: object) -> dict[str, Price]:
    """Read `{"model": {"input": 2.5, "output": 10}}`, US dollars for a million tokens. Raises: ManifestError."""
    if value is None:
        return {}
    found: dict[str, Price] = {}
    for model, entry in mapping(path, "prices", value).items():
        key = f"prices.{model}"
        sides = mapping(path, key, entry)
        if unknown := set(sides) - {"input", "output"}:
            raise ManifestError(
                f"{path}: {key}.{min(unknown)}: unknown key; a price has `input` and `output`"
            )
        found[model] = Price(
            *(_dollars(path, f"{key}.{side}", sides.get(side)) for side in ("input", "output"))
        )
    return found


def _dollars(path: Path, key: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e9:
        raise ManifestError(f"{path}: {key}: must be US dollars for a million tokens, not {kind(value)}")
    return float(value)
