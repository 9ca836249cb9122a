"""Wakes: hints that there is something to do, here and on the other nodes of the database.

    told here       the part of this node that it concerns is woken at once
    told elsewhere  by NOTIFY, ids only, after the commit, from a connection of its own; what comes within
                    GATHER_SECONDS goes out together
    lost            a poll is behind each hint: it costs time, not work

A node that does not hear its own NOTIFY within HEARING_SECONDS, as behind PgBouncer in transaction mode, lives by its
polls. Whenever the connection was lost, all parts are woken: what was missed is unknown.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final
from uuid import UUID

import anyio
from anyio.abc import TaskStatus

from matins import telemetry
from matins.domain.errors import Error
from matins.domain.ids import NodeId, ThreadId
from matins.storage import notify
from matins.storage.pool import Conn

GATHER_SECONDS: Final = 0.02
HEARING_SECONDS: Final = 2.0
PROBE_SECONDS: Final = 10.0
"""How often a quiet connection is asked whether it still is one."""

_QUEUE: Final = "q"
_HOLDER: Final = "h:"
_FOLLOWERS: Final = "f:"
_EVERYTHING: Final = "*"
_PROBE: Final = "p"
_ROOM: Final = notify.LIMIT_BYTES - 40


class Wake:
    """A flag that many may raise and one waits for."""

    def __init__(self) -> None:
        self._event = anyio.Event()

    def __call__(self) -> None:
        """Raise it."""
        self._event.set()

    async def wait(self, timeout_s: float) -> bool:
        """Wait until it is raised, or for `timeout_s` seconds, and lower it; whether it was raised."""
        with anyio.move_on_after(timeout_s):
            await self._event.wait()
        was_raised = self._event.is_set()
        self._event = anyio.Event()
        return was_raised


class Wakes:
    """The hints of this node and to this node.

    `claims`: a run may have become claimable. `holds`: somebody wishes something of a run that is under way. `news`:
    something may have come of a run or a thread that is followed here. `reports`: a run may have left a report for its
    webhook. `slots`: one that waits may be caught up. `follows`: whether somebody here follows a thread.
    """

    def __init__(self, dsn: str, *, node_id: NodeId, follows: Callable[[ThreadId], bool]) -> None:
        self.claims: Final = Wake()
        self.holds: Final = Wake()
        self.news: Final = Wake()
        self.reports: Final = Wake()
        self.slots: Final = Wake()
        self._dsn: Final = dsn
        self._sender: Final = str(node_id)
        self._follows: Final = follows
        self._untold: dict[str, None] = {}  # in the order in which they came, each once
        self._something = Wake()
        self._heard = anyio.Event()
        self._is_closed = False

    def tell_queue(self) -> None:
        """Say that a run became pending."""
        self.claims()
        self._tell(_QUEUE)

    def tell_slots(self) -> None:
        """Say that crons have fired: runs became pending, or slots wait to be caught up."""
        self.slots()
        self.tell_queue()

    def tell_holder(self, thread_id: ThreadId) -> None:
        """Say that what runs on the thread is wished to stop, or is followed from now on."""
        self.holds()
        self._tell(f"{_HOLDER}{thread_id}")

    def tell_followers(self, thread_id: ThreadId) -> None:
        """Say that something is kept of the thread's runs, or that one has ended."""
        if self._follows(thread_id):
            self.news()
        self._tell(f"{_FOLLOWERS}{thread_id}")

    def _tell(self, hint: str) -> None:
        self._untold[hint] = None
        self._something()

    async def run(self, *, task_status: TaskStatus[None]) -> None:
        """Listen and tell until cancelled; the node does not wait for it."""
        task_status.started()
        is_away = False  # said once, not at every try
        while True:
            try:
                self._is_closed = False
                async with notify.listening(self._dsn, self._hear, self._close) as connection:
                    is_away = False
                    self._wake_all()
                    if not await self._hears(connection):
                        telemetry.log().warning(
                            telemetry.NODE_POLLS,
                            reason="a NOTIFY of its own was not heard: is there a pooler?",
                        )
                    await self._tell_on(connection)
            except Error as away:
                if not is_away:
                    telemetry.log().warning(telemetry.DATABASE_AWAY, error=str(away))
                is_away = True
            except Exception:  # noqa: BLE001 - the wall of a loop iteration: the next connection may do better
                telemetry.log().exception(telemetry.LOOP_FAILED)
            await anyio.sleep(1)

    async def _hears(self, connection: Conn) -> bool:
        """Whether this node hears itself."""
        self._heard = anyio.Event()
        await notify.send(connection, f"{self._sender} {_PROBE}")
        with anyio.move_on_after(HEARING_SECONDS):
            await self._heard.wait()
        return self._heard.is_set()

    async def _tell_on(self, connection: Conn) -> None:
        """Send what there is to tell, until the connection ends."""
        while not self._is_closed:
            if not self._untold:
                await self._something.wait(PROBE_SECONDS)
            told, self._untold = list(self._untold), {}
            text = " ".join(told) or _PROBE
            await notify.send(connection, f"{self._sender} {text if len(text) < _ROOM else _EVERYTHING}")
            await anyio.sleep(GATHER_SECONDS)

    def _close(self) -> None:
        self._is_closed = True
        self._something()

    def _hear(self, text: str) -> None:
        sender, *hints = text.split(" ")
        if sender == self._sender:
            self._heard.set()
            return
        for hint in hints:
            if hint == _QUEUE:
                self.claims()
            elif hint.startswith(_HOLDER):
                self.holds()
            elif hint.startswith(_FOLLOWERS):
                if self._follows(ThreadId(UUID(hint.removeprefix(_FOLLOWERS)))):
                    self.news()
            elif hint == _EVERYTHING:
                self._wake_all()

    def _wake_all(self) -> None:
        self.claims()
        self.holds()
        self.news()
