"""Idempotency keys: claim one in the transaction that creates what it stands for, and keep the answer with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from matins.domain.access import Scope
from matins.domain.errors import IdempotencyKeyReused, Unavailable
from matins.domain.ids import RunId
from matins.storage import sql
from matins.storage.pool import Conn

RETENTION_SECONDS: Final = 24 * 3600.0
"""How long a key is good for; after that it is as if it was never used."""


@dataclass(frozen=True, slots=True)
class Key:
    """A client's key, and a digest of the request that it came with."""

    key: str
    request: bytes


@dataclass(frozen=True, slots=True)
class Kept:
    """What a request was answered; `reply` is the result of the run that it created, once the run is gone."""

    response: bytes
    reply: bytes | None


async def claim(conn: Conn, key: Key, *, scope: Scope) -> Kept | None:
    """Take the key for this transaction; when it was used before, give what that request was answered.

    A request with the same key that is under way is waited for.
    Raises: IdempotencyKeyReused when that was another request.
    """
    queries, owner = sql.load("idempotency"), scope.mints_as
    if await conn.fetchrow(queries["claim_key"].text, owner, key.key, key.request, RETENTION_SECONDS):
        return None
    taken = await conn.fetchrow(queries["get_key"].text, owner, key.key)
    if taken is None or taken["response"] is None:
        message = "The idempotency key was forgotten just now."
        raise Unavailable(message)  # and the transaction is tried again
    if taken["request"] != key.request:
        raise IdempotencyKeyReused
    return Kept(taken["response"], taken["reply"])


async def update(conn: Conn, key: Key, response: bytes, *, scope: Scope, run_id: RunId | None = None) -> None:
    """Keep what the request is answered; `run_id` names the run whose result is the answer."""
    await conn.execute(sql.load("idempotency")["update_key"].text, scope.mints_as, key.key, response, run_id)


async def update_reply(conn: Conn, run_id: RunId, reply: bytes) -> None:
    """Keep the result of a run that goes with its thread."""
    await conn.execute(sql.load("idempotency")["update_reply"].text, run_id, reply)


async def trim(conn: Conn, *, limit: int) -> int:
    """Forget keys past their retention, at most `limit` of them, and give how many that were."""
    return len(await conn.fetch(sql.load("idempotency")["trim_keys"].text, RETENTION_SECONDS, limit))
