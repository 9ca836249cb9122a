from __future__ import annotations

import json
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import pytest
import watchfiles
from structlog.testing import capture_logs

from matins import telemetry
from matins.workers.reload import Reloader, _Watched
from tests.support.pools import Running, RunPool

pytestmark = pytest.mark.anyio

CHANGED = watchfiles.Change.modified


def _project(directory: Path) -> Path:
    (directory / "agent").mkdir()
    (directory / "agent" / "graph.py").write_text("graph = None\n")
    (directory / ".env").write_text("A=1\n")
    config = directory / "langgraph.json"
    config.write_text(
        json.dumps({"dependencies": ["."], "graphs": {"a": "./agent/graph.py:graph"}, "env": ".env"})
    )
    return config


def test_python_the_config_and_the_env_file_count_and_nothing_else(tmp_path: Path) -> None:
    watched = _Watched.by(_project(tmp_path))
    assert watched.roots == (tmp_path,)
    for path in ("agent/graph.py", "new/module.py", "langgraph.json", ".env"):
        assert watched.includes(CHANGED, str(tmp_path / path)), path
    for path in (
        "README.md",
        "agent/.env",
        "agent/__pycache__/graph.py",
        ".venv/lib/site.py",
        ".git/hooks/hook.py",
        ".matins/data.py",
        "web/node_modules/gyp/gyp.py",
    ):
        assert not watched.includes(CHANGED, str(tmp_path / path)), path


async def test_a_changed_file_reloads_the_workers_and_a_mended_one_again(
    run_pool: RunPool, tmp_path: Path
) -> None:
    config = _project(tmp_path)
    told: set[Path] = set()
    async with run_pool() as running:
        await running.group.start(Reloader(running.pool, config, on_change=told.update).run)
        with anyio.fail_after(30):
            running.code.write_text("broken")
            await _touch_until_it_is_seen(running, tmp_path / "agent" / "graph.py")
            await running.until(lambda: running.pool.failure is not None)
            running.code.write_text("second")
            await _touch_until_it_is_seen(running, tmp_path / ".env")
            await running.until(lambda: running.pool.graphs == b"second")
    assert told >= {tmp_path / "agent" / "graph.py", tmp_path / ".env"}


async def test_a_directory_that_cannot_be_watched_is_said_and_the_pool_goes_on(
    run_pool: RunPool, tmp_path: Path
) -> None:
    config = _project(tmp_path)
    async with run_pool() as running:
        with anyio.fail_after(20):
            with capture_logs() as said, _no_more_open_files():
                async with anyio.create_task_group() as group:
                    await group.start(Reloader(running.pool, config).run)
            await running.settled("echo", 1)
    (message,) = (line["message"] for line in said if line["event"] == telemetry.GRAPHS_RELOAD_FAILED)
    assert message.startswith("changed code is not noticed any more: ")
    assert "Too many open files" in message


@contextmanager
def _no_more_open_files() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def _touch_until_it_is_seen(running: Running, path: Path) -> None:
    """The watcher needs a moment until it sees its first change, and each one gives up the reload under way."""
    before = len(running.spawned)
    while len(running.spawned) == before:
        await anyio.Path(path).touch()
        with anyio.move_on_after(1):
            await running.until(lambda: len(running.spawned) > before)
