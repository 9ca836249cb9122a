"""Which tests say what they cover: read off their marks, without running them."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Final, NamedTuple

from tests.wire.compatibility.rows import Row

TESTS: Final = Path(__file__).parents[2]
FOLDERS: Final = ("wire", "api", "engine")


class Proof(NamedTuple):
    """A test that shows a row. `with_sdks` says that it speaks through the SDKs, not over plain HTTP."""

    path: str
    name: str
    with_sdks: bool

    @property
    def place(self) -> str:
        """Where it is, from the repository's root."""
        return f"tests/{self.path}"


def covered(rows: Mapping[tuple[str, str], Row]) -> dict[tuple[str, str], list[Proof]]:
    """Give the tests of every row that one names, by its subject and aspect, whether or not there is such a row."""
    found: dict[tuple[str, str], list[Proof]] = {}
    plain: dict[str, list[str]] = {}
    for row in rows.values():
        if row.is_plain:
            plain.setdefault(row.subject, []).append(row.aspect)
    for path in sorted(path for folder in FOLDERS for path in (TESTS / folder).glob("test_*.py")):
        module = import_module(f"tests.{path.parent.name}.{path.stem}")
        for name, function in vars(module).items():
            if name.startswith("test_") and inspect.isfunction(function):
                test = Proof(f"{path.parent.name}/{path.name}", name, "sdk" in _parameters(function))
                for subject, aspect in _marked(function):
                    for each in plain.get(subject, [aspect]) if aspect == "*" else [aspect]:
                        found.setdefault((subject, each), []).append(test)
    return found


def _marked(function: Any) -> Iterator[tuple[str, str]]:
    for mark in getattr(function, "pytestmark", ()):
        if mark.name == "covers":
            subject, *aspects = mark.args
            yield from ((subject, aspect) for aspect in aspects)


def _parameters(function: Any) -> set[str]:
    return set(inspect.signature(function).parameters)
