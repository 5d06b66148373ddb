"""Columns that tell of a row's file, its place there, its line: the same in batch and in streams, and through kill -9."""

import datetime
import json
import os
import random
import subprocess
import time

import pyarrow
import pyarrow.parquet
import pytest
from conftest import Process, Server, duck, parquet, run


def put(path, rows):
    """Writes `rows` of ids in the format of the path's ending; gives where each begins."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.table({"id": rows}), path, row_group_size=3)
        return list(range(len(rows)))
    head = "id\n" if path.suffix == ".csv" else ""
    lines = [f"{row}\n" if path.suffix == ".csv" else json.dumps({"id": row}) + "\n" for row in rows]
    path.write_text(head + "".join(lines))
    starts = [len(head)]
    for line in lines:
        starts.append(starts[-1] + len(line))
    return starts[:-1]


def shell(store, sql, stdin=None):
    return Process("--store", store, "--format", "json", "-c", sql, stdin=stdin)


def rows(store, sql):
    """What the statements of `sql` give, as one list."""
    with shell(store, sql) as process:
        assert process.wait() == 0, process.stderr
        return [json.loads(line) for line in process.lines["stdout"] if line.startswith("{")]


COLUMNS = "id BIGINT, name TEXT METADATA FROM 'file', position BIGINT METADATA, modified TIMESTAMP METADATA"


@pytest.mark.parametrize("ending", ["csv", "json", "parquet"])
def test_streams_and_batch_agree(tmp_path, store, ending):
    folder, expected = tmp_path / "in", {}
    for n in range(4):
        path = folder / f"day={n}" / f"part.{ending}"
        ids = list(range(n * 10, n * 10 + 8))
        starts = put(path, ids)
        os.utime(path, ns=(0, 1_700_000_000_000_000_000 + n * 1_000_000))
        for identity, start in zip(ids, starts):
            at = datetime.datetime(2023, 11, 14, 22, 13, 20, n * 1000)
            expected[identity] = (n, str(path), start, at)
    create = f"CREATE STREAM s ({COLUMNS}, day BIGINT) WITH (connector = 'file', path = '{folder}', format = '{ending}');"
    derived = "CREATE STREAM t AS SELECT id, day, name, position, modified FROM s; FLUSH;"
    found = rows(store, create + derived + "SELECT id, day, name, position, modified FROM s ORDER BY id")
    batch = {r["id"]: (r["day"], r["name"], r["position"], datetime.datetime.fromisoformat(r["modified"])) for r in found}
    assert batch == expected
    kept = duck(f"SELECT id, day, name, position, modified FROM read_parquet('{parquet(store, 't')}')")
    assert {row[0]: tuple(row[1:]) for row in kept} == expected
    # what the query does not ask for is not there, and what it asks for decides
    counts = rows(store, "SELECT name, count(*) AS c, max(position) AS p FROM s WHERE day > 1 GROUP BY name")
    assert {(r["name"], r["c"]) for r in counts} == {(str(folder / f"day={n}" / f"part.{ending}"), 8) for n in (2, 3)}
    first = {"csv": 3, "json": 0, "parquet": 0}[ending]
    assert rows(store, f"SELECT count(*) AS c FROM s WHERE position = {first}") == [{"c": 4}]


def test_statements(tmp_path, store):
    put(tmp_path / "a.csv", [1, 2])
    path = f"connector = 'file', path = '{tmp_path / 'a.csv'}'"
    shown = rows(store, f"CREATE STREAM s ({COLUMNS}) WITH ({path}); SHOW CREATE STREAM s")[0]
    text = next(value for value in shown.values() if "METADATA" in value)
    for column in ("name TEXT METADATA FROM 'file'", "position BIGINT METADATA FROM 'position'"):
        assert column in text, text
    again = rows(store, f"DROP STREAM s; {text}; SELECT position FROM s ORDER BY id")
    assert [row["position"] for row in again] == [3, 5]
    notes = {row["column"]: row.get("note") for row in rows(store, "DESCRIBE s")}
    assert notes["name"] == "metadata 'file'" and notes["id"] is None
    listed = {r["option"]: r["takes"] for r in rows(store, "SHOW CONNECTORS LIKE 'file'") if r["use"] == "metadata"}
    assert listed == {"file": "TEXT", "position": "BIGINT", "modified": "TIMESTAMP WITH TIME ZONE"}
    with shell(store, "\\dc stdin") as process:
        assert process.wait() == 0 and "METADATA FROM 'line'" in process.stdout, process.stdout


def test_the_other_columns_are_found_out(tmp_path, store):
    path = tmp_path / "a.csv"
    put(path, [1, 2])
    create = f"CREATE STREAM f (file TEXT NOT NULL METADATA) WITH (connector = 'file', path = '{path}');"
    *found, shown = rows(store, create + "SELECT * FROM f ORDER BY id; SHOW CREATE STREAM f")
    assert found == [{"id": n, "file": str(path)} for n in (1, 2)]
    assert "id BIGINT,\n  file TEXT METADATA FROM 'file' NOT NULL" in "".join(shown.values()), shown
    # metadata counts for what the content has of its name, and an event time may be among what is found
    path = tmp_path / "b.csv"
    path.write_text("file,id,at\nx,1,2026-01-01T00:00:00\n")
    columns = "file TEXT METADATA, WATERMARK FOR at AS at"
    create = f"CREATE STREAM g ({columns}) WITH (connector = 'file', path = '{path}');"
    assert rows(store, create + "SELECT id, file FROM g") == [{"id": 1, "file": str(path)}]


@pytest.mark.parametrize(
    "statement, message, hint",
    [
        ("(x TEXT METADATA) WITH (connector = 'file', path = 'a.csv', format = 'csv')", "connector 'file' has no metadata 'x'", "It has: 'file' TEXT"),
        ("(fil TEXT METADATA) WITH (connector = 'file', path = 'a.csv')", "has no metadata 'fil'", "Did you mean 'file'?"),
        ("(x INT METADATA FROM 'position') WITH (connector = 'file', path = 'a.csv')", "is BIGINT, not INTEGER", "cast it"),
        ("(x INT METADATA) WITH (connector = 'datagen')", "connector 'datagen' has no metadata 'x'", "It has none"),
        ("(x INT METADATA)", "is metadata of no connector", "WITH (connector"),
        ("(a INT, x INT METADATA VIRTUAL) WITH (connector = 'stdin')", "VIRTUAL is not supported", "never written"),
        ("(a INT, x INT METADATA FROM line) WITH (connector = 'stdin')", "expected the name of the metadata in quotes", ""),
        ("(a INT) INCLUDE line WITH (connector = 'stdin')", "INCLUDE is not supported", "METADATA FROM"),
    ],
)
def test_what_is_refused(store, statement, message, hint):
    process = run(store, f"CREATE STREAM s {statement}", ok=False)
    assert message in process.stderr and hint in process.stderr, process.stderr


def test_lines_of_standard_input(store):
    sql = "CREATE STREAM s (id BIGINT, n BIGINT METADATA FROM 'line') WITH (connector = 'stdin'); SELECT id, n FROM s"
    with shell(store, sql, stdin=subprocess.PIPE) as process:
        process.process.stdin.write('{"id": 1}\n\n{"id": 3}\nx\n{"id": 5}\n')
        process.process.stdin.close()
        assert process.wait() == 0, process.stderr
    found = [json.loads(line) for line in process.lines["stdout"]]
    assert [(row["id"], row["n"]) for row in found] == [(1, 1), (3, 3), (5, 5)]


def test_through_kills_while_files_grow(tmp_path, store):
    seed = random.SystemRandom().randrange(10**9)
    rng = random.Random(seed)
    folder = tmp_path / "in"
    folder.mkdir()
    starts, files = {}, [folder / f"{n}.json" for n in range(3)]
    for path in files:
        path.touch()
    sql = (
        f"CREATE STREAM s (id BIGINT, file TEXT METADATA, position BIGINT METADATA) "
        f"WITH (connector = 'file', path = '{folder}', format = 'json', follow = true, poll_interval = '5 ms');"
        "CREATE STREAM t WITH (checkpoint_interval = '20 ms') AS SELECT * FROM s"
    )
    run(store, sql)
    identity = 0
    for _ in range(5):
        with Server(store) as server:
            for _ in range(rng.randrange(2, 6)):
                path = rng.choice(files)
                with path.open("a") as out:
                    for _ in range(rng.randrange(1, 50)):
                        starts[identity] = (str(path), out.tell())
                        out.write(json.dumps({"id": identity}) + "\n")
                        identity += 1
                time.sleep(rng.random() / 20)
            server.kill()
    deadline = time.monotonic() + 30
    with Server(store):
        while True:
            pattern = parquet(store, "t")
            kept = duck(f"SELECT id, file, position FROM read_parquet('{pattern}')") if list(store.glob("streams/t/*")) else []
            if len(kept) >= identity or time.monotonic() > deadline:
                break
            time.sleep(0.05)
    assert len(kept) == identity, f"seed {seed}"
    assert {row[0]: tuple(row[1:]) for row in kept} == starts, f"seed {seed}"
