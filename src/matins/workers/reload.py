"""Serving side, `matins dev`: watches the user's code and reloads the workers when it changes."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import anyio
import watchfiles
from anyio.abc import TaskStatus

from matins import telemetry
from matins.domain.errors import Error, Unavailable
from matins.manifest import read
from matins.manifest.reading import ManifestError
from matins.workers.pool import Pool

IGNORED: Final = frozenset({".matins", ".venv", "node_modules", "__pycache__", ".git"})

AGAIN_SECONDS: Final = 1.0
"""The pause before a reload that the database broke off is tried again."""

DEBOUNCE_MS: Final = 200
"""How long the files must have been quiet: an editor or a checkout writes several."""


class Reloader:
    """Reloads the pool when a `*.py` file, langgraph.json or the env file under the dependencies changes.

    A change during a reload gives that one up for a new one, so code that hangs when it is imported is only
    waited for until it is mended. `on_change` is told which files changed.
    """

    def __init__(
        self, pool: Pool, config: Path, *, on_change: Callable[[set[Path]], None] = lambda _: None
    ) -> None:
        self._pool: Final = pool
        self._on_change: Final = on_change
        self._config: Final = config.resolve()

    async def run(self, *, task_status: TaskStatus[None]) -> None:
        """Watch, for ever."""
        task_status.started()
        try:
            await self._watch()
        except Exception as refused:  # noqa: BLE001 - a wall: too many files to watch, say; what serves goes on
            reason = refused.exceptions[0] if isinstance(refused, ExceptionGroup) else refused
            message = f"changed code is not noticed any more: {reason} (--no-reload does without)"
            telemetry.log().error(telemetry.GRAPHS_RELOAD_FAILED, message=message)

    async def _watch(self) -> None:
        reload = anyio.CancelScope()
        leaving = anyio.Event()
        async with anyio.create_task_group() as group:
            group.start_soon(_set_when_cancelled, leaving)
            while True:
                watched = _Watched.by(self._config)
                changes = watchfiles.awatch(
                    *watched.roots,
                    watch_filter=watched.includes,
                    debounce=DEBOUNCE_MS,
                    stop_event=leaving,
                    ignore_permission_denied=True,
                )
                async with aclosing(changes):
                    async for changed in changes:
                        self._on_change({Path(path) for _, path in changed})
                        reload.cancel()
                        reload = anyio.CancelScope()
                        group.start_soon(self._reload, reload)
                        if _Watched.by(self._config) != watched:
                            break

    async def _reload(self, scope: anyio.CancelScope) -> None:
        with scope:
            while True:
                try:
                    await self._pool.reload()
                except Unavailable as away:  # the new graphs' assistants could not be written
                    telemetry.log().error(telemetry.GRAPHS_RELOAD_FAILED, message=str(away))
                    await anyio.sleep(AGAIN_SECONDS)
                    continue
                except Error as refused:  # or never can be
                    telemetry.log().error(telemetry.GRAPHS_RELOAD_FAILED, message=str(refused))
                return


async def _set_when_cancelled(leaving: anyio.Event) -> None:
    """Tell the watching thread that we leave: it feels no cancellation, and would be waited for."""
    try:
        await anyio.sleep_forever()
    finally:
        leaving.set()


@dataclass(frozen=True, slots=True)
class _Watched:
    """The directories to watch, and the single files that count in them besides `*.py`."""

    roots: tuple[Path, ...]
    files: frozenset[Path]

    @classmethod
    def by(cls, config: Path) -> Self:
        """Give what langgraph.json says now; when it cannot be read, the place where it will be mended."""
        try:
            named = read(config).watched
        except ManifestError:
            return cls((config.parent,), frozenset({config}))
        directories = {path if path.is_dir() else path.parent for path in named}
        inner = {
            one for one in directories for other in directories if one != other and one.is_relative_to(other)
        }
        return cls(tuple(sorted(directories - inner)), frozenset(path for path in named if not path.is_dir()))

    def includes(self, _: watchfiles.Change, changed: str) -> bool:
        """Whether a change of that file may change the graphs."""
        path = Path(changed)
        if path.suffix != ".py" and path not in self.files:
            return False
        return any(
            path.is_relative_to(root) and IGNORED.isdisjoint(path.relative_to(root).parts)
            for root in self.roots
        )
