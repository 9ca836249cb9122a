"""Lend a graph to a call of the API: what user code raises meanwhile is the caller's to know."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver

from matins.domain.errors import BadRequest, Error
from matins.graphs.registry import Access, Graph, Registry

RAISED: Final = (Exception, SystemExit, KeyboardInterrupt)
"""What user code may raise; nothing of it may end the worker."""


@asynccontextmanager
async def opened(
    registry: Registry,
    graph_id: str,
    config: RunnableConfig,
    *,
    checkpointer: BaseCheckpointSaver[Any] | None,
    access: Access,
) -> AsyncIterator[Graph]:
    """Lend a graph.

    Raises: GraphNotFound; BadRequest for a factory that fails.
    """
    async with AsyncExitStack() as stack:
        opening = registry.open(graph_id, config, checkpointer=checkpointer, access=access)
        try:
            graph = await stack.enter_async_context(opening)
        except Error:
            raise
        except RAISED as raised:  # a wall: the factory's code
            text = f"Graph '{graph_id}' could not be made: {type(raised).__name__}: {raised}"
            raise BadRequest(text) from raised
        yield graph
