"""Deadlines of requests, and clients that go or fall silent, with the waits cut short."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Final
from urllib.parse import urlsplit

import anyio
import anyio.lowlevel
import pytest
from anyio.abc import SocketStream
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from matins.api import sse
from matins.api.errors import Wall
from matins.api.serving import Connection
from matins.domain.frames import Frame
from tests.support.ports import listening
from tests.wire.compatibility import covers

pytestmark = pytest.mark.anyio


class Quick(Connection):
    """Has less patience."""

    head_s = 0.4
    body_s = 0.4


async def read(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with the length of the body."""
    body = await Request(scope, receive).body()
    await Response(str(len(body)))(scope, receive, send)


APP: Final = Wall(read)


async def connect(url: str) -> SocketStream:
    return await anyio.connect_tcp("127.0.0.1", urlsplit(url).port or 0)


async def everything(client: SocketStream) -> bytes:
    """Give all that comes, to the end of the connection."""
    return b"".join([data async for data in client])


async def trickle(client: SocketStream, data: bytes) -> None:
    """Send the same bytes for ever, until the server has had enough."""
    try:
        while True:
            await client.send(data)
            await anyio.sleep(0.05)
    except (anyio.BrokenResourceError, anyio.ClosedResourceError):
        return


@pytest.mark.parametrize(
    ("begun", "more"),
    [
        (b"GET / HTTP/1.1\r\nhost: x\r\n", b"x-more: 1\r\n"),
        (b"GET /", b"a"),
        (b"", b"\r\n"),
        (b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 100000\r\n\r\n", b"x"),
        (b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
    ],
    ids=["headers", "first line", "empty lines", "body", "chunks"],
)
async def test_a_request_that_trickles_in_is_ended(begun: bytes, more: bytes) -> None:
    answer = b""  # it may be reset, for we are still sending
    async with listening(APP, Quick) as url, await connect(url) as client:
        with anyio.fail_after(20):
            async with anyio.create_task_group() as group:
                if begun:
                    await client.send(begun)
                group.start_soon(trickle, client, more)
                with suppress(anyio.BrokenResourceError):
                    answer = await everything(client)
                group.cancel_scope.cancel()
    if answer:
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 408 ")
        assert json.loads(body)["detail"] == "The request took too long to come in"


@covers("Refusal", "408")
async def test_a_head_that_stops_is_refused() -> None:
    async with listening(APP, Quick) as url, await connect(url) as client:
        await client.send(b"GET / HTTP/1.1\r\nhost: x\r\n")
        with anyio.fail_after(20):
            assert (await everything(client)).startswith(b"HTTP/1.1 408 Request Timeout\r\n")


async def test_a_body_that_keeps_coming_is_read_however_long_it_takes() -> None:
    class Lenient(Quick):
        body_bytes = 2

    async with listening(APP, Lenient) as url, await connect(url) as client:
        await client.send(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 24\r\nconnection: close\r\n\r\n")
        for _ in range(24):
            await client.send(b"x")
            await anyio.sleep(0.05)
        assert (await everything(client)).endswith(b"\r\n\r\n24")


async def test_a_deadline_ends_with_its_request() -> None:
    async with listening(APP, Quick) as url, await connect(url) as client:
        for _ in range(2):
            for piece in (b"POST / HTTP/1.1\r\nhost: x\r\n", b"content-length: 2\r\n\r\n", b"x", b"x"):
                await client.send(piece)
            assert (await client.receive()).endswith(b"\r\n\r\n2")
            await anyio.sleep(0.6)  # longer than any of them


def streaming(items: AsyncIterator[list[Frame] | None], gone: anyio.Event) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async def on_disconnect() -> None:
            gone.set()

        await sse.relay(
            scope, receive, send, items, sse.events, headers=sse.STREAM, on_disconnect=on_disconnect
        )

    return Wall(app)


async def test_a_client_that_is_gone_stops_the_fastest_producer() -> None:
    gone, over = anyio.Event(), anyio.Event()

    async def items() -> AsyncIterator[list[Frame] | None]:
        try:
            while True:
                await anyio.lowlevel.checkpoint()
                yield [Frame("values", b"x" * 1000)] * 10
        finally:
            over.set()

    async with listening(streaming(items(), gone)) as url:
        async with await connect(url) as client:
            await client.send(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            await client.receive()
        with anyio.fail_after(20):
            await gone.wait()
            await over.wait()


async def test_a_reply_that_does_not_ask_is_told_of_a_disconnect_but_may_answer() -> None:
    """As an application of a user's own: it may wait for a disconnect, or not care."""
    told = anyio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert await Request(scope, receive).body() == b"x"
        while (await receive())["type"] != "http.disconnect":
            pass
        assert (await receive())["type"] == "http.disconnect"
        told.set()
        await Response("all the same")(scope, receive, send)

    for pieces in ([b"x", b""], [b"", b"x"]):  # the end comes after the body, or with it
        async with listening(app) as url, await connect(url) as client:
            await client.send(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\n\r\n" + pieces[0])
            if pieces[1]:
                await client.send(pieces[1])
            await client.send_eof()
            with anyio.fail_after(20):
                await told.wait()
                assert (await everything(client)).endswith(b"\r\n\r\nall the same")


class Passing(BaseHTTPMiddleware):
    """As a user's may be; it takes any message after a request's last for a mistake but a disconnect."""

    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        return await call_next(request)


@pytest.mark.parametrize("is_within", [False, True])
async def test_a_client_that_will_send_no_more_is_not_gone(is_within: bool) -> None:
    """Until it is: it says so by not being there for what it is sent."""
    gone, more = anyio.Event(), anyio.Event()

    async def items() -> AsyncIterator[list[Frame] | None]:
        yield [Frame("values", b"1")]
        await more.wait()
        yield [Frame("values", b"2")]

    app = streaming(items(), gone)
    async with listening(Passing(app) if is_within else app) as url, await connect(url) as client:
        await client.send(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        seen = b""
        with anyio.fail_after(20):
            while b"event: values" not in seen:
                seen += await client.receive()
            await client.send_eof()
            while sse.HEARTBEAT not in seen:
                seen += await client.receive()
        await anyio.sleep(0.6)  # as long as it is looked at more than once
        assert not gone.is_set()
        more.set()
        assert (await everything(client)).endswith(b"event: values\r\ndata: 2\r\n\r\n\r\n0\r\n\r\n")
    assert not gone.is_set()
