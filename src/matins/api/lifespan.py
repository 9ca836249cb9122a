"""The lifespan of a user's application: started before anyone is served, shut down when nobody is any more."""

from __future__ import annotations

import traceback
from typing import Any, Final

import anyio
from anyio.abc import TaskStatus
from starlette.types import ASGIApp, Message

from matins import telemetry
from matins.manifest.variables import described

START_SECONDS: Final = 300.0
"""How long an application may take to start: it may load a model."""

SHUTDOWN_SECONDS: Final = 1.0
"""How long it may take to shut down: what takes much longer than the grace period is killed by the parent."""


class AppFailed(Exception):
    """The application of http.app cannot be served. The text is one line."""

    def __init__(self, text: str) -> None:
        super().__init__(" ".join(text.split()))


class Lifespan:
    """Runs an application's lifespan once. `state` is what it gives to each request, filled when it has started.

    `key` is how the configuration names the application. `must` says that a lifespan that raises before it says
    anything has failed; else the application has none.
    """

    def __init__(self, app: ASGIApp, *, key: str, must: bool) -> None:
        self.state: Final[dict[str, Any]] = {}
        self._app: Final = app
        self._key: Final = key
        self._must: Final = must
        self._has_started = False
        self._refusal: str | None = None
        self._raised: BaseException | None = None
        self._answered: Final = anyio.Event()
        self._ended: Final = anyio.Event()

    async def run(self, *, task_status: TaskStatus[None]) -> None:
        """Start it, and shut it down when cancelled.

        Raises: AppFailed when it does not start.
        """
        tell, told = anyio.create_memory_object_stream[Message](2)
        alive = anyio.CancelScope(shield=True)  # it is told to go, not cancelled
        with tell, told:
            async with anyio.create_task_group() as group:
                tell.send_nowait({"type": "lifespan.startup"})
                group.start_soon(self._live, alive, told.receive)
                try:
                    with anyio.move_on_after(START_SECONDS):
                        await self._answered.wait()
                    self._check()
                    task_status.started()
                    await anyio.sleep_forever()
                finally:
                    tell.send_nowait({"type": "lifespan.shutdown"})
                    with anyio.move_on_after(SHUTDOWN_SECONDS if self._has_started else 0, shield=True):
                        await self._ended.wait()
                    alive.cancel()

    async def _live(self, alive: anyio.CancelScope, receive: Any) -> None:
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": self.state}
        with alive:
            try:
                await self._app(scope, receive, self._heard)
            except (Exception, SystemExit) as raised:  # noqa: BLE001 - a wall: it is the user's code
                self._raised = raised
                if self._has_started:
                    trace = "".join(traceback.format_exception(raised))
                    telemetry.log().error(
                        telemetry.HTTP_APP_FAILED, key=self._key, message=described(raised), trace=trace
                    )
            finally:
                self._answered.set()
                self._ended.set()

    async def _heard(self, message: Message) -> None:
        match message["type"]:
            case "lifespan.startup.complete":
                self._has_started = True
                self._answered.set()
            case "lifespan.startup.failed":
                self._refusal = message.get("message", "")  # what it raises next says where
            case _:
                pass

    def _check(self) -> None:
        """Raise AppFailed unless it has started, or has no lifespan."""
        if self._has_started:
            return
        if not self._answered.is_set():
            raise AppFailed(f"{self._key}: did not start within {START_SECONDS:g} s")
        if self._refusal is not None or self._must:
            lines = (self._refusal or "it ended while it started").strip().splitlines()
            why = described(self._raised) if self._raised else lines[-1] if lines else "it said no more"
            raise AppFailed(f"{self._key}: does not start: {why}")
