"""/ok, /ready, /info, /metrics, /docs, /openapi.json: about the server itself."""

from __future__ import annotations

from importlib.metadata import version

import msgspec
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from matins import __version__
from matins.api import body
from matins.api.parts import Parts
from matins.domain.errors import Unavailable
from matins.engine.metrics import CONTENT_TYPE


class Ok(msgspec.Struct):
    """The server answers."""

    ok: bool = True
    services: dict[str, str] = {}


class Info(msgspec.Struct, kw_only=True):
    """What the server is and can do. Clients probe `flags`."""

    version: str
    langgraph_py_version: str
    flags: dict[str, bool]
    host: dict[str, str | None]


async def ok(_request: Request, parts: Parts) -> Response:
    """Say whether the server answers and looks after its crons, without asking the database."""
    return _looked_after(parts)


async def root(_request: Request, parts: Parts) -> Response:
    """Say what /ok says."""
    return _looked_after(parts)


def _looked_after(parts: Parts) -> Response:
    if parts.lease.is_held and (stalled := parts.looks.stalled):  # without a lease it must not look
        raise Unavailable(stalled)
    return body.respond(Ok())


async def ready(_request: Request, parts: Parts) -> Response:
    """Say whether this node holds its lease, so that it starts what is asked of it."""
    if not parts.lease.is_held:
        raise Unavailable("This node does not hold its lease.")
    return body.respond(Ok())


async def info(_request: Request, parts: Parts) -> Response:
    """Say what the server is and can do."""
    return body.respond(
        Info(
            version=__version__,
            langgraph_py_version=version("langgraph"),
            flags={
                "assistants": "assistants" not in parts.http.disabled,
                "crons": "runs" not in parts.http.disabled,
                "strict_resume": True,
                "langsmith": False,
                "langsmith_tracing_replicas": False,
                "langsmith_tracing_session_on_runs": False,
            },
            host={
                "kind": "self-hosted",
                "project_id": None,
                "host_revision_id": None,
                "revision_id": None,
                "tenant_id": None,
            },
        )
    )


async def metrics(_request: Request, parts: Parts) -> Response:
    """Tell Prometheus of crons, runs and the scheduler, in its text format."""
    return Response(await parts.metrics.scrape(), media_type=CONTENT_TYPE)


async def openapi(request: Request, _parts: Parts) -> Response:
    """Describe the API as an OpenAPI document."""
    return body.respond_raw(request.app.state.openapi)


async def docs(request: Request, _parts: Parts) -> Response:
    """Describe the API as a page to read."""
    return HTMLResponse(request.app.state.docs)
