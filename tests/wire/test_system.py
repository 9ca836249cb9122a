from __future__ import annotations

import httpx
import pytest

from matins import __version__
from matins.api.app import OPERATIONS
from tests.support.servers import Server
from tests.wire.compatibility import covers


@covers("GET /", "200")
@covers("GET /ok", "200")
@covers("GET /ready", "200")
@covers("Ok", "ok", "services")
@pytest.mark.parametrize("path", ["/", "/ok", "/ready"])
def test_the_server_says_that_it_is_there(http: httpx.Client, path: str) -> None:
    response = http.get(path)
    assert (response.status_code, response.content) == (200, b'{"ok":true,"services":{}}')
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-request-id"]


@covers("Requests and answers", "a HEAD")
def test_a_head_request_is_answered_without_a_body(server: Server) -> None:
    response = httpx.head(f"{server.url}/ok")
    assert (response.status_code, response.content) == (200, b"")


@covers("Requests and answers", "x-request-id:")
def test_a_request_keeps_the_id_that_it_was_given(http: httpx.Client) -> None:
    assert http.get("/ok", headers={"x-request-id": "mine"}).headers["x-request-id"] == "mine"


@covers("GET /info", "200")
@covers("Info", "version", "langgraph_py_version", "flags", "host")
def test_the_server_tells_clients_that_it_has_crons(http: httpx.Client) -> None:
    info = http.get("/info").json()
    assert info["version"] == __version__
    assert info["langgraph_py_version"]
    assert info["flags"]["crons"] is True
    assert info["flags"]["assistants"] is True
    assert info["host"]["kind"] == "self-hosted"


@covers("GET /openapi.json", "200")
def test_the_document_describes_every_operation(http: httpx.Client) -> None:
    document = http.get("/openapi.json").json()
    assert document["openapi"].startswith("3.1")
    described = {(method.upper(), path) for path, item in document["paths"].items() for method in item}
    assert described == {(operation.method, operation.path) for operation in OPERATIONS}


@covers("GET /docs", "200")
def test_the_documentation_can_be_read_in_a_browser(http: httpx.Client) -> None:
    response = http.get("/docs")
    assert response.headers["content-type"].startswith("text/html")
    assert all(operation.path in response.text for operation in OPERATIONS)


@covers("Defects", "pages of other origins do not see Location")
def test_pages_of_other_origins_may_call_and_see_where_a_run_is(http: httpx.Client) -> None:
    response = http.get("/ok", headers={"origin": "https://app.example"})
    assert response.headers["access-control-allow-origin"] == "*"
    exposed = response.headers["access-control-expose-headers"].lower()
    for name in ("content-location", "location", "x-pagination-total", "x-pagination-next"):
        assert name in exposed.split(", ")


@covers("Requests and answers", "an OPTIONS of another origin")
def test_a_preflight_is_answered(http: httpx.Client) -> None:
    response = http.request(
        "OPTIONS",
        "/threads",
        headers={
            "origin": "https://app.example",
            "access-control-request-method": "POST",
            "access-control-request-headers": "x-api-key,content-type,last-event-id",
            "access-control-request-private-network": "true",
        },
    )
    assert response.status_code == 200
    assert "x-api-key" in response.headers["access-control-allow-headers"].lower()
    assert response.headers["access-control-allow-private-network"] == "true"
