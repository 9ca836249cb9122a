"""Replies that last as long as a run: stream, wait, join; with or without a thread.

A run is listened to before it is submitted, so that nothing of it is missed, and for as long as its reply lasts; so
these handlers give the whole reply as an ASGI application. What can be refused is refused before its headers.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractContextManager
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from matins.api import auth, body, idempotency, inside, query, runs, sse
from matins.api.idempotency import Answered, Created, Once
from matins.api.parts import Parts
from matins.api.wire.runs import RunCreate, RunOnThread, RunWithoutThread
from matins.domain import access
from matins.domain.errors import NotFound
from matins.domain.frames import ERROR, Frame
from matins.domain.ids import RunId, ThreadId, uuid7
from matins.domain.runs import Run
from matins.engine.runs import Interest
from matins.engine.streams.following import is_resumable

_LAST: Final = 2**63 - 1  # no number of an event is larger


async def stream(request: Request, parts: Parts) -> ASGIApp:
    """Create a run on a thread and stream it."""
    thread_id = query.thread_id(request)
    asked, once = await idempotency.read(request, RunOnThread, auth.authorize(request))
    return _streamed(request, parts, asked, once, thread_id)


async def stream_stateless(request: Request, parts: Parts) -> ASGIApp:
    """Create a run on a thread of its own and stream it."""
    asked, once = await idempotency.read(request, RunWithoutThread, auth.authorize(request))
    return _streamed(request, parts, asked, once, None)


async def wait(request: Request, parts: Parts) -> ASGIApp:
    """Create a run on a thread and answer with the state that it leaves."""
    thread_id = query.thread_id(request)
    asked, once = await idempotency.read(request, RunOnThread, auth.authorize(request))
    return _awaited(request, parts, asked, once, thread_id)


async def wait_stateless(request: Request, parts: Parts) -> ASGIApp:
    """Create a run on a thread of its own and answer with the state that it leaves."""
    asked, once = await idempotency.read(request, RunWithoutThread, auth.authorize(request))
    return _awaited(request, parts, asked, once, None)


async def join(request: Request, parts: Parts) -> ASGIApp:
    """Wait for a run to end and answer with the state that it leaves."""
    return _joined(request, parts, query.thread_id(request))


async def join_stateless(request: Request, parts: Parts) -> ASGIApp:
    """Wait for a run, by its id alone, and answer with the state that it leaves."""
    return _joined(request, parts, None)


async def join_stream(request: Request, parts: Parts) -> ASGIApp:
    """Stream a run that was created before; with `Last-Event-ID`, first what it kept after that."""
    return _followed(request, parts, query.thread_id(request))


async def join_stream_stateless(request: Request, parts: Parts) -> ASGIApp:
    """Stream a run, by its id alone; with `Last-Event-ID`, first what it kept after that."""
    return _followed(request, parts, None)


def _streamed(
    request: Request, parts: Parts, asked: RunCreate, once: Once, thread_id: ThreadId | None
) -> ASGIApp:
    wanted, scope = runs.wanted(request, parts, asked), once.scope

    async def create(asgi: Scope, receive: Receive, send: Send) -> None:
        run_id = RunId(uuid7())
        caller = inside.caller(asgi)
        behind = thread_id if wanted.multitask_strategy == "enqueue" else None
        with (
            parts.callers.waiting(caller, run_id, behind=behind),
            parts.hub.subscribe(run_id) as subscription,
        ):
            run = await parts.runs.submit(
                wanted,
                run_id=run_id,
                thread_id=thread_id,
                scope=scope,
                parent=caller,
                interest=Interest.EVENTS,
                around=once.around(_created, run_id=run_id),
            )
            place = _place(run, thread_id)
            await sse.relay(
                asgi,
                receive,
                send,
                parts.following.follow(run, subscription, is_new=True),
                sse.events if wanted.stream_resumable else sse.unnumbered,
                headers={**sse.STREAM, "content-location": place, "location": f"{place}/stream"},
                on_disconnect=_canceller(parts, run, scope) if asked.on_disconnect == "cancel" else None,
            )

    def join(before: Answered) -> ASGIApp:
        run = before.created
        if before.reply is not None:  # it has ended, and what was kept of its stream went with its thread
            return Response(headers={**sse.STREAM, "content-location": _place(run, thread_id)})
        cancels, after = asked.on_disconnect == "cancel", 0 if asked.stream_resumable else None
        return _follow(parts, run.run_id, thread_id, scope, cancels=cancels, after=after)

    return _once(create, join)


def _awaited(
    request: Request, parts: Parts, asked: RunCreate, once: Once, thread_id: ThreadId | None
) -> ASGIApp:
    wanted, scope = runs.wanted(request, parts, asked), once.scope

    async def create(asgi: Scope, receive: Receive, send: Send) -> None:
        run_id = RunId(uuid7())
        caller = inside.caller(asgi)
        behind = thread_id if wanted.multitask_strategy == "enqueue" else None
        with (
            parts.callers.waiting(caller, run_id, behind=behind),
            parts.hub.subscribe(run_id, frames=False) as subscription,
        ):
            run = await parts.runs.submit(
                wanted,
                run_id=run_id,
                thread_id=thread_id,
                scope=scope,
                parent=caller,
                interest=Interest.REPLY,
                around=once.around(_created, run_id=run_id),
            )
            place = _place(run, run.thread_id)  # with its thread even when that is hidden. Source: observed
            await sse.relay(
                asgi,
                receive,
                send,
                parts.following.reply(run, subscription),
                sse.value,
                headers={**sse.JSON, "content-location": place, "location": f"{place}/join"},
                on_disconnect=_canceller(parts, run, scope) if asked.on_disconnect == "cancel" else None,
            )

    def join(before: Answered) -> ASGIApp:
        run = before.created
        if before.reply is not None:
            place = _place(run, run.thread_id)
            return Response(before.reply, headers={**sse.JSON, "content-location": place})
        return _join(parts, run.run_id, run.thread_id, scope, cancels=asked.on_disconnect == "cancel")

    return _once(create, join)


def _once(create: ASGIApp, join: Callable[[Answered], ASGIApp]) -> ASGIApp:
    """Give what creates a run and replies, or, when the same request has created it before, joins that run."""

    async def reply(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await create(scope, receive, send)
        except Answered as before:
            await join(before)(scope, receive, send)

    return reply


def _created(run: Run) -> Response:
    return body.respond(Created(run.run_id, run.thread_id))


def _joined(request: Request, parts: Parts, thread_id: ThreadId | None) -> ASGIApp:
    cancels = query.switch(request, "cancel_on_disconnect")
    return _join(parts, query.run_id(request), thread_id, auth.authorize(request), cancels=cancels)


def _join(
    parts: Parts, run_id: RunId, thread_id: ThreadId | None, scope: access.Scope, *, cancels: bool
) -> ASGIApp:
    async def reply(asgi: Scope, receive: Receive, send: Send) -> None:
        with parts.hub.subscribe(run_id, frames=False) as subscription:
            run = await runs.existing(parts, run_id, thread_id=thread_id, scope=scope)
            place = _place(run, thread_id)
            with _waiting(parts, asgi, run):
                await sse.relay(
                    asgi,
                    receive,
                    send,
                    parts.following.reply(run, subscription),
                    sse.value,
                    headers={**sse.JSON, "content-location": place, "location": f"{place}/join"},
                    on_disconnect=_canceller(parts, run, scope) if cancels else None,
                )

    return reply


def _followed(request: Request, parts: Parts, thread_id: ThreadId | None) -> ASGIApp:
    return _follow(
        parts,
        query.run_id(request),
        thread_id,
        auth.authorize(request),
        cancels=query.switch(request, "cancel_on_disconnect"),
        after=_last_event(request),
        modes=query.names(request, "stream_mode"),
        asked=f"?{request.url.query}" if request.url.query else "",
    )


def _follow(
    parts: Parts,
    run_id: RunId,
    thread_id: ThreadId | None,
    scope: access.Scope,
    *,
    cancels: bool,
    after: int | None,
    modes: Sequence[str] = (),
    asked: str = "",
) -> ASGIApp:
    async def reply(asgi: Scope, receive: Receive, send: Send) -> None:
        with parts.hub.subscribe(run_id) as subscription:
            run = await runs.existing(parts, run_id, thread_id=thread_id, scope=scope)
            place = _place(run, thread_id)
            resumes = is_resumable(run)
            frames = parts.following.follow(run, subscription, after=after if resumes else None)
            with _waiting(parts, asgi, run):
                await sse.relay(
                    asgi,
                    receive,
                    send,
                    _of_modes(frames, modes) if modes else frames,
                    sse.events if resumes else sse.unnumbered,
                    # With the query: a client that comes back goes to exactly this place.
                    headers={**sse.STREAM, "content-location": place, "location": f"{place}/stream{asked}"},
                    on_disconnect=_canceller(parts, run, scope) if cancels else None,
                )

    return reply


def _waiting(parts: Parts, asgi: Scope, run: Run) -> AbstractContextManager[None]:
    """Have the run that asks, if one does, wait for this one."""
    behind = None if run.status.is_terminal else run.thread_id
    return parts.callers.waiting(inside.caller(asgi), run.run_id, behind=behind)


def _place(run: Run | Created, thread_id: ThreadId | None) -> str:
    return f"/runs/{run.run_id}" if thread_id is None else f"/threads/{thread_id}/runs/{run.run_id}"


def _canceller(parts: Parts, run: Run, scope: access.Scope) -> Callable[[], Awaitable[None]]:
    async def cancel() -> None:
        try:
            await parts.runs.cancel(run.thread_id, run.run_id, scope=scope, wait=False)
        except NotFound:
            return  # it ended just before its client went away

    return cancel


def _last_event(request: Request) -> int | None:
    """Give the number after which a stream is to go on; 0 replays all, None nothing.

    Source: -1 stands for all and what is no number for none, as observed.
    """
    try:
        return min(max(0, int(request.headers.get("last-event-id", ""))), _LAST)
    except ValueError:
        return None


async def _of_modes(
    batches: AsyncIterator[list[Frame] | None], modes: Sequence[str]
) -> AsyncIterator[list[Frame] | None]:
    """Give only the frames of some stream modes, and how the run failed."""
    async for frames in batches:
        if frames is None:
            yield None
        elif wanted := [frame for frame in frames if _is_of(frame.event, modes)]:
            yield wanted


def _is_of(event: str, modes: Sequence[str]) -> bool:
    name = event.split("|", 1)[0]
    return (
        name == ERROR or name.split("/", 1)[0] in modes or (name == "messages" and "messages-tuple" in modes)
    )
