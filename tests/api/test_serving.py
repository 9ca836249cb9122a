"""What the `http` section makes of the application, in process: real parts that are not running."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeAlias

import anyio
import httpx
import pytest
from structlog.testing import capture_logs

from matins import telemetry
from matins.api.app import OPERATIONS, build
from matins.api.custom import load, say_what_is_stale
from matins.api.lifespan import AppFailed
from matins.api.parts import Parts
from matins.domain.ids import NodeId, uuid7
from matins.engine.declarations import Declarations
from matins.engine.lease import Lease
from matins.engine.looks import Looks
from matins.engine.metrics import Metrics
from matins.engine.priorities import Priorities
from matins.engine.queue.lane import Lanes
from matins.engine.runs import Runs
from matins.engine.streams.following import Following
from matins.engine.streams.hub import Hub
from matins.engine.streams.wake import Wake, Wakes
from matins.engine.streams.watch import Watch
from matins.engine.webhooks.guard import Guard
from matins.manifest import Manifest, read
from matins.manifest.webhooks import Webhooks
from matins.storage.pool import Pool
from matins.workers.pool import Pool as Workers
from matins.workers.process import Launch

pytestmark = pytest.mark.anyio

Serve: TypeAlias = Callable[..., Awaitable[httpx.AsyncClient]]
PREFLIGHT = {"access-control-request-method": "POST", "origin": "https://app.example"}

STARLETTE = """
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

async def hello(request):
    return PlainTextResponse("hello " + request.app.state.name)

async def page(scope, receive, send):
    await PlainTextResponse("page " + scope["path"])(scope, receive, send)

def made(*routes, **options):
    app = Starlette(routes=[Route("/hello", hello), Route("/items/", hello), *routes], **options)
    app.state.name = "you"
    return app
"""


def project(folder: Path, code: str = "", **http: object) -> Manifest:
    (folder / "agent.py").touch()
    if code:
        (folder / "front.py").write_text(code)
        http["app"] = "./front.py:app"
    path = folder / "langgraph.json"
    path.write_text(json.dumps({"graphs": {"agent": "./agent.py:graph"}, "http": http}))
    return read(path)


@pytest.fixture
async def serve(pool: Pool, database: str, tmp_path: Path) -> AsyncIterator[Serve]:
    lease, hub = Lease(database, node_id=NodeId(uuid7()), name="n", version="0"), Hub()
    wakes = Wakes(database, node_id=lease.node_id, follows=hub.follows)
    guard, looks = Guard(Webhooks()), Looks()

    async def no_graphs(_: bytes) -> None: ...

    workers = Workers(Launch(tmp_path / "langgraph.json", 1), workers=1, on_graphs=no_graphs)
    lanes = Lanes(pool=pool, workers=workers, hub=hub, lease=lease, wakes=wakes)
    watch = Watch(pool=pool, hub=hub, wakes=wakes, node_id=lease.node_id, holds=lanes.holds)
    following = Following(pool=pool, workers=workers, hub=hub, watch=watch, holds=lanes.holds)
    runs = Runs(
        pool=pool,
        workers=workers,
        lanes=lanes,
        hub=hub,
        following=following,
        lease=lease,
        wakes=wakes,
        webhooks=guard,
        priorities=Priorities(pool=pool, workers=workers),
    )
    clients: list[httpx.AsyncClient] = []

    async def client(code: str = "", **http: object) -> httpx.AsyncClient:
        manifest = project(tmp_path, code, **http)
        priorities = Priorities(pool=pool, workers=workers)
        parts = Parts(
            priorities=priorities,
            declarations=Declarations(
                pool=pool,
                workers=workers,
                webhooks=guard,
                priorities=priorities,
                wake=Wake(),
                on_changed=wakes.claims,
            ),
            pool=pool,
            runs=runs,
            hub=hub,
            workers=workers,
            lease=lease,
            crons_changed=wakes.claims,
            following=following,
            watch=watch,
            wakes=wakes,
            webhooks=guard,
            looks=looks,
            metrics=Metrics(pool=pool, looks=looks, lanes_in_use=lambda: len(lanes.held)),
            callers=lanes.callers,
            http=manifest.http,
        )
        transport = httpx.ASGITransport(build(parts, load(manifest)))
        clients.append(httpx.AsyncClient(transport=transport, base_url="http://test"))
        return clients[-1]

    yield client
    for each in clients:
        await each.aclose()


@pytest.mark.parametrize(
    ("resource", "gone", "kept"),
    [
        ("assistants", ["/assistants/search"], ["/threads/search"]),
        ("threads", ["/threads", "/threads/search"], ["/assistants/count"]),
        ("runs", ["/runs", "/runs/wait", "/runs/crons", "/threads/{id}/runs/stream"], ["/threads/search"]),
    ],
)
async def test_what_is_disabled_is_not_found_and_not_described(
    serve: Serve, resource: str, gone: list[str], kept: list[str]
) -> None:
    api = await serve(**{f"disable_{resource}": True})
    described = (await api.get("/openapi.json")).json()["paths"]
    for path in gone:
        refused = await api.post(path.replace("{id}", str(uuid7())), json={})
        assert (refused.status_code, refused.json()) == (404, {"detail": "Not Found"}), path
        assert path not in described
    for path in kept:
        assert path in described
    flags = (await api.get("/info")).json()["flags"]
    assert flags["assistants"] is (resource != "assistants")
    assert flags["crons"] is (resource != "runs")


async def test_without_meta_only_the_probes_are_left_of_it(serve: Serve) -> None:
    api = await serve(disable_meta=True)
    for path in ("/info", "/metrics", "/docs", "/openapi.json"):
        assert (await api.get(path)).status_code == 404
    for path in ("/", "/ok"):
        assert (await api.get(path)).json() == {"ok": True, "services": {}}
    assert (await api.post("/threads", json={})).status_code == 200


async def test_nothing_is_disabled_when_nothing_is_said(serve: Serve) -> None:
    api = await serve()
    described = (await api.get("/openapi.json")).json()
    assert described["paths"].keys() == {each.path for each in OPERATIONS}
    assert "servers" not in described


async def test_where_no_origin_is_named_all_may_call_without_credentials(serve: Serve) -> None:
    api = await serve()
    told = (await api.get("/ok", headers={"origin": "https://app.example"})).headers
    assert told["access-control-allow-origin"] == "*"
    assert "access-control-allow-credentials" not in told
    assert told["vary"] == "Origin"
    granted = await api.options(
        "/threads", headers={**PREFLIGHT, "access-control-request-headers": "x-api-key"}
    )
    assert granted.headers["access-control-allow-headers"] == "x-api-key"
    assert granted.headers["access-control-max-age"] == "600"


async def test_headers_and_methods_that_are_named_are_all_that_may_be_used(serve: Serve) -> None:
    api = await serve(cors={"allow_headers": ["X-One"], "allow_methods": ["post"]})
    one = {**PREFLIGHT, "access-control-request-headers": "x-one,content-type"}
    assert (await api.options("/threads", headers=one)).status_code == 200
    other = {**PREFLIGHT, "access-control-request-headers": "x-other"}
    assert (await api.options("/threads", headers=other)).status_code == 400
    patch = {**PREFLIGHT, "access-control-request-method": "PATCH"}
    assert (await api.options("/threads", headers=patch)).text == "Disallowed CORS method"


async def test_an_application_that_names_its_origins_is_left_to_it(serve: Serve, tmp_path: Path) -> None:
    code = (
        f"{STARLETTE}\napp = made(middleware=[Middleware(CORSMiddleware, allow_origins=['https://its.own'])])"
    )
    api = await serve(code)
    assert (
        "access-control-allow-origin" not in (await api.get("/ok", headers={"origin": "https://b"})).headers
    )
    allowed = (await api.get("/ok", headers={"origin": "https://its.own"})).headers
    assert allowed["access-control-allow-origin"] == "https://its.own"
    api = await serve(code, cors={"allow_origins": ["https://named.here"]})
    told = (await api.get("/ok", headers={"origin": "https://named.here"})).headers
    assert told["access-control-allow-origin"] == "https://named.here"


async def test_what_neither_serves_is_answered_as_without_it(serve: Serve) -> None:
    api = await serve(f"{STARLETTE}\napp = made()")
    assert (await api.get("/hello")).text == "hello you"
    missing = await api.get("/nope")
    assert (missing.status_code, missing.json()) == (404, {"detail": "Not Found"})
    wrong = await api.put("/runs/crons/7")
    assert (wrong.status_code, wrong.json()) == (405, {"detail": "Method Not Allowed"})
    assert (await api.post("/hello")).status_code == 405
    assert (await api.get("/items")).headers["location"] == "http://test/items/"


async def test_its_own_answer_to_what_is_not_found_is_kept(serve: Serve) -> None:
    lost = "async def lost(request, error):\n    return PlainTextResponse('lost', 404)\n"
    api = await serve(f"{STARLETTE}\n{lost}\napp = made(exception_handlers={{404: lost}})")
    assert (await api.get("/nope")).text == "lost"
    missing = await api.get(f"/threads/{uuid7()}")
    assert missing.json()["code"] == "not_found"


async def test_a_page_mounted_over_everything_hides_nothing(serve: Serve) -> None:
    api = await serve(f"{STARLETTE}\napp = made(Mount('/', app=page))")
    assert (await api.post("/threads", json={})).status_code == 200
    assert (await api.get("/ok")).json()["ok"] is True
    assert (await api.get("/hello")).text == "hello you"
    for path in ("/", "/index.html"):
        assert (await api.get(path)).text == f"page {path}"


async def test_an_application_of_another_kind_gets_what_is_not_ours(serve: Serve) -> None:
    code = """
async def app(scope, receive, send):
    assert scope["type"] == "http"
    body = scope["path"].encode()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})
"""
    api = await serve(code, mount_prefix="/p")
    assert (await api.get("/p/any/where")).text == "/p/any/where"
    assert (await api.post("/p/threads", json={})).status_code == 200
    assert (await api.put("/p/threads")).status_code == 405


async def test_what_it_raises_is_answered_with_cors_and_an_id(serve: Serve) -> None:
    code = "async def app(scope, receive, send):\n    raise ValueError('boom')\n"
    api = await serve(code)
    failed = await api.get("/x", headers={"origin": "https://a"})
    assert (failed.status_code, failed.json()["code"]) == (500, "internal")
    assert failed.headers["access-control-allow-origin"] == "*"
    assert len(failed.headers.get_list("x-request-id")) == 1


@pytest.mark.parametrize("path", ["/p", "/p/"])
async def test_the_prefix_itself_is_the_root(serve: Serve, path: str) -> None:
    api = await serve(mount_prefix="/p/")
    assert (await api.get(path)).json() == {"ok": True, "services": {}}
    assert (await api.get("/")).status_code == 404


async def test_the_document_says_where_its_paths_begin(serve: Serve) -> None:
    api = await serve(mount_prefix="/p")
    assert (await api.get("/p/openapi.json")).json()["servers"] == [{"url": "/p"}]


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("app = 1 / 0", r"front\.py:1: ZeroDivisionError: division by zero"),
        ("import sys\n\nsys.exit(3)", r"front\.py:3: SystemExit: 3"),
        ("app = (", r"front\.py:1: SyntaxError"),
        ("import no_such_module", r"front\.py:1: ModuleNotFoundError: No module named 'no_such_module'"),
        ("application = 1", r"has no variable 'app'"),
        ("app = 1", r"'app' in .* is int, not an ASGI application"),
        ("def app():\n    pass", r"'app' in .* is function, not an ASGI application"),
        ("from starlette.applications import Starlette as app", r"is type, not an ASGI application"),
    ],
)
def test_an_application_that_cannot_be_served_is_refused_in_a_line(
    tmp_path: Path, code: str, message: str
) -> None:
    manifest = project(tmp_path, code)
    with pytest.raises(AppFailed, match=message) as failed:
        load(manifest)
    assert str(failed.value).startswith(f"{manifest.path}: http.app: ")
    assert "\n" not in str(failed.value)


def test_a_module_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AppFailed, match="no module named 'no_such_front'"):
        load(project(tmp_path, app="no_such_front:app"))


LIFESPAN = """
from contextlib import asynccontextmanager
from starlette.applications import Starlette

@asynccontextmanager
async def lifespan(app):
    {before}
    yield
    {after}

app = Starlette(lifespan=lifespan)
"""


REFUSES = """
async def app(scope, receive, send):
    await receive()
    await send({'type': 'lifespan.startup.failed', 'message': 'not today'})
"""


@asynccontextmanager
async def started(code: str, folder: Path) -> AsyncIterator[None]:
    custom = load(project(folder, code))
    assert custom is not None
    async with anyio.create_task_group() as group:
        await group.start(custom.lifespan.run)
        yield
        group.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (LIFESPAN.format(before="raise ValueError('no way')", after=""), r"front\.py:7: ValueError: no way"),
        (LIFESPAN.format(before="raise SystemExit(1)", after=""), r"SystemExit: 1"),
        (REFUSES, "does not start: not today"),
    ],
)
async def test_an_application_that_does_not_start_is_refused_in_a_line(
    tmp_path: Path, code: str, message: str
) -> None:
    with pytest.raises(BaseExceptionGroup) as failed:
        async with started(code, tmp_path):
            pass
    assert failed.group_contains(AppFailed, match=message)


async def test_an_application_may_have_no_lifespan(tmp_path: Path) -> None:
    async with started(
        "async def app(scope, receive, send):\n    assert scope['type'] == 'http'\n", tmp_path
    ):
        pass


async def test_one_that_fails_or_hangs_as_it_shuts_down_is_left_behind(tmp_path: Path) -> None:
    with capture_logs() as logs:
        async with started(LIFESPAN.format(before="pass", after="raise ValueError('late')"), tmp_path):
            assert logs == []
    assert [each["event"] for each in logs] == [telemetry.HTTP_APP_FAILED]
    (tmp_path / "b").mkdir()
    hangs = "import anyio\n" + LIFESPAN.format(before="pass", after="await anyio.sleep_forever()")
    async with started(hangs, tmp_path / "b"):
        pass


def test_a_change_that_needs_a_restart_is_said(tmp_path: Path) -> None:
    manifest = project(tmp_path, "import helper_of_front\n\nasync def app(scope, receive, send): ...\n")
    (tmp_path / "helper_of_front.py").touch()
    sys.path.append(str(tmp_path))
    try:
        load(manifest)
    finally:
        sys.path.remove(str(tmp_path))

    def said(*changed: str) -> list[Any]:
        with capture_logs() as logs:
            say_what_is_stale(manifest, [tmp_path / name for name in changed])
        assert {each["event"] for each in logs} <= {telemetry.HTTP_APP_STALE}
        return [each["message"] for each in logs]

    assert said("agent.py", "langgraph.json") == []
    for name in ("front.py", "helper_of_front.py"):
        assert said(name) == [f"{tmp_path / name} is part of http.app: restart matins for it to take effect"]
    content = json.loads(manifest.path.read_text())
    manifest.path.write_text(json.dumps({**content, "http": {**content["http"], "mount_prefix": "/p"}}))
    assert said("langgraph.json") == [
        f"{manifest.path}: http has changed: restart matins for it to take effect"
    ]
    manifest.path.write_text("{")
    assert said("langgraph.json") == []
