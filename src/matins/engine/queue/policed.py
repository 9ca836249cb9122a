"""What its cron's policy asks of a run under way, as it was when the run was fired."""

from __future__ import annotations

import math
from datetime import datetime, timedelta

import msgspec

from matins.domain import policies
from matins.domain.errors import Invalid
from matins.domain.policies import Policy
from matins.domain.runs import Run
from matins.engine import spending
from matins.storage import queue
from matins.storage.pool import Conn


class _Kwargs(msgspec.Struct):
    policy: dict[str, object] = {}
    next_slot: datetime | None = None


def limit_s(run: Run) -> float:
    """Give for how many more seconds the run may run, whichever attempt this is."""
    most_s = _policy(run).max_run_seconds
    if most_s is None:
        return math.inf
    return max(0.0, most_s - (run.updated_at - (run.started_at or run.updated_at)).total_seconds())


async def allowance(conn: Conn, run: Run) -> spending.Allowance:
    """Give what the run may spend before it is held."""
    if run.cron_id is None or _policy(run).on_budget != "cancel":
        return spending.Allowance()
    return await spending.allowance(conn, run.cron_id)


async def retry(conn: Conn, run: Run) -> float | None:
    """Have the run tried again after an error that may pass, from where it is: in how many seconds.

    None when it is not: it was tried often enough, the cron's next slot or the end of its time would come first, or it
    is to stop.
    """
    policy = _policy(run)
    asked = policy.retry
    if asked is None:
        return None
    after_s = min(asked.backoff * 2.0**run.retries, policies.LONGEST_SECONDS)
    before = msgspec.json.decode(run.kwargs, type=_Kwargs).next_slot
    if policy.max_run_seconds is not None and run.started_at is not None:
        end = run.started_at + timedelta(seconds=policy.max_run_seconds)
        before = end if before is None else min(before, end)
    is_retried = await queue.retry(conn, run.held, after_s=after_s, most=asked.max, before=before)
    return after_s if is_retried else None


def _policy(run: Run) -> Policy:
    if run.cron_id is None:
        return policies.DEFAULT
    try:
        return policies.read(msgspec.json.decode(run.kwargs, type=_Kwargs).policy)
    except (Invalid, msgspec.DecodeError):  # it was meddled with
        return policies.DEFAULT
