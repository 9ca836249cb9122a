"""`matins crons`, as people type it, on a real server."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Self

import httpx
import pytest

from tests.support import servers
from tests.support.servers import Server
from tests.support.waiting import until

YEARLY = "0 0 1 1 *"
SAID = {"messages": [{"role": "user", "content": "What time\nis it?"}]}
ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@dataclass(frozen=True)
class Ended:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        assert self.code == 0, self.err
        return json.loads(self.out)

    @property
    def lines(self) -> list[str]:
        assert (self.code, self.err) == (0, "")
        assert "\x1b" not in self.out, "no colours"
        return self.out.splitlines()

    def refuses(self, *parts: str, code: int = 1) -> None:
        """Nothing but one line on stderr, which says all this."""
        assert (self.code, self.out) == (code, ""), self.err
        assert self.err.startswith("matins: ")
        assert self.err.count("\n") == 1
        for part in parts:
            assert part in self.err


def command(*arguments: str, url: str | None = None, typed: str = "", zone: str = "Asia/Kolkata") -> Ended:
    environment = {name: text for name, text in os.environ.items() if not name.startswith("MATINS_")}
    if url is not None:
        environment["MATINS_URL"] = url
    ended = subprocess.run(
        [sys.executable, "-m", "matins", "crons", *arguments],
        env=environment | {"TZ": zone},
        cwd=servers.ROOT,
        input=typed,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    return Ended(ended.returncode, ended.stdout, ended.stderr)


@pytest.fixture
def crons(server: Server) -> Any:
    return lambda *arguments, **how: command(*arguments, url=server.url, **how)


@pytest.fixture
def cron(http: httpx.Client) -> Iterator[str]:
    """A cron on a thread that will not fire by itself."""
    thread_id = http.post("/threads", json={}).json()["thread_id"]
    body = {"assistant_id": "echo", "schedule": YEARLY, "timezone": "Europe/Berlin", "input": SAID}
    cron_id = http.post(f"/threads/{thread_id}/runs/crons", json=body).json()["cron_id"]
    yield cron_id
    http.delete(f"/runs/crons/{cron_id}")


def test_crons_are_listed_with_what_became_of_them(crons: Any, http: httpx.Client, cron: str) -> None:
    whole = http.get(f"/runs/crons/{cron}").json()
    names, row = crons("list", "--thread", whole["thread_id"]).lines
    assert names.split() == ["ID", "SCHEDULE", "ZONE", "NEXT", "LAST", "STREAK", "STATE"]
    assert row.startswith(f"{cron}  {YEARLY}  Europe/Berlin  ")
    assert row.endswith("-     -       enabled")
    following = datetime.fromisoformat(whole["next_run_date"])
    shown = re.search(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\+05:30", row)
    assert shown is not None, "in the time zone of this machine, with its offset"
    assert datetime.fromisoformat(shown[0]) == following
    for asked, is_listed in (
        (("--enabled",), True),
        (("--paused",), False),
        (("--assistant", "echo"), True),
        (("--assistant", whole["assistant_id"]), True),
        (("--assistant", "failing"), False),
    ):
        listed = crons("list", *asked, "--limit", "1000", "--json").json
        assert (cron in {each["cron_id"] for each in listed}) is is_listed, asked
    crons("list", "--assistant", "nobody").refuses("nobody")
    assert len(crons("list", "--limit", "1", "--json").json) == 1


def test_a_cron_is_run_and_shown_with_its_newest_slots(crons: Any, http: httpx.Client, cron: str) -> None:
    [line] = crons("trigger", cron).lines
    run_id = ID.search(line)
    assert run_id is not None
    until(lambda: http.get(f"/runs/crons/{cron}/fires", params={"status": "success"}).json())
    shown = "\n".join(crons("show", cron).lines)
    for part in (
        f"{YEARLY}, Europe/Berlin",
        "enabled",
        "1 succeeded in a row",
        "misfire",
        "queue_one",
        "manual",
        run_id[0],
        "What time is it?",
    ):
        assert part in shown
    assert crons("show", cron, "--json").json == http.get(f"/runs/crons/{cron}").json()
    again = crons("trigger", cron, "--json").json
    assert (again["cron_id"], again["trigger"]) == (cron, "manual")


def test_a_beginning_that_no_other_id_has_is_enough(crons: Any, http: httpx.Client, cron: str) -> None:
    assert cron in crons("show", cron[:-1]).out
    assert crons("show", cron.upper()[:-2], "--json").json["cron_id"] == cron
    other = http.post("/runs/crons", json={"assistant_id": "echo", "schedule": YEARLY}).json()["cron_id"]
    crons("pause", "0").refuses("crons have an ID that begins with")
    http.delete(f"/runs/crons/{other}").raise_for_status()
    crons("show", "nothing").refuses("no crons have an ID that begins with 'nothing'")
    crons("show", other).refuses(f"Cron '{other}' not found")


def test_a_cron_is_paused_with_a_reason_and_resumed(crons: Any, http: httpx.Client, cron: str) -> None:
    assert crons("pause", cron, "--reason", "on holiday").lines == [f"{cron}: paused: on holiday"]
    assert "paused: on holiday" in crons("list", "--paused", "--limit", "1000").out
    assert http.get(f"/runs/crons/{cron}").json()["paused_reason"] == "on holiday"
    assert crons("resume", cron).lines == [f"{cron}: enabled"]
    assert crons("pause", cron, "--json").json["paused_reason"] == "paused by a client"


def test_all_crons_are_paused_and_resumed(crons: Any, http: httpx.Client, cron: str) -> None:
    try:
        assert crons("pause", "--all", "--reason", "a move").lines == ["all crons are paused: a move"]
        assert http.get("/runs/crons/pause").json()["reason"] == "a move"
        assert re.search(
            r"^all crons of the server are paused since .*\+05:30: a move$", crons("list").out, re.MULTILINE
        )
    finally:
        said = crons("resume", "--all")
    assert said.lines == ["crons go on, except those that are paused by themselves"]
    assert http.get("/runs/crons/pause").json()["paused"] is False


def test_dates_to_come_are_shown_there_and_in_utc(crons: Any, cron: str) -> None:
    said, names, first, *rest = crons(
        "preview", "--schedule", "30 2 * * *", "--timezone", "Europe/Berlin", "--count", "3"
    ).lines
    assert said == "At 02:30, 30 2 * * *, Europe/Berlin"
    assert names.split() == ["THERE", "UTC", "NOTE"]
    assert len(rest) == 2
    there, utc = (datetime.fromisoformat(each) for each in re.findall(r"[\d-]{10} [\d:]{8}\+[\d:]{5}", first))
    assert (there, there.strftime("%H:%M"), utc.utcoffset()) == (utc, "02:30", timedelta())
    assert len(crons("preview", cron, "--count", "2", "--json").json["dates"]) == 2
    crons("preview", "--schedule", "nope").refuses("Invalid cron schedule: 'nope'")
    crons("preview", cron, "--timezone", "UTC").refuses("`timezone` goes with `schedule`")


def test_fires_are_listed_and_filtered(crons: Any, http: httpx.Client, cron: str) -> None:
    for _ in range(2):
        http.post(f"/runs/crons/{cron}/trigger").raise_for_status()
    newest, older = until(
        lambda: (
            len(found := http.get(f"/runs/crons/{cron}/fires", params={"status": "success"}).json()) == 2
            and found
        )
    )
    names, first, _ = crons("fires", cron).lines
    assert names.split() == [
        "SLOT",
        "OUTCOME",
        "RUN",
        "TRIGGER",
        "LATE",
        "TOOK",
        "TOKENS",
        "COST",
        "RUN",
        "ID",
        "SAID",
    ]
    assert re.search(
        rf"fired +success +manual +\d+ ms +\d+ ms +- +- +{newest['run_id']}  What time is it\?$", first
    )
    assert crons("fires", cron, "--json").json == [newest, older]
    assert "2 in all" in crons("fires", cron, "--limit", "1").out
    assert crons("fires", cron, "--outcome", "missed").lines == ["no slots"]
    at = datetime.fromisoformat(newest["scheduled_for"]) + timedelta(hours=5, minutes=30)
    local = at.replace(tzinfo=None).isoformat()
    assert crons("fires", cron, "--since", local, "--json").json == [newest], (
        "a time without an offset is local"
    )
    assert crons("fires", cron, "--until", local, "--json").json == [older]
    assert crons("fires", cron, "--status", "success", "--trigger", "manual", "--json").json == [
        newest,
        older,
    ]
    crons("fires", cron, "--outcome", "x").refuses("outcome must be one of")
    crons("fires", cron, "--since", "x").refuses("--since", code=2)


@pytest.mark.parametrize("verb", ["pause", "resume", "preview"])
def test_a_call_that_names_nothing_or_two_things_is_wrong(crons: Any, verb: str) -> None:
    both = ("--schedule", YEARLY) if verb == "preview" else ("--all",)
    crons(verb).refuses("name either a cron's ID or --", code=2)
    crons(verb, "x", *both).refuses("name either a cron's ID or --", code=2)
    assert crons(verb, "--nonsense").code == 2


def test_a_server_that_is_not_there_is_named_with_what_to_do() -> None:
    with socket.socket() as nobody:  # bound, and not listening
        nobody.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        command("list", url=url).refuses(url, "matins dev", "--url")
    command("list", "--url", "nonsense").refuses("--url must read http://host:port", code=2)


def test_help_helps() -> None:
    ended = command("--help")
    assert ended.code == 0
    for name in ("list", "show", "preview", "trigger", "pause", "resume", "backfill", "sync", "fires"):
        assert f" {name} " in ended.out


def test_slots_of_the_past_run_when_somebody_wants_them(crons: Any, http: httpx.Client, cron: str) -> None:
    span = ("--since", "2025-12-01", "--until", "2026-02-01")
    _, slot, comes_to = crons("backfill", cron, *span, "--dry-run").lines
    assert (slot.split()[:3], comes_to) == (["2026-01-01", "04:30:00+05:30", "yes"], "1 slot to run")
    assert http.get(f"/runs/crons/{cron}/fires").json() == []
    assert crons("backfill", cron, *span, "--yes").lines == ["1 slot will run, a few at a time"]
    until(lambda: http.get(f"/runs/crons/{cron}/fires", params={"status": "success"}).json())
    assert " backfill " in crons("fires", cron).out
    assert crons("backfill", cron, *span).lines == ["0 slots to run"]
    crons("backfill", cron, "--since", "2026-02-01", "--until", "2025-12-01", "--yes").refuses("until")


class Socket:
    """A bare socket that gives its answers in order, and keeps what was asked: (line, headers, body)."""

    def __init__(self, *answers: tuple[str, object]) -> None:
        self.asked: list[tuple[str, str, Any]] = []
        self._answers = answers
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()
        self._thread.join()

    def _run(self) -> None:
        for status, body in self._answers:
            try:
                link, _ = self._listener.accept()
            except OSError:
                return
            with link, link.makefile("rb") as reader:
                first = reader.readline().decode().rsplit(" ", 1)[0]
                headers = "".join(iter(lambda: reader.readline().decode(), "\r\n"))
                length = re.search(r"content-length: (\d+)", headers, re.IGNORECASE)
                sent = reader.read(int(length[1])) if length else b""
                self.asked.append((first, headers, json.loads(sent or b"null")))
                text = body if isinstance(body, str) else json.dumps(body)
                head = f"HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {len(text)}\r\n\r\n"
                link.sendall((head + text).encode())


CRON_ID = "0194a6c0-0000-7000-8000-00000000beef"
SLOTS = [
    {"scheduled_for": "2026-01-01T09:00:00+00:00", "outcome": None, "fires": True, "reason": None},
    {"scheduled_for": "2026-01-02T09:00:00+00:00", "outcome": "fired", "fires": False, "reason": "it ran"},
]
PLAN = {"dry_run": True, "count": 1, "slots": SLOTS, "estimated_tokens": 1200, "estimated_usd": 0.5}
SPAN = ("--since", "2026-01-01", "--until", "2026-01-03T00:00Z")
SENT = {"since": "2026-01-01T00:00:00+05:30", "until": "2026-01-03T05:30:00+05:30"}


def test_a_backfill_says_what_it_comes_to_and_asks_first() -> None:
    done = {**PLAN, "dry_run": False}
    with Socket(("200 OK", PLAN), ("200 OK", done)) as there:
        ended = command("backfill", CRON_ID, *SPAN, url=there.url, typed="y\n")
    assert ended.code == 0
    assert "1 slot to run, about 1200 tokens, about $0.50" in ended.out
    assert ended.out.endswith("1 slot will run, a few at a time\n")
    path = f"POST /runs/crons/{CRON_ID}/backfill"
    assert [(line, body) for line, _, body in there.asked] == [
        (path, {**SENT, "dry_run": True}),
        (path, {**SENT, "dry_run": False}),
    ]


def test_a_backfill_that_nobody_agrees_to_is_none() -> None:
    with Socket(("200 OK", PLAN)) as there:
        ended = command("backfill", CRON_ID, *SPAN, url=there.url, typed="n\n")
    assert ended.code == 1
    assert [body["dry_run"] for _, _, body in there.asked] == [True]
    with Socket(("200 OK", {**PLAN, "count": 0})) as there:
        assert command("backfill", CRON_ID, *SPAN, url=there.url).lines[0].startswith("0 slots to run")


def test_a_backfill_may_be_looked_at_or_started_unasked() -> None:
    with Socket(("200 OK", PLAN)) as there:
        names, first, second, last = command("backfill", CRON_ID, *SPAN, "--dry-run", url=there.url).lines
    assert names.split() == ["SLOT", "RUNS", "BEFORE", "REASON"]
    assert first.split() == ["2026-01-01", "14:30:00+05:30", "yes", "-"]
    assert second.split()[2:] == ["no", "fired", "it", "ran"]
    assert last.startswith("1 slot to run")
    with Socket(("200 OK", {**PLAN, "dry_run": False})) as there:
        assert command("backfill", CRON_ID, *SPAN, "--yes", "--json", url=there.url).json["count"] == 1
    assert [body["dry_run"] for _, _, body in there.asked] == [False]


def test_a_sync_shows_what_changes() -> None:
    changes = [
        {
            "key": "daily",
            "action": "update",
            "cron_id": CRON_ID,
            "fields": ["schedule", "input"],
            "reason": None,
        },
        {"key": "old", "action": "create", "cron_id": None, "fields": [], "reason": "not now"},
    ]
    with Socket(("200 OK", {"dry_run": True, "changes": changes})) as there:
        names, first, second = command("sync", "--dry-run", "--api-key", "k", url=there.url).lines
    assert names.split() == ["KEY", "ACTION", "CRON", "FIELDS", "REASON"]
    assert first.split() == ["daily", "update", CRON_ID, "schedule,", "input"]
    assert second.split() == ["old", "create", "-", "-", "not", "now"]
    [(line, headers, body)] = there.asked
    assert (line, body) == ("POST /runs/crons/sync", {"dry_run": True})
    assert "x-api-key: k" in headers


def test_what_answers_and_is_no_matins_is_said_to_be_none() -> None:
    with Socket(("404 Not Found", {"detail": "Not Found"})) as there:
        command("sync", url=there.url).refuses(there.url, "has no POST /runs/crons/sync")
    with Socket(("200 OK", "<html>")) as there:
        command("list", url=there.url).refuses("is it Matins?")
    with Socket(("401 Unauthorized", {"detail": "Who\nare you?"})) as there:
        command("list", url=there.url).refuses("Who are you?")
