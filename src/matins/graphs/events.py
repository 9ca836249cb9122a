"""The mode `events`: what LangChain tells of every model, tool and node of a run, between the graph's chunks.

LangChain gives these events from a task of its own, in which the graph runs. What has to hold the graph between
two of its chunks is therefore part of the stream that is handed over, not of the loop that reads.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any, TypeAlias

from langchain_core.runnables import Runnable, RunnableConfig
from typing_extensions import override

Chunk: TypeAlias = tuple[Any, ...]
Stream: TypeAlias = Callable[[RunnableConfig], AsyncGenerator[Chunk, None]]


class _Tapped(Runnable[object, Chunk]):
    """The graph's stream as LangChain wants it: something that it can call with the config that listens."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    @override
    def invoke(self, input: object, config: RunnableConfig | None = None, **kwargs: Any) -> Chunk:
        raise NotImplementedError

    @override
    async def astream(
        self, input: object, config: RunnableConfig | None = None, **kwargs: Any | None
    ) -> AsyncGenerator[Chunk, None]:
        async with aclosing(self._stream(config or {})) as chunks:
            async for chunk in chunks:
                yield chunk


async def with_events(
    stream: Stream, start: object, config: RunnableConfig, *, subgraphs: bool
) -> AsyncGenerator[Chunk, None]:
    """Give the chunks of a run's stream and, as they happen, chunks of the mode `events`.

    Of what the run itself streams its events tell the updates alone, whatever other modes are asked for.
    `config` names the run; `subgraphs` says whether chunks bear a namespace.
    """
    root = str(config["run_id"])
    tapped: Any = _Tapped(stream).astream_events(start, config, version="v2")
    async with aclosing(tapped) as events:
        async for event in events:
            told: Any = event
            if event["run_id"] == root and event["event"] == "on_chain_stream":
                chunk = event["data"]["chunk"]
                yield chunk
                if chunk[-2] != "updates" or (subgraphs and chunk[0]):
                    continue
                told = {**event, "data": {"chunk": chunk[-1]}}
            yield ((), "events", told) if subgraphs else ("events", told)
