"""The ASGI application: the route table and the middleware. Starts nothing."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.types import ASGIApp

from matins import __version__
from matins.api import (
    assistants,
    cron_control,
    crons,
    openapi,
    outside,
    run_streams,
    runs,
    sse,
    system,
    thread_state,
    thread_stream,
    threads,
    webhooks,
)
from matins.api.custom import Custom
from matins.api.errors import Wall, unrouted
from matins.api.operations import Operation, Parameter
from matins.api.parts import Parts
from matins.api.routes import routes
from matins.api.wire import assistants as of_assistants
from matins.api.wire import backfills as of_backfills
from matins.api.wire import crons as of_crons
from matins.api.wire import declarations as of_declarations
from matins.api.wire import fires as of_fires
from matins.api.wire import query as in_query
from matins.api.wire import runs as of_runs
from matins.api.wire import threads as of_threads
from matins.api.wire import webhooks as of_webhooks
from matins.api.wire.json import Limit, Offset
from matins.manifest.http import Cors, HttpSection

_EVENTS: Final = "text/event-stream"
_PAGE: Final = (Parameter("limit", Limit), Parameter("offset", Offset))
_RECURSE: Final = (Parameter("recurse", bool),)
_STATE: Final = (Parameter("subgraphs", bool), Parameter("select", list[in_query.StateField]))
_DISCONNECT: Final = (Parameter("cancel_on_disconnect", bool),)
_JOIN_STREAM: Final = (*_DISCONNECT, Parameter("stream_mode", in_query.Names))

OPERATIONS: Final = (
    Operation("GET", "/", system.root, None, system.Ok),
    Operation("GET", "/ok", system.ok, None, system.Ok),
    Operation("GET", "/ready", system.ready, None, system.Ok),
    Operation("GET", "/info", system.info, None, system.Info),
    Operation("GET", "/metrics", system.metrics, None, str, media="text/plain"),
    Operation("GET", "/docs", system.docs, None, str, media="text/html"),
    Operation("GET", "/openapi.json", system.openapi, None, dict[str, Any]),
    Operation(
        "POST", "/assistants", assistants.create, of_assistants.AssistantCreate, of_assistants.Assistant
    ),
    Operation(
        "POST",
        "/assistants/search",
        assistants.search,
        of_assistants.AssistantSearch,
        list[of_assistants.Assistant],
    ),
    Operation("POST", "/assistants/count", assistants.count, of_assistants.AssistantCount, int),
    Operation("GET", "/assistants/{assistant_id}", assistants.get, None, of_assistants.Assistant),
    Operation(
        "PATCH",
        "/assistants/{assistant_id}",
        assistants.update,
        of_assistants.AssistantPatch,
        of_assistants.Assistant,
    ),
    Operation(
        "GET",
        "/assistants/{assistant_id}/graph",
        assistants.get_graph,
        None,
        of_assistants.Drawing,
        query=(Parameter("xray", in_query.Xray),),
    ),
    Operation(
        "GET", "/assistants/{assistant_id}/schemas", assistants.get_schemas, None, of_assistants.GraphSchemas
    ),
    Operation(
        "GET",
        "/assistants/{assistant_id}/subgraphs",
        assistants.get_subgraphs,
        None,
        dict[str, of_assistants.Schemas],
        query=_RECURSE,
    ),
    Operation(
        "GET",
        "/assistants/{assistant_id}/subgraphs/{namespace}",
        assistants.get_subgraphs_of,
        None,
        dict[str, of_assistants.Schemas],
        query=_RECURSE,
    ),
    Operation(
        "POST",
        "/assistants/{assistant_id}/versions",
        assistants.get_versions,
        of_assistants.Versions,
        list[of_assistants.Version],
    ),
    Operation(
        "POST",
        "/assistants/{assistant_id}/latest",
        assistants.set_latest,
        of_assistants.Latest,
        of_assistants.Assistant,
    ),
    Operation(
        "DELETE",
        "/assistants/{assistant_id}",
        assistants.delete,
        status=204,
        query=(Parameter("delete_threads", bool),),
    ),
    Operation(
        "POST",
        "/threads",
        threads.create,
        of_threads.ThreadCreate,
        of_threads.Thread,
        other_statuses={201: "Created, but the supersteps were refused"},
    ),
    Operation("POST", "/threads/search", threads.search, of_threads.ThreadSearch, list[of_threads.Thread]),
    Operation("POST", "/threads/count", threads.count, of_threads.ThreadCount, int),
    Operation("POST", "/threads/prune", threads.prune, of_threads.ThreadsPrune, of_threads.ThreadsPruned),
    Operation("POST", "/threads/{thread_id}/copy", threads.copy, None, of_threads.Thread),
    Operation(
        "GET",
        "/threads/{thread_id}",
        threads.get,
        None,
        of_threads.Thread,
        query=(Parameter("include", in_query.Names),),
    ),
    Operation(
        "PATCH",
        "/threads/{thread_id}",
        threads.update,
        of_threads.ThreadPatch,
        of_threads.Thread,
        other_statuses={204: "Changed, with `Prefer: return=minimal`"},
    ),
    Operation("DELETE", "/threads/{thread_id}", threads.delete, status=204),
    Operation(
        "GET",
        "/threads/{thread_id}/state",
        thread_state.get_state,
        None,
        of_threads.ThreadState,
        query=_STATE,
    ),
    Operation(
        "POST",
        "/threads/{thread_id}/state",
        thread_state.update_state,
        of_threads.StateUpdate,
        of_threads.StateUpdated,
    ),
    Operation(
        "PATCH", "/threads/{thread_id}/state", thread_state.patch_state, of_threads.StatePatch, status=204
    ),
    Operation("GET", "/threads/{thread_id}/storage", thread_state.get_storage, None, of_threads.Storage),
    Operation(
        "POST",
        "/threads/{thread_id}/state/checkpoint",
        thread_state.get_state_checkpoint,
        of_threads.StateAt,
        of_threads.ThreadState,
    ),
    Operation(
        "GET",
        "/threads/{thread_id}/state/{checkpoint_id}",
        thread_state.get_state_at,
        None,
        of_threads.ThreadState,
        query=_STATE,
    ),
    Operation(
        "GET",
        "/threads/{thread_id}/history",
        thread_state.get_history,
        None,
        list[of_threads.ThreadState],
        query=(
            Parameter("limit", Limit),
            Parameter("before"),
            Parameter("select", list[in_query.StateField]),
        ),
    ),
    Operation(
        "POST",
        "/threads/{thread_id}/history",
        thread_state.search_history,
        of_threads.History,
        list[of_threads.ThreadState],
    ),
    Operation(
        "GET",
        "/threads/{thread_id}/stream",
        thread_stream.join_stream,
        None,
        sse.Event,
        query=(Parameter("stream_mode", list[in_query.ThreadMode]),),
        media=_EVENTS,
    ),
    Operation(
        "POST", "/threads/{thread_id}/runs/crons", crons.create_for_thread, of_crons.CronCreate, of_crons.Cron
    ),
    Operation("POST", "/threads/{thread_id}/runs", runs.create, of_runs.RunOnThread, of_runs.Run),
    Operation(
        "GET",
        "/threads/{thread_id}/runs",
        runs.list_,
        None,
        list[of_runs.Run],
        query=(
            Parameter("limit", in_query.Some),
            Parameter("offset", Offset),
            Parameter("status"),
            Parameter("select", list[in_query.Column]),
        ),
    ),
    Operation(
        "POST",
        "/threads/{thread_id}/runs/stream",
        run_streams.stream,
        of_runs.RunOnThread,
        sse.Event,
        media=_EVENTS,
    ),
    Operation("POST", "/threads/{thread_id}/runs/wait", run_streams.wait, of_runs.RunOnThread, Any),
    Operation("GET", "/threads/{thread_id}/runs/{run_id}", runs.get, None, of_runs.Run),
    Operation("DELETE", "/threads/{thread_id}/runs/{run_id}", runs.delete, status=204),
    Operation(
        "GET", "/threads/{thread_id}/runs/{run_id}/join", run_streams.join, None, Any, query=_DISCONNECT
    ),
    Operation(
        "GET",
        "/threads/{thread_id}/runs/{run_id}/stream",
        run_streams.join_stream,
        None,
        sse.Event,
        query=_JOIN_STREAM,
        media=_EVENTS,
    ),
    Operation(
        "POST",
        "/threads/{thread_id}/runs/{run_id}/cancel",
        runs.cancel,
        status=202,
        other_statuses={200: "Stopped, with `wait`"},
        query=(Parameter("wait", bool), Parameter("action", in_query.Action)),
    ),
    Operation("POST", "/runs/crons", crons.create, of_crons.CronCreate, of_crons.Cron),
    Operation("POST", "/runs/crons/search", crons.search, of_crons.CronSearch, list[of_crons.Cron]),
    Operation("POST", "/runs/crons/count", crons.count, of_crons.CronCount, int),
    Operation("POST", "/runs/crons/preview", cron_control.preview, of_crons.CronPreview, of_crons.Dates),
    Operation(
        "POST", "/runs/crons/sync", cron_control.sync, of_declarations.CronSync, of_declarations.CronsSynced
    ),
    Operation("GET", "/runs/crons/pause", cron_control.get_hold, None, of_crons.CronHold),
    Operation("POST", "/runs/crons/pause", cron_control.hold, of_crons.CronPause, of_crons.CronHold),
    Operation("POST", "/runs/crons/resume", cron_control.let_go, None, of_crons.CronHold),
    Operation("POST", "/runs/crons/{cron_id}/trigger", cron_control.trigger, None, of_fires.Fire, status=202),
    Operation(
        "POST",
        "/runs/crons/{cron_id}/backfill",
        cron_control.backfill,
        of_backfills.CronBackfill,
        of_backfills.Backfilled,
        status=202,
        other_statuses={200: "Only shown, with `dry_run`"},
    ),
    Operation("POST", "/runs/crons/{cron_id}/pause", cron_control.pause, of_crons.CronPause, of_crons.Cron),
    Operation("POST", "/runs/crons/{cron_id}/resume", cron_control.resume, None, of_crons.Cron),
    Operation("GET", "/runs/crons/{cron_id}", crons.get, None, of_crons.Cron),
    Operation(
        "GET",
        "/runs/crons/{cron_id}/fires",
        crons.list_fires,
        None,
        list[of_fires.Fire],
        query=(
            *_PAGE,
            Parameter("outcome", in_query.FireOutcome),
            Parameter("status", in_query.FireStatus),
            Parameter("trigger", in_query.FireTrigger),
            Parameter("since", in_query.Instant),
            Parameter("until", in_query.Instant),
        ),
    ),
    Operation("PATCH", "/runs/crons/{cron_id}", crons.update, of_crons.Change, of_crons.Cron),
    Operation("DELETE", "/runs/crons/{cron_id}", crons.delete, status=204),
    Operation("POST", "/runs", runs.create_stateless, of_runs.RunWithoutThread, of_runs.Run),
    Operation("POST", "/runs/search", runs.search, of_runs.RunSearch, list[of_runs.Run]),
    Operation("POST", "/runs/batch", runs.create_batch, of_runs.Batch, list[of_runs.Run]),
    Operation(
        "POST",
        "/runs/cancel",
        runs.cancel_many,
        of_runs.Chosen,
        status=204,
        query=(Parameter("action", in_query.Action),),
    ),
    Operation(
        "POST",
        "/runs/stream",
        run_streams.stream_stateless,
        of_runs.RunWithoutThread,
        sse.Event,
        media=_EVENTS,
    ),
    Operation("POST", "/runs/wait", run_streams.wait_stateless, of_runs.RunWithoutThread, Any),
    Operation("GET", "/runs/{run_id}", runs.get_stateless, None, of_runs.Run),
    Operation("GET", "/runs/{run_id}/join", run_streams.join_stateless, None, Any, query=_DISCONNECT),
    Operation(
        "GET",
        "/runs/{run_id}/stream",
        run_streams.join_stream_stateless,
        None,
        sse.Event,
        query=_JOIN_STREAM,
        media=_EVENTS,
    ),
    Operation(
        "GET",
        "/webhooks/deliveries",
        webhooks.list_,
        None,
        list[of_webhooks.Delivery],
        query=(*_PAGE, Parameter("status", in_query.DeliveryStatus), Parameter("run_id", in_query.MaybeId)),
    ),
    Operation(
        "POST", "/webhooks/deliveries/{delivery_id}/replay", webhooks.replay, None, of_webhooks.Delivery
    ),
)
"""Every operation that is mounted. Where two paths fit, the first one is taken."""


_GROUPS: Final = {
    "cron_control": "runs",
    "crons": "runs",
    "run_streams": "runs",
    "system": "meta",
    "thread_state": "threads",
    "thread_stream": "threads",
}
"""By which `disable_*` the operations of a module go, where that has another name."""


def served(http: HttpSection) -> list[Operation]:
    """Give the operations that langgraph.json does not disable."""
    probes = {"/", *outside.PROBES}
    return [
        each
        for each in OPERATIONS
        if _GROUPS.get(each.tag, each.tag) not in http.disabled or each.path in probes
    ]


def build(parts: Parts, custom: Custom | None = None) -> ASGIApp:
    """Give the application: every operation, behind the wall, with the user's own around it."""
    operations, prefix = served(parts.http), parts.http.mount_prefix
    ours = Starlette(
        routes=routes(parts, operations),
        middleware=[Middleware(Wall, logged=parts.http.logging_headers)],
        exception_handlers={HTTPException: unrouted},
    )
    ours.router.redirect_slashes = False
    described = openapi.document(operations, version=__version__, prefix=prefix)
    app: ASGIApp = ours
    if custom is not None:
        described = openapi.merged(described, custom.openapi())
        app = Wall(custom.around(ours), logged=parts.http.logging_headers)
    ours.state.openapi = msgspec.json.encode(described)
    ours.state.docs = openapi.page(described, prefix=prefix)
    if prefix:
        app = Wall(outside.Prefixed(app, prefix))
    if custom is not None and custom.has_cors and parts.http.cors is None:
        return app
    return outside.open_to(parts.http.cors or Cors(), app)
