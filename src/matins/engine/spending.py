"""What crons' runs spend: put on record as it happens, held against budgets, and against what is left before a slot.

A budget is the policy's as it is now, so that one that is raised counts at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

import msgspec

from matins import telemetry
from matins.domain import policies
from matins.domain.access import EVERYONE
from matins.domain.alerts import Kind
from matins.domain.budgets import (
    UNLIMITED,
    Ceilings,
    Room,
    Spent,
    has_budget,
    nearly_used_up,
    room,
    used_up,
    window_start,
)
from matins.domain.crons import Cron
from matins.domain.errors import Invalid
from matins.domain.ids import CronId, RunId, ThreadId
from matins.domain.policies import Policy
from matins.domain.runs import Run, RunStatus, StopReason
from matins.domain.schedules import most_a_day
from matins.engine import alerts
from matins.storage import crons, fires, firing, spending, stops
from matins.storage.pool import Conn
from matins.workers.protocol import Spent as Call

_MOST: Final = 1_000_000  # no more runs of a day are counted


@dataclass(frozen=True, slots=True)
class Allowance:
    """What a run may spend before it is held: None where it is not to be."""

    tokens: int | None = None
    usd: float | None = None


def policy_of(cron: Cron) -> Policy:
    """Give the policy of a cron. Raises: Invalid, also when it cannot be read."""
    try:
        return policies.read(msgspec.json.decode(cron.policy or b"{}", type=dict[str, object]))
    except msgspec.DecodeError as unreadable:
        raise Invalid(str(unreadable)) from None


async def note(conn: Conn, run: Run, calls: Sequence[Call], *, number: int) -> list[tuple[RunId, ThreadId]]:
    """Put what calls of models took on record; when that used up a budget, pause the cron. Must be in a transaction.

    `number`: how many calls the attempt has made with these, so that they count once, however often this is tried.
    Runs of the cron that wait are stopped with it; so are those that run, if its policy says so. Gives those that are
    to be told.
    """
    if run.cron_id is None:
        return []
    cron_id, run_id = run.cron_id, run.run_id
    total = spending.Calls(
        number=len(calls),
        input_tokens=sum(call.input_tokens for call in calls),
        output_tokens=sum(call.output_tokens for call in calls),
        tokens=sum(call.tokens for call in calls),
        usd=sum(call.usd or 0.0 for call in calls),
    )
    if not await spending.add(conn, run.held, total, upto=number):
        return []
    cron = await crons.get(conn, cron_id, scope=EVERYONE)
    if cron is None or not cron.policy:
        return []
    try:
        if not has_budget(policy_of(cron)):
            return []
        cron = await crons.lock(
            conn, cron_id, scope=EVERYONE
        )  # one after the other: who crosses it is told once
        if cron is None:
            return []
        policy = policy_of(cron)
        since = window_start(policy, cron.timezone, (await crons.clock(conn))[0])
    except Invalid:  # meddled with: it is paused when it is due
        return []
    now = (await spending.spent(conn, [spending.Question(cron_id=cron_id, since=since)]))[cron_id]
    before = Spent(
        tokens=now.tokens - total.tokens,
        usd=now.usd - total.usd,
    )
    reason = used_up(policy, now)
    unpriced = next((call.model for call in calls if call.usd is None), None)
    if policy.budget_usd is not None and unpriced is not None:
        reason = f"budget_usd: no price is known of the model '{unpriced}'; name it under `prices` of langgraph.json"
    if reason is None:
        if (nearly := nearly_used_up(policy, before, now)) is not None:
            telemetry.log().warning(telemetry.CRON_BUDGET, cron_id=str(cron_id), reason=nearly)
            await alerts.tell(conn, cron, Kind.BUDGET_WARNING, nearly)
        return []
    if cron.enabled:
        await alerts.pause(conn, cron, reason)
    return await _stop_others(conn, cron_id, run_id, stops_running=policy.on_budget == "cancel")


async def _stop_others(
    conn: Conn, cron_id: CronId, run_id: RunId, *, stops_running: bool
) -> list[tuple[RunId, ThreadId]]:
    """Stop the other runs of a cron that are in flight; one whose thread somebody holds just now is left to end."""
    others = [
        each
        for each in (await fires.in_flight(conn, [cron_id])).get(cron_id, [])
        if each.run_id != run_id and (stops_running or each.status is RunStatus.PENDING)
    ]
    if not others:
        return []
    held = await firing.take_threads(conn, list({each.thread_id for each in others}))
    for each in others:
        if each.thread_id in held:
            await stops.stop(conn, each.run_id, StopReason.INTERRUPT)
    return [(each.run_id, each.thread_id) for each in others if each.thread_id in held]


async def allowance(conn: Conn, cron_id: CronId) -> Allowance:
    """Give what a run of a cron may still spend: where its policy has it stopped when a budget is used up."""
    cron = await crons.get(conn, cron_id, scope=EVERYONE)
    if cron is None or not cron.policy:
        return Allowance()
    try:
        policy = policy_of(cron)
        if policy.on_budget != "cancel" or not has_budget(policy):
            return Allowance()
        since = window_start(policy, cron.timezone, (await crons.clock(conn))[0])
    except Invalid:
        return Allowance()
    used = (await spending.spent(conn, [spending.Question(cron_id=cron_id, since=since)]))[cron_id]
    return Allowance(
        None if policy.budget_tokens is None else max(0, policy.budget_tokens - used.tokens),
        None if policy.budget_usd is None else max(0.0, policy.budget_usd - used.usd),
    )


async def room_of(conn: Conn, cron: Cron, policy: Policy, ceilings: Ceilings) -> Room:
    """Give how many more runs a cron may have that is to run now, whatever its schedule says."""
    now, _ = await crons.clock(conn)  # what it will use, it uses in the window of now
    asked = [(replace(cron, next_run_date=now), policy)]
    return (await rooms(conn, asked, ceilings, now=now, by_schedule=False)).get(cron.cron_id, UNLIMITED)


async def rooms(
    conn: Conn,
    asked: Sequence[tuple[Cron, Policy]],
    ceilings: Ceilings,
    *,
    now: datetime,
    by_schedule: bool = True,
) -> dict[CronId, Room]:
    """Give how many more runs each of these crons may have; one that is not in it may have any number.

    Only what can be reached is summed up: `by_schedule`, one that has fewer slots a day than the server allows needs
    no count.
    """
    questions: list[spending.Question] = []
    limited: dict[CronId, Policy] = {}
    for cron, policy in asked:
        try:
            is_often = not by_schedule or most_a_day(cron.schedule) > ceilings.runs_per_day
            since = None
            if has_budget(policy) and cron.next_run_date is not None:
                since = window_start(policy, cron.timezone, max(cron.next_run_date, now))
        except Invalid:
            continue  # it is paused when it is due
        if is_often or since is not None or policy.max_runs is not None:
            limited[cron.cron_id] = policy
            questions.append(
                spending.Question(
                    cron_id=cron.cron_id,
                    since=since,
                    counts_runs=policy.max_runs is not None,
                    most=int(min(ceilings.runs_per_day, _MOST)) if is_often else 0,
                )
            )
    if not questions:
        return {}
    found = await spending.spent(conn, questions)
    return {cron_id: room(policy, ceilings, found[cron_id]) for cron_id, policy in limited.items()}
