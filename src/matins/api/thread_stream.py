"""/threads/{thread_id}/stream: what happens on a thread, run after run, for as long as somebody listens."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from matins.api import auth, inside, query, sse, threads
from matins.api.parts import Parts
from matins.domain.errors import Invalid
from matins.domain.frames import METADATA, STATE_UPDATE, Frame

RUNS: Final = "run_modes"
LIFECYCLE: Final = "lifecycle"
STATE: Final = "state_update"
MODES: Final = (RUNS, LIFECYCLE, STATE)
"""Source: ThreadStreamMode in langgraph_sdk/schema.py."""

_LAST: Final = 2**63 - 1  # no number of an event is larger


async def join_stream(request: Request, parts: Parts) -> ASGIApp:
    """Stream every run of a thread, and changes of its state; with `Last-Event-ID`, first what was kept after that."""
    thread_id, scope = query.thread_id(request), auth.authorize(request)
    after = _last_event(request)
    modes = _modes(request)
    await threads.existing(parts, thread_id, scope=scope)

    async def reply(asgi: Scope, receive: Receive, send: Send) -> None:
        with parts.callers.lending(inside.caller(asgi)), parts.hub.subscribe(thread_id) as subscription:
            await parts.watch.keep_thread(
                thread_id
            )  # before the reply begins: what starts after that is seen
            frames = parts.following.follow_thread(thread_id, subscription, after=after)
            await sse.relay(asgi, receive, send, _of_modes(frames, modes), sse.events, headers=sse.STREAM)

    return reply


def _modes(request: Request) -> list[str]:
    modes = query.names(request, "stream_mode") or [RUNS]
    for mode in modes:
        if mode not in MODES:
            raise Invalid(f"Invalid stream_mode: {mode[:100]!r}. Expected: {', '.join(MODES)}")
    return modes


def _last_event(request: Request) -> int | None:
    """Give the number after which the stream is to go on; 0 replays all, None nothing.

    Source: what is no id of an event is refused here, as observed; -1 is taken, as where runs are joined. The ids of
    other servers, of the form <ms>-<n>, would name nothing here: refused, not misread.
    """
    text = request.headers.get("last-event-id", "").strip()
    if text in ("", "-1"):
        return 0 if text else None
    if not text.isascii() or not text.isdigit():
        raise Invalid("Invalid last-event-id: must be -1, 0 or the id of an event of this thread")
    return min(int(text[:30]), _LAST)


async def _of_modes(
    batches: AsyncIterator[list[Frame] | None], modes: list[str]
) -> AsyncIterator[list[Frame] | None]:
    async for frames in batches:
        if frames is None:
            yield None
        elif wanted := [frame for frame in frames if _is_wanted(frame, modes)]:
            yield wanted


def _is_wanted(frame: Frame, modes: list[str]) -> bool:
    if frame.event == STATE_UPDATE:
        return STATE in modes
    return RUNS in modes or (LIFECYCLE in modes and frame.event == METADATA)
