from __future__ import annotations

import pytest
from starlette.requests import Request

from matins.api import query
from matins.domain.errors import BadRequest, Invalid


def asked(text: str) -> Request:
    return Request({"type": "http", "query_string": text.encode(), "headers": [], "path_params": {}})


@pytest.mark.parametrize(
    "text",
    ["m=values&m=updates", "m=values,updates", "m=%5B%22values%22%2C%22updates%22%5D", "m=&m=values,updates"],
)
def test_a_list_is_read_in_all_forms_that_clients_send(text: str) -> None:
    assert query.names(asked(text), "m") == ["values", "updates"]


def test_an_empty_list_is_none() -> None:
    assert query.names(asked("m="), "m") == []
    assert query.names(asked(""), "m") == []


def test_a_broken_list_is_refused() -> None:
    with pytest.raises(Invalid):
        query.names(asked("m=%5B1%5D"), "m")


@pytest.mark.parametrize(
    ("text", "value"), [("1", True), ("true", True), ("True", True), ("0", False), ("", False)]
)
def test_a_switch_is_read_in_all_forms_that_clients_send(text: str, value: bool) -> None:
    assert query.switch(asked(f"wait={text}"), "wait") is value


def test_a_switch_that_is_neither_is_refused() -> None:
    with pytest.raises(Invalid):
        query.switch(asked("wait=maybe"), "wait")


def test_a_number_has_bounds_and_must_be_one() -> None:
    assert query.integer(asked("limit=5"), "limit", 10, least=0, most=9) == 5
    assert query.integer(asked("limit="), "limit", 10, least=0, most=9) == 10
    with pytest.raises(Invalid):
        query.integer(asked("limit=10"), "limit", 10, least=0, most=9)
    with pytest.raises(BadRequest, match="invalid literal for int"):
        query.integer(asked("limit=abc"), "limit", 10, least=0, most=9)
