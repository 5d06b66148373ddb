"""One budget for all: jobs stay within it, and the one that needs more stops and says what it was and what to do."""

import os
import pathlib
import re
import time

from conftest import Server, duck

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


def ended(cursor, *names):
    """The jobs, when those of these names do not run any more."""
    for _ in range(1200):
        time.sleep(0.1)
        state = jobs(cursor)
        if all(state[name]["state"] != "running" for name in names):
            break
    return state


def test_a_job_with_too_many_keys_stops_within_the_budget(store):
    """It says which operator that was, and the others go on."""
    with Server(store, "--memory-limit", str(LIMIT)) as server:
        with server.connect() as connection, connection.cursor() as cursor:
            cursor.execute(f"CREATE STREAM s (k BIGINT) WITH (connector = 'datagen', rows = {LIMIT // 10}, \"fields.k.kind\" = 'sequence')")
            cursor.execute("CREATE STREAM small AS SELECT k % 10 AS k, count(*) AS n FROM s GROUP BY k % 10")
            # No group passes, so that nothing waits for a commit.
            cursor.execute("CREATE STREAM large AS SELECT k, count(*) AS n FROM s GROUP BY k HAVING count(*) > 1")
            state = ended(cursor, "large", "small")
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


# Texts that do not compress: a row takes some 200 bytes wherever it is.
WIDE = '(k BIGINT, t TEXT) WITH (connector = \'datagen\', rows = {}, "fields.k.kind" = \'sequence\', "fields.t.length" = 200)'


def test_a_result_that_waits_too_long_for_its_commit_stops_its_job(store):
    """What a stream's own files have for a commit lies in memory until then."""
    with Server(store, "--memory-limit", str(LIMIT)) as server:
        with server.connect() as connection, connection.cursor() as cursor:
            cursor.execute(f"CREATE STREAM s {WIDE.format(LIMIT // 10)}")
            cursor.execute("CREATE STREAM kept WITH (checkpoint_interval = '1 hour') AS SELECT k, t FROM s")
            cursor.execute("CREATE STREAM small AS SELECT k % 10 AS k, count(*) AS n FROM s GROUP BY k % 10")
            state = ended(cursor, "kept", "small")
            why = state["kept"]["error"]
            assert state["kept"]["state"] == "failed", state
            assert re.search(r'out of memory: \w+ \d+ of stream "kept" holds', why) and "checkpoint_interval" in why, why
            assert state["small"]["state"] == "finished", state
        # all of it would be 1.3 GB; a buffer that grows is there twice for a moment
        assert peak(server) < LIMIT + 2 * BESIDES, f"{peak(server):,}"


def test_files_of_a_sink_and_of_copy_are_written_within_it(store, tmp_path):
    """Parquet holds a row group for each file, which ends early where memory is short."""
    rows = LIMIT // 20
    with Server(store, "--memory-limit", str(LIMIT)) as server:
        with server.connect() as connection, connection.cursor() as cursor:
            cursor.execute(f"CREATE STREAM s {WIDE.format(rows)}")
            cursor.execute(
                f"CREATE STREAM out WITH (connector = 'file', path = '{tmp_path}/out', format = 'parquet', checkpoint_interval = '1 hour') AS SELECT k, t FROM s"
            )
            cursor.execute("FLUSH")
            assert duck(f"SELECT count(*), count(DISTINCT k) FROM '{tmp_path}/out/*.parquet'") == [(rows, rows)]
            cursor.execute(f"COPY (SELECT k % 12 AS p, k, t FROM s) TO '{tmp_path}/copied' STORED AS PARQUET PARTITIONED BY (p)")
            assert duck(f"SELECT count(*), count(DISTINCT k) FROM '{tmp_path}/copied/*/*.parquet'") == [(rows, rows)]
        # besides, each file that is open has a compressor for each column
        assert peak(server) < LIMIT + 2 * BESIDES, f"{peak(server):,}"
