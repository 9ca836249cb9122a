"""The user's own application, `http.app`: imported here, in the serving process, and put around the API.

The only user code beside auth that runs in this process. Its middleware sees every request, ours too. Its routes come
before ours, but for one that takes every path: that comes last, so that a front end mounted at / hides nothing but /.
An application that is no Starlette (and so no FastAPI) does not tell its routes: it gets what is not ours.
"""

from __future__ import annotations

import inspect
import sys
import traceback
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import BaseRoute, Match, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from matins import telemetry
from matins.api.lifespan import AppFailed, Lifespan
from matins.manifest import Manifest, read
from matins.manifest.reading import ManifestError
from matins.manifest.variables import described, make_importable, module_of

_DESCRIPTIONS: Final = ("/openapi.json", "/docs")


class Custom:
    """An application of the user's. `lifespan` has to run before it is served."""

    def __init__(self, app: ASGIApp, *, key: str) -> None:
        self.app: Final = app
        self.lifespan: Final = Lifespan(app, key=key, must=isinstance(app, Starlette))
        self.ours: Starlette | None = None
        if isinstance(app, Starlette):
            # The innermost, so that all the others see what is ours, too; now, because its start builds them.
            fork = Middleware(_Fork, self, router=app.router, describes=hasattr(app, "openapi"))
            app.user_middleware.append(fork)

    @property
    def has_cors(self) -> bool:
        """Whether it says itself which pages may call."""
        return isinstance(self.app, Starlette) and any(
            isinstance(each.cls, type) and issubclass(each.cls, CORSMiddleware)
            for each in self.app.user_middleware
        )

    def openapi(self) -> dict[str, Any]:
        """Give its own document, as FastAPI writes one; empty when there is none."""
        describe = getattr(self.app, "openapi", None)
        if not callable(describe):
            return {}
        try:
            document = describe()
        except Exception as raised:  # noqa: BLE001 - a wall: it is the user's code
            telemetry.log().warning(
                telemetry.HTTP_APP_FAILED, message=f"no openapi.json: {described(raised)}"
            )
            return {}
        return document if isinstance(document, dict) else {}

    def around(self, ours: Starlette) -> ASGIApp:
        """Give what answers with its routes and with ours."""
        self.ours = ours
        served = self.app
        if not isinstance(self.app, Starlette):
            served = _Fork(self.app, self)
        elif not {404, HTTPException} & self.app.exception_handlers.keys():
            self.app.router.default = ours  # what nobody serves is answered as the contract says

        async def stateful(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] in ("http", "websocket"):
                scope = {**scope, "state": {**self.lifespan.state, **scope.get("state", {})}}
            await served(scope, receive, send)

        return stateful


class _Fork:
    """Gives a request to our routes or to the user's. `describes`: his application has a document, merged into ours."""

    def __init__(
        self, app: ASGIApp, custom: Custom, *, router: Router | None = None, describes: bool = False
    ) -> None:
        self._theirs = app
        self._custom = custom
        self._router = router
        self._describes = describes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        ours = self._custom.ours
        if scope["type"] == "http" and ours is not None and self._is_of(ours, scope):
            await ours(dict(scope), receive, send)
        else:
            await self._theirs(scope, receive, send)

    def _is_of(self, api: Starlette, scope: Scope) -> bool:
        ours = _match(api.routes, scope)
        if ours is Match.NONE or self._router is None:
            return ours is not Match.NONE
        root = scope.get("root_path", "")
        path = scope["path"].removeprefix(root)
        if self._describes and path in _DESCRIPTIONS:
            return True
        particular = self._router.routes
        if path != "/":  # there, a front end's first page is what people look for
            anything = {**scope, "path": f"{root}/{uuid4()}/{uuid4()}/{uuid4()}"}
            particular = [route for route in particular if _match([route], anything) is not Match.FULL]
        theirs = _match(particular, scope)
        return theirs is Match.NONE or (theirs is Match.PARTIAL and ours is Match.FULL)


def _match(routes: Iterable[BaseRoute], scope: Scope) -> Match:
    """Give how well the best of the routes fits."""
    return max((route.matches(dict(scope))[0] for route in routes), default=Match.NONE, key=lambda m: m.value)


def load(manifest: Manifest) -> Custom | None:
    """Import the application that langgraph.json names; None when it names none.

    Raises: AppFailed.
    """
    named = manifest.http.app
    if named is None:
        return None
    key = f"{manifest.path}: http.app"
    make_importable(manifest.dependencies)
    try:
        module = module_of(named, (*manifest.dependencies, manifest.path.parent))
    except KeyboardInterrupt:
        raise
    except BaseException as raised:  # a wall: importing runs the user's code, which may even call sys.exit()
        if isinstance(raised, ModuleNotFoundError) and named.module and raised.name == named.module:
            raise AppFailed(f"{key}: no module named {named.module!r}") from raised
        trace = "".join(traceback.format_exception(raised))
        telemetry.log().error(telemetry.HTTP_APP_FAILED, message=described(raised), trace=trace)
        raise AppFailed(f"{key}: {described(raised)}") from raised
    where = named.path or named.module
    if not hasattr(module, named.attribute):
        raise AppFailed(f"{key}: {where} has no variable {named.attribute!r}")
    app = getattr(module, named.attribute)
    if isinstance(app, type) or not _takes_a_request(app):
        raise AppFailed(
            f"{key}: {named.attribute!r} in {where} is {type(app).__name__}, not an ASGI application"
        )
    return Custom(app, key=key)


def _takes_a_request(app: Any) -> bool:
    try:
        inspect.signature(app).bind("scope", "receive", "send")
    except (TypeError, ValueError):
        return False
    return True


def say_what_is_stale(manifest: Manifest, changed: Collection[Path]) -> None:
    """Say when a change needs a new serving process: of a module that this one has imported, or of its section."""
    loaded = {getattr(module, "__file__", None) for module in list(sys.modules.values())}
    reasons = [f"{path} is part of http.app" for path in changed if str(path) in loaded]
    if manifest.path in changed:
        try:
            if read(manifest.path).http != manifest.http:
                reasons.append(f"{manifest.path}: http has changed")
        except ManifestError:
            pass  # said by the reload
    for reason in reasons:
        telemetry.log().warning(
            telemetry.HTTP_APP_STALE, message=f"{reason}: restart matins for it to take effect"
        )
