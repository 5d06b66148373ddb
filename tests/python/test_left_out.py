"""Batch reads over input of which not all can be read: what is left out is said, once, with the first of it."""

import json
import socket

import pyarrow.flight
import pytest
from conftest import Process, Server, run
from test_http import HttpServer

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


def test_over_http_it_is_a_header_or_a_trailer(store, folder):
    (folder / "many.csv").write_text(CSV + "".join(f"{n},{n}\n" for n in range(100_000)))
    with HttpServer(store, cwd=folder) as server:
        server.sql(create())
        server.sql(create("many", "many.csv"))
        note = {"left_out": {"rows": 1, "more": False, "first": REASON, "warning": f"1 left out: {REASON}"}}
        for format in ["json", "ndjson", "csv", "arrow"]:
            for method, path, body in [("GET", f"/streams/orders?format={format}", None), ("POST", f"/sql?format={format}", "SELECT * FROM orders")]:
                status, headers, content = server.ask(method, path, body, {"Content-Type": "text/plain"})
                assert (status, json.loads(headers["millstream-incomplete"])) == (200, note)
                assert int(headers["content-length"]) == len(content)
        assert server.ask("GET", "/streams/orders?where=id%3D1")[1]["millstream-incomplete"] is not None, "the rows are read all the same"
        assert server.ask("POST", "/sql", "SELECT id FROM orders", {"Content-Type": "text/plain"})[1]["millstream-incomplete"] is None
        # Of a large result it is known when its head has been sent.
        for wanted in ["TE: trailers\r\n", ""]:
            with socket.create_connection(("127.0.0.1", server.port), 30) as connection:
                connection.sendall(f"GET /streams/many?format=csv HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{wanted}\r\n".encode())
                content = b"".join(iter(lambda: connection.recv(1 << 20), b""))
            head, _, rest = content.partition(b"\r\n\r\n")
            assert b"trailer: millstream-incomplete" in head.lower() and rest.count(b"\n") > 100_000
            _, _, last = rest.rpartition(b"\r\n0\r\n")
            if wanted:
                name, _, value = last.decode().strip().partition(": ")
                note["left_out"] = {key: str(value).replace("orders", "many") if key in ("first", "warning") else value for key, value in note["left_out"].items()}
                assert (name.lower(), json.loads(value)) == ("millstream-incomplete", note)
            else:
                assert last == b"\r\n", "who does not ask for trailers gets none"


def test_over_http_a_stream_that_has_failed_is_told(store):
    with HttpServer(store) as server:
        server.sql("CREATE STREAM s (n BIGINT)")
        server.sql("CREATE STREAM kept WITH (on_error = 'fail') AS SELECT 10 / n AS q FROM s")
        server.post("s", [{"n": 5}])
        server.sql("FLUSH")
        server.post("s", [{"n": 0}])
        while not server.json("GET", "/readyz")["failed"]:
            pass
        status, headers, content = server.ask("GET", "/streams/kept")
        assert (status, json.loads(content)) == (200, [{"q": 2}])
        (failed,) = json.loads(headers["millstream-incomplete"])["failed"]
        assert failed["stream"] == "kept" and failed["reason"], failed


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
