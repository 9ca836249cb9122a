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
    of_state = paths["/threads/{thread_id}/state/{checkpoint_id}"]["get"]["parameters"]
    assert {each["name"]: each["schema"].get("format") for each in of_state} == {
        "thread_id": "uuid",
        "checkpoint_id": None,
        "subgraphs": None,
        "select": None,
    }
