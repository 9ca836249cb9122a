from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Network, IPv6Network, ip_address
from pathlib import Path
from uuid import uuid4

import msgspec
import pytest

from matins.api.wire import runs as wire
from matins.domain.addresses import LOOPBACK, Network, blocked
from matins.domain.ids import AssistantId, RunId, ThreadId
from matins.domain.runs import Run, RunStatus
from matins.domain.webhooks import MOST_TRIES, pause_s, report, sent
from matins.manifest.reading import ManifestError
from matins.manifest.webhooks import Webhooks, read
from matins.settings import Settings, SettingsError
from matins.settings import read as read_settings
from tests.support import servers

FILE = Path("/srv/langgraph.json")
SECRET = "whsec_bWF0aW5zLW1hdGlucy1tYXRpbnMtbWF0aW5z"


# -- addresses


@pytest.mark.parametrize("address", ["1.1.1.1", "8.8.8.8", "100.63.255.255", "172.32.0.1", "2606:4700::1111"])
def test_a_public_address_may_be_reached(address: str) -> None:
    assert blocked(address, allowed=()) is None
    assert ip_address(address).is_global, "the standard library agrees"


def test_an_address_that_carries_a_public_one_counts_as_that() -> None:
    assert blocked("::ffff:1.1.1.1", allowed=()) is None
    assert blocked("64:ff9b::1.1.1.1", allowed=()) is None


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("10.1.2.3", "10.0.0.0/8"),
        ("::ffff:10.1.2.3", "10.0.0.0/8"),
        ("64:ff9b::10.1.2.3", "10.0.0.0/8"),
        ("127.0.0.1", "127.0.0.0/8"),
    ],
)
def test_what_was_allowed_may_be_reached_however_it_is_written(address: str, network: str) -> None:
    assert blocked(address, allowed=()) is not None
    assert blocked(address, allowed=[IPv6Network("fd00::/8")]) is not None
    assert blocked(address, allowed=[IPv4Network(network)]) is None


def test_what_allows_one_range_allows_no_other() -> None:
    allowed: list[Network] = [*LOOPBACK]
    assert blocked("127.0.0.1", allowed=allowed) is None
    assert blocked("::1", allowed=allowed) is None
    assert [blocked(each, allowed=allowed) for each in ("0.0.0.1", "10.0.0.1", "169.254.169.254")] == [
        "unspecified",
        "private",
        "link-local",
    ]


# -- langgraph.json and the environment


def test_without_a_section_any_public_url_may_be_used() -> None:
    assert read(FILE, None) == Webhooks(FILE)
    assert (Webhooks().require_https, Webhooks().allows_loopback, Webhooks().allowed_domains) == (
        False,
        False,
        None,
    )


def test_with_a_url_section_https_is_required_unless_it_says_otherwise() -> None:
    assert read(FILE, {"url": {}}).require_https
    assert not read(FILE, {"url": {"require_https": False}}).require_https


def test_the_section_is_read() -> None:
    found = read(
        FILE,
        {
            "env_prefix": "HOOK_",
            "url": {
                "allowed_domains": ["Corp.com", "*.corp.com.", "10.0.0.5"],
                "allowed_ports": [443, 8443],
                "max_url_length": 100,
                "disable_loopback": False,
            },
            "headers": {"X-Token": "Bearer ${{ env.HOOK_A }}/${{env.HOOK_B}}", "x-plain": "as it is $ { }"},
        },
    )
    assert found.allowed_domains == ("corp.com", "*.corp.com", "10.0.0.5")
    assert found.allowed_ports == frozenset({443, 8443})
    assert (found.max_url_length, found.allows_loopback) == (100, True)
    assert found.filled_in({"HOOK_A": "a", "HOOK_B": "b"}) == {
        "X-Token": "Bearer a/b",
        "x-plain": "as it is $ { }",
    }


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ([], "webhooks: must be an object, not a list"),
        ({"env_prefix": 5}, "webhooks.env_prefix: must be a string, not a number"),
        ({"env_prefix": ""}, "webhooks.env_prefix: empty"),
        ({"url": "x"}, "webhooks.url: must be an object"),
        (
            {"url": {"require_https": "yes"}},
            "webhooks.url.require_https: must be true or false, not a string",
        ),
        (
            {"url": {"disable_loopback": 0}},
            "webhooks.url.disable_loopback: must be true or false, not a number",
        ),
        ({"url": {"allowed_domains": "corp.com"}}, "webhooks.url.allowed_domains: must be a list of strings"),
        ({"url": {"allowed_domains": [5]}}, "webhooks.url.allowed_domains: must be a list of strings"),
        *(
            ({"url": {"allowed_domains": [domain]}}, 'webhooks.url.allowed_domains: .* must read "corp.com"')
            for domain in (
                "https://corp.com",
                "corp.com:443",
                "corp.com/x",
                "*corp.com",
                "*",
                "a.*.com",
                "",
                "ü.com",
            )
        ),
        ({"url": {"allowed_ports": 443}}, "webhooks.url.allowed_ports: must be a list of ports"),
        ({"url": {"allowed_ports": ["443"]}}, "webhooks.url.allowed_ports: must be a list of ports"),
        ({"url": {"allowed_ports": [0]}}, "webhooks.url.allowed_ports: must be a list of ports"),
        ({"url": {"allowed_ports": [65536]}}, "webhooks.url.allowed_ports: must be a list of ports"),
        ({"url": {"allowed_ports": [True]}}, "webhooks.url.allowed_ports: must be a list of ports"),
        ({"url": {"max_url_length": 0}}, "webhooks.url.max_url_length: must be a whole number"),
        ({"url": {"max_url_length": 1.5}}, "webhooks.url.max_url_length: must be a whole number"),
        ({"headers": []}, "webhooks.headers: must be an object"),
        ({"headers": {"x": 5}}, "webhooks.headers.x: must be a string, not a number"),
        ({"headers": {"a b": "x"}}, "webhooks.headers: 'a b' is no name of a header"),
        ({"headers": {"": "x"}}, "webhooks.headers: '' is no name of a header"),
        ({"headers": {"Host": "x"}}, "webhooks.headers.Host: this header is set by the server"),
        ({"headers": {"webhook-ID": "x"}}, "webhooks.headers.webhook-ID: this header is set by the server"),
        ({"headers": {"x": "a\r\nb: c"}}, "webhooks.headers.x: holds what no header can"),
        ({"headers": {"x": "ü"}}, "webhooks.headers.x: holds what no header can"),
        ({"headers": {"x": "${{ env.HOME }}"}}, "webhooks.headers.x: HOME does not begin with LG_WEBHOOK_"),
        (
            {"env_prefix": "HOOK_", "headers": {"x": "${{ env.LG_WEBHOOK_X }}"}},
            "webhooks.headers.x: LG_WEBHOOK_X does not begin with HOOK_",
        ),
        ({"headers": {"x": "${{ LG_WEBHOOK_X }}"}}, "webhooks.headers.x: a variable must read"),
        ({"headers": {"x": "${{ env.LG_WEBHOOK_X"}}, "webhooks.headers.x: a variable must read"),
    ],
)
def test_what_is_wrong_with_the_section_is_one_line_that_names_the_file_and_the_key(
    section: object, message: str
) -> None:
    with pytest.raises(ManifestError, match=f"^{FILE}: {message}") as refused:
        read(FILE, section)
    assert "\n" not in str(refused.value)


def test_a_variable_that_is_not_set_or_fits_in_no_header_is_refused_and_not_shown() -> None:
    rules = read(FILE, {"headers": {"x": "${{ env.LG_WEBHOOK_X }}"}})
    with pytest.raises(
        ManifestError, match=f"^{FILE}: webhooks.headers.x: the variable LG_WEBHOOK_X is not set"
    ):
        rules.filled_in({})
    with pytest.raises(ManifestError, match="LG_WEBHOOK_X holds what no header can") as refused:
        rules.filled_in({"LG_WEBHOOK_X": "pass\nword"})
    assert "word" not in str(refused.value)


def settings(**environ: str) -> Settings:
    return read_settings({"DATABASE_URI": "postgresql:///x", **environ})


def test_the_settings_of_webhooks_are_read() -> None:
    found = settings(
        LANGGRAPH_WEBHOOKS='{"url": {}}',
        MATINS_WEBHOOK_SECRET=f"{SECRET} {SECRET}",
        MATINS_WEBHOOK_NETWORKS="10.0.0.0/8, fd00::/8 127.0.0.1",
    )
    assert found.webhooks == {"url": {}}
    assert found.webhook_secrets == (SECRET, SECRET)
    assert [str(network) for network in found.webhook_networks] == ["10.0.0.0/8", "fd00::/8", "127.0.0.1/32"]
    assert (settings().webhooks, settings().webhook_secrets, settings().webhook_networks) == (None, (), ())


@pytest.mark.parametrize(
    "secret", ["bWF0aW5z", "whsec_", "whsec_bWF0aW5z", "whsec_!!!!", f"{SECRET} x", "whsec_" + "A" * 200]
)
def test_a_secret_that_is_none_is_refused_and_not_shown(secret: str) -> None:
    with pytest.raises(SettingsError, match=r"^MATINS_WEBHOOK_SECRET must read whsec_") as refused:
        settings(MATINS_WEBHOOK_SECRET=secret)
    assert secret not in str(refused.value) or secret == "whsec_"


@pytest.mark.parametrize("networks", ["10.0.0.1/8", "corp.com", "10.0.0.0/33", "*"])
def test_what_is_no_network_is_refused(networks: str) -> None:
    with pytest.raises(
        SettingsError, match=r"^MATINS_WEBHOOK_NETWORKS must name networks such as 10.0.0.0/8"
    ):
        settings(MATINS_WEBHOOK_NETWORKS=networks)


@pytest.mark.parametrize("text", ["{", "[]", "5"])
def test_a_section_in_the_environment_that_is_no_object_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match=r"^LANGGRAPH_WEBHOOKS must be a JSON object"):
        settings(LANGGRAPH_WEBHOOKS=text)


# -- reports and tries


def test_the_first_retry_follows_within_seconds_and_a_deploy_of_five_minutes_is_met_within_one() -> None:
    for _ in range(100):
        pauses = [pause_s(tries) for tries in range(1, MOST_TRIES)]
        assert all(pause is not None for pause in pauses)
        waits = [pause for pause in pauses if pause is not None]
        assert waits[0] <= 10
        assert max(waits[:6]) <= 60
        assert sum(waits[:6]) >= 300
        assert timedelta(hours=24) < timedelta(seconds=sum(waits)) < timedelta(hours=32)
    assert MOST_TRIES == 10
    assert pause_s(MOST_TRIES) is None


def a_run(**changes: object) -> Run:
    now = datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC)
    run = Run(
        run_id=RunId(uuid4()),
        thread_id=ThreadId(uuid4()),
        assistant_id=AssistantId(uuid4()),
        cron_id=None,
        scheduled_for=None,
        status=RunStatus.SUCCESS,
        attempt=1,
        crashes=0,
        priority=0,
        multitask_strategy="enqueue",
        metadata=b'{"a": 1}',
        kwargs=b'{"webhook":"http://x/"}',
        temporary=False,
        stop=None,
        last_checkpoint_id=None,
        error=None,
        creator=b'{"identity":"alice"}',
        due_at=now,
        created_at=now,
        updated_at=now,
        started_at=now,
        ended_at=now,
    )
    return dataclasses.replace(run, **changes)  # type: ignore[arg-type]


def test_a_report_begins_with_the_run_as_the_api_shows_it() -> None:
    run = a_run()
    told = msgspec.json.decode(report(run, values=None, interrupts=None))
    shown = msgspec.json.decode(msgspec.json.encode(wire.run(run)))
    assert list(told.items())[: len(shown)] == list(shown.items())
    assert (told["values"], "error" in told, "__interrupt__" in told) == ({}, False, False)
    at = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert msgspec.json.decode(sent(report(run, values=None, interrupts=None), at)) == {
        **told,
        "webhook_sent_at": "2026-01-02T03:04:05.000000+00:00",
    }


@pytest.mark.parametrize(
    ("status", "tells_error", "tells_interrupt"),
    [
        (RunStatus.SUCCESS, False, True),
        (RunStatus.ERROR, True, False),
        (RunStatus.TIMEOUT, True, False),
        (RunStatus.INTERRUPTED, False, False),
    ],
)
def test_a_report_tells_what_a_failure_was_and_what_is_asked(
    status: RunStatus, tells_error: bool, tells_interrupt: bool
) -> None:
    error = b'{"error":"ValueError","message":"boom"}'
    told = msgspec.json.decode(
        report(
            a_run(status=status, error=error),
            values=b"[1]",
            interrupts=b'{"task":[{"value":{"q":1},"id":"i","ns":["x"]}],"other":[]}',
        )
    )
    assert told["values"] == [1]
    assert told.get("error") == (msgspec.json.decode(error) if tells_error else None)
    assert told.get("__interrupt__") == (
        [{"value": {"q": 1}, "id": "i", "response_schema": None}] if tells_interrupt else None
    )


def test_a_server_whose_headers_name_a_variable_that_is_not_set_does_not_start(tmp_path: Path) -> None:
    config = tmp_path / "langgraph.json"
    graphs = {"echo": f"{servers.ROOT}/examples/echo.py:graph"}
    section = {"headers": {"x": "${{ env.LG_WEBHOOK_NOPE }}"}}
    config.write_bytes(msgspec.json.encode({"graphs": graphs, "webhooks": section}))
    environ = {**os.environ, "DATABASE_URI": "postgresql://127.0.0.1:1/none"}
    for text, said in (
        ("", f"{config}: webhooks.headers.x: the variable LG_WEBHOOK_NOPE is not set"),
        ('{"url": 5}', "LANGGRAPH_WEBHOOKS: webhooks.url: must be an object, not a number"),
    ):
        ended = subprocess.run(
            [sys.executable, "-m", "matins", "serve", "--config", config, "--port", str(servers.free_port())],
            check=False,
            capture_output=True,
            text=True,
            env={**environ, "LANGGRAPH_WEBHOOKS": text},
            timeout=60,
        )
        assert (ended.returncode, ended.stderr.splitlines()[-1:]) == (2, [f"matins: {said}"])
