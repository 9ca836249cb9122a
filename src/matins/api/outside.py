"""What stands between a client and the API: the pages that may call it, and the prefix that it is under."""

from __future__ import annotations

from typing import Final

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from matins.api import body
from matins.api.errors import Refusal
from matins.manifest.http import Cors

EXPOSED: Final = (
    "Content-Location",
    "Location",
    "X-Pagination-Total",
    "X-Pagination-Next",
    "x-request-id",
)
"""The headers that clients in browsers read. Source: langgraph_sdk, @langchain/langgraph-sdk."""

PROBES: Final = frozenset({"/ok", "/ready"})
"""What answers without the prefix, too: a platform that looks whether we live knows nothing of it."""


def open_to(cors: Cors, app: ASGIApp) -> ASGIApp:
    """Let pages of other origins call the application, as far as `cors` says."""
    own = {name.lower() for name in EXPOSED}
    return CORSMiddleware(
        app,
        allow_origins=cors.allow_origins,
        allow_origin_regex=cors.allow_origin_regex,
        allow_methods=cors.allow_methods,
        allow_headers=cors.allow_headers,
        allow_credentials=cors.allow_credentials,
        allow_private_network=True,
        expose_headers=[*EXPOSED, *(name for name in cors.expose_headers if name.lower() not in own)],
        max_age=cors.max_age_s,
    )


class Prefixed:
    """Serves an application under a prefix, and the probes without it too.

    `Location` and `Content-Location` go without the prefix: every client appends them to the address that it was
    given, which has it. Source: langgraph_sdk and @langchain/langgraph-sdk, where they reconnect.
    """

    def __init__(self, app: ASGIApp, prefix: str) -> None:
        self._app = app
        self._prefix = prefix

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request that is under the prefix."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        path: str = scope["path"]
        if path == self._prefix:
            scope = {**scope, "path": f"{path}/"}
        elif not path.startswith(f"{self._prefix}/"):
            if scope["type"] == "http" and path in PROBES:
                await self._app(scope, receive, send)
            elif scope["type"] == "http":
                await body.respond(Refusal(detail="Not Found"), status=404)(scope, receive, send)
            else:
                await send({"type": "websocket.close", "code": 1000, "reason": ""})
            return
        await self._app({**scope, "root_path": scope.get("root_path", "") + self._prefix}, receive, send)
