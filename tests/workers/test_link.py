from __future__ import annotations

import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

import anyio
import anyio.lowlevel
import pytest

from matins.domain.frames import Frame
from matins.workers.link import FRAME_OCTETS, UNSENT_OCTETS, Link, connect
from matins.workers.protocol import Answer, Beat, Call, Events, FromWorker, ToWorker
from tests.support.pools import until

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    return "asyncio", {"use_uvloop": request.param == "uvloop"}


class End:
    """One end of a link and what came out of it."""

    def __init__(self) -> None:
        self.batches: list[list[FromWorker]] = []
        self.lost = anyio.Event()
        self.link: Link[FromWorker, ToWorker]

    @property
    def messages(self) -> list[FromWorker]:
        return [message for batch in self.batches for message in batch]


@asynccontextmanager
async def _pair() -> AsyncIterator[tuple[End, Link[ToWorker, FromWorker]]]:
    ours, theirs = _sockets()
    end = End()
    end.link = await connect(ours, received=end.batches.append, lost=end.lost.set, incoming=FromWorker)
    far: Link[ToWorker, FromWorker] = await connect(
        theirs, received=lambda _: None, lost=lambda: None, incoming=ToWorker
    )
    yield end, far
    far.close()
    end.link.close()
    await far.closed.wait()
    await end.link.closed.wait()


def _sockets() -> tuple[socket.socket, socket.socket]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    return ours, theirs


async def test_messages_arrive_whole_and_in_order_whatever_their_size() -> None:
    async with _pair() as (end, far):
        sent = [Answer(size, b"x" * size) for size in (0, 1, 70_000, 3, 5_000_000, 2)]
        with anyio.fail_after(20):
            for message in sent:
                await far.send(message)
            await until(lambda: len(end.messages) == len(sent))
        assert end.messages == sent


async def test_messages_of_one_turn_arrive_as_one_batch() -> None:
    async with _pair() as (end, far):
        for number in range(100):
            far.post(Answer(number))
        with anyio.fail_after(20):
            await until(lambda: bool(end.batches))
        assert len(end.batches) == 1
        assert len(end.messages) == 100


async def test_send_waits_while_the_peer_does_not_read() -> None:
    ours, theirs = _sockets()
    with theirs:
        link: Link[ToWorker, FromWorker] = await connect(
            ours, received=lambda _: None, lost=lambda: None, incoming=ToWorker
        )
        sent = 0

        async def send() -> None:
            nonlocal sent
            while sent < 10 * UNSENT_OCTETS:
                sent += 10_000
                await link.send(Answer(1, b"x" * 10_000))

        with anyio.fail_after(20):
            async with anyio.create_task_group() as group:
                group.start_soon(send)
                await until(lambda: not link._writable.is_set())
                waits_at = sent
                for _ in range(100):
                    await anyio.lowlevel.checkpoint()
                assert sent == waits_at
                # What the kernel takes (some hundred kilobytes) and what may be unsent.
                assert UNSENT_OCTETS // 2 < sent < 3 * UNSENT_OCTETS
                theirs.setblocking(True)
                await anyio.to_thread.run_sync(lambda: _read(theirs, 10 * UNSENT_OCTETS))
            await link.send(Answer(2))
        link.close()
        theirs.close()
        await link.closed.wait()


async def test_a_waiting_send_returns_when_the_link_ends() -> None:
    ours, theirs = _sockets()
    link: Link[ToWorker, FromWorker] = await connect(
        ours, received=lambda _: None, lost=lambda: None, incoming=ToWorker
    )
    with anyio.fail_after(20):
        async with anyio.create_task_group() as group:

            async def send() -> None:
                while link.is_open:
                    await link.send(Answer(1, b"x" * 100_000))

            group.start_soon(send)
            await until(lambda: not link._writable.is_set())
            theirs.close()
        await link.send(Answer(2))


async def test_the_peers_end_is_told_after_its_last_words() -> None:
    async with _pair() as (end, far):
        far.post(Beat())
        far.close()
        with anyio.fail_after(20):
            await end.lost.wait()
        assert end.messages == [Beat()]
        assert not end.link.is_open
        end.link.post(Call(1, "nobody", b""))


@pytest.mark.parametrize(
    "octets",
    [
        struct.pack("<I", FRAME_OCTETS + 1),
        struct.pack("<I", 3) + b"\xc1\xc1\xc1",
        struct.pack("<I", 7) + b"\x91\xa5Dance",
    ],
    ids=["absurd length", "no MessagePack", "unknown message"],
)
async def test_a_broken_frame_ends_the_link_and_what_came_before_counts(octets: bytes) -> None:
    ours, theirs = _sockets()
    end = End()
    with theirs:
        end.link = await connect(ours, received=end.batches.append, lost=end.lost.set, incoming=FromWorker)
        theirs.setblocking(True)
        theirs.sendall(struct.pack("<I", 6) + b"\x91\xa4Beat" + octets)
        with anyio.fail_after(20):
            await end.lost.wait()
    assert end.messages == [Beat()]


async def test_what_cannot_be_encoded_is_refused_and_leaves_the_link_usable() -> None:
    async with _pair() as (end, far):
        far.post(Beat())
        with pytest.raises(UnicodeEncodeError):
            far.post(Answer(1, b"", "\ud800"))
        far.post(Events(UUID(int=1), 1, [Frame("a", b"1")]))
        with anyio.fail_after(20):
            await until(lambda: len(end.messages) == 2)
        assert isinstance(end.messages[1], Events)


def _read(sock: socket.socket, octets: int) -> None:
    while octets > 0:
        octets -= len(sock.recv(65536))
