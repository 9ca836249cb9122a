"""A chat model that needs no key: it streams its answer token by token and says what it would have cost.

Put a real model in place of `Parrot()` and nothing else changes: with `stream_mode="messages-tuple"` a client
reads each token as the model gives it.
"""

from __future__ import annotations

from functools import reduce
from operator import add

import anyio
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessageChunk, message_chunk_to_message
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langgraph.graph import END, START, MessagesState, StateGraph


class Parrot(BaseChatModel):
    """Answers "You said: ..." one word at a time."""

    pause_seconds: float = 0.02

    @property
    def _llm_type(self):
        return "parrot"

    def _tokens(self, messages):
        said = messages[-1].text.split()
        tokens = ["You", " said:"] + [" " + word for word in said]
        yield from (AIMessageChunk(content=token) for token in tokens)
        usage = {
            "input_tokens": len(said),
            "output_tokens": len(tokens),
            "total_tokens": len(said) + len(tokens),
        }
        yield AIMessageChunk(content="", usage_metadata=usage, chunk_position="last")

    async def _astream(self, messages, stop=None, run_manager=None, **kwargs):
        for token in self._tokens(messages):
            yield ChatGenerationChunk(message=token)
            await anyio.sleep(self.pause_seconds)

    def _generate(self, messages, stop=None, run_manager=None, **kwargs):
        answer = message_chunk_to_message(reduce(add, self._tokens(messages)))
        return ChatResult(generations=[ChatGeneration(message=answer)])


model = Parrot()


async def reply(state: MessagesState):
    return {"messages": [await model.ainvoke(state["messages"])]}


graph = StateGraph(MessagesState).add_node(reply).add_edge(START, "reply").add_edge("reply", END).compile()
