"""The way from a graph back into the server: `get_client()` and `get_sync_client()` without a URL.

Each call goes over the serving process's private socket as the run whose code makes it. Which run that is says a
context variable: tasks inherit it, and so do the threads in which LangGraph and `asyncio.to_thread` run what is not
async. So a client may be made anywhere, also when a graph is imported, and be shared by all runs; only calling is for
runs. The token of a run is added behind the client, goes into that socket and nowhere else, and is on no object that
user code is given.
"""

from __future__ import annotations

import functools
import ssl
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from contextvars import ContextVar
from typing import Any, Final

import httpx
import langgraph_sdk
from langgraph_sdk.client import LangGraphClient, SyncLangGraphClient

_TOKEN: Final[ContextVar[str]] = ContextVar("matins_run")
_HEADER: Final = b"x-matins-run"
_BASE_URL: Final = "http://matins"  # only named in errors: the transports below go to one place
# No connection is kept: one client may serve several event loops and threads, and a Unix socket is made in no time.
_LIMITS: Final = httpx.Limits(max_connections=None, max_keepalive_connections=0)

Waiting = Callable[[], AbstractContextManager[None]]


class OutsideOfRun(RuntimeError):
    """Code that no run executes has called the server by a client without a URL."""

    def __init__(self) -> None:
        super().__init__(
            "A client of get_client() or get_sync_client() without a url calls the server as the run that executes, "
            "and none does here: this code runs at import, in a factory that is asked for a state or a drawing, or "
            "in a thread that a graph has started by itself. Give the client a url."
        )


@contextmanager
def called_by(token: str) -> Iterator[None]:
    """Let what runs in the block, and what it starts, call the server as the attempt with that token."""
    reset = _TOKEN.set(token)
    try:
        yield
    finally:
        _TOKEN.reset(reset)


@contextmanager
def installed(socket_path: str, *, waiting: Waiting) -> Iterator[None]:
    """Let clients without a URL lead to that socket, wherever their makers were imported or will be.

    `waiting` is entered by a thread for as long as it is in such a call.
    """
    replaced: list[tuple[Callable[..., Any], Callable[..., Any]]] = [
        (langgraph_sdk.get_client, functools.partial(_client, socket_path)),
        (langgraph_sdk.get_sync_client, functools.partial(_sync_client, socket_path, waiting)),
    ]
    hung = [(original, _by_url(original, inside)) for original, inside in replaced]
    for original, ours in hung:
        _replace(original, ours)
    try:
        yield
    finally:
        for original, ours in hung:
            _replace(ours, original)


def _by_url(original: Callable[..., Any], inside: Callable[..., Any]) -> Callable[..., Any]:
    """Give the SDK's function for a client with a URL, and ours for one without."""

    @functools.wraps(original)
    def make(*, url: str | None = None, **options: Any) -> Any:
        return inside(**options) if url is None else original(url=url, **options)

    return make


def _replace(function: object, by: object) -> None:
    """Put a function in the place of another in every module that has imported it, and so in all that will."""
    for module in list(sys.modules.values()):
        for name, value in list(getattr(module, "__dict__", {}).items()):
            if value is function:
                setattr(module, name, by)


def _client(
    path: str,
    *,
    api_key: object = None,  # noqa: ARG001 - the run is who calls
    headers: Mapping[str, str] | None = None,
    timeout: Any = None,
) -> LangGraphClient:
    return LangGraphClient(httpx.AsyncClient(transport=_Async(path), **_options(headers, timeout)))


def _sync_client(
    path: str,
    waiting: Waiting,
    *,
    api_key: object = None,  # noqa: ARG001 - as above
    headers: Mapping[str, str] | None = None,
    timeout: Any = None,
) -> SyncLangGraphClient:
    return SyncLangGraphClient(httpx.Client(transport=_Sync(path, waiting), **_options(headers, timeout)))


def _options(headers: Mapping[str, str] | None, timeout: Any) -> dict[str, Any]:
    # Source: the timeouts of langgraph_sdk/_async/client.py.
    return {
        "base_url": _BASE_URL,
        "headers": {"User-Agent": f"langgraph-sdk-py/{langgraph_sdk.__version__}", **(headers or {})},
        "timeout": httpx.Timeout(connect=5, read=300, write=300, pool=5)
        if timeout is None
        else httpx.Timeout(timeout),
    }


class _Async(httpx.AsyncBaseTransport):
    """Sends each request through a connection of its own; so closing a client ends nothing."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # never used, and dear to make for each request

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        told = _told(request)
        over = httpx.AsyncHTTPTransport(uds=self._path, limits=_LIMITS, verify=self._tls)
        return await over.handle_async_request(told)


class _Sync(httpx.BaseTransport):
    """The same, for a thread that waits meanwhile."""

    def __init__(self, path: str, waiting: Waiting) -> None:
        self._path = path
        self._waiting = waiting
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        told = _told(request)
        over = httpx.HTTPTransport(uds=self._path, limits=_LIMITS, verify=self._tls)
        with ExitStack() as stack:
            stack.enter_context(self._waiting())
            response = over.handle_request(told)
            if isinstance(response.stream, httpx.SyncByteStream):
                response.stream = _Waited(response.stream, stack.pop_all())
        return response


class _Waited(httpx.SyncByteStream):
    """The body of a reply; waiting for it ends when it is closed."""

    def __init__(self, body: httpx.SyncByteStream, waiting: ExitStack) -> None:
        self._body = body
        self._waiting = waiting

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._body)

    def close(self) -> None:
        try:
            self._body.close()
        finally:
            self._waiting.close()


def _told(request: httpx.Request) -> httpx.Request:
    """Give a copy of a request that says which run makes it. Raises: OutsideOfRun."""
    token = _TOKEN.get("")
    if not token:
        raise OutsideOfRun
    return httpx.Request(
        request.method,
        request.url,
        headers=[*request.headers.raw, (_HEADER, token.encode())],
        stream=request.stream,
        extensions=request.extensions,
    )
