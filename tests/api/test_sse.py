from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import suppress

import anyio
import httpx
import pytest
from starlette.types import ASGIApp, Receive, Scope, Send

from matins.api import sse
from matins.api.errors import Wall
from matins.domain.errors import Unavailable
from matins.domain.frames import Frame
from tests.support.ports import listening
from tests.wire.compatibility import covers

pytestmark = pytest.mark.anyio


async def test_frames_are_written_byte_for_byte() -> None:
    assert (
        sse.events([Frame("metadata", b'{"run_id":"r"}', 7), Frame("values|a:b", '{"x":"\u00e9"}'.encode())])
        == b'event: metadata\r\ndata: {"run_id":"r"}\r\nid: 7\r\n\r\n'
        + 'event: values|a:b\r\ndata: {"x":"\u00e9"}\r\n\r\n'.encode()
    )
    assert sse.events(None) == b": heartbeat\r\n\r\n"
    assert sse.value(None) == b"\n"


def relaying(
    items: AsyncIterator[list[Frame] | None],
    gone: anyio.Event | None = None,
    *,
    stalled_s: float = 30,
    aborted: anyio.Event | None = None,
) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async def on_disconnect() -> None:
            assert gone is not None
            gone.set()

        if aborted is not None:
            scope["abort"] = aborted.set
        await sse.relay(
            scope,
            receive,
            send,
            items,
            sse.events,
            headers=sse.STREAM,
            on_disconnect=on_disconnect if gone else None,
            stalled_s=stalled_s,
        )

    return Wall(app)


async def test_a_stream_ends_with_its_items() -> None:
    async def items() -> AsyncIterator[list[Frame] | None]:
        yield [Frame("values", b"1")]
        yield None

    async with listening(relaying(items())) as url, httpx.AsyncClient() as client:
        response = await client.get(url)
        assert response.content == b"event: values\r\ndata: 1\r\n\r\n: heartbeat\r\n\r\n"
        assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert response.headers["cache-control"] == "no-store"


@covers("Server-sent events", "a reply that is broken off")
@pytest.mark.parametrize("error", [Unavailable("away"), RuntimeError("a defect")])
async def test_a_stream_that_fails_does_not_look_complete(error: Exception) -> None:
    async def items() -> AsyncIterator[list[Frame] | None]:
        yield [Frame("values", b"1")]
        raise error

    async with listening(relaying(items())) as url, httpx.AsyncClient() as client:
        with pytest.raises(httpx.RemoteProtocolError):
            await client.get(url)


async def test_a_client_that_goes_away_is_noticed_at_once() -> None:
    gone = anyio.Event()

    async def items() -> AsyncIterator[list[Frame] | None]:
        yield [Frame("values", b"1")]
        await anyio.sleep_forever()
        yield None

    async with listening(relaying(items(), gone)) as url, httpx.AsyncClient() as client:
        async with client.stream("GET", url) as response:
            await anext(response.aiter_bytes())
        with anyio.fail_after(1):
            await gone.wait()


async def test_a_client_that_reads_nothing_is_cut_off() -> None:
    aborted = anyio.Event()

    async def items() -> AsyncIterator[list[Frame] | None]:
        while True:
            yield [Frame("values", b"x" * 2**20)]

    async with listening(relaying(items(), stalled_s=0.1, aborted=aborted)) as url:
        port = int(url.rstrip("/").rpartition(":")[2])
        async with await anyio.connect_tcp("127.0.0.1", port) as link:
            await link.send(b"GET / HTTP/1.1\r\nhost: test\r\n\r\n")
            with anyio.fail_after(20):
                await aborted.wait()
            left = b""
            with suppress(anyio.EndOfStream, anyio.BrokenResourceError):
                while True:
                    left += await link.receive()
            assert left
            assert not left.endswith(b"0\r\n\r\n"), "it looks complete"
