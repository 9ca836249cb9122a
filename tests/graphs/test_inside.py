from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from types import ModuleType
from typing import Any

import httpx
import langgraph_sdk
import pytest

from matins.graphs import inside
from matins.graphs.inside import OutsideOfRun

pytestmark = pytest.mark.anyio

WAYS = [
    "from langgraph_sdk import {name} as make",
    "from langgraph_sdk.client import {name} as make",
    "import langgraph_sdk; make = lambda **o: langgraph_sdk.{name}(**o)",
    "import langgraph_sdk.client as c; make = lambda **o: c.{name}(**o)",
    "import langgraph_sdk as sdk; make = lambda **o: sdk.client.{name}(**o)",
]
NOBODY = "http://127.0.0.1:9"


@contextmanager
def imported(way: str, name: str) -> Iterator[Callable[[], Callable[..., Any]]]:
    """Have a module that imports the function so; gives what gives the function, as the module has it then."""
    module = ModuleType("users_module")
    sys.modules[module.__name__] = module
    exec(way.format(name=name), module.__dict__)  # noqa: S102 - the import is what is tested
    try:
        yield lambda: module.make
    finally:
        del sys.modules[module.__name__]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("when", ["before", "after"])
async def test_the_async_client_leads_inside_however_and_whenever_it_was_imported(
    way: str, when: str
) -> None:
    if when == "before":
        with imported(way, "get_client") as made, inside.installed("/nowhere", waiting=nullcontext):
            await _leads_inside(made())
    else:
        with inside.installed("/nowhere", waiting=nullcontext), imported(way, "get_client") as made:
            await _leads_inside(made())


async def _leads_inside(make: Callable[..., Any]) -> None:
    for options in ({}, {"url": None}, {"url": None, "api_key": "x", "headers": {"a": "b"}, "timeout": 3}):
        async with make(**options) as client:
            with pytest.raises(OutsideOfRun, match="Give the client a url"):
                await client.threads.create()
            with inside.called_by("token"), pytest.raises(httpx.ConnectError):
                await client.threads.create()
    async with make(url=NOBODY) as client:
        assert str(client.http.client.base_url) == NOBODY


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("when", ["before", "after"])
def test_the_sync_client_leads_inside_however_and_whenever_it_was_imported(way: str, when: str) -> None:
    if when == "before":
        with imported(way, "get_sync_client") as made, inside.installed("/nowhere", waiting=nullcontext):
            _leads_inside_sync(made())
    else:
        with inside.installed("/nowhere", waiting=nullcontext), imported(way, "get_sync_client") as made:
            _leads_inside_sync(made())


def _leads_inside_sync(make: Callable[..., Any]) -> None:
    for options in ({}, {"url": None}, {"url": None, "api_key": "x", "headers": {"a": "b"}, "timeout": 3}):
        with make(**options) as client, pytest.raises(OutsideOfRun, match="Give the client a url"):
            client.threads.create()
    with make(url=NOBODY) as client:
        assert str(client.http.client.base_url) == NOBODY


def test_the_functions_are_as_they_were_afterwards() -> None:
    before = langgraph_sdk.get_client, langgraph_sdk.get_sync_client
    with inside.installed("/nowhere", waiting=nullcontext):
        assert langgraph_sdk.get_client is not before[0]
        assert langgraph_sdk.get_client.__doc__ == before[0].__doc__
    assert (langgraph_sdk.get_client, langgraph_sdk.get_sync_client) == before


async def test_a_client_without_a_url_reaches_no_other_host(tmp_path: Any) -> None:
    with inside.installed(str(tmp_path / "none"), waiting=nullcontext), inside.called_by("token"):
        async with langgraph_sdk.get_client() as client:
            with pytest.raises(httpx.ConnectError, match="No such file"):
                await client.http.client.get(NOBODY)


async def test_a_client_with_a_url_never_sends_the_token() -> None:
    sent: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        sent.append(request)
        return httpx.Response(200, json={})

    with inside.installed("/nowhere", waiting=nullcontext), inside.called_by("secret-token"):
        async with langgraph_sdk.get_client(url=NOBODY) as client:
            client.http.client._transport = httpx.MockTransport(answer)
            await client.threads.get("x")
    assert "secret-token" not in repr(sent[0].headers.raw)
