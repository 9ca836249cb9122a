"""What a cron's runs see of their thread."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.support.waiting import until
from tests.wire.compatibility import covers

SAID: dict[str, Any] = {"messages": [{"role": "user", "content": "tick"}]}
LEAST: dict[str, Any] = {"assistant_id": "echo", "schedule": "0 0 1 1 *", "input": SAID}


@pytest.fixture
def thread(http: httpx.Client) -> str:
    thread_id: str = http.post("/threads", json={}).json()["thread_id"]
    return thread_id


@pytest.fixture
def made(http: httpx.Client) -> Iterator[list[str]]:
    """The crons that a test has made; they go with it."""
    crons: list[str] = []
    yield crons
    for cron_id in crons:
        http.delete(f"/runs/crons/{cron_id}")


def create(http: httpx.Client, thread_id: str | None, policy: dict[str, Any], **asked: Any) -> httpx.Response:
    path = f"/threads/{thread_id}/runs/crons" if thread_id else "/runs/crons"
    return http.post(path, json={**LEAST, "policy": policy, **asked})


def fire(http: httpx.Client, cron_id: str) -> dict[str, Any]:
    """Fire a cron, and give what the ledger says of it in the end."""
    started = http.post(f"/runs/crons/{cron_id}/trigger")
    assert started.status_code == 202, started.text
    run_id = started.json()["run_id"]

    def ended() -> Any:
        found = http.get(f"/runs/crons/{cron_id}/fires?limit=1000").json()
        return next((each for each in found if each["run_id"] == run_id and each["ended_at"]), None)

    found: dict[str, Any] = until(ended)
    return found


def contents(http: httpx.Client, thread_id: str) -> list[str]:
    state = http.get(f"/threads/{thread_id}/state").json()
    return [message["content"] for message in state["values"].get("messages", [])]


@covers("Policy", "context_policy", "last_n")
def test_a_run_sees_as_much_of_its_thread_as_its_cron_has_it(
    http: httpx.Client, thread: str, made: list[str]
) -> None:
    for policy, seen in (
        ({"last_n": 2}, ["tick", "tick"]),
        ({"context_policy": "append"}, ["tick"] * 8),
        ({"context_policy": "fresh"}, []),
    ):
        response = create(http, thread, policy)
        assert response.status_code == 200, response.text
        made.append(response.json()["cron_id"])
        for _ in range(3):
            assert fire(http, made[-1])["status"] == "success"
            until(lambda: http.get(f"/threads/{thread}").json()["status"] == "idle")
        assert contents(http, thread) == [*seen, "tick", "tick"]
    history = http.get(f"/threads/{thread}/history?limit=1000").json()
    assert max(len(each["values"].get("messages", [])) for each in history) == 10, "nothing is lost"


@covers("Policy", "context_policy: fork")
def test_a_fork_leaves_the_thread_to_a_person_and_posts_what_it_said(
    http: httpx.Client, thread: str, made: list[str]
) -> None:
    response = create(http, thread, {"context_policy": "fork"})
    made.append(response.json()["cron_id"])
    assert response.json()["policy"]["overlap"] == "queue_one"
    asked = {"assistant_id": "echo", "input": {"messages": [{"role": "user", "content": "Hello"}]}}
    http.post(f"/threads/{thread}/runs/wait", json=asked).raise_for_status()
    waiting = http.post(f"/threads/{thread}/runs", json={**asked, "after_seconds": 600}).json()["run_id"]
    fired = fire(http, made[0])
    assert (fired["status"], fired["output"]) == ("success", "tick")
    assert fired["thread_id"] != thread
    assert http.get(f"/threads/{fired['thread_id']}").status_code == 404
    assert contents(http, thread) == ["Hello", "Hello"], "it waits behind what is queued"
    http.delete(f"/threads/{thread}/runs/{waiting}").raise_for_status()
    until(lambda: http.get(f"/threads/{thread}").json()["status"] == "idle")
    assert contents(http, thread) == ["Hello", "Hello", "tick"]
    [posting] = [run for run in http.get(f"/threads/{thread}/runs").json() if "posted_by" in run["metadata"]]
    assert (posting["status"], posting["metadata"]["posted_by"]) == ("success", fired["run_id"])
    http.post(f"/threads/{thread}/runs/wait", json=asked).raise_for_status()
    assert contents(http, thread) == ["Hello", "Hello", "tick", "Hello", "Hello"]


@pytest.mark.parametrize(
    ("has_thread", "policy", "asked", "detail"),
    [
        (False, {"context_policy": "fresh"}, {}, "policy.context_policy: 'fresh' needs a cron on a thread"),
        (False, {"last_n": 3}, {}, "policy.context_policy: 'last_n' needs a cron on a thread"),
        (True, {"context_policy": "last_n"}, {}, "policy.last_n"),
        (True, {"context_policy": "fork", "last_n": 3}, {}, "policy.last_n"),
        (True, {"last_n": 0}, {}, "last_n"),
        (True, {"context_policy": "all"}, {}, "context_policy"),
        (True, {"last_n": 3}, {"assistant_id": "ask"}, "policy.context_policy: 'last_n' needs a graph"),
        (
            True,
            {"context_policy": "fork"},
            {"assistant_id": "slow"},
            "policy.context_policy: 'fork' needs a graph",
        ),
        (True, {"last_n": 3, "overlap": "allow"}, {}, "policy.overlap: 'allow' cannot be"),
    ],
)
def test_what_cannot_be_is_refused_and_names_the_field(
    http: httpx.Client, thread: str, has_thread: bool, policy: Any, asked: Any, detail: str
) -> None:
    response = create(http, thread if has_thread else None, policy, **asked)
    assert response.status_code == 422, response.text
    assert detail in response.json()["detail"]


def test_a_graph_without_messages_may_begin_with_nothing_but_a_change_cannot_cut_it(
    http: httpx.Client, thread: str, made: list[str]
) -> None:
    response = create(http, thread, {"context_policy": "fresh", "overlap": "skip"}, assistant_id="ask")
    assert response.status_code == 200, response.text
    made.append(response.json()["cron_id"])
    for policy in ({"context_policy": "last_n", "last_n": 3}, {"context_policy": "fork"}):
        changed = http.patch(f"/runs/crons/{made[0]}", json={"policy": policy})
        assert changed.status_code == 422, changed.text
        assert "policy.context_policy" in changed.json()["detail"]
    assert http.patch(f"/runs/crons/{made[0]}", json={"policy": {"grace_seconds": 5}}).status_code == 200
    made.append(create(http, thread, {}).json()["cron_id"])
    changed = http.patch(f"/runs/crons/{made[1]}", json={"policy": {"last_n": 3}})
    assert (changed.status_code, changed.json()["policy"]["last_n"]) == (200, 3)
    changed = http.patch(
        f"/runs/crons/{made[1]}", json={"policy": {"last_n": None, "context_policy": "fork"}}
    )
    assert (changed.status_code, changed.json()["policy"]["overlap"]) == (200, "queue_one")


@covers("Answer", "resume_with")
def test_what_a_run_asks_is_answered_by_its_cron(http: httpx.Client, thread: str, made: list[str]) -> None:
    policy = {"on_interrupt": {"resume_with": "Ada"}}
    for on in (thread, None):
        response = create(http, on, policy, assistant_id="ask", input={"question": "Your name?"})
        assert response.status_code == 200, response.text
        assert response.json()["policy"]["on_interrupt"] == policy["on_interrupt"]
        made.append(response.json()["cron_id"])
        fired = fire(http, made[-1])
        assert fired["status"] == "success"
        assert "Thank you, Ada." in fired["output"]
    assert http.get(f"/threads/{thread}").json()["status"] == "idle"
    assert http.get(f"/threads/{thread}/state").json()["values"]["answer"] == "Thank you, Ada."
