from __future__ import annotations

import pytest

from matins.domain.frames import Frame
from matins.domain.ids import RunId, ThreadId, uuid7
from matins.engine.streams.hub import BUFFER_BYTES, PIECE_BYTES, Hub

pytestmark = pytest.mark.anyio

RUN = RunId(uuid7())
HUGE = Frame("values", b"x" * (BUFFER_BYTES + 1))


async def test_a_listener_gets_what_was_published_and_the_end() -> None:
    hub = Hub()
    with hub.subscribe(RUN) as subscription:
        hub.publish(RUN, [Frame("values", b"1"), Frame("values", b"2")])
        hub.end(RUN, b"{}")
        assert [frame.data for frame in await subscription.receive(1)] == [b"1", b"2"]
        assert subscription.has_ended
        assert subscription.reply == b"{}"


async def test_one_frame_is_never_too_much_for_a_listener_that_keeps_up() -> None:
    hub = Hub()
    with hub.subscribe(RUN) as subscription:
        for _ in range(2):
            hub.publish(RUN, [HUGE])
            assert await subscription.receive(1) == [HUGE]
        assert not subscription.is_broken


async def test_a_listener_that_falls_behind_is_cut_off_and_keeps_nothing() -> None:
    hub = Hub()
    with hub.subscribe(RUN) as slow, hub.subscribe(RUN) as other:
        hub.publish(RUN, [Frame("values", b"1")])
        await other.receive(1)
        hub.publish(RUN, [HUGE])
        assert slow.is_broken
        assert not other.is_broken
        assert await slow.receive(1) == []
        hub.publish(RUN, [Frame("values", b"2")])
        assert await slow.receive(1) == [], "a frame behind a gap"


async def test_who_waits_for_the_end_alone_keeps_no_frames() -> None:
    hub = Hub()
    with hub.subscribe(RUN, frames=False) as subscription:
        for _ in range(3):
            hub.publish(RUN, [HUGE])
        hub.end(RUN, b"{}")
        assert not subscription.is_broken
        assert await subscription.receive(1) == []
        assert subscription.reply == b"{}"


async def test_a_listener_to_what_is_kept_that_falls_behind_is_told_where_to_read_on() -> None:
    hub = Hub()
    with hub.subscribe(RUN) as slow:
        hub.publish(RUN, [Frame("values", b"1", 1)])
        hub.publish(RUN, [Frame("values", HUGE.data, 2)])
        assert not slow.is_broken
        assert await slow.receive(1) == []
        assert slow.kept == 2
        hub.publish(RUN, [Frame("values", b"3", 3)])
        assert [frame.seq for frame in await slow.receive(1)] == [3]


async def test_a_reader_is_given_no_more_than_a_piece_at_once() -> None:
    hub = Hub()
    frames = [Frame("values", b"x" * (PIECE_BYTES // 2 + 1), seq) for seq in range(1, 6)]
    with hub.subscribe(RUN) as subscription:
        hub.publish(RUN, frames)
        hub.end(RUN, None)
        assert [await subscription.receive(1) for _ in range(6)] == [[frame] for frame in frames] + [[]]


async def test_a_thread_is_followed_while_somebody_listens_to_it_or_to_a_run_of_it() -> None:
    hub, thread = Hub(), ThreadId(uuid7())
    with hub.subscribe(RUN) as one:
        assert not hub.follows(thread)
        hub.begin(one, thread)
        with hub.subscribe(thread) as other:
            hub.begin(other, thread)
            assert (one.is_of_thread, other.is_of_thread) == (False, True)
        assert hub.follows(thread)
    assert not hub.follows(thread)
