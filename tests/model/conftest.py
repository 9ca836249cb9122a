from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.model.world import World
from tests.model.world import world as running_world


@pytest.fixture(scope="package")
def world(postgres: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with running_world(postgres, tmp_path_factory.mktemp("model")) as running:
        yield running
