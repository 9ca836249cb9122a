"""What a cron's run spends: every call of a model is counted as it ends, wherever in the graph it is made.

LangChain tells its callbacks of a call in a node, a subgraph, a tool or a retry alike; what calls a model without
LangChain is not seen, and a model that reports no tokens has used none here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import anyio
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.outputs import LLMResult

from matins import telemetry
from matins.domain.runs import StopReason
from matins.graphs.prices import Prices
from matins.workers.protocol import Execute, Spent

PATIENCE_SECONDS: Final = 10.0
"""How long the end of a run may wait for the prices of its calls."""


class BudgetExceeded(RuntimeError):
    """The run may spend no more: its cron's budget is used up."""

    def __init__(self) -> None:
        super().__init__("The budget of its cron is used up: no further call of a model is made.")


@dataclass(frozen=True, slots=True)
class _Call:
    """What a model reports of a call."""

    model: str
    usage: Mapping[str, Any]
    input_tokens: int
    output_tokens: int
    tokens: int

    @classmethod
    def of(cls, response: LLMResult) -> _Call:
        usage, model = _usage(response)
        into = _count(usage, "input_tokens", "prompt_tokens")
        out = _count(usage, "output_tokens", "completion_tokens")
        return cls(model, usage, into, out, max(_count(usage, "total_tokens"), into + out))


class Meter(BaseCallbackHandler):
    """Counts one attempt's calls and tells of each by `tell`; refuses them when its allowance is used up.

    Calls may end in any thread. `ask_to_stop` is called in the loop that made the meter.
    """

    run_inline = True  # in the very thread and order of the calls
    raise_error = True  # a refusal is felt by whoever calls the model

    def __init__(
        self,
        order: Execute,
        *,
        prices: Prices,
        tell: Callable[[Spent], None],
        ask_to_stop: Callable[[StopReason], None],
    ) -> None:
        self._order: Final = order
        self._prices: Final = prices
        self._tell: Final = tell
        self._ask_to_stop: Final = ask_to_stop
        self._loop: Final = asyncio.get_running_loop()
        self._unpriced = 0
        self._priced: Final = asyncio.Event()
        self._tokens = 0
        self._usd = 0.0

    def on_chat_model_start(self, *_: Any, **__: Any) -> None:
        """Refuse the call when nothing is left."""
        self._refuse()

    def on_llm_start(self, *_: Any, **__: Any) -> None:
        """Refuse the call when nothing is left."""
        self._refuse()

    def on_llm_end(self, response: LLMResult, **_: Any) -> None:
        """Count the call."""
        try:
            call = _Call.of(response)
            if call.tokens == 0 or self._prices.knows(call.model):
                self._spend(call, self._known(call))
                return
        except Exception:  # noqa: BLE001 - a wall: what models report is as it is, and must not end a run
            telemetry.log().exception(telemetry.LOOP_FAILED, run_id=str(self._order.run_id))
            return
        self._tokens += call.tokens
        self._unpriced += 1
        self._loop.call_soon_threadsafe(self._price_later, call)

    async def settled(self) -> None:
        """Wait until all that was counted is told; but not for ever, for the threads may be the user's."""
        with anyio.move_on_after(PATIENCE_SECONDS):
            while self._unpriced:
                self._priced.clear()
                await self._priced.wait()

    def _price_later(self, call: _Call) -> None:
        """Have a call priced in a thread: for the first that the table is asked about it is read."""
        pricing = self._loop.run_in_executor(None, self._price, call)

        def priced(done: asyncio.Future[float | None]) -> None:
            self._tokens -= call.tokens
            usd = None if done.cancelled() or done.exception() else done.result()
            self._spend(call, usd)
            self._unpriced -= 1
            self._priced.set()

        pricing.add_done_callback(priced)

    def _known(self, call: _Call) -> float | None:
        try:
            return self._price(call)
        except Exception:  # noqa: BLE001 - a wall: what the table makes of a report; the tokens count all the same
            return None

    def _price(self, call: _Call) -> float | None:
        if call.tokens == 0:
            return 0.0
        return self._prices.price(
            call.model, call.usage, input_tokens=call.input_tokens, output_tokens=call.output_tokens
        )

    def _spend(self, call: _Call, usd: float | None) -> None:
        self._tokens += call.tokens
        self._usd += usd or 0.0
        order = self._order
        spent = Spent(
            order.run_id,
            order.attempt,
            call.input_tokens,
            call.output_tokens,
            call.tokens,
            usd,
            call.model,
        )
        self._loop.call_soon_threadsafe(self._tell, spent)

    def _refuse(self) -> None:
        order = self._order
        if (order.tokens_left is not None and self._tokens >= order.tokens_left) or (
            order.usd_left is not None and self._usd >= order.usd_left
        ):
            # Also told to stop: code that tries again whatever is raised would do so for ever.
            self._loop.call_soon_threadsafe(partial(self._ask_to_stop, StopReason.BUDGET))
            raise BudgetExceeded


def _usage(response: LLMResult) -> tuple[Mapping[str, Any], str]:
    """Give what the model reports of a call, and its name: with the message, or beside it as older models do."""
    output = response.llm_output or {}
    said = output.get("token_usage") or output.get("usage") or {}
    model = output.get("model_name") or output.get("model") or ""
    for generation in response.generations[0] if response.generations else []:
        message = getattr(generation, "message", None)
        of_message = getattr(message, "usage_metadata", None)
        metadata = getattr(message, "response_metadata", None) or {}
        model = metadata.get("model_name") or metadata.get("model") or model
        if of_message:
            said = of_message
            break
    return (said if isinstance(said, Mapping) else {}), str(model)


def _count(usage: Mapping[str, Any], *names: str) -> int:
    for name in names:
        if isinstance(number := usage.get(name), int | float) and number > 0:
            return int(number)
    return 0
