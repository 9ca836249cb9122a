"""The API as an OpenAPI 3.1 document, and that as a page to read: both from the route table and the wire shapes."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from matins.api.errors import Refusal
from matins.api.operations import Operation, Parameter

Json = dict[str, Any]

_REFUSALS: Final = {
    "400": "Refused",
    "404": "Not found",
    "409": "In conflict with what is there",
    "413": "Larger than 32 MiB",
    "422": "Does not fit",
    "503": "Not now: try again",
}

_ID: Final = {"type": "string", "format": "uuid"}
_UUIDS: Final = frozenset({"assistant_id", "cron_id", "run_id", "thread_id"})


def document(operations: Sequence[Operation], *, version: str) -> Json:
    """Give the document of these operations."""
    shapes = {shape for each in operations for shape in (each.request, each.response) if shape is not None}
    kinds = {parameter.kind for each in operations for parameter in each.query}
    wanted = [*sorted(shapes, key=str), *sorted(kinds, key=str), Refusal]
    schemas, components = msgspec.json.schema_components(wanted, ref_template="#/components/schemas/{name}")
    schema_of = dict(zip(map(str, wanted), schemas, strict=True))
    paths: dict[str, Json] = {}
    for each in operations:
        paths.setdefault(each.path, {})[each.method.lower()] = _operation(each, schema_of)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Matins",
            "version": version,
            "description": "An agent server that speaks the LangGraph Server API.",
        },
        "tags": [{"name": tag} for tag in dict.fromkeys(each.tag for each in operations)],
        "paths": paths,
        "components": {"schemas": components},
    }


def _operation(each: Operation, schema_of: dict[str, Json]) -> Json:
    described: Json = {
        "operationId": each.operation_id,
        "tags": [each.tag],
        "summary": each.summary,
        "responses": _responses(each, schema_of),
    }
    parameters = [
        {
            "name": name,
            "in": "path",
            "required": True,
            "schema": _ID if name in _UUIDS else {"type": "string"},
        }
        for name in re.findall(r"{(\w+)}", each.path)
    ] + [_in_query(parameter, schema_of) for parameter in each.query]
    if parameters:
        described["parameters"] = parameters
    if each.request is not None:
        described["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": schema_of[str(each.request)]}},
        }
    return described


def _in_query(parameter: Parameter, schema_of: dict[str, Json]) -> Json:
    return {
        "name": parameter.name,
        "in": "query",
        "required": False,
        "schema": schema_of[str(parameter.kind)],
    }


def _responses(each: Operation, schema_of: dict[str, Json]) -> Json:
    success: Json = {"description": each.summary}
    if each.response is not None:
        success["content"] = {each.media: {"schema": schema_of[str(each.response)]}}
    refusal = {"application/json": {"schema": schema_of[str(Refusal)]}}
    statuses = ["503"]
    if "{" in each.path:
        statuses += ["404", "422"]
    if each.request is not None:
        statuses += ["400", "404", "409", "413", "422"]
    elif each.query:
        statuses += ["400", "422"]
    return {
        str(each.status): success,
        **{str(status): {"description": when} for status, when in each.other_statuses.items()},
        **{
            status: {"description": _REFUSALS[status], "content": refusal} for status in sorted(set(statuses))
        },
    }


def page(operations: Sequence[Operation]) -> str:
    """Give the operations as a page that needs nothing from elsewhere."""
    sections: dict[str, list[str]] = {}
    for each in operations:
        row = (
            f"<tr><td>{each.method}</td><td><code>{html.escape(each.path)}</code></td>"
            f"<td>{html.escape(each.summary)}</td></tr>"
        )
        sections.setdefault(each.tag, []).append(row)
    tables = "".join(
        f"<h2>{tag.replace('_', ' ').capitalize()}</h2><table>{''.join(rows)}</table>"
        for tag, rows in sections.items()
    )
    return _PAGE.replace("{tables}", tables)


_PAGE: Final = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Matins: the API</title>
<style>
:root { color-scheme: light dark }
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem }
table { border-collapse: collapse; width: 100% }
td { border-top: 1px solid #8884; padding: .3rem .6rem .3rem 0; vertical-align: top }
td:first-child { font-weight: 600; width: 5rem }
</style>
</head>
<body>
<h1>Matins</h1>
<p>The operations of this server. Their shapes are in <a href="/openapi.json">openapi.json</a>.</p>
{tables}
</body>
</html>
"""
