"""Connector flight against servers that others wrote: Sail and ROAPI, of which a query is asked again and again."""

import contextlib
import os
import random
import socket
import subprocess
import sys
import time
from pathlib import Path

import adbc_driver_flightsql.dbapi as flightsql
import adbc_driver_manager
import pytest
from conftest import PATIENCE, Server
from test_link import OFTEN, Behind, Site, Wire

BIN = Path(sys.executable).parent
SEED = int(os.environ.get("MILLSTREAM_SEED", random.randrange(1 << 30)))


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


@contextlib.contextmanager
def started(*command, port, **options):
    """A server of another kind, once it listens on `port`."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options)
    try:
        deadline = time.monotonic() + PATIENCE
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            if process.poll() is not None or time.monotonic() > deadline:
                process.kill()
                raise AssertionError(process.stdout.read().decode())
            time.sleep(0.05)
        # Nobody reads what it says.
        process.stdout.close()
        yield f"127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def sail(tmp_path):
    port = free_port()
    with started(BIN / "sail", "flight", "server", "--port", str(port), port=port, cwd=tmp_path) as address:
        yield address


@pytest.fixture
def here(tmp_path):
    site = Site(tmp_path / "here")
    yield site
    site.server.__exit__()


def say(address, *statements):
    with flightsql.connect(f"grpc://{address}", autocommit=True) as connection, connection.cursor() as cursor:
        for sql in statements:
            cursor.execute(sql)
            rows = cursor.fetchall()
    return rows


def polled(name, address, query, rest=""):
    query = query.replace("'", "''")
    return f"CREATE STREAM {name} WITH (connector = 'flight', url = 'grpc://{address}', poll_interval = '50 ms', max_retry_delay = '100 ms', query = '{query}'{rest})"


CURSOR = ", cursor = 'id', first_cursor = '0'"


def test_a_cursor_reads_each_row_once(sail, here):
    """Across kills of this side and cuts of the way; what was committed is the query's answer."""
    print(f"MILLSTREAM_SEED={SEED}")
    chance = random.Random(SEED)
    say(sail, "CREATE TABLE orders (id BIGINT, item STRING, price DECIMAL(10, 2), at TIMESTAMP)")
    wire = Wire()
    wire.to = sail
    here.ask(polled("orders", wire.address, "SELECT * FROM orders WHERE id > {cursor} ORDER BY id LIMIT 100", CURSOR))
    assert [row[:2] for row in here.ask("DESCRIBE orders")][:3] == [("id", "BIGINT"), ("item", "TEXT"), ("price", "DECIMAL(10, 2)")]
    here.ask("CREATE STREAM kept AS SELECT id, item, price FROM orders")
    last = 0
    for step in range(8):
        n = chance.choice([1, 30, 450])
        values = ", ".join(f"({i}, 'item {i}', {i}.25, TIMESTAMP '2026-11-29 10:00:00')" for i in range(last + 1, last + n + 1))
        say(sail, f"INSERT INTO orders VALUES {values}")
        last += n
        time.sleep(chance.uniform(0, 0.2))
        if step % 3 == 1:
            here.kill()
        elif step % 3 == 2:
            wire.cut()
            time.sleep(0.2)
            wire.mend()
    here.expect("SELECT count(*), count(DISTINCT id), min(id), max(id) FROM kept", [(last, last, 1, last)])
    assert here.ask(f"SELECT item, CAST(price AS TEXT) FROM kept WHERE id = {last}") == [(f"item {last}", f"{last}.25")]
    time.sleep(0.3)
    assert here.ask("SELECT count(*) FROM kept") == [(last,)]


def test_texts_and_times_are_cursors_too(sail, here):
    say(sail, "CREATE TABLE events (name STRING, at TIMESTAMP, day DATE)", "INSERT INTO events VALUES ('a b', TIMESTAMP '2026-11-29 10:00:00.000001', DATE '2026-11-29')")
    for column, first in [("name", ""), ("at", "2000-01-01 00:00:00Z"), ("day", "2000-01-01")]:
        query = f"SELECT * FROM events WHERE {column} > {{cursor}} ORDER BY {column}"
        here.ask(polled(f"by_{column}", sail, query, f", cursor = '{column}', first_cursor = '{first}'"))
        here.ask(f"CREATE STREAM kept_{column} AS SELECT name FROM by_{column}")
        here.expect(f"SELECT * FROM kept_{column}", [("a b",)])
    here.kill()
    say(sail, "INSERT INTO events VALUES ('c', TIMESTAMP '2026-11-29 10:00:00.000002', DATE '2026-11-30')")
    for column in ("name", "at", "day"):
        here.expect(f"SELECT * FROM kept_{column}", [("a b",), ("c",)])
    say(sail, "INSERT INTO events VALUES (\"it's\", TIMESTAMP '2026-11-29 10:00:00.000003', DATE '2026-12-01')")
    here.expect("SELECT * FROM kept_at", [("a b",), ("c",), ("it's",)])
    deadline = time.monotonic() + PATIENCE
    while "with a quote" not in str(here.ask("SHOW JOBS")):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_rows_whose_key_was_seen_are_dropped(sail, here):
    say(sail, "CREATE TABLE seats (hall STRING, seat INT)", "INSERT INTO seats VALUES ('a', 1), ('a', 2), ('b', 1), (NULL, 1)")
    here.ask(polled("seats", sail, "SELECT * FROM seats", ", key = 'hall, seat'"))
    here.ask("CREATE STREAM kept AS SELECT * FROM seats")
    here.expect("SELECT count(*) FROM kept", [(4,)])
    here.kill()
    say(sail, "INSERT INTO seats VALUES ('a', 1), ('ab', 1), ('', 1)")
    here.expect("SELECT count(*) FROM kept", [(6,)])
    time.sleep(0.3)
    assert here.ask("SELECT count(*) FROM kept") == [(6,)]
    plan = "\n".join(row[0] for row in here.ask("EXPLAIN ANALYZE STREAM kept"))
    assert "rows_seen_before" in plan and f"SELECT * FROM seats at grpc://{sail} every 50ms" in plan, plan


def test_without_either_each_answer_is_a_sample_and_is_whole(sail, here):
    say(sail, "CREATE TABLE load (machine INT, busy DOUBLE)", "INSERT INTO load VALUES (1, 0.5), (2, 0.75), (3, 0.25)")
    here.ask(polled("load", sail, "SELECT * FROM load"))
    here.ask("CREATE STREAM samples AS SELECT * FROM load")
    seen = 0
    for _ in range(4):
        deadline = time.monotonic() + PATIENCE
        while (counts := here.ask("SELECT machine, count(*) FROM samples GROUP BY machine")) == [] or counts[0][1] < seen + 3:
            assert time.monotonic() < deadline, counts
            time.sleep(0.02)
        assert len(counts) == 3 and len({n for _, n in counts}) == 1, counts
        seen = counts[0][1]
        here.kill()


def test_lag_tells_whether_the_server_is_there(sail, here):
    wire = Wire()
    wire.to = sail
    say(sail, "CREATE TABLE t (id BIGINT)", "INSERT INTO t VALUES (1)")
    here.ask(polled("t", wire.address, "SELECT * FROM t WHERE id > {cursor} ORDER BY id", CURSOR))
    here.ask("CREATE STREAM kept AS SELECT * FROM t")
    behind = Behind(here, "kept")
    behind.is_gone()
    wire.cut()
    behind.comes_to(lambda rows, bytes, seconds, link: seconds > 1 and link.startswith("cut for 1 s: "))
    wire.mend()
    behind.is_gone()
    say(sail, "DROP TABLE t")
    behind.comes_to(lambda rows, bytes, seconds, link: link.startswith("cut for ") and "t" in link)
    say(sail, "CREATE TABLE t (id BIGINT)", "INSERT INTO t VALUES (2)")
    here.expect("SELECT id FROM kept", [(1,), (2,)])


def test_what_would_lose_rows_is_refused(sail, here):
    say(sail, "CREATE TABLE t (id BIGINT, x DOUBLE)", "INSERT INTO t VALUES (1, 1.0), (3, 0.5), (2, 0.5)")

    def refused(sql, message):
        with pytest.raises(adbc_driver_manager.Error, match=message):
            here.ask(sql)

    ordered = "SELECT * FROM t WHERE id > {cursor} ORDER BY id"
    refused(polled("s", sail, ordered), "cursor and {cursor} in query belong together")
    refused(polled("s", sail, "SELECT * FROM t", CURSOR), "cursor and {cursor} in query belong together")
    refused(polled("s", sail, ordered, ", cursor = 'id'"), "cursor and first_cursor belong together")
    refused(polled("s", sail, ordered, CURSOR + ", key = 'id'"), "has both cursor and key")
    refused(polled("s", sail, ordered, ", cursor = 'x', first_cursor = '0'"), "the cursor, is DOUBLE")
    refused(polled("s", sail, ordered, ", cursor = 'y', first_cursor = '0'"), 'no column "y"')
    refused(polled("s", sail, ordered, ", cursor = 'id', first_cursor = 'a'"), "'a' is no BIGINT")
    refused(polled("s", sail, "SELECT * FROM t", ", key = 'y'"), 'key column "y"')
    refused(polled("s", sail, "SELECT * FROM nothing"), "nothing")
    refused(polled("s", sail, "SELECT 1 AS a").replace("query = 'SELECT 1 AS a'", "stream = 't'"), "poll_interval and stream")
    refused(polled("s", sail, "SELECT * FROM t").replace("poll_interval = '50 ms', ", "") , "CHANGES")
    refused(polled("s", sail, "SELECT * FROM t", ", key = 'id'").replace("poll_interval = '50 ms', ", "") , "key without poll_interval")

    def fails(name, sql, message):
        here.ask(sql)
        here.ask(f"CREATE STREAM kept_{name} AS SELECT * FROM {name}")
        deadline = time.monotonic() + PATIENCE
        while message not in str(here.ask("SHOW JOBS")) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert message in str(here.ask("SHOW JOBS"))
        assert here.ask(f"SELECT count(*) FROM kept_{name}") == [(0,)]

    fails("a", polled("a", sail, "SELECT * FROM t WHERE id > {cursor} ORDER BY id DESC", CURSOR), 'column "id", the cursor, does not grow')
    fails("b", polled("b", sail, "SELECT * FROM t WHERE id >= {cursor} ORDER BY id", ", cursor = 'id', first_cursor = '1'"), "does not grow")
    fails("c", polled("c", sail, "SELECT * FROM t", ", key = 'id', key_memory = 2"), "more than 2 keys")
    fails("d", polled("d", sail, "SELECT * FROM t", ", buffer_bytes = 10"), "longer than 10 bytes")


def test_logins(tmp_path):
    """ROAPI gives a token for a password, or takes one that was agreed on."""
    (tmp_path / "t.csv").write_text("id,name\n1,ann\n2,bob\n3,eve\n")
    port, http, postgres = free_port(), free_port(), free_port()
    (tmp_path / "roapi.yml").write_text(
        f"addr: {{http: '127.0.0.1:{http}', postgres: '127.0.0.1:{postgres}', flight_sql: '127.0.0.1:{port}'}}\n"
        f"tables: [{{name: t, uri: {tmp_path}/t.csv}}]\n"
        "flight_sql_config: {auth_basic: {username: ann, password: open-sesame-1}, auth_token: a-token-for-us}\n"
    )
    env = {**os.environ, "MILLSTREAM_KEY": "0123456789abcdef0123456789abcdef"}
    with (
        started(BIN / "roapi", "-c", tmp_path / "roapi.yml", port=port) as address,
        Server(tmp_path / "store", *OFTEN, env=env) as server,
        server.connect() as connection,
        connection.cursor() as cursor,
    ):
        for name, value in [("ann", "open-sesame-1"), ("wrong", "open-sesame-2"), ("token", "Bearer a-token-for-us")]:
            cursor.execute(f"CREATE SECRET {name} AS '{value}'")
        query = "SELECT * FROM t WHERE id > {cursor} ORDER BY id LIMIT 2"
        with pytest.raises(adbc_driver_manager.Error, match="(?i)credential|unauth|password"):
            cursor.execute(polled("s", address, query, CURSOR + ", user = 'ann', password = 'secret:wrong'"))
        with pytest.raises(adbc_driver_manager.Error, match="both user and authorization"):
            cursor.execute(polled("s", address, query, CURSOR + ", user = 'ann', password = 'secret:ann', authorization = 'secret:token'"))
        for name, rest in [("s", ", user = 'ann', password = 'secret:ann'"), ("t", ", authorization = 'secret:token'")]:
            cursor.execute(polled(name, address, query, CURSOR + rest))
            cursor.execute(f"CREATE STREAM kept_{name} AS SELECT * FROM {name}")
            deadline = time.monotonic() + PATIENCE
            while True:
                cursor.execute(f"SELECT * FROM kept_{name} ORDER BY id")
                if len(rows := cursor.fetchall()) >= 3 or time.monotonic() > deadline:
                    break
                time.sleep(0.05)
            assert rows == [(1, "ann"), (2, "bob"), (3, "eve")], server.stderr
        assert "sesame" not in server.stderr and "a-token-for-us" not in server.stderr
