"""What a run said in the end, for people: the last message of a conversation, else its whole state."""

from __future__ import annotations

import orjson

from matins.domain.fires import OUTPUT_LENGTH


def output_of(values: bytes) -> str:
    """Give the text of the last message in `messages`, or the values as they are, cut to OUTPUT_LENGTH characters."""
    state = orjson.loads(values)
    messages = state.get("messages") if isinstance(state, dict) else None
    last = messages[-1] if isinstance(messages, list) and messages else None
    text = _text(last.get("content")) if isinstance(last, dict) else ""
    text = text or values[: 4 * OUTPUT_LENGTH].decode("utf-8", "ignore")
    return text if len(text) <= OUTPUT_LENGTH else text[: OUTPUT_LENGTH - 1] + "\N{HORIZONTAL ELLIPSIS}"


def _text(content: object) -> str:
    """Give the text of a message's content: a string, or blocks of which some are text."""
    if isinstance(content, str):
        return content
    blocks = content if isinstance(content, list) else []
    texts = [
        each if isinstance(each, str) else each.get("text") for each in blocks if isinstance(each, str | dict)
    ]
    return "\n".join(text for text in texts if isinstance(text, str))
