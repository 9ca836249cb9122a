"""Which exceptions may pass by themselves: time-outs, broken connections, and what a server answers with 429 or 5xx.

Told by the type and by the status that clients of models put on their exceptions; a bad key or a bad input is not of
them.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Final

from matins.graphs.metering import BudgetExceeded

_PASSING: Final = (TimeoutError, ConnectionError)
_NAMES: Final = frozenset(
    {"APIConnectionError", "APITimeoutError", "TimeoutException", "TransportError", "RateLimitError", "ServerError",
    "ServiceUnavailable", "ResourceExhausted", "DeadlineExceeded", "InternalServerError", "OverloadedError",
    "ThrottlingException"}
)  # fmt: skip
_STATUSES: Final = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS})
_DEEPEST: Final = 10


def is_transient(raised: BaseException) -> bool:
    """Whether the same call may succeed a moment later; asked of the exception, then of what caused it."""
    one: BaseException | None = raised
    for _ in range(_DEEPEST):
        if one is None or isinstance(one, BudgetExceeded):
            return False
        status = _status(one)
        if status is not None:
            return status in _STATUSES or HTTPStatus.INTERNAL_SERVER_ERROR <= status < 600
        if isinstance(one, _PASSING) or any(of.__name__ in _NAMES for of in type(one).__mro__):
            return True
        one = one.__cause__
    return False


def _status(raised: BaseException) -> int | None:
    """Give the HTTP status that an exception bears: its own, or its response's."""
    for bearer in (raised, getattr(raised, "response", None)):
        for name in ("status_code", "status", "http_status", "code"):
            status = getattr(bearer, name, None)
            if isinstance(status, int) and not isinstance(status, bool) and 100 <= status < 600:
                return int(status)
    return None
