"""A chat model that needs no key: it streams its answer token by token and says what it would have cost.

Put a real model in place of `Parrot()` and nothing else changes: with `stream_mode="messages-tuple"` a client reads
each token as the model gives it.
"""

from __future__ import annotations

import anyio
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessageChunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langgraph.graph import END, START, MessagesState, StateGraph


class Parrot(BaseChatModel):
    """Answers "You said: ..." one word at a time."""

    pause_seconds: float = 0.02

    @property
    def _llm_type(self):
        return "parrot"

    async def _astream(self, messages, stop=None, run_manager=None, **kwargs):
        said = messages[-1].text.split()
        tokens = ["You", " said:"] + [" " + word for word in said]
        for token in tokens:
            chunk = ChatGenerationChunk(message=AIMessageChunk(token))
            if run_manager:
                await run_manager.on_llm_new_token(token, chunk=chunk)
            yield chunk
            await anyio.sleep(self.pause_seconds)
        usage = {"input_tokens": len(said), "output_tokens": len(tokens), "total_tokens": len(said) + len(tokens)}
        yield ChatGenerationChunk(message=AIMessageChunk("", usage_metadata=usage, chunk_position="last"))

    def _generate(self, messages, stop=None, run_manager=None, **kwargs):
        answer = AIMessageChunk("You said: " + messages[-1].text)
        return ChatResult(generations=[ChatGeneration(message=answer)])


model = Parrot()


async def reply(state: MessagesState):
    return {"messages": [await model.ainvoke(state["messages"])]}


graph = StateGraph(MessagesState).add_node(reply).add_edge(START, "reply").add_edge("reply", END).compile()
