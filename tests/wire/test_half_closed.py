"""Clients that go, and clients that only say that they will send no more, on raw sockets."""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from tests.support.servers import Server
from tests.support.waiting import until
from tests.wire.compatibility import covers
from tests.wire.test_framing import Wire, connect

Leave = Callable[[socket.socket], None]


def close(client: socket.socket) -> None:
    client.close()


def reset(client: socket.socket) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


def finish_then_close(client: socket.socket) -> None:
    client.shutdown(socket.SHUT_WR)
    client.close()


@pytest.fixture
def thread(http: httpx.Client) -> str:
    thread_id: str = http.post("/threads", json={}).json()["thread_id"]
    return thread_id


@contextmanager
def asking(server: Server, method: str, path: str, body: dict[str, Any] | None) -> Iterator[Wire]:
    """Ask, and have the head of the reply: from here on nothing is sent but heartbeats."""
    with connect(server) as wire:
        wire.send(f"{method} {path} HTTP/1.1", json.dumps(body).encode() if body else b"")
        assert wire.head()[0] == 200
        yield wire


def a_run(http: httpx.Client, thread: str, seconds: float) -> str:
    body = {"assistant_id": "slow", "input": {"delay": seconds}, "stream_mode": "updates"}
    run_id: str = http.post(f"/threads/{thread}/runs", json=body).json()["run_id"]
    return run_id


def status(http: httpx.Client, thread: str) -> str:
    [run] = http.get(f"/threads/{thread}/runs").json()
    found: str = run["status"]
    return found


@pytest.mark.parametrize("leave", [close, reset, finish_then_close])
@pytest.mark.parametrize("what", ["stream", "wait"])
def test_a_client_that_goes_takes_its_run_with_it_when_it_said_so(
    server: Server, http: httpx.Client, thread: str, leave: Leave, what: str
) -> None:
    wanted = {
        "assistant_id": "slow",
        "input": {"delay": 600},
        "on_disconnect": "cancel",
        "stream_mode": "custom",
    }
    with asking(server, "POST", f"/threads/{thread}/runs/{what}", wanted) as wire:
        until(lambda: http.get(f"/threads/{thread}/state").json()["next"] == ["step"])
        leave(wire.socket)
        until(lambda: status(http, thread) == "interrupted")
    assert http.get(f"/threads/{thread}").json()["status"] == "interrupted"


@pytest.mark.parametrize("what", ["stream", "join"])
def test_a_follower_that_goes_takes_the_run_with_it_when_it_said_so(
    server: Server, http: httpx.Client, thread: str, what: str
) -> None:
    place = f"/threads/{thread}/runs/{a_run(http, thread, 600)}/{what}"
    with asking(server, "GET", f"{place}?cancel_on_disconnect=true", None) as wire:
        wire.socket.close()
        until(lambda: status(http, thread) == "interrupted")


def whole_reply(server: Server, method: str, path: str, body: dict[str, Any] | None) -> bytes:
    """Ask, say that no more will come, and give the body of the reply and what follows it until the end."""
    with connect(server) as wire:
        wire.send(f"{method} {path} HTTP/1.1", json.dumps(body).encode() if body else b"")
        wire.socket.shutdown(socket.SHUT_WR)
        code, headers = wire.head()
        assert code == 200
        found = wire.body(headers)
        assert wire.socket.recv(1) == b"", "the connection of a client that sends no more is closed"
        return found


@covers("When a client goes away", "a client that only sends no more")
def test_a_client_that_sends_no_more_gets_its_whole_stream(
    server: Server, http: httpx.Client, thread: str
) -> None:
    wanted = {
        "assistant_id": "slow",
        "input": {"delay": 1.5, "steps": 3},
        "stream_mode": "updates",
        "on_disconnect": "cancel",
    }
    body = whole_reply(server, "POST", f"/threads/{thread}/runs/stream", wanted)
    assert body.count(b"event: updates") == 4
    assert body.endswith(b'{"step":{"done":3}}\r\n\r\n')
    assert status(http, thread) == "success"


@covers("When a client goes away", "a client that only sends no more")
def test_a_client_that_sends_no_more_gets_what_it_waits_for(
    server: Server, http: httpx.Client, thread: str
) -> None:
    wanted = {"assistant_id": "slow", "input": {"delay": 1.5}, "on_disconnect": "cancel"}
    body = whole_reply(server, "POST", f"/threads/{thread}/runs/wait", wanted)
    assert json.loads(body) == {"delay": 1.5, "done": 1}
    assert status(http, thread) == "success"


@pytest.mark.parametrize("what", ["stream", "join"])
def test_a_follower_that_sends_no_more_gets_its_whole_reply(
    server: Server, http: httpx.Client, thread: str, what: str
) -> None:
    run_id = a_run(http, thread, 1.5)
    place = f"/threads/{thread}/runs/{run_id}/{what}?cancel_on_disconnect=true"
    assert b'"done":1' in whole_reply(server, "GET", place, None)
    assert status(http, thread) == "success"


def test_a_client_that_sends_no_more_gets_a_short_reply_too(server: Server) -> None:
    assert json.loads(whole_reply(server, "GET", "/ok", None))["ok"] is True
    assert isinstance(json.loads(whole_reply(server, "POST", "/threads/search", {"limit": 1})), list)


def test_a_request_that_ends_in_its_middle_is_no_request(server: Server, http: httpx.Client) -> None:
    before = http.post("/threads/count", json={}).json()
    for sent in (b"POST /threads HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n{}", b"POST /thr"):
        with connect(server) as wire:
            wire.socket.sendall(sent)
            wire.socket.shutdown(socket.SHUT_WR)
            assert wire.socket.recv(1) == b""
    assert http.post("/threads/count", json={}).json() == before
