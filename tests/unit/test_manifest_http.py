from __future__ import annotations

import json
from pathlib import Path

import pytest

from matins.manifest import Manifest, read
from matins.manifest.http import Headers, HttpSection
from matins.manifest.reading import ManifestError


def project(folder: Path, http: object) -> Manifest:
    for name in ("agent.py", "front.py"):
        (folder / name).touch()
    path = folder / "langgraph.json"
    path.write_text(json.dumps({"graphs": {"agent": "./agent.py:graph"}, "http": http}))
    return read(path)


@pytest.mark.parametrize("http", [None, {}])
def test_nothing_said_is_everything_served_to_everyone(tmp_path: Path, http: object) -> None:
    manifest = project(tmp_path, http)
    assert manifest.http == HttpSection()
    assert manifest.http.delivers_webhooks
    assert manifest.warnings == []


def test_every_key_is_read(tmp_path: Path) -> None:
    manifest = project(
        tmp_path,
        {
            "app": "./front.py:app",
            "disable_runs": True,
            "disable_store": False,
            "disable_webhooks": True,
            "cors": {"allow_origins": ["https://a"], "allow_methods": ["get"], "max_age": 5},
            "configurable_headers": {"includes": ["X-A"], "excludes": ["x-b"]},
            "logging_headers": {"include": ["x-c"], "exclude": ["x-d"]},
            "middleware_order": "middleware_first",
            "enable_custom_route_auth": False,
            "mount_prefix": "/a/b-c/",
        },
    )
    http = manifest.http
    assert manifest.warnings == []
    assert http.app is not None
    assert (http.app.path, http.app.attribute) == (tmp_path / "front.py", "app")
    assert http.disabled == {"runs", "webhooks"}
    assert not http.delivers_webhooks
    assert http.cors is not None
    assert (http.cors.allow_origins, http.cors.allow_methods, http.cors.max_age_s) == (
        ("https://a",),
        ("GET",),
        5,
    )
    assert http.configurable_headers == Headers(("x-a",), ("x-b",))
    assert http.logging_headers == Headers(("x-c",), ("x-d",))
    assert http.mount_prefix == "/a/b-c"
    assert tmp_path in manifest.watched


def test_an_expression_for_origins_stands_alone_or_beside_a_list(tmp_path: Path) -> None:
    cors = project(tmp_path, {"cors": {"allow_origin_regex": "https://.*"}}).http.cors
    assert cors is not None
    assert cors.allow_origins == ()
    cors = project(tmp_path, {"cors": {"allow_origins": ["b"], "allow_origin_regex": "a"}}).http.cors
    assert cors is not None
    assert (cors.allow_origins, cors.allow_origin_regex) == (("b",), "a")


@pytest.mark.parametrize(
    ("http", "message"),
    [
        ([], "http: must be an object, not a list"),
        ({"app": 1}, "http.app: must be a string, not a number"),
        ({"app": "front.py"}, 'http.app: .* must read "./file.py:variable"'),
        ({"app": "./nope.py:app"}, "http.app: no such file: ./nope.py"),
        ({"app": "./front.ts:app"}, "http.app: .* is a JavaScript application; only Python applications"),
        ({"disable_runs": "yes"}, "http.disable_runs: must be true or false, not a string"),
        ({"disable_meta": 1}, "http.disable_meta: must be true or false, not a number"),
        ({"cors": []}, "http.cors: must be an object, not a list"),
        ({"cors": {"allow_origins": "*"}}, "http.cors.allow_origins: must be a list of strings"),
        ({"cors": {"allow_methods": [1]}}, "http.cors.allow_methods: must be a list of strings"),
        ({"cors": {"allow_headers": {}}}, "http.cors.allow_headers: must be a list of strings"),
        ({"cors": {"expose_headers": "x"}}, "http.cors.expose_headers: must be a list of strings"),
        ({"cors": {"allow_credentials": "no"}}, "http.cors.allow_credentials: must be true or false"),
        (
            {"cors": {"allow_origin_regex": "("}},
            r"http.cors.allow_origin_regex: '\(' is no regular expression",
        ),
        ({"cors": {"max_age": "1"}}, "http.cors.max_age: must be a number, not a string"),
        ({"cors": {"max_age": -1}}, "http.cors.max_age: must be at least 0, not -1"),
        ({"configurable_headers": ["x"]}, "http.configurable_headers: must be an object, not a list"),
        ({"configurable_headers": {"includes": "x"}}, "http.configurable_headers.includes: must be a list"),
        ({"logging_headers": {"exclude": [1]}}, "http.logging_headers.exclude: must be a list"),
        ({"middleware_order": "first"}, "http.middleware_order: must be one of middleware_first, auth_first"),
        ({"enable_custom_route_auth": 1}, "http.enable_custom_route_auth: must be true or false"),
        ({"mount_prefix": 1}, "http.mount_prefix: must be a string, not a number"),
        *(
            ({"mount_prefix": bad}, 'http.mount_prefix: .* must read "/some/path"')
            for bad in ("a", "/a b", "/a//b", "/..", "/a/../b", "/./a", "http://a", "/{a}", "/a?b", "/é")
        ),
    ],
)
def test_what_is_wrong_is_one_line_that_names_the_key(tmp_path: Path, http: object, message: str) -> None:
    with pytest.raises(ManifestError, match=message) as refused:
        project(tmp_path, http)
    assert "\n" not in str(refused.value)
    assert str(refused.value).startswith(str(tmp_path / "langgraph.json"))


def test_what_has_no_effect_or_too_much_is_a_warning(tmp_path: Path) -> None:
    manifest = project(
        tmp_path,
        {
            "enable_custom_route_auth": True,
            "middleware_order": "auth_first",
            "cors": {"allow_credentials": True},
            "mount_prefx": "/a",
            "configurable_headers": {"inclds": []},
        },
    )
    assert [warning.partition(": ")[2] for warning in manifest.warnings] == [
        "http.mount_prefx: unknown key, ignored; did you mean 'mount_prefix'?",
        "http.configurable_headers.inclds: unknown key, ignored; did you mean 'includes'?",
        "http.enable_custom_route_auth: has no effect yet: whoever reaches the port may use the routes of http.app",
        "http.middleware_order: has no effect yet: nobody is asked who they are",
        "http.cors.allow_credentials: with allow_origins '*' every page may act as whoever visits it",
    ]


SENT = [(b"x-foo-a", b"1"), (b"X-Foo-B", b"2"), (b"x-foo", b"3"), (b"y-foo-c", b"4"), (b"x-odd", b"\xe9")]


@pytest.mark.parametrize(
    ("headers", "found"),
    [
        (Headers(), {}),
        (Headers(excludes=("x-foo",)), {}),
        (Headers(("x-foo",)), {"x-foo": "3"}),
        (Headers(("x-foo*",)), {"x-foo-a": "1", "x-foo-b": "2", "x-foo": "3"}),
        (Headers(("*-foo-*",)), {"x-foo-a": "1", "x-foo-b": "2", "y-foo-c": "4"}),
        (Headers(("*",), ("*foo*",)), {"x-odd": "é"}),
        (Headers(("x-foo*",), ("x-foo-b", "X-FOO")), {"x-foo-a": "1", "x-foo": "3"}),
        (Headers(("x.foo", "x?foo", "[x]-foo")), {}),
    ],
)
def test_excludes_win_and_a_star_is_any_characters(headers: Headers, found: dict[str, str]) -> None:
    assert headers.of(SENT) == found


@pytest.mark.parametrize(
    "name", ["X-Api-Key", "x-tenant-id", "x-service-key", "Authorization", "Cookie", "Proxy-Authorization"]
)
def test_secrets_are_never_meant(name: str) -> None:
    assert Headers((name.lower(), "*")).of([(name.encode(), b"s"), (b"a", b"1"), (b"a", b"2")]) == {
        "a": "1, 2"
    }
