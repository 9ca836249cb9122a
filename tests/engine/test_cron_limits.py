"""What crons may spend, how their failures are met, and what their unanswered questions come to: with real workers."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from matins.domain.access import EVERYONE, Scope
from matins.domain.budgets import Ceilings
from matins.domain.crons import Cron
from matins.domain.errors import Conflict, Invalid
from matins.domain.ids import CronId, RunId, uuid7
from matins.domain.runs import Held, RunStatus
from matins.engine import crons, triggering
from matins.engine.backfilling import backfill
from matins.storage import crons as stored
from matins.storage import spending
from matins.storage.spending import Calls
from tests.support.engine import MOVABLE_CLOCK, Node, create_cron, move_clock, node, until

pytestmark = pytest.mark.anyio

PROJECT = Path(__file__).parent / "spending" / "langgraph.json"
HOOK = "http://127.0.0.1:9/hook"


@asynccontextmanager
async def moving_node(database: str) -> AsyncIterator[Node]:
    async with node(database, PROJECT) as running:
        async with running.pool.connection() as conn:
            await conn.execute(MOVABLE_CLOCK)
        yield running


@pytest.fixture
async def engine(database: str) -> AsyncIterator[Node]:
    async with moving_node(database) as running:
        yield running


class Crons:
    """A cron of a test, its folder, and what became of it."""

    def __init__(self, engine: Node, folder: Path, cron: Cron) -> None:
        self.engine, self.folder, self.cron = engine, folder, cron

    @property
    def calls(self) -> int:
        calls = self.folder / "calls"
        return len(calls.read_text().split()) if calls.exists() else 0

    async def get(self) -> Cron:
        found = await self.engine.pool.run(
            lambda conn: stored.get(conn, self.cron.cron_id, scope=EVERYONE), transaction=False
        )
        assert found is not None
        return found

    async def fires(self) -> list[Any]:
        return await self.engine.fetch(
            "SELECT * FROM matins.cron_fire WHERE cron_id = $1 ORDER BY scheduled_for", self.cron.cron_id
        )

    async def slot(self, number: int) -> list[Any]:
        """Let the next slot come; gives the ledger when it has so many rows that are over."""
        await self.come()
        return await self.over(number)

    async def come(self) -> None:
        """Let the next slot come."""
        left = await self.engine.value(
            "SELECT extract(epoch FROM next_run_date - matins.now())::float FROM matins.cron WHERE cron_id = $1",
            self.cron.cron_id,
        )
        await move_clock(self.engine.pool, seconds=left)
        self.engine.due()

    async def over(self, number: int) -> list[Any]:
        async def look() -> list[Any] | None:
            fires = await self.fires()
            is_over = all(
                each["status"] not in ("pending", "running") and each["outcome"] != "waiting"
                for each in fires
            )
            return fires if len(fires) >= number and is_over else None

        found: list[Any] = await until(look)
        return found

    async def paused(self) -> str:
        async def look() -> str | None:
            return (await self.get()).paused_reason

        reason: str = await until(look)
        return reason

    async def alerts(self) -> list[tuple[str, str]]:
        rows = await self.engine.fetch(
            "SELECT payload FROM matins.webhook_delivery WHERE cron_id = $1 ORDER BY created_at",
            self.cron.cron_id,
        )
        said = [json.loads(row["payload"]) for row in rows]
        return [(each["type"], each["data"]["reason"]) for each in said]


async def make(
    engine: Node, tmp_path: Path, graph: str, policy: dict[str, Any], *, on_thread: bool = True, **asked: Any
) -> Crons:
    thread_id = await engine.thread() if on_thread else None
    cron = await create_cron(
        engine.pool,
        "0 * * * *",
        thread_id=thread_id,
        graphs=engine.workers,
        assistant=graph,
        payload={"input": {"folder": str(tmp_path), **asked}, "webhook": HOOK},
        policy=policy,
    )
    return Crons(engine, tmp_path, cron)


async def trigger(engine: Node, cron_id: CronId) -> Any:
    return await engine.pool.run(
        lambda conn: triggering.trigger(
            conn, cron_id, run_id=RunId(uuid7()), graphs=engine.workers, scope=EVERYONE
        )
    )


def kinds(alerts: Sequence[tuple[str, str]]) -> list[str]:
    return [kind for kind, _ in alerts]


# -- spending


async def test_a_token_budget_allows_exactly_its_calls_and_pauses_with_its_reason(
    engine: Node, tmp_path: Path
) -> None:
    cron = await make(engine, tmp_path, "calling", {"budget_tokens": 10_000, "budget_window": "month"})
    fires = [await cron.slot(number) for number in range(1, 11)][-1]
    assert [each["tokens"] for each in fires] == [1000] * 10
    assert [each["model_calls"] for each in fires] == [1] * 10
    assert fires[0]["cost_usd"] == pytest.approx((900 * 1 + 100 * 10) / 1e6)
    assert await cron.paused() == "budget_tokens: 10,000 of 10,000 used this month"
    assert cron.calls == 10
    assert await cron.alerts() == [
        ("cron.budget_warning", "budget_tokens: 8,000 of 10,000 used this month"),
        ("cron.paused", "budget_tokens: 10,000 of 10,000 used this month"),
    ]
    await engine.pool.run(lambda conn: crons.resume(conn, cron.cron.cron_id, scope=EVERYONE))
    fires = await cron.slot(11)  # resumed, with nothing left: the slot is on record and no call is made
    assert (fires[-1]["outcome"], fires[-1]["reason"]) == (
        "skipped", "budget_tokens: 10,000 of 10,000 used this month",
    )  # fmt: skip
    assert (await cron.get()).paused_reason == fires[-1]["reason"]
    assert cron.calls == 10


@pytest.mark.parametrize("graph", ["calling", "forking", "stubborn"])
async def test_a_run_is_held_at_the_budget_if_its_policy_says_so(
    engine: Node, tmp_path: Path, graph: str
) -> None:
    policy = {"budget_tokens": 10_000, "on_budget": "cancel"}
    cron = await make(engine, tmp_path, graph, policy, calls=10 if graph == "forking" else 25)
    [fire] = await cron.slot(1)
    assert cron.calls == 10
    assert fire["tokens"] == 10_000
    assert "budget_tokens" in await cron.paused()
    if graph != "forking":
        assert (fire["status"], json.loads(fire["error"])["error"]) == ("error", "BudgetExceeded")


async def test_without_that_a_run_goes_on_to_its_end(engine: Node, tmp_path: Path) -> None:
    cron = await make(engine, tmp_path, "calling", {"budget_tokens": 3000}, calls=5)
    [fire] = await cron.slot(1)
    assert (fire["status"], fire["tokens"], cron.calls) == ("success", 5000, 5)
    assert (await cron.paused()).startswith("budget_tokens: ")
    assert kinds(await cron.alerts())[-1] == "cron.paused"


async def test_a_budget_in_dollars_needs_prices_and_a_model_without_one_pauses(
    engine: Node, tmp_path: Path
) -> None:
    cron = await make(engine, tmp_path, "calling", {"budget_usd": 0.0019})
    await cron.slot(1)
    assert await cron.paused() == "budget_usd: $0.0019 of $0.0019 used today"
    other = await make(engine, tmp_path, "calling", {"budget_usd": 100}, model="nobody-knows-it")
    await other.slot(1)
    assert "no price is known of the model 'nobody-knows-it'" in await other.paused()


async def test_models_that_everybody_knows_have_their_price(engine: Node, tmp_path: Path) -> None:
    cron = await make(engine, tmp_path, "calling", {"budget_usd": 100}, model="gpt-4o", calls=3)
    [fire] = await cron.slot(1)
    assert (fire["status"], fire["tokens"]) == ("success", 3000)
    assert 0.001 < fire["cost_usd"] < 0.1
    assert (await cron.get()).enabled


async def test_the_last_run_of_max_runs_pauses_its_cron(engine: Node, tmp_path: Path) -> None:
    cron = await make(engine, tmp_path, "calling", {"max_runs": 2})
    await cron.slot(1)
    assert (await cron.get()).enabled
    await cron.slot(2)
    assert await cron.paused() == "max_runs: 2 of 2 were made"
    with pytest.raises(Conflict, match="max_runs"):
        await trigger(engine, cron.cron.cron_id)
    assert cron.calls == 2


async def test_what_was_used_in_another_window_does_not_count(engine: Node, tmp_path: Path) -> None:
    cron = await make(engine, tmp_path, "calling", {"budget_tokens": 1500, "budget_window": "rolling"})
    await cron.slot(1)
    await engine.pool.run(lambda conn: crons.pause(conn, cron.cron.cron_id, "for a day", scope=EVERYONE))
    await move_clock(engine.pool, hours=25)
    await engine.pool.run(lambda conn: crons.resume(conn, cron.cron.cron_id, scope=EVERYONE))
    fires = await cron.slot(2)
    assert [each["tokens"] for each in fires] == [1000, 1000]
    assert (await cron.get()).enabled
    await cron.slot(3)
    assert await cron.paused() == "budget_tokens: 2,000 of 1,500 used in the last 24 hours"


async def test_a_run_has_as_long_as_its_policy_says(engine: Node, tmp_path: Path) -> None:
    cron = await make(engine, tmp_path, "calling", {"max_run_seconds": 1}, seconds=60)
    [fire] = await cron.slot(1)
    assert (fire["status"], json.loads(fire["error"])["error"]) == ("timeout", "TimeoutError")


async def test_no_retry_comes_after_the_time_that_a_run_has(engine: Node, tmp_path: Path) -> None:
    policy = {"max_run_seconds": 30, "retry": {"max": 5, "backoff": 40}}
    cron = await make(engine, tmp_path, "failing", policy)
    (tmp_path / "fails").write_text("timeout")
    [fire] = await cron.slot(1)
    assert (fire["status"], fire["retries"]) == ("error", 0)


async def test_what_is_caught_up_is_held_to_max_runs_run_by_run(engine: Node, tmp_path: Path) -> None:
    cron = await make(engine, tmp_path, "calling", {"max_runs": 3, "misfire": "run_all"})
    await move_clock(engine.pool, hours=5)
    engine.due()
    fires = await cron.over(5)
    assert [each["outcome"] for each in fires] == ["fired"] * 3 + ["skipped"] * 2
    assert await cron.paused() == "max_runs: 3 of 3 were made"
    assert cron.calls == 3


async def test_a_call_counts_once_however_often_it_is_put_on_record(engine: Node, tmp_path: Path) -> None:
    cron = await make(engine, tmp_path, "calling", {})
    [fire] = await cron.slot(1)
    held = Held(fire["run_id"], fire["thread_id"], 2)
    calls = Calls(number=1, input_tokens=1, output_tokens=1, tokens=2, usd=0.0)

    async def add(upto: int) -> bool:
        return await engine.pool.run(lambda conn: spending.add(conn, held, calls, upto=upto))

    assert [await add(1), await add(1), await add(2)] == [True, False, True]
    [fire] = await cron.fires()
    assert (fire["model_calls"], fire["tokens"]) == (3, 1004)


# -- failures


@pytest.mark.parametrize("kind", ["timeout", "429", "503"])
async def test_an_error_that_may_pass_is_tried_again_from_the_checkpoint(
    engine: Node, tmp_path: Path, kind: str
) -> None:
    cron = await make(
        engine, tmp_path, "failing", {"retry": {"max": 3, "backoff": 0.05}, "budget_tokens": 100_000}
    )
    (tmp_path / "fails").write_text(f"{kind}\n{kind}")
    [fire] = await cron.slot(1)
    assert (fire["status"], fire["retries"], fire["outcome"]) == ("success", 2, "fired")
    assert cron.calls == 4  # the first node once, the second three times
    assert fire["tokens"] == 4000
    assert await cron.alerts() == []


async def test_an_error_that_stays_is_not_tried_again_and_retries_have_an_end(
    engine: Node, tmp_path: Path
) -> None:
    cron = await make(engine, tmp_path, "failing", {"retry": {"max": 2, "backoff": 0.05}})
    (tmp_path / "fails").write_text("key")
    [fire] = await cron.slot(1)
    assert (fire["status"], fire["retries"]) == ("error", 0)
    (tmp_path / "fails").write_text("429 429 429 429")
    fires = await cron.slot(2)
    assert (fires[1]["status"], fires[1]["retries"]) == ("error", 2)


async def test_no_retry_comes_after_the_next_slot(engine: Node, tmp_path: Path) -> None:
    cron = await make(engine, tmp_path, "failing", {"retry": {"max": 2, "backoff": 4000}})
    (tmp_path / "fails").write_text("timeout")
    [fire] = await cron.slot(1)
    assert (fire["status"], fire["retries"]) == ("error", 0)


async def test_what_is_caught_up_is_tried_again_too(engine: Node, tmp_path: Path) -> None:
    cron = await make(engine, tmp_path, "failing", {"retry": {"max": 3, "backoff": 0.05}})
    (tmp_path / "fails").write_text("503")
    await move_clock(engine.pool, hours=2)
    engine.due()
    fires = await cron.over(1)
    assert (fires[-1]["trigger"], fires[-1]["status"], fires[-1]["retries"]) == ("catch_up", "success", 1)


async def test_a_slot_of_long_ago_begins_no_streak(engine: Node, tmp_path: Path) -> None:
    cron = await make(engine, tmp_path, "failing", {})
    await cron.slot(1)
    (tmp_path / "fails").write_text("key")
    now = await engine.value("SELECT matins.now()")
    await engine.pool.run(
        lambda conn: backfill(
            conn,
            cron.cron.cron_id,
            since=now - timedelta(hours=2.5),
            until=now - timedelta(hours=1.5),
            dry_run=False,
            scope=EVERYONE,
        )
    )
    engine.wakes.tell_slots()
    fires = await cron.over(2)
    assert [each["status"] for each in fires] == ["error", "success"]
    assert await cron.alerts() == []


async def test_a_streak_is_told_of_once_pauses_and_its_end_is_told(engine: Node, tmp_path: Path) -> None:
    cron = await make(engine, tmp_path, "failing", {"pause_after_failures": 3})
    (tmp_path / "fails").write_text("key key key key")
    for number in (1, 2, 3):
        await cron.slot(number)
    assert (
        await cron.paused()
        == "pause_after_failures: 3 runs in a row failed, the last with PermissionError: bad key"
    )
    assert kinds(await cron.alerts()) == ["cron.failing", "cron.paused"]
    await engine.pool.run(lambda conn: crons.resume(conn, cron.cron.cron_id, scope=EVERYONE))
    await cron.slot(4)  # one failure since it was resumed is not three
    assert (await cron.get()).enabled
    await cron.slot(5)
    assert kinds(await cron.alerts()) == ["cron.failing", "cron.paused", "cron.recovered"]


# -- questions


async def answer(engine: Node, cron: Crons) -> None:
    thread_id = cron.cron.thread_id
    assert thread_id is not None
    run = await engine.submit("asking", thread_id=thread_id, input=None, command={"resume": "yes"})
    assert (await engine.ended(run.run_id)).status is RunStatus.SUCCESS


async def test_slots_are_skipped_until_a_question_is_answered(engine: Node, tmp_path: Path) -> None:
    cron = await make(engine, tmp_path, "asking", {})
    await cron.slot(1)
    for number in (2, 3):
        fires = await cron.slot(number)
        assert (fires[-1]["outcome"], fires[-1]["reason"]) == ("skipped", "its thread waits for an answer")
    with pytest.raises(Conflict, match="waits for an answer"):
        await trigger(engine, cron.cron.cron_id)
    await answer(engine, cron)
    assert (await cron.slot(4))[-1]["outcome"] == "fired"


async def test_a_question_may_cost_one_slot_or_some_time(engine: Node, tmp_path: Path) -> None:
    one = await make(engine, tmp_path, "asking", {"on_interrupt": "skip_next"})
    fires = [await one.slot(number) for number in (1, 2, 3, 4)][-1]
    assert [each["outcome"] for each in fires] == ["fired", "skipped", "fired", "skipped"]
    await engine.pool.run(lambda conn: crons.pause(conn, one.cron.cron_id, "enough", scope=EVERYONE))
    other = await make(engine, tmp_path, "asking", {"on_interrupt": {"cancel_after": 5400}})
    fires = [await other.slot(number) for number in (1, 2, 3)][-1]
    assert [each["outcome"] for each in fires] == ["fired", "skipped", "fired"]


async def test_policies_that_cannot_be_are_refused(engine: Node, tmp_path: Path) -> None:
    for policy, named in (
        ({"on_interrupt": {"cancel_after": 1, "resume_with": 2}}, "on_interrupt"),
        ({"on_interrupt": {}}, "on_interrupt"),
        ({"retry": {"max": 0}}, "retry"),
        ({"budget_tokens": 0}, "budget_tokens"),
    ):
        with pytest.raises(Invalid, match=named):
            await make(engine, tmp_path, "asking", policy)


async def test_an_owner_has_no_more_crons_on_than_the_server_allows(engine: Node) -> None:
    owner, allowed = Scope(owner="ada"), Ceilings(crons_per_user=1)

    async def one(**asked: Any) -> Cron:
        request = crons.CronRequest(assistant_id="calling", schedule="0 * * * *", **asked)
        return await engine.pool.run(
            lambda conn: crons.create(
                conn, request, thread_id=None, graphs=engine.workers, scope=owner, ceilings=allowed
            )
        )

    await one()
    off = await one(enabled=False)
    with pytest.raises(Conflict, match="You have 1 crons that are on"):
        await one()
    with pytest.raises(Conflict, match="MATINS_CRONS_PER_USER"):
        await engine.pool.run(lambda conn: crons.resume(conn, off.cron_id, scope=owner, ceilings=allowed))
