"""A search among a million threads by metadata that one row, 1 % and 50 % of them have, over HTTP: p50 and p95.

Threads are found newest first, ten a page, with X-Pagination-Total, one request after another on one connection; the
filter's value is another one each time. Rows lie in no order of time, so that what follows each other in the index
is nowhere near in the table. `clustered` is the worst case: 1 % of the threads, and they are the oldest. Beside the
figures the plans of what the server asks for each filter: the count, and the page.
"""

from __future__ import annotations

import itertools
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import anyio
import asyncpg
import httpx

from matins.domain.access import EVERYONE
from matins.storage import threads
from matins.storage.pool import Conn, open_connection
from matins.storage.threads import Filter
from tests.support import servers

THREADS = 1_000_000
REQUESTS = 200
LOAD = """
INSERT INTO matins.thread (thread_id, metadata, config, "values", interrupts, created_at, updated_at, state_updated_at)
SELECT gen_random_uuid(),
       jsonb_build_object('graph_id', 'agent', 'user', 'user-' || n, 'team', 'team-' || n % 100,
                          'plan', CASE WHEN n % 2 = 0 THEN 'free' ELSE 'pro' END,
                          'era', CASE WHEN age > 0.99 THEN 'early' ELSE 'late' END),
       '{"configurable": {}}',
       jsonb_build_object('messages', jsonb_build_array(
           jsonb_build_object('type', 'human', 'id', gen_random_uuid(), 'content', 'hello ' || n),
           jsonb_build_object('type', 'ai', 'id', gen_random_uuid(), 'content', repeat('word ', 20) || n))),
       '{}', now() - interval '2 years', now() - interval '1 year' * age, now() - interval '1 year' * age
FROM (SELECT n, random() AS age FROM generate_series(1, $1::integer) AS n) AS made
"""
"""Half a kilobyte each. Rows that were made one by one would have their statistics from the autovacuum."""


def filters(total: int) -> dict[str, Iterator[dict[str, str]]]:
    """Give for each kind of filter its values, one after another."""
    return {
        "one row": ({"user": f"user-{n * 4999 % total + 1}"} for n in itertools.count()),
        "1 %": ({"team": f"team-{n * 37 % 100}"} for n in itertools.count()),
        "50 %": ({"plan": plan} for plan in itertools.cycle(("free", "pro"))),
        "clustered": itertools.repeat({"era": "early"}),
    }


async def load(uri: str, total: int) -> None:
    """Make the threads."""
    connection = await asyncpg.connect(uri)
    await connection.execute(LOAD, total)
    await connection.execute("VACUUM ANALYZE matins.thread")
    await connection.execute("VACUUM ANALYZE matins.thread_tag")
    await connection.execute("CHECKPOINT")
    await connection.close()


class Explaining:
    """A connection that notes the plan of each statement before it carries it out."""

    def __init__(self, conn: Conn) -> None:
        self._conn = conn
        self.plans: list[str] = []

    async def fetch(self, text: str, *given: object) -> list[asyncpg.Record]:
        """Fetch rows."""
        plan = await self._conn.fetch(f"EXPLAIN (ANALYZE, BUFFERS, TIMING OFF) {text}", *given)
        self.plans.append("\n".join(row[0] for row in plan))
        return list(await self._conn.fetch(text, *given))

    async def fetchval(self, text: str, *given: object) -> object:
        """Fetch a value."""
        return (await self.fetch(text, *given))[0][0]


async def plans(uri: str, wanted: Filter) -> dict[str, list[str]]:
    """Give the plans of what the server asks for the page and for its total, carried out."""
    async with open_connection(uri) as connection:
        page, total = Explaining(connection), Explaining(connection)
        await threads.search(
            page,  # type: ignore[arg-type]
            wanted,
            scope=EVERYONE,
            sort_by="updated_at",
            direction="desc",
            limit=11,
            offset=0,
        )
        await threads.count(total, wanted, scope=EVERYONE, limit=10_001)  # type: ignore[arg-type]
    return {"page": page.plans, "total": total.plans}


def measure(url: str, body: Callable[[], dict[str, str]]) -> tuple[list[float], str, int]:
    """Give the sorted seconds of REQUESTS searches, the last one's total and how many threads it found."""
    taken: list[float] = []
    total, found = "", 0
    with httpx.Client(base_url=url, timeout=60) as client:
        for number in range(REQUESTS + 10):
            asked = {"metadata": body(), "limit": 10}
            began = time.perf_counter()
            answer = client.post("/threads/search", json=asked).raise_for_status()
            if number >= 10:  # the first ones warm up
                taken.append(time.perf_counter() - began)
            total, found = answer.headers["x-pagination-total"], len(answer.json())
    return sorted(taken), total, found


def main() -> None:
    """Measure and print."""
    total = int(sys.argv[1]) if len(sys.argv) > 1 else THREADS
    with (
        tempfile.TemporaryDirectory() as folder,
        servers.start(servers.EXAMPLES, Path(folder), args=["--no-reload"]) as server,
    ):
        began = time.perf_counter()
        anyio.run(load, server.database_uri, total)
        print(f"{total} threads made in {time.perf_counter() - began:.0f} s")
        for name, values in filters(total).items():
            taken, matching, found = measure(server.url, values.__next__)
            p50, p95 = statistics.median(taken) * 1e3, taken[int(REQUESTS * 0.95)] * 1e3
            print(f"{name:10} p50 {p50:6.1f} ms, p95 {p95:6.1f} ms; total {matching}, {found} on the page")
        for name, values in filters(total).items():
            asked = next(values)
            print(f"\n== {name}: {json.dumps(asked)}")
            wanted = Filter(metadata=json.dumps(asked).encode())
            for what, said in anyio.run(plans, server.database_uri, wanted).items():
                for plan in said:
                    print(f"-- {what}\n{plan}")


if __name__ == "__main__":
    main()
