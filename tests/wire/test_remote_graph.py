"""`RemoteGraph` of LangGraph: a graph here stands in for one that a server runs, also as a node of another."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final, TypedDict, cast
from uuid import uuid4

import pytest
from anyio.from_thread import BlockingPortal
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph
from langgraph.pregel.remote import RemoteException, RemoteGraph
from langgraph.types import Command, Interrupt
from langgraph_sdk import get_client, get_sync_client

from tests.support.servers import Server

SAID: Final = {"messages": [{"role": "user", "content": "hello there"}]}
STEPS: Final = {"delay": 0, "steps": 2}


class Remote:
    """A RemoteGraph, its async methods called as its sync ones; what can be iterated is collected."""

    def __init__(self, graph: Any, portal: BlockingPortal, *, is_async: bool) -> None:
        self.graph: Final = graph
        self.is_async: Final = is_async
        self._portal: Final = portal

    def __call__(self, method: str, *args: Any, **options: Any) -> Any:
        if self.is_async:
            return self._portal.call(lambda: _collected(getattr(self.graph, f"a{method}")(*args, **options)))
        returned = getattr(self.graph, method)(*args, **options)
        return list(returned) if hasattr(returned, "__next__") else returned


async def _collected(returned: Any) -> Any:
    if hasattr(returned, "__aiter__"):
        return [item async for item in returned]
    return await returned


Make = Callable[[str], Remote]


@pytest.fixture(scope="module")
def named(server: Server, portal: BlockingPortal) -> Iterator[Callable[[str], RemoteGraph]]:
    """Give the graph of a name, all over the same two clients."""
    client, sync_client = portal.call(lambda: get_client(url=server.url)), get_sync_client(url=server.url)
    yield lambda name: RemoteGraph(name, client=client, sync_client=sync_client)
    portal.call(client.aclose)
    sync_client.close()


@pytest.fixture(params=["sync", "async"])
def remote(
    request: pytest.FixtureRequest, named: Callable[[str], RemoteGraph], portal: BlockingPortal
) -> Make:
    return lambda name: Remote(named(name), portal, is_async=request.param == "async")


@pytest.fixture
def config() -> dict[str, Any]:
    """A thread that the first call makes."""
    return {"configurable": {"thread_id": str(uuid4())}}


def test_it_is_invoked_as_a_graph_is(remote: Make, config: dict[str, Any]) -> None:
    for place in (config, None):  # on a thread, and on none
        assert remote("slow")("invoke", STEPS, place) == {**STEPS, "done": 2}


def test_a_thread_goes_on(remote: Make, config: dict[str, Any]) -> None:
    remote("echo")("invoke", SAID, config)
    found = remote("echo")("invoke", SAID, config)
    assert [message["content"] for message in found["messages"]] == ["hello there"] * 4


def test_its_config_reaches_the_graph(remote: Make) -> None:
    found = remote("strict")("invoke", {}, context={"tone": "loud"})
    assert found == {"tone": "loud"}
    found = remote("strict")(
        "invoke", {}, {"configurable": {"tone": "quiet"}, "tags": ["t"], "metadata": {"m": 1}}
    )
    assert found == {"tone": "quiet"}


def test_a_recursion_limit_is_kept(remote: Make) -> None:
    with pytest.raises(RemoteException, match="GraphRecursionError"):
        remote("slow")("invoke", {"delay": 0, "steps": 9}, {"recursion_limit": 3})


def test_it_streams_one_mode(remote: Make) -> None:
    slow = remote("slow")
    assert slow("stream", STEPS) == [{"begin": {"done": 0}}, {"step": {"done": 1}}, {"step": {"done": 2}}]
    values = slow("stream", STEPS, stream_mode="values")
    assert [state.get("done") for state in values] == [None, 0, 1, 2]
    assert remote("events")("stream", {"n": 2}, stream_mode="custom") == [{"i": 0}, {"i": 1}]


def test_it_streams_several_modes(remote: Make) -> None:
    parts = remote("events")("stream", {"n": 1}, stream_mode=["custom", "values", "tasks"])
    names = [part.event for part in parts]
    assert names == ["values", "tasks", "custom", "tasks", "values"]


def test_it_streams_messages(remote: Make) -> None:
    tuples = remote("chat")("stream", SAID, stream_mode="messages")
    assert "".join(chunk["content"] for chunk, _ in tuples) == "You said: hello there"
    assert {about["langgraph_node"] for _, about in tuples} == {"reply"}


def test_it_streams_checkpoints_and_debug(remote: Make, config: dict[str, Any]) -> None:
    modes = ["checkpoints", "debug"]
    parts = remote("events")("stream", {"n": 0}, config, stream_mode=modes)
    assert {part.event for part in parts} == set(modes)
    last = [part.data for part in parts if part.event == "checkpoints"][-1]
    assert last["values"] == {"n": 0, "written": 0}


def test_it_streams_from_within_subgraphs(remote: Make) -> None:
    parts = remote("nested")("stream", {"x": 1}, stream_mode="updates", subgraphs=True)
    names = [(tuple(each.split(":")[0] for each in namespace), list(update)) for namespace, update in parts]
    assert names == [
        ((), ["outer"]),
        (("child",), ["inner_a"]),
        (("child",), ["inner_b"]),
        ((), ["child"]),
    ]
    several = remote("nested")("stream", {"x": 1}, stream_mode=["custom", "values"], subgraphs=True)
    assert [data for namespace, mode, data in several if mode == "custom" and namespace] == [
        {"inner": "hello"}
    ]


def test_it_streams_typed_parts(remote: Make, config: dict[str, Any]) -> None:
    parts = remote("ask")("stream", {"question": "Who?"}, config, stream_mode="values", version="v2")
    assert [part["data"] for part in parts] == [{"question": "Who?"}] * 2
    [asked] = parts[-1]["interrupts"]
    assert isinstance(asked, Interrupt)
    assert asked.value == {"q": "Who?"}


def test_a_failure_is_a_remote_exception(remote: Make, config: dict[str, Any]) -> None:
    failing = remote("failing")
    for method in ("invoke", "stream"):
        with pytest.raises(RemoteException) as raised:
            failing(method, {"x": 1}, config)
        assert raised.value.args == ({"error": "ValueError", "message": "boom happened"},)


def test_an_interrupt_is_answered_with_a_command(remote: Make, config: dict[str, Any]) -> None:
    ask = remote("ask")
    updates = ask("stream", {"question": "Who?"}, config, stream_mode="updates")
    [asked] = updates[-1]["__interrupt__"]
    assert asked["value"] == {"q": "Who?"}
    state = ask("get_state", config)
    assert (state.next, state.interrupts[0].value) == (("ask",), {"q": "Who?"})
    assert state.tasks[0].interrupts[0].id == asked["id"]
    found = ask("invoke", Command(resume="Ada"), config)
    assert found["answer"] == "Thank you, Ada."
    assert ask("get_state", config).next == ()


def test_a_command_may_update_and_go_to_a_node(remote: Make, config: dict[str, Any]) -> None:
    ask = remote("ask")
    ask("invoke", {"question": "Who?"}, config)
    found = ask("invoke", Command(update={"answer": "Eve"}, goto="thank"), config)
    assert found["answer"] == "Thank you, Eve."


def test_it_stops_at_breakpoints(remote: Make, config: dict[str, Any]) -> None:
    slow = remote("slow")
    assert slow("stream", STEPS, config, interrupt_before=["step"])[-1] == {"__interrupt__": []}
    assert slow("get_state", config).next == ("step",)
    assert slow("invoke", None, config) == {**STEPS, "done": 2}


def test_its_state_and_history_are_snapshots(remote: Make, config: dict[str, Any]) -> None:
    slow = remote("slow")
    slow("invoke", STEPS, config)
    now = slow("get_state", config)
    assert (now.values, now.next, now.metadata["source"]) == ({**STEPS, "done": 2}, (), "loop")
    history = slow("get_state_history", config)
    assert [state.values.get("done") for state in history] == [2, 1, 0, None, None]
    assert history[0].config == now.config
    assert history[1].config == history[0].parent_config
    assert history[-1].parent_config is None
    assert slow("get_state", history[2].config).values["done"] == 0
    assert len(slow("get_state_history", config, limit=2)) == 2
    assert slow("get_state_history", config, before=history[1].config) == history[2:]
    assert slow("get_state_history", config, filter={"source": "input"}) == history[-1:]
    assert slow("get_state_history", config, filter={"source": "nothing"}) == []


def test_its_state_is_updated(remote: Make, config: dict[str, Any]) -> None:
    slow = remote("slow")
    slow("invoke", STEPS, config)
    then = slow("get_state", config)
    place = slow("update_state", config, {"steps": 4, "done": 3}, as_node="step")
    now = slow("get_state", config)
    assert place == now.config
    assert (now.values["done"], now.next, now.parent_config) == (3, ("step",), then.config)
    assert slow("invoke", None, config)["done"] == 4
    forked = slow("update_state", then.config, {"done": 1}, as_node="step")
    assert slow("get_state", forked).parent_config == then.config


def test_it_goes_on_from_an_older_checkpoint(remote: Make, config: dict[str, Any]) -> None:
    slow = remote("slow")
    slow("invoke", STEPS, config)
    older = slow("get_state_history", config)[2]
    # It leaves a checkpoint out of the config it sends, and hands on what it does not know.
    fork = {"checkpoint_id": older.config["configurable"]["checkpoint_id"]}
    assert slow("stream", None, config, **fork) == [{"step": {"done": 1}}, {"step": {"done": 2}}]


def test_the_state_within_a_subgraph_is_read(remote: Make, config: dict[str, Any]) -> None:
    inner = remote("inner")
    inner("invoke", {"x": 1}, config)
    outside = inner("get_state", config)
    [task] = outside.tasks
    assert task.interrupts[0].value == "Who?"
    within = inner("get_state", {"configurable": task.state["configurable"]})
    assert (within.values, within.next) == ({"x": 2}, ("ask",))
    [task] = inner("get_state", config, subgraphs=True).tasks
    assert task.state.values == {"x": 2}
    assert inner("invoke", Command(resume="Ada"), config) == {"x": 2, "answer": "Ada"}


def test_it_can_be_drawn(remote: Make) -> None:
    drawn = remote("nested")("get_graph")
    assert set(drawn.nodes) == {"__start__", "outer", "child", "__end__"}
    assert "outer" in drawn.draw_mermaid()
    inside = remote("nested")("get_graph", xray=True)
    assert {"child:inner_a", "child:inner_b"} <= set(inside.nodes)


# As a node of a graph of one's own


class State(TypedDict, total=False):
    messages: list[Any]
    x: int
    log: list[str]
    question: str
    answer: str


@pytest.fixture(params=["sync", "async"])
def local(
    request: pytest.FixtureRequest, named: Callable[[str], RemoteGraph], portal: BlockingPortal
) -> Make:
    """A graph of our own around a remote one."""

    def make(name: str) -> Remote:
        inside = cast("Any", named(name))
        graph = StateGraph(State).add_node("there", inside).add_edge(START, "there")
        return Remote(graph.compile(checkpointer=InMemorySaver()), portal, is_async=request.param == "async")

    return make


def test_it_is_a_node_of_another_graph(local: Make, config: dict[str, Any]) -> None:
    assert local("nested")("invoke", {"x": 1}, config)["x"] == 2


def test_as_a_node_it_streams_what_goes_on_within(local: Make, config: dict[str, Any]) -> None:
    parts = local("nested")("stream", {"x": 1}, config, stream_mode=["updates", "custom"], subgraphs=True)
    names = [(tuple(each.split(":")[0] for each in namespace), mode) for namespace, mode, _ in parts]
    assert names == [
        (("there",), "updates"),
        (("there", "child"), "custom"),
        (("there", "child"), "updates"),
        (("there", "child"), "updates"),
        (("there",), "updates"),
        ((), "updates"),
    ]


def test_as_a_node_it_streams_messages(local: Make, config: dict[str, Any]) -> None:
    parts = local("chat")("stream", SAID, config, stream_mode="messages", subgraphs=True)
    assert "".join(chunk["content"] for _, (chunk, _) in parts) == "You said: hello there"


def test_as_a_node_its_failure_ends_the_graph(local: Make, config: dict[str, Any]) -> None:
    with pytest.raises(RemoteException, match="boom happened"):
        local("failing")("invoke", {"x": 1}, config)


def test_as_a_node_its_interrupt_stops_the_graph_and_is_answered_through_it(
    local: Make, config: dict[str, Any]
) -> None:
    graph = local("ask")
    stopped = graph("invoke", {"question": "Who?"}, config)
    [asked] = stopped["__interrupt__"]
    assert asked.value == {"q": "Who?"}
    assert graph("get_state", config).next == ("there",)
