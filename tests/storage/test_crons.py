from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from matins.domain.access import EVERYONE, Scope
from matins.domain.crons import Cron, Following
from matins.domain.ids import AssistantId, CronId, RunId, ThreadId, uuid7
from matins.domain.runs import NewRun
from matins.storage import crons, firing, order, threads
from matins.storage.crons import Filter
from matins.storage.pool import Conn, Pool
from tests.support import rows

pytestmark = pytest.mark.anyio

DIRECTIONS: tuple[order.Direction, ...] = ("asc", "desc")
NOW = datetime(2020, 1, 1, tzinfo=UTC)  # long ago: due


def cron(**facts: Any) -> Cron:
    made = Cron(
        cron_id=CronId(uuid4()), assistant_id=AssistantId(uuid4()), thread_id=None, owner="", creator=None,
        schedule="* * * * *", timezone=None, end_time=None, enabled=True, paused_reason=None, next_run_date=NOW,
        revision=1, payload=b'{"input":null}', metadata=b"{}", on_run_completed=None, created_at=NOW, updated_at=NOW,
    )  # fmt: skip
    made = replace(made, **facts)
    return made if "due_at" in facts else replace(made, due_at=made.next_run_date)


async def insert(conn: Conn, **facts: Any) -> Cron:
    inserted = await crons.insert(conn, cron(**facts), tzdata="1")
    assert inserted is not None
    return inserted


def fire_of(of: Cron, slot: datetime) -> firing.NewFire:
    run = NewRun(
        run_id=RunId(uuid4()),
        thread_id=of.thread_id or ThreadId(uuid4()),
        assistant_id=of.assistant_id,
        metadata=b"{}",
        kwargs=b"{}",
        cron_id=of.cron_id,
        scheduled_for=slot,
    )
    return firing.NewFire(of, slot, "fired", run=run, whose=b'{"graph_id":"g"}', config=b'{"tags":["t"]}')


async def test_a_cron_is_stored_as_it_was_given(pool: Pool) -> None:
    async with pool.connection() as conn:
        thread = await rows.thread(conn)
        given = cron(
            thread_id=thread, owner="ada", creator=b'{"id":"ada"}', timezone="Europe/Paris",
            end_time=NOW + timedelta(days=1), metadata=b'{"a": 1}', enabled=False,
        )  # fmt: skip
        stored = await crons.insert(conn, given, tzdata="1")
        assert stored is not None
        assert replace(stored, created_at=NOW, updated_at=NOW) == given
        assert await crons.get(conn, given.cron_id, scope=EVERYONE) == stored


async def test_an_id_that_is_taken_makes_no_second_cron(pool: Pool) -> None:
    async with pool.connection() as conn:
        first = await insert(conn)
        assert await crons.insert(conn, replace(first, schedule="0 0 * * *"), tzdata="1") is None
        assert await crons.get(conn, first.cron_id, scope=EVERYONE) == first


async def test_a_search_wants_every_part_to_match(pool: Pool) -> None:
    async with pool.connection() as conn:
        thread = await rows.thread(conn)
        one = await insert(conn, thread_id=thread, metadata=b'{"team":{"name":"x","size":3}}')
        two = await insert(conn, enabled=False)
        for wanted, expected in [
            (Filter(), [one, two]),
            (Filter(thread_id=thread), [one]),
            (Filter(assistant_id=two.assistant_id), [two]),
            (Filter(enabled=False), [two]),
            (Filter(enabled=True, assistant_id=two.assistant_id), []),
            (Filter(metadata=b'{"team":{"size":3}}'), [one]),
            (Filter(metadata=b'{"team":{"size":4}}'), []),
        ]:
            found = await crons.search(
                conn, wanted, scope=EVERYONE, sort_by="created_at", direction="asc", limit=10, offset=0
            )
            assert found == expected, wanted
            assert await crons.count(conn, wanted, scope=EVERYONE) == len(expected), wanted
            counted = await crons.count(conn, wanted, scope=EVERYONE, limit=1)
            assert counted == min(len(expected), 1), wanted


@pytest.mark.parametrize("sort_by", order.CRONS)
async def test_pages_follow_each_other_and_what_is_not_there_comes_last(pool: Pool, sort_by: str) -> None:
    async with pool.connection() as conn:
        thread = await rows.thread(conn)
        made = [
            await insert(
                conn,
                thread_id=thread if number % 2 else None,
                next_run_date=NOW if number % 3 else None,
                end_time=None if number % 2 else NOW,
            )
            for number in range(7)
        ]
        for direction in DIRECTIONS:
            found: list[Cron] = []
            for offset in range(0, 9, 3):
                found += await crons.search(
                    conn, Filter(), scope=EVERYONE, sort_by=sort_by, direction=direction, limit=3, offset=offset
                )  # fmt: skip
            assert {each.cron_id for each in found} == {each.cron_id for each in made}
            assert len(found) == 7
            keys = [getattr(each, sort_by) for each in found]
            present = [key for key in keys if key is not None]
            assert keys[: len(present)] == sorted(present, reverse=direction == "desc")


async def test_everyone_sees_their_own(pool: Pool) -> None:
    ada, bob = Scope("ada"), Scope("bob")
    async with pool.connection() as conn:
        of_ada = await insert(conn, owner="ada")
        assert await crons.get(conn, of_ada.cron_id, scope=bob) is None
        assert await crons.lock(conn, of_ada.cron_id, scope=bob) is None
        assert not await crons.delete(conn, of_ada.cron_id, scope=bob)
        assert await crons.count(conn, Filter(), scope=bob) == 0
        assert await crons.delete(conn, of_ada.cron_id, scope=ada)


async def test_an_edit_is_a_new_revision_and_switching_on_forgets_why_it_was_off(pool: Pool) -> None:
    async with pool.connection() as conn:
        made = await insert(conn)
        await crons.pause(conn, made, "because")
        paused = await crons.get(conn, made.cron_id, scope=EVERYONE)
        assert paused is not None
        assert (paused.enabled, paused.paused_reason, paused.revision) == (False, "because", 2)
        still = await crons.update(conn, replace(paused, schedule="0 0 * * *"), tzdata="2")
        assert (still.schedule, still.paused_reason, still.revision) == ("0 0 * * *", "because", 3)
        on = await crons.update(conn, replace(still, enabled=True), tzdata="2")
        assert (on.enabled, on.paused_reason, on.revision) == (True, None, 4)


async def test_a_pause_for_an_older_revision_changes_nothing(pool: Pool) -> None:
    async with pool.connection() as conn:
        made = await insert(conn)
        edited = await crons.update(conn, made, tzdata="1")
        await crons.pause(conn, made, "because")
        assert await crons.get(conn, made.cron_id, scope=EVERYONE) == edited


async def test_a_deleted_assistant_pauses_its_crons_alone(pool: Pool) -> None:
    async with pool.connection() as conn:
        one, other = await insert(conn), await insert(conn)
        await crons.pause_of_assistant(conn, one.assistant_id, "gone")
        assert await crons.get(conn, other.cron_id, scope=EVERYONE) == other
        paused = await crons.get(conn, one.cron_id, scope=EVERYONE)
        assert paused is not None
        assert (paused.enabled, paused.paused_reason) == (False, "gone")


async def test_what_is_due_comes_in_order_and_never_what_is_off(pool: Pool) -> None:
    async with pool.connection() as conn:
        now, following = await crons.clock(conn)
        assert following is None
        soon = await insert(conn, next_run_date=now + timedelta(seconds=30))
        past = await insert(conn)
        await insert(conn, enabled=False)
        await insert(conn, next_run_date=None)
        later = await insert(conn, next_run_date=now + timedelta(minutes=5))
        minute, ten = now + timedelta(minutes=1), now + timedelta(minutes=10)
        past_is, soon_is, later_is = [
            crons.Due(each.cron_id, each.revision, each.next_run_date, each.next_run_date)
            for each in (past, soon, later)
            if each.next_run_date
        ]
        assert await crons.due(conn, until=minute, limit=10) == [past_is, soon_is]
        assert await crons.due(conn, until=ten, limit=2) == [past_is, soon_is]
        assert await crons.due(conn, until=ten, limit=3) == [past_is, soon_is, later_is]
        assert await crons.due(conn, after=now, until=ten, limit=3) == [soon_is, later_is]
        assert await crons.due(conn, after=NOW, until=NOW, limit=3) == []
        assert await crons.get_many(conn, [later.cron_id, CronId(uuid7()), past.cron_id]) == [later, past]
        assert (await crons.clock(conn))[1] == NOW


async def test_only_a_cron_that_is_as_it_was_read_is_taken(pool: Pool) -> None:
    async with pool.transaction() as conn:
        due = await insert(conn)
        edited = await insert(conn)
        await crons.update(conn, edited, tzdata="1")
        paused = await insert(conn)
        await crons.pause(conn, paused, "because")
        advanced = await insert(conn)
        later = NOW + timedelta(minutes=1)
        await firing.advance(conn, {advanced.cron_id: Following(later, later)})
        early = await insert(conn, next_run_date=datetime(2999, 1, 1, tzinfo=UTC))
        gone = cron()
        taken = await firing.take(conn, [due, edited, paused, advanced, early, gone])
        assert taken.cron_ids == {due.cron_id}
        assert taken.now is not None
        assert taken.now.utcoffset() is not None
        assert await firing.take(conn, [early]) == firing.Taken(frozenset(), None)


async def test_taking_waits_for_nobody(pool: Pool) -> None:
    async with pool.connection() as conn:
        thread = await rows.thread(conn)
        held, on_held_thread, free = (
            await insert(conn),
            await insert(conn, thread_id=thread),
            await insert(conn),
        )
    async with pool.transaction() as holder:
        await crons.lock(holder, held.cron_id, scope=EVERYONE)
        await threads.lock(holder, thread, scope=EVERYONE)
        async with pool.transaction() as conn:
            taken = await firing.take(conn, [held, on_held_thread, free])
        assert taken.cron_ids == {free.cron_id}
    async with pool.transaction() as conn:
        assert len((await firing.take(conn, [held, on_held_thread, free])).cron_ids) == 3


async def test_a_fire_starts_its_run_on_its_thread_or_on_a_fresh_one(pool: Pool) -> None:
    async with pool.transaction() as conn:
        thread = await rows.thread(conn)
        on_thread, without = await insert(conn, thread_id=thread), await insert(conn, owner="ada")
        both = [fire_of(on_thread, NOW), fire_of(without, NOW)]
        assert await firing.record(conn, both) == both
        found = await conn.fetch(
            "SELECT r.thread_id, r.status, r.priority, r.owner, t.status AS thread, t.owner AS thread_owner,"
            " t.metadata, t.config FROM matins.run r JOIN matins.thread t USING (thread_id) JOIN matins.cron_fire f"
            " ON f.run_id = r.run_id AND f.thread_id = r.thread_id AND f.scheduled_for = r.scheduled_for ORDER BY r.seq"
        )
    assert [tuple(row)[1:] for row in found] == [
        ("pending", -1, "", "busy", "", b'{"graph_id": "g"}', b'{"tags":["t"]}'),
        ("pending", -1, "ada", "busy", "ada", b"{}", b'{"tags":["t"]}'),
    ]
    assert found[0]["thread_id"] == thread


async def test_a_slot_on_record_starts_nothing_again(pool: Pool) -> None:
    async with pool.transaction() as conn:
        made = await insert(conn)
        first, again, other = (
            fire_of(made, NOW),
            fire_of(made, NOW),
            fire_of(made, NOW + timedelta(seconds=1)),
        )
        assert await firing.record(conn, [first]) == [first]
        assert await firing.record(conn, [again, other]) == [other]
        missed = firing.NewFire(made, NOW, "missed", reason="late")
        assert await firing.record(conn, [missed]) == []
        assert await conn.fetchval("SELECT count(*) FROM matins.cron_fire") == 2
        assert await conn.fetchval("SELECT count(*) FROM matins.run") == 2


async def test_the_thread_of_a_fire_is_counted_before_it_has_tags_and_when_it_has(pool: Pool) -> None:
    wanted = threads.Filter(metadata=b'{"graph_id": "g"}')

    async def counted(conn: Conn) -> tuple[int, int, int]:
        """The threads that are counted, those of at most two, and the rows of tags."""
        return (
            await threads.count(conn, wanted, scope=EVERYONE),
            await threads.count(conn, wanted, scope=EVERYONE, limit=2),
            await conn.fetchval("SELECT count(*) FROM matins.thread_tag"),
        )

    async with pool.transaction() as conn:
        await conn.execute(
            "INSERT INTO matins.thread (thread_id, metadata) VALUES (gen_random_uuid(), $1)", wanted.metadata
        )
        made = await insert(conn)
        planned = [fire_of(made, NOW + timedelta(seconds=second)) for second in range(4)]
        runs = [replace(fire.run, metadata=b'{"graph_id": "g", "n": 1}') for fire in planned if fire.run]
        await firing.record(conn, [replace(fire, run=run) for fire, run in zip(planned, runs, strict=True)])
        assert await counted(conn) == (5, 2, 1)
        # Its run ends; its metadata is changed; it goes with its run; something else of it is written.
        await conn.execute("UPDATE matins.thread SET status = 'idle' WHERE thread_id = $1", runs[0].thread_id)
        assert await counted(conn) == (5, 2, 3)
        await threads.update(conn, runs[1].thread_id, scope=EVERYONE, metadata=b'{"graph_id": "h"}')
        assert await counted(conn) == (4, 2, 5)
        await threads.delete(conn, [runs[2].thread_id], scope=EVERYONE)
        assert await counted(conn) == (3, 2, 5)
        await conn.execute("UPDATE matins.thread SET event_seq = 1 WHERE thread_id = $1", runs[3].thread_id)
        assert await counted(conn) == (3, 2, 5)
        await threads.delete(conn, [run.thread_id for run in runs], scope=EVERYONE)
        assert await counted(conn) == (1, 1, 1)


async def test_a_deleted_cron_leaves_its_ledger_and_its_runs(pool: Pool) -> None:
    async with pool.transaction() as conn:
        made = await insert(conn)
        await firing.record(conn, [fire_of(made, NOW)])
        assert await crons.delete(conn, made.cron_id, scope=EVERYONE)
        assert not await crons.delete(conn, made.cron_id, scope=EVERYONE)
        assert await conn.fetchval("SELECT count(*) FROM matins.cron_fire") == 1
        assert await conn.fetchval("SELECT count(*) FROM matins.run") == 1


async def test_dates_of_other_time_zone_rules_are_found_while_they_are_to_come(pool: Pool) -> None:
    async with pool.connection() as conn:
        to_come = datetime(2999, 1, 1, tzinfo=UTC)
        later = await insert(conn, next_run_date=to_come + timedelta(days=1), timezone="Europe/Paris")
        stale = await insert(conn, next_run_date=to_come, timezone="Europe/Paris")
        await insert(conn, next_run_date=NOW, timezone="Europe/Paris")
        await insert(conn, next_run_date=to_come, timezone="Europe/Paris", enabled=False)
        await insert(conn, next_run_date=to_come)
        assert await crons.of_other_zones(conn, "2") == [stale, later]
        assert await crons.of_other_zones(conn, "1") == []


async def test_a_node_that_knows_one_date_moves_both(pool: Pool) -> None:
    async with pool.connection() as conn:
        made = await insert(conn, next_run_date=NOW, due_at=NOW + timedelta(minutes=1))
        following = NOW + timedelta(hours=1)
        await conn.execute(
            "UPDATE matins.cron SET next_run_date = $2 WHERE cron_id = $1", made.cron_id, following
        )
        found = await crons.get(conn, made.cron_id, scope=EVERYONE)
        assert found is not None
        assert (found.next_run_date, found.due_at) == (following, following)
        await conn.execute("UPDATE matins.cron SET next_run_date = NULL WHERE cron_id = $1", made.cron_id)
        found = await crons.get(conn, made.cron_id, scope=EVERYONE)
        assert found is not None
        assert found.due_at is None
