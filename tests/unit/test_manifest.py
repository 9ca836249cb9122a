from __future__ import annotations

import json
from pathlib import Path

import pytest

from matins.domain.threads import TimeToLive
from matins.manifest import Manifest, read
from matins.manifest.env import parse_env
from matins.manifest.reading import ManifestError

LONG = "x" * 300
"""No file system takes such a name."""


def write(folder: Path, content: object) -> Path:
    (folder / "agent.py").write_text("graph = 1")
    path = folder / "langgraph.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def project(folder: Path, **content: object) -> Manifest:
    return read(write(folder, {"graphs": {"agent": "./agent.py:graph"}, **content}))


def test_a_graph_is_named_by_a_file_or_a_module_as_a_string_or_an_object(tmp_path: Path) -> None:
    graphs = {
        "a": "./agent.py:graph",
        "b": "pkg.mod:make",
        "c": {"path": "agent.py:graph", "description": "What it does."},
    }
    found = project(tmp_path, graphs=graphs).graphs
    assert (found["a"].path, found["a"].module, found["a"].attribute) == (
        tmp_path / "agent.py",
        None,
        "graph",
    )
    assert (found["b"].path, found["b"].module, found["b"].attribute) == (None, "pkg.mod", "make")
    assert (found["c"].path, found["c"].description) == (tmp_path / "agent.py", "What it does.")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", r":1: not JSON: .* \(column 2\)"),
        ('{\n "graphs": {,}\n}', ":2: not JSON"),
        ([], "must hold a JSON object, not a list"),
        ({}, "graphs: missing"),
        ({"graphs": {}}, "graphs: empty"),
        ({"graphs": ["./agent.py:graph"]}, "graphs: must be an object, not a list"),
        ({"graphs": {"a": 5}}, "graphs.a: must be a string or an object, not a number"),
        ({"graphs": {"a": {"description": "x"}}}, "graphs.a.path: missing"),
        (
            {"graphs": {"a": {"path": "./agent.py:graph", "description": 1}}},
            "graphs.a.description: must be a string",
        ),
        ({"graphs": {"a": "./agent.py"}}, r'graphs.a: .* must read "./file.py:variable"'),
        ({"graphs": {"a": "./agent.py:"}}, "graphs.a: .* must read"),
        ({"graphs": {"a": "./agent.py:not a name"}}, "graphs.a: .* must read"),
        ({"graphs": {"a": "./nope.py:graph"}}, "graphs.a: no such file: ./nope.py"),
        ({"graphs": {"a": "./agent.ts:graph"}}, "graphs.a: .* is a JavaScript graph"),
        ({"graphs": {"a": "my-agent:graph"}}, "graphs.a: 'my-agent' is neither"),
        ({"graphs": {"a": "./agent.py:graph"}, "dependencies": "."}, "dependencies: must be a list"),
        ({"graphs": {"a": "./agent.py:graph"}, "dependencies": [1]}, r"dependencies\[0\]: must be a string"),
        (
            {"graphs": {"a": "./agent.py:graph"}, "dependencies": [".", "./x"]},
            r"dependencies\[1\]: no such directory",
        ),
        ({"graphs": {"a": "./agent.py:graph"}, "env": 5}, "env: must be a mapping or the path of a file"),
        ({"graphs": {"a": "./agent.py:graph"}, "env": ".env"}, "env: no such file: .env"),
        ({"graphs": {"a": "./agent.py:graph"}, "env": {"A": []}}, "env.A: must be a string, not a list"),
        ({"graphs": {"a": "./agent.py:graph"}, "http": "x"}, "http: must be an object"),
        ({"graphs": {"a": "./agent.py:graph"}, "priority": "./p.py:p"}, "priority: must be an object"),
        ({"graphs": {"a": "./agent.py:graph"}, "priority": {}}, r"priority\.path: missing"),
        (
            {"graphs": {"a": "./agent.py:graph"}, "priority": {"path": "./p.py:p"}},
            r"priority\.path: no such file",
        ),
        ({"graphs": {"a": "./ag\0ent.py:graph"}}, r"graphs\.a: '\./ag\\x00ent\.py' cannot be used"),
        ({"graphs": {"a": f"./{LONG}.py:graph"}}, r"graphs\.a: '\./x+\.py' cannot be used"),
        (
            {"graphs": {"a": "./agent.py:graph"}, "dependencies": [".", "./x\0"]},
            r"dependencies\[1\]: '\./x\\x00' cannot be used",
        ),
        (
            {"graphs": {"a": "./agent.py:graph"}, "dependencies": [f"./{LONG}"]},
            r"dependencies\[0\]: '\./x+' cannot be used",
        ),
        ({"graphs": {"a": "./agent.py:graph"}, "env": "\0"}, r"env: '\\x00' cannot be used"),
        ({"graphs": {"a": "./agent.py:graph"}, "env": LONG}, "env: 'x+' cannot be used"),
        ({"graphs": {"a": "./agent.py:graph"}, "env": {"A=B": "1"}}, r"env\.'A=B': no variable can have"),
        ({"graphs": {"a": "./agent.py:graph"}, "env": {"": "1"}}, r"env\.'': no variable can have"),
        ({"graphs": {"a": "./agent.py:graph"}, "env": {"A\0": "1"}}, r"env\.'A\\x00': no variable can have"),
        ({"graphs": {"a": "./agent.py:graph"}, "env": {"A": "1\0"}}, r"env\.'A': no variable can have"),
    ],
)
def test_what_is_wrong_is_one_line_that_names_the_file_and_the_key(
    tmp_path: Path, content: object, message: str
) -> None:
    path = write(tmp_path, content)
    with pytest.raises(ManifestError, match=message) as refused:
        read(path)
    assert str(refused.value).startswith(str(path))
    assert "\n" not in str(refused.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"nope\.json: no such file"):
        read(tmp_path / "nope.json")


def test_an_unknown_key_is_a_warning_with_the_key_that_was_meant(tmp_path: Path) -> None:
    manifest = project(
        tmp_path,
        dependancies=[],
        zzz=1,
        graphs={"a": {"path": "./agent.py:graph", "descripton": "x"}},
        webhooks={"url": {"allowed_hosts": []}},
        http={"cors": {"allow_origin": ["*"]}},
    )
    assert manifest.warnings == [
        f"{manifest.path}: dependancies: unknown key, ignored; did you mean 'dependencies'?",
        f"{manifest.path}: zzz: unknown key, ignored",
        f"{manifest.path}: http.cors.allow_origin: unknown key, ignored; did you mean 'allow_origins'?",
        f"{manifest.path}: webhooks.url.allowed_hosts: unknown key, ignored; did you mean 'allowed_ports'?",
        f"{manifest.path}: graphs.a.descripton: unknown key, ignored; did you mean 'description'?",
    ]


def test_everything_that_is_documented_is_known(tmp_path: Path) -> None:
    (tmp_path / "app.py").touch()
    manifest = project(
        tmp_path,
        python_version="3.12",
        node_version="20",
        store={"index": {"dims": 3, "embed": "x", "fields": ["$"]}, "ttl": {"default_ttl": 5}},
        auth={"path": "./auth.py:auth"},
        http={"app": "./app.py:app", "cors": {"allow_origins": ["*"]}},
        checkpointer={"ttl": {"strategy": "delete"}},
        webhooks={"env_prefix": "LG_", "url": {"require_https": True}},
    )
    assert [warning.partition(": ")[2] for warning in manifest.warnings] == [
        "auth: not supported yet, ignored: whoever reaches the port may read and change everything",
        "store: not supported yet, ignored",
    ]
    assert manifest.sections["auth"] == {"path": "./auth.py:auth"}
    assert set(manifest.sections) == {"auth", "http", "store", "checkpointer", "webhooks"}


def test_threads_may_have_a_time_to_live_by_default(tmp_path: Path) -> None:
    sweeping = project(tmp_path).sweeping
    assert (sweeping.default, sweeping.interval_s, sweeping.limit) == (None, 300, 1000)
    sweeping = project(tmp_path, checkpointer={"ttl": {"default_ttl": 90}}).sweeping
    assert sweeping.default == TimeToLive("delete", 90)
    ttl = {"strategy": "keep_latest", "default_ttl": 0.5, "sweep_interval_minutes": 2, "sweep_limit": 7}
    sweeping = project(tmp_path, checkpointer={"ttl": ttl}).sweeping
    assert (sweeping.default, sweeping.interval_s, sweeping.limit) == (
        TimeToLive("keep_latest", 0.5),
        120,
        7,
    )


@pytest.mark.parametrize(
    ("ttl", "message"),
    [
        (5, "checkpointer.ttl: must be an object, not a number"),
        ({"strategy": "zzz"}, "checkpointer.ttl.strategy: must be one of delete, keep_latest"),
        ({"default_ttl": "5"}, "checkpointer.ttl.default_ttl: must be a number, not a string"),
        ({"default_ttl": 0}, "checkpointer.ttl.default_ttl: must be at least 0.01, not 0"),
        ({"default_ttl": -1}, "checkpointer.ttl.default_ttl: must be at least 0.01, not -1"),
        ({"default_ttl": 1e9}, "checkpointer.ttl.default_ttl: must be at most 52560000"),
        ({"sweep_interval_minutes": 0}, "checkpointer.ttl.sweep_interval_minutes: must be at least 0.01"),
        ({"sweep_limit": 0}, "checkpointer.ttl.sweep_limit: must be at least 1, not 0"),
        ({"sweep_limit": 1.5}, "checkpointer.ttl.sweep_limit: must be a whole number, not 1.5"),
    ],
)
def test_a_time_to_live_that_makes_no_sense_is_refused(tmp_path: Path, ttl: object, message: str) -> None:
    with pytest.raises(ManifestError) as refused:
        project(tmp_path, checkpointer={"ttl": ttl})
    assert str(refused.value).startswith(f"{tmp_path / 'langgraph.json'}: {message}")


def test_the_classes_a_checkpoint_may_hold_are_pairs_or_dotted_names(tmp_path: Path) -> None:
    serde = {"allowed_msgpack_modules": [["a.b", "C"], "d.e.F"]}
    manifest = project(tmp_path, checkpointer={"serde": serde})
    assert manifest.allowed_types == {("a.b", "C"), ("d.e", "F")}
    assert manifest.warnings == []
    manifest = project(tmp_path, checkpointer={"serde": {**serde, "pickle_fallback": True}})
    assert manifest.allowed_types == {("a.b", "C"), ("d.e", "F")}
    assert manifest.warnings == [
        f"{manifest.path}: checkpointer.serde.pickle_fallback: not supported yet, ignored"
    ]


@pytest.mark.parametrize("named", [True, ["F"], [["a"]], [[1, "F"]]])
def test_a_class_that_is_named_otherwise_is_refused(tmp_path: Path, named: object) -> None:
    with pytest.raises(ManifestError, match=r"checkpointer\.serde\.allowed_msgpack_modules"):
        project(tmp_path, checkpointer={"serde": {"allowed_msgpack_modules": named}})


def test_dependencies_are_directories_and_packages_are_left_to_the_environment(tmp_path: Path) -> None:
    (tmp_path / "lib" / "src").mkdir(parents=True)
    (tmp_path / "lib" / "pyproject.toml").touch()
    manifest = project(tmp_path, dependencies=[".", "./lib", "langchain_openai"])
    assert manifest.dependencies == (tmp_path, tmp_path / "lib", tmp_path / "lib" / "src")
    assert "dependencies[2]: 'langchain_openai' is not installed from here" in manifest.warnings[0]


def test_env_is_a_mapping_or_a_file_and_the_process_wins(tmp_path: Path) -> None:
    assert project(tmp_path, env={"A": "1", "B": 2, "C": True}).env == {"A": "1", "B": "2", "C": "true"}
    (tmp_path / ".env").write_text("A=1\nB=2\n")
    manifest = project(tmp_path, env=".env")
    environ = {"B": "mine"}
    manifest.export(environ)
    assert environ == {"A": "1", "B": "mine"}
    assert manifest.env_file == tmp_path / ".env"


def test_files_that_begin_with_a_byte_order_mark_are_read(tmp_path: Path) -> None:
    path = write(tmp_path, {"graphs": {"agent": "./agent.py:graph"}, "env": ".env"})
    path.write_text(path.read_text(), encoding="utf-8-sig")
    (tmp_path / ".env").write_text("A=1\n", encoding="utf-8-sig")
    for file in (path, tmp_path / ".env"):
        assert file.read_bytes().startswith(b"\xef\xbb\xbf")
    assert read(path).env == {"A": "1"}


def test_a_dotenv_line_may_have_quotes_a_comment_and_an_export() -> None:
    text = """
# a comment
PLAIN=value
export EXPORTED=yes
SPACED = a b   # said aside
HASH=a#b
SINGLE='a # "b"'
DOUBLE="a\\nb" # c
EMPTY=
ONLY= # nothing
not a line
URL=postgres://u:p@h/d?x=1
"""
    assert parse_env(text) == {
        "PLAIN": "value", "EXPORTED": "yes", "SPACED": "a b", "HASH": "a#b", "SINGLE": 'a # "b"',
        "DOUBLE": "a\nb", "EMPTY": "", "ONLY": "", "URL": "postgres://u:p@h/d?x=1",
    }  # fmt: skip


def test_a_quoted_dotenv_value_may_hold_lines_and_quotes() -> None:
    text = """KEY="-----BEGIN
abc==
A=1
END" # said aside
SINGLE='one
 two\\n'
Q="a\\"b\\\\" # c "d"
WINDOWS="C:\\dir"
EMPTY=""
LAST=x
"""
    assert parse_env(text) == {
        "KEY": "-----BEGIN\nabc==\nA=1\nEND", "SINGLE": "one\n two\\n", "Q": 'a"b\\', "WINDOWS": "C:\\dir",
        "EMPTY": "", "LAST": "x",
    }  # fmt: skip


@pytest.mark.parametrize("value", ['"abc', "'abc", '"abc\\"', '"a\n\nB=2'])
def test_a_quote_that_is_not_closed_is_named_with_its_line(tmp_path: Path, value: str) -> None:
    (tmp_path / ".env").write_text(f"A=1\nKEY={value}\n")
    with pytest.raises(ManifestError, match=r"/\.env:2: KEY: the quote ['\"] is not closed$"):
        project(tmp_path, env=".env")


def test_what_is_watched_is_where_the_graphs_come_from(tmp_path: Path) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / ".env").touch()
    manifest = project(tmp_path, dependencies=["./lib"], env="./.env")
    assert set(manifest.watched) == {
        tmp_path / "lib",
        tmp_path,
        tmp_path / "langgraph.json",
        tmp_path / ".env",
    }
