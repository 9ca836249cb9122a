"""What a cron's failures come to: one alert for a streak and one when it is over; a pause when there were too many."""

from __future__ import annotations

import msgspec

from matins.domain.access import EVERYONE
from matins.domain.alerts import Kind, webhook_of
from matins.domain.crons import Cron
from matins.domain.errors import Invalid
from matins.domain.ids import CronId
from matins.domain.runs import Run, RunError, RunStatus
from matins.engine import alerts
from matins.engine.spending import policy_of
from matins.storage import crons, spending
from matins.storage.pool import Conn


async def judge(conn: Conn, run: Run) -> None:
    """Look at what the end of a cron's run means for the cron, in the transaction that ends the run.

    A streak is of runs that ended one after the other, by their slots; what was cancelled is not of it. Only those
    since the cron was last edited or resumed pause it.
    """
    if run.cron_id is None or run.status not in (RunStatus.SUCCESS, RunStatus.ERROR, RunStatus.TIMEOUT):
        return
    cron = await crons.get(conn, run.cron_id, scope=EVERYONE)
    if cron is None:
        return
    if run.status is RunStatus.SUCCESS:
        if webhook_of(cron) is not None:
            newest = await spending.ends(conn, cron.cron_id, since=None, limit=2)
            if newest[1:] and newest[1] is not RunStatus.SUCCESS:
                await alerts.tell(conn, cron, Kind.RECOVERED, "a run was a success again")
        return
    await _failed(conn, run.cron_id, _text(run))


async def _failed(conn: Conn, cron_id: CronId, text: str) -> None:
    cron = await crons.lock(conn, cron_id, scope=EVERYONE)  # of two that fail at once, one is the first
    if cron is None:
        return
    newest = await spending.ends(conn, cron_id, since=None, limit=2)
    if not newest[1:] or newest[1] is RunStatus.SUCCESS:
        await alerts.tell(conn, cron, Kind.FAILING, text)
    limit = _limit(cron)
    if limit is None or not cron.enabled:
        return
    newest = await spending.ends(conn, cron_id, since=cron.updated_at, limit=limit)
    if len(newest) == limit and RunStatus.SUCCESS not in newest:
        runs = "its run failed" if limit == 1 else f"{limit} runs in a row failed"
        await alerts.pause(conn, cron, f"pause_after_failures: {runs}, the last with {text}")


def _limit(cron: Cron) -> int | None:
    try:
        return policy_of(cron).pause_after_failures
    except Invalid:  # meddled with: it is paused when it is due
        return None


def _text(run: Run) -> str:
    """Give the run's error for people, in a line."""
    try:
        error = msgspec.json.decode(run.error or b"", type=RunError)
    except msgspec.DecodeError:
        return run.status.value
    return f"{error.error}: {error.message}"[:300]
