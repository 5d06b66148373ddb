"""A batch query that is cancelled, or whose client has gone, is at work no more: the processor time of the server says so."""

import os
import pathlib
import subprocess
import sys
import threading
import time

import pytest
from conftest import Server

# Each takes many seconds when nobody cancels it; all that it needs is made in memory.
PAIRS = "generate_series(1, 400000) AS a(x), generate_series(1, 400000) AS b(y)"
FEW = "generate_series(1, 20000) AS a(x), generate_series(1, 20000) AS b(y)"
QUERIES = {
    "all pairs": f"SELECT count(*) FROM {PAIRS}",
    "a condition that no pair meets": f"SELECT * FROM {PAIRS} WHERE x + y < 0",
    "outer": "SELECT count(*) FROM generate_series(1, 400000) AS a(x) LEFT JOIN generate_series(1, 400000) AS b(y) ON x * y < 0",
    "semi": "SELECT count(*) FROM generate_series(1, 400000) AS a(x) WHERE EXISTS (SELECT 1 FROM generate_series(1, 400000) AS b(y) WHERE x * y < 0)",
    "anti": "SELECT count(*) FROM generate_series(1, 400000) AS a(x) WHERE NOT EXISTS (SELECT 1 FROM generate_series(1, 400000) AS b(y) WHERE x * y < 0)",
    "one key": "SELECT count(*) FROM generate_series(1, 400000) AS a(x) JOIN generate_series(1, 400000) AS b(y) ON x % 1 = y % 1",
    "one key and a condition": "SELECT count(*) FROM generate_series(1, 400000) AS a(x) JOIN generate_series(1, 400000) AS b(y) ON x % 1 = y % 1 AND x * y < 0",
    "groups": f"SELECT x % 1000 AS k, sum(y) FROM {PAIRS} GROUP BY 1",
    "distinct": f"SELECT count(DISTINCT x % 1000 + y % 1000) FROM {PAIRS}",
    "order": f"SELECT * FROM {PAIRS} ORDER BY x * y % 1009 LIMIT 5",
    "sort": f"SELECT max(y) FROM (SELECT x, y FROM {FEW} ORDER BY x * y % 1009 OFFSET 1)",
    "over": f"SELECT max(s) FROM (SELECT sum(y) OVER (PARTITION BY x % 100 ORDER BY y) AS s FROM {FEW})",
    "union": f"SELECT count(*) FROM (SELECT x FROM {PAIRS} UNION ALL SELECT y FROM {PAIRS})",
    "unnest": f"SELECT count(*) FROM (SELECT unnest([x, y, x, y, x, y, x, y]) AS e FROM {PAIRS}) WHERE e < 0",
    "windows": "SELECT count(*) FROM HOP(moments, at, INTERVAL '1 second', INTERVAL '1 hour')",
    "rows": f"SELECT * FROM {PAIRS}",
    "recursion": "WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r WHERE n < 1000000000) SELECT count(*) FROM r",
    "a long input": "SELECT count(*) FROM generate_series(1, 300000000000)",
}
TICK = os.sysconf("SC_CLK_TCK")


def busy(pid):
    """Seconds of processor time so far."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def rests(pid):
    """That half a second from now the process is idle."""
    time.sleep(0.5)
    before = busy(pid)
    time.sleep(0.5)
    return busy(pid) - before < 0.1


@pytest.fixture(scope="module")
def own_server(tmp_path_factory):
    with Server(tmp_path_factory.mktemp("cancelled") / "store") as server:
        with server.connect() as connection, connection.cursor() as cursor:
            cursor.execute(f"CREATE VIEW moments AS SELECT to_timestamp(x) AS at FROM {PAIRS}")
        yield server
        assert server.stop() == 0, server.stderr


@pytest.mark.parametrize("query", QUERIES)
def test_a_query_that_is_cancelled_rests(own_server, query):
    with own_server.connect() as connection, connection.cursor() as cursor:
        errors = []

        def run():
            try:
                cursor.execute(QUERIES[query])
                for _ in cursor.fetch_record_batch():
                    pass
            # the driver and Arrow each have their own
            except Exception as error:
                errors.append(error)

        before = busy(own_server.process.pid)
        thread = threading.Thread(target=run)
        thread.start()
        time.sleep(1)
        assert not errors, errors
        assert busy(own_server.process.pid) - before > 0.2, "it has to be at work"
        cursor.adbc_cancel()
        assert rests(own_server.process.pid), query
        thread.join(10)
        assert errors and not thread.is_alive()


CLIENT = """
import sys
import adbc_driver_flightsql.dbapi as flightsql
with flightsql.connect(sys.argv[1], autocommit=True) as connection, connection.cursor() as cursor:
    cursor.execute(sys.argv[2])
    print(cursor.fetchall())
"""


@pytest.mark.parametrize("query", ["all pairs", "a condition that no pair meets", "one key and a condition"])
def test_a_query_whose_client_has_gone_rests(own_server, query):
    client = subprocess.Popen([sys.executable, "-c", CLIENT, f"grpc://{own_server.address}", QUERIES[query]])
    deadline = time.monotonic() + 20
    begun = busy(own_server.process.pid)
    while busy(own_server.process.pid) - begun < 0.5:
        assert time.monotonic() < deadline and client.poll() is None
        time.sleep(0.05)
    client.kill()
    client.wait()
    assert rests(own_server.process.pid), query
