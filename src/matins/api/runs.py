"""/threads/{thread_id}/runs and /runs: create, list, get, cancel, delete."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from matins.api import auth, body, idempotency, inside, pages, query
from matins.api.parts import Parts
from matins.api.wire import runs as wire
from matins.api.wire.json import contained
from matins.domain.access import Scope
from matins.domain.errors import Invalid, NotFound, ThreadNotFound
from matins.domain.ids import AssistantId, RunId, ThreadId, uuid7
from matins.domain.runs import Run, StopReason
from matins.engine import cancelling
from matins.engine.requests import RunRequest
from matins.storage import runs, threads
from matins.storage.pool import Conn

_ACTIONS: Final = {"interrupt": StopReason.INTERRUPT, "rollback": StopReason.ROLLBACK}


async def create(request: Request, parts: Parts) -> Response:
    """Create a run on a thread and answer at once."""
    thread_id, scope = query.thread_id(request), auth.authorize(request)
    asked, once = await idempotency.read(request, wire.RunOnThread, scope)

    def answer(run: Run) -> Response:
        place = f"/threads/{run.thread_id}/runs/{run.run_id}"
        return body.respond(wire.created(run), headers={"Content-Location": place})

    run = await parts.runs.submit(
        wanted(request, parts, asked),
        run_id=RunId(uuid7()),
        thread_id=thread_id,
        scope=scope,
        parent=inside.caller(request.scope),
        around=once.around(answer),
    )
    return answer(run)


async def create_stateless(request: Request, parts: Parts) -> Response:
    """Create a run on a thread of its own and answer at once."""
    scope = auth.authorize(request)
    asked, once = await idempotency.read(request, wire.RunWithoutThread, scope)

    def answer(run: Run) -> Response:
        return body.respond(wire.created(run), headers={"Content-Location": f"/runs/{run.run_id}"})

    run = await parts.runs.submit(
        wanted(request, parts, asked),
        run_id=RunId(uuid7()),
        thread_id=None,
        scope=scope,
        parent=inside.caller(request.scope),
        around=once.around(answer),
    )
    return answer(run)


async def create_batch(request: Request, parts: Parts) -> Response:
    """Create runs, each on a thread of its own: all of them or none."""
    scope = auth.authorize(request)
    asked, once = await idempotency.read(request, list[wire.RunWithoutThread], scope)
    if not 1 <= len(asked) <= wire.LARGEST_BATCH:
        raise Invalid(f"A batch has 1 to {wire.LARGEST_BATCH} runs, not {len(asked)}")

    def answer(made: list[Run]) -> Response:
        return body.respond([wire.created(run) for run in made])

    requests = [wanted(request, parts, each) for each in asked]
    made = await parts.runs.submit_all(
        requests, scope=scope, parent=inside.caller(request.scope), around=once.around(answer)
    )
    return answer(made)


def wanted(request: Request, parts: Parts, asked: wire.RunCreate) -> RunRequest:
    """Give what a request asks for, with those of its headers that graphs are to see. Raises: Invalid."""
    return replace(asked.request(), headers=parts.http.configurable_headers.of(request.scope["headers"]))


async def list_(request: Request, parts: Parts) -> Response:
    """List the runs of a thread, newest first."""
    thread_id = query.thread_id(request)
    limit = query.integer(request, "limit", 10, least=0, most=1000)
    offset = query.integer(request, "offset", 0, least=0, most=2**62)
    status = request.query_params.get("status") or None
    columns = query.names(request, "select")
    scope = auth.authorize(request)
    unknown = [name for name in columns if name not in wire.COLUMNS]
    if unknown:
        raise Invalid(f"Invalid select columns: {unknown}. Expected: {sorted(wire.COLUMNS)}")

    async def work(conn: Conn) -> list[Run]:
        if await threads.get(conn, thread_id, scope=scope) is None:
            raise ThreadNotFound(thread_id)
        return await runs.list_(conn, thread_id, scope=scope, status=status, limit=limit, offset=offset)

    found = await parts.pool.run(work, transaction=False)
    return body.respond(pages.select([wire.run(run) for run in found], columns))


async def search(request: Request, parts: Parts) -> Response:
    """Search the runs of all threads, newest first."""
    asked = await body.read(request, wire.RunSearch)
    scope = auth.authorize(request)
    wanted = runs.Filter(
        metadata=contained(asked.metadata),
        status=asked.status or None,
        thread_id=ThreadId(asked.thread_id) if asked.thread_id else None,
        assistant_id=AssistantId(asked.assistant_id) if asked.assistant_id else None,
    )
    page = await pages.find(
        parts.pool,
        lambda conn, most: runs.search(conn, wanted, scope=scope, limit=most, offset=asked.offset),
        lambda conn, most: runs.count(conn, wanted, scope=scope, limit=most),
        limit=asked.limit,
        offset=asked.offset,
    )
    shown = pages.select([wire.run(run) for run in page.items], asked.select)
    return body.respond(shown, headers=page.headers)


async def get(request: Request, parts: Parts) -> Response:
    """Get a run of a thread."""
    run = await existing(
        parts, query.run_id(request), thread_id=query.thread_id(request), scope=auth.authorize(request)
    )
    return body.respond(wire.run(run))


async def get_stateless(request: Request, parts: Parts) -> Response:
    """Get a run by its id alone."""
    run = await existing(parts, query.run_id(request), thread_id=None, scope=auth.authorize(request))
    return body.respond(wire.run(run))


async def existing(parts: Parts, run_id: RunId, *, thread_id: ThreadId | None, scope: Scope) -> Run:
    """Give the run, on that thread when one is named. Raises: NotFound."""
    run = await parts.pool.run(
        lambda conn: runs.get(conn, run_id, thread_id=thread_id, scope=scope), transaction=False
    )
    if run is None:
        raise NotFound("Run not found")
    return run


async def cancel(request: Request, parts: Parts) -> Response:
    """Stop a run; with `wait`, answer when it has stopped."""
    thread_id, run_id = query.thread_id(request), query.run_id(request)
    is_waited_for = query.switch(request, "wait")
    reason = _action(request)
    await parts.runs.cancel(
        thread_id, run_id, scope=auth.authorize(request), wait=is_waited_for, reason=reason
    )
    if not is_waited_for:
        return body.nothing(202)
    place = f"/threads/{thread_id}/runs/{run_id}"
    return body.respond({}, headers={"Content-Location": place, "Location": f"{place}/join"})


async def cancel_many(request: Request, parts: Parts) -> Response:
    """Stop runs of a thread by their ids, or all that are pending, running, or either."""
    reason = _action(request)
    asked = await body.read(request, wire.CancelMany)
    scope = auth.authorize(request)
    if asked.status and not (asked.thread_id or asked.run_ids):
        statuses = ["pending", "running"] if asked.status == "all" else [asked.status]
        await cancelling.cancel_in(parts.runs, parts.pool, statuses, reason, scope=scope)
    elif asked.thread_id and asked.run_ids and not asked.status:
        run_ids = [RunId(run_id) for run_id in asked.run_ids]
        await cancelling.cancel_named(parts.runs, ThreadId(asked.thread_id), run_ids, reason, scope=scope)
    else:
        raise Invalid("Give either 'status', or 'thread_id' with 'run_ids'.")
    return body.nothing()


def _action(request: Request) -> StopReason:
    try:
        return _ACTIONS[request.query_params.get("action") or "interrupt"]
    except KeyError:
        raise Invalid("action must be 'interrupt' or 'rollback'") from None


async def delete(request: Request, parts: Parts) -> Response:
    """Delete a run, in whatever state."""
    await parts.runs.delete(query.thread_id(request), query.run_id(request), scope=auth.authorize(request))
    return body.nothing()
