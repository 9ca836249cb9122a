"""What the handlers work with, built by the server and handed to each of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeAlias

from starlette.requests import Request
from starlette.types import ASGIApp

from matins.engine.callers import Callers
from matins.engine.lease import Lease
from matins.engine.runs import Runs
from matins.engine.streams.hub import Hub
from matins.storage.pool import Pool
from matins.workers.pool import Pool as Workers


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """The running server, as far as HTTP reaches. `crons_changed` is told when a next date may have changed."""

    pool: Pool
    runs: Runs
    hub: Hub
    workers: Workers
    lease: Lease
    callers: Callers
    crons_changed: Callable[[], None]


Handler: TypeAlias = Callable[[Request, Parts], Awaitable[ASGIApp]]
"""Answers one operation: what it gives is the response, which may be a stream."""
