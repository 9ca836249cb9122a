"""/runs/crons and /threads/{thread_id}/runs/crons: create, get, search, count, update, delete."""

from __future__ import annotations

from dataclasses import replace

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from matins.api import auth, body, idempotency, pages, query
from matins.api.parts import Parts
from matins.api.wire import crons as wire
from matins.api.wire.json import Json, contained
from matins.domain.errors import BadRequest, CronNotFound
from matins.domain.ids import AssistantId, ThreadId
from matins.engine import crons as engine
from matins.storage import crons
from matins.storage.pool import Conn


async def create_for_thread(request: Request, parts: Parts) -> Response:
    """Create a cron whose runs share a thread."""
    return await _create(request, parts, query.thread_id(request))


async def create(request: Request, parts: Parts) -> Response:
    """Create a cron whose runs each get a thread of their own."""
    return await _create(request, parts, None)


async def _create(request: Request, parts: Parts, thread_id: ThreadId | None) -> Response:
    scope = auth.authorize(request)
    sent, once = await idempotency.read(request, Json, scope)
    asked = body.convert(sent, wire.CronCreate)
    await parts.webhooks.check([asked.webhook or None])
    wanted = engine.CronRequest(
        assistant_id=asked.assistant_id,
        schedule=asked.schedule,
        timezone=None if asked.timezone is msgspec.UNSET else asked.timezone,
        end_time=None if asked.end_time is msgspec.UNSET else asked.end_time,
        enabled=asked.enabled is not False,
        on_run_completed=asked.on_run_completed or None,
        metadata=asked.metadata or {},
        payload=sent,
        headers=parts.http.configurable_headers.of(request.scope["headers"]),
    )
    wanted = replace(
        wanted,
        priority=await parts.priorities.assign(
            wanted.assistant_id,
            thread_id=thread_id,
            metadata=wanted.metadata,
            scope=scope,
            cron_id=wanted.cron_id,
        ),
    )
    response = await once.run(
        parts.pool,
        lambda conn: engine.create(conn, wanted, thread_id=thread_id, graphs=parts.workers, scope=scope),
        lambda made: body.respond(wire.cron(made)),
    )
    parts.crons_changed()
    return response


async def get(request: Request, parts: Parts) -> Response:
    """Get a cron."""
    cron_id, scope = query.cron_id(request), auth.authorize(request)
    cron = await parts.pool.run(lambda conn: crons.get(conn, cron_id, scope=scope), transaction=False)
    if cron is None:
        raise CronNotFound(cron_id)
    return body.respond(wire.cron(cron))


async def update(request: Request, parts: Parts) -> Response:
    """Change a cron."""
    cron_id = query.cron_id(request)
    sent = await body.read(request, Json)
    if not sent:
        raise BadRequest("Request body cannot be empty")
    asked = body.convert(sent, wire.CronPatch)
    await parts.webhooks.check([asked.webhook or None])
    scope = auth.authorize(request)
    change = engine.CronChange(
        schedule=None if asked.schedule is msgspec.UNSET else asked.schedule,
        timezone=None if asked.timezone is msgspec.UNSET else asked.timezone,
        end_time=None if asked.end_time is msgspec.UNSET else asked.end_time,
        clears_end_time=asked.end_time is None,
        enabled=None if asked.enabled is msgspec.UNSET else asked.enabled,
        on_run_completed=asked.on_run_completed or None,
        metadata=asked.metadata or None,
        payload=sent,
    )
    cron = await parts.pool.run(lambda conn: engine.update(conn, cron_id, change, scope=scope))
    parts.crons_changed()
    return body.respond(wire.cron(cron))


async def delete(request: Request, parts: Parts) -> Response:
    """Delete a cron; the runs that it made go on."""
    cron_id, scope = query.cron_id(request), auth.authorize(request)
    tries = 0

    async def work(conn: Conn) -> bool:
        nonlocal tries
        tries += 1
        return await crons.delete(conn, cron_id, scope=scope) or tries > 1  # a former try may have done it

    if not await parts.pool.run(work):
        raise CronNotFound(cron_id)
    return body.nothing()


async def search(request: Request, parts: Parts) -> Response:
    """Search crons, the newest first."""
    asked = await body.read(request, wire.CronSearch)
    scope, wanted = auth.authorize(request), _filter(asked)
    page = await pages.find(
        parts.pool,
        lambda conn, limit: crons.search(
            conn,
            wanted,
            scope=scope,
            sort_by=asked.sort_by,
            direction=asked.sort_order,
            limit=limit,
            offset=asked.offset,
        ),
        lambda conn, most: crons.count(conn, wanted, scope=scope, limit=most),
        limit=asked.limit,
        offset=asked.offset,
    )
    shown = pages.select([wire.cron(cron) for cron in page.items], asked.select)
    return body.respond(shown, headers=page.headers)


async def count(request: Request, parts: Parts) -> Response:
    """Count crons."""
    wanted = _filter(await body.read(request, wire.CronCount))
    scope = auth.authorize(request)
    number = await parts.pool.run(lambda conn: crons.count(conn, wanted, scope=scope), transaction=False)
    return body.respond(number)


def _filter(asked: wire.CronCount) -> crons.Filter:
    return crons.Filter(
        assistant_id=AssistantId(asked.assistant_id) if asked.assistant_id else None,
        thread_id=ThreadId(asked.thread_id) if asked.thread_id else None,
        enabled=None if asked.enabled is msgspec.UNSET else asked.enabled,
        metadata=contained(asked.metadata),
    )
