"""Watch: asks the database after what is followed here and carried elsewhere, for all who wait.

    followers --listen--> hub <--events, ends-- watch <--one statement-- database
                                                 ^ woken by a NOTIFY, or after LOOK_SECONDS

A follower asks nothing while it waits, so that a thousand of them cost one statement a second and no connection. A run
that is under way here tells the hub by itself; threads are followed through the log alone, which numbers them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import anyio
from anyio.abc import TaskStatus

from matins import telemetry
from matins.domain.errors import Unavailable
from matins.domain.frames import Frame
from matins.domain.ids import NodeId, RunId, ThreadId
from matins.engine.streams.hub import Hub, Topic
from matins.engine.streams.wake import GATHER_SECONDS, Wakes
from matins.storage import frames as frame_log
from matins.storage.pool import Conn, Pool

LOOK_SECONDS: Final = 1.0
"""How often the database is asked when nothing wakes the watch."""

INTEREST_SECONDS: Final = 60.0
"""For how long a thread's events are kept for a follower without being asked again."""

RENEW_SECONDS: Final = 20.0
PAGE: Final = 200


class Watch:
    """Looks after what is followed here. `holds`: whether a run is under way on this node."""

    def __init__(
        self, *, pool: Pool, hub: Hub, wakes: Wakes, node_id: NodeId, holds: Callable[[RunId], bool]
    ) -> None:
        self._pool: Final = pool
        self._hub: Final = hub
        self._wakes: Final = wakes
        self._node_id: Final = node_id
        self._holds: Final = holds
        self._passed_on: dict[Topic, int] = {}
        self._known: dict[
            Topic, bool
        ] = {}  # of which runs the database knows that they are followed (True) or awaited
        self._renew_at = 0.0

    async def run(self, *, task_status: TaskStatus[None]) -> None:
        """Look whenever there may be news of what is followed here."""
        task_status.started()
        while True:
            await self._wakes.news.wait(LOOK_SECONDS)
            try:
                await self._look()
            except Unavailable as away:
                telemetry.log().warning(telemetry.DATABASE_AWAY, error=str(away))
            except Exception:  # noqa: BLE001 - the wall of a loop iteration: the next look may do better
                telemetry.log().exception(telemetry.LOOP_FAILED)
            await anyio.sleep(GATHER_SECONDS)  # what comes meanwhile is looked at together

    def wake(self) -> None:
        """Look at once: somebody follows what is not under way here."""
        self._wakes.news()

    async def keep_thread(self, thread_id: ThreadId) -> None:
        """Have the events of a thread's runs kept from now on, for a follower that is about to listen."""
        await self._pool.run(lambda conn: frame_log.follow_threads(conn, [thread_id], for_s=INTEREST_SECONDS))
        self._wakes.tell_holder(thread_id)

    async def _look(self) -> None:
        followed = [each for each in self._hub.subscriptions if each.thread_id and not each.has_ended]
        threads = {each.topic for each in followed if each.is_of_thread}
        runs: dict[RunId, bool] = {}  # and whether somebody wants its events
        for each in followed:
            if each.topic not in threads and not self._holds(RunId(each.topic)):
                runs[RunId(each.topic)] = runs.get(RunId(each.topic), False) or each.wants_frames
        watched = threads | runs.keys()
        self._passed_on = {topic: seq for topic, seq in self._passed_on.items() if topic in watched}
        self._known = {topic: events for topic, events in self._known.items() if topic in watched}
        if not watched:
            return
        thread_ids = [ThreadId(topic) for topic in threads]
        await self._renew(thread_ids)
        found = await self._pool.run(
            lambda conn: frame_log.look(conn, list(runs), thread_ids), transaction=False
        )
        under_way: list[tuple[RunId, ThreadId]] = []
        for seen in found:
            topic = RunId(seen.topic)
            if topic in threads or runs[topic]:
                await self._pass_on(topic, seen.last_seq, is_thread=topic in threads)
            if seen.is_over:
                self._hub.end(topic, None)
            elif topic in runs and seen.thread_id and self._known.get(topic) not in (True, runs[topic]):
                under_way.append((topic, seen.thread_id))
        await self._follow(under_way, runs)

    async def _pass_on(self, topic: Topic, last: int, *, is_thread: bool) -> None:
        """Hand what is new in the log to all who listen; to those who come first, the number of its end."""
        passed_on = self._passed_on.get(topic)
        if passed_on is None:
            self._passed_on[topic] = last
            self._hub.ring(topic, last)
            return
        while passed_on < last:

            async def read(conn: Conn, after: int = passed_on) -> list[Frame]:
                if is_thread:
                    return await frame_log.read_thread_after(conn, ThreadId(topic), after, limit=PAGE)
                return await frame_log.read_after(conn, RunId(topic), after, limit=PAGE)

            frames = await self._pool.run(read, transaction=False)
            if frames:
                self._hub.publish(topic, frames)
            passed_on = frames[-1].seq if len(frames) == PAGE else last
            self._passed_on[topic] = max(passed_on, frames[-1].seq if frames else 0)

    async def _follow(self, under_way: list[tuple[RunId, ThreadId]], runs: dict[RunId, bool]) -> None:
        """Let the nodes that carry these runs, now or later, know that they are followed from here."""
        if not under_way:
            return
        followed = [run_id for run_id, _ in under_way if runs[run_id]]
        awaited = [run_id for run_id, _ in under_way]
        await self._pool.run(
            lambda conn: frame_log.follow_runs(conn, self._node_id, followed=followed, awaited=awaited)
        )
        for run_id, thread_id in under_way:
            self._known[run_id] = runs[run_id]
            self._wakes.tell_holder(thread_id)

    async def _renew(self, thread_ids: list[ThreadId]) -> None:
        if thread_ids and time.monotonic() >= self._renew_at:
            await self._pool.run(
                lambda conn: frame_log.follow_threads(conn, thread_ids, for_s=INTEREST_SECONDS)
            )
            self._renew_at = time.monotonic() + RENEW_SECONDS
