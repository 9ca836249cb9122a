"""Where a webhook may lead on a server that was not configured for any: to what is public, and nowhere else."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

BLOCKED = "Webhook host blocked: "
REFUSED = {
    "http://127.0.0.1/": BLOCKED + "loopback IP range",
    "http://localhost:2024/": BLOCKED + "loopback IP range",
    "http://localhost./": BLOCKED,
    "https://[::1]/": BLOCKED + "loopback IP range",
    "http://[::ffff:127.0.0.1]/": BLOCKED + "loopback IP range",
    "http://[::ffff:7f00:1]/": BLOCKED + "loopback IP range",
    "http://127.1/": BLOCKED + "loopback IP range",
    "http://2130706433/": BLOCKED + "loopback IP range",
    "http://0x7f000001/": BLOCKED + "loopback IP range",
    "http://017700000001/": BLOCKED + "loopback IP range",
    "http://0177.0.0.1/": "Webhook is not a valid URL",
    "http://[64:ff9b::127.0.0.1]/": BLOCKED + "loopback IP range",
    "http://0/": BLOCKED + "unspecified IP range",
    "http://0.0.0.0/": BLOCKED + "unspecified IP range",
    "http://[::]/": BLOCKED + "unspecified IP range",
    "http://10.0.0.1/": BLOCKED + "private IP range",
    "http://172.31.255.255/": BLOCKED + "private IP range",
    "http://192.168.1.1:8080/x": BLOCKED + "private IP range",
    "http://100.100.100.200/": BLOCKED + "private IP range",
    "http://[fd00:ec2::254]/": BLOCKED + "private IP range",
    "http://[fec0::1]/": BLOCKED + "private IP range",
    "http://169.254.169.254/latest/meta-data/": BLOCKED + "link-local IP range",
    "http://[fe80::1]/": BLOCKED + "link-local IP range",
    "http://[::ffff:a9fe:a9fe]/": BLOCKED + "link-local IP range",
    "http://224.0.0.1/": BLOCKED + "multicast IP range",
    "http://[ff02::1]/": BLOCKED + "multicast IP range",
    "http://192.0.0.192/": BLOCKED + "reserved IP range",
    "http://255.255.255.255/": BLOCKED + "reserved IP range",
    "http://[2002:7f00:1::]/": BLOCKED + "reserved IP range",
    "http://[2001::1]/": BLOCKED + "reserved IP range",
    "http://[::127.0.0.1]/": BLOCKED + "reserved IP range",
    "http://[100::1]/": BLOCKED + "reserved IP range",
    "ftp://example.com/": BLOCKED + "scheme 'ftp' not allowed",
    "file:///etc/passwd": BLOCKED + "scheme 'file' not allowed",
    "javascript:alert(1)": BLOCKED + "scheme 'javascript' not allowed",
    "http://nobody.invalid/": BLOCKED + "DNS resolution failed",
    "http://a..b/": BLOCKED + "DNS resolution failed",
    "/relative": "Loopback webhooks (relative URLs and localhost) are disabled by default.",
    "relative": "Loopback webhooks (relative URLs and localhost) are disabled by default.",
    "//127.0.0.1/x": "Loopback webhooks (relative URLs and localhost) are disabled by default.",
    "http://user:password@1.1.1.1/": "Webhook must not hold a user name or a password",
    "http://user@1.1.1.1/": "Webhook must not hold a user name or a password",
    "http://１２７.0.0.1/": "Webhook is not a valid URL",
    "http://1.1.1.1:0/": "Webhook is not a valid URL",
    "http://1.1.1.1:65536/": "Webhook is not a valid URL",
    "http://1.1.1.1:x/": "Webhook is not a valid URL",
    "http:///x": "Webhook is not a valid URL",
    "http://exa mple.com/": "Webhook is not a valid URL",
    "http://%6cocalhost/": "Webhook is not a valid URL",
    "http://1.1.1.1\\@127.0.0.1/": "Webhook",
    "http://[fe80::1%25eth0]/": "Webhook is not a valid URL",
    "http://[::1/": "Webhook is not a valid URL",
    "http://1.1.1.1/\n": "Webhook is not a valid URL",
    f"http://{'a' * 64}.example.com/": BLOCKED + "DNS resolution failed",
    f"http://{'a.' * 200}com/": "Webhook is not a valid URL",
    f"http://1.1.1.1/{'a' * 65536}": "",
    " http://1.1.1.1/": "",
    "": "",
}


@pytest.mark.parametrize("url", REFUSED)
def test_a_webhook_that_leads_inside_or_nowhere_is_refused(api: httpx.Client, url: str) -> None:
    response = api.post("/runs", json={"assistant_id": "echo", "webhook": url})
    assert response.status_code == 422
    assert response.json()["detail"].startswith(REFUSED[url])


def test_it_is_refused_by_whatever_makes_a_run_or_a_cron(api: httpx.Client, thread_id: str) -> None:
    inside = {"assistant_id": "echo", "webhook": "http://169.254.169.254/"}
    cron = api.post(
        "/runs/crons", json={"assistant_id": "echo", "schedule": "0 0 1 1 *", "enabled": False}
    ).json()
    before = api.get(f"/threads/{thread_id}/runs").json()
    cases: list[tuple[str, str, Any]] = [
        *(
            ("POST", f"{place}/{end}", inside)
            for place in ("/runs", f"/threads/{thread_id}/runs")
            for end in ("wait", "stream")
        ),
        ("POST", f"/threads/{thread_id}/runs", inside),
        ("POST", "/runs/batch", [{"assistant_id": "echo"}, inside]),
        ("POST", "/runs/crons", {**inside, "schedule": "0 0 1 1 *"}),
        ("POST", f"/threads/{thread_id}/runs/crons", {**inside, "schedule": "0 0 1 1 *"}),
        ("PATCH", f"/runs/crons/{cron['cron_id']}", {"webhook": inside["webhook"]}),
    ]
    for method, path, body in cases:
        response = api.request(method, path, json=body)
        assert (path, response.status_code, response.json()["detail"]) == (
            path,
            422,
            "Webhook host blocked: link-local IP range",
        )
    assert api.get(f"/threads/{thread_id}/runs").json() == before
    for value in (None, 5, ["http://1.1.1.1/"]):
        assert api.post("/runs", json={**inside, "webhook": value}).status_code == 422


def test_a_public_address_is_taken(api: httpx.Client, thread_id: str) -> None:
    for url in ("http://1.1.1.1/hook?token=x", "https://[2606:4700::1111]:8443/"):
        response = api.post(
            f"/threads/{thread_id}/runs",
            json={"assistant_id": "echo", "webhook": url, "after_seconds": 3600},
        )
        assert (response.status_code, response.json()["kwargs"]["webhook"]) == (200, url)
    for run in api.get(f"/threads/{thread_id}/runs").json():
        api.delete(f"/threads/{thread_id}/runs/{run['run_id']}")
