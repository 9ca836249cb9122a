"""/threads/{thread_id}/state and /history: what the desk reads and writes with the graph at hand."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from matins.api import auth, body, query, threads
from matins.api.parts import Parts
from matins.api.wire import threads as wire
from matins.domain.errors import BadRequest
from matins.domain.threads import Thread

CALL_SECONDS: Final = 60
"""How long a state may take to read or write: more than any graph's factory and reducers should, less than clients
wait for a reply that sends no heartbeat."""


class _Whose(msgspec.Struct):
    """The part of a thread's metadata that names its graph."""

    graph_id: str | None = None


async def get_state(request: Request, parts: Parts) -> Response:
    """Get the state of a thread."""
    return await _state(request, parts, subgraphs=query.switch(request, "subgraphs"))


async def get_state_at(request: Request, parts: Parts) -> Response:
    """Get the state of a thread at a checkpoint."""
    return await _state(
        request,
        parts,
        subgraphs=query.switch(request, "subgraphs"),
        checkpoint_id=request.path_params["checkpoint_id"],
    )


async def get_state_checkpoint(request: Request, parts: Parts) -> Response:
    """Get the state of a thread at a checkpoint, which may be one of a subgraph."""
    asked = await body.read(request, wire.StateAt)
    return await _state(request, parts, subgraphs=asked.subgraphs, checkpoint=asked.checkpoint.plain())


async def _state(request: Request, parts: Parts, **at: object) -> Response:
    thread, graph_id = await _graph(request, parts)
    if graph_id is None:
        return body.respond(wire.ThreadState())
    return body.respond_raw(await _call(parts, "state", thread, graph_id, at))


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
    updated = await _call(parts, "update_state", thread, graph_id, change)
    parts.wakes.tell_followers(thread.thread_id)
    return body.respond_raw(updated)


async def get_history(request: Request, parts: Parts) -> Response:
    """List the states of a thread, newest first."""
    limit = query.integer(request, "limit", 1, least=1, most=1000)
    before = request.query_params.get("before")
    return await _history(request, parts, {"limit": limit, "before": before})


async def search_history(request: Request, parts: Parts) -> Response:
    """List some states of a thread, newest first."""
    asked = await body.read(request, wire.History)
    which: dict[str, object] = {"limit": asked.limit, "metadata": asked.metadata or None}
    if asked.before:
        which["before"] = asked.before
    if asked.checkpoint:
        which["checkpoint"] = asked.checkpoint.plain()
    return await _history(request, parts, which)


async def _history(request: Request, parts: Parts, which: dict[str, Any]) -> Response:
    thread, graph_id = await _graph(request, parts)
    if graph_id is None:
        return body.respond([])
    return body.respond_raw(await _call(parts, "history", thread, graph_id, which))


async def _graph(request: Request, parts: Parts) -> tuple[Thread, str | None]:
    """Give the thread that the path names, and the graph of its last run.

    Raises: ThreadNotFound.
    """
    thread = await threads.existing(parts, query.thread_id(request), scope=auth.authorize(request))
    try:
        return thread, msgspec.json.decode(thread.metadata, type=_Whose).graph_id
    except msgspec.ValidationError:
        return thread, None  # metadata is the client's to write


async def _call(parts: Parts, method: str, thread: Thread, graph_id: str, params: dict[str, object]) -> bytes:
    of_thread = {"thread_id": thread.thread_id, "config": msgspec.Raw(thread.config)}
    asked = msgspec.json.encode({"graph_id": graph_id, **of_thread, **params})
    return await parts.workers.call(method, asked, timeout_s=CALL_SECONDS)
