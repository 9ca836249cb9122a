from __future__ import annotations

from pathlib import Path
from uuid import uuid4

import pytest

from matins.domain.ids import NodeId
from matins.domain.runs import RunStatus
from tests.support.engine import node

pytestmark = pytest.mark.anyio

GRAPHS = Path(__file__).parent / "graphs" / "langgraph.json"


async def test_runs_of_a_dead_predecessor_go_on_at_once_and_of_an_expired_node_after_one_lease(
    database: str,
) -> None:
    predecessor, expired, alive = (NodeId(uuid4()) for _ in range(3))
    async with node(database, GRAPHS) as before:
        made = {holder: await before.later("pair") for holder in (predecessor, expired, alive)}
        for holder, run in made.items():
            await before.take(run, holder)
        async with before.pool.connection() as conn:
            await conn.execute(
                "INSERT INTO matins.node (node_id, name, version, lease_until) VALUES"
                " ($1, 'p', '0', matins.now() + interval '1h'), ($2, 'e', '0', matins.now() - interval '1s'),"
                " ($3, 'a', '0', matins.now() + interval '1h')",
                predecessor, expired, alive,
            )  # fmt: skip
    async with node(database, GRAPHS, predecessor=predecessor) as after:
        ended = await after.ended(made[predecessor].run_id)
        assert (ended.status, ended.attempt, ended.crashes) == (RunStatus.SUCCESS, 2, 0)
        assert await after.value("SELECT count(*) FROM matins.node WHERE node_id = $1", predecessor) == 0
        assert not after.lease.may_reap
        assert await after.value("SELECT count(*) FROM matins.run WHERE status = 'running'") == 2
        async with after.pool.connection() as conn:  # one whole lease goes by
            await conn.execute(
                "UPDATE matins.node SET leased_since = leased_since - interval '15s' WHERE node_id = $1",
                after.lease.node_id,
            )
        assert (await after.ended(made[expired].run_id)).status is RunStatus.SUCCESS
        still = await after.get(made[alive].run_id)
        assert still is not None
        assert (still.status, still.attempt) == (RunStatus.RUNNING, 1)


async def test_where_a_node_is_the_only_one_all_others_are_dead(database: str) -> None:
    async with node(database, GRAPHS) as before:
        runs = [await before.later("pair") for _ in range(2)]
        for run in runs:
            await before.take(run, uuid4())
    async with node(database, GRAPHS, is_alone=True) as after:
        assert {(await after.ended(run.run_id)).status for run in runs} == {RunStatus.SUCCESS}
