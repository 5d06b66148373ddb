"""Connector http: a server that is polled, with pages, versions and bad days, and one that rows are posted to."""

import contextlib
import gzip
import http.server
import json
import random
import re
import shutil
import ssl
import threading
import time
import urllib.parse

import pytest
from certificates import Authority
from conftest import PATIENCE, Server, run

SEED = 4711


class Site:
    """An HTTP server of which a test says what it answers, and with which TLS."""

    def __init__(self, answer, tls=None):
        site = self
        self.requests, self.lock = [], threading.Lock()

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do(self):
                length = int(self.headers.get("Content-Length") or 0)
                url = urllib.parse.urlsplit(self.path)
                self.args, self.url = dict(urllib.parse.parse_qsl(url.query)), url.path
                self.body = self.rfile.read(length)
                with site.lock:
                    site.requests.append((self.command, self.path, dict(self.headers), self.body))
                answer(self)

            do_GET = do_POST = do_PUT = do

            def say(self, status, body=b"", **headers):
                if not isinstance(body, bytes):
                    body = json.dumps(body).encode()
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name.replace("_", "-"), value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        # A handshake that fails is what a test may want.
        self.server.handle_error = lambda *_: None
        self.tls = tls
        if tls:
            self.server.get_request = self.secured
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def secured(self):
        connection, address = self.server.socket.accept()
        return self.tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False), address

    def close(self):
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def site():
    made = []

    def make(answer, tls=None):
        made.append(Site(answer, tls))
        return made[-1]

    yield make
    for one in made:
        one.close()


@contextlib.contextmanager
def opened(store, *args):
    """A server and a cursor; the server must end well, unless it was killed."""
    with Server(store, "--connect-to", "127.0.0.1", *args) as server:
        connection = server.connect()
        cursor = connection.cursor()
        try:
            yield server, cursor
            alive = server.process.poll() is None
        finally:
            for one in (cursor, connection):
                # Of a server that was killed nothing can be closed.
                with contextlib.suppress(Exception):
                    one.close()
        if alive:
            assert server.stop() == 0, server.stderr


def rows(cursor, sql):
    cursor.execute(sql)
    return [tuple(row) for row in cursor.fetchall()]


def eventually(check, patience=PATIENCE):
    deadline = time.monotonic() + patience
    while True:
        found = check()
        if found or time.monotonic() > deadline:
            return found
        time.sleep(0.05)


def written(options):
    return ", ".join(f"{name} = '{value}'" for name, value in options.items())


def source(site, columns="id BIGINT, t TEXT", **options):
    options = {"connector": "http", "url": site.url + "/rows", "interval": "50 ms", "max_retry_delay": "200 ms"} | options
    return f"CREATE STREAM polled ({columns}) WITH ({written(options)});"


KEPT = "CREATE STREAM kept WITH (checkpoint_interval = '50 ms') AS SELECT * FROM polled;"


def follow(store, site, statement, want, sql="SELECT id FROM kept ORDER BY id"):
    with opened(store) as (server, cursor):
        cursor.execute(statement)
        cursor.execute(KEPT)
        assert eventually(lambda: rows(cursor, sql) == want), (rows(cursor, sql), server.stderr)
        # Nothing else comes of polling on.
        asked = len(site.requests)
        assert eventually(lambda: len(site.requests) > asked + 2)
        assert rows(cursor, sql) == want


def test_one_row_in_one_row_out_while_the_input_stays_open(store, site):
    offered = []
    polled = site(lambda r: r.say(200, offered))
    with opened(store) as (server, cursor):
        cursor.execute(source(polled, key="/id"))
        cursor.execute(KEPT)
        for n in range(3):
            offered.append({"id": n, "t": "x"})
            assert eventually(lambda: rows(cursor, "SELECT id FROM kept ORDER BY id") == [(i,) for i in range(n + 1)])
        figures = "\n".join(row[0] for row in rows(cursor, "EXPLAIN ANALYZE STREAM kept"))
        assert "requests " in figures and "rows_seen_before" in figures, figures
        cursor.execute("PAUSE STREAM kept")
        asked = len(polled.requests)
        time.sleep(0.5)
        assert len(polled.requests) <= asked + 1, "who is paused asks for nothing"


def test_what_reads_a_server_can_be_replaced(store, site):
    polled = site(lambda r: r.say(200, [{"id": 1}, {"id": 2}]))
    with opened(store) as (_, cursor):
        cursor.execute(source(polled, key="/id"))
        cursor.execute(KEPT)
        assert eventually(lambda: rows(cursor, "SELECT id FROM kept ORDER BY id") == [(1,), (2,)])
        cursor.execute("CREATE OR REPLACE STREAM kept AS SELECT id * 10 AS ten FROM polled")
        assert eventually(lambda: rows(cursor, "SELECT ten FROM kept ORDER BY ten") == [(10,), (20,)])


def test_pages_by_link_cursor_and_number(store, site, tmp_path):
    items = [{"id": i, "t": str(i)} for i in range(10)]

    def next_link(r):
        at = int(r.args.get("at", 0))
        more = f"/rows?at={at + 3}" if at + 3 < len(items) else None
        body = {"data": {"items": items[at : at + 3]}, "links": {"next": more}}
        r.say(200, gzip.compress(json.dumps(body).encode()), Content_Encoding="gzip")

    def header_link(r):
        at = int(r.args.get("at", 0))
        more = {"Link": f'<?at={at + 4}>; rel="next"'} if at + 4 < len(items) else {}
        r.say(200, items[at : at + 4], **more)

    def cursor(r):
        at = int(r.args.get("after", 0))
        r.say(200, {"rows": items[at : at + 4], "next": min(at + 4, len(items))})

    def number(r):
        at = int(r.args["page"]) * 4
        r.say(200, items[at : at + 4])

    want = [(i,) for i in range(10)]
    for i, (answer, options) in enumerate([
        (next_link, {"rows": "/data/items", "next": "/links/next", "key": "/id"}),
        (header_link, {"next": "link", "key": "/id"}),
        (cursor, {"rows": "/rows", "cursor": "/next", "cursor_param": "after"}),
        (number, {"page_param": "page", "first_page": "0", "key": "/id"}),
    ]):
        polled = site(answer)
        follow(tmp_path / str(i), polled, source(polled, **options), want)


def test_what_a_request_says(store, site):
    polled = site(lambda r: r.say(200, [{"id": 1}]))
    options = {"method": "POST", "headers": "X-A: 1\nX-B: two", "params": "a=b c&d=e", "body": "{}", "key": "/id"}
    follow(store, polled, source(polled, **options), [(1,)])
    method, path, headers, body = polled.requests[0]
    assert (method, body) == ("POST", b"{}") and {k.lower(): v for k, v in headers.items()}["x-b"] == "two"
    assert urllib.parse.parse_qs(urllib.parse.urlsplit(path).query) == {"a": ["b c"], "d": ["e"]}


def test_what_has_not_changed_is_not_sent_again(store, site):
    def answer(r):
        if r.headers.get("If-None-Match") == '"v1"':
            return r.say(304, ETag='"v1"')
        r.say(200, [{"id": 1}, {"id": 2}], ETag='"v1"')

    polled = site(answer)
    follow(store, polled, source(polled), [(1,), (2,)])
    # Also after a restart: the version is kept with the rows.
    with opened(store) as (server, cursor):
        asked = len(polled.requests)
        assert eventually(lambda: len(polled.requests) > asked + 2)
        assert rows(cursor, "SELECT id FROM kept ORDER BY id") == [(1,), (2,)]


def test_a_server_with_bad_days(store, site):
    """It is gone, slow, sends half an answer, other types, and says when to come back."""
    days = iter(range(1000))

    def answer(r):
        day = next(days)
        if day == 0:
            return r.say(500, b"no")
        if day == 1:
            return r.say(429, b"later", Retry_After="1")
        if day == 2:
            time.sleep(1.5)
            return r.say(200, [{"id": 99}])
        if day == 3:
            # Half of what it announced.
            r.send_response(200)
            r.send_header("Content-Length", "1000")
            r.end_headers()
            r.wfile.write(b'[{"id": 98}')
            r.close_connection = True
            return None
        if day == 4:
            return r.say(200, b'[{"id": 1}, {"id": "x"}, ')
        if day == 5:
            return r.say(200, b'[{"id": 1}, {"id": "x"}, {"id": 2}]')
        r.say(200, [{"id": 1}, {"id": "x"}, {"id": 2}, {"id": 3}])

    polled = site(answer)
    begun = time.monotonic()
    with opened(store) as (server, cursor):
        cursor.execute(source(polled, key="/id", timeout="500 ms"))
        cursor.execute(KEPT)
        assert eventually(lambda: rows(cursor, "SELECT id FROM kept ORDER BY id") == [(1,), (2,), (3,)]), server.stderr
        assert time.monotonic() - begun > 1, "it was told to wait"
        letters = eventually(lambda: rows(cursor, "SELECT reason FROM millstream.dead_letters WHERE stream = 'kept'"))
        assert len(letters) == 2, letters
        assert "429" in server.stderr and "500" in server.stderr


def test_each_key_once_whatever_is_killed(store, site):
    """The server offers the last thousand of what grows; Millstream is killed again and again."""
    chance, top = random.Random(SEED), [0]
    polled = site(lambda r: r.say(200, [{"id": i} for i in range(max(0, top[0] - 1000), top[0])]))
    statement = source(polled, key="/id", key_memory="3000", interval="20 ms")
    run(store, statement.replace("CREATE STREAM", "CREATE STREAM IF NOT EXISTS"))
    for kill in range(8):
        with opened(store) as (server, cursor):
            if kill == 0:
                cursor.execute(KEPT)
            for _ in range(10):
                top[0] += chance.randrange(40)
                time.sleep(chance.uniform(0.0, 0.05))
            if kill < 7:
                server.kill()
                continue
            want = [(i,) for i in range(top[0])]
            assert eventually(lambda: rows(cursor, "SELECT id FROM kept ORDER BY id") == want), server.stderr


def sink(site, **options):
    options = {"connector": "http", "url": site.url + "/in", "max_retry_delay": "200 ms", "checkpoint_interval": "50 ms"} | options
    return f"CREATE STREAM posted WITH ({written(options)}) AS SELECT * FROM s"


def test_rows_are_posted_in_each_format(store, site):
    posted = site(lambda r: r.say(200))
    for format, read in [
        ("json", lambda body: [row["n"] for row in json.loads(body)]),
        ("ndjson", lambda body: [json.loads(line)["n"] for line in body.splitlines()]),
        ("csv", lambda body: [int(line) for line in body.decode().splitlines()[1:]]),
    ]:
        with opened(store) as (server, cursor):
            cursor.execute("CREATE STREAM s (n BIGINT)")
            cursor.execute(sink(posted, format=format, batch_rows="3"))
            posted.requests.clear()
            for n in range(2):
                cursor.execute(f"INSERT INTO s VALUES ({n * 5}), ({n * 5 + 1}), ({n * 5 + 2}), ({n * 5 + 3}), ({n * 5 + 4})")
                assert eventually(lambda: sum(len(read(r[3])) for r in posted.requests) == (n + 1) * 5), posted.requests
            assert all(len(read(r[3])) <= 3 for r in posted.requests)
            assert sorted(n for r in posted.requests for n in read(r[3])) == list(range(10))
            cursor.execute("DROP STREAM posted")
            cursor.execute("DROP STREAM s")


def test_posts_are_repeated_under_one_key(store, site):
    """The server takes and forgets to answer, is full, is away; Millstream is killed. Each row counts once by its key."""
    chance, taken, away = random.Random(SEED), {}, [False]

    def answer(r):
        luck = chance.random()
        if away[0] or luck < 0.2:
            return r.say(503, b"full", Retry_After="0")
        key = next(value for name, value in r.headers.items() if name.lower() == "idempotency-key")
        body = json.loads(r.body)
        assert taken.setdefault(key, body) == body, "a key is of the same rows for ever"
        if luck < 0.4:
            r.close_connection = True
            return None
        r.say(200)

    posted = site(answer)
    total = 0
    for kill in range(6):
        with opened(store, "--checkpoint-interval", "50ms") as (server, cursor):
            if kill == 0:
                cursor.execute("CREATE STREAM s (n BIGINT)")
                cursor.execute(sink(posted, batch_rows="10"))
            for _ in range(5):
                values = ", ".join(f"({n})" for n in range(total, total + 25))
                cursor.execute(f"INSERT INTO s VALUES {values}")
                total += 25
            away[0] = kill == 3
            time.sleep(chance.uniform(0, 0.3))
            if kill == 4:
                # What was committed while the server was away comes without anything new.
                assert eventually(lambda: len({n for body in taken.values() for n in (row["n"] for row in body)}) == total)
            if kill < 5:
                server.kill()
                continue
            assert eventually(lambda: sum(map(len, taken.values())) == total), (sum(map(len, taken.values())), total)
            assert sorted(row["n"] for body in taken.values() for row in body) == list(range(total))
            figures = "\n".join(row[0] for row in rows(cursor, "EXPLAIN ANALYZE STREAM posted"))
            assert "rows_posted" in figures, figures


def test_a_server_that_refuses_rows_stops_the_stream(store, site):
    good = [False]
    posted = site(lambda r: r.say(200) if good[0] else r.say(422, b"no such column"))
    with opened(store) as (server, cursor):
        cursor.execute("CREATE STREAM s (n BIGINT)")
        cursor.execute(sink(posted))
        cursor.execute("INSERT INTO s VALUES (1)")
        failed = lambda: [r for r in rows(cursor, "SHOW JOBS") if r[0] == "posted" and "failed" in r]
        assert eventually(failed) and "422" in str(failed()) and "no such column" in str(failed())
        good[0] = True
        cursor.execute("RESUME STREAM posted")
        assert eventually(lambda: any(json.loads(r[3]) == [{"n": 1}] for r in posted.requests[1:]))


def test_a_changelog_is_posted_with_its_operations(store, site):
    posted = site(lambda r: r.say(200))
    with opened(store) as (server, cursor):
        cursor.execute("CREATE STREAM s (k TEXT)")
        options = f"connector = 'http', url = '{posted.url}/in', checkpoint_interval = '50 ms'"
        cursor.execute(f"CREATE STREAM counted WITH ({options}) AS SELECT k, count(*) AS n FROM s GROUP BY k EMIT CHANGES")
        cursor.execute("INSERT INTO s VALUES ('a')")
        seen = lambda: [(row["_op"], row["n"]) for r in posted.requests for row in json.loads(r[3])]
        assert eventually(lambda: seen() == [("+I", 1)])
        cursor.execute("INSERT INTO s VALUES ('a')")
        assert eventually(lambda: seen() == [("+I", 1), ("-U", 1), ("+U", 2)]), seen()


@pytest.mark.parametrize(
    "options, word",
    [
        ("url = 'ftp://x/'", "ftp"),
        ("url = 'http://a:b@x/'", "login"),
        ("url = 'http://x/', rows = 'data'", "JSON pointer"),
        ("url = 'http://x/', next = '/n', cursor = '/c'", "several"),
        ("url = 'http://x/', format = 'csv', key = '/id'", "format = 'json'"),
        ("url = 'http://x/', tls_ca = '/nowhere.pem'", "TLS"),
        ("url = 'http://x/', headers = 'nonsense'", "line 1"),
        ("url = 'http://x/', interval = '0 s'", "interval"),
        ("url = 'http://x/', nonsense = '1'", "nonsense"),
    ],
)
def test_options_that_mean_nothing(store, options, word):
    process = run(store, f"CREATE STREAM a (id BIGINT) WITH (connector = 'http', {options});", ok=False)
    assert word in process.stderr


def mutual(authority):
    """The TLS of a server that wants to see certificates of the authority that its own is of."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.issue("server"))
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(authority.cert)
    return context


class Files:
    """The files that a stream reads, of which a test says what is in them."""

    def __init__(self, folder):
        self.ca, self.cert, self.key = folder / "ca.pem", folder / "client.pem", folder / "client.key"
        self.options = {"tls_ca": self.ca, "tls_cert": self.cert, "tls_key": self.key}

    def fill(self, authority, identity):
        for file, name in zip([authority.cert, *identity], [self.ca, self.cert, self.key], strict=True):
            shutil.copy(file, name)


def failed(cursor, stream):
    figures = "\n".join(row[0] for row in rows(cursor, f"EXPLAIN ANALYZE STREAM {stream}"))
    return int(re.search(r"requests_failed (\d+)", figures).group(1))


def test_polling_over_mutual_tls(store, site, tmp_path):
    ours, theirs, files = Authority(tmp_path, "ours"), Authority(tmp_path, "theirs"), Files(tmp_path)
    offered = [{"id": 1}]

    def answer(r):
        # Each request is a handshake.
        r.close_connection = True
        r.say(200, offered, Connection="close")

    with opened(store) as (server, cursor):
        for authority, identity, named in [
            (theirs, ours.issue("client"), files.options),
            (ours, ours.issue("client"), {"tls_ca": files.ca}),
            (ours, theirs.issue("client"), files.options),
            (ours, ours.issue("late", ended=True), files.options),
        ]:
            files.fill(authority, identity)
            polled = site(answer, mutual(ours))
            cursor.execute(source(polled, key="/id", **named))
            cursor.execute(KEPT)
            assert eventually(lambda: failed(cursor, "kept") > 1), server.stderr
            assert rows(cursor, "SELECT id FROM kept") == [] and polled.requests == []
            if named is files.options:
                # Files that are mended are read again.
                files.fill(ours, ours.issue("client"))
                assert eventually(lambda: rows(cursor, "SELECT id FROM kept") == [(1,)]), server.stderr
            cursor.execute("DROP STREAM kept")
            cursor.execute("DROP STREAM polled")
        # The authority changes on both sides, and nobody is restarted.
        cursor.execute(source(polled, key="/id", **files.options))
        cursor.execute(KEPT)
        assert eventually(lambda: rows(cursor, "SELECT id FROM kept") == [(1,)])
        before = failed(cursor, "kept")
        polled.tls = mutual(theirs)
        assert eventually(lambda: failed(cursor, "kept") > before + 1)
        offered.append({"id": 2})
        files.fill(theirs, theirs.issue("client"))
        assert eventually(lambda: rows(cursor, "SELECT id FROM kept ORDER BY id") == [(1,), (2,)]), server.stderr
        assert "files that changed were read again" in server.stderr


def test_posting_over_mutual_tls(store, site, tmp_path):
    ours, theirs, files = Authority(tmp_path, "ours"), Authority(tmp_path, "theirs"), Files(tmp_path)
    posted = site(lambda r: r.say(200), mutual(ours))
    with opened(store) as (server, cursor):
        cursor.execute("CREATE STREAM s (n BIGINT)")
        for n, (authority, identity) in enumerate([(theirs, ours.issue("client")), (ours, theirs.issue("client"))]):
            files.fill(authority, identity)
            cursor.execute(sink(posted, **files.options))
            cursor.execute(f"INSERT INTO s VALUES ({n})")
            assert eventually(lambda: failed(cursor, "posted") > 1), server.stderr
            assert posted.requests == []
            files.fill(ours, ours.issue("client"))
            assert eventually(lambda: posted.requests), server.stderr
            assert eventually(lambda: [row["n"] for r in posted.requests for row in json.loads(r[3])] == list(range(n + 1)))
            cursor.execute("DROP STREAM posted")
            posted.requests.clear()
        with pytest.raises(Exception, match="has no certificate"):
            files.ca.write_text("nonsense")
            cursor.execute(sink(posted, **files.options))
