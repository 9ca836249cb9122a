"""Streams that are cut, again and again, while the serving process is killed: whoever comes back misses nothing."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import struct
import sys
import time
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, NamedTuple

import anyio
import asyncpg
import httptools
import httpx
import pytest
from anyio.abc import SocketAttribute
from anyio.to_thread import run_sync

from tests.support import servers
from tests.support.servers import Server

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.timeout(0),  # as many streams as are asked for
    pytest.mark.skipif(sys.platform != "linux", reason="finds the processes of a server in /proc"),
]

PROJECT: Final = Path(__file__).parent / "project" / "langgraph.json"
STREAMS: Final = int(os.environ.get("KILL_STREAMS", "20"))
STEPS: Final = 10
EACH: Final = 100
EVENTS: Final = STEPS * EACH
KILLS: Final = 2
STILL_SECONDS: Final = 120.0
"""How long no client may get anything: a restart, and what a slow machine adds."""

_SEPARATOR: Final = b"\r\n\r\n"
_RESET: Final = struct.pack("ii", 1, 0)  # a close that is a RST


class Event(NamedTuple):
    id: int
    event: str
    data: dict[str, Any]


@dataclass
class Client:
    """Follows a run, is cut off at random, and comes back after the last event that it got."""

    server: Server
    place: str
    seen: list[Event] = field(default_factory=list)
    resets: int = 0
    ends: int = 0

    async def follow(self) -> None:
        while not self.ends:
            cut_at = len(self.seen) + random.randrange(1, EVENTS // 3)
            try:
                await self.join(after=self.seen[-1].id if self.seen else -1, cut_at=cut_at)
            except (OSError, anyio.BrokenResourceError, anyio.EndOfStream, httptools.HttpParserError):
                self.resets += 1  # the server's doing
                await anyio.sleep(random.uniform(0, 0.2))

    async def join(self, *, after: int, cut_at: int | None = None) -> None:
        """Read until the clean end, or cut the connection when so many events were seen."""
        reply = _Reply()
        parser = httptools.HttpResponseParser(reply)
        async with await anyio.connect_tcp("127.0.0.1", self.server.port) as link:
            await link.send(
                f"GET {self.place}/stream HTTP/1.1\r\nhost: test\r\nlast-event-id: {after}\r\n\r\n".encode()
            )
            while not reply.is_complete:
                parser.feed_data(await link.receive())
                assert parser.get_status_code() == 200
                self.seen += reply.events()
                if cut_at is not None and len(self.seen) >= cut_at:
                    raw = link.extra(SocketAttribute.raw_socket)  # noqa: S610 - no database is near
                    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                    self.resets += 1
                    return
        self.ends += 1


class _Reply:
    """What a parser has read of a reply."""

    def __init__(self) -> None:
        self.is_complete = False
        self._text = b""

    def on_body(self, piece: bytes) -> None:
        self._text += piece

    def on_message_complete(self) -> None:
        self.is_complete = True

    def events(self) -> list[Event]:
        *whole, self._text = self._text.split(_SEPARATOR)
        return [_event(frame) for frame in whole if not frame.startswith(b":")]


def _event(frame: bytes) -> Event:
    event, data, number = frame.split(b"\r\n")
    return Event(
        int(number.removeprefix(b"id: ")),
        event.removeprefix(b"event: ").decode(),
        json.loads(data.removeprefix(b"data: ")),
    )


def faults(seen: list[Event], run_id: str, begun: list[list[int]]) -> list[str]:
    """Give what is wrong with what a client saw of a run; `begun`: the steps that began in each of its processes."""
    found = []
    if [event.id for event in seen] != list(range(1, len(seen) + 1)):
        found.append(f"ids: {[event.id for event in seen]}")
    attempts: list[tuple[int, list[tuple[int, int]]]] = []
    for event in seen:
        if event.event == "metadata":
            assert event.data["run_id"] == run_id
            attempts.append((event.data["attempt"], []))
        else:
            assert event.event == "custom", event
            attempts[-1][1].append((event.data["step"], event.data["i"]))
    numbers = [number for number, _ in attempts]
    if numbers != sorted(set(numbers)) or numbers[0] < 1:
        found.append(f"attempts {numbers}")
    whole = [(step, i) for step in range(STEPS) for i in range(EACH)]
    for _, events in attempts:
        first = events[0][0] * EACH if events else 0
        if events != whole[first : first + len(events)]:
            found.append(f"no beginning of an attempt: {events}")
    # What an attempt begins with is the step that was interrupted, or the next when its end was on record.
    for before, after in pairwise(begun):
        if after[0] not in (before[-1], before[-1] + 1):
            found.append(f"after step {before[-1]} was interrupted, an attempt went on with {after[0]}")
    beginnings = iter([steps[0] for steps in begun])
    if not all(events[0][0] in beginnings for _, events in attempts if events):
        found.append(f"attempts began with {[events[:1] for _, events in attempts]}, not as in {begun}")
    # An attempt has nothing left to do when the state after the last step was on record before the kill.
    if attempts[-1][1][-1:] != whole[-1:] and (attempts[-1][1] or begun[-1][-1] != STEPS - 1):
        found.append(f"the end is missing: {attempts[-1][1][-1:]}")
    return found


def seams(clients: list[Client]) -> int:
    """Count how often clients saw a run begin anew."""
    return sum(
        event.event == "metadata" and event.data["attempt"] > 1 for client in clients for event in client.seen
    )


async def kill(server: Server, clients: list[Client]) -> list[float]:
    """Kill the serving process when a part of all events was seen; how long it took until a run went on."""
    took = []
    for number in range(1, KILLS + 1):
        while sum(len(client.seen) for client in clients) < number * STREAMS * EVENTS // (KILLS + 2):  # noqa: ASYNC110
            await anyio.sleep(0.01)
        before = seams(clients)
        await run_sync(os.kill, server.serving, signal.SIGKILL)
        killed = time.monotonic()
        while seams(clients) == before:  # noqa: ASYNC110
            await anyio.sleep(0.01)
        took.append(time.monotonic() - killed)
    return took


async def not_still(clients: list[Client]) -> None:
    """Fail when nobody gets anything any more."""
    seen, since = -1, time.monotonic()
    while True:
        if (now := sum(len(client.seen) for client in clients)) != seen:
            seen, since = now, time.monotonic()
        assert time.monotonic() - since < STILL_SECONDS, f"{seen} events, and no more come"
        await anyio.sleep(0.5)


async def test_streams_that_are_cut_and_killed_are_whole_in_the_end(tmp_path: Path) -> None:
    effects = tmp_path / "effects"
    effects.touch()
    with servers.start(
        PROJECT,
        tmp_path,
        args=["--no-reload"],
        env={"EFFECTS": str(effects), "LOG_LEVEL": "INFO", "N_JOBS_PER_WORKER": str(STREAMS)},
    ) as server:
        clients = []
        async with httpx.AsyncClient(base_url=server.url, timeout=60) as http:
            for _ in range(STREAMS):
                thread_id = (await http.post("/threads", json={})).json()["thread_id"]
                run = await http.post(
                    f"/threads/{thread_id}/runs",
                    json={
                        "assistant_id": "emit",
                        "input": {"steps": STEPS, "each": EACH, "pause": 0.1},
                        "stream_mode": "custom",
                        "stream_resumable": True,
                        "durability": "sync",
                    },
                )
                clients.append(Client(server, run.raise_for_status().headers["content-location"]))
        began = time.monotonic()
        took: list[float] = []

        async def kill_twice() -> None:
            took.extend(await kill(server, clients))

        async with anyio.create_task_group() as watched:
            watched.start_soon(not_still, clients)
            async with anyio.create_task_group() as group:
                group.start_soon(kill_twice)
                for client in clients:
                    group.start_soon(client.follow)
            watched.cancel_scope.cancel()
        took_s = time.monotonic() - began
        marks = [line.split() for line in effects.read_text().splitlines()]
        for client in clients:
            run_id = client.place.rpartition("/")[2]
            begun: dict[str, list[int]] = {}
            for whose, _, pid, step in marks:
                if whose == run_id:
                    begun.setdefault(pid, []).append(int(step))
            assert faults(client.seen, run_id, list(begun.values())) == []
            again = Client(server, client.place)
            await again.join(after=-1)
            assert again.seen == client.seen
            rest = Client(server, client.place)
            await rest.join(after=client.seen[-1].id)
            assert (rest.seen, client.ends) == ([], 1)
        connection = await asyncpg.connect(server.database_uri)
        ended = await connection.fetch("SELECT status, count(*) AS n FROM matins.run GROUP BY status")
        await connection.close()
        assert {row["status"]: row["n"] for row in ended} == {"success": STREAMS}
    print(
        f"{STREAMS} streams, {sum(len(client.seen) for client in clients)} events in {took_s:.0f} s;"
        f" {sum(client.resets for client in clients)} resets, {KILLS} kills, {seams(clients)} seams;"
        f" events again after {', '.join(f'{each:.2f} s' for each in took)}"
    )
    assert len(took) == KILLS
