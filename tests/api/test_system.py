from __future__ import annotations

import httpx
import pytest

from tests.wire.compatibility import covers


@pytest.mark.parametrize("path", ["/", "/ok", "/ready"])
def test_the_server_says_that_it_answers(api: httpx.Client, path: str) -> None:
    assert api.get(path).json() == {"ok": True, "services": {}}
    assert api.head(path).status_code == 200


def test_clients_learn_that_there_are_crons(api: httpx.Client) -> None:
    told = api.get("/info").json()
    assert told["flags"]["crons"] is True
    assert told["flags"]["assistants"] is True


def test_an_unknown_path_is_not_found(api: httpx.Client) -> None:
    response = api.get("/nope")
    assert (response.status_code, response.json()) == (404, {"detail": "Not Found"})


def test_a_wrong_method_names_the_right_ones(api: httpx.Client) -> None:
    response = api.put("/runs/crons/7")
    assert (response.status_code, response.json()) == (405, {"detail": "Method Not Allowed"})
    assert {each.strip() for each in response.headers["allow"].split(",")} >= {"GET", "PATCH", "DELETE"}


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/runs/crons"),
        ("GET", "/runs/batch"),
        ("PATCH", "/assistants/search"),
        ("DELETE", "/threads/count"),
        ("PATCH", "/runs/crons/count"),
        ("GET", "/threads/0194a6c0-0000-7000-8000-00000000dead/runs/wait"),
        ("GET", "/threads/0194a6c0-0000-7000-8000-00000000dead/state/checkpoint"),
    ],
)
def test_the_name_of_an_operation_is_no_id_of_another(api: httpx.Client, method: str, path: str) -> None:
    response = api.request(method, path)
    assert (response.status_code, response.json()) == (405, {"detail": "Method Not Allowed"})
    assert response.headers["allow"] == "POST"


@covers("Requests and answers", "vary:")
def test_pages_of_any_origin_may_ask_and_see_where_a_stream_goes_on(api: httpx.Client) -> None:
    response = api.get("/ok", headers={"origin": "https://somewhere.example"})
    assert response.headers["access-control-allow-origin"] == "*"
    assert "access-control-allow-credentials" not in response.headers
    exposed = response.headers["access-control-expose-headers"].lower().split(", ")
    assert {"content-location", "location", "x-pagination-total", "x-pagination-next"} <= set(exposed)
    assert response.headers["vary"] == "Origin"
    assert api.get("/ok").headers["vary"] == "Origin"


def test_a_preflight_is_granted(api: httpx.Client) -> None:
    response = api.options(
        "/threads",
        headers={
            "origin": "https://somewhere.example",
            "access-control-request-method": "POST",
            "access-control-request-headers": "x-api-key",
        },
    )
    assert response.status_code == 200
    assert response.headers["access-control-allow-headers"] == "x-api-key"


def test_a_body_that_announces_too_much_is_refused(api: httpx.Client) -> None:
    response = api.post("/threads", content=b" " * (33 * 2**20), headers={"content-type": "application/json"})
    assert response.status_code == 413


def test_a_body_that_grows_too_large_is_refused(api: httpx.Client) -> None:
    response = api.post("/threads", content=(b" " * 2**20 for _ in range(33)))
    assert response.status_code == 413


def test_a_request_keeps_its_id(api: httpx.Client) -> None:
    assert api.get("/ok", headers={"x-request-id": "mine"}).headers["x-request-id"] == "mine"
    assert api.get("/ok").headers["x-request-id"] != api.get("/ok").headers["x-request-id"]
