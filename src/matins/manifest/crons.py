"""`crons` of langgraph.json: crons as code, each under a key of its own. They are judged where they are made."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from matins.manifest.reading import did_you_mean, section

FIELDS: Final = [
    "graph", "assistant_id", "schedule", "timezone", "thread_id", "input", "config", "context", "metadata", "policy",
    "webhook", "on_run_completed", "end_time", "enabled",
]  # fmt: skip
"""What a declaration may say."""


def read(path: Path, value: object, warnings: list[str]) -> dict[str, object]:
    """Give the declarations as they stand. Raises: ManifestError when the section is no object."""
    crons = section(path, "crons", value)
    for key, entry in crons.items():
        if isinstance(entry, dict):
            warnings += did_you_mean(path, f"crons.{key}", entry, FIELDS)
    return crons
