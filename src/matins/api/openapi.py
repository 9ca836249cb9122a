"""The API as an OpenAPI 3.1 document, and that as a page to read: both from the route table and the wire shapes."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
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

_SHAPES: Final = "#/components/schemas/"
_ID: Final = {"type": "string", "format": "uuid"}
_UUIDS: Final = frozenset({"assistant_id", "cron_id", "delivery_id", "run_id", "thread_id"})


def document(operations: Sequence[Operation], *, version: str, prefix: str = "") -> Json:
    """Give the document of these operations, which are served under the prefix."""
    shapes = {shape for each in operations for shape in (each.request, each.response) if shape is not None}
    kinds = {parameter.kind for each in operations for parameter in each.query}
    wanted = [*sorted(shapes, key=str), *sorted(kinds, key=str), Refusal]
    schemas, components = msgspec.json.schema_components(wanted, ref_template=_SHAPES + "{name}")
    schema_of = dict(zip(map(str, wanted), schemas, strict=True))
    paths: dict[str, Json] = {}
    for each in operations:
        response = schema_of.get(str(each.response))
        if response is not None and response.get("type") == "array" and _selects(each):
            response = _in_part(response, components)
        paths.setdefault(each.path, {})[each.method.lower()] = _operation(each, schema_of, response)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Matins",
            "version": version,
            "description": "An agent server that speaks the LangGraph Server API.",
        },
        **({"servers": [{"url": prefix}]} if prefix else {}),
        "tags": [{"name": tag} for tag in dict.fromkeys(each.tag for each in operations)],
        "paths": paths,
        "components": {"schemas": components},
    }


def merged(ours: Json, theirs: Json) -> Json:
    """Give our document with what another describes; a shape of its own whose name is taken gets another name."""
    own = ours["components"]["schemas"]
    shapes = theirs.get("components", {}).get("schemas", {})
    taken = {f"{_SHAPES}{name}": f"{_SHAPES}{name}_app" for name in shapes if name in own}
    theirs = _renamed(theirs, taken)
    shapes = {
        name + "_app" if f"{_SHAPES}{name}" in taken else name: shape
        for name, shape in theirs.get("components", {}).get("schemas", {}).items()
    }
    paths = dict(ours["paths"])
    for path, methods in theirs.get("paths", {}).items():
        paths[path] = {**paths.get(path, {}), **methods}
    return {
        **ours,
        "tags": [*ours["tags"], *theirs.get("tags", [])],
        "paths": paths,
        "components": {
            **theirs.get("components", {}),
            **ours["components"],
            "schemas": {**own, **shapes},
        },
    }


def _renamed(node: Any, names: Mapping[str, str]) -> Any:
    """Give JSON in which references lead to the new names."""
    if isinstance(node, dict):
        return {
            key: names.get(value, value)
            if key == "$ref" and isinstance(value, str)
            else _renamed(value, names)
            for key, value in node.items()
        }
    return [_renamed(each, names) for each in node] if isinstance(node, list) else node


def _selects(each: Operation) -> bool:
    """Whether clients may ask for some fields of what is listed."""
    return any(parameter.name == "select" for parameter in each.query) or "select" in getattr(
        each.request, "__struct_fields__", ()
    )


def _in_part(described: Json, components: dict[str, Json]) -> Json:
    """Give the schema of a list in whose items no field need be there; adds what an item then is."""
    name = described["items"]["$ref"].removeprefix(_SHAPES)
    if "required" not in components[name]:
        return described
    part = {key: value for key, value in components[name].items() if key != "required"}
    components[f"{name}InPart"] = {**part, "title": f"{name}InPart"}
    return {**described, "items": {"$ref": f"{_SHAPES}{name}InPart"}}


def _operation(each: Operation, schema_of: dict[str, Json], response: Json | None) -> Json:
    described: Json = {
        "operationId": each.operation_id,
        "tags": [each.tag],
        "summary": each.summary,
        "responses": _responses(each, schema_of, response),
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
        "allowEmptyValue": True,  # it counts as absent
        "schema": schema_of[str(parameter.kind)],
    }


def _responses(each: Operation, schema_of: dict[str, Json], response: Json | None) -> Json:
    success: Json = {"description": each.summary}
    if response is not None:
        success["content"] = {each.media: {"schema": response}}
    refusal = {"application/json": {"schema": schema_of[str(Refusal)]}}
    statuses = ["503"]
    if "{" in each.path:
        statuses += ["404", "422"]
        if each.method != "GET":
            statuses.append("409")
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


def page(described: Json, *, prefix: str = "") -> str:
    """Give the operations of a document as a page that needs nothing from elsewhere."""
    sections: dict[str, list[str]] = {}
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            row = (
                f"<tr><td>{html.escape(method.upper())}</td><td><code>{html.escape(path)}</code></td>"
                f"<td>{html.escape(operation.get('summary', ''))}</td></tr>"
            )
            tag = next(iter(operation.get("tags", [])), "your application")
            sections.setdefault(str(tag), []).append(row)
    tables = "".join(
        f"<h2>{html.escape(tag.replace('_', ' ').capitalize())}</h2><table>{''.join(rows)}</table>"
        for tag, rows in sections.items()
    )
    return _PAGE.replace("{prefix}", prefix).replace("{tables}", tables)


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
<p>The operations of this server. Their shapes are in <a href="{prefix}/openapi.json">openapi.json</a>.</p>
{tables}
</body>
</html>
"""
