"""Other tools read a stream's files while its job commits and merges them: by the list of live files, where every read
is right, and by a pattern over the folder, where a read may fail and is right otherwise.

MILLSTREAM_READS says how many reads there are of each kind; there are few by default."""

import glob
import json
import os
import random
import threading
import time

import duckdb
import pyarrow.compute
import pyarrow.parquet
import pytest
from conftest import Server, parquet

READS = int(os.environ.get("MILLSTREAM_READS", 300))
OFTEN = ("--checkpoint-interval", "10ms")
SEED = 20261128
KEYS = 10


def live(store, stream):
    return json.loads((store / "live" / f"{stream}.json").read_text())


def paths(store, listed):
    return [str(store / file["path"]) for file in listed["files"]]


class Writer(threading.Thread):
    """Inserts into `grown` and `latest`, a row more and then all keys anew, until it is told to stop."""

    def __init__(self, connect, rows=0, round=-1):
        super().__init__(daemon=True)
        self.connect, self.ended, self.failed = connect, threading.Event(), None
        self.rows, self.round = rows, round
        self.start()

    def run(self):
        try:
            with self.connect() as connection, connection.cursor() as cursor:
                while not self.ended.is_set():
                    more = 1 + self.rows % 37
                    cursor.execute(f"INSERT INTO grown SELECT value, value * 2 FROM generate_series({self.rows}, {self.rows + more - 1})")
                    self.rows += more
                    cursor.execute(f"INSERT INTO latest SELECT value, {self.round + 1} FROM generate_series(0, {KEYS - 1})")
                    self.round += 1
        except Exception as e:
            self.failed = e

    def stop(self):
        self.ended.set()
        self.join(60)
        assert self.failed is None, self.failed


CREATE = """CREATE STREAM IF NOT EXISTS grown (id BIGINT, twice BIGINT);
CREATE STREAM IF NOT EXISTS latest (id BIGINT, round BIGINT, PRIMARY KEY (id))"""


def create(server):
    with server.connect() as connection, connection.cursor() as cursor:
        for statement in CREATE.split(";"):
            cursor.execute(statement)


def check_grown(found, atleast):
    """(rows, distinct, largest, sum of twice) of `grown` are those of its first rows."""
    rows, distinct, largest, twice = found
    assert rows >= atleast and (distinct, largest, twice) == (rows, rows - 1, rows * (rows - 1)), (found, atleast)


def check_latest(found, atleast):
    """(rows, sum, sum of squares) of what `latest` adds up to are those of one round."""
    rows, total, squares = found
    assert rows == KEYS and total % KEYS == 0, found
    last = total // KEYS
    assert last >= atleast and squares == KEYS * last * last, (found, atleast)


def by_duckdb(files):
    with duckdb.connect() as duck:
        return duck.execute("SELECT count(*), count(DISTINCT id), max(id), sum(twice)::BIGINT FROM read_parquet($1)", [files]).fetchone()


def latest_by_duckdb(files):
    with duckdb.connect() as duck:
        return duck.execute(
            """SELECT sum(w)::BIGINT, sum(w * round)::BIGINT, sum(w * round * round)::BIGINT
            FROM (SELECT round, CASE WHEN _op IN ('+I', '+U') THEN 1 ELSE -1 END AS w FROM read_parquet($1))""",
            [files],
        ).fetchone()


def by_duckdb_alone(store):
    """As the README says."""
    with duckdb.connect() as duck:
        duck.execute(
            f"SET VARIABLE live = (SELECT list('{store}/' || f.path) FROM (SELECT unnest(files) AS f FROM '{store}/live/grown.json'))"
        )
        return duck.execute("SELECT count(*), count(DISTINCT id), max(id), sum(twice)::BIGINT FROM read_parquet(getvariable('live'))").fetchone()


def by_pyarrow(files):
    table = pyarrow.parquet.read_table(sorted(glob.glob(files)) if isinstance(files, str) else files)
    return (
        table.num_rows,
        pyarrow.compute.count_distinct(table["id"]).as_py(),
        pyarrow.compute.max(table["id"]).as_py(),
        pyarrow.compute.sum(table["twice"]).as_py(),
    )


def by_polars(files):
    import polars

    rows = polars.scan_parquet(files).select("id", "twice").collect()
    return rows.height, rows["id"].n_unique(), rows["id"].max(), rows["twice"].sum()


READERS = {"duckdb": by_duckdb, "pyarrow": by_pyarrow, "polars": by_polars}


class Reader(threading.Thread):
    """Reads until it has done so often enough, and there were merges meanwhile."""

    def __init__(self, store, stream, read):
        super().__init__(daemon=True)
        self.store, self.stream, self.read = store, stream, read
        self.reads, self.errors, self.wrong = 0, [], None
        self.checkpoints, self.merges, self.most = set(), set(), 0
        self.start()

    def look(self):
        listed = live(self.store, self.stream)
        self.checkpoints.add(listed["checkpoint"])
        self.merges.update(file["path"] for file in listed["files"] if "-m" in file["path"])
        self.most = max(self.most, len(listed["files"]))

    def run(self):
        deadline = time.monotonic() + 120
        while self.reads < READS or (len(self.merges) < 3 and time.monotonic() < deadline):
            self.reads += 1
            try:
                self.look()
                self.read()
            except AssertionError as e:
                self.wrong = e
                return
            except Exception as e:
                self.errors.append(f"{type(e).__name__}: {e}"[:300])


@pytest.fixture
def served(store):
    with Server(store, *OFTEN) as server:
        create(server)
        writer = Writer(server.connect)
        while writer.round < 1 and writer.is_alive():
            time.sleep(0.01)
        yield server, writer
        writer.stop()
        assert server.stop() == 0, server.stderr


def read_both(store, grown, latest):
    """Reads both streams at once, and gives how that went."""
    readers = [Reader(store, "grown", grown), Reader(store, "latest", latest)]
    for reader in readers:
        reader.join(24 * 3600)
        assert reader.wrong is None, reader.wrong
    for reader in readers:
        print(
            f"{reader.stream}: {len(reader.errors)} of {reader.reads} reads failed; checkpoints {min(reader.checkpoints)} to "
            f"{max(reader.checkpoints)}, {len(reader.merges)} merges seen, at most {reader.most} files: {set(reader.errors)}"
        )
        assert len(reader.merges) > 2 and reader.most < 100
    return readers


@pytest.mark.parametrize("name", READERS)
def test_reads_by_the_list(store, served, name):
    server, writer = served
    read = READERS[name]

    def grown():
        acknowledged = writer.rows
        listed = live(store, "grown")
        found = read(paths(store, listed))
        check_grown(found, acknowledged)
        assert found[0] == listed["rows"] == sum(file["rows"] for file in listed["files"])

        acknowledged = writer.rows
        check_grown(by_duckdb_alone(store), acknowledged)

    def latest():
        acknowledged = writer.round
        check_latest(latest_by_duckdb(paths(store, live(store, "latest"))), acknowledged)

    readers = read_both(store, grown, latest)
    assert [reader.errors for reader in readers] == [[], []]


@pytest.mark.parametrize("name", READERS)
def test_reads_by_a_pattern(store, served, name):
    server, writer = served
    read = READERS[name]

    def grown():
        acknowledged = writer.rows
        check_grown(read(parquet(store, "grown")), acknowledged)

    def latest():
        acknowledged = writer.round
        check_latest(latest_by_duckdb(parquet(store, "latest")), acknowledged)

    for reader in read_both(store, grown, latest):
        # A file that has gone, and nothing else.
        gone = ["No such file" in e or "No files found" in e or "FileNotFound" in e for e in reader.errors]
        assert all(gone) and len(gone) < reader.reads / 2, reader.errors


def test_readers_find_what_a_kill_leaves(store):
    chance = random.Random(SEED)
    rows, round = 0, -1
    for _ in range(12):
        with Server(store, *OFTEN) as server:
            create(server)
            # What was on its way when the last life ended may have been kept.
            known = live(store, "grown")["rows"] if (store / "live" / "grown.json").exists() else 0
            writer = Writer(server.connect, known, round + 1)
            time.sleep(chance.uniform(0.2, 0.9))
            rows, round = max(rows, writer.rows), max(round, writer.round - 1)
            server.kill()
            writer.ended.set()
            writer.join(60)
        for files in (paths(store, live(store, "grown")), parquet(store, "grown")):
            check_grown(by_duckdb(files), rows)
        for files in (paths(store, live(store, "latest")), parquet(store, "latest")):
            check_latest(latest_by_duckdb(files), round)
    with Server(store, *OFTEN) as server, server.connect() as connection, connection.cursor() as cursor:
        cursor.execute("SELECT count(*), count(DISTINCT id), max(id), sum(twice) FROM grown")
        counted = cursor.fetchone()
        check_grown(tuple(map(int, counted)), rows)
        for files in (paths(store, live(store, "grown")), parquet(store, "grown")):
            assert by_duckdb(files) == tuple(map(int, counted))


def test_a_dependant_that_was_paused_goes_on_behind_merges(store):
    with Server(store, *OFTEN) as server, server.connect() as connection, connection.cursor() as cursor:
        create(server)
        cursor.execute("CREATE STREAM copied AS SELECT id, twice FROM grown")
        cursor.execute("CREATE STREAM rounds AS SELECT round, count(*) AS n FROM latest GROUP BY round")
        cursor.execute("INSERT INTO grown VALUES (0, 0)")
        cursor.execute("FLUSH")
        cursor.execute("PAUSE STREAM copied")
        cursor.execute("PAUSE STREAM rounds")
        merged = set()
        for n in range(1, 500):
            cursor.execute(f"INSERT INTO grown VALUES ({n}, {2 * n})")
            if n % 4 == 0:
                cursor.execute(f"INSERT INTO latest SELECT value, {n} FROM generate_series(0, {KEYS - 1})")
            merged.update(file["path"] for file in live(store, "grown")["files"] if "-m" in file["path"])
        assert len(merged) > 20
        cursor.execute("RESUME STREAM copied")
        cursor.execute("RESUME STREAM rounds")
        cursor.execute("FLUSH")
        cursor.execute("SELECT count(*), count(DISTINCT id), max(id), sum(twice) FROM copied")
        check_grown(tuple(map(int, cursor.fetchone())), 500)
        cursor.execute("SELECT round, n FROM rounds")
        assert cursor.fetchall() == [(496, KEYS)]
        check_grown(by_duckdb(paths(store, live(store, "copied"))), 500)


def test_the_list_goes_with_its_stream(store):
    with Server(store, *OFTEN) as server, server.connect() as connection, connection.cursor() as cursor:
        create(server)
        cursor.execute("INSERT INTO grown VALUES (0, 0)")
        listed = live(store, "grown")
        assert (listed["stream"], listed["rows"], listed["complete"]) == ("grown", 1, False)
        assert listed["epoch"] >= 1 and listed["checkpoint"] >= 1
        cursor.execute("CREATE OR REPLACE STREAM grown (id BIGINT, twice BIGINT)")
        cursor.execute("INSERT INTO grown VALUES (0, 0)")
        # Another stream, other files: none changes what it holds under its name.
        assert paths(store, live(store, "grown")) != paths(store, listed)
        cursor.execute("DROP STREAM grown")
        assert not (store / "live" / "grown.json").exists() and not (store / "streams" / "grown").exists()
