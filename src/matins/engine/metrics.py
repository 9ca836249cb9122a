"""What this node tells its operators of crons: counts for Prometheus, and a line of the log for each fire.

The ledger is what is counted. Counts are of the rows that this node wrote, told when they are committed, so that no
scrape reads the ledger; over all nodes they add up. Gauges are read from the database at a scrape. A slot that waits
to be caught up counts as `waiting`, and once more when it fires.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from datetime import datetime
from typing import Final

import anyio
from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from matins import telemetry
from matins.domain.errors import Unavailable
from matins.domain.fires import Fire, Outcome, Trigger
from matins.engine.looks import Looks
from matins.storage import firing, gauges
from matins.storage.pool import Conn, Pool

CONTENT_TYPE: Final = CONTENT_TYPE_PLAIN_0_0_4

PATIENCE_SECONDS: Final = 2.0
"""How long a scrape waits for the database. Without it, it tells of this process alone."""

_LATENESS: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600)
_SHARE: Final = 1 / 2000
"""How much of the time may go into counting crons: among few the count is of a second ago, among many of a minute."""


class Metrics:
    """The metrics of one node. `lanes_in_use`: how many runs it has under way."""

    def __init__(self, *, pool: Pool, looks: Looks, lanes_in_use: Callable[[], int]) -> None:
        self._pool: Final = pool
        self._looks: Final = looks
        self._lanes_in_use: Final = lanes_in_use
        self._crons: dict[str, int] = {}
        self._counts_again_at = 0.0
        self._counted: Final = CollectorRegistry()
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a series more for each, of no use
        self._fires: Final = Counter(
            "matins_cron_fires",
            "Slots that this node put on record, by what became of them and what they were due to.",
            ("outcome", "trigger"),
            registry=self._counted,
        )
        for outcome in set(Outcome) - {Outcome.WAITING}:  # there from the start: the first of them is a rise
            self._fires.labels(outcome.value, Trigger.SCHEDULE.value)
        self._lateness: Final = Histogram(
            "matins_cron_fire_lateness_seconds",
            "From a slot, and its jitter, to its record, for slots that this node fired on schedule.",
            buckets=_LATENESS,
            registry=self._counted,
        )

    def recorded(self, row: firing.NewFire, at: datetime | None = None) -> None:
        """Tell of a row that was committed; `at`: when it was recorded, where that says how late it was."""
        late_s = None if at is None else (at - row.slot - row.cron.delay).total_seconds()
        self._fires.labels(row.outcome, row.trigger).inc()
        if late_s is not None and (row.outcome, row.trigger) == (Outcome.FIRED, Trigger.SCHEDULE):
            self._lateness.observe(max(0.0, late_s))
        telemetry.log().info(
            telemetry.CRON_FIRED if row.outcome == Outcome.FIRED else telemetry.CRON_MISSED,
            cron_id=str(row.cron.cron_id),
            slot=row.slot.isoformat(),
            outcome=row.outcome,
            trigger=row.trigger,
            **({"run_id": str(row.run.run_id)} if row.run else {"reason": row.reason}),
            **({} if late_s is None else {"late_s": round(late_s, 3)}),
        )

    def triggered(self, fire: Fire) -> None:
        """Tell of a fire that somebody asked for."""
        self._fires.labels(fire.outcome.value, fire.trigger.value).inc()
        telemetry.log().info(
            telemetry.CRON_FIRED,
            cron_id=str(fire.cron_id),
            slot=fire.scheduled_for.isoformat(),
            outcome=fire.outcome.value,
            trigger=fire.trigger.value,
            run_id=str(fire.run_id),
        )

    async def scrape(self) -> bytes:
        """Give all metrics as Prometheus reads them; without the database, those of this process."""
        found = None
        with anyio.move_on_after(PATIENCE_SECONDS), suppress(Unavailable):  # matins_database_up says so
            found = await self._pool.run(self._read, transaction=False, patience_s=PATIENCE_SECONDS)
        return generate_latest(self._counted) + generate_latest(_Gauges(self._gauges(found)))

    async def _read(self, conn: Conn) -> gauges.Gauges:
        found = await gauges.read(conn)
        began = time.monotonic()
        if began >= self._counts_again_at:
            self._crons = await gauges.crons_by_state(conn)
            ended = time.monotonic()
            self._counts_again_at = ended + (ended - began) / _SHARE
        return found

    def _gauges(self, found: gauges.Gauges | None) -> Iterable[Metric]:
        """Give what is so now. What is not known is left out."""
        yield _gauge(
            "matins_database_up", "Whether the database answered this scrape.", int(found is not None)
        )
        yield _gauge("matins_lanes_in_use", "Runs under way in this node's workers.", self._lanes_in_use())
        if self._looks.last is not None:
            yield _gauge(
                "matins_scheduler_last_look_timestamp_seconds",
                "When this node's scheduler last looked at what is due.",
                self._looks.last.timestamp(),
            )
        if found is None:
            return
        lag_s = (found.now - found.due_at).total_seconds() if found.due_at else 0.0
        yield _gauge(
            "matins_scheduler_lag_seconds",
            "How long the oldest due slot waits for a scheduler.",
            max(0.0, lag_s),
        )
        if found.last_success is not None:
            yield _gauge(
                "matins_cron_last_success_timestamp_seconds",
                "When a run of any cron last ended as a success.",
                found.last_success.timestamp(),
            )
        yield _by("state", "matins_crons", "Crons of the server.", self._crons)
        text = f"Runs of the server that wait or are under way, counted up to {gauges.MOST_RUNS}."
        yield _by("status", "matins_runs", text, found.runs)


class _Gauges(Collector):
    """Gauges of one scrape."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families: Final = families

    def collect(self) -> Iterable[Metric]:
        """Give them, once."""
        return self._families


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value)


def _by(label: str, name: str, text: str, values: Mapping[str, int]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=[label])
    for key, value in values.items():
        family.add_metric([key], value)
    return family
