"""COPY: what it writes reads back, what it cannot write it leaves as it was; folders by Hive's convention."""

import json
import os
import subprocess

import duckdb
import pyarrow.csv
import pyarrow.parquet
import pytest
from conftest import run

ROWS = """
    CREATE STREAM t (id BIGINT, k TEXT, day DATE, note TEXT, at TIMESTAMP(0), tags BIGINT[], who STRUCT<name TEXT, age INT>);
    INSERT INTO t VALUES
        (1, 'a', '2026-01-01', 'x', '2026-01-01 00:00:01', [1, 2], named_struct('name', 'Ann', 'age', 7)),
        (2, '', '2026-01-01', '', '2026-01-01 00:00:02', NULL, NULL),
        (3, NULL, '2026-01-02', NULL, NULL, [], named_struct('name', '', 'age', NULL)),
        (4, 'b/c = d%', NULL, 'say "so", then', '1969-12-31 23:59:59', [NULL], named_struct('name', NULL, 'age', 1)),
        (5, '__HIVE_DEFAULT_PARTITION__', '2026-01-02', ' blank ', '2026-01-01 00:00:05', [3], NULL);
"""
COLUMNS = "id BIGINT, k TEXT, day DATE, note TEXT, at TIMESTAMP(0), tags BIGINT[], who STRUCT<name TEXT, age INT>"


def ask(store, sql, **options):
    return [json.loads(line) for line in run(store, sql, "--format", "json", **options).stdout.splitlines()]


def everything(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.mark.parametrize("file", ["t.csv", "t.csv.gz", "t.json", "t.json.zst", "t.parquet", "t.arrow"])
def test_what_is_written_reads_back_the_same(store, tmp_path, file):
    made = ROWS + f"""
        COPY t TO '{tmp_path}/{file}';
        CREATE STREAM back ({COLUMNS}) WITH (connector = 'file', path = '{tmp_path}/{file}');
        CREATE STREAM sunk WITH (connector = 'file', path = '{tmp_path}/sunk/', format = '{file.split(".")[1]}') AS SELECT * FROM t;
    """
    if file == "t.arrow":
        made = made[: made.index("CREATE STREAM sunk")]
    run(store, made)
    before = ask(store, "SELECT * FROM t ORDER BY id")
    assert ask(store, "SELECT * FROM back ORDER BY id") == before
    if file != "t.arrow":
        run(store, f"CREATE STREAM again ({COLUMNS}) WITH (connector = 'file', path = '{tmp_path}/sunk/');")
        assert ask(store, "SELECT * FROM again ORDER BY id") == before


def test_one_column_of_nulls_and_empty_texts_in_csv(store, tmp_path):
    run(store, f"""
        CREATE STREAM one (t TEXT);
        INSERT INTO one VALUES ('x'), (NULL), (''), ('y'), (NULL);
        COPY one TO '{tmp_path}/one.csv';
        CREATE STREAM back (t TEXT) WITH (connector = 'file', path = '{tmp_path}/one.csv');
    """)
    assert (tmp_path / "one.csv").read_text() == 't\nx\n\n""\ny\n\n'
    counts = "SELECT count(*) AS n, count(t) AS some, count(*) FILTER (WHERE t = '') AS empty FROM "
    assert ask(store, counts + "back") == ask(store, counts + "one") == [{"n": 5, "some": 3, "empty": 1}]


def test_timestamps_without_fractions_are_timestamps_for_others(store, tmp_path):
    run(store, ROWS + f"""
        COPY (SELECT id, at FROM t) TO '{tmp_path}/t.parquet';
        CREATE STREAM sunk WITH (connector = 'file', path = '{tmp_path}/sunk/', format = 'parquet') AS SELECT id, at FROM t;
    """)
    for files in (f"{tmp_path}/t.parquet", f"{tmp_path}/sunk/*.parquet"):
        assert duckdb.sql(f"SELECT typeof(a.at) FROM '{files}' a WHERE id = 4").fetchall()[0][0].startswith("TIMESTAMP")
        assert duckdb.sql(f"SELECT a.at::TIMESTAMP::TEXT FROM '{files}' a WHERE id = 4").fetchall() == [("1969-12-31 23:59:59",)]


@pytest.mark.parametrize("stored", ["CSV", "JSON", "PARQUET"])
def test_folders_are_columns_again(store, tmp_path, stored):
    out = tmp_path / "out"
    run(store, ROWS + f"COPY (SELECT * FROM t) TO '{out}' STORED AS {stored} PARTITIONED BY (day, k);")
    folders = {name for name in everything(out) if name.count("/") == 1}
    assert {folder.split("/")[1] for folder in folders} == {
        "k=a", "k=", "k=__HIVE_DEFAULT_PARTITION__", "k=b%2Fc%20%3D%20d%25", "k=%5F_HIVE_DEFAULT_PARTITION__",
    }
    assert {folder.split("/")[0] for folder in folders} == {"day=2026-01-01", "day=2026-01-02", "day=__HIVE_DEFAULT_PARTITION__"}
    read = f"WITH (connector = 'file', path = '{out}/', format = '{stored.lower()}')"
    run(store, f"""
        CREATE STREAM declared ({COLUMNS}) {read};
        CREATE STREAM found {read};
        CREATE STREAM kept AS SELECT id, k, day FROM declared;
        CREATE STREAM pattern ({COLUMNS}) WITH (connector = 'file', path = '{out}/*/*/*');
    """)
    before = ask(store, "SELECT id, k, day, note FROM t ORDER BY id")
    for name in ("declared", "found", "pattern"):
        assert ask(store, f"SELECT id, k, day, note FROM {name} ORDER BY id") == before, name
    assert ask(store, "SELECT id, k, day FROM kept ORDER BY id") == [{k: row[k] for k in ("id", "k", "day")} for row in before]
    types = {row["column"]: row["type"] for row in ask(store, "DESCRIBE found")}
    assert (types["day"], types["k"]) == ("DATE", "TEXT"), types
    # As others read them; DuckDB takes no name for the text that is called like NULL.
    reader = {"CSV": "read_csv", "JSON": "read_json", "PARQUET": "read_parquet"}[stored]
    theirs = duckdb.sql(f"SELECT id, k, day::TEXT FROM {reader}('{out}/*/*/*', hive_partitioning = true) ORDER BY id").fetchall()
    assert theirs[:4] == [(row["id"], row["k"], row["day"]) for row in before[:4]]
    assert ask(store, "SELECT count(*) AS n FROM declared WHERE k IS NULL") == [{"n": 1}]
    assert ask(store, "SELECT day, count(*) AS n FROM found GROUP BY day ORDER BY day NULLS LAST") == [
        {"day": "2026-01-01", "n": 2}, {"day": "2026-01-02", "n": 2}, {"day": None, "n": 1},
    ]


def test_folders_that_a_condition_leaves_out_are_not_read(store, tmp_path):
    for day in range(1, 5):
        folder = tmp_path / "in" / f"day={day}"
        folder.mkdir(parents=True)
        (folder / "a.csv").write_text("id\n1\nno number\n" if day == 3 else f"id\n{day}\n")
    run(store, f"CREATE STREAM t (id BIGINT, day INT) WITH (connector = 'file', path = '{tmp_path}/in/');")
    for where, ids, left_out in (("day = 2", [2], False), ("day < 3 AND id > 1", [2], False), ("day >= 3", [1, 4], True), ("id < 9", [1, 2, 1, 4], True)):
        process = run(store, f"SELECT id FROM t WHERE {where} ORDER BY day;", "--format", "json")
        assert [json.loads(line)["id"] for line in process.stdout.splitlines()] == ids, where
        assert ("left out" in process.stderr) == left_out, (where, process.stderr)
    # A value that is none of its column is told of, the rest is read.
    (tmp_path / "in" / "day=x").mkdir()
    (tmp_path / "in" / "day=x" / "a.csv").write_text("id\n7\n")
    process = run(store, "SELECT id FROM t WHERE day <> 3 ORDER BY id;", "--format", "json")
    assert [json.loads(line)["id"] for line in process.stdout.splitlines()] == [1, 2, 4]
    assert 'column "day": x is not an INT' in process.stderr, process.stderr
    run(store, f"CREATE STREAM plain WITH (connector = 'file', path = '{tmp_path}/in/', partitions = false);")
    assert [row["column"] for row in ask(store, "DESCRIBE plain")] == ["id"]


def test_streams_do_not_read_folders_that_their_conditions_leave_out(store, tmp_path):
    """Neither at first nor after a restart, nor what comes later; and each stream by its own conditions."""
    def write(day, name, *lines):
        folder = tmp_path / "in" / f"day={day}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f".{name}").write_text("".join(f"{line}\n" for line in lines))
        (folder / f".{name}").rename(folder / name)

    def look(ids, bad):
        process = run(store, "FLUSH; SELECT id FROM narrow ORDER BY id; SELECT count(*) AS n FROM millstream.dead_letters WHERE stream = 'narrow'; "
                      "SELECT sum(n) AS n FROM closed;", "--format", "json")
        *rows, dead, closed = [json.loads(line) for line in process.stdout.splitlines()]
        assert ([row["id"] for row in rows], dead["n"], closed["n"]) == (ids, bad, len(ids)), process.stderr

    for day in range(1, 5):
        write(day, "a.csv", "id,at", f"{day},2026-01-0{day} 00:00:00", *(["no number,no time"] if day in (2, 3) else []))
    source = f"(id BIGINT, at TIMESTAMP, day INT, WATERMARK FOR at AS at) WITH (connector = 'file', path = '{tmp_path}/in/', format = 'csv'"
    made = f"""
        CREATE STREAM t {source});
        CREATE STREAM followed {source}, follow = true, poll_interval = '20ms');
        CREATE VIEW v AS SELECT * FROM t;
        CREATE STREAM narrow AS SELECT id FROM v WHERE day = 2 AND id > 0;
        CREATE STREAM either AS SELECT id FROM t WHERE day = 1 UNION ALL SELECT -id FROM t WHERE day = 4;
        CREATE STREAM all_of_them AS SELECT id FROM t WHERE day = 1 UNION ALL SELECT id FROM t;
        CREATE STREAM unsure AS SELECT id FROM t WHERE day = 4 OR id = 3;
        CREATE STREAM closed AS SELECT window_end, count(*) AS n FROM TUMBLE(t, at, INTERVAL '1 day') WHERE day = 2 GROUP BY window_end EMIT ON WINDOW CLOSE;
        CREATE STREAM later AS SELECT id FROM followed WHERE day IN (1, 5);
    """
    run(store, made)
    look([2], 1)
    found = {name: [row["id"] for row in ask(store, f"SELECT id FROM {name} ORDER BY id")] for name in ("either", "all_of_them", "unsure")}
    assert found == {"either": [-4, 1], "all_of_them": [1, 1, 2, 3, 4], "unsure": [3, 4]}
    dead = {row["stream"]: row["n"] for row in ask(store, "SELECT stream, count(*) AS n FROM millstream.dead_letters GROUP BY stream")}
    assert dead == {"narrow": 1, "closed": 1, "all_of_them": 2, "unsure": 2}, dead
    write(5, "b.csv", "id,at", "50,2026-01-05 00:00:00", "no number,no time")
    write(3, "b.csv", "id,at", "no number,no time")
    for _ in range(50):
        later = ask(store, "FLUSH; SELECT id FROM later ORDER BY id;")
        if len(later) == 2:
            break
    assert [row["id"] for row in later] == [1, 50]
    assert ask(store, "SELECT source FROM millstream.dead_letters WHERE stream = 'later'") == [{"source": f"{tmp_path}/in/day=5/b.csv"}]
    # What is put elsewhere is no other.
    run(store, f"CREATE STREAM kept (id BIGINT); INSERT INTO kept SELECT id FROM t WHERE day = 4; COPY (SELECT id FROM t WHERE day = 4) TO '{tmp_path}/four.csv';")
    assert ask(store, "SELECT id FROM kept") == [{"id": 4}] and (tmp_path / "four.csv").read_text() == "id\n4\n"


def test_a_folder_with_files_is_not_added_to_without_a_word(store, tmp_path):
    out = tmp_path / "out"
    copy = f"COPY t TO '{out}' STORED AS CSV PARTITIONED BY (k)"
    run(store, ROWS + copy + ";")
    (out / "notes.txt").write_text("mine")
    before = everything(out)
    for statement in (copy, f"COPY t TO '{out}/' STORED AS PARQUET"):
        said = run(store, statement + ";", ok=False).stderr
        assert "has files already" in said and "OVERWRITE" in said and "APPEND" in said, said
    assert everything(out) == before
    read = f"CREATE OR REPLACE STREAM back WITH (connector = 'file', path = '{out}/', format = 'csv');"
    count = "SELECT count(*) AS n, count(DISTINCT id) AS ids FROM back WHERE id IS NOT NULL;"
    (out / "notes.txt").unlink()
    run(store, copy + " APPEND;")
    assert ask(store, read + count) == [{"n": 10, "ids": 5}]
    (out / "notes.txt").write_text("mine")
    run(store, f"COPY (SELECT * FROM t WHERE id < 3) TO '{out}' STORED AS CSV PARTITIONED BY (k) OVERWRITE;")
    assert {name for name in everything(out) if "/" not in name} == {"k=", "k=a", "notes.txt"}
    assert "once" in run(store, copy + " OVERWRITE APPEND;", ok=False).stderr
    assert "APPEND adds files to a folder" in run(store, f"COPY t TO '{tmp_path}/t.csv' APPEND;", ok=False).stderr


def test_an_export_that_fails_leaves_what_was_there(store, tmp_path):
    to = tmp_path / "to"
    to.mkdir()
    (to / "was.csv").write_text("mine")
    run(store, ROWS)
    for target in ("was.csv", "new.csv", "new.parquet", "deep/er/new.json", "folder/"):
        stored = " STORED AS CSV" if target.endswith("/") else ""
        said = run(store, f"COPY (SELECT id, 10 / (id - 3) AS x FROM t) TO '{to}/{target}'{stored};", ok=False).stderr
        assert "zero" in said, said
        said = run(store, f"COPY (SELECT id, INTERVAL '1 day' AS x FROM t) TO '{to}/{target}' STORED AS PARQUET;", ok=False).stderr
        assert "INTERVAL cannot be stored" in said, said
    for options in ("'format.unknown' '1'", "'parquet.compression' 'zstd'"):
        assert "no option" in run(store, f"COPY t TO '{to}/new.csv' OPTIONS ({options});", ok=False).stderr
    assert everything(to) == ["was.csv"] and (to / "was.csv").read_text() == "mine"


def test_a_full_disk_is_said_and_leaves_nothing(store, tmp_path):
    run(store, "CREATE STREAM n WITH (connector = 'nexmark', table = 'bid', events = 100000);")
    for stored in ("CSV", "JSON", "PARQUET"):
        said = run(store, f"COPY (SELECT * FROM n) TO '/dev/full' STORED AS {stored};", ok=False).stderr
        assert "no space left" in said and "bug" not in said, said
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", small], capture_output=True)
    if mounted.returncode:
        pytest.skip("a small disk cannot be made here")
    try:
        for target in ("n.csv", "n.json", "n.parquet", "folder/"):
            said = run(store, f"COPY (SELECT * FROM n) TO '{small}/{target}' STORED AS {'CSV' if target.endswith('/') else target[2:]};", ok=False).stderr
            assert "no space left" in said and "bug" not in said, said
            assert os.listdir(small) == [], target
    finally:
        subprocess.run(["umount", small], check=True)


def test_options_of_csv(store, tmp_path):
    run(store, ROWS + f"COPY (SELECT id, note FROM t ORDER BY id) TO '{tmp_path}/t.csv' OPTIONS ('format.has_header' 'false', delimiter ';', quote '''');")
    assert (tmp_path / "t.csv").read_text().splitlines() == ["1;x", "2;''", "3;", '4;say "so", then', "5;' blank '"]


def test_more_folders_than_files_are_held_open(store, tmp_path):
    run(store, f"COPY (SELECT value AS v, value % 500 AS k FROM generate_series(1, 20000)) TO '{tmp_path}/out' STORED AS PARQUET PARTITIONED BY (k);")
    found = duckdb.sql(f"SELECT count(*), count(DISTINCT v), sum((v % 500 <> k)::INT) FROM read_parquet('{tmp_path}/out/*/*.parquet', hive_partitioning = true)").fetchall()
    assert found == [(20000, 20000, 0)]
