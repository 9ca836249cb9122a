"""Dates of a cron: which slot follows an instant, and when it fires. No clock is asked here."""

from __future__ import annotations

from datetime import datetime, timedelta
from hashlib import blake2b
from typing import Final

from matins.domain.crons import Cron, Following
from matins.domain.policies import Policy
from matins.domain.schedules import is_once, next_after

DONE: Final = "done: it was to fire once"
"""Why a cron is off that had its only slot."""


def after(cron: Cron, instant: datetime) -> datetime | None:
    """Give the first slot after an instant, None where none follows. Asks for no end.

    Raises: InvalidSchedule, InvalidTimezone.
    """
    return next_after(cron.schedule, cron.timezone or "UTC", instant)


def due(cron: Cron, policy: Policy, slot: datetime) -> datetime:
    """Give when a slot fires: with jitter a while later, always the same of a cron, and before its next slot.

    Raises: InvalidSchedule, InvalidTimezone.
    """
    if not policy.jitter_seconds:
        return slot
    next_slot, most = after(cron, slot), timedelta(seconds=policy.jitter_seconds)
    return slot + _fraction(cron) * (most if next_slot is None else min(most, next_slot - slot))


def following(cron: Cron, policy: Policy, slot: datetime | None) -> Following:
    """Give what comes after slots that are over, of which `slot` is the next, if there is one.

    Raises: InvalidSchedule, InvalidTimezone.
    """
    if slot is None:
        return Following(None, None, is_done=is_once(cron.schedule))
    return Following(slot, due(cron, policy, slot))


def _fraction(cron: Cron) -> float:
    """Give a number from 0 to below 1 that is the cron's own."""
    return int.from_bytes(blake2b(cron.cron_id.bytes, digest_size=6).digest()) / 2**48
