"""`matins crons`: see crons and take them in hand, through the public API of a server."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Final
from uuid import UUID

import typer

from matins.cli import cron_tables as tables
from matins.cli.client import DEFAULT_URL, Client, refuse
from matins.cli.words import counted, line, when

_SHOWN: Final = 5
_MOST: Final = 1000
_NO_REASON: Final = "paused by a client"

app = typer.Typer(
    name="crons",
    help="See crons and take them in hand, on a server that runs. A cron's ID may be cut to what no other begins with.",
    no_args_is_help=True,
)

Url = Annotated[str, typer.Option(envvar="MATINS_URL", help="The server.")]
Key = Annotated[
    str | None, typer.Option(envvar="MATINS_API_KEY", help="Sent as x-api-key.", show_default=False)
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the server's JSON.")]
CronId = Annotated[str, typer.Argument(metavar="ID", show_default=False)]
MaybeCronId = Annotated[str | None, typer.Argument(metavar="[ID]", show_default=False)]
All = Annotated[bool, typer.Option("--all", help="All crons of the server; each one's own state is kept.")]
Since = Annotated[
    str | None,
    typer.Option(help="From this time on: 2030-01-31 or 2030-01-31T09:00, here or with an offset."),
]
Until = Annotated[str | None, typer.Option(help="Before this time.")]


@app.command("list")
def list_(
    thread: Annotated[str | None, typer.Option(help="Those on this thread.")] = None,
    assistant: Annotated[
        str | None, typer.Option(help="Those of an assistant: its ID, or a graph's name.")
    ] = None,
    enabled: Annotated[
        bool | None, typer.Option("--enabled/--paused", help="Those that are.", show_default=False)
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=_MOST)] = 100,
    url: Url = DEFAULT_URL,
    api_key: Key = None,
    as_json: AsJson = False,
) -> None:
    """List crons, the newest first."""
    client = Client(url, api_key)
    wanted = {"thread_id": thread, "enabled": enabled, "limit": limit}
    if assistant is not None:
        wanted["assistant_id"] = _assistant_id(client, assistant)
    found = client.call(
        "POST", "/runs/crons/search", {name: value for name, value in wanted.items() if value is not None}
    )
    if as_json:
        typer.echo(found.text)
        return
    typer.echo(tables.crons(found))
    hold = client.call("GET", "/runs/crons/pause").value
    if hold["paused"]:
        typer.echo(f"all crons of the server are paused since {when(hold['since'])}: {line(hold['reason'])}")


@app.command()
def show(cron_id: CronId, url: Url = DEFAULT_URL, api_key: Key = None, as_json: AsJson = False) -> None:
    """Show a cron, its policy, and what became of its newest slots."""
    client = Client(url, api_key)
    cron_id = _cron_id(client, cron_id)
    cron = client.call("GET", f"/runs/crons/{cron_id}")
    if as_json:
        typer.echo(cron.text)
        return
    newest = client.call("GET", f"/runs/crons/{cron_id}/fires", query={"limit": _SHOWN})
    typer.echo(f"{tables.cron(cron.value)}\n\n{tables.fires(newest)}")


@app.command()
def preview(
    cron_id: MaybeCronId = None,
    schedule: Annotated[str | None, typer.Option(help="A schedule in place of a cron.")] = None,
    timezone: Annotated[
        str | None, typer.Option(help="The time zone of the schedule.  [default: UTC]")
    ] = None,
    count: Annotated[int, typer.Option(min=1)] = 10,
    url: Url = DEFAULT_URL,
    api_key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Show the next dates of a cron or of a schedule."""
    if (cron_id is None) == (schedule is None):
        refuse("name either a cron's ID or --schedule", code=2)
    client = Client(url, api_key)
    asked = {"schedule": schedule, "timezone": timezone, "cron_id": cron_id and _cron_id(client, cron_id)}
    asked = {name: value for name, value in asked.items() if value is not None}
    found = client.call("POST", "/runs/crons/preview", {**asked, "count": count})
    typer.echo(found.text if as_json else tables.dates(found.value))


@app.command()
def fires(
    cron_id: CronId,
    outcome: Annotated[str | None, typer.Option(help="fired, missed, skipped, failed or waiting.")] = None,
    status: Annotated[str | None, typer.Option(help="Those whose run has this status.")] = None,
    trigger: Annotated[str | None, typer.Option(help="schedule, catch_up, manual or backfill.")] = None,
    since: Since = None,
    until: Until = None,
    limit: Annotated[int, typer.Option(min=1, max=_MOST)] = 20,
    url: Url = DEFAULT_URL,
    api_key: Key = None,
    as_json: AsJson = False,
) -> None:
    """List what became of a cron's slots, the newest first."""
    wanted = {"outcome": outcome, "status": status, "trigger": trigger, "limit": limit}
    wanted |= {"since": _instant("since", since), "until": _instant("until", until)}
    client = Client(url, api_key)
    found = client.call("GET", f"/runs/crons/{_cron_id(client, cron_id)}/fires", query=wanted)
    typer.echo(found.text if as_json else tables.fires(found))


@app.command("trigger")
def trigger_(cron_id: CronId, url: Url = DEFAULT_URL, api_key: Key = None, as_json: AsJson = False) -> None:
    """Run a cron now, also when it is paused. Its next date stays."""
    client = Client(url, api_key)
    made = client.call("POST", f"/runs/crons/{_cron_id(client, cron_id)}/trigger")
    fire = made.value
    typer.echo(made.text if as_json else f"started run {fire['run_id']} on thread {fire['thread_id']}")


@app.command()
def pause(
    cron_id: MaybeCronId = None,
    every: All = False,
    reason: Annotated[
        str, typer.Option(help="Shown with the cron, or with each slot that is skipped.")
    ] = _NO_REASON,
    url: Url = DEFAULT_URL,
    api_key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Pause a cron, or all of the server."""
    _switch("pause", cron_id, every, Client(url, api_key), {"reason": reason}, as_json)


@app.command()
def resume(
    cron_id: MaybeCronId = None,
    every: All = False,
    url: Url = DEFAULT_URL,
    api_key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Resume a cron, or all of the server, from now on."""
    _switch("resume", cron_id, every, Client(url, api_key), None, as_json)


@app.command()
def backfill(
    cron_id: CronId,
    since: Annotated[str, typer.Option(help="From this time on, as 2030-01-31 or 2030-01-31T09:00.")],
    until: Annotated[str, typer.Option(help="Before this time.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the slots, and start nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    url: Url = DEFAULT_URL,
    api_key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Run a cron for slots of the past that never ran. Says what it comes to, and asks, before it starts."""
    between_them = {"since": _instant("since", since), "until": _instant("until", until)}
    client = Client(url, api_key)
    path = f"/runs/crons/{_cron_id(client, cron_id)}/backfill"
    if dry_run or not yes:
        found = client.call("POST", path, {**between_them, "dry_run": True})
        if dry_run:
            typer.echo(
                found.text if as_json else f"{tables.slots(found.value)}\n{tables.estimate(found.value)}"
            )
            return
        typer.echo(tables.estimate(found.value), err=as_json)
        if not found.value["count"]:
            return
        typer.confirm("Start?", abort=True, err=as_json)
    done = client.call("POST", path, {**between_them, "dry_run": False})
    typer.echo(done.text if as_json else f"{counted(done.value['count'], 'slot')} will run, a few at a time")


@app.command()
def sync(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would change, and change nothing.")
    ] = False,
    url: Url = DEFAULT_URL,
    api_key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Make the server's crons those that its langgraph.json declares; exits with 1 when some cannot be."""
    done = Client(url, api_key).call("POST", "/runs/crons/sync", {"dry_run": dry_run})
    typer.echo(done.text if as_json else tables.changes(done.value))
    if any(change["action"] == "invalid" for change in done.value["changes"]):
        raise typer.Exit(1)


def _switch(verb: str, cron_id: str | None, every: bool, client: Client, body: object, as_json: bool) -> None:
    if (cron_id is None) != every:
        refuse(f"name either a cron's ID or --all to {verb}", code=2)
    if cron_id is not None:
        done = client.call("POST", f"/runs/crons/{_cron_id(client, cron_id)}/{verb}", body)
        typer.echo(done.text if as_json else f"{done.value['cron_id']}: {tables.state(done.value)}")
        return
    done = client.call("POST", f"/runs/crons/{verb}", body)
    said = "crons go on, except those that are paused by themselves"
    if done.value["paused"]:
        said = f"all crons are paused: {line(done.value['reason'])}"
    typer.echo(done.text if as_json else said)


def _cron_id(client: Client, given: str) -> str:
    """Give the whole id of a cron that somebody has named by its beginning."""
    try:
        return str(UUID(given))
    except ValueError:
        pass
    found = client.call(
        "POST", "/runs/crons/search", {"limit": _MOST, "select": ["cron_id"], "sort_by": "cron_id"}
    )
    matching = [each["cron_id"] for each in found.value if each["cron_id"].startswith(given.lower())]
    if found.has_more:
        refuse(f"write the whole ID: the server has more than {_MOST} crons")
    if len(matching) != 1:
        refuse(f"{len(matching) or 'no'} crons have an ID that begins with {line(given)!r}")
    return str(matching[0])


def _assistant_id(client: Client, given: str) -> str:
    """Give the id of an assistant, of a graph's own when it is named by the graph."""
    try:
        return str(UUID(given))
    except ValueError:
        pass
    asked = {"graph_id": given, "metadata": {"created_by": "system"}}
    found = client.call("POST", "/assistants/search", asked).value
    if not found:
        refuse(f"there is no graph {line(given)!r}")
    return str(found[0]["assistant_id"])


def _instant(name: str, text: str | None) -> str | None:
    """Give a time with its offset: this machine's, where none was given."""
    if text is None:
        return None
    try:
        return datetime.fromisoformat(text).astimezone().isoformat()
    except (ValueError, OverflowError):
        refuse(f"--{name} must be an ISO 8601 time, for example 2030-01-31T09:00", code=2)
