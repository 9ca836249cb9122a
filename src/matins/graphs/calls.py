"""What a worker answers to a Call: about a graph itself, a thread's state or its priority, crons."""

from __future__ import annotations

from matins.graphs import conditions, declarations, priority, state, structure
from matins.graphs.priority import Assigner
from matins.graphs.registry import Registry
from matins.storage.pool import Pool


async def answer(method: str, params: bytes, *, registry: Registry, assigner: Assigner, pool: Pool) -> bytes:
    """Answer a Call with JSON.

    Raises: BadRequest, Invalid, Conflict, ThreadNotFound, GraphNotFound.
    """
    if method == priority.METHOD:
        return await assigner.answer(params)
    if method == declarations.METHOD:
        return await registry.declarations.answer()
    if method == conditions.METHOD:
        return await registry.conditions.answer(params)
    if method in structure.METHODS:
        return await structure.answer(method, params, registry=registry)
    return await state.answer(method, params, registry=registry, pool=pool)
