"""/threads/{thread_id}/state and /history: what the desk reads and writes with the graph at hand."""

from __future__ import annotations

from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from matins.api import auth, body, desk, query, threads
from matins.api.parts import Parts
from matins.api.wire import threads as wire
from matins.domain.errors import BadRequest
from matins.domain.thread_state import check, checkpoint_named, selected
from matins.domain.threads import Thread
from matins.engine import threads as engine
from matins.storage import checkpoints


class _Whose(msgspec.Struct):
    """The part of a thread's metadata that names its graph."""

    graph_id: str | None = None


async def get_state(request: Request, parts: Parts) -> Response:
    """Get the state of a thread."""
    return await _state(request, parts, _asked(request))


async def get_state_at(request: Request, parts: Parts) -> Response:
    """Get the state of a thread at a checkpoint."""
    at = {"checkpoint_id": request.path_params["checkpoint_id"]}
    return await _state(request, parts, {**_asked(request), **at})


async def get_state_checkpoint(request: Request, parts: Parts) -> Response:
    """Get the state of a thread at a checkpoint, which may be one of a subgraph."""
    asked = await body.read(request, wire.StateAt)
    which = {"checkpoint": asked.checkpoint.plain(), "subgraphs": asked.subgraphs}
    return await _state(request, parts, {**which, "select": check(asked.select)})


def _asked(request: Request) -> dict[str, object]:
    return {"subgraphs": query.switch(request, "subgraphs"), "select": check(query.names(request, "select"))}


async def _state(request: Request, parts: Parts, which: dict[str, Any]) -> Response:
    thread, graph_id = await _graph(request, parts)
    if graph_id is None:
        return body.respond(selected(msgspec.to_builtins(wire.ThreadState()), which["select"]))
    return body.respond_raw(await desk.ask(parts, "state", thread, graph_id, which))


async def update_state(request: Request, parts: Parts) -> Response:
    """Change the state of a thread."""
    asked = await body.read(request, wire.StateUpdate)
    thread, graph_id = await _graph(request, parts)
    if graph_id is None:
        raise BadRequest(
            f"Thread '{thread.thread_id}' has no assigned graph ID. This usually occurs when no runs have been made "
            "on this particular thread. This operation requires a graph ID. Please ensure a run has been made on "
            "the thread."
        )
    change: dict[str, object] = {"values": asked.values}
    if asked.as_node:
        change["as_node"] = asked.as_node
    if asked.checkpoint:
        change["checkpoint"] = asked.checkpoint.plain()
    if asked.checkpoint_id:
        change["checkpoint_id"] = asked.checkpoint_id
    updated = await desk.ask(parts, "update_state", thread, graph_id, change)
    parts.wakes.tell_followers(thread.thread_id)
    return body.respond_raw(updated)


async def patch_state(request: Request, parts: Parts) -> Response:
    """Merge metadata into a thread's, and into that of its newest checkpoint."""
    thread_id = query.thread_id(request)
    asked = await body.read(request, wire.StatePatch)
    scope = auth.authorize(request)
    metadata = msgspec.json.encode(asked.metadata)
    await parts.pool.run(lambda conn: engine.patch_state(conn, thread_id, metadata=metadata, scope=scope))
    return body.nothing()


async def get_storage(request: Request, parts: Parts) -> Response:
    """Say how much of the database a thread's checkpoints take."""
    thread_id = query.thread_id(request)
    await threads.existing(parts, thread_id, scope=auth.authorize(request))
    sizes = await parts.pool.run(
        lambda conn: checkpoints.measure(conn, thread_id=str(thread_id)), transaction=False
    )
    return body.respond(wire.storage(thread_id, sizes))


async def get_history(request: Request, parts: Parts) -> Response:
    """List the states of a thread, newest first."""
    limit = query.integer(request, "limit", 1, least=1, most=1000)
    before = request.query_params.get("before")
    select = check(query.names(request, "select"))
    return await _history(request, parts, {"limit": limit, "before": before, "select": select})


async def search_history(request: Request, parts: Parts) -> Response:
    """List some states of a thread, newest first."""
    asked = await body.read(request, wire.History)
    which: dict[str, object] = {"limit": asked.limit, "metadata": asked.metadata or None}
    which["select"] = check(asked.select)
    if asked.before:
        which["before"] = checkpoint_named(asked.before)
    if asked.checkpoint:
        which["checkpoint"] = asked.checkpoint.plain()
    return await _history(request, parts, which)


async def _history(request: Request, parts: Parts, which: dict[str, Any]) -> Response:
    thread, graph_id = await _graph(request, parts)
    if graph_id is None:
        return body.respond([])
    return body.respond_raw(await desk.ask(parts, "history", thread, graph_id, which))


async def _graph(request: Request, parts: Parts) -> tuple[Thread, str | None]:
    """Give the thread that the path names, and the graph of its last run.

    Raises: ThreadNotFound.
    """
    thread = await threads.existing(parts, query.thread_id(request), scope=auth.authorize(request))
    try:
        return thread, msgspec.json.decode(thread.metadata, type=_Whose).graph_id
    except msgspec.ValidationError:
        return thread, None  # metadata is the client's to write
