"""Whatever comes in, the answer is a success or a refusal, nothing is half written, and every list still answers."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import httpx
import pytest

from tests.support.servers import Server
from tests.wire.compatibility import covers

Rows = Callable[[], dict[str, int]]

BAD_JSON: dict[str, bytes] = {
    "nul in a value": rb'{"metadata":{"a":"x\u0000y"},"values":{"a":"\u0000"}}',
    "nul in a key": rb'{"metadata":{"a\u0000":1},"values":{"\u0000":1}}',
    "raw nul": b'{"metadata":{"a":"x\0y"},"values":{}}',
    "lone surrogate": rb'{"metadata":{"a":"\ud800"},"values":{"a":"\udfff"}}',
    "surrogate as utf-8": b'{"metadata":{"a":"\xed\xa0\x80"},"values":{}}',
    "nan": b'{"metadata":{"a":NaN},"values":{"a":NaN}}',
    "infinity": b'{"metadata":{"a":-Infinity},"values":{"a":Infinity}}',
    "2^64": b'{"metadata":{"a":18446744073709551616},"values":{"a":18446744073709551616}}',
    "-2^63-1": b'{"metadata":{"a":-9223372036854775809},"values":{"a":-9223372036854775809}}',
    "5000 digits": b'{"metadata":{"a":' + b"9" * 5000 + b"}}",
    "1e400": b'{"metadata":{"a":1e400},"values":{"a":1e400}}',
    "1e131071": b'{"metadata":{"a":1e131071},"values":{"a":1e131071}}',
    "depth 65": b'{"metadata":{"a":' + b"[" * 64 + b"]" * 64 + b"}}",
    "depth 1025": b"[" * 1025 + b"]" * 1025,
    "depth 100000": b"[" * 100_000,
    "byte order mark": b"\xef\xbb\xbf{}",
    "utf-16": '{"metadata":{}}'.encode("utf-16"),
    "latin-1": '{"metadata":{"a":"é"}}'.encode("latin-1"),
    "cut off": b'{"metadata":{"a":1',
    "two values": b"{}{}",
    "single quotes": b"{'a':1}",
    "trailing comma": b'{"metadata":{"a":1,}}',
    "array": b"[]",
    "string": b'"x"',
    "number": b"1",
    "null": b"null",
    "nothing": b"",
    "spaces": b"   ",
    "gzip": b"\x1f\x8b\x08\x00\x00\x00\x00\x00",
}
"""No request with one of these may change anything."""

ODD_JSON: dict[str, bytes] = {
    "depth 64": b'{"metadata":{"a":' + b"[" * 62 + b"]" * 62 + b"}}",
    "2^63": b'{"metadata":{"a":9223372036854775808}}',
    "2^64-1": b'{"metadata":{"a":18446744073709551615}}',
    "-2^63": b'{"metadata":{"a":-9223372036854775808}}',
    "tiny": b'{"metadata":{"a":1e-400}}',
    "minus zero": b'{"metadata":{"a":-0.0}}',
    "a key twice": b'{"metadata":{"a":1,"a":2}}',
    "proto": b'{"metadata":{"__proto__":{"x":1},"constructor":1}}',
    "constructor": b'{"metadata":{"lc":1,"type":"constructor","id":["os","system"],"kwargs":{"command":"id"}}}',
    "an escaped backslash": rb'{"metadata":{"a":"\\u0000"}}',
    "astral": '{"metadata":{"🦉":"\U0010ffff"}}'.encode(),
    "escaped astral": rb'{"metadata":{"a":"\ud83e\udd89"}}',
    "unknown keys": b'{"metadata":{},"bogus":[1,{"x":null}]}',
    "quotes and percent": b"""{"metadata":{"a'b\\"c%s$1;--":"'; DROP TABLE matins.run; --"}}""",
    "empty key": b'{"metadata":{"":""}}',
    "many keys": json.dumps({"metadata": {str(n): n for n in range(5000)}}).encode(),
}
"""These may be taken or refused."""


@pytest.fixture(autouse=True)
def every_list_still_answers(server: Server) -> Iterator[None]:
    yield
    with httpx.Client(base_url=server.url) as client:
        for path in ("/threads/search", "/assistants/search", "/runs/crons/search"):
            response = client.post(path, json={"limit": 1000})
            assert (path, response.status_code) == (path, 200)
            assert json.loads(response.content) is not None
        for path in ("/threads/count", "/assistants/count", "/runs/crons/count"):
            assert client.post(path, json={}).status_code == 200


@pytest.fixture(scope="module")
def thread(server: Server) -> str:
    made = httpx.post(f"{server.url}/threads", json={}).json()["thread_id"]
    httpx.post(
        f"{server.url}/threads/{made}/runs/wait", json={"assistant_id": "events", "input": {"n": 1}}
    ).raise_for_status()
    return str(made)


@pytest.fixture(scope="module")
def cron(server: Server) -> str:
    made = httpx.post(
        f"{server.url}/runs/crons", json={"assistant_id": "echo", "schedule": "0 0 1 1 *", "enabled": False}
    ).json()
    return str(made["cron_id"])


def doors(thread: str, cron: str) -> list[tuple[str, str]]:
    """Every operation that reads a body."""
    return [
        *(
            ("POST", path)
            for path in (
                *("/threads", "/threads/search", "/threads/count"),
                *("/assistants", "/assistants/search", "/assistants/count"),
                *("/runs", "/runs/wait", "/runs/stream"),
                *("/runs/crons", "/runs/crons/search", "/runs/crons/count"),
                *(f"/threads/{thread}/runs{end}" for end in ("", "/wait", "/stream", "/crons")),
                *(f"/threads/{thread}/{end}" for end in ("state", "state/checkpoint", "history")),
            )
        ),
        ("PATCH", f"/threads/{thread}"),
        ("PATCH", f"/threads/{thread}/state"),
        ("PATCH", f"/runs/crons/{cron}"),
    ]


@covers("Refusal", "422 no JSON", "422 unholdable")
@pytest.mark.parametrize("case", BAD_JSON)
def test_json_that_cannot_be_is_refused_at_every_door(
    server: Server, rows: Rows, thread: str, cron: str, case: str
) -> None:
    before = rows()
    with httpx.Client(base_url=server.url, headers={"content-type": "application/json"}) as client:
        for method, path in doors(thread, cron):
            response = client.request(method, path, content=BAD_JSON[case])
            assert (method, path, response.status_code) == (method, path, 422)
            assert isinstance(response.json()["detail"], str)
    assert rows() == before


@pytest.mark.parametrize("case", ODD_JSON)
def test_json_that_is_merely_odd_is_taken_or_refused(
    server: Server, thread: str, cron: str, case: str
) -> None:
    with httpx.Client(base_url=server.url, headers={"content-type": "application/json"}) as client:
        for method, path in doors(thread, cron):
            response = client.request(method, path, content=ODD_JSON[case])
            assert response.status_code < 500, (method, path, response.text)
        made = client.post("/threads", content=ODD_JSON[case])
        if made.status_code == 200:
            sent = json.loads(ODD_JSON[case])["metadata"]
            assert made.json()["metadata"] == sent
            found = client.post("/threads/search", json={"metadata": sent, "limit": 1000}).json()
            assert made.json()["thread_id"] in [each["thread_id"] for each in found]
            client.delete(f"/threads/{made.json()['thread_id']}").raise_for_status()


FIELDS: dict[str, list[object]] = {
    "POST /threads": [
        {"thread_id": "abc"},
        {"thread_id": 5},
        {"metadata": []},
        {"if_exists": None},
        {"ttl": 5},
        {"ttl": {"ttl": -1}},
        {"ttl": {"ttl": 1e300}},
    ],
    "POST /threads/search": [
        {"limit": 0},
        {"limit": 1001},
        {"limit": "10"},
        {"limit": 1.5},
        {"offset": -1},
        {"offset": 2**63},
        {"sort_by": "metadata; --"},
        {"sort_order": "up"},
        {"select": ["bogus"]},
        {"select": "status"},
        {"status": "bogus"},
        {"ids": "abc"},
        {"metadata": 5},
        {"values": []},
    ],
    "POST /assistants": [
        {"graph_id": 5},
        {"graph_id": "echo", "config": {"recursion_limit": "many"}},
        {"graph_id": "echo", "config": {"configurable": []}},
        {"graph_id": "echo", "assistant_id": "abc"},
    ],
    "POST /runs": [
        {},
        {"assistant_id": None},
        {"assistant_id": ["echo"]},
        {"assistant_id": "echo", "stream_mode": None},
        {"assistant_id": "echo", "stream_mode": "zzz"},
        {"assistant_id": "echo", "on_completion": "zzz"},
        {"assistant_id": "echo", "config": {"recursion_limit": 0}},
        {"assistant_id": "echo", "config": {"recursion_limit": -1}},
        {"assistant_id": "echo", "after_seconds": -1},
        {"assistant_id": "echo", "after_seconds": 1e300},
        {"assistant_id": "echo", "command": {"bogus": 1}},
        {"assistant_id": "echo", "interrupt_before": "answer"},
        {"assistant_id": "echo", "webhook": "ftp://example.com"},
        {"assistant_id": "echo", "durability": "never"},
        {"assistant_id": "echo", "metadata": "x"},
    ],
    "POST /threads/{thread}/runs": [
        {"assistant_id": "echo", "multitask_strategy": "zzz"},
        {"assistant_id": "echo", "if_not_exists": "zzz"},
        {"assistant_id": "echo", "checkpoint_id": "abc"},
        {"assistant_id": "echo", "checkpoint": "abc"},
    ],
    "POST /threads/{thread}/state": [{"values": "x"}, {"as_node": 5}, {"checkpoint": []}],
    "POST /threads/{thread}/history": [{"limit": 0}, {"before": 5}, {"metadata": []}],
    "POST /threads/{thread}/state/checkpoint": [
        {},
        {"checkpoint": None},
        {"checkpoint": {"checkpoint_id": 5}},
    ],
}


@covers("POST /threads", "422")
@covers("POST /threads/search", "422")
@covers("POST /assistants", "422")
@covers("POST /threads/{thread_id}/runs", "422")
@covers("POST /threads/{thread_id}/state/checkpoint", "422")
@covers("POST /threads/{thread_id}/history", "422")
@covers("Defects", "numbers that mean nothing are taken")
@pytest.mark.parametrize("door", FIELDS)
def test_a_field_that_cannot_be_is_refused_and_named(
    http: httpx.Client, rows: Rows, thread: str, door: str
) -> None:
    method, path = door.replace("{thread}", thread).split()
    before = rows()
    for body in FIELDS[door]:
        response = http.request(method, path, json=body)
        assert (body, response.status_code) == (body, 422)
        assert response.json()["detail"]
    assert rows() == before


@contextmanager
def raw(server: Server) -> Iterator[Callable[[bytes], tuple[int, bytes] | None]]:
    """Send bytes over a connection of their own; gives status and body, or None when it was just closed."""
    opened: list[socket.socket] = []

    def ask(request: bytes) -> tuple[int, bytes] | None:
        connection = socket.create_connection(("127.0.0.1", server.port), 5)
        opened.append(connection)
        connection.settimeout(10)
        connection.sendall(request)
        response = http.client.HTTPResponse(connection)
        opened.append(response)  # type: ignore[arg-type]
        try:
            response.begin()
        except (http.client.HTTPException, ConnectionError):
            return None
        return response.status, response.read()

    try:
        yield ask
    finally:
        for each in opened:
            each.close()


PATHS = [
    "/threads/%2F",
    "/threads/..%2f..%2fetc%2fpasswd",
    "/threads/../ok",
    "/threads/./",
    "/threads;/x",
    "/threads;id=1",
    "/threads/%00",
    "/threads/%ff%fe",
    "/threads/%ED%A0%80",
    "//threads",
    "//",
    "/threads//state",
    "/threads/",
    "/ok/",
    "/%6fk",
    "/OK",
    "/threads/%D9%A1%D9%A2",
    "/threads/%EF%BC%91%EF%BC%91111111-1111-1111-1111-111111111111",
    "/threads/{11111111-1111-1111-1111-111111111111}",
    "/threads/urn:uuid:11111111-1111-1111-1111-111111111111",
    "/threads/11111111111111111111111111111111",
    "/threads/.%2e/",
    "/threads/" + "a" * 4000,
    "/" + "/".join("a" * 3 for _ in range(500)),
    "/threads/%",
    "/threads/%zz",
    "/threads/%252F",
    "/threads/\\..\\",
    "/threads/11111111-1111-1111-1111-111111111111/state/%00",
    "/threads/11111111-1111-1111-1111-111111111111/runs/%2e%2e",
    "*",
    "http://evil.example/ok",
    "/ok?" + "a=1&" * 5000,
    "/ok#fragment",
]


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "PATCH"])
def test_no_path_is_too_odd(server: Server, rows: Rows, method: str) -> None:
    before = rows()
    with raw(server) as ask:
        for path in PATHS:
            length = "" if method == "GET" else "content-length: 2\r\n"
            body = "" if method == "GET" else "{}"
            answer = ask(
                f"{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{length}\r\n{body}".encode()
            )
            if answer is None:
                continue  # closed without a word, as a request that is no HTTP may be
            assert answer[0] < 500, path
            if answer[0] >= 400 and answer[1].startswith(b"{"):
                assert isinstance(json.loads(answer[1])["detail"], str)
    assert rows() == before


@pytest.mark.parametrize("spelled", ["{%s}", "urn:uuid:%s", "%s"])
def test_an_id_is_the_same_however_it_is_spelled(http: httpx.Client, thread: str, spelled: str) -> None:
    """Whatever is taken for an id must name what it names everywhere."""
    response = http.get("/threads/" + spelled % thread.upper())
    if response.status_code == 200:
        assert response.json()["thread_id"] == thread
    else:
        assert response.status_code == 422


QUERIES = [
    *(
        "limit=-1",
        "limit=99999999999999999999",
        "limit=1e3",
        "limit=%D9%A1",
        "limit=1_0",
        "limit=",
        "limit=0",
    ),
    *("offset=-1", "offset=9223372036854775808", "offset=abc", "offset=%00"),
    *("status=bogus", "status=%00", "status=%ED%A0%80", "status='--"),
    *("select=[", "select=[1]", 'select=["run_id"', "select=[[]]", "select=%00", "select=bogus,run_id"),
    *("select=" + "[" * 2000, "limit=" + "9" * 5000, "x=%ff", "&&&=", "%00=%00"),
]


def test_no_query_is_too_odd(http: httpx.Client, thread: str) -> None:
    for query in QUERIES:
        response = http.get(f"/threads/{thread}/runs?{query}")
        assert response.status_code < 500, query
        if response.status_code >= 400:
            assert isinstance(response.json()["detail"], str)
    for query in ("before=%00", "before=abc", "before='", "limit=0", "limit=1001", "before=" + "x" * 5000):
        response = http.get(f"/threads/{thread}/history?{query}")
        assert response.status_code < 500, query
    for query in ("subgraphs=maybe", "subgraphs=%00", "subgraphs=1", "select=values"):
        assert http.get(f"/threads/{thread}/state?{query}").status_code < 500, query
    for at in (
        "%00",
        "abc",
        "'",
        "%ED%A0%80",
        "..",
        "x" * 5000,
        "%F0%9F%A6%89",
        "1f1e66a0-f654-6c52-8000-zzzz",
    ):
        assert http.get(f"/threads/{thread}/state/{at}").status_code < 500, at


LAST_EVENTS = [
    *(b"-1", b"0", b"-2", b"abc", b"", b"1.5", b"1e3", b"0x10", b"1_000", b"+1", b"\xd9\xa1", b"\xff"),
    *(b"9223372036854775807", b"9223372036854775808", b"-9223372036854775809", b"9" * 4000, b"9" * 5000),
    *(b"1795348086803-0", b"null", b"'; --", b"%00"),
]


def test_no_last_event_id_is_too_odd(server: Server, thread: str) -> None:
    with httpx.Client(base_url=server.url) as client:
        run = client.post(
            f"/threads/{thread}/runs/stream",
            json={"assistant_id": "events", "input": {"n": 1}, "stream_resumable": True},
        )
        for sent in LAST_EVENTS:
            response = client.get(run.headers["location"], headers=[(b"last-event-id", sent)])
            assert (sent, response.status_code) == (sent, 200)
            assert response.text in run.text


HEADS = [
    b"GET /ok HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n",
    b"POST /threads HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\n{}",
    b"POST /threads HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n{}",
    b"POST /threads HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
    b"POST /threads HTTP/1.1\r\nhost: x\r\ncontent-length: \xd9\xa1\r\n\r\n{}",
    b"GET /ok HTTP/1.1\r\nhost: x\r\nx-a: a\r\n b\r\n\r\n",
    b"GET /ok HTTP/1.1\r\nhost: x\r\nbad header: 1\r\n\r\n",
    b"GET /ok HTTP/1.1\r\nhost: x\r\nx-a: \0\r\n\r\n",
    b"GET /ok HTTP/9.9\r\nhost: x\r\n\r\n",
    b"GET /ok\r\n\r\n",
    b"BREW /ok HTTP/1.1\r\nhost: x\r\n\r\n",
    b"GET  /ok HTTP/1.1\r\nhost: x\r\n\r\n",
    b"\r\n\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00",
    b"GET /ok HTTP/1.1\r\nhost: x\r\nx-a: " + b"a" * 200_000 + b"\r\n\r\n",
]


def test_no_head_is_too_odd(server: Server, rows: Rows) -> None:
    before = rows()
    with raw(server) as ask:
        for request in HEADS:
            if request.startswith((b"\x16", b"\r\n")):
                request = request + b"GET /ok HTTP/1.1\r\n\r\n"  # noqa: PLW2901 - so that there is an end to wait for
            answer = ask(request)
            assert answer is None or answer[0] < 500, request[:80]
    assert rows() == before


@pytest.mark.parametrize(
    "headers",
    [
        {"content-type": "text/plain"},
        {"content-type": "application/xml"},
        {"content-encoding": "gzip"},
        {"prefer": "\xff"},
        {"x-request-id": "a" * 5000},
        {"x-request-id": "\xff"},
        {"origin": "null"},
        {"accept": "nothing/at-all"},
        {"range": "bytes=0-1,2-3"},
        {"expect": "the-unexpected"},
    ],
    ids=str,
)
def test_no_header_is_too_odd(server: Server, headers: dict[str, str]) -> None:
    encoded = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    with httpx.Client(base_url=server.url) as client:
        for method, path in (("GET", "/ok"), ("POST", "/threads/count")):
            response = client.request(method, path, content=b"{}", headers=encoded)
            assert response.status_code < 500


@pytest.mark.parametrize("which", ["nul", "surrogate", "nan", "infinity", "bytes", "keys", "set"])
def test_what_a_graph_gives_back_never_keeps_its_run_from_succeeding(http: httpx.Client, which: str) -> None:
    thread_id, answer, run = odd(http, which)
    assert run["status"] == "success"
    thread = http.get(f"/threads/{thread_id}").json()
    assert (thread["status"], thread["values"]["which"]) == ("idle", which)
    assert "out" in http.get(f"/threads/{thread_id}/state").json()["values"]
    assert http.get(f"/threads/{thread_id}/runs/{run['run_id']}/join").json() == thread["values"]
    assert len(http.post(f"/threads/{thread_id}/history", json={"limit": 100}).json()) == 3
    again = http.get(answer.headers["location"], headers={"last-event-id": "-1"})
    assert again.text == answer.text
    found = http.post("/threads/search", json={"ids": [thread_id], "values": {"which": which}}).json()
    assert [each["thread_id"] for each in found] == [thread_id]


@pytest.mark.parametrize("which", ["huge", "surrogate key"])
def test_what_langgraph_cannot_checkpoint_fails_its_run(http: httpx.Client, which: str) -> None:
    """Integers beyond 64 bits, and keys with lone surrogates, are more than its serializer takes."""
    thread_id, answer, run = odd(http, which)
    assert run["status"] == "error"
    assert "event: custom\r\n" in answer.text
    assert answer.text.split("\r\n\r\n")[-2].startswith("event: error\r\n")
    assert http.get(f"/threads/{thread_id}").json()["status"] == "error"
    sane = {"assistant_id": "odd", "input": {"which": "set"}}
    assert "out" in http.post(f"/threads/{thread_id}/runs/wait", json=sane).json()


def odd(http: httpx.Client, which: str) -> tuple[str, httpx.Response, dict[str, Any]]:
    """Stream a run that gives something odd; gives its thread, the stream, and the run."""
    thread_id = http.post("/threads", json={}).json()["thread_id"]
    wanted = {
        "assistant_id": "odd",
        "input": {"which": which},
        "stream_mode": ["values", "updates", "custom"],
        "stream_resumable": True,
    }
    answer = http.post(f"/threads/{thread_id}/runs/stream", json=wanted)
    assert answer.status_code == 200
    for line in answer.text.split("\r\n"):
        if line.startswith("data: "):
            json.loads(line.removeprefix("data: "), parse_constant=_refuse)
    return thread_id, answer, http.get(answer.headers["content-location"]).json()


def _refuse(constant: str) -> Any:
    raise AssertionError(f"{constant} is no JSON")


def test_input_that_a_graph_cannot_take_is_a_failed_run(http: httpx.Client) -> None:
    for assistant, given in (
        ("echo", None),
        ("echo", []),
        ("echo", 5),
        ("echo", "text"),
        ("echo", {"messages": 5}),
        ("echo", {"messages": [{"role": "wizard", "content": "hi"}]}),
        ("echo", {"messages": [{"lc": 1, "type": "constructor", "id": ["os", "system"], "kwargs": {}}]}),
        ("events", {"n": "many"}),
        ("slow", {"steps": 0}),
        ("odd", {"which": "nothing"}),
    ):
        thread_id = http.post("/threads", json={}).json()["thread_id"]
        response = http.post(
            f"/threads/{thread_id}/runs/wait", json={"assistant_id": assistant, "input": given}
        )
        assert response.status_code == 200
        [run] = http.get(f"/threads/{thread_id}/runs").json()
        failed = "__error__" in response.json()
        assert run["status"] == ("error" if failed else "success")
        assert http.get(f"/threads/{thread_id}").json()["status"] in {"error", "idle"}
        http.delete(f"/threads/{thread_id}").raise_for_status()


@pytest.mark.parametrize(
    "command",
    [
        {"resume": None},
        {"resume": {"0" * 32: 1}},
        {"goto": "nowhere"},
        {"goto": 5},
        {"goto": [{"node": 5}]},
        {"goto": {"node": "work", "input": 5}},
        {"update": 5},
        {"update": []},
        {"update": [["n", 1]]},
        {},
    ],
    ids=str,
)
def test_a_command_that_makes_no_sense_settles(http: httpx.Client, command: dict[str, object]) -> None:
    thread_id = http.post("/threads", json={}).json()["thread_id"]
    response = http.post(
        f"/threads/{thread_id}/runs/wait", json={"assistant_id": "events", "command": command}
    )
    assert response.status_code in {200, 422}
    assert http.get(f"/threads/{thread_id}").json()["status"] != "busy"


def test_a_thread_whose_metadata_names_no_graph_can_be_read(http: httpx.Client) -> None:
    named: list[object] = [5, None, "gone", [], {"a": 1}, ""]
    for graph_id in named:
        thread_id = http.post("/threads", json={"metadata": {"graph_id": graph_id}}).json()["thread_id"]
        for method, path, body in (
            ("GET", "state", None),
            ("GET", "history", None),
            ("GET", f"state/{uuid4()}", None),
            ("POST", "state", {"values": {"a": 1}}),
            ("POST", "state/checkpoint", {"checkpoint": {"checkpoint_id": "x"}}),
        ):
            response = http.request(method, f"/threads/{thread_id}/{path}", json=body)
            assert response.status_code < 500, (graph_id, method, path, response.text)


def test_states_that_a_graph_cannot_take_are_refused(http: httpx.Client, thread: str) -> None:
    for body in (
        {"values": {"n": "x"}},
        {"values": {"bogus": 1}},
        {"values": [1]},
        {"values": [{"n": 1}]},
        {"values": {"n": 1}, "checkpoint_id": "abc"},
        {"values": {"n": 1}, "checkpoint_id": str(uuid4())},
        {"values": {"n": 1}, "checkpoint": {"checkpoint_ns": "nowhere", "checkpoint_id": str(uuid4())}},
        {"values": {"n": 1}, "as_node": "__end__"},
        {"values": {"n": 1}, "as_node": ""},
    ):
        response = http.post(f"/threads/{thread}/state", json=body)
        assert response.status_code < 500, (body, response.text)
    assert http.get(f"/threads/{thread}").status_code == 200
