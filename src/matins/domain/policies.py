"""Policy: what a cron does when things are not as planned. All of it is ours: a plain client never needs one.

slots     misfire, grace_seconds, overlap, jitter_seconds, min_interval_seconds, condition, on_condition_error
spending  max_runs, max_run_seconds, budget_tokens, budget_usd, budget_window, on_budget
trouble   retry, pause_after_failures, on_interrupt
threads   context_policy, last_n

Each is put into effect where its matter is: this module says what there is, and what fits together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, Literal, TypeAlias

import msgspec

from matins.domain.errors import Invalid

Overlap: TypeAlias = Literal["skip", "queue_one", "cancel_previous", "allow"]
Window: TypeAlias = Literal["day", "month", "rolling"]
Context: TypeAlias = Literal["append", "last_n", "fresh", "fork"]

_OF_STRATEGY: Final[dict[str, Overlap]] = {
    "reject": "skip",
    "enqueue": "queue_one",
    "interrupt": "cancel_previous",
    "rollback": "cancel_previous",
}
"""What a `multitask_strategy` comes to for a cron on a thread."""


LONGEST_SECONDS: Final = 366 * 86400
_Seconds: TypeAlias = Annotated[float, msgspec.Meta(ge=0, le=LONGEST_SECONDS)]
_Count: TypeAlias = Annotated[int, msgspec.Meta(ge=1, le=2**53)]


class Retry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How often a run is tried again within its slot, and after how many seconds first; each wait is twice the last."""

    max: Annotated[int, msgspec.Meta(ge=1, le=100)]
    backoff: Annotated[float, msgspec.Meta(gt=0, le=86400)] = 1.0


class Answer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What becomes of a question that nobody answers: one of the two.

    `cancel_after`: that many seconds after it was asked, slots fire again and the question is dropped. `resume_with`:
    it is answered with this at once.
    """

    cancel_after: _Seconds | msgspec.UnsetType = msgspec.UNSET
    resume_with: Any = msgspec.UNSET


class Policy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What was given of a policy, and defaults for the rest. docs/crons.md says what each field does."""

    misfire: Literal["skip", "run_once", "run_all"] = "run_once"
    grace_seconds: _Seconds = 86400
    overlap: Overlap | None = None
    jitter_seconds: Annotated[float, msgspec.Meta(ge=0, le=86400)] = 0
    # Up to as long as the ledger is kept.
    min_interval_seconds: Annotated[float, msgspec.Meta(ge=0, le=90 * 86400)] = 0
    condition: Annotated[str, msgspec.Meta(min_length=1, max_length=500)] | None = None
    on_condition_error: Literal["run", "skip"] = "run"
    max_runs: _Count | None = None
    max_run_seconds: Annotated[float, msgspec.Meta(gt=0, le=LONGEST_SECONDS)] | None = None
    budget_tokens: _Count | None = None
    budget_usd: Annotated[float, msgspec.Meta(gt=0, le=1e9)] | None = None
    budget_window: Window = "day"
    on_budget: Literal["finish", "cancel"] = "finish"
    retry: Retry | None = None
    pause_after_failures: Annotated[int, msgspec.Meta(ge=1, le=1000)] | None = None
    on_interrupt: Literal["wait", "skip_next"] | Answer = "wait"
    context_policy: Context | None = None
    last_n: Annotated[int, msgspec.Meta(ge=1, le=100_000)] | None = None

    @property
    def context(self) -> Context:
        """What a run sees of its thread."""
        return self.context_policy or ("append" if self.last_n is None else "last_n")


DEFAULT: Final = Policy()

Given: TypeAlias = Mapping[str, Any]
"""The fields of a policy that somebody has given, and no others."""


def merged(sources: Sequence[tuple[str, Given]]) -> Given:
    """Give what was given, in several places perhaps, by the name of each; they may not differ.

    Raises: Invalid naming the field.
    """
    given: dict[str, Any] = {}
    said: dict[str, str] = {}
    for place, fields in sources:
        for name, value in fields.items():
            if name in given and given[name] != value:
                raise Invalid(f"policy.{name}: {said[name]} and {place} differ")
            given[name], said[name] = value, place
    return given


def read(given: Given) -> Policy:
    """Give the policy with its defaults; null is as if not given. Raises: Invalid naming the field."""
    try:
        policy = msgspec.convert({name: value for name, value in given.items() if value is not None}, Policy)
    except msgspec.ValidationError as unfit:
        raise Invalid(f"policy: {unfit}") from None
    if (policy.context == "last_n") != (policy.last_n is not None):
        raise Invalid("policy.last_n: goes with context_policy 'last_n', which says how many messages by it")
    answer = policy.on_interrupt
    if isinstance(answer, Answer) and (answer.cancel_after is msgspec.UNSET) == (
        answer.resume_with is msgspec.UNSET
    ):
        raise Invalid("policy.on_interrupt: name either `cancel_after` or `resume_with`")
    return policy


def overlap_of(policy: Policy, *, strategy: str | None, has_thread: bool) -> Overlap:
    """Give what a slot does that overlaps. `strategy` is the `multitask_strategy` that was given, if one was.

    Raises: Invalid when they differ, or cannot be.
    """
    if not has_thread:
        if policy.context != "append":
            raise Invalid(f"policy.context_policy: '{policy.context}' needs a cron on a thread")
        return policy.overlap or "allow"
    if strategy is not None and strategy not in _OF_STRATEGY:
        raise Invalid(f"multitask_strategy: '{strategy}' is none of {', '.join(_OF_STRATEGY)}")
    asked = None if strategy is None else _OF_STRATEGY[strategy]
    if policy.context != "fork" and policy.overlap == "allow":
        raise Invalid("policy.overlap: 'allow' cannot be for a cron on a thread, which has one run at a time")
    if policy.overlap is not None and asked is not None and policy.overlap != asked:
        raise Invalid(
            f"policy.overlap: '{policy.overlap}' and multitask_strategy '{strategy}', which is '{asked}', differ"
        )
    return policy.overlap or asked or "queue_one"
