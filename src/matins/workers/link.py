"""Frames over a socketpair: the transport of workers/protocol.py, the same at both ends.

    frame = length (4 octets, little-endian), then that many octets of MessagePack

A stream with lengths and not SOCK_SEQPACKET, which macOS lacks. Messages posted in one turn of the loop leave
in one write; whatever one read brought is handed over as one batch, in order. Runs on plain asyncio and on
uvloop. What the messages mean is none of this module's business.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from typing import Final, Generic, TypeVar, cast

import anyio
import msgspec

_In = TypeVar("_In")
_Out = TypeVar("_Out")

UNSENT_OCTETS: Final = 1024 * 1024
"""How much may wait to be written before `send` waits."""

FRAME_OCTETS: Final = 256 * 1024 * 1024
"""The largest frame. A length beyond it is not a length: the stream is broken."""

_LENGTH: Final = struct.Struct("<I")


class FrameTooLarge(ValueError):
    """The message does not fit into a frame; nothing of it was sent."""


class Link(asyncio.Protocol, Generic[_In, _Out]):
    """One end. `received` gets each batch of messages, `lost` is called once when nothing more can come.

    The peer's EOF, a broken frame and `close()` all end it; what is posted afterwards is dropped, since the
    end of a process is learned from the process and not from its socket.
    """

    def __init__(
        self,
        *,
        received: Callable[[list[_In]], None],
        lost: Callable[[], None],
        incoming: object,
    ) -> None:
        self.closed: Final = anyio.Event()
        self._received = received
        self._lost = lost
        self._decoder: msgspec.msgpack.Decoder[_In] = msgspec.msgpack.Decoder(cast("type[_In]", incoming))
        self._encoder = msgspec.msgpack.Encoder()
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._partial = bytearray()
        self._unsent = bytearray()
        self._flush_is_due = False
        self._writable = anyio.Event()
        self._writable.set()

    @property
    def is_open(self) -> bool:
        """Whether a message posted now can still arrive."""
        return self._transport is not None and not self._transport.is_closing()

    def post(self, message: _Out) -> None:
        """Send without waiting: it leaves at the end of this turn of the loop, or at the next `flush`.

        Raises: FrameTooLarge, and whatever msgspec raises for what it cannot encode; nothing was sent then.
        """
        unsent = self._unsent
        start = len(unsent)
        unsent += b"\0\0\0\0"
        try:
            self._encoder.encode_into(message, unsent, start + 4)
            length = len(unsent) - start - 4
            if length > FRAME_OCTETS:
                raise FrameTooLarge(f"A message of {length} octets exceeds the {FRAME_OCTETS} of a frame")
        except BaseException:
            del unsent[start:]
            raise
        _LENGTH.pack_into(unsent, start, length)
        if len(unsent) >= UNSENT_OCTETS:
            self.flush()
        elif not self._flush_is_due:
            self._flush_is_due = True
            self._loop.call_soon(self.flush)

    async def send(self, message: _Out) -> None:
        """Post, then wait until no more than UNSENT_OCTETS are unsent, or the link is closed."""
        self.post(message)
        await self._writable.wait()

    def flush(self) -> None:
        """Write what was posted, now."""
        self._flush_is_due = False
        if not self._unsent:
            return
        batch, self._unsent = self._unsent, bytearray()
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(batch)

    def close(self) -> None:
        """End it after what was posted is written. `lost` follows."""
        self.flush()
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin: the loop gives the transport."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=UNSENT_OCTETS, low=UNSENT_OCTETS // 4)

    def data_received(self, data: bytes) -> None:
        """Cut what came into frames and hand over the batch."""
        if self._partial:
            self._partial += data
            batch, used = self._cut(self._partial)
            del self._partial[:used]
        else:
            batch, used = self._cut(data)
            if used < len(data):
                self._partial += memoryview(data)[used:]
        if batch:
            self._received(batch)

    def _cut(self, octets: bytes | bytearray) -> tuple[list[_In], int]:
        """Give the messages that are whole, and how many octets they took. A broken frame ends the link."""
        batch: list[_In] = []
        used, end = 0, len(octets)
        decode = self._decoder.decode
        with memoryview(octets) as view:
            while end - used >= 4:
                (length,) = _LENGTH.unpack_from(octets, used)
                stop = used + 4 + length
                if length > FRAME_OCTETS:
                    self._abort()
                    return batch, end
                if stop > end:
                    break
                try:
                    batch.append(decode(view[used + 4 : stop]))
                except msgspec.MsgspecError:
                    self._abort()
                    return batch, end
                used = stop
        return batch, used

    def _abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """End: wake whoever waits."""
        self._unsent.clear()
        self._partial.clear()
        self._writable.set()
        self.closed.set()
        self._lost()

    def pause_writing(self) -> None:
        """Too much is unsent: `send` waits."""
        self._writable = anyio.Event()

    def resume_writing(self) -> None:
        """Enough was sent."""
        self._writable.set()


async def connect(
    sock: socket.socket,
    *,
    received: Callable[[list[_In]], None],
    lost: Callable[[], None],
    incoming: object,
) -> Link[_In, _Out]:
    """Take over one end of a socketpair. `incoming` is the union of messages that may come."""
    loop = asyncio.get_running_loop()
    _, link = await loop.create_unix_connection(
        lambda: Link[_In, _Out](received=received, lost=lost, incoming=incoming),
        sock=sock,
    )
    return link
