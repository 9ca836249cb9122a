"""What a slot does whose thread waits for an answer: an interrupt that nobody has answered yet.

wait          is skipped until it is answered
skip_next     one slot is skipped; the next one drops the question
cancel_after  is skipped so long after the question, then drops it

It is never asked again for a slot, and never answered by one. `resume_with` needs none of this: such a run has
answered itself, in its worker; what waits is a person's.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final

from matins.domain.access import EVERYONE
from matins.domain.crons import Cron
from matins.domain.fires import Outcome
from matins.domain.ids import CronId, ThreadId
from matins.domain.policies import Answer, Policy
from matins.storage import crons, fires, firing
from matins.storage.pool import Conn

UNANSWERED: Final = "its thread waits for an answer"


async def without_unanswered(
    conn: Conn, rows: list[firing.NewFire], taken: firing.Taken, policies: Mapping[CronId, Policy]
) -> list[firing.NewFire]:
    """Give the rows as they are to be written. The caller has taken the crons and their threads."""
    asking = {row.cron.cron_id: row.cron for row in rows if row.run and row.cron.thread_id in taken.asked}
    if not asking or taken.now is None:
        return rows
    was_skipped = {
        cron_id: await _has_skipped(conn, cron, taken.asked, policies[cron_id])
        for cron_id, cron in asking.items()
    }
    written: list[firing.NewFire] = []
    for row in rows:
        cron_id, thread_id, found = row.cron.cron_id, row.cron.thread_id, row
        if row.run is not None and thread_id is not None and thread_id in taken.asked:
            age = taken.now - taken.asked[thread_id]
            if _is_skipped(policies[cron_id], age=age, was_skipped=was_skipped[cron_id]):
                was_skipped[cron_id] = True
                found = firing.NewFire(row.cron, row.slot, "skipped", reason=UNANSWERED, trigger=row.trigger)
        written.append(found)
    return written


async def is_unanswered(
    conn: Conn, cron: Cron, policy: Policy, asked: Mapping[ThreadId, datetime | None]
) -> bool:
    """Whether a slot of the cron is skipped for a question on its thread. `asked`: since when which thread waits."""
    asked_at = asked.get(cron.thread_id) if cron.thread_id else None
    if asked_at is None:
        return False
    now, _ = await crons.clock(conn)
    return _is_skipped(policy, age=now - asked_at, was_skipped=await _has_skipped(conn, cron, asked, policy))


async def _has_skipped(
    conn: Conn, cron: Cron, asked: Mapping[ThreadId, datetime | None], policy: Policy
) -> bool:
    """Whether a slot of the cron was skipped since the question was asked; not looked up where it does not matter."""
    if policy.on_interrupt != "skip_next" or cron.thread_id is None:
        return False
    wanted = fires.Filter(cron_id=cron.cron_id, outcome=Outcome.SKIPPED, since=asked.get(cron.thread_id))
    return await fires.count(conn, wanted, scope=EVERYONE, limit=1) > 0


def _is_skipped(policy: Policy, *, age: timedelta, was_skipped: bool) -> bool:
    """Whether a slot is skipped for a question of that age. `was_skipped`: one was already."""
    if policy.context == "fork":
        return False  # it works on a copy
    match policy.on_interrupt:
        case "skip_next":
            return not was_skipped
        case Answer(cancel_after=float(after_s)):
            return age < timedelta(seconds=after_s)
        case _:
            return True
