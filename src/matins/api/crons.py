"""/runs/crons and /threads/{thread_id}/runs/crons: create, get, search, count, update, delete."""

from __future__ import annotations

from dataclasses import replace

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from matins.api import auth, body, idempotency, pages, policies, query
from matins.api.parts import Parts
from matins.api.wire import crons as wire
from matins.api.wire import fires as of_fires
from matins.api.wire.json import Json, contained
from matins.domain.access import EVERYONE, Scope
from matins.domain.errors import BadRequest, CronNotFound
from matins.domain.fires import STATUSES as FIRE_STATUSES
from matins.domain.fires import Outcome, Trigger
from matins.domain.ids import AssistantId, CronId, ThreadId
from matins.domain.policies import Given
from matins.engine import conditions, contexts
from matins.engine import crons as engine
from matins.storage import crons, fires
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
    policy, sent = policies.given(request, sent)
    asked = body.convert(sent, wire.CronCreate)
    await parts.webhooks.check([asked.webhook or None])
    if thread_id is not None:
        await contexts.check(parts.pool, parts.workers, policy, asked.assistant_id, scope=scope)
    await conditions.check(parts.workers, policy)
    wanted = engine.CronRequest(
        assistant_id=asked.assistant_id,
        schedule=None if asked.schedule is msgspec.UNSET else asked.schedule,
        after_seconds=None if asked.after_seconds is msgspec.UNSET else asked.after_seconds,
        timezone=None if asked.timezone is msgspec.UNSET else asked.timezone,
        end_time=None if asked.end_time is msgspec.UNSET else asked.end_time,
        enabled=asked.enabled is not False,
        on_run_completed=asked.on_run_completed or None,
        metadata=asked.metadata or {},
        policy=policy,
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
        lambda conn: engine.create(
            conn, wanted, thread_id=thread_id, graphs=parts.workers, scope=scope, ceilings=parts.ceilings
        ),
        lambda made: body.respond(wire.cron(made)),
    )
    parts.crons_changed()
    return response


async def get(request: Request, parts: Parts) -> Response:
    """Get a cron."""
    cron_id, scope = query.cron_id(request), auth.authorize(request)

    async def work(conn: Conn) -> wire.Cron:
        cron = await crons.get(conn, cron_id, scope=scope)
        if cron is None:
            raise CronNotFound(cron_id)
        figures = await fires.figures(conn, [cron_id])
        return wire.cron(cron, figures.get(cron_id))

    return body.respond(await parts.pool.run(work, transaction=False))


async def update(request: Request, parts: Parts) -> Response:
    """Change a cron."""
    cron_id = query.cron_id(request)
    sent = await body.read(request, Json)
    policy, sent = policies.given(request, sent)
    if not sent and not policy:
        raise BadRequest("Request body cannot be empty")
    asked = body.convert(sent, wire.CronPatch)
    await parts.webhooks.check([asked.webhook or None])
    await conditions.check(parts.workers, policy)
    scope = auth.authorize(request)
    if not policy.keys().isdisjoint(("context_policy", "last_n")):
        await _check_context(parts, cron_id, policy, scope)
    change = engine.CronChange(
        schedule=None if asked.schedule is msgspec.UNSET else asked.schedule,
        timezone=None if asked.timezone is msgspec.UNSET else asked.timezone,
        end_time=None if asked.end_time is msgspec.UNSET else asked.end_time,
        clears_end_time=asked.end_time is None,
        enabled=None if asked.enabled is msgspec.UNSET else asked.enabled,
        on_run_completed=asked.on_run_completed or None,
        metadata=asked.metadata or None,
        policy=policy,
        payload=sent,
    )
    cron = await parts.pool.run(
        lambda conn: engine.update(conn, cron_id, change, scope=scope, ceilings=parts.ceilings)
    )
    parts.crons_changed()
    return body.respond(wire.cron(cron))


async def _check_context(parts: Parts, cron_id: CronId, policy: Given, scope: Scope) -> None:
    """Check what a change makes of the policy of a cron on a thread."""
    cron = await parts.pool.run(lambda conn: crons.get(conn, cron_id, scope=scope), transaction=False)
    if cron is not None and cron.thread_id is not None:
        stored = msgspec.json.decode(cron.policy or b"{}", type=Json)
        now = {**stored, **policy}
        await contexts.check(parts.pool, parts.workers, now, str(cron.assistant_id), scope=EVERYONE)


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

    async def find(conn: Conn, limit: int) -> list[wire.Cron]:
        found = await crons.search(
            conn,
            wanted,
            scope=scope,
            sort_by=asked.sort_by,
            direction=asked.sort_order,
            limit=limit,
            offset=asked.offset,
        )
        figures = await fires.figures(conn, [cron.cron_id for cron in found])
        return [wire.cron(cron, figures.get(cron.cron_id)) for cron in found]

    page = await pages.find(
        parts.pool,
        find,
        lambda conn, most: crons.count(conn, wanted, scope=scope, limit=most),
        limit=asked.limit,
        offset=asked.offset,
    )
    return body.respond(pages.select(page.items, asked.select), headers=page.headers)


async def count(request: Request, parts: Parts) -> Response:
    """Count crons."""
    wanted = _filter(await body.read(request, wire.CronCount))
    scope = auth.authorize(request)
    number = await parts.pool.run(lambda conn: crons.count(conn, wanted, scope=scope), transaction=False)
    return body.respond(number)


async def list_fires(request: Request, parts: Parts) -> Response:
    """List what became of a cron's slots, the newest first. The ledger outlives the cron, for 90 days."""
    scope = auth.authorize(request)
    limit = query.integer(request, "limit", 10, least=1, most=1000)
    offset = query.integer(request, "offset", 0, least=0, most=2**62)
    wanted = fires.Filter(
        cron_id=query.cron_id(request),
        outcome=query.one_of(request, "outcome", Outcome),
        status=query.one_of(request, "status", FIRE_STATUSES),
        trigger=query.one_of(request, "trigger", Trigger),
        since=query.instant(request, "since"),
        until=query.instant(request, "until"),
    )
    page = await pages.find(
        parts.pool,
        lambda conn, most: fires.list_(conn, wanted, scope=scope, limit=most, offset=offset),
        lambda conn, most: fires.count(conn, wanted, scope=scope, limit=most),
        limit=limit,
        offset=offset,
    )
    if not page.items and not await parts.pool.run(
        lambda conn: _is_known(conn, wanted.cron_id, scope), transaction=False
    ):
        raise CronNotFound(wanted.cron_id)
    return body.respond([of_fires.fire(each) for each in page.items], headers=page.headers)


async def _is_known(conn: Conn, cron_id: CronId, scope: Scope) -> bool:
    if await crons.get(conn, cron_id, scope=scope) is not None:
        return True
    return await fires.count(conn, fires.Filter(cron_id=cron_id), scope=scope, limit=1) > 0


def _filter(asked: wire.CronCount) -> crons.Filter:
    return crons.Filter(
        assistant_id=AssistantId(asked.assistant_id) if asked.assistant_id else None,
        thread_id=ThreadId(asked.thread_id) if asked.thread_id else None,
        enabled=None if asked.enabled is msgspec.UNSET else asked.enabled,
        metadata=contained(asked.metadata),
    )
