from __future__ import annotations

import pytest

from matins.settings import SettingsError, database_uri, read


@pytest.mark.parametrize(
    "uri",
    [
        "postgresql://user:pa55#w0rd@host/db",
        "postgresql://user:pa55[w0rd@host/db",
        "postgresql://user:pa55/w0rd@host/db",
        "postgresql://user:55/w0rd@host/db",
        "host=x dbname=y password=pa55w0rd",
        "mysql://user:pa55w0rd@host/db",
        "postgresql://user:pa55w0rd@host:port/db",
        "postgresql://user:pa55w0rd@host/db#here",
        "pa55w0rd",
    ],
)
def test_what_is_no_address_of_a_database_is_refused_and_no_part_of_it_is_shown(uri: str) -> None:
    with pytest.raises(SettingsError, match=r"^POSTGRES_URI must read postgresql://user") as refused:
        database_uri({"POSTGRES_URI": uri})
    said = str(refused.value)
    assert "pa55" not in said
    assert "w0rd" not in said
    assert "\n" not in said
    assert refused.value.__context__ is None, "a traceback would show what the parser says of it"


@pytest.mark.parametrize(
    "uri",
    [
        "postgresql://u:p@h/db",
        "postgresql://u:p%23q@h/db",
        "postgres:///db?host=/tmp",
        "postgresql+asyncpg://h/db",
        "postgresql://h1:1,h2:2/db",
        "postgresql://[::1]:5432/db",
    ],
)
def test_an_address_of_a_database_is_given_as_it_stands(uri: str) -> None:
    assert database_uri({"DATABASE_URI": uri}) == uri


def test_the_first_of_the_names_that_has_a_value_counts() -> None:
    environ = {
        "DATABASE_URI": "",
        "POSTGRES_URI": "postgresql://first/db",
        "DATABASE_URL": "mysql://second/db",
    }
    assert database_uri(environ) == "postgresql://first/db"
    assert database_uri({"DATABASE_URI": ""}) is None


@pytest.mark.parametrize(
    "address",
    ["secret", "ftp://secret/x", "https://", "https://secret:port/x", "https://h/secret x", "http://[secret"],
)
def test_what_is_no_address_for_heartbeats_is_refused_and_not_shown(address: str) -> None:
    with pytest.raises(SettingsError, match=r"^MATINS_HEARTBEAT_URL must read https://") as refused:
        read({"DATABASE_URI": "postgresql:///db", "MATINS_HEARTBEAT_URL": address})
    assert "secret" not in str(refused.value)


def test_heartbeats_go_where_the_environment_says_if_it_says_so() -> None:
    given = {"DATABASE_URI": "postgresql:///db"}
    assert read(given).heartbeat_url is None
    assert read({**given, "MATINS_HEARTBEAT_URL": ""}).heartbeat_url is None
    address = "http://10.0.0.7:8000/ping/x?a=b"
    assert read({**given, "MATINS_HEARTBEAT_URL": address}).heartbeat_url == address
