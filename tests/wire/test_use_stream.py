"""`useStream`, the hook of the JavaScript SDKs for React, in a page without a browser."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import pairwise
from typing import Any, Final

import httpx
import pytest

from tests.support.servers import Server
from tests.support.waiting import until
from tests.wire.sdks import PATIENCE_SECONDS, JavaScript

SAID: Final = {"messages": [{"type": "human", "content": "hello there"}]}


class Page:
    """A page that shows what the hook gives."""

    def __init__(self, sdk: str, url: str) -> None:
        self.program: Final = JavaScript("hook.mjs", sdk, url)

    def __call__(self, method: str, *args: Any) -> Any:
        return self.program.start(method, args, {}, None, lambda _: None).result(PATIENCE_SECONDS)

    @property
    def state(self) -> dict[str, Any]:
        """What it shows now."""
        found: dict[str, Any] = self("state")
        return found

    def shows(self, wanted: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
        """Wait until what it shows is so, and give it."""
        return until(lambda: state if wanted(state := self.state) else None)

    def rests(self) -> dict[str, Any]:
        """Wait until no run is streamed."""
        return self.shows(lambda state: not state["isLoading"] and not state["isThreadLoading"])

    def told(self, what: str) -> list[Any]:
        """Give what the hook's callbacks of that name were told."""
        return [rest[0] if rest else None for name, *rest in self("told") if name == what]


Open = Callable[..., Page]


@pytest.fixture(params=["sdk-1.15", "sdk-2.0"])
def page(request: pytest.FixtureRequest, server: Server) -> Iterator[Open]:
    """Open a page: page("chat", threadId=...); `stored` is what the session's storage holds."""
    with ExitStack() as stack:

        def load(assistant: str, *, stored: dict[str, str] | None = None, **options: Any) -> Page:
            opened = Page(request.param, server.url)
            stack.callback(opened.program.close)
            opened("mount", {"assistantId": assistant, **options}, stored or {})
            until(lambda: opened.state)
            return opened

        yield load


@pytest.fixture
def thread(http: httpx.Client) -> str:
    thread_id: str = http.post("/threads", json={}).json()["thread_id"]
    return thread_id


def statuses(http: httpx.Client, thread: str) -> list[str]:
    return [run["status"] for run in http.get(f"/threads/{thread}/runs").json()]


def submitted(opened: Page, values: Any, **options: Any) -> dict[str, Any]:
    """Submit and wait for the end."""
    before = len(opened.told("created"))
    opened("submit", values, options)
    until(lambda: len(opened.told("created")) > before)
    return opened.rests()


def test_a_thread_is_made_with_the_first_message(page: Open, http: httpx.Client) -> None:
    opened = page("chat", threadId=None)
    assert (opened.state["messages"], opened.state["isLoading"]) == ([], False)
    shown = submitted(opened, SAID)
    assert shown["messages"] == [["human", "hello there"], ["ai", "You said: hello there"]]
    [thread_id] = opened.told("threadId")
    assert statuses(http, thread_id) == ["success"]
    [run] = opened.told("created")
    assert run["thread_id"] == thread_id


def test_an_answer_grows_while_it_is_streamed(page: Open, thread: str) -> None:
    opened = page("chat", threadId=thread)
    submitted(opened, SAID)
    answers = [state["messages"][1][1] for state in opened("seen") if len(state["messages"]) == 2]
    assert answers[-1] == "You said: hello there"
    assert len(set(answers)) > 2
    assert all(later.startswith(earlier) for earlier, later in pairwise(answers))
    assert any(state["isLoading"] for state in opened("seen"))


def test_a_conversation_goes_on(page: Open, thread: str) -> None:
    opened = page("echo", threadId=thread, fetchStateHistory=True)
    submitted(opened, SAID)
    shown = submitted(opened, {"messages": [{"type": "human", "content": "again"}]})
    assert [text for _, text in shown["messages"]] == ["hello there", "hello there", "again", "again"]


def test_stop_ends_the_stream_and_the_run(page: Open, http: httpx.Client, thread: str) -> None:
    opened = page("slow", threadId=thread)
    opened("submit", {"delay": 600})
    opened.shows(lambda state: state["values"].get("done") == 0)
    opened("stop")
    opened.rests()
    assert opened.told("stop") == [None]
    until(lambda: statuses(http, thread) == ["interrupted"])


def test_stop_ends_a_run_that_would_outlive_its_page(page: Open, http: httpx.Client, thread: str) -> None:
    opened = page("slow", threadId=thread, reconnectOnMount=True)
    opened("submit", {"delay": 600})
    opened.shows(lambda state: state["values"].get("done") == 0)
    opened("stop")
    until(lambda: statuses(http, thread) == ["interrupted"])
    assert opened("stored") == {}


def test_a_page_that_is_closed_takes_its_run_with_it(page: Open, http: httpx.Client, thread: str) -> None:
    opened = page("slow", threadId=thread)
    opened("submit", {"delay": 600})
    opened.shows(lambda state: state["values"].get("done") == 0)
    opened.program.close()
    until(lambda: statuses(http, thread) == ["interrupted"])


def test_an_interrupt_is_shown_and_answered(page: Open, thread: str) -> None:
    opened = page("ask", threadId=thread)
    shown = submitted(opened, {"question": "Who?"})
    assert shown["interrupt"] == {"q": "Who?"}
    shown = submitted(opened, None, command={"resume": "Ada"})
    assert (shown["interrupt"], shown["values"]["answer"]) == (None, "Thank you, Ada.")


def test_an_interrupt_is_answered_by_a_page_that_was_opened_later(page: Open, thread: str) -> None:
    submitted(page("ask", threadId=thread), {"question": "Who?"})
    opened = page("ask", threadId=thread, fetchStateHistory=True)
    assert opened.shows(lambda state: state["interrupt"])["interrupt"] == {"q": "Who?"}
    shown = submitted(opened, None, command={"resume": "Ada"})
    assert shown["values"]["answer"] == "Thank you, Ada."


def test_a_page_that_is_loaded_anew_goes_on_with_its_stream(
    page: Open, http: httpx.Client, thread: str
) -> None:
    asked = {"threadId": thread, "reconnectOnMount": True, "fetchStateHistory": True}
    opened = page("slow", **asked)
    opened("submit", {"delay": 4, "steps": 4})
    opened.shows(lambda state: state["values"].get("done") == 1)
    stored = opened("stored")
    assert list(stored) == [f"lg:stream:{thread}"]
    opened.program.close()
    again = page("slow", **asked, stored=stored)
    again.shows(lambda state: state["isLoading"])
    shown = again.shows(lambda state: state["values"].get("done") == 4 and not state["isLoading"])
    assert shown["error"] is None
    assert statuses(http, thread) == ["success"]
    # It was replayed from the beginning, and then followed.
    replayed = [state["values"].get("done") for state in again("seen") if state["isLoading"]]
    assert [done for done in dict.fromkeys(replayed) if done is not None][-3:] == [2, 3, 4]
    until(lambda: again("stored") == {})


def test_a_stream_is_joined_after_any_of_its_events(page: Open, http: httpx.Client, thread: str) -> None:
    wanted = {
        "assistant_id": "events",
        "input": {"n": 1},
        "stream_mode": ["values"],
        "stream_resumable": True,
    }
    stream = http.post(f"/threads/{thread}/runs/stream", json=wanted)
    run_id = stream.headers["content-location"].rpartition("/")[2]
    numbers = [line[4:] for line in stream.text.split("\r\n") if line.startswith("id: ")]
    opened = page("events", threadId=thread)
    opened("joinStream", run_id, numbers[-2])
    opened.shows(lambda state: state["values"].get("written") == 1)
    assert not [state for state in opened("seen") if state["values"] == {"n": 1}]


def test_a_failure_is_shown(page: Open, http: httpx.Client, thread: str) -> None:
    opened = page("failing", threadId=thread)
    opened("submit", {"x": 1})
    shown = opened.shows(lambda state: state["error"])
    assert shown["error"] == "boom happened"
    until(lambda: opened.told("error") == ["boom happened"])
    assert opened.rests()["error"] == "boom happened"
    assert statuses(http, thread) == ["error"]


def test_a_request_that_is_refused_is_shown(page: Open, thread: str) -> None:
    opened = page("nowhere", threadId=thread)
    opened("submit", {"x": 1})
    assert "nowhere" in opened.shows(lambda state: state["error"])["error"]


def test_history_is_shown_and_an_answer_that_is_asked_for_anew_is_a_branch(page: Open, thread: str) -> None:
    opened = page("echo", threadId=thread, fetchStateHistory=True)
    shown = submitted(opened, SAID)
    assert len(shown["history"]) == 3
    assert opened.told("finish")[-1]["messages"][-1]["content"] == "hello there"
    before = len(opened.told("finish"))
    opened("regenerate", 1)
    until(lambda: len(opened.told("finish")) > before)
    shown = opened.shows(lambda state: state["branches"][1])
    options = shown["branches"][1]
    assert len(options) == 2
    opened("setBranch", options[0])
    assert opened.shows(lambda state: state["branch"] == options[0])["messages"] == shown["messages"]


def test_a_thread_that_is_opened_shows_its_messages(page: Open, http: httpx.Client, thread: str) -> None:
    wanted = {"assistant_id": "echo", "input": {"messages": [{"role": "user", "content": "hi"}]}}
    http.post(f"/threads/{thread}/runs/wait", json=wanted)
    for asked in (True, {"limit": 5}, False):
        opened = page("echo", threadId=thread, fetchStateHistory=asked)
        shown = opened.shows(lambda state: len(state["messages"]) == 2)
        assert [text for _, text in shown["messages"]] == ["hi", "hi"]
