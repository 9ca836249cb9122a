"""One graph that does what a test names: `{"do": name, ...}` gives `{"did": ...}`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, TypedDict

import anyio
from langchain_core.runnables import RunnableConfig
from langgraph.config import get_store, get_stream_writer
from langgraph.errors import GraphInterrupt
from langgraph.graph import START, StateGraph
from langgraph.runtime import Runtime
from langgraph.store.base import BaseStore
from langgraph_sdk import get_client, get_sync_client
from langgraph_sdk.runtime import ServerRuntime

from matins.graphs import inside

client = get_client()


class State(TypedDict, total=False):
    do: str
    path: str
    thread: str
    run: str
    did: Any


async def spy(state: State, config: RunnableConfig) -> Any:
    """Tell what nobody may know: the token, in a file, and where the socket is."""
    await anyio.Path(state["path"]).write_text(inside._TOKEN.get())
    get_stream_writer()({"told": True})
    await client.threads.search()
    return client.http.client._transport._path  # type: ignore[attr-defined]


async def spy_gated(state: State, config: RunnableConfig) -> Any:
    """Tell the token, in a file, and stay until told to go."""
    partial = anyio.Path(f"{state['path']}.new")
    await partial.write_text(inside._TOKEN.get())
    await partial.rename(f"{state['path']}.token")
    await _exists(state["path"])


async def first_event_ends_it(state: State, config: RunnableConfig) -> Any:
    """Stream a run that goes on only when its first event was seen here."""
    seen = []
    asked = {"do": "gated", "path": state["path"]}
    async for part in client.runs.stream(None, "calls", input=asked, stream_mode="custom"):
        seen.append(part.event)
        if part.event == "custom":
            await anyio.Path(state["path"]).touch()
    return seen


async def gated(state: State, config: RunnableConfig) -> Any:
    get_stream_writer()("first")
    await _exists(state["path"])
    get_stream_writer()("second")
    return None


async def wait_on_own_thread(state: State, config: RunnableConfig) -> Any:
    return await client.runs.wait(_own(config), "calls", input={"do": "nothing"})


async def stream_on_own_thread(state: State, config: RunnableConfig) -> Any:
    return [part async for part in client.runs.stream(_own(config), "calls", input={"do": "nothing"})]


async def join_itself(state: State, config: RunnableConfig) -> Any:
    return await client.runs.join(_own(config), config["configurable"]["run_id"])


async def join_own_stream(state: State, config: RunnableConfig) -> Any:
    run_id = config["configurable"]["run_id"]
    return [part async for part in client.runs.join_stream(_own(config), run_id)]


async def wait_for_parents_thread(state: State, config: RunnableConfig) -> Any:
    """Wait for a run that waits for one on this run's thread."""
    asked = {"do": "wait_on", "thread": _own(config)}
    return await client.runs.wait(None, "calls", input=asked)


async def wait_on(state: State, config: RunnableConfig) -> Any:
    return await client.runs.wait(state["thread"], "calls", input={"do": "nothing"})


async def create_on_own_thread(state: State, config: RunnableConfig) -> Any:
    return (await client.runs.create(_own(config), "calls", input={"do": "nothing"}))["run_id"]


async def create_both_ways(state: State, config: RunnableConfig) -> Any:
    """Create runs in each of the ways that wait for nothing."""
    thread = await client.threads.create()
    asked = {"do": "nothing"}
    batch: list[Any] = [{"assistant_id": "calls", "input": asked, "on_completion": "keep"}]
    return [
        (await client.runs.create(thread["thread_id"], "calls", input=asked))["run_id"],
        (await client.runs.create(None, "calls", input=asked, on_completion="keep"))["run_id"],
        *[run["run_id"] for run in await client.runs.create_batch(batch)],
    ]


async def block_the_loop(state: State, config: RunnableConfig) -> Any:
    """Wait in the event loop itself: what users do who call a sync client in an async node."""
    values: Any = get_sync_client().runs.wait(None, "calls", input={"do": "nothing"})
    return values["do"]


async def search_threads(state: State, config: RunnableConfig) -> Any:
    await client.threads.search()
    return "found"


async def nothing(state: State, config: RunnableConfig) -> Any:
    return None


async def remember(state: State, config: RunnableConfig) -> Any:
    await get_store().aput(("inside", "async"), "key", {"n": 1})
    item = await get_store().aget(("inside", "sync"), "key")
    return item and item.value


async def store_on_the_loop(state: State, config: RunnableConfig) -> Any:
    return get_store().get(("inside",), "key")


async def _exists(path: str) -> None:
    while not await anyio.Path(path).exists():  # noqa: ASYNC110 - a file sets no event
        await anyio.sleep(0.01)


def _own(config: RunnableConfig) -> str:
    return str(config["configurable"]["thread_id"])


async def call(
    state: State, config: RunnableConfig, runtime: Runtime[Any], *, store: BaseStore
) -> dict[str, Any]:
    assert store is get_store() is runtime.store
    try:
        return {"did": await globals()[state["do"]](state, config)}
    except GraphInterrupt:
        raise
    except Exception as raised:  # noqa: BLE001 - what it says is what is tested
        return {"did": f"{type(raised).__name__}: {raised} {getattr(raised, '__notes__', '')}"}


def sync_call(state: State, runtime: Runtime[Any], *, store: BaseStore) -> dict[str, Any]:
    assert store is get_store() is runtime.store
    store.put(("inside", "sync"), "key", {"n": 2})
    item = store.get(("inside", "async"), "key")
    found = [item.key for item in store.search(("inside",))]
    return {"did": [item and item.value, sorted(found), store.list_namespaces(prefix=("inside",))]}


def _graph(node: Any) -> StateGraph[Any]:
    built: StateGraph[Any] = StateGraph(State)
    built.add_node("node", node)
    built.add_edge(START, "node")
    return built


calls = _graph(call)
sync_calls = _graph(sync_call)


@asynccontextmanager
async def asks(runtime: ServerRuntime[Any]) -> AsyncIterator[Any]:
    """A factory that calls the server whoever asks for it, and uses the store."""
    found = await client.threads.search()
    await runtime.store.aput(("inside", "factory"), runtime.access_context, {"found": len(found)})
    yield calls.compile()
