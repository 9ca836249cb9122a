from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx
import psycopg
import pytest

from tests.support.waiting import until
from tests.wire.compatibility import covers
from tests.wire.sdks import KINDS, Refused, Sdk

SAID = {"messages": [{"role": "user", "content": "hi"}]}


@covers("POST /threads", "200")
@covers("GET /threads/{thread_id}", "200")
@covers("ThreadCreate", "metadata")
@covers("Thread", "the keys when fresh", "thread_id", "created_at", "metadata", "status")
def test_a_fresh_thread_is_idle_and_empty(sdk: Sdk) -> None:
    thread = sdk("threads.create", metadata={"who": "Zoë"})
    assert list(thread) == [
        *("thread_id", "created_at", "updated_at", "state_updated_at"),
        *("metadata", "status", "config", "values"),
    ]
    assert thread["metadata"] == {"who": "Zoë"}
    assert (thread["status"], thread["config"], thread["values"]) == ("idle", {}, None)
    assert thread["created_at"].endswith("+00:00")
    assert sdk("threads.get", thread["thread_id"]) == thread


@covers("POST /threads", "409")
@covers("ThreadCreate", "thread_id", "if_exists")
def test_an_id_that_is_taken_is_a_conflict_unless_that_is_fine(sdk: Sdk) -> None:
    wanted = str(uuid4())
    made = sdk("threads.create", thread_id=wanted, metadata={"n": 1})
    assert made["thread_id"] == wanted
    for options in ({}, {"if_exists": "raise"}):
        with pytest.raises(Refused, match=f"Thread with ID {wanted} already exists") as refused:
            sdk("threads.create", thread_id=wanted, **options)
        assert refused.value.status == 409
    again = sdk("threads.create", thread_id=wanted, if_exists="do_nothing", metadata={"n": 2})
    assert again == made


@covers("ThreadCreate", "ttl")
@covers("TimeToLive", "ttl", "strategy")
def test_a_thread_takes_a_graph_and_a_time_to_live(
    sdk: Sdk, stored: psycopg.Connection[tuple[Any, ...]]
) -> None:
    thread = sdk("threads.create", graph_id="echo", ttl=60)
    assert thread["metadata"] == {"graph_id": "echo"}
    assert "ttl" not in thread
    # Not every client is able to ask for it.
    [(strategy, minutes, lives)] = stored.execute(
        "SELECT ttl_strategy, ttl_minutes, expires_at - created_at FROM matins.thread WHERE thread_id = %s",
        [thread["thread_id"]],
    )
    assert (strategy, minutes) == ("delete", 60)
    assert abs(lives - timedelta(minutes=60)) < timedelta(minutes=1)


@covers("Thread", "ttl")
@covers("Expiry", "*")
@covers("GET /threads/{thread_id}", "?include=ttl")
@pytest.mark.parametrize("sdk", [kind for kind in KINDS if kind != "js-2.0"], indirect=True)
def test_a_thread_says_when_it_expires_if_that_is_asked(sdk: Sdk) -> None:
    thread_id = sdk("threads.create", ttl={"ttl": 1.5, "strategy": "keep_latest"})["thread_id"]
    assert "ttl" not in sdk("threads.get", thread_id)

    def shown() -> tuple[str, float, timedelta]:
        thread = sdk("threads.get", thread_id, include=["ttl", "zzz"])
        assert list(thread["ttl"]) == ["strategy", "ttl_minutes", "expires_at"]
        lives = datetime.fromisoformat(thread["ttl"]["expires_at"]) - datetime.fromisoformat(
            thread["updated_at"]
        )
        return thread["ttl"]["strategy"], thread["ttl"]["ttl_minutes"], lives

    assert shown() == ("keep_latest", 1.5, timedelta(minutes=1.5))
    sdk("threads.update", thread_id, metadata={}, ttl=60)
    assert shown() == ("delete", 60, timedelta(minutes=60))
    sdk("threads.update", thread_id, metadata={"a": 1})
    sdk("runs.wait", thread_id, "echo", input=SAID)
    assert shown() == ("delete", 60, timedelta(minutes=60))
    for_ever = sdk("threads.create")["thread_id"]
    assert sdk("threads.get", for_ever, include=["ttl"])["ttl"] is None


def test_what_may_be_included_is_asked_in_any_form(http: httpx.Client) -> None:
    made = http.post("/threads", json={"ttl": {"ttl": 5}}).json()
    for asked, is_shown in (
        ("include=ttl", True),
        ("include=zzz,ttl", True),
        ("include=zzz&include=ttl", True),
        ('include=["ttl"]', True),
        ("include=zzz", False),
        ("include=", False),
    ):
        answer = http.get(f"/threads/{made['thread_id']}?{asked}")
        assert (answer.status_code, "ttl" in answer.json()) == (200, is_shown), asked
    changed = http.patch(f"/threads/{made['thread_id']}", json={"ttl": {"ttl": -1}})
    assert (changed.status_code, "ttl" in changed.json()["detail"]) == (422, True)


def supersteps(sdk: Sdk, *steps: tuple[str, Any]) -> list[dict[str, object]]:
    node = "asNode" if sdk.is_js else "as_node"
    return [{"updates": [{"values": values, node: name}]} for name, values in steps]


@covers("ThreadCreate", "supersteps")
@covers("Superstep", "updates")
@covers("Update", "values", "as_node")
def test_a_thread_is_made_with_a_state(sdk: Sdk) -> None:
    given = {"delay": 0, "steps": 2}
    steps = supersteps(
        sdk, ("__input__", given), ("__start__", given), ("begin", {"done": 0}), ("step", {"done": 1})
    )
    thread = sdk("threads.create", graph_id="slow", supersteps=steps)
    thread_id = thread["thread_id"]
    assert thread["values"] == {"delay": 0, "steps": 2, "done": 1}
    assert (thread["status"], thread["interrupts"], thread["error"]) == ("interrupted", {}, None)
    assert thread == sdk("threads.get", thread_id)
    history = sdk("threads.get_history", thread_id)
    assert [state["metadata"]["source"] for state in history] == ["update", "update", "update", "input"]
    assert history[0]["next"] == ["step"]
    assert sdk("runs.wait", thread_id, "slow")["done"] == 2
    # One that is there already is not written to.
    again = sdk(
        "threads.create", thread_id=thread_id, if_exists="do_nothing", graph_id="slow", supersteps=steps
    )
    assert again["values"]["done"] == 2


@covers("POST /threads", "201")
def test_a_thread_whose_state_cannot_be_made_is_there_without_one(sdk: Sdk) -> None:
    wanted = str(uuid4())
    made = sdk(
        "threads.create",
        thread_id=wanted,
        graph_id="slow",
        supersteps=supersteps(sdk, ("__input__", {"steps": 2}), ("nonode", {"done": 1})),
    )
    assert made == {
        "detail": f"Thread {wanted} was created, but there were problems updating the state: "
        "Node nonode does not exist"
    }
    thread = sdk("threads.get", wanted)
    assert (thread["status"], thread["values"]) == ("idle", None)
    assert sdk("threads.get_history", wanted) == []


@covers("Update", "command")
def test_a_superstep_may_be_a_command(http: httpx.Client) -> None:
    command = {"command": {"update": {"done": 1}, "goto": "step"}, "as_node": "begin"}
    steps = [
        {"updates": [{"values": {"delay": 0, "steps": 2}, "as_node": "__input__"}]},
        {"updates": [command]},
    ]
    made = http.post("/threads", json={"metadata": {"graph_id": "slow"}, "supersteps": steps})
    assert (made.status_code, made.json()["values"]["done"]) == (200, 1)
    nowhere = http.post("/threads", json={"metadata": {"graph_id": 5}, "supersteps": steps})
    assert (nowhere.status_code, "metadata.graph_id" in nowhere.json()["detail"]) == (422, True)


@covers("ThreadSearch", "extract")
@covers("Thread", "extracted")
@pytest.mark.parametrize("sdk", [kind for kind in KINDS if kind != "js-2.0"], indirect=True)
def test_a_search_extracts_what_it_is_asked_for(sdk: Sdk) -> None:
    tag = str(uuid4())
    fresh, ran = (sdk("threads.create", metadata={"tag": tag})["thread_id"] for _ in range(2))
    sdk("runs.wait", ran, "echo", input=SAID)
    extract = {"last": "values.messages[-1].content", "tag": "metadata.tag", "none": "config.zzz[0]"}
    found = sdk("threads.search", metadata={"tag": tag}, extract=extract, select=["thread_id"])
    assert found == [
        {"thread_id": ran, "extracted": {"last": "hi", "tag": tag, "none": None}},
        {"thread_id": fresh, "extracted": {"last": None, "tag": tag, "none": None}},
    ]
    whole = sdk("threads.search", metadata={"tag": tag}, extract={"tag": "metadata.tag"}, limit=1)
    assert whole == [{**sdk("threads.get", ran), "extracted": {"tag": tag}}]
    with pytest.raises(
        Refused, match="must start with one of: config, interrupts, metadata, values"
    ) as refused:
        sdk("threads.search", extract={"x": "bogus.path"})
    assert refused.value.status == 422


def test_a_thread_is_busy_as_long_as_anything_is_to_run_on_it(sdk: Sdk) -> None:
    thread_id = sdk("threads.create")["thread_id"]

    def status() -> str:
        return str(sdk("threads.get", thread_id)["status"])

    later = sdk("runs.create", thread_id, "slow", input={"delay": 0}, after_seconds=3600)
    assert status() == "busy"
    sdk("runs.cancel", thread_id, later["run_id"])
    assert status() == "idle"
    first = sdk("runs.create", thread_id, "slow", input={"delay": 600})
    second = sdk("runs.create", thread_id, "slow", input={"delay": 600}, multitask_strategy="enqueue")
    assert status() == "busy"
    sdk("runs.cancel", thread_id, second["run_id"])
    assert status() == "busy"
    assert sdk("threads.get", thread_id)["values"] is None
    sdk("runs.cancel", thread_id, first["run_id"], wait=True)
    thread = sdk("threads.get", thread_id)
    # A run that was stopped has nodes left.
    assert (thread["status"], thread["interrupts"], thread["error"]["error"]) == (
        "interrupted",
        {},
        "UserInterrupt",
    )
    assert sdk("runs.wait", thread_id, "slow", input={"delay": 0})["done"] == 1
    thread = sdk("threads.get", thread_id)
    assert (thread["status"], thread["error"]) == ("idle", None)


def test_a_breakpoint_interrupts_a_thread_without_a_question(sdk: Sdk) -> None:
    thread_id = sdk("threads.create")["thread_id"]
    sdk("runs.wait", thread_id, "slow", input={"delay": 0}, interrupt_before=["step"])
    thread = sdk("threads.get", thread_id)
    assert (thread["status"], thread["interrupts"], thread["error"]) == ("interrupted", {}, None)
    sdk("runs.wait", thread_id, "slow")
    assert sdk("threads.get", thread_id)["status"] == "idle"


def test_a_state_that_is_written_over_an_error_takes_it_away(sdk: Sdk) -> None:
    thread_id = sdk("threads.create")["thread_id"]
    sdk("runs.wait", thread_id, "failing", input={"x": 1}, raise_error=False)
    failed = sdk("threads.get", thread_id)
    assert (failed["status"], failed["interrupts"]) == ("error", {})
    node = sdk("threads.get_state", thread_id)["next"][0]
    sdk("threads.update_state", thread_id, values={"x": 2}, as_node=node)
    thread = sdk("threads.get", thread_id)
    assert (thread["status"], thread["error"]) == ("idle", None)


@covers("POST /threads/{thread_id}/copy", "200", "state and history")
def test_a_copy_has_the_state_and_the_history_and_goes_its_own_way(sdk: Sdk) -> None:
    source = sdk("threads.create", metadata={"who": "me"})["thread_id"]
    sdk("runs.wait", source, "echo", input=SAID)
    original = sdk("threads.get", source)
    copied = sdk("threads.copy", source)
    target = copied["thread_id"]
    assert target != source
    times = {key: copied[key] for key in ("thread_id", "created_at", "updated_at", "state_updated_at")}
    assert copied == {**original, **times}
    assert sdk("threads.get", target) == copied
    histories = [sdk("threads.get_history", thread) for thread in (source, target)]
    assert [len(history) for history in histories] == [len(histories[0])] * 2
    assert [state["checkpoint_id"] for state in histories[0]] == [
        state["checkpoint_id"] for state in histories[1]
    ]
    assert histories[1][0]["checkpoint"]["thread_id"] == target
    assert sdk("runs.list", target) == []
    assert len(sdk("runs.wait", target, "echo", input=SAID)["messages"]) == 4
    assert sdk("threads.get", source) == original


def test_a_copy_of_a_thread_that_asked_something_can_be_answered(sdk: Sdk) -> None:
    source = sdk("threads.create")["thread_id"]
    sdk("runs.wait", source, "ask", input={"question": "name?"})
    copied = sdk("threads.copy", source)
    assert (copied["status"], next(iter(copied["interrupts"].values()))[0]["value"]) == (
        "interrupted",
        {"q": "name?"},
    )
    sdk("runs.wait", copied["thread_id"], "ask", command={"resume": "Ada"})
    assert sdk("threads.get", copied["thread_id"])["status"] == "idle"
    assert sdk("threads.get", source)["status"] == "interrupted"


@covers("POST /threads/{thread_id}/copy", "a busy thread", "404", "422")
@covers("Defects", "a copy of an unknown thread is a conflict")
def test_a_busy_thread_is_copied_as_it_is_at_rest(http: httpx.Client) -> None:
    source = http.post("/threads", json={}).json()["thread_id"]
    slow = {"assistant_id": "slow", "input": {"delay": 600}}
    run = http.post(f"/threads/{source}/runs", json=slow).json()["run_id"]
    copied = http.post(f"/threads/{source}/copy").json()
    assert (copied["status"], copied["values"]) == ("idle", None)
    http.post(f"/threads/{source}/runs/{run}/cancel?wait=1").raise_for_status()
    for wrong, status in ((uuid4(), 404), ("abc", 422)):
        answer = http.post(f"/threads/{wrong}/copy")
        assert (answer.status_code, list(answer.json())) == (status, ["detail", "code"])


@covers("POST /threads/prune", "200")
@covers("ThreadsPrune", "thread_ids", "strategy")
@covers("ThreadsPruned", "pruned_count")
@covers("Defects", "keep_latest is refused")
@pytest.mark.parametrize("sdk", [kind for kind in KINDS if kind != "js-2.0"], indirect=True)
def test_pruned_threads_keep_their_latest_state_or_nothing(sdk: Sdk) -> None:
    kept, gone = (sdk("threads.create")["thread_id"] for _ in range(2))
    for thread in (kept, gone):
        sdk("runs.wait", thread, "echo", input=SAID)
    state = sdk("threads.get_state", kept)
    ids = [kept, str(uuid4())]
    assert sdk("threads.prune", ids, strategy="keep_latest") == {"pruned_count": 1}
    assert [each["checkpoint_id"] for each in sdk("threads.get_history", kept)] == [state["checkpoint_id"]]
    assert sdk("threads.get_state", kept)["values"] == state["values"]
    assert len(sdk("runs.wait", kept, "echo", input=SAID)["messages"]) == 4
    assert sdk("threads.prune", [gone, str(uuid4())]) == {"pruned_count": 1}
    with pytest.raises(Refused) as refused:
        sdk("threads.get", gone)
    assert refused.value.status == 404


@covers("POST /threads/prune", "409", "422")
def test_of_threads_that_cannot_all_be_pruned_none_is(http: httpx.Client) -> None:
    idle, busy = (http.post("/threads", json={}).json()["thread_id"] for _ in range(2))
    http.post(f"/threads/{idle}/runs/wait", json={"assistant_id": "echo", "input": SAID}).raise_for_status()
    history = http.post(f"/threads/{idle}/history", json={"limit": 10}).json()
    slow = {"assistant_id": "slow", "input": {"delay": 600}}
    run = http.post(f"/threads/{busy}/runs", json=slow).json()["run_id"]
    asked = {"thread_ids": [idle, busy], "strategy": "keep_latest"}
    assert http.post("/threads/prune", json=asked).status_code == 409
    assert http.post(f"/threads/{idle}/history", json={"limit": 10}).json() == history
    for wrong in ({}, {"thread_ids": ["abc"]}, {"thread_ids": [], "strategy": "zzz"}, {"thread_ids": None}):
        assert http.post("/threads/prune", json=wrong).status_code == 422
    http.post(f"/threads/{busy}/runs/{run}/cancel?wait=1").raise_for_status()
    assert http.post("/threads/prune", json=asked).json() == {"pruned_count": 2}


@covers("PATCH /threads/{thread_id}", "200")
@covers("ThreadPatch", "metadata")
@covers("Thread", "updated_at", "state_updated_at")
def test_metadata_is_merged_key_by_key(sdk: Sdk) -> None:
    thread = sdk("threads.create", metadata={"a": 1, "b": {"x": 1}})
    changed = sdk("threads.update", thread["thread_id"], metadata={"b": {"y": 2}, "c": None})
    assert changed["metadata"] == {"a": 1, "b": {"y": 2}, "c": None}
    assert changed["updated_at"] > thread["updated_at"]
    assert changed["state_updated_at"] == thread["state_updated_at"]


@covers("PATCH /threads/{thread_id}", "204")
def test_an_update_is_answered_without_a_body_when_that_is_asked(sdk: Sdk) -> None:
    thread_id = sdk("threads.create")["thread_id"]
    answer = sdk("threads.update", thread_id, metadata={"a": 1}, return_minimal=True)
    if sdk.kind != "js-2.0":  # which cannot ask
        assert answer is None
    assert sdk("threads.get", thread_id)["metadata"] == {"a": 1}


@covers("DELETE /threads/{thread_id}", "204", "404")
@covers("GET /threads/{thread_id}", "404")
@covers("PATCH /threads/{thread_id}", "404")
@covers("GET /threads/{thread_id}/state", "404")
@covers("Defects", "a change of an unknown thread is told in other words")
def test_a_deleted_thread_is_gone(sdk: Sdk) -> None:
    gone = sdk("threads.create")["thread_id"]
    sdk("threads.delete", gone)
    for call in ("get", "delete", "update", "get_state"):
        with pytest.raises(Refused, match=f"Thread with ID {gone} not found") as refused:
            sdk(f"threads.{call}", gone, **({"metadata": {}} if call == "update" else {}))
        assert refused.value.status == 404


@covers("DELETE /threads/{thread_id}", "runs, state and crons")
def test_a_thread_with_a_run_in_it_can_be_deleted(sdk: Sdk) -> None:
    thread_id = sdk("threads.create")["thread_id"]
    sdk("runs.create", thread_id, "slow", input={"delay": 30})
    sdk("threads.delete", thread_id)
    with pytest.raises(Refused) as refused:
        sdk("threads.get", thread_id)
    assert refused.value.status == 404


@covers("POST /threads/search", "200")
@covers("POST /threads/count", "200")
@covers("ThreadSearch", "ids")
@covers("ThreadCount", "metadata", "values", "status")
@covers("Defects", "a search by values is a 500 when a thread has none")
def test_threads_are_found_by_metadata_status_ids_and_values(sdk: Sdk) -> None:
    tag = str(uuid4())
    fresh, ran, failed = (
        sdk("threads.create", metadata={"tag": tag, "nested": {"n": n}})["thread_id"] for n in range(3)
    )
    sdk("runs.wait", ran, "events", input={"n": 3})
    sdk("runs.wait", failed, "failing", input={"x": 1}, raise_error=False)

    def found(metadata: dict[str, object] | None = None, **options: object) -> list[str]:
        mine = {"tag": tag, **(metadata or {})}
        return sorted(thread["thread_id"] for thread in sdk("threads.search", metadata=mine, **options))

    assert found() == sorted([fresh, ran, failed])
    assert found(metadata={"nested": {"n": 1}}) == [ran]
    assert found(status="idle") == sorted([fresh, ran])
    assert found(status="error") == [failed]
    assert found(status="busy") == []
    assert found(ids=[fresh, failed]) == sorted([fresh, failed])
    assert found(ids=[]) == sorted([fresh, ran, failed])
    assert found(values={"written": 3}) == [ran]
    assert found(values={"written": 4}) == []
    assert sdk("threads.count", metadata={"tag": tag}, values={"written": 3}) == 1
    assert sdk("threads.count", metadata={"tag": tag}, status="error") == 1


@covers("ThreadSearch", "limit", "offset", "sort_by", "sort_order", "select")
def test_threads_are_sorted_paged_and_cut_to_columns(sdk: Sdk) -> None:
    tag = str(uuid4())
    made = [sdk("threads.create", metadata={"tag": tag})["thread_id"] for _ in range(4)]
    sdk("threads.update", made[1], metadata={"changed": True})
    mine = {"tag": tag}

    def ids(**options: object) -> list[str]:
        return [thread["thread_id"] for thread in sdk("threads.search", metadata=mine, **options)]

    assert ids() == [made[1], made[3], made[2], made[0]]
    assert ids(sort_by="created_at", sort_order="asc") == made
    assert ids(sort_by="created_at") == made[::-1]
    assert ids(sort_by="thread_id", sort_order="asc") == sorted(made)
    assert ids(sort_by="created_at", sort_order="asc", limit=2, offset=1) == made[1:3]
    assert ids(offset=9) == []
    some = sdk("threads.search", metadata=mine, select=["thread_id", "status"], limit=1)
    assert some == [{"thread_id": made[1], "status": "idle"}]


@covers("POST /threads/search", "X-Pagination-Total:", "X-Pagination-Next:")
@covers("Pages", "X-Pagination-Total:", "X-Pagination-Next:")
@covers("Defects", "a total that is none")
def test_the_total_of_a_page_is_true(http: httpx.Client) -> None:
    tag = str(uuid4())
    for _ in range(3):
        http.post("/threads", json={"metadata": {"tag": tag}}).raise_for_status()

    def page(**body: int) -> tuple[int, str, str | None]:
        found = http.post("/threads/search", json={"metadata": {"tag": tag}, **body})
        return (
            len(found.json()),
            found.headers["x-pagination-total"],
            found.headers.get("x-pagination-next"),
        )

    assert page(limit=2) == (2, "3", "2")
    assert page(limit=2, offset=2) == (1, "3", None)
    assert page(limit=3) == (3, "3", None)
    assert page(offset=1000) == (0, "3", None)


@covers("Thread", "values", "metadata", "config", "error", "interrupts", "state_updated_at")
def test_a_thread_remembers_its_last_run(sdk: Sdk) -> None:
    thread_id = sdk("threads.create", metadata={"mine": 1})["thread_id"]
    sdk("runs.wait", thread_id, "echo", input=SAID, config={"configurable": {"k": "v"}, "tags": ["t"]})
    thread = sdk("threads.get", thread_id)
    assert thread["status"] == "idle"
    assert thread["metadata"].items() >= {"mine": 1, "graph_id": "echo"}.items()
    assert [message["content"] for message in thread["values"]["messages"]] == ["hi", "hi"]
    assert (thread["error"], thread["interrupts"]) == (None, {})
    assert thread["config"]["configurable"] == {"k": "v"}
    assert thread["state_updated_at"] > thread["created_at"]


@covers("Thread", "error", "status")
def test_a_thread_says_how_its_run_failed_until_one_succeeds(sdk: Sdk) -> None:
    thread_id = sdk("threads.create")["thread_id"]
    sdk("runs.wait", thread_id, "failing", input={"x": 1}, raise_error=False)
    thread = sdk("threads.get", thread_id)
    assert thread["status"] == "error"
    assert thread["error"] == {"error": "ValueError", "message": "boom happened"}
    sdk("runs.wait", thread_id, "events", input={"n": 1})
    thread = sdk("threads.get", thread_id)
    assert (thread["status"], thread["error"]) == ("idle", None)


@covers("Thread", "interrupts", "status after an interrupt")
@covers("What wait and join answer", "__interrupt__")
@covers("RunCreate", "command.resume")
def test_a_thread_shows_what_it_is_asked_and_is_told(sdk: Sdk) -> None:
    thread_id = sdk("threads.create")["thread_id"]
    answer = sdk("runs.wait", thread_id, "ask", input={"question": "Who?"})
    [asked] = answer.pop("__interrupt__")
    assert answer == {"question": "Who?"}
    assert asked["value"] == {"q": "Who?"}
    assert asked["response_schema"] is None
    thread = sdk("threads.get", thread_id)
    assert thread["status"] == "interrupted"
    [[interrupt]] = thread["interrupts"].values()
    assert interrupt == {"id": asked["id"], "value": {"q": "Who?"}}
    assert sdk("threads.count", metadata={"graph_id": "ask"}, status="interrupted") >= 1

    done = sdk("runs.wait", thread_id, "ask", command={"resume": "Ada"})
    assert done == {"question": "Who?", "answer": "Thank you, Ada."}
    thread = sdk("threads.get", thread_id)
    assert (thread["status"], thread["interrupts"]) == ("idle", {})


@covers("Thread", "the keys after a run", "values")
def test_a_thread_that_ran_has_the_keys_of_the_contract_and_messages_as_dicts(sdk: Sdk) -> None:
    thread_id = sdk("threads.create")["thread_id"]
    said = {"messages": [{"role": "user", "content": "hi", "id": "m1"}]}
    answer = sdk("runs.wait", thread_id, "echo", input=said)
    thread = sdk("threads.get", thread_id)
    assert list(thread) == [
        *("thread_id", "created_at", "updated_at", "state_updated_at"),
        *("metadata", "status", "config", "values", "error", "interrupts"),
    ]
    assert thread["values"] == answer
    human, ai = thread["values"]["messages"]
    of_all = ["content", "additional_kwargs", "response_metadata", "type", "name", "id"]
    assert (sorted(human), human["type"], human["id"]) == (sorted(of_all), "human", "m1")
    assert sorted(ai) == sorted([*of_all, "tool_calls", "invalid_tool_calls", "usage_metadata"])
    assert list(answer["messages"][0]) == of_all


@covers("Thread", "values")
def test_a_thread_shows_no_values_of_a_run_that_is_not_over(sdk: Sdk) -> None:
    thread_id = sdk("threads.create")["thread_id"]
    run = sdk("runs.create", thread_id, "slow", input={"delay": 600})["run_id"]
    until(lambda: sdk("threads.get_state", thread_id)["next"] == ["step"])
    assert sdk("threads.get", thread_id)["values"] is None
    sdk("runs.cancel", thread_id, run, wait=True)
    assert sdk("threads.get", thread_id)["values"] == {"delay": 600, "done": 0}


@covers("Thread", "error after a cancel")
def test_a_thread_says_in_the_words_that_clients_know_that_its_run_was_cancelled(http: httpx.Client) -> None:
    place = f"/threads/{http.post('/threads', json={}).json()['thread_id']}"
    slow = {"assistant_id": "slow", "input": {"delay": 600}}
    run = http.post(f"{place}/runs", json=slow).json()["run_id"]
    http.post(f"{place}/runs/{run}/cancel?wait=1").raise_for_status()
    assert http.get(place).json()["error"] == {
        "error": "UserInterrupt",
        "message": "interrupt requested via POST /threads/{thread_id}/runs/{run_id}/cancel",
    }


@covers("GET /threads/{thread_id}", "?include")
def test_what_nobody_knows_to_include_is_ignored(http: httpx.Client) -> None:
    made = http.post("/threads", json={}).json()
    assert http.get(f"/threads/{made['thread_id']}?include=zzz,").json() == made


@covers("ThreadPatch", "ttl")
def test_a_thread_gets_another_time_to_live(
    http: httpx.Client, stored: psycopg.Connection[tuple[Any, ...]]
) -> None:
    thread_id = http.post("/threads", json={}).json()["thread_id"]
    asked = {"ttl": {"ttl": 5, "strategy": "keep_latest"}}
    assert http.patch(f"/threads/{thread_id}", json=asked).status_code == 200
    wanted = "SELECT ttl_strategy, ttl_minutes FROM matins.thread WHERE thread_id = %s"
    assert stored.execute(wanted, [thread_id]).fetchall() == [("keep_latest", 5)]
