"""Run a cron now: a fire that is due because a person says so. Its next date stays, and it may be paused."""

from __future__ import annotations

from dataclasses import replace

from matins.domain.access import EVERYONE, Scope
from matins.domain.crons import Slot
from matins.domain.errors import Conflict, CronNotFound, Invalid, NotFound, ThreadBusy
from matins.domain.fires import Fire, Trigger
from matins.domain.ids import CronId, RunId
from matins.engine import assistants
from matins.engine.firing import fire_of, prepare
from matins.storage import crons, fires, threads
from matins.storage.pool import Conn


async def trigger(
    conn: Conn, cron_id: CronId, *, run_id: RunId, graphs: assistants.Graphs, scope: Scope
) -> Fire:
    """Start the run `run_id` as the cron would at a slot, and give the fire. Must be in a transaction.

    The run is minted before, so that a repeated transaction makes no second one. Its slot is this instant.
    Raises: CronNotFound; Conflict when it cannot be started, with the reason; ThreadBusy when it rejects and its thread
    is busy.
    """
    already = await fires.get_of_run(conn, run_id)
    if already is not None:
        return already
    cron = await crons.get(conn, cron_id, scope=scope)
    if cron is not None and cron.thread_id is not None:
        await threads.lock(conn, cron.thread_id, scope=EVERYONE)  # first, as whoever deletes it does
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
    fire = fire_of(prepared, Slot(now, fires=True, trigger=Trigger.MANUAL.value))
    if fire.run is not None:
        fire = replace(fire, run=replace(fire.run, run_id=run_id))
    [written] = await fires.record(conn, [fire])
    if written.run is None:
        raise ThreadBusy
    made = await fires.get_of_run(conn, run_id)
    if made is None:
        raise CronNotFound(cron_id)
    return made
