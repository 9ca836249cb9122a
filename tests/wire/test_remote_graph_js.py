"""`RemoteGraph` of LangGraph for JavaScript."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final
from uuid import uuid4

import httpx
import pytest

from tests.support.servers import Server
from tests.wire.sdks import PATIENCE_SECONDS, JavaScript, Refused

SAID: Final = {"messages": [{"role": "user", "content": "hello there"}]}
STEPS: Final = {"delay": 0, "steps": 2}

Call = Callable[..., Any]


@pytest.fixture(scope="module")
def remote(server: Server) -> Iterator[Call]:
    """Call a method of a remote graph: remote("slow.invoke", input, config)."""
    graphs = JavaScript("remote.mjs", server.url, of_item=lambda item: item)

    def call(path: str, *args: Any) -> Any:
        return graphs.start(path, args, {}, None, lambda _: None).result(PATIENCE_SECONDS)

    yield call
    graphs.close()


@pytest.fixture
def config() -> dict[str, Any]:
    """A thread that the first call makes."""
    return {"configurable": {"thread_id": str(uuid4())}}


def test_it_is_invoked_as_a_graph_is(remote: Call, config: dict[str, Any]) -> None:
    for place in (config, {}):  # on a thread, and on none
        assert remote("slow.invoke", STEPS, place) == {**STEPS, "done": 2}


def test_its_context_reaches_the_graph(remote: Call) -> None:
    assert remote("strict.invoke", {}, {"context": {"tone": "loud"}}) == {"tone": "loud"}
    assert remote("strict.invoke", {}, {"configurable": {"tone": "quiet"}}) == {"tone": "quiet"}


def test_it_streams_one_mode(remote: Call) -> None:
    assert remote("slow.stream", STEPS, {}) == [
        {"begin": {"done": 0}},
        {"step": {"done": 1}},
        {"step": {"done": 2}},
    ]
    assert remote("events.stream", {"n": 2}, {"streamMode": "custom"}) == [{"i": 0}, {"i": 1}]


def test_it_streams_several_modes(remote: Call) -> None:
    parts = remote("events.stream", {"n": 1}, {"streamMode": ["custom", "values", "tasks", "events"]})
    assert [mode for mode, _ in parts if mode != "events"] == ["values", "tasks", "custom", "tasks", "values"]
    told = [event["event"] for mode, event in parts if mode == "events"]
    assert (told[0], told[-1]) == ("on_chain_start", "on_chain_end")


def test_it_streams_messages(remote: Call) -> None:
    modes = {"streamMode": ["messages-tuple"]}
    tuples = [data for mode, data in remote("chat.stream", SAID, modes) if mode == "messages"]
    # The mode is asked for by one name and answered by another, which this client does not know.
    assert tuples == []
    parts = remote("chat.stream", SAID, {"streamMode": "messages"})
    assert "".join(chunk["content"] for chunk, _ in parts) == "You said: hello there"


def test_it_streams_from_within_subgraphs(remote: Call) -> None:
    parts = remote("nested.stream", {"x": 1}, {"streamMode": "updates", "subgraphs": True})
    names = [([each.split(":")[0] for each in namespace], list(update)) for namespace, update in parts]
    assert names == [([], ["outer"]), (["child"], ["inner_a"]), (["child"], ["inner_b"]), ([], ["child"])]


def test_a_failure_is_a_remote_exception(remote: Call, config: dict[str, Any]) -> None:
    for method in ("invoke", "stream"):
        with pytest.raises(Refused, match="boom happened"):
            remote(f"failing.{method}", {"x": 1}, config)


def test_an_interrupt_is_answered_with_a_command(
    remote: Call, config: dict[str, Any], http: httpx.Client
) -> None:
    with pytest.raises(Refused, match="Who"):  # it raises what stops a graph of which it is a node
        remote("ask.invoke", {"question": "Who?"}, config)
    runs = f"/threads/{config['configurable']['thread_id']}/runs"
    [run] = http.get(runs).json()  # it raised at the first word of the interrupt: the run is about to end
    http.get(f"{runs}/{run['run_id']}/join").raise_for_status()
    state = remote("ask.getState", config)
    assert state["next"] == ["ask"]
    [asked] = state["tasks"][0]["interrupts"]
    assert asked["value"] == {"q": "Who?"}
    assert remote("ask.invoke", {"$command": {"resume": "Ada"}}, config)["answer"] == "Thank you, Ada."
    assert remote("ask.getState", config)["next"] == []


def test_a_command_may_update_and_go_to_a_node(remote: Call, config: dict[str, Any]) -> None:
    remote("slow.invoke", STEPS, config)
    found = remote("slow.invoke", {"$command": {"update": {"done": 0}, "goto": ["step"]}}, config)
    assert found["done"] == 2


def test_its_state_and_history_are_read(remote: Call, config: dict[str, Any]) -> None:
    remote("slow.invoke", STEPS, config)
    now = remote("slow.getState", config)
    history = remote("slow.getStateHistory", config)
    assert history[0] == now
    assert [state["values"].get("done") for state in history] == [2, 1, 0, None, None]
    assert remote("slow.getState", history[2]["config"]) == history[2]
    assert remote("slow.getStateHistory", config, {"limit": 2}) == history[:2]
    assert remote("slow.getStateHistory", config, {"before": history[1]["config"]}) == history[2:]
    assert remote("slow.getStateHistory", config, {"filter": {"source": "input"}}) == history[-1:]


def test_a_thread_without_a_state_has_an_empty_one(remote: Call, config: dict[str, Any]) -> None:
    remote("slow.invoke", STEPS, config)
    with pytest.raises(Refused, match="not found"):
        remote("slow.getState", {"configurable": {"thread_id": str(uuid4())}})


def test_its_state_is_updated(remote: Call, config: dict[str, Any]) -> None:
    remote("slow.invoke", STEPS, config)
    then = remote("slow.getState", config)
    place = remote("slow.updateState", config, {"steps": 4, "done": 3}, "step")
    now = remote("slow.getState", config)
    assert place == now["config"]
    assert (now["values"]["done"], now["next"], now["parentConfig"]) == (3, ["step"], then["config"])
    assert remote("slow.invoke", None, config)["done"] == 4


def test_it_can_be_drawn(remote: Call) -> None:
    drawn = remote("nested.getGraphAsync", {})
    assert {node["id"] for node in drawn["nodes"]} >= {"outer", "child"}
    assert len(drawn["edges"]) == 3
    inside = remote("nested.getGraphAsync", {"xray": True})
    assert {"child:inner_a", "child:inner_b"} <= {node["id"] for node in inside["nodes"]}
    with pytest.raises(Refused, match="getGraphAsync"):
        remote("nested.getGraph", {})


def test_it_is_a_node_of_another_graph(remote: Call, config: dict[str, Any]) -> None:
    assert remote("around:nested.invoke", {"x": 1}, config)["x"] == 2
    parts = remote(
        "around:nested.stream", {"x": 1}, {**config, "streamMode": ["updates", "custom"], "subgraphs": True}
    )
    within = [(mode, data) for namespace, mode, data in parts if len(namespace) == 2]
    assert ("custom", {"inner": "hello"}) in within
    with pytest.raises(Refused, match="boom happened"):
        remote("around:failing.invoke", {"x": 1}, config)


def test_as_a_node_its_interrupt_stops_the_graph(remote: Call, config: dict[str, Any]) -> None:
    stopped = remote("around:ask.invoke", {"question": "Who?"}, config)
    assert stopped["__interrupt__"][0]["value"] == {"q": "Who?"}
    assert remote("around:ask.getState", config)["next"] == ["there"]
