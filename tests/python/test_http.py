"""The HTTP server: rows in, once and durable; rows, statements and figures out; bounds; and programs of others that use it."""

import base64
import concurrent.futures
import gzip
import http.client
import io
import json
import random
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.parse
import uuid

import pyarrow as pa
import pyarrow.csv
import pyarrow.ipc
import pytest
from conftest import Server, duck, parquet, run

NDJSON = {"Content-Type": "application/x-ndjson"}
SEED = 20260915


class HttpServer(Server):
    """`millstream serve` with HTTP, on a free port where none is said."""

    def __init__(self, store, *args, http="127.0.0.1:0", **options):
        super().__init__(store, "--http", http, *args, **options)
        self.port = int(self.wait_for(r"^http: http://127.0.0.1:(\d+)$", "stderr").group(1))

    def ask(self, method, path, body=None, headers=None, patience=30):
        """The status, the headers and the body of an answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=patience)
        try:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()
        finally:
            connection.close()

    def json(self, method, path, body=None, headers=None, status=200):
        got, _, content = self.ask(method, path, body, headers)
        assert got == status, (got, content)
        return json.loads(content)

    def sql(self, sql, status=200):
        return self.json("POST", "/sql", sql, {"Content-Type": "text/plain"}, status)

    def post(self, stream, rows, status=200, query="", **headers):
        body = "".join(json.dumps(row) + "\n" for row in rows)
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.json("POST", f"/streams/{stream}{query}", body, NDJSON | headers, status)

    def rows(self, stream, **parameters):
        return self.json("GET", f"/streams/{stream}?{urllib.parse.urlencode(parameters)}")


@pytest.fixture(scope="module")
def web(tmp_path_factory):
    with HttpServer(tmp_path_factory.mktemp("http") / "store") as server:
        yield server
        assert server.stop() == 0, server.stderr


@pytest.fixture
def stream(web):
    """A new stored stream."""
    name = "s" + uuid.uuid4().hex[:8]
    web.sql(f"CREATE STREAM {name} (n BIGINT NOT NULL, t TEXT, at TIMESTAMP, x DOUBLE)")
    return name


def test_rows_go_in_and_come_out_in_each_format(web, stream):
    table = pa.table({"n": [5, 6], "t": ["a,b", None]})
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    bodies = [
        ("application/x-ndjson", b'{"n": 1, "t": "a"}\n{"n": 2, "at": "2026-01-02T03:04:05Z"}\n'),
        ("application/json", b'[{"n": 3, "x": 0.5}, {"n": 9007199254740993}]'),
        ("application/json", b'{"n": 7}'),
        ("text/csv", b't,n\n"q""q",4\n'),
        ("application/vnd.apache.arrow.stream", sink.getvalue()),
    ]
    for kind, body in bodies:
        said = web.json("POST", f"/streams/{stream}", body, {"Content-Type": kind})
        assert said["rows"] > 0 and said["dead_letters"] == 0 and not said["repeated"]
    rows = sorted(web.rows(stream), key=lambda row: row["n"])
    assert [row["n"] for row in rows] == [1, 2, 3, 4, 5, 6, 7, 9007199254740993]
    assert rows[1]["at"].startswith("2026-01-02T03:04:05")
    assert (rows[2]["x"], rows[3]["t"], rows[4]["t"], rows[5]["t"]) == (0.5, 'q"q', "a,b", None)
    assert len(web.rows(stream, where="n > 3 AND t IS NOT NULL")) == 2
    assert len(web.rows(stream, limit=3)) == 3
    _, headers, content = web.ask("GET", f"/streams/{stream}?where=n%3D4", headers={"Accept": "text/csv"})
    assert headers["content-type"].startswith("text/csv") and content.decode().splitlines()[1].startswith('4,"q""q"')
    _, _, content = web.ask("GET", f"/streams/{stream}", headers={"Accept": "application/vnd.apache.arrow.stream"})
    assert pa.ipc.open_stream(content).read_all().num_rows == 8
    _, _, content = web.ask("GET", f"/streams/{stream}?format=ndjson")
    assert len([json.loads(line) for line in content.splitlines()]) == 8
    assert web.sql(f"SELECT count(*) AS c, CAST('NaN' AS DOUBLE) AS f FROM {stream}") == [{"c": 8, "f": "NaN"}]
    done = web.sql(f"INSERT INTO {stream} (n) VALUES (10), (11)")
    assert (done["tag"], done["rows"]) == ("INSERT", 2)


def test_what_is_wrong_is_said(web, stream):
    web.post(stream, [{"n": 1}])
    for method, path, body, headers, status, word in [
        ("GET", "/streams/nobody", None, {}, 404, "nobody"),
        ("GET", f"/streams/{stream}?where=m>1", None, {}, 404, '"m"'),
        ("GET", f"/streams/{stream}?where=n>1;DROP+STREAM+{stream}", None, {}, 400, "condition"),
        ("GET", f"/streams/{stream}?where=n>1)+OR+(n<5", None, {}, 400, "condition"),
        ("GET", f"/streams/{stream}?limit=-1", None, {}, 400, "limit"),
        ("GET", f"/streams/{stream}?lmit=1", None, {}, 400, "lmit"),
        ("GET", f"/streams/{stream}", None, {"Accept": "text/html"}, 406, "format"),
        ("POST", f"/streams/{stream}", "<n/>", {"Content-Type": "application/xml"}, 415, "application/xml"),
        ("POST", f"/streams/{stream}", "{}", NDJSON | {"Content-Encoding": "br"}, 415, "br"),
        ("POST", f"/streams/{stream}", "no gzip", NDJSON | {"Content-Encoding": "gzip"}, 400, "unpacked"),
        ("POST", f"/streams/{stream}", "{}", NDJSON | {"Idempotency-Key": ""}, 400, "Idempotency-Key"),
        ("POST", "/sql", "SELEC 1", {"Content-Type": "text/plain"}, 400, "SELEC"),
        ("POST", "/sql", "SELECT 1; SELECT 2", {"Content-Type": "text/plain"}, 400, "2 statements"),
        ("POST", "/sql", "SET parallelism = 2", {"Content-Type": "text/plain"}, 422, "parallelism"),
        ("POST", "/sql", '{"sq": "SELECT 1"}', {"Content-Type": "application/json"}, 400, "sql"),
        ("PUT", "/sql", "", {}, 405, "PUT"),
        ("GET", "/", None, {}, 404, "nothing"),
    ]:
        said = web.json(method, urllib.parse.quote(path, safe="/?=&+;%"), body, headers, status)
        assert word in said["message"] and said["kind"], (path, said)
    assert web.sql(f"SELECT count(*) AS c FROM {stream}") == [{"c": 1}], "nothing was done"
    web.sql(f"PAUSE STREAM {stream}")
    status, headers, content = web.ask("POST", f"/streams/{stream}", '{"n":1}', NDJSON)
    assert status == 503 and headers["retry-after"] and b"RESUME" in content


def test_rows_that_do_not_fit(web, stream):
    body = b'{"n": 1}\n\n{"n": "x"}\n{"t": "n is null"}\n{"n": 2\n{"n": 3}\n'
    said = web.json("POST", f"/streams/{stream}", body, NDJSON, 422)
    assert [row["line"] for row in said["rows"]] == [3, 4, 5] and "none was taken" in said["message"]
    assert web.rows(stream) == []
    said = web.json("POST", f"/streams/{stream}?on_error=dead_letter", body, NDJSON)
    assert (said["rows"], said["dead_letters"]) == (2, 3)
    assert sorted(row["n"] for row in web.rows(stream)) == [1, 3]
    letters = web.sql(f"SELECT line, raw FROM millstream.dead_letters WHERE stream = '{stream}' ORDER BY line")
    assert [letter["line"] for letter in letters] == [3, 4, 5]
    said = web.json("POST", f"/streams/{stream}?on_error=dead_letter", b"nonsense\n", NDJSON)
    assert (said["rows"], said["dead_letters"]) == (0, 1)
    assert len(web.sql(f"SELECT line FROM millstream.dead_letters WHERE stream = '{stream}'")) == 4


def test_a_key_is_taken_once(web, stream):
    key = str(uuid.uuid4())
    rows = [{"n": i} for i in range(10)]
    assert not web.post(stream, rows, Idempotency_Key=key)["repeated"]
    said = web.post(stream, rows, Idempotency_Key=key)
    assert said["repeated"] and said["rows"] == 10
    packed = gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode())
    said = web.json("POST", f"/streams/{stream}", packed, NDJSON | {"Idempotency-Key": key, "Content-Encoding": "gzip"})
    assert said["repeated"], "the same rows, packed"
    assert "other rows" in web.post(stream, rows[1:], 422, Idempotency_Key=key)["message"]
    web.post(stream, rows, 422, query="?on_error=dead_letter", Idempotency_Key=key)
    # A request that was refused has not used its key.
    other = str(uuid.uuid4())
    web.post(stream, [{"n": "x"}], 422, Idempotency_Key=other)
    assert not web.post(stream, [{"n": 77}], Idempotency_Key=other)["repeated"]
    assert len(web.rows(stream)) == 11
    # The same key at another stream is another matter.
    web.sql(f"CREATE STREAM {stream}b (n BIGINT)")
    assert not web.post(stream + "b", rows, Idempotency_Key=key)["repeated"]


def test_twins_wait_for_the_first(web, stream):
    with concurrent.futures.ThreadPoolExecutor(32) as pool:
        for batch in range(5):
            key = str(uuid.uuid4())
            rows = [{"n": batch * 100 + i} for i in range(100)]
            said = list(pool.map(lambda _: web.post(stream, rows, Idempotency_Key=key), range(32)))
            assert sum(not one["repeated"] for one in said) == 1 and all(one["rows"] == 100 for one in said)
    assert sorted(row["n"] for row in web.rows(stream)) == list(range(500))


def test_a_twin_tries_itself_when_the_first_breaks_off(web, stream):
    key = str(uuid.uuid4())
    with socket.create_connection(("127.0.0.1", web.port)) as first:
        head = f"POST /streams/{stream} HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-ndjson\r\nIdempotency-Key: {key}\r\n"
        first.sendall(f"{head}Content-Length: 1000\r\n\r\n{{\"n\": 1}}\n".encode())
        time.sleep(0.2)
    assert not web.post(stream, [{"n": 1}], Idempotency_Key=key)["repeated"]
    assert len(web.rows(stream)) == 1, "half a body is nothing"


def test_one_row_in_one_row_out_while_the_input_stays_open(web, stream):
    connection = http.client.HTTPConnection("127.0.0.1", web.port, timeout=30)
    for n in range(3):
        connection.request("POST", f"/streams/{stream}", json.dumps({"n": n}), NDJSON)
        assert json.loads(connection.getresponse().read())["rows"] == 1
        connection.request("GET", f"/streams/{stream}?where=n%3D{n}")
        assert [row["n"] for row in json.loads(connection.getresponse().read())] == [n]
    connection.close()


def test_each_row_once_whatever_is_killed(tmp_path):
    """Writers repeat what was not answered, under the same key, while the server is killed again and again."""
    store, chance = tmp_path / "store", random.Random(SEED)
    print("seed", SEED)
    batches, size, writers = 240, 50, 6
    lock, server, answered = threading.Lock(), None, []

    def write(worker):
        repeated = 0
        for batch in range(worker, batches, writers):
            rows = "".join(json.dumps({"n": batch * size + i}) + "\n" for i in range(size))
            while True:
                with lock:
                    port = server.port
                try:
                    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
                    connection.request("POST", "/streams/s", rows, NDJSON | {"Idempotency-Key": f"batch-{batch}"})
                    answer = connection.getresponse()
                    content = json.loads(answer.read())
                    if answer.status == 200:
                        assert content["rows"] == size
                        repeated += content["repeated"]
                        answered.append(batch)
                        break
                    assert answer.status == 503, content
                except (OSError, http.client.HTTPException, json.JSONDecodeError):
                    pass
                finally:
                    connection.close()
                time.sleep(0.02)
        return repeated

    server = HttpServer(store, "--checkpoint-interval", "50ms")
    server.sql("CREATE STREAM s (n BIGINT)")
    with concurrent.futures.ThreadPoolExecutor(writers) as pool:
        writing = [pool.submit(write, worker) for worker in range(writers)]
        # Each after another part of the work, however quick that is.
        for at in sorted(chance.sample(range(5, batches - writers), 6)):
            while len(answered) < at and not all(w.done() for w in writing):
                time.sleep(0.002)
            server.kill()
            with lock:
                server = HttpServer(store, "--checkpoint-interval", "50ms")
        repeated = sum(w.result() for w in writing)
    print(f"{repeated} requests were answered from their receipt")
    with server:
        assert sorted(row["n"] for row in server.rows("s")) == list(range(batches * size))
        # Receipts outlast restarts.
        rows = [{"n": i} for i in range(size)]
        assert server.post("s", rows, Idempotency_Key="batch-0")["repeated"]
        assert server.stop() == 0
    assert duck(f"SELECT count(*), count(DISTINCT n) FROM '{parquet(store, 's')}'") == [(batches * size, batches * size)]


def test_bodies_have_bounds(web, stream):
    before = memory(web)
    bomb = gzip.compress(b" " * (300 << 20), 9)
    assert len(bomb) < 1 << 20
    for kind in ["application/json", "application/x-ndjson", "text/csv", "application/vnd.apache.arrow.stream"]:
        headers = {"Content-Type": kind, "Content-Encoding": "gzip"}
        status, _, content = web.ask("POST", f"/streams/{stream}", bomb, headers, patience=60)
        assert status in (413, 400), (kind, content)
    headers = {"Content-Type": "application/json", "Content-Length": str(1 << 40)}
    connection = http.client.HTTPConnection("127.0.0.1", web.port, timeout=30)
    connection.putrequest("POST", f"/streams/{stream}")
    for name, value in headers.items():
        connection.putheader(name, value)
    connection.endheaders()
    assert connection.getresponse().status == 413
    connection.close()
    status, _, _ = web.ask("GET", "/healthz", headers={"X-Long": "x" * 100_000})
    assert status == 431
    assert web.rows(stream) == [] and memory(web) < before + (32 << 20), "all is given back"


def memory(web):
    """Bytes of the budget in use."""
    page = web.ask("GET", "/metrics")[2].decode()
    return int(float(next(l for l in page.splitlines() if l.startswith("millstream_memory_used_bytes ")).split()[1]))


def test_connections_have_bounds(tmp_path):
    with HttpServer(tmp_path / "store") as server:
        idle = []
        try:
            for _ in range(1024):
                idle.append(socket.create_connection(("127.0.0.1", server.port), timeout=10))
            deadline = time.monotonic() + 20
            while True:
                try:
                    status, _, content = server.ask("GET", "/healthz")
                except (OSError, http.client.HTTPException):
                    continue
                if status == 503:
                    break
                assert time.monotonic() < deadline
            assert json.loads(content)["message"] == "there are too many connections"
        finally:
            for connection in idle:
                connection.close()
        deadline = time.monotonic() + 20
        while server.ask("GET", "/healthz")[0] != 200:
            assert time.monotonic() < deadline
            time.sleep(0.1)


def test_a_client_that_sends_slowly_is_given_up(web):
    begun = time.monotonic()
    with socket.create_connection(("127.0.0.1", web.port), timeout=40) as slow:
        slow.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Slow: ")
        content = b"".join(iter(lambda: slow.recv(4096), b""))
    assert 5 < time.monotonic() - begun < 30, content


def test_a_large_result_is_streamed(web, stream):
    rows = 400_000
    table = pa.table({"n": range(rows), "t": [f"text {i}" for i in range(rows)]})
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=50_000)
    said = web.json("POST", f"/streams/{stream}", sink.getvalue(), {"Content-Type": "application/vnd.apache.arrow.stream"})
    assert said["rows"] == rows
    connection = http.client.HTTPConnection("127.0.0.1", web.port, timeout=60)
    connection.request("GET", f"/streams/{stream}?format=ndjson")
    answer, count = connection.getresponse(), 0
    assert answer.getheader("transfer-encoding") == "chunked"
    while piece := answer.read(1 << 20):
        count += piece.count(b"\n")
    assert count == rows
    # One that stops reading in the middle takes nothing along.
    connection.request("GET", f"/streams/{stream}?format=json")
    connection.getresponse().read(1000)
    connection.close()
    assert web.sql(f"SELECT count(*) AS c FROM {stream}") == [{"c": rows}]


def test_ending_the_server(tmp_path):
    with HttpServer(tmp_path / "store") as server:
        server.sql("CREATE STREAM s (n BIGINT)")
        server.post("s", [{"n": 1}])
        assert server.json("GET", "/readyz")["running"] == 1
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
        connection.request("POST", "/sql?format=ndjson", "SELECT * FROM s EMIT CHANGES", {"Content-Type": "text/plain"})
        answer = connection.getresponse()
        assert json.loads(answer.readline())["n"] == 1
        server.post("s", [{"n": 2}])
        assert json.loads(answer.readline())["n"] == 2
        begun = time.monotonic()
        assert server.stop() == 0 and time.monotonic() - begun < 9, server.stderr
        with pytest.raises((http.client.IncompleteRead, OSError)):
            answer.read()
        connection.close()


def test_metrics_are_what_prometheus_takes(web, stream):
    web.post(stream, [{"n": 1}, {"n": 2}])
    status, headers, page = web.ask("GET", "/metrics")
    assert status == 200 and headers["content-type"].startswith("text/plain; version=0.0.4")
    lines = page.decode().splitlines()
    assert f'millstream_job_rows_read_total{{stream="{stream}"}} 2' in lines
    for name in ["lag_seconds", "epoch_seconds", "checkpoint_seconds", "checkpoint_bytes", "late_rows_total", "dead_letters_total"]:
        assert name == "lag_seconds" or any(l.startswith(f'millstream_job_{name}{{stream="{stream}"}}') for l in lines), name
    tool = shutil.which("promtool")
    assert tool, "there is no promtool: install prometheus"
    checked = subprocess.run([tool, "check", "metrics"], input=page, capture_output=True)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_metrics_have_what_connectors_count(tmp_path):
    login = lambda user: {"Authorization": "Basic " + base64.b64encode(f"{user}:long enough 1".encode()).decode()}
    store = tmp_path / "store"
    run(store, "CREATE USER boss PASSWORD 'long enough 1'; GRANT ADMIN ON ALL TO boss; CREATE USER ann PASSWORD 'long enough 1';")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out, HttpServer(store, "--connect-to", "127.0.0.1") as server:
        out.bind(("127.0.0.1", 0))
        out.settimeout(30)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
            free.bind(("127.0.0.1", 0))
            address = free.getsockname()
        udp = "connector = 'socket', protocol = 'udp', format = 'json'"
        for sql in [
            f"CREATE STREAM heard (n BIGINT) WITH ({udp}, address = '127.0.0.1:{address[1]}')",
            f"CREATE STREAM told WITH ({udp}, address = '127.0.0.1:{out.getsockname()[1]}', checkpoint_interval = '50 ms') AS SELECT * FROM heard",
            "GRANT READ ON STREAM told TO ann",
        ]:
            server.json("POST", "/sql", sql, {"Content-Type": "text/plain"} | login("boss"))
        deadline = time.monotonic() + 30
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as to:
            to.sendto(b'{"n": 7}', address)
            assert json.loads(out.recv(100)) == {"n": 7}
        while True:
            page = server.ask("GET", "/metrics", headers=login("boss"))[2]
            lines = page.decode().splitlines()
            if 'millstream_sink_datagrams_sent_total{stream="told"} 1' in lines:
                break
            assert time.monotonic() < deadline, page.decode()
        dropped = 'millstream_source_datagrams_dropped_total{stream="told",source="heard"} 0'
        assert dropped in lines and "# TYPE millstream_source_datagrams_dropped_total counter" in lines
        checked = subprocess.run(["promtool", "check", "metrics"], input=page, capture_output=True)
        assert checked.returncode == 0, checked.stdout + checked.stderr
        # What a stream reads is told to who may read that.
        page = server.ask("GET", "/metrics", headers=login("ann"))[2].decode()
        assert 'millstream_sink_datagrams_sent_total{stream="told"} 1' in page and "heard" not in page


def test_schemathesis_finds_nothing(tmp_path):
    """A program of others makes requests out of /openapi.json, good ones and bad ones, and looks at the answers."""
    with HttpServer(tmp_path / "store") as server:
        server.sql("CREATE STREAM name (n BIGINT, t TEXT)")
        command = [sys.executable, "-m", "schemathesis.cli", "run", f"http://127.0.0.1:{server.port}/openapi.json"]
        # That a text is SQL, or fits a stream, no schema can say.
        options = ["--max-examples", "25", "--seed", str(SEED), "--no-color", "--exclude-checks", "positive_data_acceptance", "--exclude-path-regex", "changes$"]
        checked = subprocess.run(command + options, capture_output=True, text=True, timeout=300, cwd=tmp_path)
        assert checked.returncode == 0, checked.stdout[-6000:] + checked.stderr[-2000:]


def test_users_are_asked_who_they_are(tmp_path):
    store = tmp_path / "store"
    run(
        store,
        """CREATE STREAM a (n BIGINT); CREATE STREAM b (n BIGINT); INSERT INTO a VALUES (1);
        CREATE USER boss PASSWORD 'long enough 1'; GRANT ADMIN ON ALL TO boss;
        CREATE USER ann PASSWORD 'long enough 2'; GRANT READ ON STREAM a TO ann;""",
    )
    login = lambda user, password: {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}
    ann, boss = login("ann", "long enough 2"), login("boss", "long enough 1")
    with HttpServer(store) as server:
        for path in ["/streams/a", "/metrics"]:
            status, headers, content = server.ask("GET", path)
            assert status == 401 and headers["www-authenticate"].startswith("Basic"), content
        assert server.ask("GET", "/streams/a", headers=login("ann", "wrong"))[0] == 401
        assert server.ask("GET", "/healthz")[0] == 200 and server.ask("GET", "/readyz")[0] == 200
        assert server.json("GET", "/streams/a", headers=ann) == [{"n": 1}]
        assert server.json("GET", "/streams/b", headers=ann, status=403)["kind"] == "denied"
        assert server.json("POST", "/streams/a", '{"n": 2}', NDJSON | ann, 403)["kind"] == "denied"
        assert server.json("POST", "/sql", "DROP STREAM a", {"Content-Type": "text/plain"} | ann, 403)
        page = server.ask("GET", "/metrics", headers=ann)[2].decode()
        assert 'stream="a"' in page and 'stream="b"' not in page
        # One user's key is not another's.
        for user in (boss, boss):
            said = server.json("POST", "/streams/b", '{"n": 2}', NDJSON | user | {"Idempotency-Key": "k"})
        assert said["repeated"]


def events(port, path, last=None):
    """Server-sent events as a browser's EventSource takes them, behind the one with id `last`: ids, and rows or None."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=15)
    try:
        connection.request("GET", path, headers={"Last-Event-ID": last} if last else {})
        answer = connection.getresponse()
        assert answer.status == 200, answer.read()
        position = data = None
        while line := answer.readline().decode():
            match line.rstrip("\n").split(": ", 1):
                case ["id", position]:
                    pass
                case ["data", text]:
                    data = json.loads(text)
                case [""]:
                    if position is not None or data is not None:
                        yield position, data
                    position = data = None
    finally:
        connection.close()


class Events:
    """One who puts whole epochs together, and comes back behind the last one."""

    def __init__(self, port, path):
        self.port, self.path, self.last = port, path, None

    def read(self, epochs, until):
        """Adds whole epochs to `epochs` until they have `until` rows or the connection ends."""
        rows = []
        try:
            for position, row in events(self.port, self.path, self.last):
                rows += [row] if row is not None else []
                if position is not None:
                    # Only now is all of the epoch here.
                    epochs.append(rows)
                    self.last, rows = position, []
                if sum(map(len, epochs)) >= until:
                    break
        except (OSError, http.client.HTTPException):
            pass


def test_changes_are_events_that_one_can_come_back_to(tmp_path):
    chance, store, count = random.Random(SEED), tmp_path / "store", 3000
    server = HttpServer(store, "--checkpoint-interval", "50ms")
    server.sql("CREATE STREAM s (n BIGINT)")
    done = threading.Event()

    def write():
        for batch in range(0, count, 20):
            body = "".join(json.dumps({"n": n}) + "\n" for n in range(batch, batch + 20))
            while True:
                try:
                    headers = NDJSON | {"Idempotency-Key": str(batch)}
                    if server.ask("POST", "/streams/s", body, headers)[0] == 200:
                        break
                except (OSError, http.client.HTTPException):
                    pass
                time.sleep(0.02)

    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    follower, epochs, kills = Events(server.port, "/streams/s/changes"), [], 0
    deadline = time.monotonic() + 120
    while sum(map(len, epochs)) < count and time.monotonic() < deadline:
        # It leaves in the middle of anything.
        follower.read(epochs, min(count, sum(map(len, epochs)) + chance.randrange(1, 400)))
        if kills < 3 and sum(map(len, epochs)) > (kills + 1) * count // 5:
            server.kill()
            kills += 1
            server = HttpServer(store, "--checkpoint-interval", "50ms")
            follower.port = server.port
    with server:
        assert kills == 3
        assert sorted(row["n"] for rows in epochs for row in rows) == list(range(count))
        # A condition, the present content, and positions that are none.
        behind = Events(server.port, "/streams/s/changes?where=n%3C3&snapshot=true")
        some = []
        behind.read(some, 3)
        assert sorted(row["n"] for rows in some for row in rows) == [0, 1, 2]
        for since, status in [("x", 400), ("other-1:5", 400), ("99999999", 400)]:
            said = server.json("GET", f"/streams/s/changes?since={since}", status=status)
            assert said["message"] and said["kind"], said
        assert server.stop() == 0
