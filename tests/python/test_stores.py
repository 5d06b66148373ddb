"""Stores that exist: what the first builds left goes on, and what was found out at CREATE stays."""

import datetime
import decimal
import json
import math
import pathlib
import shutil
import sys
import tarfile
import time

import adbc_driver_manager
import duckdb
import pyarrow.parquet
import pytest
from conftest import PATIENCE, REPO, Server, run

FIXTURE = REPO / "tests" / "fixtures" / "first_store"
sys.path.insert(0, str(FIXTURE))
import contents

CLOSING = ["per_minute", "sliding", "growing", "by_minute"]


def write(folder, files):
    for name, text in files.items():
        # In one step: the folder is followed.
        (folder / ("." + name)).write_text(text)
        (folder / ("." + name)).rename(folder / name)


class Opened:
    """The store of the first builds in this build."""

    def __init__(self, folder):
        self.folder = folder
        self.server = Server("store", "--parallelism", "2", "--checkpoint-interval", "100 ms", cwd=folder)
        self.connection = self.server.connect()

    def do(self, sql):
        with self.connection.cursor() as cursor:
            cursor.execute(sql)
            return cursor.fetch_arrow_table()

    def rows(self, sql):
        return [tuple(row.values()) for row in self.do(sql).to_pylist()]

    def jobs(self):
        return {job["stream"]: job for job in self.do("SHOW JOBS").to_pylist()}

    def flush(self):
        """Waits for all streams but the one that may have failed again."""
        try:
            self.do("FLUSH")
        except adbc_driver_manager.OperationalError as e:
            assert 'stream "broken" has failed' in str(e) and "that have failed too" not in str(e), e

    def read_all(self, part):
        """Waits until files that are followed, and what reads them, are read."""
        clicks, sensors = (sum(map(len, good[: part + 1])) for good in (contents.GOOD_CLICKS, contents.GOOD_SENSORS))
        with self.connection.cursor() as cursor:
            wait_for(cursor, "SELECT sum(n) FROM pages", clicks)
            wait_for(cursor, "SELECT sum(n) FROM rooms", sensors)
        # Each link of a chain of streams has a commit of its own.
        for _ in range(2):
            self.flush()

    def kill(self):
        self.connection.close()
        self.server.kill()


@pytest.fixture
def folder(tmp_path):
    with tarfile.open(FIXTURE / "store.tar.gz") as tar:
        tar.extractall(tmp_path, filter="data")
    return tmp_path


def oracle(part):
    """DuckDB with the input of the first part, or of both."""
    duck = duckdb.connect()
    duck.execute(contents.TABLES)
    duck.executemany(
        "INSERT INTO orders VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        contents.orders(0, [contents.FIRST, contents.ALL][part]),
    )
    last = {}
    for row in (row for p in range(part + 1) for row in contents.customers(p)):
        last[row[0]] = row
    duck.executemany("INSERT INTO customers VALUES (?, ?, ?, ?)", list(last.values()))
    for p in range(part + 1):
        duck.executemany("INSERT INTO floats VALUES (?, ?)", contents.FLOATS[p])
        duck.executemany("INSERT INTO clicks VALUES (?, ?, ?)", contents.GOOD_CLICKS[p])
        duck.executemany("INSERT INTO sensors VALUES (?, ?, ?)", contents.GOOD_SENSORS[p])
    for line in contents.COLOURS.splitlines()[1:]:
        duck.execute("INSERT INTO colours VALUES (?, ?, ?, ?)", line.split(","))
    return duck


def plain(value):
    if isinstance(value, (decimal.Decimal, int)) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, float):
        # Zero is one value.
        return value + 0.0
    if isinstance(value, datetime.datetime):
        return value.replace(tzinfo=None)
    if isinstance(value, list):
        return [plain(v) for v in value]
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    return value


def order(row):
    return [(v is None, repr(round(v, 3) if isinstance(v, float) else v)) for v in row]


def same(a, b):
    if isinstance(a, float) and isinstance(b, float):
        # An average of decimals may have been cut at its sixth digit.
        return math.isclose(a, b, rel_tol=1e-9, abs_tol=2e-6) or (math.isnan(a) and math.isnan(b))
    return a == b


def check(name, got, want):
    got, want = (sorted(([plain(v) for v in row] for row in rows), key=order) for rows in (got, want))
    assert len(got) == len(want), (name, len(got), len(want), got[:5], want[:5])
    for a, b in zip(got, want):
        assert len(a) == len(b) and all(map(same, a, b)), (name, a, b)


def check_all(opened, part, names):
    duck = oracle(part)
    for name in names:
        got = opened.rows(f'SELECT * FROM "{name}"')
        check(name, got, duck.execute(contents.ANSWERS[name]).fetchall())


def streams_that_run():
    # A NaN in its files is not read back yet.
    unread = ["extremes"]
    return [name for name in contents.ANSWERS if name not in contents.PAUSED + contents.FAILED + unread]


def test_a_store_of_the_first_builds_opens(folder):
    opened = Opened(folder)
    states = {name: job["state"] for name, job in opened.jobs().items() if name not in contents.FAILED}
    assert {name for name, state in states.items() if state == "paused"} == set(contents.PAUSED)
    assert {state for name, state in states.items() if name not in contents.PAUSED} <= {"running", "finished"}, states
    opened.read_all(0)
    check_all(opened, 0, streams_that_run())
    columns = json.loads((FIXTURE / "columns.json").read_text())
    for name, before in columns.items():
        now = [[row["column"], row["type"]] for row in opened.do(f'DESCRIBE "{name}"').to_pylist()]
        assert now == before, name
    assert "temp DOUBLE" in opened.rows("SHOW CREATE STREAM sensors")[0][1]
    opened.kill()


def test_a_store_of_the_first_builds_goes_on(folder):
    opened = Opened(folder)
    opened.do("RESUME STREAM held")
    opened.do("RESUME STREAM half_way")
    write(folder / "input" / "clicks", contents.CLICKS[1])
    write(folder / "input", contents.SENSORS[1])
    for statement in contents.insert("floats", contents.FLOATS[1]):
        opened.do(statement)
    for statement in contents.insert('"Kunden & Größe"', contents.customers(1)):
        opened.do(statement)
    for statement in contents.insert("orders", contents.orders(contents.FIRST, (contents.FIRST + contents.ALL) // 2)):
        opened.do(statement)
    opened.flush()
    # What this build has written of their state is what it goes on with.
    opened.kill()
    opened = Opened(folder)
    for statement in contents.insert("orders", contents.orders((contents.FIRST + contents.ALL) // 2, contents.ALL)):
        opened.do(statement)
    opened.read_all(1)
    check_all(opened, 1, streams_that_run() + ["held"])
    for name, query in contents.SAME_AS.items():
        check(name, opened.rows(f"SELECT * FROM {name}"), opened.rows(query))
    if opened.jobs()["broken"]["state"] != "failed":
        check_all(opened, 1, contents.FAILED)
    letters = opened.rows("SELECT raw FROM millstream.dead_letters WHERE stream = 'pages' ORDER BY 1")
    assert [raw for (raw,) in letters] == [b"/cart,oops,2026-01-01 10:00:01", b"/exit,9,never"]
    opened.kill()
    check_files(folder)
    check_written_out(folder)


def check_files(folder):
    """All files of a stream have the same columns: those that it had before."""
    for stream in (folder / "store" / "streams").iterdir():
        schemas = {str(pyarrow.parquet.read_schema(f).remove_metadata()) for f in stream.glob("*.parquet")}
        assert len(schemas) <= 1, (stream.name, schemas)


def check_written_out(folder):
    duck = oracle(1)
    want = duck.execute("SELECT id, customer, amount, price * 2 FROM orders WHERE qty < 5").fetchall()
    lines = [json.loads(line) for line in (folder / "output" / "lines.json").read_text().splitlines()]
    check("out_lines", [tuple(line.get(c) for c in ["id", "customer", "amount", "twice"]) for line in lines], want)
    changes = duck.sql(f"SELECT * FROM read_csv('{folder}/output/changes/*.csv', header = true)")
    counts = "SELECT qty, n FROM changes GROUP BY 1, 2 HAVING sum(CASE WHEN _op = '+I' THEN 1 ELSE -1 END) > 0"
    want = duck.execute("SELECT qty, count(*) FROM orders GROUP BY 1").fetchall()
    check("out_changes", duck.sql(counts).fetchall(), want)


# What was found out at CREATE


def test_inferred_columns_stay_when_the_first_file_is_another(store, tmp_path):
    (tmp_path / "inf").mkdir()
    (tmp_path / "inf" / "b.json").write_text('{"id": 1, "name": "x"}\n{"id": 2, "name": "y"}\n')
    create = """
        CREATE STREAM s WITH (connector = 'file', path = 'inf/*.json', follow = true);
        CREATE STREAM n AS SELECT name, sum(id) AS ids FROM s GROUP BY name;
    """
    with Server(store, "--checkpoint-interval", "50 ms", cwd=tmp_path) as server:
        with server.connect() as connection, connection.cursor() as cursor:
            for statement in create.split(";")[:2]:
                cursor.execute(statement)
            cursor.execute("SHOW CREATE STREAM s")
            assert "id BIGINT" in (statement := cursor.fetchone()[1]) and "name TEXT" in statement, statement
            wait_for(cursor, "SELECT count(*) FROM n", 2)
        assert server.stop() == 0
    # Before the other by name, with columns of other types and others missing.
    (tmp_path / "inf" / "a.json").write_text('{"name": 5, "more": [1]}\n{"id": "no", "name": "z"}\n{"id": 40, "name": "x"}\n')
    with Server(store, "--checkpoint-interval", "50 ms", cwd=tmp_path) as server:
        with server.connect() as connection, connection.cursor() as cursor:
            wait_for(cursor, "SELECT count(*) FROM n", 3)
            cursor.execute("SELECT * FROM n ORDER BY name")
            assert cursor.fetchall() == [("5", None), ("x", 41), ("y", 2)]
            cursor.execute("SELECT line FROM millstream.dead_letters")
            assert cursor.fetchall() == [(2,)]
            cursor.execute("SHOW JOBS")
            assert cursor.fetchone()[1] == "running"


def wait_for(cursor, sql, value):
    deadline = time.monotonic() + PATIENCE
    while True:
        cursor.execute(sql)
        found = cursor.fetchone()[0]
        if found == value:
            return
        assert time.monotonic() < deadline, (sql, found)
        time.sleep(0.05)


def test_the_format_that_was_found_stays(store, tmp_path):
    (tmp_path / "inf").mkdir()
    (tmp_path / "inf" / "b.json").write_text('{"id": 1}\n')
    sql = "CREATE STREAM s WITH (connector = 'file', path = 'inf'); CREATE STREAM d (id BIGINT) WITH (connector = 'file', path = 'inf');"
    run(store, sql, cwd=tmp_path)
    (tmp_path / "inf" / "a.csv").write_text("id\n7\n")
    process = run(store, "SELECT * FROM s; SELECT * FROM d;", "--format", "json", cwd=tmp_path)
    assert process.stdout.splitlines() == ['{"id":1}'] * 2, process.stderr


def test_inferred_columns_can_be_written_back(store, tmp_path):
    (tmp_path / "t.csv").write_text('id,"At ""it""",x y\n1,2026-01-01 00:00:00,1.5\n')
    process = run(store, "CREATE STREAM t WITH (connector = 'file', path = 't.csv'); SHOW CREATE STREAM t;", "--format", "json", cwd=tmp_path)
    statement = json.loads(process.stdout)["statement"]
    again = run(
        tmp_path / "other", f"{statement}; SHOW CREATE STREAM t; SELECT * FROM t;", "--format", "json", cwd=tmp_path
    )
    lines = [json.loads(line) for line in again.stdout.splitlines()]
    assert lines[0]["statement"] == statement
    assert lines[1]["id"] == 1 and lines[1]["x y"] == 1.5, lines


def test_what_a_stream_has_committed_is_read_without_its_source(store, tmp_path):
    file = tmp_path / "t.csv"
    file.write_text("a\n1\n2\n")
    sql = "CREATE STREAM t WITH (connector = 'file', path = 't.csv'); CREATE STREAM d AS SELECT a * 2 AS b FROM t WHERE a < 9; FLUSH; PAUSE STREAM d;"
    run(store, sql, cwd=tmp_path)
    run(store, "CREATE STREAM e AS SELECT a FROM t; FLUSH; SELECT 1;", cwd=tmp_path)
    file.unlink()
    process = run(store, "SELECT sum(b) AS s FROM d; DESCRIBE t; SELECT count(*) AS n FROM e;", "--format", "csv", cwd=tmp_path)
    assert process.stdout.split() == ["s", "6", "column,type,nullable,note", "a,BIGINT,true,", "n", "2"]
    # A plan opens nothing; what reads it says what is missing.
    process = run(store, "EXPLAIN STREAM d; EXPLAIN SELECT max(a) FROM t;", cwd=tmp_path)
    assert process.stdout.count("file t.csv (csv)") == 2, process.stdout
    assert 'file "t.csv" does not exist' in run(store, "SELECT * FROM t;", cwd=tmp_path, ok=False).stderr


def test_paths_mean_the_same_from_every_folder(store, tmp_path):
    here, there = tmp_path / "here [1], a", tmp_path / "there"
    for folder in (here / "more", there):
        folder.mkdir(parents=True)
    (here / "t.csv").write_text("a\n1\n")
    (here / "more" / "u.csv").write_text("a\n2\nx\n")
    made = """
        CREATE STREAM t (a BIGINT) WITH (connector = 'file', path = 't.csv', follow = true);
        CREATE STREAM u (a BIGINT) WITH (connector = 'file', path = 'more/*.csv, t.csv');
        CREATE STREAM d AS SELECT a FROM t;
        CREATE STREAM e AS SELECT a FROM u;
        CREATE STREAM out WITH (connector = 'file', path = 'out.csv') AS SELECT a FROM t;
        FLUSH;
    """
    run(store, made, cwd=here)
    with (here / "t.csv").open("a") as file:
        file.write("3\n")
    asked = """
        SELECT sum(a) AS s FROM u;
        SELECT source, line FROM millstream.dead_letters;
        SHOW CREATE STREAM t;
        EXPLAIN SELECT a FROM u;
    """
    with Server(store, cwd=there) as server, server.connect() as connection, connection.cursor() as cursor:
        wait_for(cursor, "SELECT sum(a) FROM d", 4)
        cursor.execute("FLUSH")
    assert (here / "out.csv").read_text().split() == ["a", "1", "3"]
    told = [json.loads(line) for line in run(store, asked, "--format", "json", cwd=there).stdout.splitlines()]
    assert told[0] == {"s": 6} and told[1] == {"source": "more/u.csv", "line": 3}, told
    assert f"path = '{here}/t.csv'" in told[2]["statement"], told
    assert any("file" in str(line) and "more/*.csv" in str(line) for line in told[3:]), told
    assert list(there.iterdir()) == []


def test_a_stream_whose_input_is_gone_disturbs_nobody(store, tmp_path):
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    (here / "in").mkdir()
    for i in range(2000):
        (here / "in" / f"{i}.csv").write_text(f"a\n{i}\n")
    made = """
        CREATE STREAM t WITH (connector = 'file', path = 'in', rate = 100);
        CREATE STREAM d AS SELECT a FROM t;
        CREATE STREAM n AS SELECT count(*) AS n FROM d;
        CREATE STREAM s (x BIGINT);
    """
    with Server(store, "--checkpoint-interval", "100 ms", cwd=here) as server:
        with server.connect() as connection, connection.cursor() as cursor:
            for statement in made.split(";")[:-1]:
                cursor.execute(statement)
            wait_for(cursor, "SELECT count(*) > 20 FROM d", True)
        server.kill()
    shutil.rmtree(here / "in")
    asked = """
        SELECT count(*) > 20 AS some FROM d;
        SHOW STREAMS;
        INSERT INTO s VALUES (1);
        CREATE STREAM e AS SELECT x FROM s;
        FLUSH;
        SELECT x FROM e;
        SHOW JOBS;
    """
    process = run(store, asked, "--format", "json", cwd=there)
    told = [json.loads(line) for line in process.stdout.splitlines()]
    assert told[0] == {"some": True}
    jobs = {row["name"]: row["job"] for row in told if "location" in row}
    assert jobs == {"t": None, "d": "failed", "n": "running", "s": "running"}, told
    assert {"x": 1} in told, told
    [why] = [row["error"] for row in told if row.get("stream") == "d"]
    assert 'file "in" does not exist' in why and str(here) in why, why
    assert 'notice: stream "d" has failed: file "in" does not exist' in process.stderr, process.stderr
    # What a statement has to do with is an error.
    assert 'stream "d" has failed' in run(store, "CREATE STREAM f AS SELECT a FROM d; FLUSH;", cwd=there, ok=False).stderr
    assert 'stream "d" has failed' in run(store, "EXPLAIN ANALYZE STREAM d;", cwd=there, ok=False).stderr


def test_a_stream_that_cannot_be_made_out_is_listed_with_the_reason(store):
    run(store, "CREATE STREAM a (x BIGINT); CREATE STREAM b (x BIGINT);")
    catalog = sorted((store / "catalog").iterdir())[-1]
    kept = json.loads(catalog.read_text())
    kept["entries"][0]["resolved"]["columns"][0]["type"] = "Quaternion"
    catalog.write_text(json.dumps(kept))
    process = run(store, "SHOW STREAMS;", "--format", "json")
    assert [(row["name"], row["job"]) for row in map(json.loads, process.stdout.splitlines())] == [("a", "failed"), ("b", "running")]
    said = run(store, "SELECT * FROM a;", ok=False).stderr
    assert 'stream "a" has failed' in said and "Quaternion" in said, said


def test_a_catalog_of_a_later_build_says_so(store, tmp_path):
    run(store, "CREATE STREAM a (x BIGINT); CREATE STREAM b AS SELECT x FROM a; INSERT INTO a VALUES (1); FLUSH;")
    catalog = sorted((store / "catalog").iterdir())[-1]
    kept = json.loads(catalog.read_text())
    for entry in kept["entries"]:
        if entry["name"] == "b":
            entry["resolved"]["semantics"] = 99
    catalog.write_text(json.dumps(kept))
    process = run(store, "SELECT * FROM b; SHOW JOBS;", "--format", "json")
    assert process.stdout.splitlines()[0] == '{"x":1}', process.stdout
    assert 'warning: stream "b" has failed' in process.stderr, process.stderr
    assert 'stream \\"b\\": it was made by a later build' in process.stdout, process.stdout


def test_a_manifest_of_a_later_build_says_so(store):
    run(store, "CREATE STREAM a (x BIGINT); INSERT INTO a VALUES (1);")
    manifest = sorted((store / "jobs").glob("*/checkpoints/*.json"))[-1]
    manifest.write_text('{"version": 99, "all": "else is unknown"}')
    process = run(store, "CREATE STREAM b (x BIGINT); SHOW JOBS;", "--format", "json")
    assert "has format 99, this build reads 2 to 5" in process.stdout, process.stdout


def test_a_stream_whose_files_say_otherwise_is_named(store):
    sql = """
        CREATE STREAM a (x BIGINT, t TEXT);
        CREATE STREAM b AS SELECT t, sum(x) AS s FROM a GROUP BY t;
        CREATE STREAM c AS SELECT x FROM a;
        INSERT INTO a VALUES (1, 'k');
        FLUSH;
    """
    run(store, sql)
    catalog = sorted((store / "catalog").iterdir())[-1]
    kept = json.loads(catalog.read_text())
    for entry in kept["entries"]:
        if entry["name"] == "b":
            # As if the words of its query meant something else now.
            entry["sql"] = entry["sql"].replace("sum(x)", "min(t)")
    catalog.write_text(json.dumps(kept))
    process = run(store, "INSERT INTO a VALUES (2, 'k'); SELECT * FROM b; SHOW JOBS;", "--format", "json", ok=False)
    assert process.stdout.splitlines()[0] == '{"t":"k","s":1}', process.stdout
    assert 'stream \\"b\\" cannot go on: it has column \\"s\\" as BIGINT, and its query now gives TEXT' in process.stdout
    assert "CREATE OR REPLACE STREAM b AS" in process.stdout
    process = run(store, "CREATE OR REPLACE STREAM b AS SELECT t, max(x) AS s FROM a GROUP BY t; FLUSH; SELECT * FROM b; SELECT * FROM c;", "--format", "json")
    assert process.stdout.splitlines() == ['{"t":"k","s":2}', '{"x":1}', '{"x":2}']


def test_state_of_another_query_is_not_taken(store):
    sql = """
        CREATE STREAM a (x BIGINT, y DOUBLE);
        CREATE STREAM b AS SELECT x, max(y) AS m FROM a GROUP BY x;
        CREATE STREAM c AS SELECT x, max(y) AS m FROM a GROUP BY x;
        INSERT INTO a VALUES (1, 1.5);
        FLUSH;
    """
    run(store, sql)
    catalog = sorted((store / "catalog").iterdir())[-1]
    kept = json.loads(catalog.read_text())
    for entry in kept["entries"]:
        if entry["name"] == "b":
            entry["sql"] = entry["sql"].replace("max(y)", "CAST(max(x) AS DOUBLE)")
        if entry["name"] == "c":
            entry["sql"] = entry["sql"].replace("max(y)", "y").replace("GROUP BY x", "")
            entry["resolved"]["changelog"] = True
    catalog.write_text(json.dumps(kept))
    process = run(store, "SHOW JOBS;", "--format", "json")
    jobs = {job["stream"]: job for job in map(json.loads, process.stdout.splitlines())}
    assert 'operator "aggregate updating 1" of stream "b" does not fit: it is that of (max(DOUBLE)) by' in jobs["b"]["error"]
    assert 'operator "aggregate updating 1" of stream "c" does not fit: the query has no such' in jobs["c"]["error"]


def test_counts_go_on_after_a_restart(store, tmp_path):
    rows = [(1, "00:00"), (2, "01:00"), (3, "00:10"), (4, "02:00")]
    (tmp_path / "t.csv").write_text("id,at\n" + "".join(f"{i},2026-01-01 00:{at}\n" for i, at in rows))
    made = """
        CREATE STREAM t (id BIGINT, at TIMESTAMP, WATERMARK FOR at AS at) WITH (connector = 'file', path = 't.csv', follow = true);
        CREATE STREAM n AS SELECT window_start, count(*) AS n FROM TUMBLE(t, at, INTERVAL '10 seconds') GROUP BY window_start, window_end EMIT ON WINDOW CLOSE;
        CREATE STREAM d AS SELECT id FROM t;
    """

    def counts():
        with Server(store, "--checkpoint-interval", "100 ms", cwd=tmp_path) as server:
            with server.connect() as connection, connection.cursor() as cursor:
                for statement in made.split(";")[:-1] if not (store / "jobs").exists() else []:
                    cursor.execute(statement)
                wait_for(cursor, "SELECT count(*) FROM d", len(rows))
                cursor.execute("FLUSH")
                cursor.execute("SHOW JOBS")
                jobs = {job["stream"]: (job["rows_in"], job["rows_out"]) for job in cursor.fetch_arrow_table().to_pylist()}
            assert server.stop() == 0
        return jobs

    first = counts()
    assert first["d"] == (4, 4), first
    assert counts() == first
    with (tmp_path / "t.csv").open("a") as file:
        file.write("5,2026-01-01 00:03:00\n")
    rows.append((5, "03:00"))
    third = counts()
    assert third["d"] == (5, 5) and third["n"][0] == first["n"][0] + 1 and third["n"][1] > first["n"][1], third


def test_dead_letters_that_are_no_text(store, tmp_path):
    (tmp_path / "t.csv").write_bytes(b"id,t\n1,good\nx,plain\ny,\xff\xfe\n")
    sql = "CREATE STREAM t (id BIGINT, t TEXT) WITH (connector = 'file', path = 't.csv'); CREATE STREAM d AS SELECT id, t FROM t;"
    asked = "SELECT source, line, text FROM millstream.dead_letters ORDER BY line; SELECT text, raw FROM millstream.dead_letters WHERE line = 3; SELECT count(*) AS n FROM millstream.dead_letters;"
    process = run(store, sql + asked, "--format", "json", cwd=tmp_path)
    told = [json.loads(line) for line in process.stdout.splitlines()]
    assert told[:2] == [{"source": "t.csv", "line": 3, "text": "x,plain"}, {"source": "t.csv", "line": 4, "text": "y,\\xFF\\xFE"}], told
    assert told[2]["text"] == "x,plain" and told[3] == {"n": 2}
