from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from matins import manifest
from matins.graphs.registry import Registry

Project = Callable[..., Registry]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Give a function that writes `graphs.py`, names some of its variables as graphs and loads them."""

    def load(source: str, *names: str) -> Registry:
        module = tmp_path / f"graphs_{tmp_path.name.replace('-', '_')}.py"
        module.write_text("from __future__ import annotations\n" + source)
        graphs = ", ".join(f'"{name}": "./{module.name}:{name}"' for name in names)
        (tmp_path / "langgraph.json").write_text(f'{{"dependencies": ["."], "graphs": {{{graphs}}}}}')
        return Registry.load(manifest.read(tmp_path / "langgraph.json"))

    return load
