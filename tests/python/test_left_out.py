"""Batch reads over input of which not all can be read: what is left out is said, once, with the first of it."""

import json

import pyarrow.flight
import pytest
from conftest import Process, Server, run

CSV = "id,qty\n1,5\n2,many\n3,7\n"
REASON = 'orders.csv line 3: column "qty": many is not a BIGINT'


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "orders.csv").write_text(CSV)
    (tmp_path / "worse.csv").write_text(CSV + "x,1\ny,many\n")
    return tmp_path


def create(name="orders", file="orders.csv", more=""):
    return f"CREATE STREAM {name} (id BIGINT, qty BIGINT) WITH (connector = 'file', path = '{file}'{more});"


def test_a_select_says_what_it_left_out(store, folder):
    process = run(store, create() + "SELECT sum(qty) AS s, count(*) AS n FROM orders;", "--format", "csv", cwd=folder)
    assert process.stdout.split() == ["s,n", "12,2"]
    assert f"(1 row, 1 left out: {REASON}, " in process.stderr, process.stderr


def test_the_shell_says_it_too(store, folder):
    with Process("shell", "--store", store, "-c", create() + "SELECT * FROM orders;", cwd=folder) as process:
        assert process.wait() == 0, process.stderr
    assert f"(2 rows, 1 left out: {REASON}, " in process.stderr, process.stderr


def test_copy_and_insert_say_it(store, folder):
    sql = (
        create()
        + "COPY orders TO 'out.csv'; CREATE STREAM kept (id BIGINT, qty BIGINT); INSERT INTO kept SELECT * FROM orders;"
        + "COPY kept TO 'kept.csv';"
    )
    process = run(store, sql, cwd=folder)
    assert f"COPY 2, 1 left out: {REASON} (" in process.stderr, process.stderr
    assert f"INSERT 2, 1 left out: {REASON} (" in process.stderr, process.stderr
    assert "COPY 2 (" in process.stderr, process.stderr
    with Process("export", "--store", store, "orders", "again.parquet", cwd=folder) as process:
        assert process.wait() == 0, process.stderr
    assert f"1 left out: {REASON}" in process.stderr, process.stderr


def test_a_row_counts_once_however_often_it_is_read(store, folder):
    sql = create() + create("worse", "worse.csv") + (
        "SELECT sum(a.qty * b.qty) FROM orders a CROSS JOIN orders b;"
        "SELECT (SELECT max(qty) FROM orders), (SELECT sum(qty) FROM orders);"
        "CREATE VIEW v AS SELECT * FROM orders; SELECT sum(qty) FROM (SELECT * FROM v UNION ALL SELECT * FROM orders);"
        "SELECT qty FROM orders UNION ALL SELECT qty FROM worse;"
        "SELECT id FROM orders;"
    )
    lines = [line for line in run(store, sql, cwd=folder).stderr.splitlines() if "row" in line]
    assert [line.split(", ")[1].split(":")[0] for line in lines[:3]] == ["1 left out"] * 3, lines
    assert lines[3].startswith(f"(5 rows, 3 left out, the first: {REASON}"), lines
    # What is not read can be as it likes.
    assert lines[4].startswith("(3 rows, 0."), lines


def test_on_error_fail_makes_it_an_error(store, folder):
    sql = create(more=", on_error = 'fail'") + "SELECT count(*), sum(qty) FROM orders;"
    process = run(store, sql, ok=False, cwd=folder)
    assert 'orders.csv' in process.stderr and "line 3" in process.stderr and "many" in process.stderr, process.stderr
    assert process.stdout == ""


def test_over_flight_it_is_in_the_metadata(store, folder):
    with Server(store, cwd=folder) as server:
        with server.connect() as connection, connection.cursor() as cursor:
            cursor.execute(create())
            cursor.execute("CREATE STREAM kept (id BIGINT, qty BIGINT)")
            cursor.execute("SELECT * FROM orders")
            assert cursor.fetchall() == [(1, 5), (3, 7)]
        with Process("shell", "--connect", f"grpc://{server.address}", "-c", "SELECT * FROM orders; INSERT INTO kept SELECT * FROM orders;") as shell:
            assert shell.wait() == 0, shell.stderr
        assert f"(2 rows, 1 left out: {REASON}, " in shell.stderr, shell.stderr
        assert f"INSERT 2, 1 left out: {REASON}" in shell.stderr, shell.stderr
        client = pyarrow.flight.connect(f"grpc://{server.address}")
        notes = list(metadata(client, "SELECT * FROM orders"))
        assert notes == [{"left_out": {"rows": 1, "more": False, "first": REASON, "warning": f"1 left out: {REASON}"}}]
        assert list(metadata(client, "SELECT id FROM orders")) == []


def field(tag, data):
    assert len(data) < 128
    return bytes([tag << 3 | 2, len(data)]) + data


def metadata(client, sql):
    """What the messages of a query carry besides rows."""
    url = b"type.googleapis.com/arrow.flight.protocol.sql.CommandStatementQuery"
    command = field(1, url) + field(2, field(1, sql.encode()))
    info = client.get_flight_info(pyarrow.flight.FlightDescriptor.for_command(command))
    for chunk in client.do_get(info.endpoints[0].ticket):
        if chunk.app_metadata is not None:
            yield json.loads(chunk.app_metadata.to_pybytes())
