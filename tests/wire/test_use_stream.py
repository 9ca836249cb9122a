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

    def __init__(self, program: JavaScript) -> None:
        self.program: Final = program

    def __call__(self, method: str, *args: Any) -> Any:
        return self.program.start(method, args, {}, None, lambda _: None).result(PATIENCE_SECONDS)

    @property
    def state(self) -> dict[str, Any]:
        """What it shows now."""
        found: dict[str, Any] = self("state")
        return found

    def shows(self, wanted: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
        """Wait until what it shows is so, and give it."""
        found: dict[str, Any] = until(lambda: state if wanted(state := self.state) else None)
        return found

    def rests(self) -> dict[str, Any]:
        """Wait until no run is streamed."""
        return self.shows(lambda state: not state["isLoading"] and not state["isThreadLoading"])

    def told(self, what: str) -> list[Any]:
        """Give what the hook's callbacks of that name were told."""
        return [rest[0] if rest else None for name, *rest in self("told") if name == what]


Open = Callable[..., Page]


@pytest.fixture(scope="module", params=["sdk-1.15", "sdk-2.0"])
def browser(request: pytest.FixtureRequest, server: Server) -> Iterator[Callable[[], JavaScript]]:
    """Give a function that starts a program for pages."""
    with ExitStack() as stack:

        def start() -> JavaScript:
            program = JavaScript("hook.mjs", request.param, server.url)
            stack.callback(program.close)
            return program

        yield start


@pytest.fixture(scope="module")
def tab(browser: Callable[[], JavaScript]) -> JavaScript:
    """One program for all pages that need none of their own."""
    return browser()


@pytest.fixture
def page(tab: JavaScript) -> Open:
    """Open a page, in place of the one before: page("chat", threadId=...)."""
    return lambda assistant, **options: opened(tab, assistant, **options)


def opened(program: JavaScript, assistant: str, stored: dict[str, str] | None = None, **options: Any) -> Page:
    """Open a page; `stored` is what the session's storage holds."""
    shown = Page(program)
    shown("mount", {"assistantId": assistant, **options}, stored or {})
    until(lambda: shown.state)
    return shown


@pytest.fixture
def thread(http: httpx.Client) -> str:
    thread_id: str = http.post("/threads", json={}).json()["thread_id"]
    return thread_id


def statuses(http: httpx.Client, thread: str) -> list[str]:
    return [run["status"] for run in http.get(f"/threads/{thread}/runs").json()]


def submitted(where: Page, values: Any, **options: Any) -> dict[str, Any]:
    """Submit and wait for the end."""
    before = len(where.told("created"))
    where("submit", values, options)
    until(lambda: len(where.told("created")) > before)
    return where.rests()


def test_a_thread_is_made_with_the_first_message(page: Open, http: httpx.Client) -> None:
    where = page("chat", threadId=None)
    assert (where.state["messages"], where.state["isLoading"]) == ([], False)
    shown = submitted(where, SAID)
    assert shown["messages"] == [["human", "hello there"], ["ai", "You said: hello there"]]
    [thread_id] = where.told("threadId")
    assert statuses(http, thread_id) == ["success"]
    [run] = where.told("created")
    assert run["thread_id"] == thread_id


def test_an_answer_grows_while_it_is_streamed(page: Open, thread: str) -> None:
    where = page("chat", threadId=thread)
    submitted(where, SAID)
    answers = [state["messages"][1][1] for state in where("seen") if len(state["messages"]) == 2]
    assert answers[-1] == "You said: hello there"
    assert len(set(answers)) > 2
    assert all(later.startswith(earlier) for earlier, later in pairwise(answers))
    assert any(state["isLoading"] for state in where("seen"))


def test_a_conversation_goes_on(page: Open, thread: str) -> None:
    where = page("echo", threadId=thread, fetchStateHistory=True)
    submitted(where, SAID)
    shown = submitted(where, {"messages": [{"type": "human", "content": "again"}]})
    assert [text for _, text in shown["messages"]] == ["hello there", "hello there", "again", "again"]


def test_stop_ends_the_stream_and_the_run(page: Open, http: httpx.Client, thread: str) -> None:
    where = page("slow", threadId=thread)
    where("submit", {"delay": 600})
    where.shows(lambda state: state["values"].get("done") == 0)
    where("stop")
    where.rests()
    assert where.told("stop") == [None]
    until(lambda: statuses(http, thread) == ["interrupted"])


def test_stop_ends_a_run_that_would_outlive_its_page(page: Open, http: httpx.Client, thread: str) -> None:
    where = page("slow", threadId=thread, reconnectOnMount=True)
    where("submit", {"delay": 600})
    where.shows(lambda state: state["values"].get("done") == 0)
    where("stop")
    until(lambda: statuses(http, thread) == ["interrupted"])
    assert where("stored") == {}


def test_a_page_that_is_closed_takes_its_run_with_it(
    browser: Callable[[], JavaScript], http: httpx.Client, thread: str
) -> None:
    closing = opened(browser(), "slow", threadId=thread)
    closing("submit", {"delay": 600})
    closing.shows(lambda state: state["values"].get("done") == 0)
    closing.program.close()
    until(lambda: statuses(http, thread) == ["interrupted"])


def test_an_interrupt_is_shown_and_answered(page: Open, thread: str) -> None:
    where = page("ask", threadId=thread)
    shown = submitted(where, {"question": "Who?"})
    assert shown["interrupt"] == {"q": "Who?"}
    shown = submitted(where, None, command={"resume": "Ada"})
    assert (shown["interrupt"], shown["values"]["answer"]) == (None, "Thank you, Ada.")


def test_an_interrupt_is_answered_by_a_page_that_was_opened_later(page: Open, thread: str) -> None:
    submitted(page("ask", threadId=thread), {"question": "Who?"})
    where = page("ask", threadId=thread, fetchStateHistory=True)
    assert where.shows(lambda state: state["interrupt"])["interrupt"] == {"q": "Who?"}
    shown = submitted(where, None, command={"resume": "Ada"})
    assert shown["values"]["answer"] == "Thank you, Ada."


def test_a_page_that_is_loaded_anew_goes_on_with_its_stream(
    browser: Callable[[], JavaScript], tab: JavaScript, http: httpx.Client, thread: str
) -> None:
    asked: dict[str, Any] = {"threadId": thread, "reconnectOnMount": True, "fetchStateHistory": True}
    before = opened(browser(), "slow", **asked)
    before("submit", {"delay": 4, "steps": 4})
    before.shows(lambda state: state["values"].get("done") == 1)
    stored = before("stored")
    assert list(stored) == [f"lg:stream:{thread}"]
    before.program.close()
    again = opened(tab, "slow", stored=stored, **asked)
    again.shows(lambda state: state["isLoading"])
    shown = again.shows(lambda state: state["values"].get("done") == 4 and not state["isLoading"])
    assert shown["error"] is None
    assert statuses(http, thread) == ["success"]
    streamed = [state["values"].get("done") for state in again("seen") if state["isLoading"]]
    assert len(set(streamed)) > 1
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
    where = page("events", threadId=thread)
    where("joinStream", run_id, numbers[-2])
    where.shows(lambda state: state["values"].get("written") == 1)
    assert not [state for state in where("seen") if state["values"] == {"n": 1}]


def test_a_failure_is_shown(page: Open, http: httpx.Client, thread: str) -> None:
    where = page("failing", threadId=thread)
    where("submit", {"x": 1})
    shown = where.shows(lambda state: state["error"])
    assert shown["error"] == "boom happened"
    until(lambda: where.told("error") == ["boom happened"])
    assert where.rests()["error"] == "boom happened"
    until(lambda: statuses(http, thread) == ["error"])  # the page hears of it before the run has ended


def test_a_request_that_is_refused_is_shown(page: Open, thread: str) -> None:
    where = page("nowhere", threadId=thread)
    where("submit", {"x": 1})
    assert "nowhere" in where.shows(lambda state: state["error"])["error"]


def test_history_is_shown_and_an_answer_that_is_asked_for_anew_is_a_branch(page: Open, thread: str) -> None:
    where = page("echo", threadId=thread, fetchStateHistory=True)
    shown = submitted(where, SAID)
    assert len(shown["history"]) == 3
    assert where.told("finish")[-1]["messages"][-1]["content"] == "hello there"
    before = len(where.told("finish"))
    where("regenerate", 1)
    until(lambda: len(where.told("finish")) > before)
    shown = where.shows(lambda state: state["branches"][1])
    options = shown["branches"][1]
    assert len(options) == 2
    where("setBranch", options[0])
    assert where.shows(lambda state: state["branch"] == options[0])["messages"] == shown["messages"]


def test_a_thread_that_is_opened_shows_its_messages(page: Open, http: httpx.Client, thread: str) -> None:
    wanted = {"assistant_id": "echo", "input": {"messages": [{"role": "user", "content": "hi"}]}}
    http.post(f"/threads/{thread}/runs/wait", json=wanted)
    for asked in (True, {"limit": 5}, False):
        where = page("echo", threadId=thread, fetchStateHistory=asked)
        shown = where.shows(lambda state: len(state["messages"]) == 2)
        assert [text for _, text in shown["messages"]] == ["hi", "hi"]
