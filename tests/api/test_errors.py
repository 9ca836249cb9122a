from __future__ import annotations

from uuid import uuid4

import httpx
import pytest
from starlette.types import Receive, Scope, Send

from matins.api.body import TooLarge
from matins.api.errors import Wall
from matins.domain import errors
from matins.domain.schedules import InvalidSchedule
from tests.support.ports import listening
from tests.wire.compatibility import covers

pytestmark = pytest.mark.anyio

CASES = [
    (errors.ThreadNotFound(uuid4()), 404, "not_found"),
    (errors.ThreadBusy(), 409, "thread_busy"),
    (errors.AlreadyExists("taken"), 409, "already_exists"),
    (errors.Invalid("no"), 422, "invalid"),
    (errors.BadRequest("no"), 400, "bad_request"),
    (InvalidSchedule("x", "why"), 422, "invalid_schedule"),
    (TooLarge(), 413, "too_large"),
    (errors.Forbidden("no"), 403, "forbidden"),
    (errors.Unauthenticated("who"), 401, "unauthenticated"),
    (errors.Unavailable("away"), 503, "unavailable"),
]


def failing(error: Exception) -> Wall:
    async def app(_scope: Scope, _receive: Receive, _send: Send) -> None:
        raise error

    return Wall(app)


@covers("Refusal", "detail", "code", "503")
@pytest.mark.parametrize(("error", "status", "code"), CASES, ids=lambda each: type(each).__name__)
async def test_each_refusal_has_its_status(error: errors.Error, status: int, code: str) -> None:
    async with listening(failing(error)) as url, httpx.AsyncClient() as client:
        response = await client.get(url)
    assert response.status_code == status
    assert response.json() == {"detail": str(error), "code": code}
    assert response.headers.get("retry-after") == ("1" if status == 503 else None)


@covers("Refusal", "500")
@covers("Defects", "a 500 resets the connection")
@pytest.mark.parametrize("error", [RuntimeError("secret"), errors.LeaseLost("secret"), KeyError("secret")])
async def test_a_defect_says_nothing_and_keeps_the_connection(
    error: Exception, capsys: pytest.CaptureFixture[str]
) -> None:
    async with listening(failing(error)) as url, httpx.AsyncClient() as client:
        for _ in range(2):
            response = await client.get(url, headers={"x-request-id": "mine"})
            assert response.status_code == 500
            assert response.json() == {"detail": "Internal Server Error", "code": "internal"}
            assert "connection" not in response.headers
            assert response.headers["x-request-id"] == "mine"
    assert "secret" in "".join(capsys.readouterr())
