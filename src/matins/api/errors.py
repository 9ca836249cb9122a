"""Errors -> responses: one table of statuses, and the wall that no exception of a request passes."""

from __future__ import annotations

from typing import Final

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from matins import telemetry
from matins.api.body import TooLarge, respond
from matins.domain import errors
from matins.domain.ids import uuid7
from matins.manifest.http import Headers

STATUS: Final[dict[type[errors.Error], int]] = {
    errors.NotFound: 404,
    errors.Conflict: 409,
    TooLarge: 413,
    errors.BadRequest: 400,
    errors.Invalid: 422,
    errors.Forbidden: 403,
    errors.Unauthenticated: 401,
    errors.Unavailable: 503,
}
"""The status of each kind of refusal; a kind that is not here takes its nearest ancestor's."""

RETRY_SECONDS: Final = 1
"""When to try again after a 503: what is away for longer than a request waits is usually back soon."""


_REQUEST_ID: Final = "matins.request_id"


class Refusal(msgspec.Struct, kw_only=True):
    """The body of every answer that is no success. `code` is stable, `detail` is for people."""

    detail: str
    code: str | msgspec.UnsetType = msgspec.UNSET


def refused(error: errors.Error) -> Response | None:
    """Give the response to a refusal, or None for an error that must not reach a client."""
    for kind in type(error).__mro__:
        if kind in STATUS:
            status = STATUS[kind]
            headers = {"Retry-After": str(RETRY_SECONDS)} if status == 503 else None
            return respond(Refusal(detail=str(error), code=error.code), status=status, headers=headers)
    return None


async def unrouted(_request: Request, error: Exception) -> Response:
    """Answer a path or a method that there is none of."""
    if not isinstance(error, HTTPException):
        raise error
    return respond(Refusal(detail=error.detail), status=error.status_code, headers=error.headers)


class Wall:
    """Middleware: an exception becomes a response, or, when one has begun, a connection that is broken off.

    A reply that is cut short must not look complete: clients reconnect when the last chunk is missing. Also gives
    every response an `x-request-id`, the client's or a new one, which is what the log names, with those of the
    request's headers that are to be `logged`. A wall may stand inside another.
    """

    def __init__(self, app: ASGIApp, *, logged: Headers | None = None) -> None:
        self._app = app
        self._logged = logged or Headers()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, whatever is raised."""
        if scope["type"] != "http":
            try:
                await self._app(scope, receive, send)
            except Exception:
                self._log(scope, _request_id(scope))
                raise  # to the server, which closes the socket
            return
        is_inner = _REQUEST_ID in scope
        request_id: bytes = scope.setdefault(_REQUEST_ID, _request_id(scope))
        has_begun = False

        async def named(message: Message) -> None:
            nonlocal has_begun
            if message["type"] == "http.response.start":
                has_begun = True
                if not is_inner:
                    message["headers"] = [*message.get("headers", ()), (b"x-request-id", request_id)]
            await send(message)

        response: Response | None = None
        try:
            await self._app(scope, receive, named)
        except ClientDisconnect:
            return
        except errors.Error as error:
            response = None if has_begun else refused(error)
            if response is None:
                self._log(scope, request_id)
        except Exception:  # noqa: BLE001 - the wall of a request: a defect of ours is answered and logged, not spread
            self._log(scope, request_id)
        else:
            return
        if not has_begun:
            if response is None:
                response = respond(Refusal(detail="Internal Server Error", code="internal"), status=500)
            await response(scope, receive, named)

    def _log(self, scope: Scope, request_id: bytes) -> None:
        telemetry.log().exception(
            telemetry.REQUEST_FAILED,
            method=scope.get("method", scope["type"]),
            path=scope["path"],
            request_id=request_id.decode("latin-1"),
            **({"headers": headers} if (headers := self._logged.of(scope["headers"])) else {}),
        )


def _request_id(scope: Scope) -> bytes:
    for name, value in scope["headers"]:
        if name == b"x-request-id" and 0 < len(value) <= 128:
            return bytes(value)
    return str(uuid7()).encode()
