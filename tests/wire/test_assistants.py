from __future__ import annotations

from uuid import uuid4

import httpx
import pytest

from matins.domain.ids import system_assistant_id
from tests.wire.compatibility import covers
from tests.wire.sdks import Refused, Sdk

ECHO = "046b5dc7-2108-582c-9c6c-31d556d138f0"
"""Source: observed; every server gives this graph's assistant this id."""


@covers("GET /assistants/{assistant_id}", "200")
@covers("Assistant", "the keys", "system assistants", "created_at")
def test_each_graph_has_an_assistant_with_the_id_that_clients_expect(sdk: Sdk) -> None:
    assert str(system_assistant_id("echo")) == ECHO
    assistant = sdk("assistants.get", ECHO)
    assert list(assistant) == [
        *("assistant_id", "graph_id", "config", "context", "metadata"),
        *("name", "created_at", "updated_at", "version", "description"),
    ]
    assert assistant["graph_id"] == assistant["name"] == "echo"
    assert assistant["metadata"] == {"created_by": "system"}
    assert assistant["version"] == 1
    assert assistant["created_at"].endswith("+00:00")


@covers("POST /assistants", "200")
@covers("AssistantCreate", "graph_id", "assistant_id", "config", "metadata", "name", "description")
@covers("Assistant", "assistant_id", "graph_id", "config", "context", "metadata", "name", "description")
def test_an_assistant_is_created_with_what_was_sent(sdk: Sdk) -> None:
    wanted = str(uuid4())
    made = sdk(
        "assistants.create",
        graph_id="echo",
        assistant_id=wanted,
        name="Ünïque",
        description="Says it again.",
        metadata={"team": "a"},
        config={"configurable": {"tone": "kind"}, "tags": ["t"], "recursion_limit": 7},
    )
    assert made["assistant_id"] == wanted
    assert (made["name"], made["description"], made["metadata"]) == (
        "Ünïque",
        "Says it again.",
        {"team": "a"},
    )
    assert made["config"] == {"configurable": {"tone": "kind"}, "tags": ["t"], "recursion_limit": 7}
    assert made["context"] == {"tone": "kind"}
    assert sdk("assistants.get", wanted) == made


@covers("AssistantCreate", "context", "name")
def test_a_context_is_mirrored_into_the_configuration(sdk: Sdk) -> None:
    made = sdk("assistants.create", graph_id="echo", context={"tone": "kind"})
    assert made["config"] == {"configurable": {"tone": "kind"}}
    assert made["name"] == "Untitled"


@covers("POST /assistants", "400")
def test_a_context_and_a_configuration_at_once_are_refused(sdk: Sdk) -> None:
    with pytest.raises(Refused, match="Cannot specify both configurable and context") as refused:
        sdk("assistants.create", graph_id="echo", context={"a": 1}, config={"configurable": {"a": 2}})
    assert refused.value.status == 400


@covers("POST /assistants", "409")
@covers("AssistantCreate", "if_exists")
def test_an_id_that_is_taken_is_a_conflict_unless_that_is_fine(sdk: Sdk) -> None:
    made = sdk("assistants.create", graph_id="echo", name="first")
    taken = made["assistant_id"]
    with pytest.raises(Refused, match="already exists") as refused:
        sdk("assistants.create", graph_id="echo", assistant_id=taken)
    assert refused.value.status == 409
    again = sdk(
        "assistants.create", graph_id="echo", assistant_id=taken, if_exists="do_nothing", name="second"
    )
    assert again == made


@covers("POST /assistants", "404")
@covers("POST /assistants/search", "404")
def test_an_unknown_graph_is_not_found(sdk: Sdk) -> None:
    for call in ("assistants.create", "assistants.search", "assistants.count"):
        with pytest.raises(Refused, match=r"Graph 'nope' not found. Expected one of: \['ask', ") as refused:
            sdk(call, graph_id="nope")
        assert refused.value.status == 404


@covers("POST /assistants/search", "200")
@covers("POST /assistants/count", "200")
@covers("AssistantCount", "metadata", "graph_id", "name")
@covers("AssistantSearch", "sort_by", "sort_order", "select")
def test_assistants_are_searched_counted_and_sorted(sdk: Sdk) -> None:
    tag = str(uuid4())
    made = [
        sdk("assistants.create", graph_id="echo", name=f"Name {letter} {tag}", metadata={"tag": tag})
        for letter in "bac"
    ]
    assert sdk("assistants.count", metadata={"tag": tag}) == 3
    assert sdk("assistants.count", metadata={"tag": tag}, graph_id="ask") == 0
    assert sdk("assistants.count", name=f"NAME A {tag.upper()}") == 1
    assert sdk("assistants.search", metadata={"tag": tag}) == made[::-1]
    by_name = sdk(
        "assistants.search", metadata={"tag": tag}, sort_by="name", sort_order="asc", select=["name"]
    )
    assert by_name == [{"name": f"Name {letter} {tag}"} for letter in "abc"]


@covers("POST /assistants/search", "X-Pagination-Next:")
@covers("AssistantSearch", "limit", "offset")
def test_a_page_names_the_next_one(sdk: Sdk) -> None:
    tag = str(uuid4())
    for _ in range(3):
        sdk("assistants.create", graph_id="echo", metadata={"tag": tag})
    paged = {"include_pagination": True} if sdk.is_js else {"response_format": "object"}
    first = sdk("assistants.search", metadata={"tag": tag}, limit=2, **paged)
    assert (len(first["assistants"]), first["next"]) == (2, "2")
    second = sdk("assistants.search", metadata={"tag": tag}, limit=2, offset=2, **paged)
    assert (len(second["assistants"]), second["next"]) == (1, None)


@covers("POST /assistants/search", "X-Pagination-Total:")
def test_the_total_of_a_page_is_true(http: httpx.Client) -> None:
    tag = str(uuid4())
    for _ in range(3):
        http.post("/assistants", json={"graph_id": "echo", "metadata": {"tag": tag}}).raise_for_status()
    for body in ({"limit": 1}, {"limit": 1, "offset": 2}, {"offset": 1000}):
        page = http.post("/assistants/search", json={"metadata": {"tag": tag}, **body})
        assert page.headers["x-pagination-total"] == "3"


@covers("PATCH /assistants/{assistant_id}", "200", "its version")
@covers("AssistantPatch", "graph_id", "config", "context", "metadata", "name")
@covers("Assistant", "version", "updated_at")
@covers("POST /assistants/{assistant_id}/versions", "200", "newest first")
@covers("Versions", "metadata", "limit", "offset")
@covers("Version", "*")
@covers("POST /assistants/{assistant_id}/latest", "200", "all of it")
@covers("Latest", "version")
@covers("Defects", "a version does not bring back graph and context")
def test_each_change_is_a_version_that_can_be_the_active_one_again(sdk: Sdk) -> None:
    made = sdk(
        "assistants.create",
        graph_id="echo",
        name="first",
        description="Says it again.",
        metadata={"team": "a"},
        context={"tone": "kind"},
    )
    place = made["assistant_id"]
    changed = sdk(
        "assistants.update",
        place,
        graph_id="ask",
        name="second",
        metadata={"size": 3},
        config={"tags": ["t"], "configurable": {"tone": "dry"}},
    )
    assert (changed["version"], changed["graph_id"], changed["name"]) == (2, "ask", "second")
    assert changed["description"] == "Says it again."
    assert changed["metadata"] == {"team": "a", "size": 3}
    assert (changed["config"], changed["context"]) == (
        {"tags": ["t"], "configurable": {"tone": "dry"}},
        {"tone": "dry"},
    )
    assert changed["updated_at"] > made["updated_at"]
    assert sdk("assistants.get", place) == changed

    versions = sdk("assistants.get_versions", place)
    assert [each["version"] for each in versions] == [2, 1]
    assert list(versions[0]) == [key for key in changed if key != "updated_at"]
    assert {**versions[1], "updated_at": made["updated_at"]} == made
    assert sdk("assistants.get_versions", place, metadata={"size": 3}) == versions[:1]
    assert sdk("assistants.get_versions", place, limit=1, offset=1) == versions[1:]

    restored = sdk("assistants.set_latest", place, 1)
    assert {**restored, "updated_at": made["updated_at"]} == made
    third = sdk("assistants.update", place, context={"tone": "sad"})
    assert (third["version"], third["graph_id"], third["context"]) == (3, "echo", {"tone": "sad"})
    assert third["config"] == {"configurable": {"tone": "sad"}}


@covers("PATCH /assistants/{assistant_id}", "404")
@covers("POST /assistants/{assistant_id}/versions", "404")
@covers("POST /assistants/{assistant_id}/latest", "404")
def test_a_version_or_an_assistant_that_is_not_there_is_not_found(sdk: Sdk) -> None:
    place, nobody = sdk("assistants.create", graph_id="echo")["assistant_id"], str(uuid4())
    for call, *args in (
        ("assistants.set_latest", place, 99),
        ("assistants.set_latest", nobody, 1),
        ("assistants.update", nobody),
        ("assistants.get_versions", nobody),
    ):
        with pytest.raises(Refused, match="not found") as refused:
            sdk(call, *args)
        assert refused.value.status == 404
    with pytest.raises(Refused, match="Graph 'nope' not found") as refused:
        sdk("assistants.update", place, graph_id="nope")
    assert refused.value.status == 404
    assert len(sdk("assistants.get_versions", place)) == 1


@covers("Assistants in runs and crons", "by graph or id")
@covers("RunCreate", "assistant_id")
def test_a_run_goes_by_the_version_that_is_active(sdk: Sdk) -> None:
    place = sdk("assistants.create", graph_id="echo")["assistant_id"]
    sdk("assistants.update", place, graph_id="events")
    assert sdk("runs.wait", None, place, input={"n": 1}) == {"n": 1, "written": 1}
    sdk("assistants.set_latest", place, 1)
    said = sdk("runs.wait", None, place, input={"messages": [{"role": "user", "content": "hi"}]})
    assert [message["content"] for message in said["messages"]] == ["hi", "hi"]


@covers("GET /assistants/{assistant_id}/schemas", "200")
@covers("GraphSchemas", "graph_id")
@covers("Schemas", "input_schema", "output_schema", "state_schema", "config_schema", "context_schema")
@covers("GET /assistants/{assistant_id}/subgraphs", "200")
@covers("GET /assistants/{assistant_id}/subgraphs/{namespace}", "200", "?recurse", "unknown namespace")
@covers("GET /assistants/{assistant_id}/graph", "200", "a graph's name", "?xray")
@covers("Drawing", "nodes", "edges")
def test_a_graph_tells_its_schemas_its_subgraphs_and_how_it_is_drawn(sdk: Sdk) -> None:
    made = sdk("assistants.create", graph_id="nested")["assistant_id"]
    schemas = sdk("assistants.get_schemas", made)
    assert list(schemas) == [
        *("graph_id", "input_schema", "output_schema", "state_schema", "config_schema", "context_schema"),
    ]
    assert (schemas["graph_id"], schemas["state_schema"]["title"]) == ("nested", "nested_state")
    assert "x" in schemas["input_schema"]["properties"]
    assert (schemas["config_schema"], schemas["context_schema"]) == ({}, None)

    subgraphs = sdk("assistants.get_subgraphs", made)
    assert list(subgraphs) == ["child"]
    assert sdk("assistants.get_subgraphs", made, namespace="child", recurse=True) == subgraphs
    assert sdk("assistants.get_subgraphs", made, namespace="nobody") == {}

    drawn = sdk("assistants.get_graph", made)
    assert [node["id"] for node in drawn["nodes"]] == ["__start__", "outer", "child", "__end__"]
    assert {"source": "__start__", "target": "outer"} in drawn["edges"]
    inside = sdk("assistants.get_graph", "nested", xray=True)
    assert "child:inner_a" in [node["id"] for node in inside["nodes"]]
    assert sdk("assistants.get_graph", "nested", xray=1) == inside


@covers("GET /assistants/{assistant_id}/graph", "404")
@covers("GET /assistants/{assistant_id}/schemas", "404")
@covers("GET /assistants/{assistant_id}/subgraphs", "404")
def test_of_an_assistant_that_is_not_there_nothing_is_told(sdk: Sdk) -> None:
    nobody = str(uuid4())
    for call in ("assistants.get_graph", "assistants.get_schemas", "assistants.get_subgraphs"):
        with pytest.raises(Refused) as refused:
            sdk(call, nobody)
        assert refused.value.status == 404


@covers("DELETE /assistants/{assistant_id}", "204", "404")
@covers("GET /assistants/{assistant_id}", "404")
def test_a_deleted_assistant_is_gone(sdk: Sdk) -> None:
    gone = sdk("assistants.create", graph_id="echo")["assistant_id"]
    sdk("assistants.delete", gone)
    for call in ("assistants.get", "assistants.delete"):
        with pytest.raises(Refused) as refused:
            sdk(call, gone)
        assert refused.value.status == 404


@covers("DELETE /assistants/{assistant_id}", "?delete_threads")
def test_threads_go_with_their_assistant_when_that_is_asked(sdk: Sdk) -> None:
    made = sdk("assistants.create", graph_id="echo")["assistant_id"]
    its, other = (sdk("threads.create")["thread_id"] for _ in range(2))
    said = {"messages": [{"role": "user", "content": "hi"}]}
    sdk("runs.wait", its, made, input=said)
    sdk("runs.wait", other, "echo", input=said)
    sdk("assistants.delete", made, delete_threads=True)
    with pytest.raises(Refused) as refused:
        sdk("threads.get", its)
    assert refused.value.status == 404
    assert sdk("threads.get", other)["thread_id"] == other


@covers("Assistant", "a deleted system assistant")
@covers("Defects", "a deleted system assistant stays away")
def test_a_deleted_system_assistant_is_made_again_when_its_graph_is_run(sdk: Sdk) -> None:
    events = str(system_assistant_id("events"))
    sdk("assistants.delete", events)
    assert sdk("runs.wait", None, "events", input={"n": 1}) == {"n": 1, "written": 1}
    assert sdk("assistants.get", events)["metadata"] == {"created_by": "system"}


@covers("GET /assistants/{assistant_id}", "422")
def test_what_is_no_id_in_a_path_is_refused(sdk: Sdk) -> None:
    with pytest.raises(Refused, match="Invalid assistant ID: must be a UUID") as refused:
        sdk("assistants.get", "echo")
    assert refused.value.status == 422
