"""/assistants: create, get, search, count, update, delete, and their versions."""

from __future__ import annotations

from typing import Final
from uuid import uuid4

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from matins.api import auth, body, idempotency, pages, query
from matins.api.parts import Parts
from matins.api.wire import assistants as wire
from matins.api.wire.json import contained
from matins.domain.assistants import Assistant, Version
from matins.domain.errors import AlreadyExists, AssistantNotFound, GraphNotFound, Invalid, NotFound
from matins.domain.ids import AssistantId
from matins.engine import assistants as engine
from matins.storage import assistants, threads
from matins.storage.pool import Conn

CALL_SECONDS: Final = 60
"""How long the desk may take: a graph's factory may be slow."""

_DEEPEST: Final = 1000  # no graph is; the recursion that draws it must end


async def create(request: Request, parts: Parts) -> Response:
    """Create an assistant."""
    scope = auth.authorize(request)
    asked, once = await idempotency.read(request, wire.AssistantCreate, scope)
    assistant_id = AssistantId(asked.assistant_id or uuid4())
    wanted = engine.AssistantRequest(
        graph_id=asked.graph_id,
        assistant_id=assistant_id,
        name=asked.name,
        description=asked.description,
        config=asked.config.plain(),
        context=asked.context,
        metadata=asked.metadata,
        if_exists=asked.if_exists,
    )
    tries = 0

    async def work(conn: Conn) -> Assistant:
        nonlocal tries
        tries += 1
        try:
            return await engine.create(conn, wanted, graphs=parts.workers, scope=scope)
        except AlreadyExists:
            # After a COMMIT whose reply was lost, the assistant that is there is the one that we made.
            made = await assistants.get(conn, assistant_id, scope=scope) if tries > 1 else None
            if made is None:
                raise
            return made

    return await once.run(parts.pool, work, lambda made: body.respond(wire.assistant(made)))


async def get(request: Request, parts: Parts) -> Response:
    """Get an assistant."""
    return body.respond(wire.assistant(await _existing(request, parts)))


async def search(request: Request, parts: Parts) -> Response:
    """Search assistants, the newest first."""
    asked = await body.read(request, wire.AssistantSearch)
    scope, wanted = auth.authorize(request), _filter(asked, parts)
    page = await pages.find(
        parts.pool,
        lambda conn, limit: assistants.search(
            conn,
            wanted,
            scope=scope,
            sort_by=asked.sort_by,
            direction=asked.sort_order,
            limit=limit,
            offset=asked.offset,
        ),
        lambda conn, most: assistants.count(conn, wanted, scope=scope, limit=most),
        limit=asked.limit,
        offset=asked.offset,
    )
    shown = pages.select([wire.assistant(found) for found in page.items], asked.select)
    return body.respond(shown, headers=page.headers)


async def count(request: Request, parts: Parts) -> Response:
    """Count assistants."""
    wanted = _filter(await body.read(request, wire.AssistantCount), parts)
    scope = auth.authorize(request)
    number = await parts.pool.run(lambda conn: assistants.count(conn, wanted, scope=scope), transaction=False)
    return body.respond(number)


async def update(request: Request, parts: Parts) -> Response:
    """Change an assistant: a new version of it becomes the active one."""
    assistant_id, scope = query.assistant_id(request), auth.authorize(request)
    asked = await body.read(request, wire.AssistantPatch)
    change = engine.AssistantChange(
        graph_id=None if asked.graph_id is msgspec.UNSET else asked.graph_id,
        name=None if asked.name is msgspec.UNSET else asked.name,
        description=None if asked.description is msgspec.UNSET else asked.description,
        clears_description=asked.description is None,
        config=None if asked.config is msgspec.UNSET else asked.config.plain(),
        context=None if asked.context is msgspec.UNSET else asked.context,
        metadata=asked.metadata or None,
    )
    made: set[int] = set()

    async def work(conn: Conn) -> Assistant:
        # After a COMMIT whose reply was lost, the version that is there is the one that we made.
        now = await assistants.lock(conn, assistant_id, scope=scope) if made else None
        if now is not None and now.version in made:
            return now
        changed = await engine.update(conn, assistant_id, change, graphs=parts.workers, scope=scope)
        made.add(changed.version)
        return changed

    return body.respond(wire.assistant(await parts.pool.run(work)))


async def get_versions(request: Request, parts: Parts) -> Response:
    """List the versions of an assistant, the newest first."""
    assistant_id, scope = query.assistant_id(request), auth.authorize(request)
    asked = await body.read(request, wire.Versions)

    async def work(conn: Conn) -> list[Version]:
        if await assistants.get(conn, assistant_id, scope=scope) is None:
            raise AssistantNotFound(assistant_id)
        return await assistants.versions(
            conn,
            assistant_id,
            metadata=contained(asked.metadata),
            limit=asked.limit,
            offset=asked.offset,
        )

    found = await parts.pool.run(work, transaction=False)
    return body.respond([wire.version(each) for each in found])


async def get_graph(request: Request, parts: Parts) -> Response:
    """Draw the graph of an assistant, which may be named by its graph; with `xray`, its subgraphs too."""
    scope, named = auth.authorize(request), request.path_params["assistant_id"]
    asked = request.query_params.get("xray", "").lower()
    if asked in ("", "true", "false"):
        xray: int = asked == "true"
    elif asked.isdecimal() and asked.isascii() and 0 < int(asked) < _DEEPEST:
        xray = int(asked)
    else:
        raise Invalid("Invalid xray value")
    try:
        found = await parts.pool.run(
            lambda conn: engine.resolve(conn, named, graphs=parts.workers, scope=scope)
        )
    except (Invalid, NotFound):
        raise NotFound from None
    return await _ask(parts, "graph", found, xray=xray)


async def get_schemas(request: Request, parts: Parts) -> Response:
    """Get the schemas of an assistant's graph: of its input, output, state, configuration and context."""
    return await _ask(parts, "schemas", await _existing(request, parts))


async def get_subgraphs(request: Request, parts: Parts) -> Response:
    """Get the schemas of an assistant's subgraphs, by node; with `recurse`, also of those inside them."""
    recurse = request.query_params.get("recurse", "").lower() in ("1", "true")
    return await _ask(parts, "subgraphs", await _existing(request, parts), recurse=recurse)


async def get_subgraphs_of(request: Request, parts: Parts) -> Response:
    """Get the schemas of one subgraph of an assistant, by the nodes that lead to it."""
    recurse = request.query_params.get("recurse", "").lower() in ("1", "true")
    namespace = request.path_params["namespace"]
    found = await _existing(request, parts)
    return await _ask(parts, "subgraphs", found, recurse=recurse, namespace=namespace)


async def _existing(request: Request, parts: Parts) -> Assistant:
    """Give the assistant that the path names. Raises: AssistantNotFound."""
    assistant_id, scope = query.assistant_id(request), auth.authorize(request)
    found = await parts.pool.run(
        lambda conn: assistants.get(conn, assistant_id, scope=scope), transaction=False
    )
    if found is None:
        raise AssistantNotFound(assistant_id)
    return found


async def _ask(parts: Parts, method: str, assistant: Assistant, **params: object) -> Response:
    """Ask the desk about the graph of an assistant."""
    asked = {"graph_id": assistant.graph_id, "config": msgspec.Raw(assistant.config), **params}
    return body.respond_raw(
        await parts.workers.call(method, msgspec.json.encode(asked), timeout_s=CALL_SECONDS)
    )


async def set_latest(request: Request, parts: Parts) -> Response:
    """Make a version of an assistant the active one."""
    assistant_id, scope = query.assistant_id(request), auth.authorize(request)
    asked = await body.read(request, wire.Latest)
    restored = await parts.pool.run(
        lambda conn: engine.set_latest(conn, assistant_id, asked.version, scope=scope)
    )
    return body.respond(wire.assistant(restored))


async def delete(request: Request, parts: Parts) -> Response:
    """Delete an assistant and pause its crons; with `delete_threads`, its threads go too."""
    assistant_id, scope = query.assistant_id(request), auth.authorize(request)
    with_threads = query.switch(request, "delete_threads")
    theirs = threads.Filter(metadata=msgspec.json.encode({"assistant_id": str(assistant_id)}))
    tries = 0

    async def work(conn: Conn) -> None:
        nonlocal tries
        tries += 1
        try:
            await engine.delete(conn, assistant_id, scope=scope)
        except AssistantNotFound:
            if tries == 1:  # else a former try may have done it
                raise
        while with_threads:
            found = await threads.search(
                conn, theirs, scope=scope, sort_by="thread_id", direction="asc", limit=1000, offset=0
            )
            if not found:
                break
            await threads.delete(conn, [thread.thread_id for thread in found], scope=scope)

    await parts.pool.run(work)
    return body.nothing()


def _filter(asked: wire.AssistantCount, parts: Parts) -> assistants.Filter:
    known = engine.known(parts.workers)
    if asked.graph_id and asked.graph_id not in known:
        raise GraphNotFound(asked.graph_id, list(known))
    return assistants.Filter(
        graph_id=asked.graph_id or None, name=asked.name or None, metadata=contained(asked.metadata)
    )
