"""/webhooks/deliveries: what runs report, and what could not be delivered: list, replay."""

from __future__ import annotations

from uuid import UUID

from starlette.requests import Request
from starlette.responses import Response

from matins.api import auth, body, pages, query
from matins.api.parts import Parts
from matins.api.wire import webhooks as wire
from matins.domain.errors import Conflict, Invalid, NotFound
from matins.domain.ids import RunId
from matins.domain.webhooks import Delivery, DeliveryStatus
from matins.storage import webhooks
from matins.storage.pool import Conn


async def list_(request: Request, parts: Parts) -> Response:
    """List deliveries, the newest first: those of a run, or that are pending, delivered or dead."""
    limit = query.integer(request, "limit", 10, least=1, most=1000)
    offset = query.integer(request, "offset", 0, least=0, most=2**62)
    wanted, scope = _filter(request), auth.authorize(request)
    page = await pages.find(
        parts.pool,
        lambda conn, most: webhooks.list_(conn, wanted, scope=scope, limit=most, offset=offset),
        lambda conn, most: webhooks.count(conn, wanted, scope=scope, limit=most),
        limit=limit,
        offset=offset,
    )
    return body.respond([wire.delivery(each) for each in page.items], headers=page.headers)


async def replay(request: Request, parts: Parts) -> Response:
    """Make a delivery again that was made or given up: with the same `webhook-id`, and all its tries."""
    delivery_id, scope = query.delivery_id(request), auth.authorize(request)
    tries = 0

    async def work(conn: Conn) -> Delivery:
        nonlocal tries
        tries += 1
        replayed = await webhooks.replay(conn, delivery_id, scope=scope)
        if replayed is not None:
            return replayed
        there = await webhooks.get(conn, delivery_id, scope=scope)
        if there is None:
            raise NotFound(f"Webhook delivery '{delivery_id}' not found")
        if tries == 1:  # else a former try's COMMIT has gone through
            raise Conflict(f"Webhook delivery '{delivery_id}' is still being made: it is pending")
        return there

    replayed = await parts.pool.run(work)
    parts.wakes.reports()
    return body.respond(wire.delivery(replayed))


def _filter(request: Request) -> webhooks.Filter:
    run_id, status = request.query_params.get("run_id"), request.query_params.get("status")
    if status and status not in list(DeliveryStatus):
        raise Invalid(f"status must be one of {', '.join(DeliveryStatus)}")
    try:
        return webhooks.Filter(
            run_id=RunId(UUID(run_id)) if run_id else None,
            status=DeliveryStatus(status) if status else None,
        )
    except ValueError:
        raise Invalid("Invalid run_id: must be a UUID") from None
