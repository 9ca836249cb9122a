"""/threads: create, get, search, count, update, copy, prune, delete."""

from __future__ import annotations

from uuid import UUID

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from matins.api import auth, body, desk, idempotency, pages, query
from matins.api.parts import Parts
from matins.api.wire import threads as wire
from matins.api.wire.json import contained
from matins.domain import extraction
from matins.domain.access import Scope
from matins.domain.errors import AlreadyExists, BadRequest, Error, GraphNotFound, Invalid, ThreadNotFound
from matins.domain.ids import ThreadId, uuid7
from matins.domain.threads import Thread, TimeToLive
from matins.engine import assistants
from matins.engine import threads as engine
from matins.storage import threads
from matins.storage.pool import Conn


async def create(request: Request, parts: Parts) -> Response:
    """Create a thread."""
    scope = auth.authorize(request)
    asked, once = await idempotency.read(request, wire.ThreadCreate, scope)
    graph_id = _graph_of(asked, parts) if asked.supersteps else ""
    thread_id = ThreadId(asked.thread_id or uuid7())
    metadata = msgspec.json.encode(asked.metadata)
    ttl = TimeToLive(asked.ttl.strategy, asked.ttl.ttl) if asked.ttl else None
    tries = 0
    is_new = False

    async def work(conn: Conn) -> Thread:
        nonlocal tries, is_new
        tries += 1
        thread = await threads.insert(conn, thread_id, scope=scope, metadata=metadata, ttl=ttl)
        is_new = thread is not None or tries > 1
        if thread is not None:
            return thread
        existing = await threads.get(conn, thread_id, scope=scope)
        # After a COMMIT whose reply was lost, the thread that is there is the one that we made.
        if existing is None or (asked.if_exists == "raise" and tries == 1):
            raise AlreadyExists(f"Thread with ID {thread_id} already exists")
        return existing

    answer = await once.run(parts.pool, work, lambda made: body.respond(wire.thread(made)))
    if not (asked.supersteps and is_new):
        return answer
    steps: dict[str, object] = {
        "supersteps": [msgspec.to_builtins(step.updates) for step in asked.supersteps]
    }
    try:
        thread = await existing(parts, thread_id, scope=scope)
        await desk.ask(parts, "update_state", thread, graph_id, steps)
    except Error as refused:
        detail = f"Thread {thread_id} was created, but there were problems updating the state: {refused}"
        return body.respond({"detail": detail}, status=201)
    return body.respond(wire.thread(await existing(parts, thread_id, scope=scope)))


def _graph_of(asked: wire.ThreadCreate, parts: Parts) -> str:
    """Give the graph that makes a state of the supersteps.

    Raises: Invalid when none is named; GraphNotFound.
    """
    graph_id = asked.metadata.get("graph_id")
    if not isinstance(graph_id, str):
        raise Invalid("supersteps need metadata.graph_id, the graph whose nodes wrote them")
    known = assistants.known(parts.workers)
    if graph_id not in known:
        raise GraphNotFound(graph_id, list(known))
    return graph_id


async def get(request: Request, parts: Parts) -> Response:
    """Get a thread; with `include=ttl`, when it expires."""
    thread = await existing(parts, query.thread_id(request), scope=auth.authorize(request))
    shown = wire.thread(thread)
    if "ttl" in query.names(request, "include"):
        shown.ttl = wire.expiry(thread, parts.default_ttl)
    return body.respond(shown)


async def existing(parts: Parts, thread_id: ThreadId, *, scope: Scope) -> Thread:
    """Give the thread. Raises: ThreadNotFound."""
    thread = await parts.pool.run(lambda conn: threads.get(conn, thread_id, scope=scope), transaction=False)
    if thread is None:
        raise ThreadNotFound(thread_id)
    return thread


async def search(request: Request, parts: Parts) -> Response:
    """Search threads, the last changed first."""
    asked = await body.read(request, wire.ThreadSearch)
    scope = auth.authorize(request)
    paths = {alias: extraction.parse(path) for alias, path in asked.extract.items()}
    extract = msgspec.json.encode(paths) if paths else None
    wanted = _filter(asked, [_id(text) for text in asked.ids])
    page = await pages.find(
        parts.pool,
        lambda conn, limit: threads.search(
            conn,
            wanted,
            scope=scope,
            sort_by=asked.sort_by,
            direction=asked.sort_order,
            limit=limit,
            offset=asked.offset,
            extract=extract,
        ),
        lambda conn, most: threads.count(conn, wanted, scope=scope, limit=most),
        limit=asked.limit,
        offset=asked.offset,
    )
    fields = [*asked.select, "extracted"] if asked.select else ()
    shown = pages.select([wire.thread(thread) for thread in page.items], fields)
    return body.respond(shown, headers=page.headers)


async def count(request: Request, parts: Parts) -> Response:
    """Count threads."""
    wanted = _filter(await body.read(request, wire.ThreadCount), [])
    scope = auth.authorize(request)
    number = await parts.pool.run(lambda conn: threads.count(conn, wanted, scope=scope), transaction=False)
    return body.respond(number)


async def update(request: Request, parts: Parts) -> Response:
    """Merge metadata into a thread's; with `Prefer: return=minimal`, answer without a body."""
    thread_id = query.thread_id(request)
    asked = await body.read(request, wire.ThreadPatch)
    scope = auth.authorize(request)
    metadata = msgspec.json.encode(asked.metadata)
    ttl = TimeToLive(asked.ttl.strategy, asked.ttl.ttl) if asked.ttl else None
    thread = await parts.pool.run(
        lambda conn: threads.update(conn, thread_id, scope=scope, metadata=metadata, ttl=ttl)
    )
    if thread is None:
        raise ThreadNotFound(thread_id)
    if "return=minimal" in request.headers.get("prefer", ""):
        return body.nothing()
    return body.respond(wire.thread(thread))


async def delete(request: Request, parts: Parts) -> Response:
    """Delete a thread with its runs, its state and its crons."""
    thread_id = query.thread_id(request)
    scope = auth.authorize(request)
    tries = 0

    async def work(conn: Conn) -> bool:
        nonlocal tries
        tries += 1
        gone = await threads.delete(conn, [thread_id], scope=scope)
        return bool(gone) or tries > 1  # a former try may have done it

    if not await parts.pool.run(work):
        raise ThreadNotFound(thread_id)
    return body.nothing()


async def copy(request: Request, parts: Parts) -> Response:
    """Copy a thread with its state and its history; runs and crons stay with the original."""
    source, scope = query.thread_id(request), auth.authorize(request)
    target = ThreadId(uuid7())

    async def work(conn: Conn) -> Thread:
        copied = await threads.copy(conn, source, target=target, scope=scope)
        # After a COMMIT whose reply was lost, the copy that is there is the one that we made.
        copied = copied or await threads.get(conn, target, scope=scope)
        if copied is None:
            raise ThreadNotFound(source)
        return copied

    return body.respond(wire.thread(await parts.pool.run(work)))


async def prune(request: Request, parts: Parts) -> Response:
    """Delete threads, or all their checkpoints but the newest. Threads that are not there are passed over."""
    asked = await body.read(request, wire.ThreadsPrune)
    scope = auth.authorize(request)
    thread_ids = [ThreadId(thread_id) for thread_id in asked.thread_ids]
    most = 0

    async def work(conn: Conn) -> int:
        nonlocal most  # what a former try has deleted is not there for the next one to count
        most = max(most, await engine.prune(conn, thread_ids, strategy=asked.strategy, scope=scope))
        return most

    return body.respond(wire.ThreadsPruned(pruned_count=await parts.pool.run(work)))


def _filter(asked: wire.ThreadCount, ids: list[UUID]) -> threads.Filter:
    return threads.Filter(
        ids=ids or None,
        metadata=contained(asked.metadata),
        values=contained(asked.values),
        status=asked.status or None,
    )


def _id(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise BadRequest(f"Invalid thread ID {text}") from None
