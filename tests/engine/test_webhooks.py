from __future__ import annotations

import ssl
import subprocess
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from ipaddress import ip_network
from pathlib import Path
from typing import Any
from uuid import UUID

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from matins.domain.access import EVERYONE
from matins.domain.errors import Invalid
from matins.domain.ids import RunId, uuid7
from matins.domain.runs import Change
from matins.domain.webhooks import MOST_TRIES
from matins.engine.streams.wake import Wake
from matins.engine.webhooks.courier import AT_ONCE_PER_HOST, Courier
from matins.engine.webhooks.guard import Guard, look_up
from matins.engine.webhooks.sender import NotDelivered, Sender
from matins.manifest.webhooks import Webhooks, read
from matins.storage import queue, webhooks
from matins.storage.pool import Pool
from matins.storage.webhooks import Claimed
from tests.support import rows, sinks
from tests.support.engine import HeldLease, running, until
from tests.support.sinks import Sink

pytestmark = pytest.mark.anyio

SECRETS = (
    "whsec_bWF0aW5zLW1hdGlucy1tYXRpbnMtbWF0aW5z",
    "whsec_dGhlIG9uZSB0aGF0IGNvbWVzIGFmdGVyd2FyZHM=",
)
LOCAL = Webhooks(allows_loopback=True)
FILE = Path("langgraph.json")


@pytest.fixture
def sink() -> Iterator[Sink]:
    with sinks.start() as running_sink:
        yield running_sink


class Names:
    """A name server: gives each name's addresses, one answer after another, the last one ever after."""

    def __init__(self, **answers: list[list[str]]) -> None:
        self.asked: list[str] = []
        self._answers = answers

    def __call__(self, host: str, port: int) -> list[str]:
        self.asked.append(host)
        answers = self._answers[host.removesuffix(".").partition(".")[0]]
        return answers.pop(0) if len(answers) > 1 else answers[0]


def claimed(url: str, payload: bytes = b'{"a":1}') -> Claimed:
    now = datetime.now(UTC)  # noqa: TID251 - what the database says
    return Claimed(uuid7(), RunId(uuid7()), None, url, "host", payload, 1, now)


async def refusal(guard: Guard, url: str) -> str | None:
    try:
        await guard.check([url])
    except Invalid as refused:
        return str(refused)
    return None


# -- where a webhook may lead


async def test_what_the_configuration_does_not_allow_is_refused_without_a_look_up() -> None:
    names = Names()
    section = {
        "url": {"allowed_domains": ["hooks.com", "*.corp.com", "1.1.1.1"], "allowed_ports": [443, 8443],
                "max_url_length": 60}
    }  # fmt: skip
    guard = Guard(read(FILE, section), look_up=names)
    assert {
        url: await refusal(guard, url)
        for url in (
            "http://hooks.com/",
            "https://hooks.com:80/",
            "https://corp.com/",
            "https://evilcorp.com/",
            "https://a.corp.com.evil.com/",
            "https://hooks.com.evil.com/",
            "https://1.1.1.2/",
            "https://hooks.com/" + "x" * 60,
        )
    } == {
        "http://hooks.com/": "Webhook must use https",
        "https://hooks.com:80/": "Webhook host blocked: port 80 not allowed",
        "https://corp.com/": "Webhook host blocked: domain 'corp.com' not allowed",
        "https://evilcorp.com/": "Webhook host blocked: domain 'evilcorp.com' not allowed",
        "https://a.corp.com.evil.com/": "Webhook host blocked: domain 'a.corp.com.evil.com' not allowed",
        "https://hooks.com.evil.com/": "Webhook host blocked: domain 'hooks.com.evil.com' not allowed",
        "https://1.1.1.2/": "Webhook host blocked: domain '1.1.1.2' not allowed",
        "https://hooks.com/" + "x" * 60: "Webhook URL is longer than 60 characters",
    }
    assert names.asked == []


async def test_what_it_allows_passes_however_it_is_written() -> None:
    section = {"url": {"allowed_domains": ["hooks.com", "*.corp.com", "xn--bcher-kva.de"]}}
    public = [["1.1.1.1"]]
    names = Names(hooks=public, a=public, **{"xn--bcher-kva": public})
    guard = Guard(read(FILE, section), look_up=names)
    await guard.check(
        [
            *(
                "https://HOOKS.com/x?y=z",
                "https://hooks.com.:8443/",
                "https://a.corp.com/",
                "https://a.b.corp.com/",
            ),
            *("https://bücher.de/", "https://xn--bcher-kva.de/", None),
        ]
    )


async def test_an_allowed_name_that_leads_inside_is_refused_and_a_network_that_is_named_is_not() -> None:
    names = Names(sink=[["172.18.0.3"]], both=[["1.1.1.1", "10.0.0.1"]])
    rules = read(FILE, {"url": {"require_https": False, "allowed_domains": ["sink", "both.com"]}})
    guard = Guard(rules, look_up=names)
    assert await refusal(guard, "http://sink:8080/") == "Webhook host blocked: private IP range"
    assert await refusal(guard, "http://both.com/") == "Webhook host blocked: private IP range"
    guard = Guard(rules, look_up=names, networks=[ip_network("172.16.0.0/12")])
    assert await refusal(guard, "http://sink:8080/") is None
    assert await refusal(guard, "http://both.com/") == "Webhook host blocked: private IP range"


async def test_relative_urls_are_refused_with_and_without_loopback() -> None:
    assert str(await refusal(Guard(LOCAL), "/hook")).startswith("Webhook must be a URL in full")
    assert str(await refusal(Guard(Webhooks()), "/hook")).startswith("Loopback webhooks")


async def test_a_name_server_that_does_not_answer_holds_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("matins.engine.webhooks.guard.LOOKUP_SECONDS", 0.05)
    answers = threading.Event()

    def slow(host: str, port: int) -> list[str]:
        answers.wait(60)
        return ["1.1.1.1"]

    guard = Guard(Webhooks(), look_up=slow)
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await anyio.lowlevel.checkpoint()
            ticks += 1

    try:
        async with anyio.create_task_group() as group:
            group.start_soon(tick)
            assert await refusal(guard, "http://slow.com/") == "Webhook host blocked: DNS resolution failed"
            group.cancel_scope.cancel()
    finally:
        answers.set()
    assert ticks > 10


async def test_many_urls_of_a_host_are_looked_up_once() -> None:
    names = Names(hooks=[["1.1.1.1"]])
    await Guard(Webhooks(), look_up=names).check(f"http://hooks.com/{n}" for n in range(1000))
    assert names.asked == ["hooks.com"]


# -- one try


async def test_the_address_that_was_checked_is_the_one_that_is_called(sink: Sink) -> None:
    """The name leads to the sink when it is checked, and elsewhere ever after."""
    names = Names(rebinding=[["127.0.0.1"], ["127.0.0.2"]])
    sender = Sender(Guard(LOCAL, look_up=names), headers={}, secrets=())
    await sender.send(claimed(sink.url("/hook", host="rebinding.test")))
    assert names.asked == ["rebinding.test"]
    [received] = sink.of("/hook")
    assert received.headers["host"] == f"rebinding.test:{sink.port}"


async def test_a_name_that_leads_inside_by_now_is_not_called(sink: Sink) -> None:
    names = Names(rebinding=[["1.1.1.1"], ["127.0.0.1"]])
    guard = Guard(Webhooks(), look_up=names)
    url = sink.url("/hook", host="rebinding.test")
    assert await refusal(guard, url) is None
    with pytest.raises(NotDelivered, match="loopback IP range"):
        await Sender(guard, headers={}, secrets=()).send(claimed(url))
    assert sink.received == []


async def test_the_next_address_is_tried_when_nothing_listens_at_the_first(sink: Sink) -> None:
    names = Names(two=[["::1", "127.0.0.1"]])
    await Sender(Guard(LOCAL, look_up=names), headers={}, secrets=()).send(
        claimed(sink.url("/hook", host="two.test"))
    )
    assert len(sink.of("/hook")) == 1


async def test_no_proxy_of_the_environment_is_used(sink: Sink, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    await Sender(Guard(LOCAL), headers={}, secrets=()).send(claimed(sink.url("/hook")))
    assert len(sink.of("/hook")) == 1


async def test_a_report_is_signed_by_each_secret_and_by_no_other(sink: Sink) -> None:
    await Sender(Guard(LOCAL), headers={"X-Mine": "a"}, secrets=SECRETS).send(
        claimed(sink.url("/hook"), b'{"a":"\xc3\xbc"}')
    )
    [received] = sink.of("/hook")
    assert received.headers["x-mine"] == "a"
    assert len(received.headers["webhook-signature"].split()) == len(SECRETS)
    for secret in SECRETS:
        assert Webhook(secret).verify(received.raw, received.headers)["a"] == "ü"
    with pytest.raises(WebhookVerificationError):
        Webhook(b"another secret of some length").verify(received.raw, received.headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRETS[0]).verify(received.raw.replace(b"a", b"b", 1), received.headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRETS[0]).verify(received.raw, {**received.headers, "webhook-id": "other"})


async def test_without_a_secret_a_report_has_an_id_and_no_signature(sink: Sink) -> None:
    await Sender(Guard(LOCAL), headers={}, secrets=()).send(claimed(sink.url("/hook")))
    [received] = sink.of("/hook")
    assert "webhook-id" in received.headers
    assert "webhook-signature" not in received.headers


async def test_a_sink_that_hangs_is_given_up(sink: Sink, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("matins.engine.webhooks.sender.TRY_SECONDS", 0.2)
    sink.behaviour["/hook"] = "hang"
    with pytest.raises(NotDelivered, match="no answer within"):
        await Sender(Guard(LOCAL), headers={}, secrets=()).send(claimed(sink.url("/hook")))


async def test_nothing_that_a_sink_says_is_kept(sink: Sink) -> None:
    for behaviour in (500, "babble"):
        sink.behaviour["/hook"] = behaviour
        with pytest.raises(NotDelivered) as failed:
            await Sender(Guard(LOCAL), headers={}, secrets=()).send(claimed(sink.url("/hook")))
        assert "secret" not in str(failed.value)


# -- over HTTPS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate of sink.test, and its key, in one file."""
    folder = tmp_path_factory.mktemp("tls")
    made = subprocess.run(
        [
            *(
                "openssl",
                "req",
                "-x509",
                "-newkey",
                "rsa:2048",
                "-nodes",
                "-days",
                "2",
                "-subj",
                "/CN=sink.test",
            ),
            *("-addext", "subjectAltName=DNS:sink.test", "-keyout", folder / "key", "-out", folder / "cert"),
        ],
        check=False,
        capture_output=True,
    )
    assert made.returncode == 0, made.stderr
    both = folder / "both.pem"
    both.write_bytes((folder / "key").read_bytes() + (folder / "cert").read_bytes())
    return both


@pytest.fixture
def secure(certificate: Path) -> Iterator[Sink]:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)
    with sinks.start(tls=tls) as running_sink:
        yield running_sink


async def test_the_certificate_is_asked_for_the_name_and_not_for_the_address(
    secure: Sink, certificate: Path
) -> None:
    names = Names(sink=[["127.0.0.1"]], other=[["127.0.0.1"]])
    trusting = ssl.create_default_context(cafile=str(certificate))
    sender = Sender(Guard(LOCAL, look_up=names), headers={}, secrets=(), tls=trusting)
    for host in ("sink.test", "sink.test."):
        await sender.send(claimed(secure.url("/hook", host=host, scheme="https")))
    assert [each.headers["host"] for each in secure.of("/hook")] == [f"sink.test:{secure.port}"] * 2
    for host in ("other.test", "127.0.0.1"):
        with pytest.raises(NotDelivered, match="CERTIFICATE_VERIFY_FAILED"):
            await Sender(
                Guard(LOCAL, look_up=names if host == "other.test" else look_up),
                headers={},
                secrets=(),
                tls=trusting,
            ).send(claimed(secure.url("/hook", host=host, scheme="https")))
    assert len(secure.received) == 2


async def test_a_certificate_that_nobody_vouches_for_is_refused(secure: Sink) -> None:
    sender = Sender(Guard(LOCAL, look_up=Names(sink=[["127.0.0.1"]])), headers={}, secrets=())
    with pytest.raises(NotDelivered, match="CERTIFICATE_VERIFY_FAILED"):
        await sender.send(claimed(secure.url("/hook", host="sink.test", scheme="https")))
    assert secure.received == []


# -- all that is due


async def reported(pool: Pool, url: str) -> RunId:
    """Let a run with that webhook end."""
    async with pool.transaction() as conn:
        held = await rows.running(conn)
        await conn.execute(
            "UPDATE matins.run SET kwargs = $2 WHERE run_id = $1",
            held.run_id,
            b'{"webhook":"%s"}' % url.encode(),
        )
        await queue.settle(conn, held, queue.End(Change.SUCCEEDED, values=b'{"x":1}'))
    return held.run_id


async def delivery(pool: Pool, run_id: RunId) -> Any:
    async with pool.connection() as conn:
        return await conn.fetchrow("SELECT * FROM matins.webhook_delivery WHERE run_id = $1", run_id)


@asynccontextmanager
async def delivering(pool: Pool, *, is_held: bool = True, delivers: bool = True) -> AsyncIterator[Wake]:
    """Run a courier alone; gives what wakes it."""
    held = HeldLease()
    held.is_held = is_held
    due = Wake()
    courier = Courier(
        pool=pool,
        sender=Sender(Guard(LOCAL), headers={}, secrets=()),
        lease=held,  # type: ignore[arg-type]
        wake=due,
        delivers=delivers,
    )
    async with running(courier):
        yield due


async def is_so(pool: Pool, run_id: RunId, what: Callable[[Any], Any]) -> Any:
    async def look() -> Any:
        row = await delivery(pool, run_id)
        return row if what(row) else None

    return await until(look, 30)


async def test_two_nodes_deliver_each_report_once(pool: Pool, sink: Sink) -> None:
    runs = [await reported(pool, sink.url("/hook")) for _ in range(40)]
    async with delivering(pool), delivering(pool):
        for run_id in runs:
            await is_so(pool, run_id, lambda row: row["delivered_at"])
    assert len(sink.of("/hook")) == len({each.id for each in sink.of("/hook")}) == 40


async def test_a_node_without_a_lease_delivers_nothing(pool: Pool, sink: Sink) -> None:
    run_id = await reported(pool, sink.url("/hook"))
    async with delivering(pool, is_held=False) as due:
        due()
        witness = await reported(pool, sink.url("/witness"))
        async with delivering(pool):
            await is_so(pool, run_id, lambda row: row["delivered_at"])
            await is_so(pool, witness, lambda row: row["delivered_at"])
    assert len(sink.received) == 2, "each by the node that has its lease"


async def test_a_claim_that_nobody_follows_up_runs_out(pool: Pool, sink: Sink) -> None:
    run_id = await reported(pool, sink.url("/hook"))
    async with pool.transaction() as conn:
        [lost] = await webhooks.claim(conn, {"127.0.0.1": 4})
        assert await webhooks.claim(conn, {"127.0.0.1": 4}) == []
        assert await webhooks.due_hosts(conn) == []
    assert (await delivery(pool, run_id))["next_attempt_at"] > lost.claimed_at
    async with pool.connection() as conn:
        await conn.execute("UPDATE matins.webhook_delivery SET next_attempt_at = matins.now()")
    async with delivering(pool):
        found = await is_so(pool, run_id, lambda row: row["delivered_at"])
    assert found["attempts"] == 2
    assert [UUID(each.id) for each in sink.of("/hook")] == [lost.delivery_id]


async def test_when_nothing_is_known_of_the_last_try_it_is_dead(pool: Pool, sink: Sink) -> None:
    run_id = await reported(pool, sink.url("/hook"))
    async with pool.connection() as conn:
        await conn.execute("UPDATE matins.webhook_delivery SET attempts = $1", MOST_TRIES)
    async with delivering(pool):
        found = await is_so(pool, run_id, lambda row: row["dead_at"])
    assert found["last_error"] == "nothing is known of the last try"
    assert sink.received == []


async def test_where_webhooks_are_disabled_nothing_is_sent_until_they_are_not(pool: Pool, sink: Sink) -> None:
    run_id = await reported(pool, sink.url("/hook"))
    async with delivering(pool, delivers=False):
        found = await is_so(pool, run_id, lambda row: row["dead_at"])
    assert found["last_error"] == "webhooks are disabled"
    assert sink.received == []
    await pool.run(lambda conn: webhooks.replay(conn, found["delivery_id"], scope=EVERYONE))
    async with delivering(pool):
        await is_so(pool, run_id, lambda row: row["delivered_at"])
    assert len(sink.of("/hook")) == 1


async def test_a_backlog_of_one_host_does_not_stand_before_another(pool: Pool, sink: Sink) -> None:
    for _ in range(100):
        await reported(pool, sink.url("/hang", host="localhost"))
    sink.behaviour["/hang"] = "hang"
    async with delivering(pool):
        await anyio.to_thread.run_sync(sink.wait_for, "/hang", AT_ONCE_PER_HOST)
        run_id = await reported(pool, sink.url("/hook"))
        await is_so(pool, run_id, lambda row: row["delivered_at"])
        sink.let_go.set()
