"""Shapes of crons as code."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

import msgspec

from matins.engine.declarations import Change


class CronSync(msgspec.Struct, kw_only=True):
    """Whether only to say what would be done."""

    dry_run: bool = False


class CronDeclared(msgspec.Struct, kw_only=True):
    """What was done about a key that the project declares, or once declared.

    `action`: `created`, `changed`, `paused` (it is declared no longer), `resumed` (it is declared again), `unchanged`,
    `drifted` (it was edited since, in `fields`, and is left so) or `invalid`, with the `reason`.
    """

    key: str
    action: str
    cron_id: UUID | None
    fields: list[str]
    reason: str | None


class CronsSynced(msgspec.Struct, kw_only=True):
    """What was done about the crons that the project declares, or would be; by key."""

    dry_run: bool
    changes: list[CronDeclared]


def synced(changes: Sequence[Change], *, dry_run: bool) -> CronsSynced:
    """Give what was done as clients see it."""
    return CronsSynced(
        dry_run=dry_run,
        changes=[
            CronDeclared(
                key=each.key,
                action=each.action.value,
                cron_id=each.cron_id,
                fields=each.fields,
                reason=each.reason,
            )
            for each in changes
        ],
    )
