from __future__ import annotations

import re
from collections import Counter
from typing import Any

import httpx

from matins import __version__
from matins.api import openapi
from matins.api.app import OPERATIONS


def references(node: Any) -> set[str]:
    if isinstance(node, dict):
        own = {node["$ref"]} if "$ref" in node else set()
        return own.union(*map(references, node.values()))
    if isinstance(node, list):
        return set().union(*map(references, node))
    return set()


def test_every_mounted_route_is_in_the_document() -> None:
    paths = openapi.document(OPERATIONS, version="1")["paths"]
    assert {(path, method.upper()) for path, methods in paths.items() for method in methods} == {
        (operation.path, operation.method) for operation in OPERATIONS
    }


def test_operation_ids_are_unique() -> None:
    counts = Counter(operation.operation_id for operation in OPERATIONS)
    assert [name for name, count in counts.items() if count > 1] == []


def test_every_operation_says_what_it_does() -> None:
    assert [each.operation_id for each in OPERATIONS if not each.summary.endswith(".")] == []


def test_every_reference_leads_somewhere() -> None:
    document = openapi.document(OPERATIONS, version="1")
    names = {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}
    assert references(document) <= names


def test_every_parameter_of_a_path_is_described() -> None:
    for path, methods in openapi.document(OPERATIONS, version="1")["paths"].items():
        for described in methods.values():
            named = {each["name"] for each in described.get("parameters", []) if each["in"] == "path"}
            assert named == set(re.findall(r"{(\w+)}", path))


def test_the_document_and_the_page_are_served(api: httpx.Client) -> None:
    document = api.get("/openapi.json").json()
    assert document["openapi"] == "3.1.0"
    assert document["info"]["version"] == __version__
    page = api.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    assert "/threads/{thread_id}/runs/wait" in page.text
    assert re.findall(r"(?:src|href)=\"(?!/)", page.text) == []


def test_the_document_tells_each_way_to_succeed_and_which_ids_are_uuids() -> None:
    paths = openapi.document(OPERATIONS, version="1")["paths"]
    assert {"200", "202"} <= set(paths["/threads/{thread_id}/runs/{run_id}/cancel"]["post"]["responses"])
    assert {"200", "204"} <= set(paths["/threads/{thread_id}"]["patch"]["responses"])
    assert "409" in paths["/webhooks/deliveries/{delivery_id}/replay"]["post"]["responses"]
    of_state = paths["/threads/{thread_id}/state/{checkpoint_id}"]["get"]["parameters"]
    assert {each["name"]: each["schema"].get("format") for each in of_state} == {
        "thread_id": "uuid",
        "checkpoint_id": None,
        "subgraphs": None,
        "select": None,
    }


def test_the_document_tells_the_bounds_of_what_stands_in_the_query() -> None:
    paths = openapi.document(OPERATIONS, version="1")["paths"]
    of_deliveries = paths["/webhooks/deliveries"]["get"]["parameters"]
    told = {each["name"]: each["schema"] for each in of_deliveries}
    assert (told["limit"]["minimum"], told["limit"]["maximum"]) == (1, 1000)
    assert all(each["allowEmptyValue"] for each in of_deliveries)
    assert told["status"]["enum"] == ["", "dead", "delivered", "pending"]
    [delivery] = paths["/webhooks/deliveries/{delivery_id}/replay"]["post"]["parameters"]
    assert delivery["schema"]["format"] == "uuid"


def test_an_event_of_a_stream_is_described() -> None:
    document = openapi.document(OPERATIONS, version="1")
    content = document["paths"]["/runs/stream"]["post"]["responses"]["200"]["content"]
    assert content == {"text/event-stream": {"schema": {"$ref": "#/components/schemas/Event"}}}
    assert document["components"]["schemas"]["Event"]["required"] == ["event", "data"]


def test_what_is_listed_promises_no_field_where_clients_select_some() -> None:
    document = openapi.document(OPERATIONS, version="1")
    shapes = document["components"]["schemas"]
    for path, whole in [("/assistants", "Assistant"), ("/threads", "Thread"), ("/runs/crons", "Cron")]:
        answer = document["paths"][f"{path}/search"]["post"]["responses"]["200"]
        assert answer["content"]["application/json"]["schema"]["items"]["$ref"].endswith(f"/{whole}InPart")
        assert "required" not in shapes[f"{whole}InPart"]
        assert shapes[f"{whole}InPart"]["properties"] == shapes[whole]["properties"]
        assert "required" in shapes[whole]


def test_the_document_tells_which_bodies_are_refused() -> None:
    document = openapi.document(OPERATIONS, version="1")

    def body_of(path: str, method: str) -> dict[str, Any]:
        content = document["paths"][path][method]["requestBody"]["content"]
        described: dict[str, Any] = content["application/json"]["schema"]
        return described

    assert body_of("/runs/crons/{cron_id}", "patch")["minProperties"] == 1
    assert [each["required"] for each in body_of("/runs/cancel", "post")["anyOf"]] == [
        ["status"],
        ["thread_id", "run_ids"],
    ]
    assert document["components"]["schemas"]["ThreadSearch"]["properties"]["ids"]["items"]["format"] == "uuid"
