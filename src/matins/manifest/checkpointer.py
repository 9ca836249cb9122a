"""`checkpointer` of langgraph.json."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from matins.domain.threads import LONGEST_MINUTES, TimeToLive
from matins.manifest.reading import ManifestError, kind, number, section

_LEAST_MINUTES: Final = 0.01  # zero would be taken for "never" by some, and would delete everything
_STRATEGIES: Final = ("delete", "keep_latest")
_INTERVAL_MINUTES: Final = 5.0
_LIMIT: Final = 1000


@dataclass(frozen=True, slots=True)
class Sweeping:
    """How threads that nobody uses are swept away.

    `default`: the time to live of threads that have none of their own, if any. `interval_s`: seconds between two
    sweeps of a node. `limit`: how many threads one sweep takes at most.
    """

    default: TimeToLive | None
    interval_s: float
    limit: int


def sweeping(path: Path, checkpointer: object) -> Sweeping:
    """Read `checkpointer.ttl`. Raises: ManifestError."""
    key = "checkpointer.ttl"
    ttl = section(path, key, section(path, "checkpointer", checkpointer).get("ttl"))
    strategy = ttl.get("strategy", "delete")
    if strategy not in _STRATEGIES:
        raise ManifestError(f"{path}: {key}.strategy: must be one of {', '.join(_STRATEGIES)}")
    minutes = _minutes(path, f"{key}.default_ttl", ttl.get("default_ttl"))
    interval = _minutes(path, f"{key}.sweep_interval_minutes", ttl.get("sweep_interval_minutes"))
    limit = number(path, f"{key}.sweep_limit", ttl.get("sweep_limit"), least=1)
    if not isinstance(limit, int | None):
        raise ManifestError(f"{path}: {key}.sweep_limit: must be a whole number, not {limit}")
    return Sweeping(
        default=TimeToLive(str(strategy), minutes) if minutes is not None else None,
        interval_s=60 * (_INTERVAL_MINUTES if interval is None else interval),
        limit=_LIMIT if limit is None else limit,
    )


def _minutes(path: Path, key: str, value: object) -> float | None:
    minutes = number(path, key, value, least=_LEAST_MINUTES)
    if minutes is not None and minutes > LONGEST_MINUTES:
        raise ManifestError(f"{path}: {key}: must be at most {LONGEST_MINUTES}, not {value}")
    return minutes


def allowed_types(path: Path, serde: object) -> frozenset[tuple[str, str]]:
    """Read `allowed_msgpack_modules`: [module, class] pairs, or "module.Class"."""
    named = serde.get("allowed_msgpack_modules") if isinstance(serde, dict) else None
    key = "checkpointer.serde.allowed_msgpack_modules"
    if not isinstance(named, list | None):
        raise ManifestError(f"{path}: {key}: must be a list, not {kind(named)}")
    found: set[tuple[str, str]] = set()
    for position, entry in enumerate(named or ()):
        module, _, name = entry.rpartition(".") if isinstance(entry, str) else ("", "", "")
        parts = [module, name] if isinstance(entry, str) else entry
        if not isinstance(parts, list) or len(parts) != 2 or not all(isinstance(p, str) and p for p in parts):
            raise ManifestError(f'{path}: {key}[{position}]: must be ["module", "Class"] or "module.Class"')
        found.add((parts[0], parts[1]))
    return frozenset(found)
