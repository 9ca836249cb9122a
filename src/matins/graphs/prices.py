"""What a call of a model costs: by `prices` of langgraph.json, else by the table of genai-prices, which comes with it.

Nothing is asked of the network.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from matins.manifest.prices import Price

_MILLION: Final = 1_000_000


class Prices:
    """Prices by the name that a model reports of itself."""

    def __init__(self, own: Mapping[str, Price]) -> None:
        self._own: Final = own
        self._is_read = False

    def knows(self, model: str) -> bool:
        """Whether a price can be told at once; else the table is read first, which takes a moment: in a thread."""
        return not model or model in self._own or self._is_read

    def price(
        self, model: str, usage: Mapping[str, Any], *, input_tokens: int, output_tokens: int
    ) -> float | None:
        """Give what a call cost, in US dollars; None when the price of the model is not known.

        `usage` may say what of the input was read from a cache, which the table has a price for.
        """
        if (own := self._own.get(model)) is not None:
            return (own.input * input_tokens + own.output * output_tokens) / _MILLION
        if not model:
            return None
        details = usage.get("input_token_details") or {}
        price = _of_table(
            model,
            input_tokens=input_tokens,
            output_tokens=output_tokens,
            cache_read_tokens=details.get("cache_read"),
            cache_write_tokens=details.get("cache_creation"),
        )
        self._is_read = True
        return price


def _of_table(model: str, **usage: int | None) -> float | None:
    # Here, and not above: the table is not read where no cron calls a model.
    from genai_prices import Usage, calc_price  # noqa: PLC0415

    try:
        return float(calc_price(Usage(**usage), model_ref=model).total_price)
    except (LookupError, ValueError):
        return None
