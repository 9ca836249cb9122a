"""The private way in: runs of this node call the API as themselves, over a Unix socket that nobody else can reach."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from starlette.types import ASGIApp, Receive, Scope, Send

from matins.api.errors import refused
from matins.domain.errors import Unauthenticated
from matins.domain.ids import NodeId
from matins.engine.callers import Caller, Callers

TOKEN: Final = b"x-matins-run"
"""The header that names the attempt."""

_CALLER: Final = "matins.caller"
_LONGEST: Final = 100  # octets of a socket's path, of 104 on macOS and 108 on Linux


class Inside:
    """Middleware of the private socket: an attempt that is under way comes in as itself, nobody else at all."""

    def __init__(self, app: ASGIApp, callers: Callers) -> None:
        self._app: Final = app
        self._callers: Final = callers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request of a run's; the token goes no further than here."""
        headers = scope["headers"]
        tokens = [value for name, value in headers if name == TOKEN]
        caller = self._callers.find(tokens[0].decode("latin-1")) if len(tokens) == 1 else None
        if caller is None:
            response = refused(Unauthenticated("No run that is under way here calls with this token."))
            if response is not None:
                await response(scope, receive, send)
            return
        scope[_CALLER] = caller
        scope["headers"] = [(name, value) for name, value in headers if name != TOKEN]
        await self._app(scope, receive, send)


def caller(scope: MutableMapping[str, Any]) -> Caller | None:
    """Give the run that makes a request; None for a request from outside."""
    found = scope.get(_CALLER)
    return found if isinstance(found, Caller) else None


def socket_path(node_id: NodeId) -> Path:
    """Give where the private socket of a node is."""
    name = f"matins-{node_id.hex[-16:]}"
    directory = Path(tempfile.gettempdir()) / name
    if len(os.fsencode(directory / "api")) > _LONGEST:
        directory = Path("/tmp") / name  # noqa: S108 - made below, ours alone, or not at all
    return directory / "api"


@contextmanager
def private_socket(node_id: NodeId, predecessor: NodeId | None) -> Iterator[socket.socket]:
    """Listen, for the length of the block, in a directory that is this user's alone.

    What a predecessor that was killed left behind is removed.
    """
    if predecessor is not None:
        shutil.rmtree(socket_path(predecessor).parent, ignore_errors=True)
    path = socket_path(node_id)
    path.parent.mkdir(mode=0o700)
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
            listener.listen(socket.SOMAXCONN)
            yield listener
    finally:
        shutil.rmtree(path.parent, ignore_errors=True)
