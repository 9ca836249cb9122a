from __future__ import annotations

import pytest

from matins.domain.frames import Frame
from matins.domain.ids import RunId, uuid7
from matins.engine.streams.hub import BUFFER_BYTES, Hub

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
