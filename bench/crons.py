"""200 crons due in the same minute on one node: when their runs were committed, after the slot.

The commit's own time is the database's (`track_commit_timestamp`, on in the embedded PostgreSQL), so nothing of the
client or of a poll is in the figure. It is read of rows that a trigger adds to a table of the bench's own, for a row of
the ledger is written again when its run starts and when it ends. Half of the crons are on threads, half make a thread
for each run.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path

import anyio
import asyncpg
import httpx

from tests.support import servers

CRONS = 200
MINUTES = 2
BODY = {
    "assistant_id": "echo",
    "schedule": "* * * * *",
    "input": {"messages": [{"role": "user", "content": "tick"}]},
}


WITNESS = """
    CREATE TABLE public.fired (scheduled_for timestamptz NOT NULL);
    CREATE FUNCTION public.note_fire() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN INSERT INTO public.fired SELECT scheduled_for FROM added WHERE outcome = 'fired'; RETURN NULL; END $$;
    CREATE TRIGGER note_fire AFTER INSERT ON matins.cron_fire
    REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION public.note_fire();
"""


async def watch(server: servers.Server) -> None:
    """Have the database note each fire in a row that nobody writes again."""
    connection = await asyncpg.connect(server.database_uri)
    try:
        await connection.execute(WITNESS)
    finally:
        await connection.close()


def create(url: str, crons: int) -> None:
    """Create the crons, all due at the next minute, in time for it."""
    with httpx.Client(base_url=url, timeout=30) as client:
        if time.time() % 60 > 45:  # noqa: TID251 - the wall clock's minute is what is waited for
            time.sleep(61 - time.time() % 60)  # noqa: TID251 - as above
        for number in range(crons):
            path = "/runs/crons"
            if number % 2:
                thread = client.post("/threads", json={}).raise_for_status().json()["thread_id"]
                path = f"/threads/{thread}/runs/crons"
            client.post(path, json=BODY).raise_for_status()


async def lateness(server: servers.Server, minutes: int, crons: int) -> list[float]:
    """Wait for `minutes` slots of all crons and give each commit's seconds after its slot, sorted."""
    connection = await asyncpg.connect(server.database_uri)
    try:
        while await connection.fetchval("SELECT count(*) FROM matins.cron_fire") < crons * minutes:  # noqa: ASYNC110
            await anyio.sleep(0.5)
        found = await connection.fetch(
            "SELECT extract(epoch FROM pg_xact_commit_timestamp(xmin) - scheduled_for)::float8 AS late"
            " FROM public.fired ORDER BY 1"
        )
        return [row["late"] for row in found]
    finally:
        await connection.close()


def main() -> None:
    """Measure and print."""
    minutes = int(sys.argv[1]) if len(sys.argv) > 1 else MINUTES
    with (
        tempfile.TemporaryDirectory() as folder,
        servers.start(servers.EXAMPLES, Path(folder), args=["--no-reload"]) as server,
    ):
        anyio.run(watch, server)
        create(server.url, CRONS)
        late = anyio.run(lateness, server, minutes, CRONS)
    print(
        f"{len(late)} fires of {CRONS} crons: commit after the slot p50 {statistics.median(late) * 1e3:.0f} ms, "
        f"p99 {late[int(len(late) * 0.99) - 1] * 1e3:.0f} ms, worst {late[-1] * 1e3:.0f} ms"
    )


if __name__ == "__main__":
    main()
