"""The Idempotency-Key header: what a request creates is created once, however often the request comes.

The key is claimed in the transaction that creates and the answer is kept in it: either both are there or neither is. A
refusal is not kept, so the same request may succeed later.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from typing import Final, TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from matins.api import body
from matins.domain.access import Scope
from matins.domain.errors import Invalid
from matins.domain.ids import RunId, ThreadId
from matins.storage import idempotency
from matins.storage.pool import Around, Conn, Pool, Work

T = TypeVar("T")
Made = TypeVar("Made")

_VISIBLE: Final = re.compile(r"[\x21-\x7e]{1,255}")


class _Response(msgspec.Struct):
    """An answer as it is kept; its status is always 200."""

    body: msgspec.Raw
    content_location: str | None = None


class Created(msgspec.Struct):
    """What is kept of a run whose answer is its stream or its result: where to find it."""

    run_id: RunId
    thread_id: ThreadId


class Answered(Exception):
    """The same request was answered before; nothing was done this time."""

    def __init__(self, kept: idempotency.Kept) -> None:
        super().__init__()
        self._response: Final = msgspec.json.decode(kept.response, type=_Response)
        self.reply: Final = kept.reply
        """The result of the run that was created then, when the run is gone."""

    def response(self) -> Response:
        """Give the answer again."""
        response = body.respond_raw(bytes(self._response.body))
        if self._response.content_location is not None:
            response.headers["content-location"] = self._response.content_location
        return response

    @property
    def created(self) -> Created:
        """The run that was created then."""
        return msgspec.json.decode(self._response.body, type=Created)


class Once:
    """What a request does once, if it comes with a key. `scope` is the caller's, to whom the key belongs."""

    def __init__(self, key: idempotency.Key | None, scope: Scope) -> None:
        self._key: Final = key
        self.scope: Final = scope

    def around(
        self, answer: Callable[[Made], Response], *, run_id: RunId | None = None
    ) -> Around[Made] | None:
        """Give what claims the key before a transaction's work, and after it keeps the answer; None without a key.

        `run_id` names the run that is created, when its result is what the client waits for.
        Added to a transaction, it raises Answered or IdempotencyKeyReused. A COMMIT whose reply was lost also looks
        like an answer that was given before, and so it is.
        """
        key = self._key
        if key is None:
            return None

        def keeping(work: Work[Made]) -> Work[Made]:
            async def once(conn: Conn) -> Made:
                kept = await idempotency.claim(conn, key, scope=self.scope)
                if kept is not None:
                    raise Answered(kept)
                made = await work(conn)
                response = answer(made)
                kept_as = _Response(msgspec.Raw(response.body), response.headers.get("content-location"))
                encoded = msgspec.json.encode(kept_as)
                await idempotency.update(conn, key, encoded, scope=self.scope, run_id=run_id)
                return made

            return once

        return keeping

    async def run(self, pool: Pool, work: Work[Made], answer: Callable[[Made], Response]) -> Response:
        """Do the work in a transaction and answer with what it made.

        Raises: Answered, IdempotencyKeyReused; what the work raises.
        """
        around = self.around(answer)
        return answer(await pool.run(around(work) if around else work))


async def read(request: Request, shape: type[T], scope: Scope) -> tuple[T, Once]:
    """Give the request's JSON in that shape, and what makes it happen once.

    Raises: Invalid for a key that is none; what body.read raises.
    """
    raw = await body.read_raw(request)
    keys = request.headers.getlist("idempotency-key")
    if not keys:
        return body.decode(raw, shape), Once(None, scope)
    if len(keys) > 1 or not _VISIBLE.fullmatch(keys[0]):
        raise Invalid("Idempotency-Key must be one text of 1 to 255 visible ASCII characters, without spaces")
    digest = hashlib.sha256(f"{request.method} {request.url.path}\n".encode() + raw).digest()
    return body.decode(raw, shape), Once(idempotency.Key(keys[0], digest), scope)
