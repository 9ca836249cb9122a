"""What the API says of crons, as people read it."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from matins.cli.client import Reply
from matins.cli.words import between, counted, facts, how_long, line, table, when


def crons(found: Reply) -> str:
    """Give crons, a line each."""
    if not found.value:
        return "no crons"
    names = ("id", "schedule", "zone", "next", "last", "streak", "state")
    return _more(table(names, [_row(cron) for cron in found.value]), found)


def cron(of: dict[str, Any]) -> str:
    """Give all that is to be said of a cron."""
    policy = {name: value for name, value in of.get("policy", {}).items() if value is not None}
    return facts(
        [
            ("cron", of["cron_id"]),
            ("schedule", f"{line(of['schedule'])}, {of['timezone'] or 'UTC'}"),
            ("state", state(of)),
            ("next", when(of["next_run_date"] if of["enabled"] else None)),
            ("fires at", when(of["next_fire_at"]) if of.get("next_fire_at") and of["enabled"] else ""),
            ("ends", when(of["end_time"]) if of["end_time"] else ""),
            ("assistant", of["assistant_id"]),
            ("thread", of["thread_id"] or "one for each run"),
            ("last success", when(of.get("last_success"))),
            ("streak", _streak(of)),
            ("takes", how_long(_seconds(of.get("p50_duration_ms")))),
            ("in 7 days", f"{counted(of.get('tokens_7d') or 0, 'token')}, {_cost(of.get('cost_usd_7d'))}"),
            *((f"policy {name}", line(json.dumps(value).strip('"'))) for name, value in policy.items()),
        ]
    )


def fires(found: Reply) -> str:
    """Give fires, a line each."""
    names = ("slot", "outcome", "run", "trigger", "late", "took", "tokens", "cost", "run id", "said")
    rows = [
        (
            when(fire["scheduled_for"]),
            fire["outcome"],
            fire["status"] or "-",
            fire["trigger"],
            how_long(_seconds(fire["lateness_ms"])),
            between(fire["started_at"], fire["ended_at"]),
            str(fire["tokens"] or "-"),
            _cost(fire["cost_usd"]),
            fire["run_id"] or "-",
            _said(fire),
        )
        for fire in found.value
    ]
    return _more(table(names, rows), found) if rows else "no slots"


def dates(found: dict[str, Any]) -> str:
    """Give dates to come, in the time zone of the schedule."""
    said = ", ".join(
        line(each) for each in (found["description"], found["schedule"], found["timezone"]) if each
    )
    rows = [(_plain(each["local"]), _plain(each["at"]), each["note"] or "") for each in found["dates"]]
    return f"{said}\n{table(('there', 'utc', 'note'), rows) if rows else 'no dates to come'}"


def slots(found: dict[str, Any]) -> str:
    """Give the slots of a backfill, a line each."""
    rows = [
        (when(slot["scheduled_for"]), "yes" if slot["fires"] else "no", slot["outcome"] or "-",
         line(slot["reason"] or ""))
        for slot in found["slots"]
    ]  # fmt: skip
    return table(("slot", "runs", "before", "reason"), rows) if rows else "no slots"


def estimate(found: dict[str, Any]) -> str:
    """Give what a backfill comes to."""
    tokens, usd = found["estimated_tokens"], found["estimated_usd"]
    costs = [*([f"about {tokens} tokens"] if tokens else []), *([f"about ${usd:.2f}"] if usd else [])]
    return ", ".join([f"{counted(found['count'], 'slot')} to run", *costs])


def changes(done: dict[str, Any]) -> str:
    """Give what became of the crons that are declared."""
    rows = [
        (line(each["key"]), each["action"], each["cron_id"] or "-", ", ".join(each["fields"]) or "-",
         line(each["reason"] or ""))
        for each in done["changes"]
    ]  # fmt: skip
    return table(("key", "action", "cron", "fields", "reason"), rows) if rows else "nothing to change"


def state(cron: dict[str, Any]) -> str:
    """Give whether a cron fires, and why not."""
    if not cron["enabled"] and (cron["next_run_date"] or cron.get("paused_reason")):
        return f"paused: {line(cron['paused_reason'])}" if cron.get("paused_reason") else "paused"
    return "enabled" if cron["next_run_date"] else "ended"


def _row(cron: dict[str, Any]) -> tuple[str, ...]:
    last = cron.get("last_fire")
    return (
        cron["cron_id"],
        line(cron["schedule"]),
        cron["timezone"] or "UTC",
        when(cron["next_run_date"] if cron["enabled"] else None),
        (last["status"] or last["outcome"]) if last else "-",
        str(cron.get("streak", "-")),
        state(cron),
    )


def _streak(cron: dict[str, Any]) -> str:
    number = cron.get("streak", 0)
    return f"{abs(number)} {'succeeded' if number > 0 else 'failed'} in a row" if number else "-"


def _said(fire: dict[str, Any]) -> str:
    error = fire["error"]
    if isinstance(error, dict):
        return line(f"{error.get('error', '')}: {error.get('message', '')}")
    return line(fire["reason"] or fire["output"] or error or "")


def _more(text: str, found: Reply) -> str:
    return f"{text}\n{found.total} in all: --limit shows more" if found.has_more else text


def _cost(usd: float | None) -> str:
    return f"${usd:.4f}" if usd else "-"


def _plain(text: str) -> str:
    return datetime.fromisoformat(text).isoformat(" ", "seconds")


def _seconds(ms: float | None) -> float | None:
    return None if ms is None else ms / 1000
