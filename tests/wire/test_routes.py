"""Walks the mounted routes over what the relays saw, after all other wire tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from starlette.routing import compile_path

from matins.api.app import OPERATIONS
from tests.wire import sdks
from tests.wire.relay import Relay

NO_METHOD = "the SDK has no method for it"
OVER_POST = "the SDK reads histories by POST"
BY_ID = "the SDK reaches a run only through its thread"

PYTHON = ("py-async", "py-sync")
EXEMPT = {
    **{
        ("GET", path): dict.fromkeys(sdks.KINDS, NO_METHOD)
        for path in ("/", "/ok", "/ready", "/info", "/metrics")
    },
    **{("GET", path): dict.fromkeys(sdks.KINDS, NO_METHOD) for path in ("/docs", "/openapi.json")},
    **{
        ("GET", path): dict.fromkeys(sdks.KINDS, NO_METHOD)
        for path in ("/runs/crons/{cron_id}", "/runs/crons/{cron_id}/fires", "/runs/crons/pause")
    },
    **{
        ("POST", path): dict.fromkeys(sdks.KINDS, NO_METHOD)
        for path in (
            "/runs/search",
            "/runs/crons/preview",
            "/runs/crons/sync",
            "/runs/crons/pause",
            "/runs/crons/resume",
            "/runs/crons/{cron_id}/trigger",
            "/runs/crons/{cron_id}/backfill",
            "/runs/crons/{cron_id}/pause",
            "/runs/crons/{cron_id}/resume",
        )
    },
    ("GET", "/threads/{thread_id}/history"): dict.fromkeys(sdks.KINDS, OVER_POST),
    ("GET", "/threads/{thread_id}/storage"): dict.fromkeys(sdks.KINDS, NO_METHOD),
    ("PATCH", "/threads/{thread_id}/state"): dict.fromkeys(PYTHON, NO_METHOD),
    ("GET", "/runs/{run_id}"): dict.fromkeys(sdks.KINDS, BY_ID),
    ("GET", "/runs/{run_id}/join"): dict.fromkeys(sdks.KINDS, BY_ID),
    **{("POST", path): {"js-2.0": NO_METHOD} for path in ("/threads/prune", "/runs/cancel")},
    ("GET", "/webhooks/deliveries"): dict.fromkeys(sdks.KINDS, NO_METHOD),
    ("POST", "/webhooks/deliveries/{delivery_id}/replay"): dict.fromkeys(sdks.KINDS, NO_METHOD),
    ("GET", "/runs/{run_id}/stream"): dict.fromkeys(PYTHON, BY_ID),
}
"""What a client cannot reach by a method, and why: there plain HTTP has to."""

_PATTERNS = [(operation, compile_path(operation.path)[0]) for operation in OPERATIONS]


@pytest.fixture
def covered(relays: dict[str, Relay], request: pytest.FixtureRequest) -> dict[str, set[tuple[str, str]]]:
    """Which operations each client had a success of."""
    here = Path(__file__).parent
    ran = {item.path for item in request.session.items}
    if missing := sorted(path.name for path in set(here.glob("test_*.py")) - ran):
        pytest.skip(f"the walk wants all wire tests to have run; not asked for: {missing}")
    return {
        client: {operation for seen in relay.seen if (operation := _operation(*seen))}
        for client, relay in relays.items()
    }


def _operation(method: str, path: str, status: int) -> tuple[str, str] | None:
    """Give the operation that answered, in the order in which the server looks for it."""
    if status >= 300:
        return None
    for operation, pattern in _PATTERNS:
        if operation.method == method and pattern.match(path):
            return operation.method, operation.path
    return None


def test_every_route_is_tested_with_every_client(covered: dict[str, set[tuple[str, str]]]) -> None:
    untested = [
        f"{operation.method} {operation.path} with {client}"
        for operation in OPERATIONS
        for client in sdks.KINDS
        if (operation.method, operation.path) not in covered[client]
        and client not in EXEMPT.get((operation.method, operation.path), {})
    ]
    assert not untested


def test_a_route_that_an_sdk_cannot_reach_is_tested_with_plain_http(
    covered: dict[str, set[tuple[str, str]]],
) -> None:
    assert not EXEMPT.keys() - covered["http"]


def test_no_exemption_is_out_of_date(covered: dict[str, set[tuple[str, str]]]) -> None:
    mounted = {(operation.method, operation.path) for operation in OPERATIONS}
    assert not EXEMPT.keys() - mounted
    assert not [
        (operation, client)
        for operation, clients in EXEMPT.items()
        for client in clients
        if operation in covered[client]
    ]
