"""The user's `condition` of a cron: asked before each of its runs whether there is anything to do.

It is named as a graph is, but by clients: nothing outside of the project is ever imported for one.
"""

from __future__ import annotations

import asyncio
import contextvars
import importlib.util
import inspect
import sysconfig
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Final

import anyio
import msgspec

from matins import telemetry
from matins.domain import policies
from matins.domain.errors import Invalid
from matins.domain.ids import RunId
from matins.domain.runs import RunKwargs
from matins.manifest import Manifest
from matins.manifest.reading import ManifestError, place
from matins.manifest.variables import Variable, module_of, variable
from matins.storage import fires
from matins.storage.pool import Pool
from matins.workers.protocol import Execute

METHOD: Final = "condition"

PATIENCE_SECONDS: Final = 30.0
"""How long a condition may take before it counts as failed."""

_THREADS: Final = ThreadPoolExecutor(8, thread_name_prefix="condition")
"""Their own: those that hang take no thread from graphs."""

_KEY: Final = "policy.condition"
_BOOLS: Final = ("bool", "bool_")  # Python's, and what NumPy calls its own


class SaidNo(Exception):
    """A cron's condition wants no run, or failed where that counts as no. The text is the reason, for the ledger."""


class Asked(msgspec.Struct):
    """What a Call asks about."""

    condition: str


class Conditions:
    """The conditions of one project, imported when they are first named.

    `importing` is held meanwhile: a module that is half imported looks to others as if it lacked the function.
    """

    def __init__(self, manifest: Manifest, importing: threading.Lock) -> None:
        self._manifest: Final = manifest
        self._importing: Final = importing

    async def answer(self, params: bytes) -> bytes:
        """Answer a Call with null. Raises: Invalid when what is named cannot be a condition."""
        named = msgspec.json.decode(params, type=Asked).condition
        try:
            await _in_thread(partial(self._find, named))
        except Invalid:
            raise
        except BaseException as raised:
            if _is_real(raised):
                raise
            raise Invalid(f"{_KEY}: {named}: {_line(raised)}") from raised
        return b"null"

    async def ask(self, order: Execute, kwargs: RunKwargs, *, pool: Pool) -> None:
        """Ask about a cron's run of which nothing has begun yet, unless a person has triggered it.

        Only False says no. What is raised, another answer than True or False, and one that takes longer than
        PATIENCE_SECONDS count as the policy says.
        Raises: SaidNo; Unavailable.
        """
        if order.cron_id is None or kwargs.policy is msgspec.UNSET:
            return
        policy = policies.read(kwargs.policy)
        if policy.condition is None:
            return
        slot = await pool.run(lambda conn: fires.to_be_asked(conn, RunId(order.run_id)), transaction=False)
        if slot is None:
            return
        about = {
            "cron_id": str(order.cron_id),
            "thread_id": str(order.thread_id),
            "scheduled_for": slot.scheduled_for.isoformat(),
            "last_success": slot.last_success.isoformat() if slot.last_success else None,
            "input": kwargs.input,
            "metadata": msgspec.json.decode(order.metadata),
        }
        failure: BaseException | None = None
        with anyio.move_on_after(PATIENCE_SECONDS) as scope:
            try:
                if not await self._says(policy.condition, about):
                    raise SaidNo(f"its condition {policy.condition} said no")
            except SaidNo:
                raise
            except BaseException as raised:  # a wall: the user's code
                if _is_real(raised):
                    raise
                failure = raised
        if scope.cancelled_caught:
            failure = TimeoutError(f"it took longer than {PATIENCE_SECONDS:g} s")
        if failure is None:
            return
        telemetry.log().error(
            telemetry.CONDITION_FAILED,
            run_id=str(order.run_id),
            cron_id=str(order.cron_id),
            condition=policy.condition,
            error=_line(failure),
            trace="".join(traceback.format_exception(failure)),
        )
        if policy.on_condition_error == "skip":
            raise SaidNo(f"its condition {policy.condition} failed: {_line(failure)}")

    async def _says(self, named: str, about: dict[str, Any]) -> bool:
        """Give what the condition says. Raises: Invalid when there is none; what the user's code raises."""
        function = await _in_thread(partial(self._find, named))
        call = partial(function, about) if _takes_one(function) else function
        says: Any = call() if inspect.iscoroutinefunction(function) else await _in_thread(call)
        if inspect.isawaitable(says):
            says = await says
        if type(says).__name__ not in _BOOLS:
            message = f"it gave {says!r:.100}, not True or False"
            raise TypeError(message)
        return bool(says)

    def _find(self, named: str) -> Callable[..., Any]:
        """Import a condition. Raises: Invalid when there is none; what importing it raises."""
        found = self._variable(named)
        with self._importing:
            module = module_of(found, (*self._manifest.dependencies, self._manifest.path.parent))
        if not self._is_ours(Path(getattr(module, "__file__", None) or "/")):
            raise Invalid(f"{_KEY}: {named}: is not in the project")
        if not hasattr(module, found.attribute):
            raise Invalid(f"{_KEY}: {named}: there is no {found.attribute!r}")
        function = getattr(module, found.attribute)
        if not callable(function) or isinstance(function, type):
            raise Invalid(f"{_KEY}: {named}: is {type(function).__name__}, not a function")
        _takes_one(function)
        return function  # type: ignore[no-any-return]

    def _variable(self, named: str) -> Variable:
        """Say where a condition is. What is outside of the project is not looked at."""
        config = self._manifest.path
        where = named.rpartition(":")[0]
        try:
            is_file = where.endswith(".py") or "/" in where
            if is_file and not place(config, _KEY, where).is_relative_to(config.parent):
                raise Invalid(f"{_KEY}: {named}: is not in the directory of {config.name}")
            found = variable(config, _KEY, named, of="condition")
        except ManifestError as unfit:
            raise Invalid(str(unfit).removeprefix(f"{config}: ")) from None
        if found.path is not None and not self._is_ours(found.path):
            raise Invalid(f"{_KEY}: {named}: is not in the project")
        if found.module is not None and not self._is_project(found.module.partition(".")[0]):
            raise Invalid(f"{_KEY}: {named}: there is no module {found.module!r} in the project")
        return found

    def _is_project(self, package: str) -> bool:
        """Whether a top-level module is the user's own; it is not imported."""
        try:
            spec = importlib.util.find_spec(package)
        except (ImportError, ValueError):
            return False
        if spec is None:
            return False
        places = [spec.origin] if spec.has_location else list(spec.submodule_search_locations or ())
        return bool(places) and all(self._is_ours(Path(each)) for each in places if each)

    def _is_ours(self, file: Path) -> bool:
        """Whether a file lies in the project, and was not installed there."""
        file = file.resolve()
        roots = (self._manifest.path.parent, *self._manifest.dependencies)
        installed = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
        return (
            any(file.is_relative_to(root) for root in roots)
            and "site-packages" not in file.parts
            and not any(file.is_relative_to(Path(each).resolve()) for each in installed)
        )


def _takes_one(function: Callable[..., Any]) -> bool:
    """Whether a condition takes what it is asked about. Raises: Invalid when it can take neither that nor nothing."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return False
    for arguments in (("about",), ()):
        try:
            signature.bind(*arguments)
        except TypeError:
            continue
        return bool(arguments)
    name = getattr(function, "__name__", "it")
    raise Invalid(f"{_KEY}: {name}{signature} must take no argument or one")


async def _in_thread(work: Callable[[], Any]) -> Any:
    """Call what is not async where it blocks nobody. Raises: what it raises."""

    def called() -> tuple[Any, BaseException | None]:
        try:
            return work(), None
        except BaseException as raised:  # noqa: BLE001 - a wall: a future cannot hold StopIteration
            return None, raised

    given, raised = await asyncio.get_running_loop().run_in_executor(
        _THREADS, contextvars.copy_context().run, called
    )
    if raised is not None:
        raise raised
    return given


def _is_real(raised: BaseException) -> bool:
    """Whether it is a cancellation of ours, and none that the user's code has raised."""
    task = asyncio.current_task()
    return isinstance(raised, asyncio.CancelledError) and task is not None and bool(task.cancelling())


def _line(raised: BaseException) -> str:
    """Say in a line what was raised."""
    if isinstance(raised, TimeoutError | Invalid) and str(raised):
        return str(raised)
    try:
        return f"{type(raised).__name__}: {raised}"[:500]
    except Exception:  # noqa: BLE001 - a wall: an exception's __str__ is user code
        return type(raised).__name__
