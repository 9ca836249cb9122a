"""Replies that take as long as a run: frames as server-sent events, or one JSON value after heartbeats.

A reply that must be broken off is: the last chunk is never sent, so that a client reconnects instead of believing
that it has seen the end. Source of the framing: observed on the wire.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Final, TypeVar

import anyio
import msgspec
from starlette.types import Receive, Scope, Send

from matins import telemetry
from matins.domain.errors import Error
from matins.domain.frames import Frame

T = TypeVar("T")

STALLED_SECONDS: Final = 30.0
"""How long a client may leave what was sent to it unread. Cut off, it can come back."""

HEARTBEAT: Final = b": heartbeat\r\n\r\n"
STREAM: Final = {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-store",
    "x-accel-buffering": "no",
}
JSON: Final = {"content-type": "application/json", "cache-control": "no-store", "x-accel-buffering": "no"}


class Event(msgspec.Struct, kw_only=True):
    """One event of a stream. `data` is JSON; `id`, where there is one, is where a client may go on after it."""

    event: str
    data: str
    id: str | msgspec.UnsetType = msgspec.UNSET


def events(frames: list[Frame] | None) -> bytes:
    """Give a batch of frames as one piece, or a heartbeat for None."""
    if frames is None:
        return HEARTBEAT
    return b"".join([_event(frame) for frame in frames])


def unnumbered(frames: list[Frame] | None) -> bytes:
    """Give a batch without its numbers: those of a run that is not resumable are nothing to come back with."""
    return events(frames and [Frame(frame.event, frame.data) for frame in frames])


def _event(frame: Frame) -> bytes:
    if frame.seq:
        return b"event: %b\r\ndata: %b\r\nid: %d\r\n\r\n" % (frame.event.encode(), frame.data, frame.seq)
    return b"event: %b\r\ndata: %b\r\n\r\n" % (frame.event.encode(), frame.data)


def value(encoded: bytes | None) -> bytes:
    """Give the JSON value, or for None whitespace that keeps the connection alive."""
    return b"\n" if encoded is None else encoded


async def relay(
    scope: Scope,
    receive: Receive,
    send: Send,
    items: AsyncIterator[T | None],
    encode: Callable[[T | None], bytes],
    *,
    headers: Mapping[str, str],
    on_disconnect: Callable[[], Awaitable[None]] | None = None,
    stalled_s: float = STALLED_SECONDS,
) -> None:
    """Send each item as it comes and end the reply, or break it off when `items` raises or nothing is read.

    A client that reads nothing for `stalled_s` seconds is one too many.

    A client that goes away is noticed at once; then `on_disconnect` is called. One that will only send no more gets
    its reply: it is sent a heartbeat, which a client that is there does not mind.
    """
    is_gone = is_complete = False
    await send(
        {
            "type": "http.response.start",
            "status": 200,
            "headers": [(name.encode(), text.encode()) for name, text in headers.items()],
        }
    )
    async with anyio.create_task_group() as group:

        async def listen() -> None:
            nonlocal is_gone
            while (await receive())["type"] != "http.disconnect":
                pass
            is_gone = not is_complete  # the end of the reply is told as a disconnect, too
            group.cancel_scope.cancel()

        async def prove(client_done: asyncio.Event) -> None:
            await client_done.wait()
            await send({"type": "http.response.body", "body": encode(None), "more_body": True})

        if tell := scope.get("client_done"):
            group.start_soon(prove, tell())
        group.start_soon(listen)
        try:
            async for item in items:
                piece = encode(item)
                if piece:
                    with anyio.fail_after(stalled_s):
                        await send({"type": "http.response.body", "body": piece, "more_body": True})
            is_complete = True
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        except Error as error:
            telemetry.log().warning(telemetry.REPLY_BROKEN_OFF, reason=str(error))
        except TimeoutError:
            telemetry.log().warning(telemetry.REPLY_BROKEN_OFF, reason="The client reads nothing.")
            if abort := scope.get("abort"):
                abort()  # a close would wait for what is unsent to be read
        group.cancel_scope.cancel()
    if is_gone and on_disconnect is not None:
        await on_disconnect()
