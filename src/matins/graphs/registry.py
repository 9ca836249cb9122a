"""Import the user's graphs, and lend them: compiled, with a checkpointer of ours.

A graph of langgraph.json is a compiled graph, an uncompiled StateGraph (compiled once, here) or a factory: a
function, sync or async, or a context manager, sync or async, that takes nothing, `config` or `runtime`.
Factories are called for each use, because what they give may depend on the caller.
"""

from __future__ import annotations

import copy
import inspect
import sys
import threading
import traceback
import typing
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Final, Literal, TypeAlias

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph import StateGraph
from langgraph.pregel import Pregel
from langgraph.store.base import BaseStore
from langgraph_sdk import runtime as sdk_runtime

from matins.domain.errors import GraphNotFound
from matins.graphs.checkpoints import types_of
from matins.graphs.conditions import Conditions
from matins.graphs.contexts import built
from matins.graphs.declarations import Declarations
from matins.manifest import GraphSpec, Manifest
from matins.manifest.variables import described, make_importable, module_of

Graph: TypeAlias = "Pregel[Any, Any, Any, Any]"
Access: TypeAlias = Literal["threads.create_run", "threads.update", "threads.read", "assistants.read"]

_UNNAMED: Final = {"LangGraph", "StateGraph", ""}  # what an uncommented compile() calls its graph


class GraphFailed(Exception):
    """A graph cannot be served.

    `message` is one line that names its key; `trace` the traceback, if user code raised.
    """

    def __init__(self, message: str, trace: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.trace = trace


@dataclass(frozen=True, slots=True)
class _Entry:
    """A graph as imported: either `graph`, ready, or `factory`, to be called with `wants`.

    `context_schema` is what the factory calls the context in its runtime.
    """

    spec: GraphSpec
    graph: Graph | None
    factory: Callable[..., Any] | None = None
    wants: dict[str, Literal["config", "runtime"]] | None = None
    context_schema: Any = None


class Registry:
    """The graphs of one langgraph.json, imported. Build it with `load`."""

    def __init__(self, entries: dict[str, _Entry], manifest: Manifest, store: BaseStore | None) -> None:
        self._entries = entries
        self._store = store
        self.manifest: Final = manifest
        importing = threading.Lock()
        self.conditions: Final = Conditions(manifest, importing)
        self.declarations: Final = Declarations(manifest, importing)
        self._modules = 0
        self._allowed: frozenset[tuple[str, str]] = frozenset()

    @classmethod
    def load(cls, manifest: Manifest, *, store: BaseStore | None = None) -> Registry:
        """Import every graph. What is lent later gets this store.

        Raises: GraphFailed for the first that cannot be.
        """
        make_importable(manifest.dependencies)
        entries = {graph_id: _import(spec, manifest) for graph_id, spec in manifest.graphs.items()}
        return cls(entries, manifest, store)

    @property
    def allowed(self) -> frozenset[tuple[str, str]]:
        """What a checkpoint may be read into: the classes of the user's own modules, and those he allowed."""
        if self._modules != len(sys.modules):  # nodes and factories import too
            self._modules = len(sys.modules)
            self._allowed = types_of(_own_modules(self.manifest)) | self.manifest.allowed_types
        return self._allowed

    @property
    def ids(self) -> list[str]:
        """The ids of the graphs, in the order of langgraph.json."""
        return list(self._entries)

    def describe(self) -> dict[str, dict[str, str | None]]:
        """Give graph id -> {"name", "description"}: the name its author gave the compiled graph, or None."""
        return {
            graph_id: {"name": _explicit_name(entry.graph), "description": entry.spec.description}
            for graph_id, entry in self._entries.items()
        }

    @asynccontextmanager
    async def open(
        self,
        graph_id: str,
        config: RunnableConfig,
        *,
        checkpointer: BaseCheckpointSaver[Any] | None,
        access: Access = "threads.create_run",
        context: Mapping[str, Any] | None = None,
    ) -> AsyncIterator[Graph]:
        """Lend a graph whose checkpointer is `checkpointer`, with the store of this process.

        What a factory opened is closed at the end.


        Raises: GraphNotFound; GraphFailed when a factory gives no graph; what user code raises, as it is.
        """
        entry = self._entries.get(graph_id)
        if entry is None:
            raise GraphNotFound(graph_id, self.ids)
        if entry.graph is not None:
            yield _lent(entry.graph, checkpointer, self._store)
            return
        async with AsyncExitStack() as stack:
            known = self.allowed
            made = await _make(entry, config, stack, access=access, context=context, store=self._store)
            if checkpointer is not None and (imported := self.allowed - known):
                checkpointer = checkpointer.with_allowlist(imported)
            yield _lent(made, checkpointer, self._store)


def _own_modules(manifest: Manifest) -> list[ModuleType]:
    """Give the imported modules that are the user's.

    These are the ones under his directories that were not installed there, and the packages that his graphs
    are named by, wherever they are installed.
    """
    roots = (*manifest.dependencies, *(spec.path.parent for spec in manifest.graphs.values() if spec.path))
    packages = {spec.module.partition(".")[0] for spec in manifest.graphs.values() if spec.module}
    return [
        module
        for name, module in list(sys.modules.items())
        if name.partition(".")[0] in packages
        or (
            (file := getattr(module, "__file__", None))
            and "site-packages" not in file
            and any(Path(file).is_relative_to(root) for root in roots)
        )
    ]


def _lent(graph: Graph, checkpointer: BaseCheckpointSaver[Any] | None, store: BaseStore | None) -> Graph:
    # A shallow copy: graph.copy() would build and validate the graph anew.
    lent = copy.copy(graph)
    lent.checkpointer = checkpointer
    if store is not None:
        lent.store = store
    return lent


def _explicit_name(graph: Graph | None) -> str | None:
    return None if graph is None or graph.name in _UNNAMED else graph.name


def _import(spec: GraphSpec, manifest: Manifest) -> _Entry:
    key = f"{manifest.path}: graphs.{spec.id}"
    where = spec.path or spec.module
    try:
        module = module_of(spec, (*manifest.dependencies, manifest.path.parent))
    except KeyboardInterrupt:
        raise
    except BaseException as raised:  # a wall: importing runs the user's code, which may even call sys.exit()
        if isinstance(raised, ModuleNotFoundError) and spec.module and raised.name == spec.module:
            raise GraphFailed(f"{key}: no module named {spec.module!r}") from raised
        trace = "".join(traceback.format_exception(raised))
        raise GraphFailed(f"{key}: {described(raised)}", trace) from raised
    if not hasattr(module, spec.attribute):
        raise GraphFailed(f"{key}: {where} has no variable {spec.attribute!r}")
    value = getattr(module, spec.attribute)
    if isinstance(value, Pregel):
        return _Entry(spec, value)
    if isinstance(value, StateGraph):
        try:
            return _Entry(spec, value.compile())
        except Exception as raised:  # a wall: compiling checks what the user built
            trace = "".join(traceback.format_exception(raised))
            raise GraphFailed(
                f"{key}: does not compile: {type(raised).__name__}: {raised}", trace
            ) from raised
    if callable(value) and not isinstance(value, type):
        return _Entry(spec, None, value, _wanted(key, value), _context_schema(value))
    raise GraphFailed(
        f"{key}: {spec.attribute!r} in {where} is {type(value).__name__}, "
        "not a graph or a function that makes one"
    )


def _wanted(key: str, factory: Callable[..., Any]) -> dict[str, Literal["config", "runtime"]]:
    """Give the parameters of a factory, each with what it is to get."""
    wanted: dict[str, Literal["config", "runtime"]] = {}
    for parameter in inspect.signature(factory).parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        annotation = str(parameter.annotation)
        if parameter.name == "runtime" or "ServerRuntime" in annotation:
            wanted[parameter.name] = "runtime"
        elif parameter.name == "config" or "RunnableConfig" in annotation:
            wanted[parameter.name] = "config"
        elif parameter.default is parameter.empty:
            if len(inspect.signature(factory).parameters) == 1:
                wanted[parameter.name] = "config"  # the only one: what factories took first
                continue
            raise GraphFailed(
                f"{key}: parameter {parameter.name!r} of {getattr(factory, '__name__', factory)!s} "
                "is neither `config: RunnableConfig` nor `runtime: ServerRuntime`"
            )
    return wanted


def _context_schema(factory: Callable[..., Any]) -> Any:
    """Give what stands in the brackets of `runtime: ServerRuntime[...]`, if anything does."""
    try:
        hints = typing.get_type_hints(factory)
    except Exception:  # noqa: BLE001 - a wall: names that only a type checker sees, or whatever stands there
        return None
    named = [hint for hint in hints.values() if typing.get_origin(hint) is sdk_runtime.ServerRuntime]
    return typing.get_args(named[0])[0] if named else None


async def _make(
    entry: _Entry,
    config: RunnableConfig,
    stack: AsyncExitStack,
    *,
    access: Access,
    context: Mapping[str, Any] | None,
    store: BaseStore | None,
) -> Graph:
    factory, wants = entry.factory, entry.wants or {}
    if factory is None:
        raise TypeError("no factory")
    given: dict[str, object] = {"config": config}
    if "runtime" in wants.values():
        user = config.get("configurable", {}).get("langgraph_auth_user")
        known = built(entry.context_schema, context or {}) if access == "threads.create_run" else None
        given["runtime"] = _runtime(access, known, user, store)
    keywords: dict[str, object] = {}
    positional: list[object] = []
    for name, parameter in inspect.signature(factory).parameters.items():
        if name not in wants:
            continue
        if parameter.kind is parameter.POSITIONAL_ONLY:
            positional.append(given[wants[name]])
        else:
            keywords[name] = given[wants[name]]
    made = factory(*positional, **keywords)
    if inspect.isawaitable(made):
        made = await made
    if not isinstance(made, (Pregel, StateGraph)):
        if hasattr(made, "__aenter__"):
            made = await stack.enter_async_context(made)
        elif hasattr(made, "__enter__"):
            made = stack.enter_context(made)
    if isinstance(made, StateGraph):
        made = made.compile()
    if not isinstance(made, Pregel):
        raise GraphFailed(f"graphs.{entry.spec.id}: its function gave {type(made).__name__}, not a graph")
    return made


def _runtime(access: Access, context: object, user: Any, store: BaseStore | None) -> object:
    # The public name is a type alias of these two; langgraph_sdk offers no other way to build one.
    shared: dict[str, Any] = {"access_context": access, "user": user, "store": store}
    if access == "threads.create_run":
        return sdk_runtime._ExecutionRuntime(context=context, **shared)  # noqa: SLF001
    return sdk_runtime._ReadRuntime(**shared)  # noqa: SLF001
