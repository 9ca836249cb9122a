"""A cron's policy, wherever a client can put it.

In the body's `policy`; in the query, as `policy` (a JSON object) or field by field, which is what the Python SDK's
`params=` sends; in `metadata.policy`, for JavaScript's SDK can send nothing else: there it is taken out.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
from starlette.requests import Request

from matins.api.wire.json import Json
from matins.domain import policies
from matins.domain.errors import Invalid
from matins.domain.policies import Given, Policy

_FIELDS: Final = {each.name: each.type for each in msgspec.structs.fields(Policy)}


def given(request: Request, sent: Json) -> tuple[Given, Json]:
    """Give the fields of the policy that the request gives, and its body without them.

    Raises: Invalid when two places differ, or the policy is none.
    """
    body = {name: value for name, value in sent.items() if name != "policy"}
    metadata = sent.get("metadata")
    sources = [("the body", _object("policy", sent["policy"]))] if "policy" in sent else []
    if isinstance(metadata, dict) and "policy" in metadata:
        sources.append(("metadata.policy", _object("metadata.policy", metadata["policy"])))
        body["metadata"] = {name: value for name, value in metadata.items() if name != "policy"}
    if text := request.query_params.get("policy"):
        sources.append(("the query", _decoded(text)))
    flat = {
        name: _flat(name, text) for name, text in request.query_params.items() if name in _FIELDS and text
    }
    sources.append(("the query", flat))
    found = policies.merged(sources)
    policies.read(found)
    return found, body


def _object(place: str, value: Any) -> Given:
    if not isinstance(value, dict):
        raise Invalid(f"{place} must be an object")
    return value


def _decoded(text: str) -> Given:
    try:
        return _object("policy", msgspec.json.decode(text))
    except (msgspec.DecodeError, RecursionError):
        raise Invalid("policy in the query must be a JSON object") from None


def _flat(name: str, text: str) -> Any:
    """Give what a parameter of the query says: null, or as the field's type reads it."""
    if text == "null":
        return None
    try:
        if text.startswith("{"):
            return msgspec.json.decode(text)
        return msgspec.convert(text, _FIELDS[name], strict=False)
    except msgspec.ValidationError as unfit:
        raise Invalid(f"policy.{name}: {unfit}") from None
    except (msgspec.DecodeError, RecursionError):
        raise Invalid(f"policy.{name}: {text[:100]!r} is no JSON") from None
