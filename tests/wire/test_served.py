"""A server with an `http` section: under a prefix, with a FastAPI application around it and headers for its graphs."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from anyio.from_thread import BlockingPortal
from websockets.sync.client import connect as connect_socket

from tests.support import servers
from tests.support.servers import Server
from tests.support.waiting import until
from tests.wire import sdks
from tests.wire.relay import Relay
from tests.wire.sdks import Sdk

HERE = Path(__file__).parent
PREFIX = "/agents/v1"
OF_CLIENTS = {"x-foo-a": "1", "X-Tenant": "acme", "x-foo-secret-b": "2", "x-other": "3", "cookie": "5=6"}
SENT = {**OF_CLIENTS, "x-api-key": "4"}
SEEN = {"x-foo-a": "1", "x-tenant": "acme"}


@pytest.fixture(scope="module")
def notes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("served") / "lifespan"


@pytest.fixture(scope="module")
def server(notes: Path) -> Iterator[Server]:
    with servers.start(
        HERE / "served" / "langgraph.json", notes.parent, args=["--no-reload"], env={"LIFESPAN": str(notes)}
    ) as running:
        yield running


@pytest.fixture(scope="module")
def relay(server: Server, portal: BlockingPortal) -> Iterator[Relay]:
    made = Relay(server.port)
    running = portal.start_task(made.run)[0]
    yield made
    running.cancel()


@pytest.fixture(scope="module", params=sdks.KINDS)
def sdk(request: pytest.FixtureRequest, relay: Relay, portal: BlockingPortal) -> Iterator[Sdk]:
    with sdks.connect(request.param, relay.url + PREFIX, portal, headers=OF_CLIENTS) as connected:
        yield connected


@pytest.fixture(scope="module")
def http(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url + PREFIX, timeout=30) as client:
        yield client


def test_every_client_works_under_the_prefix(sdk: Sdk) -> None:
    thread = sdk("threads.create")["thread_id"]
    assert sdk("threads.get", thread)["status"] == "idle"
    waited = sdk("runs.wait", thread, "events", input={"n": 2})
    assert waited["n"] == 2
    assert sdk.created[-1]["thread_id"] == thread
    events = sdk("runs.stream", thread, "events", input={"n": 2}, stream_mode="custom")
    assert [event.data for event in events if event.event == "custom"] == [{"i": 0}, {"i": 1}]
    assert sdk("runs.get", thread, sdk.created[-1]["run_id"])["status"] == "success"


def test_every_client_comes_back_to_a_broken_stream_under_the_prefix(sdk: Sdk, relay: Relay) -> None:
    thread = sdk("threads.create")["thread_id"]
    relay.cut_after = b'{"begin":'
    events = sdk(
        "runs.stream",
        thread,
        "slow",
        input={"delay": 0.2, "steps": 3},
        stream_mode="updates",
        stream_resumable=True,
    )
    assert relay.cut_after is None
    assert [event.data for event in events if event.event == "updates"][-1] == {"step": {"done": 3}}
    run_id = sdk.created[-1]["run_id"]
    joined = f"{PREFIX}/threads/{thread}/runs/{run_id}/stream"
    assert ("GET", joined, 200) in relay.seen
    again = sdk("runs.join_stream", thread, run_id, last_event_id="0")
    assert [event.data for event in again if event.event == "updates"][-1] == {"step": {"done": 3}}


def test_graphs_see_the_headers_that_are_configured(sdk: Sdk) -> None:
    thread = sdk("threads.create")["thread_id"]
    assert sdk("runs.wait", thread, "seen", input={})["seen"] == SEEN
    assert sdk("runs.wait", None, "seen", input={})["seen"] == SEEN
    *_, last = sdk("runs.stream", thread, "seen", input={})
    assert last.data["seen"] == SEEN
    run = sdk("runs.create", thread, "seen", input={})
    assert run["kwargs"]["config"]["configurable"].items() >= SEEN.items()


def test_headers_go_beside_a_context_and_over_what_the_client_configured(http: httpx.Client) -> None:
    asked = {"assistant_id": "seen", "input": {}, "context": {"tone": "dry"}}
    assert http.post("/runs/wait", json=asked, headers=SENT).json()["seen"] == SEEN
    asked = {
        "assistant_id": "seen",
        "input": {},
        "config": {"configurable": {"x-foo-a": "mine", "x-b": "kept"}},
    }
    assert http.post("/runs/wait", json=asked, headers=SENT).json()["seen"] == {**SEEN, "x-b": "kept"}
    both = {**asked, "context": {"tone": "dry"}}
    assert http.post("/runs/wait", json=both).status_code == 400
    assert http.post("/runs/wait", json={**asked, "config": {}}).json()["seen"] == {}


def test_a_header_that_was_sent_twice_is_seen_as_one(http: httpx.Client) -> None:
    asked = {"assistant_id": "seen", "input": {}}
    twice = [("x-foo-a", "1"), ("X-Foo-A", "2")]
    assert http.post("/runs/wait", json=asked, headers=twice).json()["seen"] == {"x-foo-a": "1, 2"}


def test_each_run_of_a_batch_has_the_headers(http: httpx.Client) -> None:
    made = http.post("/runs/batch", json=[{"assistant_id": "seen", "input": {}}] * 2, headers=SENT).json()
    assert all(run["kwargs"]["config"]["configurable"].items() >= SEEN.items() for run in made)


def test_the_runs_of_a_cron_have_the_headers_that_it_was_created_with(http: httpx.Client) -> None:
    thread = http.post("/threads", json={}).json()["thread_id"]
    asked = {
        "assistant_id": "seen",
        "schedule": "@every 1s",
        "input": {},
        "context": {"tone": "dry"},
        "configurable_headers": {"x-foo-a": "forged"},
    }
    made = http.post(f"/threads/{thread}/runs/crons", json=asked, headers=SENT)
    made.raise_for_status()
    cron = made.json()
    assert cron["payload"]["configurable_headers"] == SEEN
    patch = {"input": {}, "configurable_headers": {"x-foo-a": "forged"}}
    changed = http.patch(f"/runs/crons/{cron['cron_id']}", json=patch).json()
    assert changed["payload"]["configurable_headers"] == SEEN

    def values() -> Any:
        return http.get(f"/threads/{thread}").json()["values"]

    until(lambda: values() is not None)
    http.delete(f"/runs/crons/{cron['cron_id']}").raise_for_status()
    assert values()["seen"] == SEEN


def test_a_key_makes_one_thing_with_every_client(relay: Relay, portal: BlockingPortal) -> None:
    for kind in sdks.KINDS:
        headers = {"Idempotency-Key": f"key-of-{kind}"}
        with sdks.connect(kind, relay.url + PREFIX, portal, headers=headers) as keyed:
            first, second = (keyed("threads.create", metadata={"by": kind}) for _ in range(2))
            assert first == second
            with pytest.raises(sdks.Refused) as refused:
                keyed("threads.create", metadata={"by": "another"})
            assert refused.value.status == 409
        with sdks.connect(
            kind, relay.url + PREFIX, portal, headers={"Idempotency-Key": f"run-{kind}"}
        ) as keyed:
            thread = first["thread_id"]
            for _ in range(2):
                assert keyed("runs.wait", thread, "events", input={"n": 1})["n"] == 1
            assert len({run["run_id"] for run in keyed.created}) == 1
            assert len(keyed("runs.list", thread)) == 1


def test_only_the_probes_answer_without_the_prefix(server: Server) -> None:
    for path in ("/ok", "/ready"):
        assert httpx.get(server.url + path).status_code == 200
        assert httpx.get(f"{server.url}{PREFIX}{path}").status_code == 200
    for path in ("/", "/info", "/docs", "/hello", f"{PREFIX}x", "/agents"):
        refused = httpx.get(server.url + path)
        assert (refused.status_code, refused.json()) == (404, {"detail": "Not Found"}), path
        assert refused.headers["x-request-id"]


def test_the_document_names_the_prefix_and_has_the_applications_operations(http: httpx.Client) -> None:
    document = http.get("/openapi.json").json()
    assert document["servers"] == [{"url": PREFIX}]
    assert document["paths"]["/hello"]["get"]["summary"] == "Say hello."
    assert {"get", "post"} <= document["paths"]["/threads"].keys()
    shapes = document["components"]["schemas"]
    assert "mine" not in shapes["Run"]["properties"]
    assert "mine" in shapes["Run_app"]["properties"]
    told = document["paths"]["/info"]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
    assert told == {"$ref": "#/components/schemas/Run_app"}
    page = http.get("/docs").text
    assert f'href="{PREFIX}/openapi.json"' in page
    assert "Say hello." in page


def test_its_routes_are_served_before_ours_and_see_its_state_and_the_env(http: httpx.Client) -> None:
    assert http.get("/hello").json() == {
        "greeting": "hello",
        "env": "from the manifest",
        "knows_langgraph": False,
        "url": f"{PREFIX}/hello",
    }
    assert http.get("/info").json() == {"mine": True}
    assert http.post("/threads/count", json={}).json() == -1


def test_what_shares_a_path_with_its_routes_stays_ours(http: httpx.Client) -> None:
    assert http.get("/threads").json() == "all of them"
    assert http.post("/threads", json={}).status_code == 200


def test_a_front_end_that_takes_every_path_hides_nothing(http: httpx.Client) -> None:
    assert http.get("/assistants/nope").status_code == 422
    assert http.get("/some/page").text == "front end some/page"
    assert http.get("/more/page").text == "page page"
    assert http.get("/more/items/").json() == ["item"]


def test_its_middleware_sees_every_request(http: httpx.Client) -> None:
    for path in ("/hello", "/ok", "/assistants/nope"):
        assert http.get(path).headers["x-stamp"] == "mine"
    assert http.post("/threads", json={}, headers={"x-turn-away": "1"}).status_code == 418
    streamed = http.post("/runs/stream", json={"assistant_id": "events", "input": {"n": 1}})
    assert streamed.headers["x-stamp"] == "mine"
    assert "event: values" in streamed.text


def test_a_client_that_goes_away_is_noticed_through_its_middleware(http: httpx.Client) -> None:
    thread = http.post("/threads", json={}).json()["thread_id"]
    asked = {"assistant_id": "slow", "input": {"delay": 60, "steps": 1}, "on_disconnect": "cancel"}
    with http.stream("POST", f"/threads/{thread}/runs/stream", json=asked) as response:
        next(response.iter_bytes())
    until(lambda: http.get(f"/threads/{thread}/runs").json()[0]["status"] == "interrupted")


def test_what_it_raises_is_a_500_and_the_next_request_is_answered(server: Server, http: httpx.Client) -> None:
    failed = http.get("/boom", headers={"x-foo-a": "shown", "x-foo-b": "hidden", "x-request-id": "of-boom"})
    assert failed.status_code == 500
    assert "boom" not in failed.text
    assert failed.headers["x-request-id"] == "of-boom"
    assert http.get("/hello").status_code == 200
    until(lambda: "of-boom" in server.log.read_text())
    log = server.log.read_text()
    assert "ValueError: boom" in log
    assert "shown" in log
    assert "hidden" not in log


def test_it_may_stream_and_do_things_later(http: httpx.Client) -> None:
    assert http.get("/parts").text == "0\n1\n2\n"
    http.post("/later").raise_for_status()
    assert http.get("/later").json() is True


def test_it_may_have_sockets(server: Server) -> None:
    with connect_socket(f"ws://127.0.0.1:{server.port}{PREFIX}/socket") as socket:
        socket.send("there")
        assert socket.recv() == "hello there"


@pytest.mark.parametrize("origin", ["https://app.example", "https://my.dev.example"])
def test_pages_of_the_origins_that_are_named_may_call(http: httpx.Client, origin: str) -> None:
    told = http.get("/hello", headers={"origin": origin}).headers
    assert told["access-control-allow-origin"] == origin
    assert told["access-control-allow-credentials"] == "true"
    exposed = told["access-control-expose-headers"].lower().split(", ")
    assert {"location", "content-location", "x-pagination-next", "x-stamp"} <= set(exposed)
    assert "Origin" in told["vary"]
    preflight = {"access-control-request-method": "PATCH", "access-control-request-headers": "x-api-key"}
    granted = http.options("/threads", headers={"origin": origin, **preflight})
    assert (granted.status_code, granted.headers["access-control-max-age"]) == (200, "7")
    assert granted.headers["access-control-allow-headers"] == "x-api-key"


def test_pages_of_other_origins_may_not(http: httpx.Client) -> None:
    told = http.get("/hello", headers={"origin": "https://evil.example"}).headers
    assert "access-control-allow-origin" not in told
    assert "Origin" in told["vary"]
    asked = {"origin": "https://evil.example", "access-control-request-method": "POST"}
    refused = http.options("/threads", headers=asked)
    assert (refused.status_code, refused.text) == (400, "Disallowed CORS origin")


def test_its_lifespan_is_run_once_by_each_serving_process(server: Server, notes: Path) -> None:
    first = server.serving
    assert notes.read_text().splitlines() == [f"started {first}"]
    os.kill(first, signal.SIGKILL)
    server.wait_ready()
    second = server.serving
    assert notes.read_text().splitlines() == [f"started {first}", f"started {second}"]
    until(lambda: server.log.read_text().count("node.started") == 2)
    server.stop()
    assert notes.read_text().splitlines() == [f"started {first}", f"started {second}", f"stopped {second}"]
    server.start()
