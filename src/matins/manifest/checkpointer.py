"""`checkpointer` of langgraph.json."""

from __future__ import annotations

from pathlib import Path

from matins.manifest.reading import ManifestError, kind


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
