"""Raw chunks of `graph.astream` -> frames, as the v2 stream of the API frames them.

`Framing` is one run's: it remembers which messages it has announced. The path of one chunk is short on
purpose, one encoding and one append: a graph may write tens of thousands of events a second.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from langchain_core.messages import BaseMessage, BaseMessageChunk, message_chunk_to_message

from matins.domain.frames import ERROR, METADATA, Frame
from matins.domain.runs import RunError
from matins.graphs.serde import encode

EVENTS: Final = "events"

# LangGraph's modes, and LangChain's one, framed as they are.
_OWN: Final = {"values", "updates", "custom", "tasks", "checkpoints", "debug", EVENTS}
_COORDINATES: Final = ("thread_id", "checkpoint_ns", "checkpoint_id", "checkpoint_map")


def metadata(run_id: object, attempt: int) -> Frame:
    """Give the first frame of an attempt."""
    return Frame(METADATA, encode({"run_id": str(run_id), "attempt": attempt}))


def error(failure: RunError) -> Frame:
    """Give the last frame of a run that failed."""
    return Frame(ERROR, encode({"error": failure.error, "message": failure.message}))


class Framing:
    """Frames the chunks of one run.

    `modes` are the client's; `subgraphs` says whether chunks come as (namespace, mode, payload) or (mode,
    payload).
    """

    def __init__(self, modes: Sequence[str], *, subgraphs: bool) -> None:
        self._wanted = {mode for mode in modes if mode in _OWN}
        # With both, only tuples are sent. Source: observed, wire contract of stream_mode.
        self._tuples = "messages-tuple" in modes
        self._partials = "messages" in modes and not self._tuples
        self._subgraphs = subgraphs
        self._accumulated: dict[str, BaseMessage] = {}

    @property
    def modes(self) -> list[str]:
        """What to ask of `graph.astream`. `updates` always: they mark the end of a node's work."""
        asked = sorted(self._wanted - {EVENTS} | {"updates"})
        return [*asked, "messages"] if self._tuples or self._partials else asked

    @property
    def has_events(self) -> bool:
        """Whether LangChain's events are wanted, which come another way."""
        return EVENTS in self._wanted

    def add(self, chunk: tuple[Any, ...], out: list[Frame]) -> bool:
        """Append the frames of a chunk, if it has any; say whether it tells that a node of the root ended."""
        if self._subgraphs:
            namespace, mode, payload = chunk
            suffix = "|" + "|".join(namespace) if namespace else ""
        else:
            mode, payload = chunk
            suffix = ""
        if mode in self._wanted:
            if mode in ("checkpoints", "debug"):
                payload = _public(payload)
            out.append(Frame(mode + suffix, encode(payload)))
        elif mode == "messages":
            if self._tuples:
                out.append(Frame(mode + suffix, encode(payload)))
            else:
                self._add_message(payload[0], payload[1], suffix, out)
        return mode == "updates" and not suffix

    def ends_node(self, chunk: tuple[Any, ...]) -> bool:
        """Whether a chunk tells that a node of the root ended."""
        return bool(chunk[-2] == "updates" and not (self._subgraphs and chunk[0]))

    def _add_message(
        self, message: BaseMessage, about: dict[str, Any], suffix: str, out: list[Frame]
    ) -> None:
        """Announce a message once, then give it whole: grown by each token, or complete at once."""
        message_id = str(message.id)
        seen = self._accumulated.get(message_id)
        if seen is None:
            out.append(Frame(f"messages/metadata{suffix}", encode({message_id: {"metadata": about}})))
        if isinstance(message, BaseMessageChunk):
            if isinstance(seen, BaseMessageChunk):
                grown = seen + message
                message = grown if isinstance(grown, BaseMessageChunk) else message
            self._accumulated[message_id] = message
            out.append(Frame(f"messages/partial{suffix}", encode([message_chunk_to_message(message)])))
        else:
            self._accumulated[message_id] = message
            out.append(Frame(f"messages/complete{suffix}", encode([message])))


def _public(payload: dict[str, Any]) -> dict[str, Any]:
    """Drop from a checkpoint's configs all but its coordinates; the rest is the run's, and may be private."""
    kept = dict(payload)
    for key in ("config", "parent_config"):
        if isinstance(config := kept.get(key), dict):
            configurable = config.get("configurable", {})
            kept[key] = {"configurable": {k: configurable[k] for k in _COORDINATES if k in configurable}}
    if isinstance(inner := kept.get("payload"), dict):
        kept["payload"] = _public(inner)
    return kept
