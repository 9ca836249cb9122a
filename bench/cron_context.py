"""One cron on a thread with `last_n: 20`, fired 1,000 times: what its graph is given, and what the database keeps.

The graph stands for an agent: it answers each fire with 400 characters and the size of what it was given, which the
ledger shows. Half way and at the end the thread is pruned to its newest checkpoint, as `checkpointer.ttl` with
`keep_latest` does it, and what is left is counted: rows, and bytes in them, all of them and by fire.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

import anyio
import asyncpg
import httpx

from tests.support import servers

FIRES = 1_000
EARLY = 20
"""By this fire the thread holds more than is kept."""

GRAPH = """
from langchain_core.messages import AIMessage
from langgraph.graph import START, MessagesState, StateGraph

async def agent(state: MessagesState):
    messages = state["messages"]
    size = f"{len(messages)} messages, {sum(len(each.text) for each in messages)} characters"
    return {"messages": [AIMessage(size.ljust(400, "."))]}

graph = StateGraph(MessagesState).add_node(agent).add_edge(START, "agent").compile()
"""
CRON = {
    "assistant_id": "agent",
    "schedule": "0 0 1 1 *",
    "input": {"messages": [{"role": "user", "content": "What is new? " * 10}]},
    "policy": {"last_n": 20},
}
TABLES = (
    "checkpoints",
    "checkpoint_blobs",
    "checkpoint_writes",
    "matins.stream_event",
    "matins.thread",
    "matins.run",
    "matins.run_undo",
    "matins.cron_fire",
)


def fire(client: httpx.Client, cron_id: str) -> str:
    """Fire the cron, wait for its run, and give what that said it was given."""
    run_id = client.post(f"/runs/crons/{cron_id}/trigger").raise_for_status().json()["run_id"]
    while True:
        [newest] = client.get(f"/runs/crons/{cron_id}/fires", params={"limit": 1}).raise_for_status().json()
        if newest["run_id"] == run_id and newest["ended_at"]:
            if newest["status"] != "success":
                raise RuntimeError(newest)
            size: str = newest["output"].rstrip(".")
            return size
        time.sleep(0.005)


async def sizes(uri: str) -> dict[str, tuple[int, int]]:
    """Give for each table its rows and the bytes in them."""
    connection = await asyncpg.connect(uri)
    try:
        found = {}
        for table in TABLES:
            [row] = await connection.fetch(
                f"SELECT count(*) AS rows, coalesce(sum(pg_column_size(t.*)), 0) AS octets FROM {table} AS t"  # noqa: S608
            )
            found[table] = (row["rows"], row["octets"])
        return found
    finally:
        await connection.close()


def report(title: str, found: dict[str, tuple[int, int]], fires: int) -> None:
    """Print what is kept."""
    print(f"{title}, {fires} fires:")
    for table, (rows, octets) in found.items():
        print(f"  {table:<20} {rows:>7} rows {octets / 1024:>9.0f} KiB, {octets / fires:>7.0f} bytes a fire")


def main() -> None:
    """Measure and print."""
    fires = int(sys.argv[1]) if len(sys.argv) > 1 else FIRES
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "agent.py").write_text(GRAPH)
        config = folder / "langgraph.json"
        config.write_text(json.dumps({"dependencies": ["."], "graphs": {"agent": "./agent.py:graph"}}))
        with (
            servers.start(config, folder, args=["--no-reload"]) as server,
            httpx.Client(base_url=server.url, timeout=30) as client,
        ):
            thread_id = client.post("/threads", json={}).raise_for_status().json()["thread_id"]
            path = f"/threads/{thread_id}/runs/crons"
            cron_id = client.post(path, json=CRON).raise_for_status().json()["cron_id"]
            began = time.monotonic()
            given = []
            for number in range(1, fires + 1):
                given.append(fire(client, cron_id))
                if number in (fires // 2, fires):
                    report("Before pruning", anyio.run(sizes, server.database_uri), number)
                    pruned = {"thread_ids": [thread_id], "strategy": "keep_latest"}
                    client.post("/threads/prune", json=pruned).raise_for_status()
                    report("Pruned", anyio.run(sizes, server.database_uri), number)
            print(f"{fires} fires in {time.monotonic() - began:.0f} s")
            print(f"given to the graph: at fire {EARLY} {given[EARLY - 1]}; at fire {fires} {given[-1]}")


if __name__ == "__main__":
    main()
