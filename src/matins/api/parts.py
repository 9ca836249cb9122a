"""What the handlers work with, built by the server and handed to each of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeAlias

from starlette.requests import Request
from starlette.types import ASGIApp

from matins.domain.budgets import DEFAULT_CEILINGS, Ceilings
from matins.domain.threads import TimeToLive
from matins.engine.callers import Callers
from matins.engine.declarations import Declarations
from matins.engine.lease import Lease
from matins.engine.looks import Looks
from matins.engine.metrics import Metrics
from matins.engine.priorities import Priorities
from matins.engine.runs import Runs
from matins.engine.streams.following import Following
from matins.engine.streams.hub import Hub
from matins.engine.streams.wake import Wakes
from matins.engine.streams.watch import Watch
from matins.engine.webhooks.guard import Guard
from matins.manifest.http import HttpSection
from matins.storage.pool import Pool
from matins.workers.pool import Pool as Workers


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """The running server, as far as HTTP reaches.

    `crons_changed` is told when a next date may have changed. `webhooks` lets pass where runs may report to. `http` is
    that section of langgraph.json. `default_ttl`: how long threads live that have no time to live of their own.
    `ceilings`: what crons may do, whatever their policies say.
    """

    pool: Pool
    runs: Runs
    following: Following
    watch: Watch
    wakes: Wakes
    hub: Hub
    workers: Workers
    lease: Lease
    callers: Callers
    crons_changed: Callable[[], None]
    webhooks: Guard
    priorities: Priorities
    looks: Looks
    metrics: Metrics
    declarations: Declarations
    ceilings: Ceilings = DEFAULT_CEILINGS
    default_ttl: TimeToLive | None = None
    http: HttpSection = field(default_factory=HttpSection)


Handler: TypeAlias = Callable[[Request, Parts], Awaitable[ASGIApp]]
"""Answers one operation: what it gives is the response, which may be a stream."""
