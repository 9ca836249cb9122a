"""What becomes of a run when its client goes away."""

from __future__ import annotations

from functools import partial

import httpx
import pytest

from tests.support.servers import Server
from tests.support.waiting import until
from tests.wire.compatibility import covers


def ended_at(url: str) -> str | None:
    """The status of the run there, once it has ended."""
    status: str = httpx.get(url).json()["status"]
    return None if status in {"pending", "running"} else status


@covers("RunCreate", "on_disconnect")
@covers("When a client goes away", "stream or wait", "on_disconnect: cancel")
@pytest.mark.parametrize("how", ["wait", "stream"])
@pytest.mark.parametrize("then", ["cancel", "continue", None])
def test_a_run_goes_on_without_its_client_unless_asked_not_to(
    server: Server, how: str, then: str | None
) -> None:
    delay = 600 if then == "cancel" else 1
    wanted = {"assistant_id": "slow", "input": {"delay": delay}} | ({"on_disconnect": then} if then else {})
    with httpx.Client(base_url=server.url) as client:
        thread_id = client.post("/threads", json={}).json()["thread_id"]
        with client.stream("POST", f"/threads/{thread_id}/runs/{how}", json=wanted) as response:
            place = response.headers["content-location"]
            until(lambda: httpx.get(server.url + place).json()["status"] != "pending")
        status = until(partial(ended_at, server.url + place))
        assert status == ("interrupted" if then == "cancel" else "success")


@covers("GET /threads/{thread_id}/runs/{run_id}/stream", "?cancel_on_disconnect")
@covers("GET /threads/{thread_id}/runs/{run_id}/join", "?cancel_on_disconnect")
@covers("When a client goes away", "a follower", "cancel_on_disconnect")
def test_a_run_ends_with_a_follower_when_that_is_asked(http: httpx.Client, server: Server) -> None:
    thread_id = http.post("/threads", json={}).json()["thread_id"]
    for kind, cancels, delay, status in (
        ("stream", "true", 600, "interrupted"),
        ("join", "1", 600, "interrupted"),
        ("stream", "0", 1, "success"),
    ):
        run = http.post(
            f"/threads/{thread_id}/runs", json={"assistant_id": "slow", "input": {"delay": delay}}
        ).json()
        place = f"{server.url}/threads/{thread_id}/runs/{run['run_id']}"
        with httpx.stream("GET", f"{place}/{kind}", params={"cancel_on_disconnect": cancels}) as response:
            assert response.status_code == 200
        ended = until(partial(ended_at, place))
        assert (kind, cancels, ended) == (kind, cancels, status)


@covers("GET /runs/{run_id}/join", "?cancel_on_disconnect")
@covers("GET /runs/{run_id}/stream", "?cancel_on_disconnect")
@pytest.mark.parametrize("how", ["join", "stream"])
def test_a_run_that_is_followed_by_its_id_ends_with_its_follower_when_that_is_asked(
    http: httpx.Client, server: Server, how: str
) -> None:
    wanted = {"assistant_id": "slow", "input": {"delay": 600}, "on_completion": "keep"}
    place = server.url + http.post("/runs", json=wanted).headers["content-location"]
    with httpx.stream("GET", f"{place}/{how}?cancel_on_disconnect=1") as response:
        assert response.status_code == 200
    assert until(partial(ended_at, place)) == "interrupted"
