from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import anyio
import pytest
from anyio import to_thread

from matins.domain.ids import NodeId, RunId
from matins.domain.runs import RunStatus
from matins.embedded import EmbeddedPostgres
from matins.engine.lease import Lease
from matins.storage.migrate import migrate
from matins.storage.pool import Pool
from tests.support.engine import node, running, until

pytestmark = pytest.mark.anyio

GRAPHS = Path(__file__).parent / "graphs" / "langgraph.json"


class OwnPostgres:
    """A server that a test may stop and start."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self.start()

    def start(self) -> None:
        self._server = EmbeddedPostgres(self._data_dir)
        self._server.start()
        self.uri = self._server.uri

    def stop(self) -> None:
        self._server.stop()


@pytest.fixture
def own_postgres(tmp_path: Path) -> Iterator[OwnPostgres]:
    postgres = OwnPostgres(tmp_path / "data")
    try:
        yield postgres
    finally:
        postgres.stop()


async def test_a_lease_is_on_record_while_it_is_kept_and_struck_off_at_the_end(
    pool: Pool, database: str
) -> None:
    lease = Lease(database, node_id=NodeId(uuid4()), name="n", version="1")
    assert not lease.is_held
    async with running(lease):
        assert lease.is_held
        assert not lease.may_reap
        async with pool.connection() as conn:
            [row] = await conn.fetch("SELECT *, lease_until - matins.now() AS left FROM matins.node")
            assert (row["node_id"], row["name"], row["version"]) == (lease.node_id, "n", "1")
            assert 10 < row["left"].total_seconds() <= 15
    assert not lease.is_held
    async with pool.connection() as conn:
        assert await conn.fetch("SELECT * FROM matins.node") == []


async def test_the_end_of_the_keeper_ends_the_node(database: str) -> None:
    lease = Lease(database, node_id=NodeId(uuid4()), name="n", version="1")
    with anyio.fail_after(10), pytest.raises(BaseExceptionGroup) as raised:  # noqa: PT012
        async with running(lease):
            lease._stopping.set()
            await anyio.sleep_forever()
    assert raised.group_contains(RuntimeError, match="the lease's keeper has ended")


async def test_a_lease_whose_connection_is_cut_is_kept_by_another(pool: Pool, database: str) -> None:
    lease = Lease(database, node_id=NodeId(uuid4()), name="n", version="1")
    async with running(lease), pool.connection() as conn:
        for _ in range(2):
            before = await conn.fetchval("SELECT lease_until FROM matins.node")
            await conn.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )

            async def is_renewed(before: object = before) -> bool:
                return bool(await conn.fetchval("SELECT lease_until > $1 FROM matins.node", before))

            await until(is_renewed)
        assert lease.is_held


async def test_whatever_the_database_answers_the_lease_is_tried_again(pool: Pool, database: str) -> None:
    lease = Lease(database, node_id=NodeId(uuid4()), name="n", version="1")
    async with running(lease), pool.connection() as conn:
        await conn.execute("ALTER TABLE matins.node RENAME TO hidden")
        before = await conn.fetchval("SELECT lease_until FROM matins.hidden")
        await anyio.sleep(3.5)  # a renewal fails meanwhile
        await conn.execute("ALTER TABLE matins.hidden RENAME TO node")

        async def is_renewed() -> bool:
            return bool(await conn.fetchval("SELECT lease_until > $1 FROM matins.node", before))

        await until(is_renewed)


async def test_a_node_without_its_database_lets_go_of_its_runs_and_regains_them_as_a_new_tenure(
    own_postgres: OwnPostgres, tmp_path: Path
) -> None:
    (tmp_path / "allowed").write_text("0")
    await migrate(own_postgres.uri)
    async with node(own_postgres.uri, GRAPHS) as engine:
        async with engine.pool.connection() as conn:
            await conn.execute("UPDATE matins.node SET leased_since = leased_since - interval '15s'")

        async def may_reap() -> bool:
            return engine.lease.may_reap

        await until(may_reap)
        run = await engine.submit("steps", input={"folder": str(tmp_path), "steps": 2, "done": 0})
        waiting = await engine.submit("pair", after_seconds=1)
        await until(lambda: anyio.Path(tmp_path / "started").exists())
        await to_thread.run_sync(own_postgres.stop)
        assert engine.lease.is_held
        assert engine.lanes.holds(run.run_id)

        async def has_lapsed() -> bool:
            return not engine.lease.is_held

        await until(has_lapsed, timeout_s=16)

        async def has_let_go() -> bool:
            return engine.lanes.held == []

        await until(has_let_go, timeout_s=3)
        await to_thread.run_sync(own_postgres.start)

        async def has_regained() -> bool:
            return engine.lease.is_held

        await until(has_regained)
        assert not engine.lease.may_reap
        (tmp_path / "allowed").write_text("9")

        async def all_ended() -> bool:
            left = "SELECT count(*) FROM matins.run WHERE run_id = ANY($1)"
            return bool(await engine.value(left, [run.run_id, waiting.run_id]) == 0)

        await until(all_ended, timeout_s=20)  # temporary runs: gone with their threads
        kept = await engine.submit("pair", thread_id=await engine.thread())
        assert (await engine.ended(RunId(kept.run_id))).status is RunStatus.SUCCESS
        assert (tmp_path / "started").read_text().split()[-1] == "2"
