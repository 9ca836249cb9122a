"""Read crons that will be due in a moment, and work out what firing them will write: without lock or write.

So at the instant little is left to do. What was worked out is kept from look to look, for as long as the cron and its
assistant are what they were: a herd that is due at the same instant is worked out before it, bit by bit.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from typing import Final

import anyio.lowlevel

from matins.domain.access import EVERYONE
from matins.domain.assistants import Assistant
from matins.domain.budgets import UNLIMITED, Ceilings
from matins.domain.crons import LATE, Cron
from matins.domain.errors import Invalid, NotFound
from matins.domain.ids import AssistantId, CronId
from matins.engine import assistants, spending
from matins.engine.firing import Prepared, prepare
from matins.engine.looks import LOOK_SECONDS
from matins.storage import crons, fires
from matins.storage.pool import Conn, Pool

AHEAD: Final = timedelta(seconds=5)

BEHIND: Final = 20
"""How many may be so late that their slots are missed: a long downtime must not hold up what is due now."""

MOST: Final = 10_000
"""How many are read ahead at most."""

OCTETS: Final = 32 * 1024 * 1024
"""And how large their payloads may be together."""

_BREATH: Final = 20  # how many are worked out before others have their turn


class ReadingAhead:
    """Reads crons that are due, or will be within AHEAD. `now` gives the database's time as far as is known here."""

    def __init__(
        self, *, pool: Pool, graphs: assistants.Graphs, ceilings: Ceilings, now: Callable[[], datetime]
    ) -> None:
        self._pool: Final = pool
        self._graphs: Final = graphs
        self._ceilings: Final = ceilings
        self._now: Final = now
        self._kept: dict[CronId, Prepared] = {}

    async def read(self, *, chunk: int) -> tuple[list[Prepared], bool]:
        """Give crons in the order in which they are due, those that are long overdue first; and whether these are all.

        So many are read at a time, until all are there, or the first of them is due, or a look has lasted long enough.
        """
        began, now = time.monotonic(), self._now()

        async def look(conn: Conn) -> list[crons.Due]:
            behind = await crons.due(conn, until=now - LATE, limit=min(BEHIND, chunk))
            return behind + await crons.due(conn, after=now - LATE, until=now + AHEAD, limit=MOST)

        wanted = await self._pool.run(look, transaction=False)
        kept = await self._still_true(wanted)
        found = dict(kept)
        missing = [each.cron_id for each in wanted if each.cron_id not in kept]
        octets = sum(len(each.cron.payload) for each in kept.values())
        while missing and octets <= OCTETS:
            part, missing = missing[:chunk], missing[chunk:]
            prepared, lasting = await self._pool.run(partial(self._prepare, part), transaction=False)
            found |= prepared
            kept |= lasting
            octets += sum(len(each.cron.payload) for each in prepared.values())
            is_due = wanted[0].due_at <= self._now()
            if missing and (is_due or time.monotonic() - began > LOOK_SECONDS):
                break
        self._kept = kept
        in_order = [
            found[each.cron_id]
            for each in wanted
            if each.cron_id in found and _is_same(found[each.cron_id].cron, each)
        ]
        return in_order, not missing or octets > OCTETS

    def forget(self) -> None:
        """Keep nothing: no cron will be due for a while."""
        self._kept = {}

    async def _still_true(self, wanted: Sequence[crons.Due]) -> dict[CronId, Prepared]:
        """Give those of what is kept that would be worked out the same way again."""
        same = {
            each.cron_id: kept
            for each in wanted
            if (kept := self._kept.get(each.cron_id)) is not None and _is_same(kept.cron, each)
        }
        if not same:
            return same
        ids = {kept.cron.assistant_id for kept in same.values()}
        found = await self._pool.run(lambda conn: self._assistants(conn, ids), transaction=False)
        return {
            cron_id: kept for cron_id, kept in same.items() if kept.assistant == found[kept.cron.assistant_id]
        }

    async def _assistants(self, conn: Conn, ids: set[AssistantId]) -> dict[AssistantId, Assistant | str]:
        """Give each assistant, once for all crons that share it, or the reason why there is none."""
        found: dict[AssistantId, Assistant | str] = {}
        for assistant_id in ids:
            try:
                found[assistant_id] = await assistants.resolve(
                    conn, str(assistant_id), graphs=self._graphs, scope=EVERYONE
                )
            except (NotFound, Invalid):
                found[assistant_id] = f"its assistant {assistant_id} does not exist"
        return found

    async def _prepare(
        self, ids: list[CronId], conn: Conn
    ) -> tuple[dict[CronId, Prepared], dict[CronId, Prepared]]:
        """Find what each cron's slots need: its assistant, its payload, what it may spend, its last slot.

        And which of them hang on nothing but the cron and its assistant.
        """
        ahead = await crons.get_many(conn, ids)
        found = await self._assistants(conn, {cron.assistant_id for cron in ahead})
        prepared: list[Prepared] = []
        for at in range(0, len(ahead), _BREATH):
            prepared += [prepare(cron, found[cron.assistant_id]) for cron in ahead[at : at + _BREATH]]
            await anyio.lowlevel.checkpoint()
        sound = [each for each in prepared if each.trouble is None]
        left = await spending.rooms(
            conn, [(each.cron, each.policy) for each in sound], self._ceilings, now=self._now()
        )
        spaced = {each.cron.cron_id for each in prepared if each.policy.min_interval_seconds}
        last = await fires.newest_fired(conn, list(spaced)) if spaced else {}
        lasting = {
            cron_id: each
            for each in sound
            if (cron_id := each.cron.cron_id) not in left and cron_id not in spaced
        }
        limited = {
            cron_id: replace(each, room=left.get(cron_id, UNLIMITED), last_fired=last.get(cron_id))
            for each in prepared
            if (cron_id := each.cron.cron_id) not in lasting
        }
        return lasting | limited, lasting


def _is_same(cron: Cron, due: crons.Due) -> bool:
    """Whether a cron is still as it was read."""
    return (cron.revision, cron.next_run_date) == (due.revision, due.next_run_date)
