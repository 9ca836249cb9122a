"""The folder through which a test counts and holds the steps of a graph (tests/engine/graphs/steps.py)."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from tests.support.engine import until

GRAPHS: Final = Path(__file__).parents[1] / "engine" / "graphs" / "langgraph.json"


class Work:
    """Steps begin as they are counted in `started`, and go on when their number is allowed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.allow(0)

    @property
    def started(self) -> list[int]:
        path = self.folder / "started"
        return [int(line) for line in path.read_text().split()] if path.exists() else []

    def allow(self, number: int) -> None:
        (self.folder / "allowed.new").write_text(str(number))
        (self.folder / "allowed.new").replace(self.folder / "allowed")

    def input(self, steps: int = 3) -> dict[str, Any]:
        return {"folder": str(self.folder), "steps": steps, "done": 0}

    async def reached(self, number: int) -> None:
        async def there() -> bool:
            return number in self.started

        await until(there)
