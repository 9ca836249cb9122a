"""What a cron's failures come to: one alert for a streak and one when it is over; a pause when there were too many."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import msgspec

from matins.domain.access import EVERYONE
from matins.domain.alerts import Kind, webhook_of
from matins.domain.crons import Cron
from matins.domain.errors import Invalid
from matins.domain.runs import Run, RunError, RunStatus
from matins.engine import alerts
from matins.engine.spending import policy_of
from matins.storage import crons, spending
from matins.storage.pool import Conn


async def judge(conn: Conn, run: Run) -> None:
    """Look at what the end of a cron's run means for the cron, in the transaction that ends the run.

    A streak is of runs that ended, by their slots; what was cancelled is not of it. What is caught up behind a newer
    slot begins none and ends none. Only failures since the cron was last edited or resumed pause it.
    """
    if run.cron_id is None or run.status not in (RunStatus.SUCCESS, RunStatus.ERROR, RunStatus.TIMEOUT):
        return
    cron = await crons.get(conn, run.cron_id, scope=EVERYONE)
    if cron is None or (run.status is RunStatus.SUCCESS and webhook_of(cron) is None):
        return
    newest = await spending.ends(conn, cron.cron_id, since=None, limit=2)
    if run.status is RunStatus.SUCCESS and not _has_turned(run, newest):
        return
    cron = await crons.lock(conn, cron.cron_id, scope=EVERYONE)  # of two that end at once, one is the first
    if cron is None:
        return
    newest = await spending.ends(conn, cron.cron_id, since=None, limit=2)
    text = _text(run)
    if _has_turned(run, newest):
        kind = Kind.RECOVERED if run.status is RunStatus.SUCCESS else Kind.FAILING
        await alerts.tell(conn, cron, kind, "a run was a success again" if kind is Kind.RECOVERED else text)
    limit = _limit(cron)
    if run.status is RunStatus.SUCCESS or limit is None or not cron.enabled:
        return
    since = await spending.ends(conn, cron.cron_id, since=cron.updated_at, limit=limit)
    if len(since) == limit and all(status is not RunStatus.SUCCESS for _, status in since):
        runs = "its run failed" if limit == 1 else f"{limit} runs in a row failed"
        await alerts.pause(conn, cron, f"pause_after_failures: {runs}, the last with {text}")


def _has_turned(run: Run, newest: Sequence[tuple[datetime, RunStatus]]) -> bool:
    """Whether the run's slot is the newest that has ended, and the one before it ended otherwise."""
    if not newest or newest[0][0] != run.scheduled_for:
        return False
    is_good = run.status is RunStatus.SUCCESS
    before = [status is RunStatus.SUCCESS for _, status in newest[1:]]
    return before[0] is not is_good if before else not is_good


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
