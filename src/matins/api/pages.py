"""Pages of a search: one page, the true total, and where the next one begins."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

import msgspec

from matins.storage.pool import Conn, Pool

T = TypeVar("T")

TOTAL_LIMIT: Final = 10_001
"""Totals are exact to 10,000; a larger one is given as 10,001."""


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Some of what a search found. `following` is the next page's offset, if there is one.

    `total` counts all of it, up to TOTAL_LIMIT.
    """

    items: list[T]
    total: int
    following: int | None

    @property
    def headers(self) -> dict[str, str]:
        """The page as clients are told of it."""
        told = {"X-Pagination-Total": str(self.total)}
        if self.following is not None:
            told["X-Pagination-Next"] = str(self.following)
        return told


async def find(
    pool: Pool,
    search: Callable[[Conn, int], Awaitable[list[T]]],
    count: Callable[[Conn, int], Awaitable[int]],
    *,
    limit: int,
    offset: int,
) -> Page[T]:
    """Give a page of at most `limit`. `search` gets how many to look for: one more says whether there is a next page.

    The total is counted, by `count` and at most as far as it is told, only where the page itself does not tell it.
    """

    async def work(conn: Conn) -> Page[T]:
        found = await search(conn, limit + 1)
        seen = offset + min(len(found), limit)
        has_more = len(found) > limit
        is_told = not has_more and (found or offset == 0)
        total = seen if is_told else max(await count(conn, TOTAL_LIMIT), seen if found else 0)
        return Page(found[:limit], total, seen if has_more else None)

    return await pool.run(work, transaction=False)


def select(items: Iterable[msgspec.Struct], names: Sequence[str]) -> list[Any]:
    """Give the items with only the named fields, or as they are when none is named."""
    if not names:
        return list(items)
    return [
        {name: value for name in names if (value := getattr(item, name)) is not msgspec.UNSET}
        for item in items
    ]
