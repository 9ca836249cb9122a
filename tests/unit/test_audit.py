from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from tests.support.audit import AcknowledgedCron, Claims, Fire, Found, Run, violations

NOON = datetime(2026, 3, 4, 12, tzinfo=UTC)
SLOTS = [NOON + timedelta(seconds=at) for at in range(3)]


def facts() -> tuple[Claims, Found]:
    """A server that kept its word: a run, a temporary run, a cron with three slots."""
    fired = [f"fired{at}" for at in range(3)]
    claims = Claims(
        runs={"run": False, "passing": True},
        threads={"thread"},
        crons={"cron": AcknowledgedCron(SLOTS[0], SLOTS[-1])},
        finished={"run", "passing", *fired},
        of_crons=set(fired),
    )
    found = Found(
        runs=[Run("run"), *(Run(fired[at], cron_id="cron", slot=SLOTS[at]) for at in range(3))],
        threads={"thread": "idle"},
        crons={"cron"},
        fires=[Fire("cron", SLOTS[at], SLOTS[at], run_id=fired[at]) for at in range(3)],
    )
    return claims, found


def fire(found: Found, **changes: object) -> None:
    found.fires[1] = replace(found.fires[1], **changes)  # type: ignore[arg-type]


def run(found: Found, **changes: object) -> None:
    found.runs[0] = replace(found.runs[0], **changes)  # type: ignore[arg-type]


def late(seconds: float) -> datetime:
    return SLOTS[1] + timedelta(seconds=seconds)


def test_promises_that_were_kept_are_not_found_broken() -> None:
    assert violations(*facts()) == []


@pytest.mark.parametrize(
    ("breaks", "said"),
    [
        pytest.param(lambda _, f: f.fires.pop(1), "has no row", id="a missing slot"),
        pytest.param(lambda _, f: f.fires.append(f.fires[1]), "has 2 rows", id="a doubled slot"),
        pytest.param(lambda _, f: fire(f, slot=late(0.5)), "is no slot", id="a slot that is none"),
        pytest.param(
            lambda _, f: fire(f, outcome="missed", recorded=late(29)), "missed", id="missed too early"
        ),
        pytest.param(lambda _, f: fire(f, outcome="failed"), "failed", id="a slot that failed"),
        pytest.param(lambda _, f: fire(f, recorded=late(31)), "31", id="fired too late"),
        pytest.param(lambda _, f: fire(f, run_id=None), "None never came", id="fired without a run"),
        pytest.param(lambda _, f: fire(f, run_id="fired2"), "of another slot", id="two slots with one run"),
        pytest.param(
            lambda _, f: f.runs.append(Run("more", cron_id="cron", slot=SLOTS[1])),
            "2 runs",
            id="a doubled run",
        ),
        pytest.param(lambda c, _: c.of_crons.add("more"), "no row in the ledger", id="a run off the ledger"),
        pytest.param(lambda c, _: c.finished.remove("fired1"), "never came", id="a fired run that never ran"),
        pytest.param(lambda _, f: f.runs.pop(0), "is gone", id="a missing run"),
        pytest.param(lambda c, _: c.finished.remove("passing"), "never came", id="a lost temporary run"),
        pytest.param(lambda _, f: run(f, status="pending"), "still pending", id="a pending run"),
        pytest.param(lambda _, f: run(f, status="running"), "still running", id="a running run"),
        pytest.param(lambda _, f: run(f, status="error"), "no kill explains", id="a failed run"),
        pytest.param(lambda _, f: run(f, crashes=1), "charged 1", id="a crash without a dead worker"),
        pytest.param(lambda _, f: f.threads.clear(), "is gone", id="a missing thread"),
        pytest.param(lambda _, f: f.threads.update(thread="busy"), "busy", id="a busy thread"),
        pytest.param(lambda _, f: f.crons.clear(), "is gone", id="a missing cron"),
    ],
)
def test_a_broken_promise_is_found(breaks: Callable[[Claims, Found], object], said: str) -> None:
    claims, found = facts()
    breaks(claims, found)
    assert any(said in line for line in violations(claims, found))


@pytest.mark.parametrize(("ended", "is_kept"), [(None, True), (1.5, True), (-0.5, False)])
def test_a_slot_may_be_skipped_while_a_run_of_its_cron_is_in_flight(
    ended: float | None, is_kept: bool
) -> None:
    claims, found = facts()
    found.fires[0] = replace(found.fires[0], ended=None if ended is None else late(ended))
    found.fires[2] = replace(found.fires[2], ended=late(60))
    fire(found, outcome="skipped", run_id=None)
    found.runs.pop(2)
    claims.of_crons.discard("fired1")
    broken = violations(claims, found)
    assert (broken == []) is is_kept
    assert is_kept or any("in flight" in line for line in broken)


def test_a_late_slot_may_be_missed_or_caught_up() -> None:
    claims, found = facts()
    fire(found, outcome="missed", recorded=late(31), run_id=None)
    found.runs.pop(2)
    claims.of_crons.discard("fired1")
    found.fires[2] = replace(found.fires[2], recorded=late(40), trigger="catch_up")
    assert violations(claims, found) == []


def test_a_run_may_fail_when_its_worker_was_killed_three_times() -> None:
    claims, found = facts()
    claims.worker_kills = 3
    run(found, status="error", crashes=2)
    assert violations(claims, found) == []
    run(found, crashes=1)
    assert violations(claims, found) != []
