"""Run a cron now: a fire that is due because a person says so. Its next date stays, and it may be paused."""

from __future__ import annotations

from dataclasses import replace

from matins.domain.access import EVERYONE, Scope
from matins.domain.budgets import DEFAULT_CEILINGS, Ceilings
from matins.domain.errors import Conflict, CronNotFound, Invalid, NotFound, ThreadBusy
from matins.domain.fires import Fire, Trigger
from matins.domain.ids import CronId, RunId
from matins.engine import alerts, assistants, spending
from matins.engine.firing import fired, prepare
from matins.engine.questions import UNANSWERED, is_unanswered
from matins.storage import crons, fires, firing, threads
from matins.storage.pool import Conn


async def trigger(
    conn: Conn,
    cron_id: CronId,
    *,
    run_id: RunId,
    graphs: assistants.Graphs,
    scope: Scope,
    ceilings: Ceilings = DEFAULT_CEILINGS,
) -> Fire:
    """Start the run `run_id` as the cron would at a slot, and give the fire. Must be in a transaction.

    The run is minted before, so that a repeated transaction makes no second one. Its slot is this instant.
    Raises: CronNotFound; Conflict when it cannot be started, its limits are reached, or its thread waits for an answer
    that its policy waits for; ThreadBusy when its policy is to skip what overlaps, and it would.
    """
    already = await fires.get_of_run(conn, run_id)
    if already is not None:
        return already
    cron, asked = await crons.get(conn, cron_id, scope=scope), {}
    if cron is not None and cron.thread_id is not None:
        await threads.lock(conn, cron.thread_id, scope=EVERYONE)  # first, as whoever deletes it does
        asked = await firing.take_threads(conn, [cron.thread_id])
    cron = await crons.lock(conn, cron_id, scope=scope)
    if cron is None:
        raise CronNotFound(cron_id)
    now, _ = await crons.clock(conn)
    try:
        assistant = await assistants.resolve(conn, str(cron.assistant_id), graphs=graphs, scope=EVERYONE)
    except (NotFound, Invalid):
        raise Conflict(f"Its assistant {cron.assistant_id} does not exist") from None
    prepared = prepare(replace(cron, next_run_date=None), assistant)
    if prepared.trouble is not None:
        raise Conflict(f"It cannot be started: {prepared.trouble}")
    left = await spending.room_of(conn, cron, prepared.policy, ceilings)
    if left.runs < 1:
        raise Conflict(f"It cannot be started: {left.reason}")
    if await is_unanswered(conn, cron, prepared.policy, asked):
        raise Conflict(f"It cannot be started: {UNANSWERED}")
    fire = fired(prepared, now, Trigger.MANUAL)
    if fire.run is not None:
        fire = replace(fire, run=replace(fire.run, run_id=run_id))
    if prepared.overlap == "skip" and await _is_busy(conn, fire):
        raise ThreadBusy
    await firing.record(conn, [fire])
    if left.is_final and left.runs <= 1:
        await alerts.pause(conn, cron, left.reason)
    made = await fires.get_of_run(conn, run_id)
    if made is None:
        raise CronNotFound(cron_id)
    return made


async def _is_busy(conn: Conn, fire: firing.NewFire) -> bool:
    if await fires.in_flight(conn, [fire.cron.cron_id]):
        return True
    return fire.run is not None and bool(await fires.busy_threads(conn, [fire.run.thread_id]))
