"""What people do to crons beside editing them: run, fill in, pause, resume, look ahead, and sync with the code."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from matins.api import auth, body, query
from matins.api.parts import Parts
from matins.api.wire import backfills as of_backfills
from matins.api.wire import crons as wire
from matins.api.wire import declarations as of_declarations
from matins.api.wire import fires as of_fires
from matins.domain.access import Scope
from matins.domain.crons import Cron
from matins.domain.errors import CronNotFound, Invalid
from matins.domain.ids import CronId, RunId, uuid7
from matins.domain.previews import preview as dates_of
from matins.domain.schedules import zone_within
from matins.engine import backfilling, triggering
from matins.engine import crons as engine
from matins.storage import crons
from matins.storage.pool import Conn

T = TypeVar("T", bound=msgspec.Struct)


async def trigger(request: Request, parts: Parts) -> Response:
    """Run a cron now, paused or not. Its next date stays as it is."""
    cron_id, scope, run_id = query.cron_id(request), auth.authorize(request), RunId(uuid7())
    fire = await parts.pool.run(
        lambda conn: triggering.trigger(
            conn, cron_id, run_id=run_id, graphs=parts.workers, scope=scope, ceilings=parts.ceilings
        )
    )
    parts.wakes.tell_queue()
    parts.metrics.triggered(fire)
    return body.respond(of_fires.fire(fire), status=202)


async def backfill(request: Request, parts: Parts) -> Response:
    """Run slots of the past that had no run, oldest first; one that was served never runs again."""
    cron_id, scope = query.cron_id(request), auth.authorize(request)
    asked = await body.read(request, of_backfills.CronBackfill)
    since = query.parsed_instant("since", asked.since)
    until = query.parsed_instant("until", asked.until)
    found = await parts.pool.run(
        lambda conn: backfilling.backfill(
            conn, cron_id, since=since, until=until, dry_run=asked.dry_run, scope=scope
        )
    )
    if not asked.dry_run:
        parts.wakes.tell_slots()
    shown = of_backfills.backfilled(found, dry_run=asked.dry_run)
    return body.respond(shown, status=200 if asked.dry_run else 202)


async def pause(request: Request, parts: Parts) -> Response:
    """Pause a cron, and keep why."""
    cron_id, scope = query.cron_id(request), auth.authorize(request)
    asked = await _optional(request, wire.CronPause)
    cron = await parts.pool.run(lambda conn: engine.pause(conn, cron_id, asked.reason, scope=scope))
    return body.respond(wire.cron(cron))


async def resume(request: Request, parts: Parts) -> Response:
    """Resume a cron from now on: no slot that went by meanwhile fires."""
    cron_id, scope = query.cron_id(request), auth.authorize(request)
    cron = await parts.pool.run(
        lambda conn: engine.resume(conn, cron_id, scope=scope, ceilings=parts.ceilings)
    )
    parts.crons_changed()
    return body.respond(wire.cron(cron))


async def hold(request: Request, parts: Parts) -> Response:
    """Pause all crons of the server. Their slots are skipped, on record, and each one's own state is kept."""
    auth.authorize(request)
    asked = await _optional(request, wire.CronPause)
    return body.respond(wire.held(await parts.pool.run(lambda conn: crons.hold(conn, asked.reason))))


async def let_go(request: Request, parts: Parts) -> Response:
    """Resume the crons of the server: those that were not paused by themselves go on from now."""
    auth.authorize(request)
    await parts.pool.run(crons.let_go)
    return body.respond(wire.held(None))


async def get_hold(request: Request, parts: Parts) -> Response:
    """Tell whether all crons of the server are paused."""
    auth.authorize(request)
    return body.respond(wire.held(await parts.pool.run(crons.get_hold, transaction=False)))


async def preview(request: Request, parts: Parts) -> Response:
    """Give the next dates of a schedule or of a cron, in UTC and local time, and the schedule in words."""
    asked = await body.read(request, wire.CronPreview)
    scope = auth.authorize(request)
    if (asked.schedule is msgspec.UNSET) == (asked.cron_id is msgspec.UNSET):
        raise Invalid("Name either `schedule` or `cron_id`")
    cron, now = await parts.pool.run(lambda conn: _look(conn, asked, scope), transaction=False)
    after = query.parsed_instant("after", asked.after) if asked.after else now
    if cron is None:
        schedule, first = asked.schedule or "", None
        timezone = asked.timezone or zone_within(schedule) or "UTC"
    elif asked.timezone is not msgspec.UNSET:
        raise Invalid("`timezone` goes with `schedule`; a cron has its own")
    else:
        schedule, timezone = cron.schedule, cron.timezone or "UTC"
        first = cron.next_run_date if cron.enabled and not asked.after else None
    found = dates_of(schedule, timezone, after, asked.count, first=first)
    if cron is not None and cron.end_time is not None:
        found = [each for each in found if cron.end_time >= each.at]
    return body.respond(wire.dates(schedule, timezone, found))


async def _look(conn: Conn, asked: wire.CronPreview, scope: Scope) -> tuple[Cron | None, datetime]:
    now, _ = await crons.clock(conn)
    if asked.cron_id is msgspec.UNSET:
        return None, now.astimezone(UTC)
    cron_id = CronId(asked.cron_id)
    cron = await crons.get(conn, cron_id, scope=scope)
    if cron is None:
        raise CronNotFound(cron_id)
    return cron, now.astimezone(UTC)


async def sync(request: Request, parts: Parts) -> Response:
    """Make the crons that the project declares what it declares, or only say what would be done."""
    auth.authorize(request)
    asked = await _optional(request, of_declarations.CronSync)
    changes = await parts.declarations.sync(dry_run=asked.dry_run)
    return body.respond(of_declarations.synced(changes, dry_run=asked.dry_run))


async def _optional(request: Request, shape: type[T]) -> T:
    """Give what the body says; none says nothing."""
    return body.decode(await body.read_raw(request) or b"{}", shape)
