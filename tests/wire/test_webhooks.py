from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import psycopg
import pytest
from standardwebhooks import Webhook

from matins import __version__
from matins.domain.webhooks import MOST_TRIES
from matins.engine.webhooks.courier import AT_ONCE_PER_HOST
from tests.support import sinks
from tests.support.servers import free_port
from tests.support.sinks import Received, Sink
from tests.support.waiting import until
from tests.wire.compatibility import covers
from tests.wire.sdks import Refused, Sdk

SAID = {"messages": [{"role": "user", "content": "hi"}]}
ENV = json.loads((Path(__file__).parent / "graphs" / "langgraph.json").read_text())["env"]
SECRETS = ENV["MATINS_WEBHOOK_SECRET"].split()
Rows = psycopg.Connection[tuple[Any, ...]]


@pytest.fixture(scope="module")
def everyone() -> Iterator[Sink]:
    with sinks.start() as running:
        yield running


@pytest.fixture
def sink(everyone: Sink) -> Iterator[Sink]:
    """The sink of all tests here, doing again as it should once one is done."""
    yield everyone
    everyone.behaviour.clear()


@pytest.fixture
def path() -> str:
    """A place at the sink that no other test uses."""
    return f"/{uuid4().hex}"


def deliveries(http: httpx.Client, **query: Any) -> list[dict[str, Any]]:
    response = http.get("/webhooks/deliveries", params={"limit": 1000, **query})
    assert response.status_code == 200, response.text
    found: list[dict[str, Any]] = response.json()
    return found


def delivery(http: httpx.Client, run_id: str) -> dict[str, Any]:
    """The one delivery of a run, which is there as soon as the run has ended."""
    [found] = until(lambda: deliveries(http, run_id=run_id))
    delivered: dict[str, Any] = found
    return delivered


def start(http: httpx.Client, url: str, graph: str = "echo", **asked: Any) -> dict[str, Any]:
    """Create a run on a thread of its own."""
    response = http.post("/runs", json={"assistant_id": graph, "input": SAID, "webhook": url, **asked})
    assert response.status_code == 200, response.text
    made: dict[str, Any] = response.json()
    return made


def let_it_be_due(stored: Rows, run_id: str) -> None:
    """Let the time pass for which a delivery waits before it is tried again."""
    stored.execute(
        "UPDATE matins.webhook_delivery SET next_attempt_at = matins.now() WHERE run_id = %s", [run_id]
    )


def is_instant(text: str) -> bool:
    moment = datetime.fromisoformat(text)
    return text == moment.isoformat(timespec="microseconds") and text.endswith("+00:00")


def is_signed(request: Received) -> bool:
    """Whether each of the server's secrets has signed it, as a receiver checks who knows one of them."""
    for secret in SECRETS:
        Webhook(secret).verify(request.raw, request.headers)
    return True


# -- what is delivered


@covers("RunCreate", "webhook")
def test_a_run_on_a_thread_reports_what_it_left(sdk: Sdk, sink: Sink, path: str) -> None:
    thread = sdk("threads.create")["thread_id"]
    run = sdk("runs.create", thread, "echo", input=SAID, metadata={"m": "ü"}, webhook=sink.url(path))
    [request] = sink.wait_for(path)
    told = request.body
    shown = until(lambda: (found := sdk("runs.get", thread, run["run_id"]))["status"] == "success" and found)
    assert list(told) == [
        *shown,
        *("run_started_at", "run_ended_at", "values", "webhook_sent_at"),
    ]
    assert {name: told[name] for name in shown} == shown
    assert told["kwargs"]["webhook"] == sink.url(path)
    assert told["values"] == sdk("threads.get_state", thread)["values"]
    times = ["created_at", "run_started_at", "run_ended_at", "webhook_sent_at"]
    assert all(is_instant(told[name]) for name in times)
    assert [told[name] for name in times] == sorted(told[name] for name in times)
    assert request.headers["content-type"] == "application/json"
    assert request.headers["user-agent"] == f"matins/{__version__}"
    assert request.headers["authorization"] == "Bearer of-the-tests"
    assert is_signed(request)


def test_a_run_without_a_thread_reports_and_is_gone(sdk: Sdk, sink: Sink, path: str) -> None:
    state = sdk("runs.wait", None, "echo", input=SAID, webhook=sink.url(path))
    [request] = sink.wait_for(path)
    assert (request.body["status"], request.body["values"]) == ("success", state)
    assert request.body["kwargs"]["temporary"] is True
    with pytest.raises(Refused):
        sdk("threads.get", request.body["thread_id"])


def test_a_batch_reports_each_of_its_runs(http: httpx.Client, sink: Sink, path: str) -> None:
    asked = {"assistant_id": "echo", "input": SAID, "webhook": sink.url(path)}
    made = http.post("/runs/batch", json=[asked, asked]).json()
    assert {each.body["run_id"] for each in sink.wait_for(path, 2)} == {run["run_id"] for run in made}


@covers("OfRuns", "webhook")
def test_the_run_of_a_cron_reports(sdk: Sdk, stored: Rows, sink: Sink, path: str) -> None:
    cron = sdk("crons.create", "echo", schedule="0 0 1 1 *", input=SAID, webhook=sink.url(path))
    assert cron["payload"]["webhook"] == sink.url(path)
    stored.execute(
        "UPDATE matins.cron SET (next_run_date, due_at) = (SELECT now, now FROM matins.now() AS now)"
        " WHERE cron_id = %s",
        [cron["cron_id"]],
    )
    [request] = sink.wait_for(path)
    assert request.body["metadata"]["cron_id"] == cron["cron_id"]
    assert (request.body["status"], request.body["kwargs"]["temporary"]) == ("success", True)
    sdk("crons.delete", cron["cron_id"])


def test_a_cron_can_be_given_another_webhook(sdk: Sdk, stored: Rows, sink: Sink, path: str) -> None:
    cron = sdk("crons.create", "echo", schedule="0 0 1 1 *", input=SAID)
    changed = sdk("crons.update", cron["cron_id"], webhook=sink.url(path))
    assert changed["payload"]["webhook"] == sink.url(path)
    for refused in ("http://10.1.2.3/", "ftp://example.com"):
        with pytest.raises(Refused) as error:
            sdk("crons.update", cron["cron_id"], webhook=refused)
        assert error.value.status == 422
    stored.execute(
        "UPDATE matins.cron SET (next_run_date, due_at) = (SELECT now, now FROM matins.now() AS now)"
        " WHERE cron_id = %s",
        [cron["cron_id"]],
    )
    sink.wait_for(path)
    sdk("crons.delete", cron["cron_id"])


def test_a_run_that_fails_reports_why(http: httpx.Client, sink: Sink, path: str) -> None:
    start(http, sink.url(path), "failing", input={"x": 1})
    told = sink.wait_for(path)[0].body
    assert told["status"] == "error"
    assert told["error"] == {"error": "ValueError", "message": "boom happened"}
    assert told["values"] == {"x": 1}


@covers("Defects", "the webhook of a run that asked something does not say so")
def test_a_run_that_asks_reports_what_it_asks(http: httpx.Client, sink: Sink, path: str) -> None:
    thread = http.post("/threads", json={}).json()["thread_id"]
    asked = {"assistant_id": "ask", "input": {"question": "Your name?"}, "webhook": sink.url(path)}
    state = http.post(f"/threads/{thread}/runs/wait", json=asked).json()
    told = sink.wait_for(path)[0].body
    assert told["status"] == "success"
    assert told["__interrupt__"] == state["__interrupt__"]
    assert told["values"] == {"question": "Your name?"}
    answered = {"assistant_id": "ask", "command": {"resume": "Ada"}, "webhook": sink.url(path)}
    http.post(f"/threads/{thread}/runs/wait", json=answered)
    told = sink.wait_for(path, 2)[1].body
    assert "__interrupt__" not in told
    assert told["values"]["answer"] == "Thank you, Ada."


def test_a_run_that_is_cancelled_while_it_waits_reports_the_state_without_it(
    http: httpx.Client, sink: Sink, path: str
) -> None:
    thread = http.post("/threads", json={}).json()["thread_id"]
    before = http.post(f"/threads/{thread}/runs/wait", json={"assistant_id": "echo", "input": SAID}).json()
    run = http.post(
        f"/threads/{thread}/runs",
        json={"assistant_id": "echo", "input": SAID, "after_seconds": 3600, "webhook": sink.url(path)},
    ).json()
    assert http.post(f"/threads/{thread}/runs/{run['run_id']}/cancel").status_code == 202
    told = sink.wait_for(path)[0].body
    assert (told["status"], told["run_started_at"], told["values"]) == ("interrupted", None, before)
    assert is_instant(told["run_ended_at"])


def test_a_run_without_a_thread_that_is_cancelled_while_it_waits_reports_too(
    http: httpx.Client, sink: Sink, path: str
) -> None:
    run = start(http, sink.url(path), after_seconds=3600)
    http.post(f"/threads/{run['thread_id']}/runs/{run['run_id']}/cancel")
    told = sink.wait_for(path)[0].body
    assert (told["run_id"], told["status"], told["values"]) == (run["run_id"], "interrupted", {})


def test_a_run_that_is_cancelled_while_it_runs_reports_how_far_it_came(
    http: httpx.Client, sink: Sink, path: str
) -> None:
    thread = http.post("/threads", json={}).json()["thread_id"]
    asked = {"assistant_id": "slow", "input": {"delay": 600, "steps": 2}, "webhook": sink.url(path)}
    run = http.post(f"/threads/{thread}/runs", json=asked).json()
    place = f"/threads/{thread}/runs/{run['run_id']}"
    until(lambda: http.get(f"/threads/{thread}/state").json()["values"].get("done") == 0)
    http.post(f"{place}/cancel", params={"wait": 1})
    told = sink.wait_for(path)[0].body
    assert (told["status"], told["values"]["done"]) == ("interrupted", 0)
    assert "error" not in told


def test_a_run_that_is_deleted_reports_nothing(http: httpx.Client, sink: Sink, path: str) -> None:
    thread = http.post("/threads", json={}).json()["thread_id"]
    asked = {"assistant_id": "echo", "input": SAID, "after_seconds": 3600, "webhook": sink.url(path)}
    run = http.post(f"/threads/{thread}/runs", json=asked).json()
    assert http.delete(f"/threads/{thread}/runs/{run['run_id']}").status_code == 204
    assert deliveries(http, run_id=run["run_id"]) == []


def test_what_is_still_to_be_delivered_goes_with_its_thread_and_with_its_run(
    http: httpx.Client, sink: Sink, path: str
) -> None:
    sink.behaviour[path] = 500
    for gone in ("/threads/{thread_id}", "/threads/{thread_id}/runs/{run_id}"):
        thread = http.post("/threads", json={}).json()["thread_id"]
        asked = {"assistant_id": "echo", "input": SAID, "webhook": sink.url(path)}
        run = http.post(f"/threads/{thread}/runs", json=asked).json()
        until(lambda run=run: [each for each in deliveries(http, run_id=run["run_id"]) if each["last_error"]])  # type: ignore[misc]
        assert http.delete(gone.format(**run)).status_code == 204
        assert deliveries(http, run_id=run["run_id"]) == []


def test_values_that_no_json_can_hold_are_reported_as_the_api_shows_them(
    http: httpx.Client, sink: Sink, path: str
) -> None:
    states = [
        http.post(
            "/runs/wait", json={"assistant_id": "odd", "input": {"which": which}, "webhook": sink.url(path)}
        ).json()
        for which in ("nul", "nan", "infinity", "bytes", "keys")
    ]
    told = sink.wait_for(path, len(states))
    assert sorted(map(repr, (each.body["values"] for each in told))) == sorted(map(repr, states))
    assert all(is_signed(each) for each in told)


# -- a sink that does not do as it should


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        (500, "it answered 500"),
        (404, "it answered 404"),
        ("redirect", "it answered 302"),
        ("drop", "the connection broke before an answer came"),
        ("babble", "the connection broke before an answer came"),
    ],
)
def test_what_is_not_taken_is_tried_again_with_the_same_id(
    http: httpx.Client,
    stored: Rows,
    sink: Sink,
    path: str,
    behaviour: sinks.Behaviour,
    reason: str,
) -> None:
    sink.behaviour[path] = behaviour
    run = start(http, sink.url(path))
    failed = until(lambda: (found := delivery(http, run["run_id"]))["last_error"] and found)
    assert (failed["status"], failed["attempts"], failed["last_error"]) == ("pending", 1, reason)
    assert failed["thread_id"] is None
    assert is_instant(failed["next_attempt_at"])
    assert sink.of("/elsewhere") == []
    del sink.behaviour[path]
    let_it_be_due(stored, run["run_id"])
    first, second = sink.wait_for(path, 2)
    assert first.id == second.id == failed["delivery_id"]
    assert {**first.body, "webhook_sent_at": ""} == {**second.body, "webhook_sent_at": ""}
    assert first.body["webhook_sent_at"] < second.body["webhook_sent_at"]
    assert is_signed(second)
    done = until(lambda: (found := delivery(http, run["run_id"]))["status"] == "delivered" and found)
    assert (done["attempts"], done["last_error"], done["next_attempt_at"]) == (2, None, None)


def test_a_sink_that_is_down_is_told_when_it_is_up(http: httpx.Client, stored: Rows, path: str) -> None:
    port = free_port()
    run = start(http, f"http://127.0.0.1:{port}{path}")
    failed = until(lambda: (found := delivery(http, run["run_id"]))["last_error"] and found)
    assert failed["last_error"].startswith("it cannot be reached: ")
    with sinks.start(port=port) as up:
        let_it_be_due(stored, run["run_id"])
        assert up.wait_for(path)[0].id == failed["delivery_id"]


def test_an_answer_without_an_end_is_an_answer(http: httpx.Client, sink: Sink, path: str) -> None:
    sink.behaviour[path] = "flood"
    run = start(http, sink.url(path))
    assert until(lambda: delivery(http, run["run_id"])["status"] == "delivered")


def test_a_sink_that_hangs_holds_up_no_run_and_no_other_sink(
    http: httpx.Client, everyone: Sink, path: str
) -> None:
    with sinks.start() as hanging:
        hanging.behaviour[path] = "hang"
        for _ in range(12):  # more than are ever sent to one host at once
            started = http.post(
                "/runs/wait",
                json={"assistant_id": "echo", "input": SAID, "webhook": hanging.url(path, host="localhost")},
            )
            assert started.status_code == 200
        hanging.wait_for(path)
        run = start(http, everyone.url(path))
        everyone.wait_for(path)
        assert until(lambda: delivery(http, run["run_id"])["status"] == "delivered")
        assert len(hanging.of(path)) <= AT_ONCE_PER_HOST < 12
        waiting = [each for each in deliveries(http, status="pending") if f":{hanging.port}/" in each["url"]]
        assert len(waiting) == 12


@covers("Delivery", "*")
@covers("POST /webhooks/deliveries/{delivery_id}/replay", "200")
def test_after_the_last_try_it_is_dead_and_can_be_replayed(
    http: httpx.Client, stored: Rows, sink: Sink, path: str
) -> None:
    sink.behaviour[path] = 501
    run = start(http, sink.url(path))
    for tries in range(1, MOST_TRIES + 1):
        answered = f"it answered {500 + tries}"
        until(lambda said=answered: delivery(http, run["run_id"])["last_error"] == said)  # type: ignore[misc]
        sink.behaviour[path] = 501 + tries
        let_it_be_due(stored, run["run_id"])
    dead = delivery(http, run["run_id"])
    assert (dead["status"], dead["attempts"], dead["last_error"]) == ("dead", MOST_TRIES, "it answered 510")
    assert is_instant(dead["dead_at"])
    assert dead["delivery_id"] in [each["delivery_id"] for each in deliveries(http, status="dead")]

    del sink.behaviour[path]
    replayed = http.post(f"/webhooks/deliveries/{dead['delivery_id']}/replay")
    assert (replayed.status_code, replayed.json()["status"]) == (200, "pending")
    received = sink.wait_for(path, MOST_TRIES + 1)
    assert {each.id for each in received} == {dead["delivery_id"]}
    done = until(lambda: (found := delivery(http, run["run_id"]))["status"] == "delivered" and found)
    assert (done["attempts"], done["dead_at"]) == (1, None)
    assert dead["delivery_id"] in [each["delivery_id"] for each in deliveries(http, status="delivered")]


# -- the routes


@covers("GET /webhooks/deliveries", "200", "?limit", "?offset", "?status", "?run_id")
def test_what_was_delivered_is_listed_in_pages(http: httpx.Client, sink: Sink, path: str) -> None:
    runs = [start(http, sink.url(path)) for _ in range(3)]
    sink.wait_for(path, 3)
    first = http.get("/webhooks/deliveries", params={"limit": 1})
    assert len(first.json()) == 1
    assert first.headers["x-pagination-next"] == "1"
    assert int(first.headers["x-pagination-total"]) >= 3
    listed = [each["run_id"] for each in deliveries(http)]
    assert [run_id for run_id in listed if run_id in {run["run_id"] for run in runs}] == [
        run["run_id"] for run in sorted(runs, key=lambda run: listed.index(run["run_id"]))
    ]
    assert len(deliveries(http, offset=1)) == len(listed) - 1


def test_a_delivery_that_is_pending_is_not_replayed(http: httpx.Client, sink: Sink, path: str) -> None:
    sink.behaviour[path] = 500
    run = start(http, sink.url(path))
    pending = until(lambda: (found := delivery(http, run["run_id"]))["last_error"] and found)
    refused = http.post(f"/webhooks/deliveries/{pending['delivery_id']}/replay")
    assert refused.status_code == 409
    assert "is pending" in refused.json()["detail"]


@pytest.mark.parametrize(
    ("method", "place", "status"),
    [
        ("GET", "?status=zzz", 422),
        ("GET", "?run_id=abc", 422),
        ("GET", "?limit=0", 422),
        ("GET", "?limit=1001", 422),
        ("GET", "?limit=abc", 400),
        ("GET", "?offset=-1", 422),
        ("POST", "/abc/replay", 422),
        ("POST", "/0194a6c0-0000-7000-8000-00000000dead/replay", 404),
    ],
)
def test_what_makes_no_sense_is_refused(http: httpx.Client, method: str, place: str, status: int) -> None:
    response = http.request(method, f"/webhooks/deliveries{place}")
    assert (response.status_code, bool(response.json()["detail"])) == (status, True)
