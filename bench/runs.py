"""Runs over HTTP: `runs.wait` alone and at 8 at once, the first streamed event, custom events a second.

The client is on the same machine: a plain HTTP client that parses nothing it does not need. Each figure is the median
of ROUNDS rounds after a warm-up. Beside them the bare graph in one process with LangGraph's in-memory saver, same
run, as a ratio. fsync is on and is printed. Default durability: the final checkpoint is in the database when the
reply arrives, which is checked.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg

from tests.support import servers

ROUNDS = 5
ALONE = 60
AT_ONCE = 8
EACH = 30
EVENTS = 5_000

ECHO = {"assistant_id": "echo", "input": {"messages": [{"role": "user", "content": "hello"}]}}
JSON = {"content-type": "application/json"}


class Client:
    """One keep-alive connection."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)

    def post(self, path: str, body: object) -> bytes:
        """Post JSON and give the body of the reply."""
        self._connection.request("POST", path, json.dumps(body), JSON)
        reply = self._connection.getresponse()
        content = reply.read()
        if reply.status >= 400:
            raise RuntimeError(f"{path}: {reply.status} {content[:300]!r}")
        return content

    def get(self, path: str) -> bytes:
        """Get the body of the reply."""
        self._connection.request("GET", path)
        return self._connection.getresponse().read()

    def until(self, path: str, body: object, found: bytes) -> float:
        """Post, read the stream until `found` is in it, give the seconds that took; then read the rest."""
        began = time.perf_counter()
        self._connection.request("POST", path, json.dumps(body), JSON)
        reply = self._connection.getresponse()
        seen = b""
        while found not in seen:
            seen += reply.read1(65536)
        taken = time.perf_counter() - began
        reply.read()
        return taken

    def count(self, path: str, body: object, what: bytes) -> tuple[int, float]:
        """Post and count `what` in the stream to its end; the count and the seconds from the first byte."""
        self._connection.request("POST", path, json.dumps(body), JSON)
        reply = self._connection.getresponse()
        began = time.perf_counter()
        number, tail = 0, b""
        while chunk := reply.read1(1 << 20):
            number += (tail + chunk).count(what) - tail.count(what)
            tail = chunk[-len(what) + 1 :]
        return number, time.perf_counter() - began


def wait_alone(url: str) -> float:
    """Give the median seconds of `runs.wait` on a thread, one after another."""
    client, taken = Client(url), []
    for _ in range(ALONE):
        thread = json.loads(client.post("/threads", {}))["thread_id"]
        began = time.perf_counter()
        reply = json.loads(client.post(f"/threads/{thread}/runs/wait", ECHO))
        taken.append(time.perf_counter() - began)
        if reply["messages"][-1]["content"] != "hello":
            raise RuntimeError(reply)
    return statistics.median(taken)


def wait_together(url: str) -> float:
    """Give runs a second with AT_ONCE clients, each on fresh threads."""
    clients = [Client(url) for _ in range(AT_ONCE)]
    threads = [[json.loads(c.post("/threads", {}))["thread_id"] for _ in range(EACH)] for c in clients]

    def work(client: Client, mine: list[str]) -> None:
        for thread in mine:
            client.post(f"/threads/{thread}/runs/wait", ECHO)

    workers = [threading.Thread(target=work, args=pair) for pair in zip(clients, threads, strict=True)]
    began = time.perf_counter()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return AT_ONCE * EACH / (time.perf_counter() - began)


def first_event(url: str) -> float:
    """Give the median seconds to the first streamed event."""
    client, taken = Client(url), []
    for _ in range(ALONE):
        thread = json.loads(client.post("/threads", {}))["thread_id"]
        taken.append(client.until(f"/threads/{thread}/runs/stream", ECHO, b"\r\n\r\n"))
    return statistics.median(taken)


def events(url: str) -> float:
    """Give custom events a second of a graph that writes EVENTS of them."""
    body = {"assistant_id": "events", "input": {"n": EVENTS}, "stream_mode": "custom"}
    number, seconds = Client(url).count("/runs/stream", body, b"event: custom")
    if number != EVENTS:
        raise RuntimeError(f"{number} events instead of {EVENTS}")
    return number / seconds


def bare() -> tuple[float, float]:
    """Give the bare graph's median seconds a run and runs a second at AT_ONCE, with the in-memory saver."""
    sys.path.insert(0, str(Path("examples").resolve()))
    os.environ["LANGSMITH_TRACING"] = "false"
    from echo import graph  # type: ignore[import-not-found]  # noqa: PLC0415 - the example, loaded as a server would
    from langgraph.checkpoint.memory import InMemorySaver  # noqa: PLC0415 - only this process of the bench

    compiled = graph.compile() if hasattr(graph, "compile") else graph
    compiled = compiled.copy(update={"checkpointer": InMemorySaver()})

    async def one(number: str) -> float:
        began = time.perf_counter()
        await compiled.ainvoke(ECHO["input"], {"configurable": {"thread_id": number}})
        return time.perf_counter() - began

    async def all_of_them() -> tuple[float, float]:
        await one("warm")
        alone = [await one(f"a{number}") for number in range(ALONE)]

        async def lane(name: int) -> None:
            for number in range(EACH):
                await one(f"{name}-{number}")

        began = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for name in range(AT_ONCE):
                group.create_task(lane(name))
        return statistics.median(alone), AT_ONCE * EACH / (time.perf_counter() - began)

    return asyncio.run(all_of_them())


async def settings(server: servers.Server) -> tuple[str, int, int]:
    """Give fsync, and how many runs ended without their last checkpoint in the database, of how many."""
    connection = await asyncpg.connect(server.database_uri)
    fsync = await connection.fetchval("SHOW fsync")
    missing = await connection.fetchval(
        "SELECT count(*) FROM matins.run AS r WHERE status = 'success' AND NOT EXISTS (SELECT FROM checkpoints AS c"
        " WHERE c.thread_id = r.thread_id::text AND c.checkpoint_id = r.last_checkpoint_id)"
    )
    total = await connection.fetchval("SELECT count(*) FROM matins.run WHERE status = 'success'")
    await connection.close()
    return fsync, missing, total


def median(measure: Callable[[str], float], url: str) -> float:
    """Warm up once, then give the median of ROUNDS rounds."""
    measure(url)
    return statistics.median(measure(url) for _ in range(ROUNDS))


def main() -> None:
    """Measure and print."""
    bare_alone, bare_together = bare()
    with (
        tempfile.TemporaryDirectory() as folder,
        servers.start(servers.EXAMPLES, Path(folder), args=["--no-reload"]) as server,
    ):
        alone, together = median(wait_alone, server.url), median(wait_together, server.url)
        first, streamed = median(first_event, server.url), median(events, server.url)
        fsync, missing, total = asyncio.run(settings(server))
    print(f"fsync {fsync}; {missing} of {total} runs without their last checkpoint in the database")
    print(
        f"runs.wait, one at a time  p50 {alone * 1e3:7.1f} ms  ({alone / bare_alone:.1f} x the bare graph's)"
    )
    print(
        f"runs.wait, {AT_ONCE} at once     {together:7.0f} /s  ({together / bare_together:.2f} x the bare graph's)"
    )
    print(f"first streamed event      p50 {first * 1e3:7.1f} ms")
    print(f"custom events                 {streamed:7.0f} /s")
    print(f"the bare graph                {bare_alone * 1e3:7.1f} ms, {bare_together:.0f} /s")


if __name__ == "__main__":
    main()
