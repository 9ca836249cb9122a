from __future__ import annotations

from uuid import uuid4

import httpx
import pytest

ECHO = "046b5dc7-2108-582c-9c6c-31d556d138f0"


def test_a_cron_on_a_thread_has_the_keys_of_the_contract(api: httpx.Client, thread_id: str) -> None:
    body = {
        "assistant_id": "echo",
        "schedule": "27 15 * * *",
        "input": {"messages": []},
        "metadata": {"m": 1},
        "own": 5,
    }
    response = api.post(f"/threads/{thread_id}/runs/crons", json=body)
    assert response.status_code == 200
    cron = response.json()
    assert list(cron) == [
        "cron_id",
        "assistant_id",
        "thread_id",
        "user_id",
        "end_time",
        "schedule",
        "timezone",
        "payload",
        "next_run_date",
        "metadata",
        "on_run_completed",
        "enabled",
        "created_at",
        "updated_at",
        "policy",
    ]
    assert cron["payload"] == {
        **body,
        "assistant_id": ECHO,
        "config": {"configurable": {"cron_id": cron["cron_id"]}},
    }
    assert (cron["assistant_id"], cron["thread_id"], cron["user_id"]) == (ECHO, thread_id, "")
    assert cron["next_run_date"].endswith("T15:27:00+00:00")
    assert cron["on_run_completed"] is None
    assert api.get(f"/runs/crons/{cron['cron_id']}").json() == cron
    assert api.delete(f"/runs/crons/{cron['cron_id']}").status_code == 204
    assert api.get(f"/runs/crons/{cron['cron_id']}").status_code == 404
    assert api.delete(f"/runs/crons/{cron['cron_id']}").status_code == 404


def test_an_assistant_alone_makes_no_cron(api: httpx.Client, thread_id: str) -> None:
    for path in (f"/threads/{thread_id}/runs/crons", "/runs/crons"):
        response = api.post(path, json={"assistant_id": "echo"})
        assert (response.status_code, response.json()["detail"]) == (422, '"schedule" is a required property')


def test_a_cron_is_changed_part_by_part(api: httpx.Client) -> None:
    made = api.post(
        "/runs/crons",
        json={
            "assistant_id": "echo",
            "schedule": "0 0 1 1 *",
            "end_time": "2100-01-01T00:00:00+00:00",
            "enabled": False,
        },
    ).json()
    assert (made["thread_id"], made["on_run_completed"], made["enabled"]) == (None, "delete", False)
    place = f"/runs/crons/{made['cron_id']}"
    changed = api.patch(
        place, json={"schedule": "0 0 2 1 *", "timezone": "Europe/Berlin", "input": {"x": 1}}
    ).json()
    assert (changed["schedule"], changed["timezone"]) == ("0 0 2 1 *", "Europe/Berlin")
    assert changed["payload"] == {
        **made["payload"],
        "schedule": "0 0 2 1 *",
        "timezone": "Europe/Berlin",
        "input": {"x": 1},
    }
    assert changed["payload"]["config"]["configurable"]["cron_id"] == made["cron_id"]
    assert changed["end_time"] == made["end_time"]
    ended = api.patch(place, json={"end_time": None, "enabled": True, "assistant_id": str(uuid4())}).json()
    assert ended["end_time"] is None
    assert ended["payload"] == {**changed["payload"], "end_time": None, "enabled": True}
    for refused in ({"schedule": ""}, {"schedule": None}, {"timezone": ""}, {"end_time": "bogus"}):
        assert api.patch(place, json=refused).status_code == 422
    empty = api.patch(place, json={})
    assert (empty.status_code, empty.json()["detail"]) == (400, "Request body cannot be empty")
    assert api.patch(f"/runs/crons/{uuid4()}", json={"enabled": True}).status_code == 404


def test_crons_are_searched_and_counted(api: httpx.Client, thread_id: str) -> None:
    made = [
        api.post(
            f"/threads/{thread_id}/runs/crons", json={"assistant_id": "echo", "schedule": "0 0 1 1 *"}
        ).json()
        for _ in range(3)
    ]
    page = api.post("/runs/crons/search", json={"thread_id": thread_id, "limit": 2, "select": ["cron_id"]})
    assert page.json() == [{"cron_id": each["cron_id"]} for each in made[:0:-1]]
    assert (page.headers["x-pagination-total"], page.headers["x-pagination-next"]) == ("3", "2")
    assert api.post("/runs/crons/count", json={"thread_id": thread_id}).json() == 3
    assert api.post("/runs/crons/search", json={"thread_id": thread_id, "enabled": False}).json() == []
    api.delete(f"/threads/{thread_id}")
    assert api.post("/runs/crons/count", json={"thread_id": thread_id}).json() == 0


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"schedule": "bogus"}, 422),
        ({"schedule": "*/30 * * * * *"}, 422),
        ({"schedule": "0 0 31 2 *"}, 422),
        ({"schedule": ""}, 422),
        ({"schedule": 5}, 422),
        ({"timezone": "Bogus/Zone"}, 422),
        ({"timezone": ""}, 422),
        ({"end_time": "bogus"}, 422),
        ({"end_time": "2001-01-01T00:00:00+00:00"}, 422),
        ({"end_time": None}, 422),
        ({"assistant_id": "nope"}, 422),
        ({"assistant_id": str(uuid4())}, 404),
        ({"multitask_strategy": "zzz"}, 422),
        ({"config": {"recursion_limit": 0}}, 422),
        ({"stream_mode": "zzz"}, 422),
        ({"on_run_completed": "zzz"}, 422),
        ({"webhook": "ftp://somewhere"}, 422),
    ],
)
def test_what_makes_no_sense_is_refused(api: httpx.Client, change: dict[str, object], status: int) -> None:
    response = api.post("/runs/crons", json={"assistant_id": "echo", "schedule": "0 0 1 1 *", **change})
    assert response.status_code == status
    assert isinstance(response.json()["detail"], str)


def test_a_cron_on_no_thread_is_refused(api: httpx.Client) -> None:
    nobody = uuid4()
    response = api.post(
        f"/threads/{nobody}/runs/crons", json={"assistant_id": "echo", "schedule": "0 0 1 1 *"}
    )
    assert response.status_code == 404
    assert response.json()["detail"].startswith(f"Thread with ID '{nobody}' not found.")
