"""The routes of the table: one for each path, with all its methods."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.requests import Request
from starlette.routing import Match, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from matins.api.idempotency import Answered
from matins.api.operations import Operation
from matins.api.parts import Handler, Parts


class _Endpoint:
    """All operations of one path."""

    def __init__(self, parts: Parts, handlers: dict[str, Handler]) -> None:
        self._parts = parts
        self._handlers = handlers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        method = scope["method"]
        handler = self._handlers["GET" if method == "HEAD" else method]
        response: ASGIApp
        try:
            response = await handler(Request(scope, receive, send), self._parts)
        except Answered as before:
            response = before.response()
        await response(scope, receive, send)


class _Path(Route):
    """A path and its methods. What an earlier path spells out is no id: there, other methods are refused."""

    def __init__(self, path: str, endpoint: _Endpoint, methods: list[str], earlier: Sequence[Route]) -> None:
        super().__init__(path, endpoint, methods=methods)
        self._earlier = [route for route in earlier if self.path_regex.match(route.path)]

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Say whether it is this path, and whether the method is one of its own."""
        match, child = super().matches(scope)
        if match is not Match.NONE and any(
            route.matches(scope)[0] is not Match.NONE for route in self._earlier
        ):
            return Match.NONE, {}
        return match, child


def routes(parts: Parts, operations: Sequence[Operation]) -> list[Route]:
    """Give the routes of the operations, one a path. Where two paths fit, the first one is taken."""
    paths: dict[str, dict[str, Handler]] = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method] = operation.handler
    found: list[Route] = []
    for path, handlers in paths.items():
        found.append(_Path(path, _Endpoint(parts, handlers), list(handlers), earlier=found))
    return found
