from __future__ import annotations

import re
from importlib.resources import files
from typing import LiteralString

import pytest

from matins.storage import order, sql
from matins.storage.pool import Pool
from matins.storage.sql import Query

pytestmark = pytest.mark.anyio

SUBJECTS = sorted(
    path.name.removesuffix(".sql")
    for path in files("matins.storage").joinpath("sql").iterdir()
    if path.name.endswith(".sql")
)
QUERIES = [(subject, query) for subject in SUBJECTS for query in sql.load(subject).values()]
DIRECTIONS: tuple[order.Direction, ...] = ("asc", "desc")
ORDERS: dict[str, tuple[dict[str, LiteralString], LiteralString]] = {
    "search_threads": (order.THREADS, "thread_id"),
    "search_threads_by_metadata": (order.THREADS, "thread_id"),
    "walk_threads": (order.THREADS, "thread_id"),
    "search_assistants": (order.ASSISTANTS, "assistant_id"),
    "search_crons": (order.CRONS, "cron_id"),
}


def texts(query: Query) -> list[str]:
    """The statement, or each that can be made of it."""
    if "{order}" not in query.text:
        return [query.text]
    columns, key = ORDERS[query.name]
    return [
        order.ordered(query, columns, key, column, direction)
        for column in columns
        for direction in DIRECTIONS
    ]


def test_the_files_are_found() -> None:
    assert {"queue", "crons", "threads", "runs"} <= set(SUBJECTS)
    assert len(QUERIES) > 50


def told(query: Query) -> set[int]:
    """The parameters that the comments name: `$1`, `$2-$4`."""
    comments = " ".join(line for line in query.text.splitlines() if line.startswith("--"))
    numbers: set[int] = set()
    for first, last in re.findall(r"\$(\d+)(?:(?:-|\.\.)\$(\d+))?", comments):
        numbers |= set(range(int(first), int(last or first) + 1))
    return numbers


@pytest.mark.parametrize("subject", SUBJECTS)
async def test_each_query_is_understood_and_says_what_it_takes_and_gives(pool: Pool, subject: str) -> None:
    async with pool.connection() as conn:
        for query in sql.load(subject).values():
            for text in texts(query):
                statement = await conn.prepare(text)
                assert told(query) == set(range(1, len(statement.get_parameters()) + 1)), query.name
                assert bool(statement.get_attributes()) is (query.returns != "exec"), query.name
                await conn.execute(f"EXPLAIN (GENERIC_PLAN) {text}")


def test_each_name_stands_once() -> None:
    names = [query.name for _, query in QUERIES]
    assert len(names) == len(set(names))


def test_each_query_is_used() -> None:
    code = "".join(
        path.read_text(encoding="utf-8")
        for path in files("matins.storage").iterdir()
        if path.name.endswith(".py")
    )
    unused = [f"{subject}.{query.name}" for subject, query in QUERIES if f'["{query.name}"]' not in code]
    assert unused == []
