"""Budget: how much a cron may still run and spend, as a sum over its ledger. No clock is asked here.

A limit is the cron's own, by its policy, or a ceiling of the server. One that is reached stops the cron at that slot
and pauses it, with the reason.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from matins.domain.policies import Policy
from matins.domain.schedules import zone_named

DAY: Final = timedelta(hours=24)

WARNED_AT: Final = 0.8
"""The part of a budget that is told of when it is used up."""

_IN_WORDS: Final = {"day": "today", "month": "this month", "rolling": "in the last 24 hours"}


@dataclass(frozen=True, slots=True)
class Ceilings:
    """What the server allows, whatever a policy says.

    `runs_per_day`: how many runs of a cron in any 24 hours. `crons_per_user`: how many crons that are on, of one who
    has proved who they are.
    """

    runs_per_day: float = 1500
    crons_per_user: float = 100


DEFAULT_CEILINGS: Final = Ceilings()


@dataclass(frozen=True, slots=True)
class Spent:
    """What a cron's ledger says: runs in the last 24 hours, runs ever (if asked), and what its window has used."""

    runs_of_day: int = 0
    runs: int = 0
    tokens: int = 0
    usd: float = 0.0


@dataclass(frozen=True, slots=True)
class Room:
    """How many more runs there may be; `reason` says what is used up then.

    `is_final`: for good, so that the last run is known to be the last. `is_ceiling`: it is the server that allows no
    more, for a while.
    """

    runs: float = math.inf
    reason: str = ""
    is_final: bool = False
    is_ceiling: bool = False


UNLIMITED: Final = Room()


def window_start(policy: Policy, timezone: str | None, at: datetime) -> datetime:
    """Give when the window began that an instant is in: `day` and `month` are those of the cron's place.

    Raises: InvalidTimezone.
    """
    if policy.budget_window == "rolling":
        return at - DAY
    local = at.astimezone(zone_named(timezone or "UTC"))
    first = local.replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
    return (first.replace(day=1) if policy.budget_window == "month" else first).astimezone(UTC)


def has_budget(policy: Policy) -> bool:
    """Whether tokens or dollars are limited."""
    return policy.budget_tokens is not None or policy.budget_usd is not None


def room(policy: Policy, ceilings: Ceilings, spent: Spent) -> Room:
    """Give how many more runs the limits leave."""
    if (over := used_up(policy, spent)) is not None:
        return Room(0, over)
    left = UNLIMITED
    if policy.max_runs is not None:
        made = f"max_runs: {policy.max_runs} of {policy.max_runs} were made"
        # With a condition the last run may turn out to be none.
        left = Room(max(0, policy.max_runs - spent.runs), made, is_final=policy.condition is None)
    under = ceilings.runs_per_day - spent.runs_of_day
    if under < left.runs:
        most = f"{ceilings.runs_per_day:,} runs in 24 hours, the most that this server allows a cron"
        return Room(max(0, under), f"{most} (MATINS_CRON_RUNS_PER_DAY)", is_ceiling=True)
    return left


def used_up(policy: Policy, spent: Spent) -> str | None:
    """Say which budget is used up; None when none is."""
    when = _IN_WORDS[policy.budget_window]
    for name, limit, used in _budgets(policy, spent):
        if used >= limit:
            return f"{name}: {_shown(name, used)} of {_shown(name, limit)} used {when}"
    return None


def nearly_used_up(policy: Policy, before: Spent, now: Spent) -> str | None:
    """Say which budget has just come to WARNED_AT; None when none has."""
    when = _IN_WORDS[policy.budget_window]
    for (name, limit, was), (_, _, used) in zip(_budgets(policy, before), _budgets(policy, now), strict=True):
        if was < WARNED_AT * limit <= used:
            return f"{name}: {_shown(name, used)} of {_shown(name, limit)} used {when}"
    return None


def _budgets(policy: Policy, spent: Spent) -> Iterator[tuple[str, float, float]]:
    if policy.budget_tokens is not None:
        yield "budget_tokens", policy.budget_tokens, spent.tokens
    if policy.budget_usd is not None:
        yield "budget_usd", policy.budget_usd, spent.usd


def _shown(name: str, amount: float) -> str:
    return f"{amount:,}" if name == "budget_tokens" else f"${amount:,.4f}"
