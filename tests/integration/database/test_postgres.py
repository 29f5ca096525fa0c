"""The PostgreSQL server of the tests: isolated databases, and data that survives a restart."""

import psycopg
import pytest

from tests.support.postgres import PostgresServer


def test_data_survives_a_restart_and_connections_do_not(postgres: PostgresServer) -> None:
    url = postgres.create_database("restarted")
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 'sound' AS word")
    with psycopg.connect(url) as before:
        postgres.restart()
        with pytest.raises(psycopg.OperationalError):
            before.execute("SELECT 1")
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT word FROM kept").fetchall() == [("sound",)]


def test_databases_are_isolated(postgres: PostgresServer) -> None:
    one, two = (postgres.create_database(name) for name in ("one", "two"))
    with psycopg.connect(one) as connection:
        connection.execute("CREATE TABLE own (number integer)")
    with psycopg.connect(two) as connection, pytest.raises(psycopg.errors.UndefinedTable):
        connection.execute("SELECT * FROM own")
