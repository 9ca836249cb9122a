"""A reader that does not read costs the others nothing, and the server little."""

from __future__ import annotations

import re
import socket
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Any

import httpx

from tests.support.servers import Server

N = 300
BULK = {"assistant_id": "bulk", "input": {"n": N, "size": 65536}, "stream_mode": "custom"}
LITTLE_BYTES = 2 * 1024 * 1024
"""What is on its way to a client at the most: the kernel's part, the server's and a piece. By default it was 4 MB."""


def start(server: Server, **asked: Any) -> tuple[str, str]:
    """Create a run that waits for another one, so that it is listened to before it begins; its path and that one's."""
    thread_id = httpx.post(f"{server.url}/threads", json={}).json()["thread_id"]
    places = [
        httpx.post(f"{server.url}/threads/{thread_id}/runs", json=body).headers["content-location"]
        for body in ({"assistant_id": "slow", "input": {"delay": 600}}, {**BULK, **asked})
    ]
    return places[1], places[0]


def join(server: Server, place: str, *, buffer_bytes: int | None = None) -> socket.socket:
    """Ask for a stream and read its head alone."""
    link = socket.socket()
    if buffer_bytes:
        link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_bytes)
    link.settimeout(60)
    link.connect(("127.0.0.1", server.port))
    link.sendall(f"GET {place}/stream HTTP/1.1\r\nhost: test\r\nlast-event-id: -1\r\n\r\n".encode())
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += link.recv(1)
    assert head.startswith(b"HTTP/1.1 200")
    return link


def rest(link: socket.socket) -> bytes:
    """Read until the last chunk or the end of the connection."""
    body = b""
    while not body.endswith(b"0\r\n\r\n"):
        more = link.recv(1 << 20)
        if not more:
            break
        body += more
    return body


def trickle(link: socket.socket, enough: Event) -> bytes:
    """Read a little at a time: a reader that reads nothing at all is cut off."""
    body = b""
    while not enough.wait(0.5):
        body += link.recv(4096)
    return body


def test_a_reader_that_does_not_read_is_cut_off_and_the_others_see_everything(server: Server) -> None:
    run, before = start(server)
    with join(server, run) as reader, join(server, run, buffer_bytes=4096) as idle:
        httpx.post(f"{server.url}{before}/cancel?wait=1", timeout=30).raise_for_status()
        whole = rest(reader)
        assert whole.endswith(b"0\r\n\r\n")
        assert [int(i) for i in re.findall(rb'"i":(\d+)', whole)] == list(range(N))
        left = rest(idle)
        assert not left.endswith(b"0\r\n\r\n"), "it looks complete"
        assert len(left) < LITTLE_BYTES
        seen = [int(i) for i in re.findall(rb'"i":(\d+)', left)]
        assert seen == list(range(len(seen)))


def test_a_slow_reader_of_what_is_kept_gets_all_of_it_at_its_own_pace(server: Server) -> None:
    run, before = start(server, stream_resumable=True)
    with join(server, run) as reader, join(server, run, buffer_bytes=4096) as slow:
        httpx.post(f"{server.url}{before}/cancel?wait=1", timeout=30).raise_for_status()
        with ThreadPoolExecutor() as pool:
            others_are_done = Event()
            trickled = pool.submit(trickle, slow, others_are_done)
            try:
                whole = rest(reader)
            finally:
                others_are_done.set()
            body = trickled.result() + rest(slow)
        for each in (whole, body):
            assert each.endswith(b"0\r\n\r\n")
            assert [int(i) for i in re.findall(rb'"i":(\d+)', each)] == list(range(N))
            assert [int(number) for number in re.findall(rb"id: (\d+)", each)] == list(range(1, N + 2))
