"""Crons as code: what the project declares is made so, at the start, when its code was reloaded, and when asked.

    declared            there is a cron of that key          there is none
    as it was last      left alone; drifted, where the       created
                        cron was edited meanwhile
    otherwise           what differs is changed              created
    no longer           paused, its history kept; resumed when it is declared again

Each key is a transaction of its own, one node at a time, so that fifty starts make one cron and a declaration that
cannot be holds up no other.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final
from uuid import UUID

import msgspec
from anyio.abc import TaskStatus

from matins import telemetry
from matins.domain.access import EVERYONE
from matins.domain.crons import Cron
from matins.domain.declarations import (
    NO_LONGER,
    Action,
    Declaration,
    Findings,
    Found,
    Normal,
    differing,
    normal_of,
)
from matins.domain.errors import Error, NotFound, Unavailable
from matins.domain.ids import AssistantId, CronId, ThreadId
from matins.engine import assistants, conditions, contexts
from matins.engine import crons as engine
from matins.engine.priorities import Priorities
from matins.engine.streams.wake import Wake
from matins.engine.webhooks.guard import Guard
from matins.storage import crons, threads
from matins.storage.pool import Conn, Pool
from matins.workers.pool import Pool as Workers

PATIENCE_SECONDS: Final = 60.0
"""How long the project's code may take to say what it declares."""

AGAIN_SECONDS: Final = 1.0
"""The pause before it is tried again when the database or the workers were away."""

_PAYLOAD: Final = ("input", "config", "context", "webhook")


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What was done about a key, and the fields that it is about. `key` is a place where no key could be read."""

    key: str
    action: Action
    cron_id: CronId | None = None
    fields: list[str] = field(default_factory=list)
    reason: str | None = None


class Declarations:
    """Makes crons what they are declared to be.

    `wake` is raised when other code is served; `on_changed` is told when dates may have changed.
    """

    def __init__(
        self,
        *,
        pool: Pool,
        workers: Workers,
        webhooks: Guard,
        priorities: Priorities,
        wake: Wake,
        on_changed: Callable[[], None],
    ) -> None:
        self._pool: Final = pool
        self._workers: Final = workers
        self._webhooks: Final = webhooks
        self._priorities: Final = priorities
        self._wake: Final = wake
        self._on_changed: Final = on_changed

    async def run(self, *, task_status: TaskStatus[None]) -> None:
        """Sync whenever the wake is raised, until cancelled; nothing waits for it."""
        task_status.started()
        pause_s = math.inf
        while True:
            await self._wake.wait(pause_s)
            pause_s = math.inf
            try:
                for change in await self.sync():
                    _log(change)
            except Unavailable as away:
                telemetry.log().warning(telemetry.DATABASE_AWAY, error=str(away))
                pause_s = AGAIN_SECONDS
            except Exception:  # noqa: BLE001 - the wall of a loop iteration: the next code may do better
                telemetry.log().exception(telemetry.LOOP_FAILED)

    async def sync(self, *, dry_run: bool = False) -> list[Change]:
        """Make the crons what is declared, or only say what would be done; by key.

        While a file cannot be read nothing is paused: what it declares is not known.
        Raises: Unavailable.
        """
        answer = await self._workers.call("crons", b"{}", timeout_s=PATIENCE_SECONDS)
        findings = msgspec.json.decode(answer, type=Findings)
        changes = [await self._declare(found, dry_run=dry_run) for found in findings.crons]
        if not findings.unreadable:
            changes += await self._pause_others({found.key for found in findings.crons}, dry_run=dry_run)
        changes += [
            Change(key=each.place, action=Action.INVALID, reason=each.trouble) for each in findings.unreadable
        ]
        if not dry_run:
            self._on_changed()
        return sorted(changes, key=lambda change: change.key)

    async def _declare(self, found: Found, *, dry_run: bool) -> Change:
        try:
            declaration = found.read()
            request = await self._prepared(found.key, declaration)
            return await self._try(
                lambda conn: self._apply(conn, found.key, declaration, request), dry_run=dry_run
            )
        except Unavailable:
            raise
        except Error as unfit:
            cron = await self._pool.run(lambda conn: crons.get_by_key(conn, found.key), transaction=False)
            return Change(
                key=found.key,
                action=Action.INVALID,
                cron_id=cron.cron_id if cron else None,
                reason=str(unfit),
            )

    async def _prepared(self, key: str, declaration: Declaration) -> engine.CronRequest:
        """Give what would create the cron. What takes a while is asked before the transaction, where it is needed."""

        async def look(conn: Conn) -> tuple[Cron | None, Normal]:
            return await crons.get_by_key(conn, key), await self._normal(conn, declaration)

        cron, wanted = await self._pool.run(look)
        request = engine.CronRequest(
            assistant_id=declaration.assistant,
            schedule=declaration.schedule,
            timezone=declaration.timezone,
            end_time=declaration.end_time,
            enabled=declaration.enabled,
            on_run_completed=declaration.on_run_completed,
            metadata=declaration.metadata,
            policy=declaration.policy,
            payload={name: wanted[name] for name in _PAYLOAD if name == "input" or wanted[name]},
            key=key,
            declared=msgspec.json.encode(wanted),
        )
        if _declared(cron) == wanted:
            return request
        await self._webhooks.check([declaration.webhook])
        await conditions.check(self._workers, declaration.policy)
        if declaration.thread_id is not None:
            named, policy = declaration.assistant, declaration.policy
            await contexts.check(self._pool, self._workers, policy, named, scope=EVERYONE)
        if cron is not None:
            return request
        priority = await self._priorities.assign(
            declaration.assistant,
            thread_id=_thread(declaration),
            metadata=declaration.metadata,
            scope=EVERYONE,
            cron_id=request.cron_id,
        )
        return replace(request, priority=priority)

    async def _normal(self, conn: Conn, declaration: Declaration) -> Normal:
        named = await assistants.resolve(conn, declaration.assistant, graphs=self._workers, scope=EVERYONE)
        return declaration.normal(named.assistant_id)

    async def _apply(
        self, conn: Conn, key: str, declaration: Declaration, request: engine.CronRequest
    ) -> Change:
        await crons.lock_keys(conn)
        cron, wanted = await crons.get_by_key(conn, key), await self._normal(conn, declaration)
        if cron is None:
            made = await engine.create(
                conn, request, thread_id=_thread(declaration), graphs=self._workers, scope=EVERYONE
            )
            return Change(key=key, action=Action.CREATED, cron_id=made.cron_id)
        was = _declared(cron)
        if was == wanted:
            fields = differing(normal_of(cron), wanted)
            action = Action.DRIFTED if fields else Action.UNCHANGED
            reason = cron.paused_reason if "enabled" in fields else None
            return Change(key=key, action=action, cron_id=cron.cron_id, fields=fields, reason=reason)
        thread_id = _thread(declaration)
        if thread_id is not None and await threads.lock(conn, thread_id, scope=EVERYONE) is None:
            raise NotFound(f"Thread with ID '{thread_id}' not found.")
        before = normal_of(cron) if was is None else was
        fields = differing(before, wanted)
        await engine.update(conn, cron.cron_id, _change(before, wanted, fields), scope=EVERYONE)
        await crons.declare(conn, cron.cron_id, request.declared)
        action = Action.RESUMED if was is None else Action.CHANGED
        return Change(key=key, action=action, cron_id=cron.cron_id, fields=fields)

    async def _pause_others(self, keys: set[str], *, dry_run: bool) -> list[Change]:
        """Pause the crons that are declared no longer; those that were paused so before are left as they are."""
        found = await self._pool.run(crons.declared, transaction=False)
        return [
            await self._try(partial(_pause, key=cron.key), dry_run=dry_run)
            for cron in found
            if cron.key is not None and cron.key not in keys
        ]

    async def _try(self, work: Callable[[Conn], Awaitable[Change]], *, dry_run: bool) -> Change:
        """Do it in a transaction; a dry run does the same, and takes it back."""

        async def tried(conn: Conn) -> Change:
            change = await work(conn)
            if dry_run:
                raise _OnlyTried(change)
            return change

        try:
            return await self._pool.run(tried)
        except _OnlyTried as only:
            is_new = only.change.action is Action.CREATED
            return replace(only.change, cron_id=None) if is_new else only.change


class _OnlyTried(Exception):
    """A dry run has come to its end: what it would have done."""

    def __init__(self, change: Change) -> None:
        super().__init__()
        self.change = change


async def _pause(conn: Conn, *, key: str) -> Change:
    await crons.lock_keys(conn)
    cron = await crons.get_by_key(conn, key)
    if cron is None or cron.declared is None:  # another node was here
        return Change(key=key, action=Action.UNCHANGED, cron_id=cron.cron_id if cron else None)
    await engine.pause(conn, cron.cron_id, NO_LONGER, scope=EVERYONE)
    await crons.declare(conn, cron.cron_id, None)
    return Change(key=key, action=Action.PAUSED, cron_id=cron.cron_id, fields=["enabled"], reason=NO_LONGER)


def _change(before: Normal, wanted: Normal, fields: list[str]) -> engine.CronChange:
    """Give what changes a cron in these fields, and in those of its policy and metadata that differ, alone."""
    new = {name: wanted[name] for name in fields}
    metadata, policy = (
        _parts(before[name], wanted[name] if name in new else before[name]) for name in ("metadata", "policy")
    )
    return engine.CronChange(
        assistant_id=AssistantId(UUID(new["assistant_id"])) if "assistant_id" in new else None,
        thread_id=(ThreadId(UUID(new["thread_id"])) if new["thread_id"] else None)
        if "thread_id" in new
        else msgspec.UNSET,
        schedule=new.get("schedule"),
        timezone=new.get("timezone"),
        clears_timezone="timezone" in new and new["timezone"] is None,
        end_time=new.get("end_time"),
        clears_end_time="end_time" in new and new["end_time"] is None,
        enabled=new.get("enabled"),
        on_run_completed=new.get("on_run_completed"),
        metadata={name: value for name, value in metadata.items() if value is not msgspec.UNSET},
        drops_metadata=[name for name, value in metadata.items() if value is msgspec.UNSET],
        policy={name: None if value is msgspec.UNSET else value for name, value in policy.items()},
        payload={name: new[name] for name in _PAYLOAD if name in new},
    )


def _parts(before: Normal, wanted: Normal) -> dict[str, object]:
    """Give the entries in which two objects differ, as they are wanted; UNSET for those that are not."""
    names = dict.fromkeys([*before, *wanted])
    return {
        name: wanted.get(name, msgspec.UNSET)
        for name in names
        if name not in before or name not in wanted or before[name] != wanted[name]
    }


def _declared(cron: Cron | None) -> Normal | None:
    return None if cron is None or cron.declared is None else msgspec.json.decode(cron.declared)


def _thread(declaration: Declaration) -> ThreadId | None:
    return ThreadId(declaration.thread_id) if declaration.thread_id else None


def _log(change: Change) -> None:
    said = {
        "key": change.key,
        "action": change.action.value,
        "fields": change.fields,
        "reason": change.reason,
    }
    if change.action in (Action.DRIFTED, Action.INVALID):
        telemetry.log().warning(telemetry.CRON_DECLARED, **said)
    elif change.action is not Action.UNCHANGED:
        telemetry.log().info(telemetry.CRON_DECLARED, **said)
