"""One budget for all: jobs stay within it, and the one that needs more stops and says what it was and what to do."""

import os
import pathlib
import re
import time

from conftest import Server

# What a process takes whatever it does, and what is not counted: code, threads, pages that the allocator keeps.
BESIDES = 190_000_000
LIMIT = int(os.environ.get("MILLSTREAM_BUDGET", 64_000_000))


def peak(server):
    status = pathlib.Path(f"/proc/{server.process.pid}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status).group(1)) * 1024


def jobs(cursor):
    cursor.execute("SHOW JOBS")
    names = [column[0] for column in cursor.description]
    return {row[0]: dict(zip(names, row)) for row in cursor.fetchall()}


def test_a_job_with_too_many_keys_stops_within_the_budget(store):
    """It says which operator that was, and the others go on."""
    with Server(store, "--memory-limit", str(LIMIT)) as server:
        with server.connect() as connection, connection.cursor() as cursor:
            cursor.execute(f"CREATE STREAM s (k BIGINT) WITH (connector = 'datagen', rows = {LIMIT // 10}, \"fields.k.kind\" = 'sequence')")
            cursor.execute("CREATE STREAM small AS SELECT k % 10 AS k, count(*) AS n FROM s GROUP BY k % 10")
            cursor.execute("CREATE STREAM large AS SELECT k, count(*) AS n FROM s GROUP BY k")
            for _ in range(1200):
                time.sleep(0.1)
                state = jobs(cursor)
                if state["large"]["state"] != "running" and state["small"]["state"] != "running":
                    break
            assert state["large"]["state"] == "failed", state
            why = state["large"]["error"]
            assert re.search(r'out of memory: aggregate \w+ \d+ of stream "large" holds', why) and "SET memory_limit" in why, why
            assert state["small"]["state"] == "finished", state
            cursor.execute("SELECT sum(n) FROM small")
            assert cursor.fetchall() == [(LIMIT // 10,)]
        assert peak(server) < LIMIT + BESIDES, f"{peak(server):,}"


def test_many_jobs_of_many_tasks_share_it(store):
    """Their queues, and what they add up before an exchange, are a part of it."""
    limit = 200_000_000
    with Server(store, "--memory-limit", str(limit), "--parallelism", "16") as server:
        with server.connect() as connection, connection.cursor() as cursor:
            cursor.execute("CREATE STREAM s (k BIGINT, t TEXT) WITH (connector = 'datagen', rows = 400000, \"fields.k.kind\" = 'sequence')")
            for i in range(10):
                cursor.execute(f"CREATE STREAM j{i} AS SELECT k % {1000 + i} AS k, count(*) AS n, max(t) AS t FROM s GROUP BY k % {1000 + i}")
            cursor.execute("FLUSH")
            for i in range(10):
                cursor.execute(f"SELECT sum(n), count(*) FROM j{i}")
                assert cursor.fetchall() == [(400_000, 1000 + i)]
        assert peak(server) < limit + BESIDES, f"{peak(server):,}"
