"""Load the named queries of sql/*.sql.

A query stands under `-- name: claim_runs :many` (`:one`, `:many` or `:exec`), a comment that names its parameters,
and the statement. `load("queue")` reads one file; `load("queue")["claim_runs"]` is a frozen Query.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Final, LiteralString

_HEADER: Final = re.compile(r"^-- name: (?P<name>\w+) :(?P<returns>one|many|exec)\s*$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Query:
    """One statement of a .sql file. `returns` is `one`, `many` or `exec`."""

    name: str
    returns: str
    text: LiteralString


@cache
def load(subject: str) -> dict[str, Query]:
    """Give the queries of `sql/<subject>.sql` by name.

    Raises: ValueError when a name stands twice.
    """
    source = files("matins.storage").joinpath(f"sql/{subject}.sql").read_text(encoding="utf-8")
    found: dict[str, Query] = {}
    headers = list(_HEADER.finditer(source))
    for header, following in zip(headers, [*headers[1:], None], strict=True):
        name = header["name"]
        if name in found:
            message = f"{subject}.sql names {name} twice"
            raise ValueError(message)
        body = source[header.end() : following.start() if following else len(source)].strip().rstrip(";")
        # The text comes from a file of this package, never from a request: as good as a literal.
        found[name] = Query(name, header["returns"], body)  # pyright: ignore[reportArgumentType]
    return found
