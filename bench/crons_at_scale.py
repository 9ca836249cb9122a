"""Many crons on one node: 1,000 and 10,000 due at the same instant, and a million at rest.

When the runs were committed after the slot is the database's own time of the transaction that wrote a cron last, which
is the one that wrote its run: nothing is added to what is measured. At rest, the serving process's own processor
time and memory are those of the system, and how long the next date takes to find is timed from a client. A scheduler is
measured by itself, too, in this process.

    python -m bench.crons_at_scale [crons at rest]
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import anyio
import asyncpg
import httpx

from matins.storage.pool import open_pool
from tests.support import servers
from tests.support.engine import scheduling

AT_ONCE = (1_000, 10_000)
AT_REST = 1_000_000
REST_SECONDS = 30
BODY = {
    "assistant_id": "echo",
    "schedule": "0 0 1 1 *",
    "input": {"messages": [{"role": "user", "content": "tick"}]},
}
COPIES = """
    INSERT INTO matins.cron
    SELECT (jsonb_populate_record(c, jsonb_build_object('cron_id', gen_random_uuid()))).*
    FROM matins.cron AS c, generate_series(1, $2) WHERE c.cron_id = $1
"""


async def due_at_once(connection: asyncpg.Connection, template: str, crons: int) -> str:
    """Have that many crons due at one instant; say when their runs were committed."""
    await connection.execute("DELETE FROM matins.cron WHERE cron_id <> $1", template)
    await connection.execute(COPIES, template, crons)
    slot = await connection.fetchval("SELECT date_trunc('second', matins.now()) + interval '5 s'")
    await connection.execute(
        "UPDATE matins.cron SET next_run_date = $2, due_at = $2 WHERE cron_id <> $1", template, slot
    )
    are_due = "SELECT EXISTS (SELECT FROM matins.cron WHERE enabled AND due_at = $1)"
    # As the database does by itself within a minute: it takes the table for empty otherwise.
    await connection.execute("ANALYZE matins.cron")
    while await connection.fetchval(are_due, slot):  # noqa: ASYNC110 - a row is no event
        await anyio.sleep(0.2)
    found = await connection.fetch(
        "SELECT extract(epoch FROM pg_xact_commit_timestamp(c.xmin) - f.scheduled_for)::float8 AS late"
        " FROM matins.cron AS c JOIN matins.cron_fire AS f USING (cron_id)"
        " WHERE f.scheduled_for = $1 AND f.run_id IS NOT NULL ORDER BY 1",
        slot,
    )
    assert len(found) == crons
    late = [row["late"] * 1e3 for row in found]
    while await connection.fetchval("SELECT count(*) FROM matins.run WHERE status IN ('pending', 'running')"):  # noqa: ASYNC110
        await anyio.sleep(1)
    return (
        f"{crons:,} crons due at once: commit after the slot p50 {statistics.median(late):.0f} ms, "
        f"p99 {late[int(len(late) * 0.99) - 1]:.0f} ms, last {late[-1]:.0f} ms"
    )


def used(pid: int) -> tuple[float, int]:
    """The processor seconds and the resident bytes of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    ticks = int(fields[11]) + int(fields[12])
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return ticks / os.sysconf("SC_CLK_TCK"), pages * os.sysconf("SC_PAGE_SIZE")


async def at_rest(connection: asyncpg.Connection, template: str, serving: int, crons: int) -> list[str]:
    """Have that many crons that are not due; say what the node takes, and how long the next date takes to find."""
    await connection.execute("DELETE FROM matins.cron WHERE cron_id <> $1", template)
    before, memory = used(serving)
    await anyio.sleep(REST_SECONDS)
    idle = (used(serving)[0] - before) / REST_SECONDS
    for _ in range(10):
        await connection.execute(COPIES, template, crons // 10, timeout=600)
    await connection.execute("ANALYZE matins.cron", timeout=600)
    await anyio.sleep(5)
    before, _ = used(serving)
    await anyio.sleep(REST_SECONDS)
    after, grown = used(serving)
    looks: list[float] = []
    for _ in range(200):
        began = time.perf_counter()
        await connection.fetchrow("SELECT matins.now(), (SELECT min(due_at) FROM matins.cron WHERE enabled)")
        looks.append(1e3 * (time.perf_counter() - began))
    busy = (after - before) / REST_SECONDS
    return [
        f"{crons:,} crons at rest: {100 * busy:.2f} % of a core in the serving process, {100 * idle:.2f} % without",
        f"  memory {grown / 2**20:.0f} MiB ({memory / 2**20:.0f} MiB without)",
        f"  the next date found in {statistics.median(looks):.2f} ms, at worst {max(looks):.2f} ms",
    ]


async def alone(dsn: str) -> str:
    """Have a scheduler, and what catches up, look at the same crons from this process; say what that takes."""
    async with open_pool(dsn, size=2) as pool, scheduling(pool):
        before = time.process_time()
        await anyio.sleep(REST_SECONDS)
        busy = (time.process_time() - before) / REST_SECONDS
    return f"  a scheduler by itself: {100 * busy:.2f} % of a core"


async def measure(server: servers.Server, template: str, crons: int) -> None:
    """Measure and print."""
    connection = await asyncpg.connect(server.database_uri)
    try:
        for number in AT_ONCE:
            print(await due_at_once(connection, template, number), flush=True)
        for line in await at_rest(connection, template, server.serving, crons):
            print(line, flush=True)
        print(await alone(server.database_uri), flush=True)
    finally:
        await connection.close()


def main() -> None:
    """Run a node of its own and measure it."""
    crons = int(sys.argv[1]) if len(sys.argv) > 1 else AT_REST
    with (
        tempfile.TemporaryDirectory() as folder,
        servers.start(servers.EXAMPLES, Path(folder), args=["--no-reload"]) as server,
    ):
        template = httpx.post(f"{server.url}/runs/crons", json=BODY).raise_for_status().json()["cron_id"]
        anyio.run(measure, server, template, crons)


if __name__ == "__main__":
    main()
