"""What a cron's run finds on its thread, and how it is answered: one attempt of it, as a worker carries it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any
from uuid import UUID

import anyio
import msgspec
import pytest
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage

from matins.domain.runs import Held, StopReason
from matins.graphs.openings import newest
from matins.graphs.registry import Registry
from matins.storage import checkpoints
from matins.storage.pool import Pool
from matins.workers.protocol import Execute, Settled
from tests.support import rows
from tests.support.orders import Lane, claim, finish, order

pytestmark = pytest.mark.anyio

Project = Callable[..., Registry]

CHAT = """
import anyio
from langchain_core.messages import AIMessage
from langgraph.graph import START, MessagesState, StateGraph
prompts, works, lasts = [], anyio.Event(), [0]
class State(MessagesState, total=False):
    notes: str
async def model(state: State):
    prompts.append([message.content for message in state["messages"]])
    works.set()
    await anyio.sleep(lasts[0])
    answer = AIMessage(f"answer to {state['messages'][-1].content}")
    return {"messages": [answer], "notes": state.get("notes", "") + "."}
graph = StateGraph(State).add_node(model).add_edge(START, "model").compile()
"""


def inside(registry: Registry) -> dict[str, Any]:
    """Give the variables of the graph's module."""
    entry = registry._entries["graph"]
    assert entry.graph is not None
    _, node = entry.graph.nodes.values()
    called: Any = node.bound
    found: dict[str, Any] = called.afunc.__globals__
    return found


def say(text: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}]}


def contents(settled: Settled) -> list[str]:
    return [
        message["content"] for message in msgspec.json.decode(settled.values or b"{}").get("messages", [])
    ]


async def run(
    pool: Pool, registry: Registry, text: str, thread_id: UUID | None = None, **asked: Any
) -> tuple[Held, Settled]:
    held = await claim(pool, thread_id=thread_id)
    settled = await Lane(registry, pool).execute(order(held, "graph", input=say(text), **asked))
    assert settled.outcome == "success", settled.error
    await finish(pool, held)
    return held, settled


async def turns(
    pool: Pool, registry: Registry, texts: Iterable[str], thread_id: UUID | None = None, **asked: Any
) -> tuple[Held, Settled]:
    """Run once for each text, on one thread; give the last."""
    first, *rest = texts
    held, settled = await run(pool, registry, first, thread_id, **asked)
    for text in rest:
        held, settled = await run(pool, registry, text, held.thread_id, **asked)
    return held, settled


async def history(pool: Pool, held: Held) -> list[tuple[str, str | None, str]]:
    """The thread's checkpoints, oldest first: id, parent, source."""
    async with pool.connection() as conn:
        found = await conn.fetch(
            "SELECT checkpoint_id, parent_checkpoint_id, metadata ->> 'source' AS source FROM checkpoints"
            " WHERE thread_id = $1 ORDER BY checkpoint_id",
            str(held.thread_id),
        )
    return [tuple(row) for row in found]


LAST_4: dict[str, Any] = {"policy": {"last_n": 4}}


async def test_last_n_bounds_the_prompt_for_ever_and_the_history_keeps_all(
    pool: Pool, project: Project
) -> None:
    registry = project(CHAT, "graph")
    held, _ = await run(pool, registry, "0")
    _, settled = await turns(pool, registry, map(str, range(1, 20)), held.thread_id, **LAST_4)
    prompts = inside(registry)["prompts"]
    assert max(map(len, prompts)) == 5
    assert prompts[-1] == ["17", "answer to 17", "18", "answer to 18", "19"]
    assert contents(settled) == [*prompts[-1], "answer to 19"]
    assert msgspec.json.decode(settled.values or b"")["notes"] == "." * 20, "the rest of the state stays"
    kept = await history(pool, held)
    assert [source for _, _, source in kept].count("update") == 17
    assert [parent for _, parent, _ in kept[1:]] == [each for each, _, _ in kept[:-1]]


async def test_fresh_begins_with_nothing_and_the_history_keeps_all(pool: Pool, project: Project) -> None:
    registry = project(CHAT, "graph")
    held, _ = await run(pool, registry, "0")
    before = await history(pool, held)
    for number in (1, 2):
        _, settled = await run(
            pool, registry, str(number), held.thread_id, policy={"context_policy": "fresh"}
        )
        assert contents(settled) == [str(number), f"answer to {number}"]
        assert msgspec.json.decode(settled.values or b"")["notes"] == "."
    assert inside(registry)["prompts"] == [["0"], ["1"], ["2"]]
    assert (await history(pool, held))[: len(before)] == before


async def test_a_fork_reads_the_thread_and_leaves_it_alone(pool: Pool, project: Project) -> None:
    registry = project(CHAT, "graph")
    held, _ = await run(pool, registry, "0")
    before = await history(pool, held)
    forks: dict[str, Any] = {"policy": {"context_policy": "fork"}, "forked_from": held.thread_id}
    copy, settled = await run(pool, registry, "1", **forks)
    assert copy.thread_id != held.thread_id
    assert contents(settled) == ["0", "answer to 0", "1", "answer to 1"]
    assert msgspec.json.decode(settled.values or b"")["notes"] == ".."
    assert await history(pool, held) == before
    _, settled = await run(pool, registry, "2", policy=forks["policy"], forked_from=UUID(int=1))
    assert contents(settled) == ["2", "answer to 2"], "a thread that is empty, or gone"


async def test_a_fork_of_a_busy_thread_sees_it_as_it_was_before(pool: Pool, project: Project) -> None:
    registry = project(CHAT, "graph")
    held, _ = await run(pool, registry, "0")
    person = await claim(pool, thread_id=held.thread_id)
    async with pool.connection() as conn:
        await conn.execute(
            "UPDATE matins.run SET base_checkpoint_id = (SELECT max(checkpoint_id) FROM checkpoints"
            " WHERE thread_id = $2) WHERE run_id = $1",
            person.run_id,
            str(person.thread_id),
        )
    lane = Lane(registry, pool)
    inside(registry).update(works=anyio.Event(), lasts=[60])
    async with anyio.create_task_group() as group:
        group.start_soon(lane.execute, order(person, "graph", input=say("a person's")))
        await inside(registry)["works"].wait()
        inside(registry)["lasts"][0] = 0
        forks: dict[str, Any] = {"policy": {"context_policy": "fork"}, "forked_from": held.thread_id}
        _, settled = await run(pool, registry, "1", **forks)
        assert contents(settled) == ["0", "answer to 0", "1", "answer to 1"]
        lane.stop.ask(StopReason.LOST)


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
@pytest.mark.parametrize("context", ["last_n", "fresh", "fork"])
@pytest.mark.parametrize("killed", ["before it began", "at work"])
async def test_a_new_attempt_neither_loses_nor_doubles_the_input(
    pool: Pool, project: Project, context: str, killed: str, durability: str
) -> None:
    registry = project(CHAT, "graph")
    first, _ = await turns(pool, registry, ["-1", "0"])
    held = await claim(pool, thread_id=None if context == "fork" else first.thread_id)
    policy = {"context_policy": context, **({"last_n": 2} if context == "last_n" else {})}
    extra: dict[str, Any] = {"forked_from": first.thread_id} if context == "fork" else {}
    asked = order(held, "graph", input=say("1"), policy=policy, durability=durability, **extra)
    inside(registry).update(works=anyio.Event(), lasts=[60], prompts=[])
    lane = Lane(registry, pool)
    async with anyio.create_task_group() as group:
        group.start_soon(lane.execute, asked)
        await inside(registry)["works"].wait()
        lane.stop.ask(StopReason.LOST)
    async with pool.connection() as conn:
        if killed == "before it began":  # all that is there of it is the checkpoint that it was to begin at
            await conn.execute(
                "DELETE FROM checkpoints WHERE metadata ->> 'run_id' = $1 AND metadata ->> 'source' <> 'update'",
                str(held.run_id),
            )
        await rows.take_away(conn, held)
    inside(registry)["lasts"][0] = 0
    settled = await Lane(registry, pool).execute(msgspec.structs.replace(asked, attempt=2))
    seen = {"fresh": [], "last_n": ["0"], "fork": ["-1", "0"]}[context]
    before = [text for turn in seen for text in (turn, f"answer to {turn}")]
    assert settled.outcome == "success", settled.error
    assert contents(settled) == [*before, "1", "answer to 1"]
    assert inside(registry)["prompts"] == [[*before, "1"]] * 2
    sources = [source for _, _, source in await history(pool, held)]
    assert sources.count("update") == 1


@pytest.mark.parametrize("policy", [{"last_n": 2}, {"context_policy": "fresh"}])
async def test_undoing_a_run_undoes_what_it_began_with(
    pool: Pool, project: Project, policy: dict[str, Any]
) -> None:
    registry = project(CHAT, "graph")
    held, settled = await turns(pool, registry, "0123")
    before = await history(pool, held)
    cron, cut = await run(pool, registry, "cron", held.thread_id, policy=policy)
    assert len(contents(cut)) < len(contents(settled))
    async with pool.transaction() as conn:
        await checkpoints.undo(conn, run_id=cron.run_id, thread_id=cron.thread_id)
    assert await history(pool, held) == before
    _, settled = await run(pool, registry, "4", held.thread_id)
    assert contents(settled)[:-2] == [text for n in range(4) for text in (str(n), f"answer to {n}")]


# What is kept of a conversation


def conversation(plan: str) -> list[BaseMessage]:
    """`s` system, `h` human, `a` assistant, `c` a call of a tool, `t` its result."""
    made: list[BaseMessage] = []
    for at, kind in enumerate(plan):
        calls = [{"name": "tool", "args": {}, "id": f"call {plan[:at].count('c')}"}] if kind == "c" else []
        match kind:
            case "s":
                made.append(SystemMessage("", id=str(at)))
            case "h":
                made.append(HumanMessage("", id=str(at)))
            case "t":
                made.append(ToolMessage("", tool_call_id=f"call {plan[:at].count('t')}", id=str(at)))
            case _:
                made.append(AIMessage("", tool_calls=calls, id=str(at)))
    return made


@pytest.mark.parametrize(
    ("plan", "most", "kept"),
    [
        ("haha", 4, "haha"),
        ("hahaha", 4, "haha"),
        ("hahaha", 3, "ha"),
        ("hahaha", 1, "ha"),  # the newest turn
        ("shahsaha", 2, "ssha"),  # the system's stay, and do not count
        ("hahctcta", 3, "hctcta"),  # the newest turn is whole, however long
        ("hahctahcta", 4, "hcta"),
        ("hahchta", 3, "hchta"),  # a human's between a call and its result is no beginning
        ("aaaa", 2, "aa"),  # nobody human ever spoke
        ("aaact", 1, "ct"),
    ],
)
async def test_a_conversation_is_cut_between_its_turns(plan: str, most: int, kept: str) -> None:
    messages = conversation(plan)
    cut = newest(messages, most)
    letters = {message.id: letter for message, letter in zip(messages, plan, strict=True)}
    assert "".join(letters[message.id] for message in cut) == kept


# What is posted

SAID = {"update": {"messages": [{"content": "news", "id": "posted-1", "response_metadata": {"model": "m"}}]}}


async def post(pool: Pool, registry: Registry, thread_id: UUID | None, attempts: int = 1) -> Settled:
    held = await claim(pool, thread_id=thread_id)
    asked = order(held, "graph", command=SAID, posts=True)
    settled = await Lane(registry, pool).execute(asked)
    for attempt in range(2, attempts + 1):
        async with pool.connection() as conn:
            await rows.take_away(conn, held)
        settled = await Lane(registry, pool).execute(msgspec.structs.replace(asked, attempt=attempt))
    assert settled.outcome == "success", settled.error
    await finish(pool, held)
    return settled


@pytest.mark.parametrize("attempts", [1, 2])
async def test_a_posting_adds_its_message_and_starts_nothing(
    pool: Pool, project: Project, attempts: int
) -> None:
    registry = project(CHAT, "graph")
    held, _ = await run(pool, registry, "0")
    settled = await post(pool, registry, held.thread_id, attempts)
    assert contents(settled) == ["0", "answer to 0", "news"]
    assert (settled.has_next, len(inside(registry)["prompts"])) == (False, 1)
    _, settled = await run(pool, registry, "1", held.thread_id)
    assert contents(settled) == ["0", "answer to 0", "news", "1", "answer to 1"]
    assert contents(await post(pool, registry, None)) == ["news"], "on a thread where nothing was"


ASKING = (
    CHAT.replace("graph = ", "unused = ")
    + """
from langgraph.types import interrupt
async def ask(state: State):
    return {"messages": [AIMessage(interrupt("really?"))]}
graph = StateGraph(State).add_node(ask).add_edge(START, "ask").compile()
"""
)


@pytest.mark.parametrize("attempts", [1, 2])
async def test_a_thread_that_waits_for_an_answer_goes_on_waiting_for_it(
    pool: Pool, project: Project, attempts: int
) -> None:
    registry = project(ASKING, "graph")
    held, asked = await run(pool, registry, "0")
    settled = await post(pool, registry, held.thread_id, attempts)
    assert (settled.has_next, settled.interrupts) == (True, asked.interrupts)
    assert contents(settled) == ["0", "news"]
    answered = await claim(pool, thread_id=held.thread_id)
    ((question,),) = msgspec.json.decode(settled.interrupts).values()
    settled = await Lane(registry, pool).execute(
        order(answered, "graph", command={"resume": {question["id"]: "yes"}})
    )
    assert (settled.outcome, contents(settled)) == ("success", ["0", "news", "yes"])
    await finish(pool, answered)


async def test_what_was_posted_is_there_for_the_next_cut_and_the_next_fork(
    pool: Pool, project: Project
) -> None:
    registry = project(ASKING, "graph")
    held, _ = await run(pool, registry, "0")
    await post(pool, registry, held.thread_id)
    forks: dict[str, Any] = {"policy": {"context_policy": "fork"}, "forked_from": held.thread_id}
    _, settled = await run(pool, registry, "1", **forks)
    assert contents(settled) == ["0", "news", "1"]
    _, settled = await run(pool, registry, "2", held.thread_id, policy={"last_n": 1})
    assert contents(settled) == ["0", "news", "2"]


# Answers

QUESTIONS = """
import operator
from typing import Annotated, TypedDict
from langgraph.graph import START, StateGraph
from langgraph.types import interrupt
class State(TypedDict, total=False):
    times: int
    heard: Annotated[list, operator.add]
def left(state: State):
    return {"heard": [("left", interrupt("left?"))]}
def right(state: State):
    return {"heard": [("right", interrupt("right?"))]}
both = StateGraph(State).add_node(left).add_node(right).add_edge(START, "left").add_edge(START, "right").compile()
def often(state: State):
    return {"heard": [interrupt(number) for number in range(state["times"])]}
often = StateGraph(State).add_node(often).add_edge(START, "often").compile()
inner = StateGraph(State).add_node(left).add_edge(START, "left").compile()
outer = StateGraph(State).add_node("inner", inner).add_edge(START, "inner").compile()
"""


def resuming(value: object) -> dict[str, Any]:
    return {"policy": {"on_interrupt": {"resume_with": value}}}


@pytest.mark.parametrize("value", ["yes", {"a": [1]}, None, False])
async def test_all_that_a_run_asks_is_answered_in_the_same_run(
    pool: Pool, project: Project, value: object
) -> None:
    registry = project(QUESTIONS, "both", "outer", "often")
    for graph, heard in (
        ("both", [["left", value], ["right", value]]),
        ("outer", [["left", value]]),
        ("often", [value] * 3),
    ):
        asked = order(await claim(pool), graph, input={"times": 3}, **resuming(value))
        settled = await Lane(registry, pool).execute(asked)
        assert (settled.outcome, settled.has_next, settled.interrupts) == ("success", False, b"{}")
        assert msgspec.json.decode(settled.values or b"")["heard"] == heard


async def test_a_run_is_answered_25_times_and_then_waits(pool: Pool, project: Project) -> None:
    registry = project(QUESTIONS, "often")
    for times, has_next in ((25, False), (26, True)):
        asked = order(await claim(pool), "often", input={"times": times}, **resuming("yes"))
        settled = await Lane(registry, pool).execute(asked)
        assert (settled.outcome, settled.has_next) == ("success", has_next)


async def test_a_breakpoint_is_no_question(pool: Pool, project: Project) -> None:
    registry = project(CHAT, "graph")
    asked = order(await claim(pool), "graph", input=say("0"), interrupt_before="*", **resuming("yes"))
    settled = await Lane(registry, pool).execute(asked)
    assert (settled.has_next, contents(settled)) == (True, ["0"])


async def test_a_new_attempt_is_answered_too(pool: Pool, project: Project) -> None:
    registry = project(QUESTIONS, "often")
    held = await claim(pool)
    asked: Execute = order(held, "often", input={"times": 2})
    assert (await Lane(registry, pool).execute(asked)).has_next
    async with pool.connection() as conn:
        await rows.take_away(conn, held)
    again = order(Held(held.run_id, held.thread_id, 2), "often", input={"times": 2}, **resuming("yes"))
    settled = await Lane(registry, pool).execute(again)
    assert msgspec.json.decode(settled.values or b"") == {"times": 2, "heard": ["yes", "yes"]}
