"""What a worker answers to a Call: about a graph itself, or about a thread's state."""

from __future__ import annotations

from matins.graphs import state, structure
from matins.graphs.registry import Registry
from matins.storage.pool import Pool


async def answer(method: str, params: bytes, *, registry: Registry, pool: Pool) -> bytes:
    """Answer a Call with JSON.

    Raises: BadRequest, Conflict, ThreadNotFound, GraphNotFound.
    """
    if method in structure.METHODS:
        return await structure.answer(method, params, registry=registry)
    return await state.answer(method, params, registry=registry, pool=pool)
