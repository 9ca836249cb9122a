"""The official clients behind one way of calling them: the Python SDK async and sync, and two JavaScript SDKs.

    sdk("crons.create_for_thread", thread_id, "echo", schedule="0 9 * * *")

Arguments by position are the parts of the path; what is named is an option, spelled as Python spells it. Streams are
collected into a list of Event, up to `take`, and then the client lets go of the connection.
"""

from __future__ import annotations

import inspect
import json
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime
from itertools import count
from operator import attrgetter
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

import httpx
from anyio.from_thread import BlockingPortal
from langgraph_sdk import get_client, get_sync_client
from langgraph_sdk.errors import APIStatusError

ROOT: Final = Path(__file__).parents[2]
PATIENCE_SECONDS: Final = 60

KINDS: Final = ("py-async", "py-sync", "js-1.15", "js-2.0")


class Event(NamedTuple):
    """One server-sent event."""

    event: str
    data: Any
    id: str | None = None


class Refused(Exception):
    """What an SDK raised: the HTTP status, when it was a response that it did not like, and the text."""

    def __init__(self, status: int | None, text: str) -> None:
        super().__init__(f"{status}: {text}")
        self.status: Final = status
        self.text: Final = text


class Transport(Protocol):
    """How to call one SDK."""

    def start(
        self,
        path: str,
        args: tuple[Any, ...],
        options: dict[str, Any],
        take: int | None,
        created: Callable[[dict[str, Any]], None],
    ) -> Future[Any]:
        """Call a method; the future gives what it returns, or raises Refused."""
        ...


class Sdk:
    """One client. `created` is what its `on_run_created` was told, the newest last."""

    def __init__(self, kind: str, url: str, transport: Transport) -> None:
        self.kind: Final = kind
        self.url: Final = url
        self.created: Final[list[dict[str, Any]]] = []
        self._transport: Final = transport

    @property
    def is_js(self) -> bool:
        return self.kind.startswith("js")

    def __call__(self, path: str, *args: Any, **options: Any) -> Any:
        """Call a method and give what it returns; of a stream only the first `take` events, when that is given."""
        return self.start(path, *args, **options).result(PATIENCE_SECONDS)

    def start(self, path: str, *args: Any, **options: Any) -> Future[Any]:
        """Call a method and go on."""
        take = options.pop("take", None)
        return self._transport.start(path, args, options, take, self.created.append)


class PythonAsync:
    """`get_client`, in the portal's event loop."""

    def __init__(self, portal: BlockingPortal, url: str, headers: dict[str, str]) -> None:
        self._portal: Final = portal
        self._client: Final = portal.call(lambda: get_client(url=url, headers=headers))

    def start(
        self,
        path: str,
        args: tuple[Any, ...],
        options: dict[str, Any],
        take: int | None,
        created: Callable[[dict[str, Any]], None],
    ) -> Future[Any]:
        method = attrgetter(path)(self._client)
        return self._portal.start_task_soon(self._call, method, args, _noting(method, options, created), take)

    async def _call(
        self, method: Callable[..., Any], args: tuple[Any, ...], options: dict[str, Any], take: int | None
    ) -> Any:
        try:
            returned = method(*args, **options)
            if not hasattr(returned, "__aiter__"):
                returned = await returned  # which may be a stream: a thread's is
            if not hasattr(returned, "__aiter__"):
                return returned
            events: list[Event] = []
            async for part in returned:
                events.append(Event(part.event, part.data, part.id))
                if len(events) == take:
                    break
            await returned.aclose()
            return events
        except (APIStatusError, httpx.HTTPStatusError) as error:
            raise _refused(error) from error

    def close(self) -> None:
        self._portal.call(self._client.aclose)


class PythonSync:
    """`get_sync_client`, in threads."""

    def __init__(self, url: str, headers: dict[str, str]) -> None:
        self._client: Final = get_sync_client(url=url, headers=headers)
        self._threads: Final = ThreadPoolExecutor(8)

    def start(
        self,
        path: str,
        args: tuple[Any, ...],
        options: dict[str, Any],
        take: int | None,
        created: Callable[[dict[str, Any]], None],
    ) -> Future[Any]:
        method = attrgetter(path)(self._client)
        return self._threads.submit(self._call, method, args, _noting(method, options, created), take)

    def _call(
        self, method: Callable[..., Any], args: tuple[Any, ...], options: dict[str, Any], take: int | None
    ) -> Any:
        try:
            returned = method(*args, **options)
            if not isinstance(returned, Iterator):
                return returned
            events: list[Event] = []
            for part in returned:
                events.append(Event(part.event, part.data, part.id))
                if len(events) == take:
                    break
            if inspect.isgenerator(returned):
                returned.close()
            return events
        except (APIStatusError, httpx.HTTPStatusError) as error:
            raise _refused(error) from error

    def close(self) -> None:
        self._threads.shutdown()
        self._client.close()


def _refused(error: APIStatusError | httpx.HTTPStatusError) -> Refused:
    """`wait` and `join` let the HTTP client's own error through, with the body as a note."""
    return Refused(error.response.status_code, "\n".join([str(error), *getattr(error, "__notes__", ())]))


def _noting(
    method: Callable[..., Any], options: dict[str, Any], created: Callable[[dict[str, Any]], None]
) -> dict[str, Any]:
    """Give the options with `on_run_created` where the method has it."""
    if "on_run_created" in inspect.signature(method).parameters:
        return {**options, "on_run_created": created}
    return options


class JavaScript:
    """A program of tests/js in a Node process of its own, `call.mjs` with one of the SDKs, say.

    What a call streams is a list of `Event`, or of whatever `of_item` makes of its items.
    """

    def __init__(self, program: str, *arguments: str, of_item: Callable[[Any], Any] | None = None) -> None:
        self._of_item: Final = of_item or _event
        self._process: Final = subprocess.Popen(
            [ROOT / ".venv" / "bin" / "node", ROOT / "tests" / "js" / program, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._ids: Final = count(1)
        self._waiting: Final[dict[int, tuple[Future[Any], Callable[[dict[str, Any]], None]]]] = {}
        self._reader: Final = threading.Thread(target=self._read)
        self._reader.start()

    def start(
        self,
        path: str,
        args: tuple[Any, ...],
        options: dict[str, Any],
        take: int | None,
        created: Callable[[dict[str, Any]], None],
    ) -> Future[Any]:
        future: Future[Any] = Future()
        number = next(self._ids)
        self._waiting[number] = future, created
        call = {"id": number, "path": _camel(path), "args": _spelled(path, args, options), "limit": take}
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(call, default=_written) + "\n")
        self._process.stdin.flush()
        return future

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            reply = json.loads(line)
            future, created = self._waiting.pop(reply["id"])
            for run in reply.get("created", ()):
                created(run)
            if "error" in reply:
                error = reply["error"]
                future.set_exception(Refused(error["status"], error["message"]))
            else:
                ok = reply["ok"]
                future.set_result([self._of_item(item) for item in ok] if reply.get("streamed") else ok)

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join()
        self._process.stdout.close()


def _spelled(path: str, args: tuple[Any, ...], options: dict[str, Any]) -> list[Any]:
    """Give the arguments as the JavaScript SDKs take them: what is named in one object, at the end."""
    options = dict(options)
    if path == "threads.get_state":
        at = options.pop("checkpoint_id", None) or options.pop("checkpoint", None)
        args = (*args, at)
    if path == "runs.cancel":
        return [*args, options.pop("wait", False), options.pop("action", "interrupt")]
    return [*args, {_camel(name): value for name, value in options.items()}]


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(part.title() for part in rest)


def _written(value: object) -> str:
    assert isinstance(value, datetime)
    return value.isoformat()


def _event(item: dict[str, Any]) -> Event:
    return Event(item["event"], item.get("data"), item.get("id"))


@contextmanager
def connect(
    kind: str, url: str, portal: BlockingPortal, *, headers: dict[str, str] | None = None
) -> Iterator[Sdk]:
    """Give the client of that kind for a server; it sends the headers with every request."""
    transport: PythonAsync | PythonSync | JavaScript
    if kind == "py-async":
        transport = PythonAsync(portal, url, headers or {})
    elif kind == "py-sync":
        transport = PythonSync(url, headers or {})
    else:
        options = json.dumps({"defaultHeaders": headers or {}})
        transport = JavaScript("call.mjs", kind.replace("js", "sdk"), url, options)
    try:
        yield Sdk(kind, url, transport)
    finally:
        transport.close()
