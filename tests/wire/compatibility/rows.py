"""The rows: what the code says of itself, and what the *.toml files say of it.

A file of a section holds a table for each subject: an operation ("POST /threads"), a shape ("Thread"), or whatever
else there is to say ("Pages"). Each key in it is an aspect: a field, "?parameter", "Header:", a status. Its value is
what is promised, or a table of `says`, `differs` (how `langgraph dev` differs, and why we do) and `not_yet`.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, Final, TypeGuard

import msgspec
from msgspec import inspect

from matins.api.app import OPERATIONS
from matins.api.errors import Refusal
from matins.api.operations import Operation

HERE: Final = Path(__file__).parent

SECTIONS: Final = {
    "conventions": "Every endpoint",
    "assistants": "Assistants",
    "threads": "Threads",
    "runs": "Runs",
    "streams": "Streams",
    "crons": "Crons",
    "system": "System",
    "defects": "What `langgraph dev` gets wrong",
}
_SECTION_OF: Final = {
    "thread_state": "threads",
    "run_streams": "runs",
    "declarations": "crons",
    "json": "runs",
    "errors": "conventions",
}


@dataclass(slots=True)
class Row:
    """One promise; `not_yet` when it is still to be kept. `is_plain` when the code alone tells of it."""

    subject: str
    aspect: str
    says: str = ""
    differs: str = ""
    not_yet: bool = False
    is_plain: bool = True


@dataclass(slots=True)
class Subject:
    """What rows are about. `used` names the operations that take or give a shape."""

    name: str
    section: str
    used: list[str] = field(default_factory=list)
    rows: dict[str, Row] = field(default_factory=dict)

    def row(self, aspect: str) -> Row:
        """Give the row of that aspect, which is made when it is new."""
        return self.rows.setdefault(aspect, Row(self.name, aspect))


def named(operation: Operation) -> str:
    """Give an operation as subjects are named."""
    return f"{operation.method} {operation.path}"


def subjects() -> list[Subject]:
    """Give every subject, by section, in the order of the files and then of the code."""
    found: dict[str, Subject] = {}
    for operation in OPERATIONS:
        _add_operation(operation, found)
        for shape in chain(_shapes(operation.request), _shapes(operation.response)):
            _add_shape(shape, operation, found)
    _add_shape(Refusal, None, found)
    for section in SECTIONS:
        _read(section, found)
    return sorted(found.values(), key=lambda each: list(SECTIONS).index(each.section))


def rows() -> dict[tuple[str, str], Row]:
    """Give every row by its subject and aspect."""
    return {(row.subject, row.aspect): row for subject in subjects() for row in subject.rows.values()}


def _read(section: str, found: dict[str, Subject]) -> None:
    for name, told in tomllib.loads((HERE / f"{section}.toml").read_text("utf-8")).items():
        subject = found.setdefault(name, Subject(name, section))
        for aspect, what in told.items():
            row = subject.row(aspect)
            row.is_plain = False
            for key, value in ({"says": what} if isinstance(what, str) else what).items():
                setattr(row, key, value)


def _add_operation(operation: Operation, found: dict[str, Subject]) -> None:
    name = named(operation)
    subject = found.setdefault(name, Subject(name, _section(operation.tag)))
    for status in (operation.status, *operation.other_statuses):
        subject.row(str(status))
    for parameter in operation.query:
        subject.row(f"?{parameter.name}")


def _add_shape(shape: type[msgspec.Struct], operation: Operation | None, found: dict[str, Subject]) -> None:
    """Add a shape and what it inherits, each with its own fields."""
    for each in shape.__mro__:
        if not _is_shape(each) or not (own := _own_fields(each)):
            continue
        name = shape_name(each)
        subject = found.setdefault(name, Subject(name, _section(each.__module__.rpartition(".")[2])))
        if operation is not None and named(operation) not in subject.used:
            subject.used.append(named(operation))
        for aspect in own:
            subject.row(aspect)


def shape_name(shape: type) -> str:
    """Give the name of a shape as subjects are named."""
    return shape.__name__.lstrip("_")


def _own_fields(shape: type[msgspec.Struct]) -> list[str]:
    inherited = [base.__struct_encode_fields__ for base in shape.__bases__ if _is_shape(base)]
    return [name for name in shape.__struct_encode_fields__ if name not in chain(*inherited)]


def _is_shape(kind: type) -> TypeGuard[type[msgspec.Struct]]:
    return issubclass(kind, msgspec.Struct) and kind is not msgspec.Struct


def _shapes(kind: Any) -> Iterator[type[msgspec.Struct]]:
    """Give the shapes that a type is made of."""
    if kind is None:
        return
    waiting: list[Any] = [inspect.type_info(kind)]
    seen: set[type] = set()
    while waiting:
        info = waiting.pop()
        if isinstance(info, inspect.StructType):
            if info.cls in seen:
                continue
            seen.add(info.cls)
            yield info.cls
            waiting += [each.type for each in info.fields]
        elif isinstance(info, inspect.UnionType):
            waiting += info.types
        elif isinstance(info, inspect.CollectionType):
            waiting.append(info.item_type)
        elif isinstance(info, inspect.DictType):
            waiting.append(info.value_type)
        elif isinstance(info, inspect.Metadata):
            waiting.append(info.type)


def _section(module: str) -> str:
    section = _SECTION_OF.get(module, module)
    return section if section in SECTIONS else "system"
