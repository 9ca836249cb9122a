"""Policy: what a cron does when things are not as planned. All of it is ours: a plain client never needs one.

misfire        what becomes of slots that nobody was there to fire in time
grace_seconds  how old a slot may be to be caught up
overlap        what a slot does whose cron still has a run under way, or whose thread is busy
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, Literal, TypeAlias

import msgspec

from matins.domain.errors import Invalid

Misfire: TypeAlias = Literal["skip", "run_once", "run_all"]
Overlap: TypeAlias = Literal["skip", "queue_one", "cancel_previous", "allow"]

_OF_STRATEGY: Final[dict[str, Overlap]] = {
    "reject": "skip",
    "enqueue": "queue_one",
    "interrupt": "cancel_previous",
    "rollback": "cancel_previous",
}
"""What a `multitask_strategy` comes to for a cron on a thread."""


class Policy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`misfire`: `skip` missed slots, run the newest of them (`run_once`), or each (`run_all`).

    `grace_seconds`: only what is not older is run. `overlap`: `skip` the slot, wait with at most one run in the queue
    (`queue_one`), stop the cron's runs that are under way (`cancel_previous`), or start beside them (`allow`). None: as
    `multitask_strategy` says on a thread, `allow` without one.
    """

    misfire: Misfire = "run_once"
    grace_seconds: Annotated[float, msgspec.Meta(ge=0, le=366 * 86400)] = 86400
    overlap: Overlap | None = None


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
        return msgspec.convert({name: value for name, value in given.items() if value is not None}, Policy)
    except msgspec.ValidationError as unfit:
        raise Invalid(f"policy: {unfit}") from None


def overlap_of(policy: Policy, *, strategy: str | None, has_thread: bool) -> Overlap:
    """Give what a slot does that overlaps. `strategy` is the `multitask_strategy` that was given, if one was.

    Raises: Invalid when they differ, or cannot be.
    """
    if not has_thread:
        if policy.overlap == "queue_one":
            raise Invalid(
                "policy.overlap: 'queue_one' needs a cron on a thread; without one use 'skip', 'cancel_previous' or "
                "'allow'"
            )
        return policy.overlap or "allow"
    if strategy is not None and strategy not in _OF_STRATEGY:
        raise Invalid(f"multitask_strategy: '{strategy}' is none of {', '.join(_OF_STRATEGY)}")
    asked = None if strategy is None else _OF_STRATEGY[strategy]
    if policy.overlap == "allow":
        raise Invalid("policy.overlap: 'allow' cannot be for a cron on a thread, which has one run at a time")
    if policy.overlap is not None and asked is not None and policy.overlap != asked:
        raise Invalid(
            f"policy.overlap: '{policy.overlap}' and multitask_strategy '{strategy}', which is '{asked}', differ"
        )
    return policy.overlap or asked or "queue_one"
