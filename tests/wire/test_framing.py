"""The bytes on the socket."""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import httpx
import pytest

from tests.support.servers import Server
from tests.wire.compatibility import covers


class Wire:
    """A connection, read as it comes."""

    def __init__(self, server: Server) -> None:
        self.socket = socket.create_connection(("127.0.0.1", server.port), 5)
        self.socket.settimeout(20)
        self._held = b""

    def send(self, head: str, body: bytes = b"") -> None:
        length = f"content-length: {len(body)}\r\n" if body else ""
        self.socket.sendall(f"{head}\r\nhost: test\r\n{length}\r\n".encode() + body)

    def until(self, mark: bytes) -> bytes:
        """Give everything up to and with the mark."""
        while mark not in self._held:
            more = self.socket.recv(65536)
            assert more, f"the connection ended before {mark!r}: {self._held!r}"
            self._held += more
        found, _, self._held = self._held.partition(mark)
        return found + mark

    def exactly(self, count: int) -> bytes:
        while len(self._held) < count:
            more = self.socket.recv(65536)
            assert more, "the connection ended"
            self._held += more
        found, self._held = self._held[:count], self._held[count:]
        return found

    def head(self) -> tuple[int, dict[str, str]]:
        """Give the status and the headers of a response."""
        first, *lines = self.until(b"\r\n\r\n").decode("latin-1").strip().split("\r\n")
        return int(first.split()[1]), {
            name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)
        }

    def chunk(self) -> bytes:
        """Give the next chunk of a chunked body; empty at its end."""
        data = self.exactly(int(self.until(b"\r\n"), 16))
        assert self.exactly(2) == b"\r\n"
        return data

    def body(self, headers: dict[str, str]) -> bytes:
        """Give the whole body."""
        if headers.get("transfer-encoding") != "chunked":
            return self.exactly(int(headers.get("content-length", 0)))
        data = b""
        while more := self.chunk():
            data += more
        return data


@contextmanager
def connect(server: Server) -> Iterator[Wire]:
    wire = Wire(server)
    try:
        yield wire
    finally:
        wire.socket.close()


def post(server: Server, path: str, body: object) -> tuple[int, dict[str, str], bytes]:
    with connect(server) as wire:
        wire.send(f"POST {path} HTTP/1.1", json.dumps(body).encode())
        status, headers = wire.head()
        return status, headers, wire.body(headers)


@pytest.fixture
def thread(server: Server) -> str:
    thread_id: str = httpx.post(f"{server.url}/threads", json={}).json()["thread_id"]
    return thread_id


@covers("Server-sent events", "content-type:", "cache-control:", "x-accel-buffering:", "transfer-encoding:")
@covers("Server-sent events", "the lines", "data", "metadata", "the end", "id")
@covers("POST /threads/{thread_id}/runs/stream", "Content-Location:", "Location:")
@covers("Event", "event", "data", "id")
def test_a_stream_is_framed_byte_for_byte(server: Server, thread: str) -> None:
    wanted = {"assistant_id": "events", "input": {"n": 1}, "stream_mode": ["custom", "values"]}
    status, headers, body = post(server, f"/threads/{thread}/runs/stream", wanted)
    assert status == 200
    run_id = headers["content-location"].rpartition("/")[2]
    assert headers["location"] == f"/threads/{thread}/runs/{run_id}/stream"
    assert headers["content-type"] == "text/event-stream; charset=utf-8"
    assert headers["cache-control"] == "no-store"
    assert headers["x-accel-buffering"] == "no"
    assert headers["transfer-encoding"] == "chunked"
    assert body.decode() == (
        f'event: metadata\r\ndata: {{"run_id":"{run_id}","attempt":1}}\r\n\r\n'
        'event: values\r\ndata: {"n":1}\r\n\r\n'
        'event: custom\r\ndata: {"i":0}\r\n\r\n'
        'event: values\r\ndata: {"n":1,"written":1}\r\n\r\n'
    )


@covers("Server-sent events", "the lines", "id")
@covers("To follow a run", "Last-Event-ID")
def test_the_events_of_a_resumable_stream_have_numbers(server: Server, thread: str) -> None:
    wanted = {
        "assistant_id": "events",
        "input": {"n": 2},
        "stream_mode": "custom",
        "stream_resumable": True,
    }
    _, headers, body = post(server, f"/threads/{thread}/runs/stream", wanted)
    frame = re.compile(rb"event: ([a-z]+)\r\ndata: ([^\r\n]+)\r\nid: ([0-9]+)\r\n\r\n")
    frames = frame.findall(body)
    assert b"".join(b"event: %b\r\ndata: %b\r\nid: %b\r\n\r\n" % each for each in frames) == body
    numbers = [int(number) for _, _, number in frames]
    assert numbers == sorted(set(numbers))
    assert min(numbers) > 0
    with connect(server) as wire:
        wire.send(f"GET {headers['location']} HTTP/1.1\r\nlast-event-id: {numbers[0]}")
        _, again = wire.head()
        assert wire.body(again) == body[body.index(b"event: custom") :]
        assert again["content-type"] == headers["content-type"]


@covers("Server-sent events", "data")
@covers("Requests and answers", "every body")
def test_what_is_no_ascii_is_sent_as_it_is(server: Server, thread: str) -> None:
    said = {"messages": [{"role": "user", "content": "Größe 🦉 \u2028 x"}]}
    _, _, body = post(server, f"/threads/{thread}/runs/wait", {"assistant_id": "echo", "input": said})
    assert body.count("Größe 🦉 \u2028 x".encode()) == 2
    _, _, body = post(server, f"/threads/{thread}/runs/stream", {"assistant_id": "echo", "input": said})
    assert "Größe 🦉 \u2028 x".encode() in body
    assert all(line.startswith((b"event: ", b"data: ")) or not line for line in body.split(b"\r\n"))


@covers("Server-sent events", "error", "the end")
def test_a_failure_is_the_last_event_and_the_end(server: Server, thread: str) -> None:
    wanted = {"assistant_id": "failing", "input": {"x": 1}, "stream_mode": "updates"}
    status, headers, body = post(server, f"/threads/{thread}/runs/stream", wanted)
    run_id = headers["content-location"].rpartition("/")[2]
    assert status == 200
    assert body.decode() == (
        f'event: metadata\r\ndata: {{"run_id":"{run_id}","attempt":1}}\r\n\r\n'
        'event: error\r\ndata: {"error":"ValueError","message":"boom happened"}\r\n\r\n'
    )


@covers("Server-sent events", "the heartbeat")
@covers("What wait and join answer", "the newlines")
def test_a_silent_run_is_kept_alive(server: Server) -> None:
    """Side by side a stream, one that is not silent, and a wait: a comment, and a newline before the value."""
    slow = {"assistant_id": "slow", "input": {"delay": 8}, "stream_mode": "updates"}
    wanted = json.dumps(slow).encode()
    with connect(server) as stream, connect(server) as wait, connect(server) as busy:
        began = time.monotonic()
        busy.send(
            "POST /runs/stream HTTP/1.1", json.dumps({**slow, "input": {"delay": 8, "steps": 16}}).encode()
        )
        stream.send("POST /runs/stream HTTP/1.1", wanted)
        wait.send("POST /runs/wait HTTP/1.1", wanted)
        _, headers = wait.head()
        assert headers["transfer-encoding"] == "chunked"
        assert stream.head()[0] == 200
        stream.until(b": heartbeat\r\n\r\n")
        assert time.monotonic() - began > 4.5
        # A second one is due at ten seconds, which a slow run may reach.
        assert re.fullmatch(rb'\n{1,2}\{"delay":8,"done":1\}', wait.body(headers))
        assert stream.until(b"0\r\n\r\n").count(b"heartbeat") <= 1
        busy.until(b": heartbeat\r\n\r\n")
        assert b"event: updates\r\n" in busy.until(b"0\r\n\r\n")


@covers("What wait and join answer", "content-type:", "the state")
def test_a_wait_is_answered_in_compact_json(server: Server, thread: str) -> None:
    status, headers, body = post(
        server, f"/threads/{thread}/runs/wait", {"assistant_id": "events", "input": {"n": 1}}
    )
    assert (status, body) == (200, b'{"n":1,"written":1}')
    assert headers["content-type"] == "application/json"


REFUSED = [
    ("POST /threads", b"{bad", 422, "Invalid JSON in request body"),
    ("POST /threads", b"", 422, "Invalid JSON in request body"),
    ("POST /threads", b"[1]", 422, None),
    ("POST /threads", b'{"if_exists":"zzz"}', 422, None),
    ("POST /threads/search", b'{"limit":0}', 422, None),
    ("POST /assistants", b"{}", 422, '"graph_id" is a required property'),
    ("POST /threads/search", b'{"ids":["abc"]}', 400, "Invalid thread ID abc"),
    ("GET /threads/abc", b"", 422, "Invalid thread ID: must be a UUID"),
    (f"GET /threads/{uuid4()}/runs/abc", b"", 422, "Invalid run ID: must be a UUID"),
    (f"GET /threads/{uuid4()}/runs?limit=abc", b"", 400, "invalid literal for int() with base 10: 'abc'"),
    ("GET /assistants/echo", b"", 422, "Invalid assistant ID: must be a UUID"),
    ("GET /runs/crons/abc", b"", 422, "Invalid cron ID: must be a UUID"),
    (f"GET /threads/{uuid4()}", b"", 404, None),
    ("GET /nowhere", b"", 404, "Not Found"),
    ("PUT /threads", b"{}", 405, "Method Not Allowed"),
    ("DELETE /runs/wait", b"", 405, "Method Not Allowed"),
]


@covers("Refusal", "detail", "422 no JSON", "422 no id", "400 no number")
@covers("Refusal", "404 unknown route", "405 unknown method")
def test_a_refusal_says_why_and_keeps_the_connection(server: Server) -> None:
    with connect(server) as wire:
        for request, sent, expected, text in REFUSED:
            wire.send(f"{request} HTTP/1.1", sent)
            status, headers = wire.head()
            body: Any = json.loads(wire.body(headers))
            assert (request, sent, status) == (request, sent, expected)
            assert headers["content-type"] == "application/json"
            assert isinstance(body["detail"], str)
            assert body.keys() <= {"detail", "code"}
            if text is not None:
                assert body["detail"] == text
            if status == 405:
                assert headers["allow"]
        wire.send("GET /ok HTTP/1.1")
        assert wire.head()[0] == 200


@covers("Refusal", "413")
def test_a_body_that_announces_too_much_is_refused_unread(server: Server) -> None:
    with connect(server) as wire:
        wire.send(f"POST /threads HTTP/1.1\r\ncontent-length: {2**31}")
        status, headers = wire.head()
        assert status == 413
        assert "32 MiB" in json.loads(wire.body(headers))["detail"]


def test_a_body_that_grows_too_much_is_refused(server: Server) -> None:
    def pieces() -> Iterator[bytes]:
        yield b'{"metadata":{"a":"'
        for _ in range(40):
            yield b"x" * 2**20

    try:
        response = httpx.post(f"{server.url}/threads", content=pieces(), timeout=30)
    except httpx.WriteError:  # refused and closed while we were still writing
        return
    assert response.status_code == 413


def test_a_large_body_is_read(server: Server) -> None:
    text = "x" * 2**20
    made = httpx.post(f"{server.url}/threads", json={"metadata": {"a": text}}, timeout=30).json()
    assert made["metadata"]["a"] == text
    httpx.delete(f"{server.url}/threads/{made['thread_id']}").raise_for_status()


@covers("PATCH /threads/{thread_id}", "204")
@covers("DELETE /threads/{thread_id}", "204")
def test_what_has_no_body_to_give_gives_none(server: Server, thread: str) -> None:
    with connect(server) as wire:
        wire.send(f"PATCH /threads/{thread} HTTP/1.1\r\nprefer: return=minimal", b'{"metadata":{"a":1}}')
        status, headers = wire.head()
        assert (status, wire.body(headers)) == (204, b"")
        wire.send(f"DELETE /threads/{thread} HTTP/1.1")
        status, headers = wire.head()
        assert (status, wire.body(headers)) == (204, b"")
        assert "content-type" not in headers


@covers("Requests and answers", "access-control-allow-origin:")
def test_pages_of_other_origins_may_read_every_answer(server: Server) -> None:
    with connect(server) as wire:
        for path in ("/ok", "/nowhere", "/threads/abc"):
            wire.send(f"GET {path} HTTP/1.1\r\norigin: https://app.example")
            _, headers = wire.head()
            assert headers["access-control-allow-origin"] == "*"
            wire.body(headers)
