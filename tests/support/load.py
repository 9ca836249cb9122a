"""Clients that go on through anything: they repeat what got no answer, and remember what was promised to them.

    background   create a run and go away              on threads and without
    wait         create a run and hold on for its result
    stream       create a run and read it to its end

What they were told goes into `claims`; what a server may never say or do goes into `complaints`.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import count, cycle
from typing import Any, Final

import anyio
import anyio.abc
import httpx

from tests.support.audit import AcknowledgedCron, Claims

RATE: Final = 11.0
"""Runs a second, whatever becomes of them: what gets no answer piles up, as with real clients."""

QUICK: Final = {"steps": 2, "pause": 0.01}
QUICKEST: Final = {"steps": 0}
SLOW: Final = {"steps": 3, "pause": 0.4}

_PATIENCE_SECONDS: Final = 60.0
_AGAIN_SECONDS: Final = 0.05


@dataclass(frozen=True, slots=True)
class Progress:
    """Something went well at `at` (monotonic seconds). `done`: the run came to its end, else it was acknowledged."""

    at: float
    run_id: str
    done: bool


@dataclass
class Load:
    """Clients of one server. Keep `run` in a task group; `stop` lets the last of them finish."""

    http: httpx.AsyncClient
    claims: Claims = field(default_factory=Claims)
    complaints: list[str] = field(default_factory=list)
    progress: list[Progress] = field(default_factory=list)
    refusals: Counter[int] = field(default_factory=Counter)
    threads: list[str] = field(default_factory=list)
    _news: anyio.Event = field(default_factory=anyio.Event)
    _is_stopping: bool = False

    async def run(self, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Begin RATE runs a second, until `stop`; then finish those under way."""
        for _ in range(20):
            await self._new_thread()
        task_status.started()
        kinds = cycle([self._background, self._wait, self._stream])
        began = time.monotonic()
        async with anyio.create_task_group() as group:
            for number in count():
                await anyio.sleep(max(0.0, began + number / RATE - time.monotonic()))
                if self._is_stopping:
                    return
                # Every kind meets a thread, a kept and a temporary run, and steps of both speeds.
                thread = self.threads[number % len(self.threads)] if number // 3 % 2 == 0 else None
                body: dict[str, Any] = {"assistant_id": "steps", "input": SLOW if number % 4 == 0 else QUICK}
                if thread is None and number // 6 % 2 == 0:
                    body["on_completion"] = "keep"
                group.start_soon(next(kinds), thread, body)
                if number % 25 == 0:
                    group.start_soon(self._new_thread)

    def stop(self) -> None:
        """Begin nothing more."""
        self._is_stopping = True

    async def until(self, holds: Callable[[Progress], bool]) -> Progress:
        """Wait for progress of which that holds; give the first."""
        seen = 0
        while True:
            while seen < len(self.progress):
                if holds(self.progress[seen]):
                    return self.progress[seen]
                seen += 1
            await self._news.wait()

    async def create_cron(self, body: dict[str, Any], *, thread_id: str | None) -> str:
        """Create a cron; it has no end yet."""
        path = "/runs/crons" if thread_id is None else f"/threads/{thread_id}/runs/crons"
        answer = (await self.request("POST", path, json=body)).json()
        first = datetime.fromisoformat(answer["next_run_date"])
        self.claims.crons[answer["cron_id"]] = AcknowledgedCron(first, first)
        return str(answer["cron_id"])

    async def end_cron(self, cron_id: str, last: datetime) -> None:
        """Give a cron its last slot, a whole second."""
        end = last + timedelta(milliseconds=500)  # the slot before it is the last, however it is rounded
        await self.request("PATCH", f"/runs/crons/{cron_id}", json={"end_time": end.isoformat()})
        self.claims.crons[cron_id] = AcknowledgedCron(self.claims.crons[cron_id].first, last)

    async def request(self, method: str, path: str, **what: Any) -> httpx.Response:
        """Ask until there is an answer; one that refuses is a complaint, but for 503 while something is away."""
        async with self._answer(method, path, **what) as response:
            await response.aread()
            return response

    @asynccontextmanager
    async def _answer(self, method: str, path: str, **what: Any) -> AsyncIterator[httpx.Response]:
        """Ask until the headers of a good answer are there; what breaks after them is the caller's to mend."""
        began = time.monotonic()
        while True:
            request = self.http.build_request(method, path, **what)
            try:
                response = await self.http.send(request, stream=True)
            except httpx.TimeoutException:
                self.complaints.append(f"{method} {path}: no answer in time")
            except httpx.TransportError:
                pass
            else:
                if response.is_success:
                    try:
                        yield response
                    finally:
                        await response.aclose()
                    return
                text = (await _read(response))[:300]
                self.refusals[response.status_code] += 1
                if response.status_code != httpx.codes.SERVICE_UNAVAILABLE:
                    self.complaints.append(f"{method} {path}: {response.status_code} {text}")
            if time.monotonic() - began > _PATIENCE_SECONDS:
                raise AssertionError(f"{method} {path}: not answered in {_PATIENCE_SECONDS:g} s")
            await anyio.sleep(_AGAIN_SECONDS)

    async def _new_thread(self) -> None:
        thread_id = (await self.request("POST", "/threads", json={})).json()["thread_id"]
        self.claims.threads.add(thread_id)
        self.threads.append(thread_id)

    async def _background(self, thread: str | None, body: dict[str, Any]) -> None:
        response = await self.request("POST", _path(thread, ""), json=body)
        self._acknowledged(response.json()["run_id"], thread, body)

    async def _wait(self, thread: str | None, body: dict[str, Any]) -> None:
        async with self._answer("POST", _path(thread, "/wait"), json=body) as response:
            place = response.headers["content-location"]
            run_id = self._acknowledged(place.rsplit("/", 1)[-1], thread, body)
            whole = await _whole(response)
        if whole is None:
            whole = await self._joined(place, thread, body)
        if whole is not None:
            self._finished(run_id, json.loads(whole), body)

    async def _stream(self, thread: str | None, body: dict[str, Any]) -> None:
        async with self._answer("POST", _path(thread, "/stream"), json=body) as response:
            place = response.headers["content-location"]
            run_id = self._acknowledged(place.rsplit("/", 1)[-1], thread, body)
            whole = await _whole(response)
        if whole is None:
            joined = await self._joined(place, thread, body)
            state = json.loads(joined) if joined is not None else None
        else:
            events = [
                (lines[0].removeprefix("event: "), lines[1].removeprefix("data: "))
                for block in whole.replace("\r\n", "\n").split("\n\n")
                if len(lines := [line for line in block.split("\n") if line and line[0] != ":"]) >= 2
            ]
            if any(event == "error" for event, _ in events) or not events:
                self.complaints.append(f"stream of {run_id}: {whole[-300:]}")
                return
            values = [json.loads(text) for event, text in events if event == "values"]
            state = values[-1] if values else None
            if state is None:
                self.complaints.append(f"stream of {run_id} without values: {whole[-300:]}")
        if state is not None:
            self._finished(run_id, state, body)

    async def _joined(self, place: str, thread: str | None, body: dict[str, Any]) -> str | None:
        """Give the result of a run whose reply broke off; None when it was temporary: it may be gone by now."""
        if _is_temporary(thread, body):
            return None
        whole = None
        while whole is None:
            async with self._answer("GET", place + "/join") as response:
                whole = await _whole(response)
        return whole

    def _acknowledged(self, run_id: str, thread: str | None, body: dict[str, Any]) -> str:
        self.claims.runs[run_id] = _is_temporary(thread, body)
        self._note(Progress(time.monotonic(), run_id, done=False))
        return run_id

    def _finished(self, run_id: str, state: dict[str, Any], body: dict[str, Any]) -> None:
        wanted = body["input"]["steps"]
        if state.get("done") != wanted:
            self.complaints.append(f"run {run_id} gave {state}, not {wanted} steps")
        self._note(Progress(time.monotonic(), run_id, done=True))

    def _note(self, progress: Progress) -> None:
        self.progress.append(progress)
        news, self._news = self._news, anyio.Event()
        news.set()


def client(url: str) -> httpx.AsyncClient:
    """Give a client for a load: no limit on connections, patient with answers: a start may be on the way to them."""
    return httpx.AsyncClient(
        base_url=url, timeout=_PATIENCE_SECONDS, limits=httpx.Limits(max_connections=None)
    )


def _path(thread: str | None, rest: str) -> str:
    return f"/runs{rest}" if thread is None else f"/threads/{thread}/runs{rest}"


def _is_temporary(thread: str | None, body: dict[str, Any]) -> bool:
    return thread is None and body.get("on_completion") != "keep"


async def _read(response: httpx.Response) -> str:
    return await _whole(response) or ""


async def _whole(response: httpx.Response) -> str | None:
    """Give the whole body; None when it broke off, or ends before its result."""
    try:
        return (await response.aread()).decode() or None
    except httpx.TransportError:
        return None
