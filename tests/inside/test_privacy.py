"""Who may come in by the private way, and what stays inside."""

from __future__ import annotations

import os
import signal
import stat
from pathlib import Path
from typing import Any
from uuid import uuid4

import anyio
import httpx
import psycopg
import pytest
from langgraph_sdk.client import LangGraphClient
from langgraph_sdk.errors import APIStatusError
from psycopg import sql
from psycopg.rows import tuple_row

from tests.support.servers import Server

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.parametrize("server", [1], indirect=True, ids=["one worker"]),
]

MODES: Any = ["values", "updates", "custom", "tasks", "checkpoints", "debug", "messages"]


async def spied(client: LangGraphClient, tmp_path: Path) -> tuple[str, Path, dict[str, Any], list[Any]]:
    """Give the token and the socket of a run that has ended, with the run and all that it streamed."""
    place = tmp_path / "token"
    thread = (await client.threads.create())["thread_id"]
    asked = {"do": "spy", "path": str(place)}
    with anyio.fail_after(30):
        streamed = [
            part
            async for part in client.runs.stream(
                thread,
                "calls",
                input=asked,
                stream_mode=MODES,
                stream_resumable=True,
            )
        ]
    [run] = await client.runs.list(thread)
    state: Any = await client.threads.get_state(thread)
    return place.read_text(), Path(state["values"]["did"]), dict(run), streamed


async def test_the_socket_is_this_users_alone(client: LangGraphClient, tmp_path: Path) -> None:
    _, socket, _, _ = await spied(client, tmp_path)
    folder = socket.parent.stat()
    assert (stat.S_IMODE(folder.st_mode), folder.st_uid) == (0o700, os.getuid())


async def test_only_a_run_that_is_under_way_comes_in(client: LangGraphClient, tmp_path: Path) -> None:
    ended, socket, _, _ = await spied(client, tmp_path)
    transport = httpx.AsyncHTTPTransport(uds=str(socket))
    async with httpx.AsyncClient(transport=transport, base_url="http://inside") as inside:
        for headers in (
            {},
            {"x-matins-run": ""},
            {"x-matins-run": "guessed"},
            {"x-matins-run": ended},
            [("x-matins-run", ended), ("x-matins-run", "x")],
        ):
            for path in ("/threads/search", "/ok", "/nowhere"):
                response = await inside.post(path, json={}, headers=headers)
                assert response.status_code == 401, (headers, path)
                assert response.json() == {
                    "detail": "No run that is under way here calls with this token.",
                    "code": "unauthenticated",
                }


async def test_the_token_is_worth_nothing_at_the_public_door(
    client: LangGraphClient, server: Server, tmp_path: Path, stored_in: str
) -> None:
    async with httpx.AsyncClient(base_url=server.url) as outside:
        gate = tmp_path / "gate"
        asked = {"do": "spy_gated", "path": str(gate)}
        run = await client.runs.create(None, "calls", input=asked, on_completion="keep")
        place = anyio.Path(f"{gate}.token")
        with anyio.fail_after(30):
            while not await place.exists():  # noqa: ASYNC110 - a file sets no event
                await anyio.sleep(0.01)
        made = await outside.post(
            "/runs/wait",
            json={"assistant_id": "calls", "input": {"do": "nothing"}, "on_completion": "keep"},
            headers={"x-matins-run": await place.read_text()},
        )
        gate.touch()
    assert made.status_code == 200
    thread_id = made.headers["content-location"].split("/")[2]
    with psycopg.connect(stored_in) as stored:
        found = stored.execute(
            "SELECT parent_run_id, priority FROM matins.run WHERE thread_id = %s", [thread_id]
        ).fetchall()
    assert found == [(None, 0)]
    await client.runs.join(run["thread_id"], run["run_id"])


async def test_the_token_is_in_nothing_that_is_streamed_or_stored(
    client: LangGraphClient, tmp_path: Path, stored_in: str
) -> None:
    token, _, run, streamed = await spied(client, tmp_path)
    assert len(token) > 40
    assert len(streamed) > 5
    assert token not in repr(streamed)
    assert token not in repr(run)
    thread = run["thread_id"]
    assert token not in repr(await client.threads.get_history(thread))
    with psycopg.connect(stored_in, row_factory=tuple_row) as stored:
        tables = stored.execute(
            "SELECT format('%I.%I', schemaname, tablename) FROM pg_tables WHERE schemaname IN ('matins', 'public')"
        ).fetchall()
        assert len(tables) > 10
        for (table,) in tables:
            for form in (token, token.encode().hex()):  # bytes are written as hexadecimal
                found = stored.execute(
                    sql.SQL("SELECT count(*) FROM {} AS t WHERE t::text LIKE %s").format(sql.SQL(table)),
                    [f"%{form}%"],
                ).fetchone()
                assert found == (0,), table


async def test_a_factory_that_no_run_has_called_is_told_to_name_a_url(client: LangGraphClient) -> None:
    [assistant] = await client.assistants.search(graph_id="asks")
    with pytest.raises(APIStatusError, match="Give the client a url") as refused:
        await client.assistants.get_schemas(assistant["assistant_id"])
    assert "OutsideOfRun" in str(refused.value)
    with anyio.fail_after(30):
        values: Any = await client.runs.wait(None, "asks", input={"do": "nothing"})
    assert values["do"] == "nothing"  # within a run it may


async def test_a_server_that_was_killed_leaves_no_socket_behind_and_its_successor_has_one(
    client: LangGraphClient, server: Server, tmp_path: Path
) -> None:
    _, before, _, _ = await spied(client, tmp_path)
    assert before.exists()
    os.kill(server.serving, signal.SIGKILL)
    with anyio.fail_after(60):
        while before.exists() or not server.answers():  # noqa: ASYNC110 - only seen from outside
            await anyio.sleep(0.02)
    server.wait_ready()
    folder = tmp_path / str(uuid4())
    folder.mkdir()
    _, after, _, _ = await spied(client, folder)
    assert after != before
