"""Sort orders: the one thing besides a Scope that composes a statement, from names that are listed here."""

from __future__ import annotations

from typing import Final, Literal, LiteralString

from matins.domain.errors import Invalid
from matins.storage.sql import Query

Direction = Literal["asc", "desc"]

THREADS: Final[dict[str, LiteralString]] = {
    "thread_id": "thread_id",
    "status": "status",
    "created_at": "created_at",
    "updated_at": "updated_at",
    "state_updated_at": "state_updated_at",
}
ASSISTANTS: Final[dict[str, LiteralString]] = {
    "assistant_id": "assistant_id",
    "graph_id": 'graph_id COLLATE "C"',
    "name": 'name COLLATE "C"',
    "created_at": "created_at",
    "updated_at": "updated_at",
}
CRONS: Final[dict[str, LiteralString]] = {
    "cron_id": "cron_id",
    "assistant_id": "assistant_id",
    "thread_id": "thread_id",
    "next_run_date": "next_run_date",
    "end_time": "end_time",
    "created_at": "created_at",
    "updated_at": "updated_at",
}


def ordered(
    query: Query, columns: dict[str, LiteralString], key: LiteralString, sort_by: str, direction: Direction
) -> LiteralString:
    """Give the statement with its `{order}` filled in; `key` makes the order total, so that pages do not overlap.

    Raises: Invalid when `sort_by` is none of `columns`.
    """
    if sort_by not in columns:
        message = f"Cannot sort by '{sort_by}'. Expected one of: {', '.join(columns)}"
        raise Invalid(message)
    # Where nothing is null it is not said where nulls go: an index would not give that order.
    nulls: LiteralString = " NULLS LAST" if columns is CRONS else ""
    if direction == "desc":
        return query.text.replace("{order}", columns[sort_by] + " DESC" + nulls + ", " + key + " DESC")
    return query.text.replace("{order}", columns[sort_by] + " ASC" + nulls + ", " + key + " ASC")
