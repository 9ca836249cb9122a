"""What a cron may spend, as its users see it: on its fires, on itself, and at its webhook."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import httpx
import pytest

from tests.support import sinks
from tests.support.sinks import Sink
from tests.support.waiting import until
from tests.wire.compatibility import covers

SAID = {"messages": [{"role": "user", "content": "hello there"}]}
SPENT = ("retries", "model_calls", "input_tokens", "output_tokens", "tokens", "cost_usd")


@pytest.fixture
def sink() -> Iterator[Sink]:
    with sinks.start() as running:
        yield running


@pytest.fixture
def made(http: httpx.Client) -> Iterator[list[str]]:
    crons: list[str] = []
    yield crons
    for cron_id in crons:
        http.delete(f"/runs/crons/{cron_id}")


def create(http: httpx.Client, made: list[str], **asked: Any) -> str:
    body = {"assistant_id": "chat", "schedule": "@every 1s", "input": SAID, **asked}
    cron_id: str = http.post("/runs/crons", json=body).raise_for_status().json()["cron_id"]
    made.append(cron_id)
    return cron_id


@covers("Fire", *SPENT)
@covers("Cron", "tokens_7d", "cost_usd_7d")
@covers("Policy", "max_runs", "budget_tokens", "budget_window", "on_budget")
def test_a_fire_shows_what_it_took_and_its_cron_stops_at_its_budget(
    http: httpx.Client, made: list[str]
) -> None:
    policy = {"max_runs": 5, "budget_tokens": 1, "budget_window": "month", "on_budget": "finish"}
    cron_id = create(http, made, policy=policy)
    paused = until(lambda: (cron := http.get(f"/runs/crons/{cron_id}").json()).get("paused_reason") and cron)
    assert paused["paused_reason"].startswith("budget_tokens: ")
    assert paused["policy"] == {**paused["policy"], **policy}
    [fire] = until(
        lambda: [
            each for each in http.get(f"/runs/crons/{cron_id}/fires").json() if each["status"] == "success"
        ]
    )
    assert (fire["model_calls"], fire["retries"]) == (1, 0)
    assert fire["tokens"] == fire["input_tokens"] + fire["output_tokens"] > 0
    shown = http.get(f"/runs/crons/{cron_id}").json()
    assert (shown["tokens_7d"], shown["cost_usd_7d"]) == (fire["tokens"], fire["cost_usd"])


@covers("Delivery", "cron_id")
def test_a_pause_is_told_to_the_webhook_of_the_cron(http: httpx.Client, made: list[str], sink: Sink) -> None:
    path = f"/{uuid4().hex}"
    cron_id = create(http, made, webhook=sink.url(path), policy={"max_runs": 1}, metadata={"team": "x"})
    received = until(lambda: [each for each in sink.of(path) if each.body.get("type") == "cron.paused"])
    told = received[0].body
    assert told["data"]["cron_id"] == cron_id
    assert (told["data"]["reason"], told["data"]["metadata"]) == ("max_runs: 1 of 1 were made", {"team": "x"})
    deliveries = http.get("/webhooks/deliveries", params={"limit": 1000}).json()
    [delivery] = [each for each in deliveries if each["cron_id"] == cron_id]
    assert (delivery["run_id"], delivery["delivery_id"]) == (None, received[0].id)


@covers(
    "Policy",
    *("max_run_seconds", "budget_usd", "retry", "pause_after_failures", "on_interrupt"),
)
@covers("Retry", "max", "backoff")
@covers("Answer", "cancel_after")
def test_what_a_policy_says_is_shown(http: httpx.Client, made: list[str]) -> None:
    policy = {
        "max_run_seconds": 60.0,
        "budget_usd": 2.5,
        "retry": {"max": 3, "backoff": 2.0},
        "pause_after_failures": 5,
        "on_interrupt": {"cancel_after": 3600.0},
    }
    cron_id = create(http, made, schedule="0 0 1 1 *", policy=policy)
    shown = http.get(f"/runs/crons/{cron_id}").json()["policy"]
    assert shown == {**shown, **policy}
    flat = http.post(
        '/runs/crons?retry={"max":2}&max_runs=7&on_interrupt=skip_next',
        json={"assistant_id": "chat", "schedule": "0 0 1 1 *"},
    ).json()
    made.append(flat["cron_id"])
    assert (flat["policy"]["retry"], flat["policy"]["max_runs"]) == ({"max": 2, "backoff": 1.0}, 7)
    assert flat["policy"]["on_interrupt"] == "skip_next"
