"""Requests that take more than is theirs: too large, too slow, too many, or not what they say. Each is refused clearly, and the server
stays within its memory and goes on."""

import base64
import io
import json
import pathlib
import re
import socket
import ssl
import struct
import threading
import time

import adbc_driver_manager
import numpy as np
import pyarrow as pa
import pyarrow.flight as flight
import pyarrow.ipc
import pytest
from test_doors import PASSWORD, Guarded

MIB = 1 << 20
# What the server may take beside its budget of 256 MB: its code, the allocator's slack, and one request's body.
BUDGET, SLACK = 256, 192
ARROW = {"Content_Type": "application/vnd.apache.arrow.stream"}
LINES = {"Content_Type": "application/x-ndjson"}


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    with Guarded(tmp_path_factory.mktemp("abuse"), "--memory-limit", f"{BUDGET}MB") as guarded:
        guarded.run("CREATE STREAM a (n BIGINT, t TEXT)")
        yield guarded
        assert guarded.run("SELECT count(*) FROM a") == [(0,)], "nothing was taken"
        assert guarded.server.stop() == 0, guarded.server.stderr


@pytest.fixture(autouse=True)
def within_its_memory(guarded):
    yield
    assert guarded.server.process.poll() is None, guarded.server.stderr[-2000:]
    assert most(guarded) < BUDGET + SLACK, f"{most(guarded)} MiB at the most"
    assert guarded.run("SELECT 1") == [(1,)]


def most(guarded):
    """The MiB that the server has had at the most."""
    status = pathlib.Path(f"/proc/{guarded.server.process.pid}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+)", status).group(1)) // 1024


def written(table, compression=None):
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression=compression)) as writer:
        writer.write_table(table)
    return sink.getvalue()


def zeros(n):
    # Pages that nobody has written are all one.
    return pa.table({"n": np.zeros(n, dtype=np.int64)})


def forged(compression, find, put, n=1000):
    """A stream in which a number says something else."""
    body, number = written(zeros(n), compression), struct.pack("<q", find)
    assert number in body
    return body.replace(number, struct.pack("<q", put))


LIES = {
    "zstd that unpacks to 400 MB": (lambda: written(zeros(50_000_000), "zstd"), 400, "more than"),
    "lz4 that unpacks to 400 MB": (lambda: written(zeros(50_000_000), "lz4"), 400, "more than"),
    "zstd that does not fit into memory": (lambda: written(zeros(33_000_000), "zstd"), 503, "out of memory"),
    "lz4 that says it is little": (lambda: forged("lz4", 160_000, 8, 20_000), 400, "more than it says"),
    "lz4 that says it is less than nothing": (lambda: forged("lz4", 8000, -2), 400, "less than nothing"),
    "a buffer that ends behind its message": (lambda: forged(None, 8000, 16_000), 400, "cannot be read"),
    "a long description": (lambda: struct.pack("<II", 0xFFFFFFFF, (16 << 20) + 8), 400, "longer than"),
    "half a stream": (lambda: written(zeros(1000))[:-300], 400, "cannot be read"),
    "no stream": (lambda: b"\x00\x01\x02" * 1000, 400, "cannot be read"),
}


@pytest.mark.parametrize("name", LIES)
def test_streams_that_lie(guarded, name):
    body, status, words = LIES[name]
    got, said = guarded.http("POST", "/streams/a", body(), **ARROW)
    assert got == status and re.search(words, said), (got, said)


@pytest.mark.parametrize("compression", ["zstd", "lz4"])
def test_puts_that_unpack_to_too_much(guarded, compression):
    for rows, words in [(67_200_000, "more than"), (40_000_000, "out of memory")]:
        table = zeros(rows)
        options = flight.FlightCallOptions(
            headers=[(b"authorization", b"Bearer " + guarded.token().encode())], timeout=60, write_options=pa.ipc.IpcWriteOptions(compression=compression)
        )
        with pytest.raises((flight.FlightError, pa.ArrowException), match=words):
            writer, reader = guarded.raw().do_put(flight.FlightDescriptor.for_path("a"), table.schema, options)
            writer.write_table(table)
            writer.done_writing()
            reader.read()
            writer.close()


def test_parameters_without_end(guarded):
    batch = pa.record_batch({"p": ["x" * 1000] * 4000})
    batches = pa.RecordBatchReader.from_batches(batch.schema, (batch for _ in range(10_000)))
    with guarded.adbc() as connection, connection.cursor() as cursor:
        cursor.adbc_statement.set_sql_query("SELECT ?")
        cursor.adbc_statement.prepare()
        cursor.adbc_statement.bind_stream(batches)
        with pytest.raises(adbc_driver_manager.Error, match="bulk ingestion"):
            cursor.adbc_statement.execute_query()


def test_statements_without_end(guarded):
    for sql, words in [
        ("SELECT " + "1 + " * 50_000 + "1", "operators follow each other"),
        ("SELECT " + "1 + " * 3_000_000 + "1", "out of memory"),
        ("SELECT password " + "(" * 10_000_000, "out of memory"),
        ("SELECT '" + "x" * (40 << 20), "longer than"),
    ]:
        with pytest.raises((flight.FlightError, pa.ArrowException), match=words):
            guarded.ask(f"Bearer {guarded.token()}", sql)
        if len(sql) < MIB:
            continue
        status, said = guarded.http("POST", "/sql", sql, Content_Type="text/plain")
        assert status in (413, "closed"), said


def test_bodies_without_end(guarded):
    def pieces(first, piece, count):
        yield first
        yield from (piece for _ in range(count))

    rows = b"".join(b'{"n": %d, "t": "x"}\n' % n for n in range(50_000))
    for first, piece in [(b"", rows), (b'{"n": 1, "t": "', b"x" * MIB), (b"[", b"[" * MIB), (b'{"n": 1, "t": ["', b'\\"' * MIB)]:
        for kind in ["application/x-ndjson", "application/json", "text/csv"]:
            # Without a length: it is cut off when it has become too long.
            status, said = guarded.http("POST", "/streams/a", pieces(first, piece, 200), Content_Type=kind)
            assert status in (413, 503, "closed"), (status, said)
            assert status == "closed" or json.loads(said)["hint"]
    # Just short enough, and nothing that fits.
    line = b'{"n": 1, "t": "' + b"x" * (60 * MIB)
    status, said = guarded.http("POST", "/streams/a", line, **LINES)
    assert status in (422, 503) and json.loads(said)["message"], said


def test_headers_without_end(guarded):
    many = {f"x_{i}": "y" for i in range(300)}
    assert guarded.http("GET", "/healthz", **many)[0] in (431, "closed")


def test_slow_senders(guarded):
    """All at once, so that the test waits for the slowest only."""
    context = ssl.create_default_context(cafile=guarded.authority.cert)
    login = base64.b64encode(f"admin:{PASSWORD}".encode()).decode()
    head = f"POST /streams/a HTTP/1.1\r\nhost: x\r\nauthorization: Basic {login}\r\ncontent-type: application/x-ndjson\r\n"
    ended = {}

    def end(name, port, first, tls=True, alpn=None, drip=None, patience=60):
        begun = time.monotonic()
        with socket.create_connection(("localhost", port), patience) as connection:
            if tls:
                if alpn:
                    context.set_alpn_protocols([alpn])
                connection = context.wrap_socket(connection, server_hostname="localhost")
            said = b""
            try:
                connection.sendall(first)
                while drip:
                    time.sleep(0.5)
                    connection.sendall(drip)
                    assert time.monotonic() - begun < patience
                while piece := connection.recv(65536):
                    said += piece
            except (OSError, ssl.SSLError):
                pass
        ended[name] = (time.monotonic() - begun, said)

    attempts = {
        "a body that stops": (guarded.web, f"{head}content-length: 100\r\n\r\n{{".encode(), {}),
        "a body in chunks that stops": (guarded.web, f"{head}transfer-encoding: chunked\r\n\r\n1\r\n{{\r\n".encode(), {}),
        "a head that stops": (guarded.web, head.encode(), {}),
        "a head in drops": (guarded.web, head.encode(), {"drip": b"x"}),
        "half a hello to HTTP": (guarded.web, b"\x16\x03\x01\x02\x00\x01", {"tls": False}),
        "half a hello to Flight": (guarded.port, b"\x16\x03\x01\x02\x00\x01", {"tls": False}),
        "a hello in drops": (guarded.port, b"\x16\x03\x01\x02\x00", {"tls": False, "drip": b"\x01"}),
        "nothing to Flight": (guarded.port, b"", {}),
        "a greeting to Flight": (guarded.port, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00", {}),
    }
    threads = [
        threading.Thread(target=end, args=(name, port, first), kwargs=options, daemon=True)
        for name, (port, first, options) in attempts.items()
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(90)
    assert set(ended) == set(attempts), "these were waited for: " + str(set(attempts) - set(ended))
    assert all(seconds < 60 for seconds, _ in ended.values()), ended
    for name in ["a body that stops", "a body in chunks that stops"]:
        seconds, said = ended[name]
        assert 15 < seconds and said.startswith(b"HTTP/1.1 408 ") and b"too slowly" in said, ended[name]


@pytest.mark.parametrize("door", ["port", "web"])
def test_two_thousand_idle_connections(guarded, door):
    idle = []
    try:
        for _ in range(2000):
            try:
                idle.append(socket.create_connection(("127.0.0.1", getattr(guarded, door)), 5))
            except OSError:
                break
        assert len(idle) > 1000
        # Others are served meanwhile.
        assert guarded.run("SELECT 1") == [(1,)] if door == "web" else guarded.http("GET", "/healthz")[0] == 200
    finally:
        for connection in idle:
            connection.close()
    time.sleep(0.5)
    assert guarded.http("GET", "/healthz")[0] == 200


def test_many_requests_at_once_stay_within_memory(guarded):
    """Large bodies from many sides: some are told to come later, all get an answer."""
    body = written(pa.table({"n": np.arange(3_900_000), "m": np.arange(3_900_000)}))
    assert len(body) > 59 * MIB
    said = []

    def post():
        said.append(guarded.http("POST", "/streams/a", body, **ARROW))

    threads = [threading.Thread(target=post) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert len(said) == 12
    assert {status for status, _ in said} <= {400, 413, 422, 503, "closed"}, said


def test_many_puts_at_once_stay_within_memory(tmp_path):
    """Together they are five times the budget. What the allocator has not given back yet, and windows of 40 connections, are beside it."""
    table = pa.table({"m": np.arange(4_000_000)})
    said = []

    def put(guarded):
        options = flight.FlightCallOptions(headers=[(b"authorization", b"Bearer " + guarded.token().encode())], timeout=100)
        try:
            writer, reader = guarded.raw().do_put(flight.FlightDescriptor.for_path("a"), table.schema, options)
            writer.write_table(table)
            writer.done_writing()
            reader.read()
            writer.close()
        except (flight.FlightError, pa.ArrowException) as e:
            said.append(str(e))

    with Guarded(tmp_path, "--memory-limit", f"{BUDGET}MB") as guarded:
        guarded.run("CREATE STREAM a (n BIGINT, t TEXT)")
        threads = [threading.Thread(target=put, args=(guarded,)) for _ in range(40)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
        assert len(said) == 40 and any("out of memory: a message that a client sends" in one for one in said), said
        assert most(guarded) < 2 * (BUDGET + SLACK), f"{most(guarded)} MiB at the most"
        assert guarded.run("SELECT count(*) FROM a") == [(0,)]
