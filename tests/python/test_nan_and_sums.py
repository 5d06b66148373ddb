"""NaN, infinities and zeros in the store; sums and averages that do not fit or are exact."""

import re
import json
import math

import pyarrow.parquet as pq
from conftest import Process, duck


def run(store, *statements, status=0):
    commands = [word for statement in statements for word in ("-c", statement)]
    with Process("--store", store, "--format", "json", *commands) as process:
        assert process.wait() == status, process.stderr
        return [list(json.loads(line).values()) for line in process.lines["stdout"]], process.stderr


def rows(store, *statements):
    return run(store, *statements)[0]


FLOATS = (
    "CREATE STREAM t (id BIGINT, v DOUBLE, r REAL)",
    "INSERT INTO t VALUES (1, 0.5, 0.5), (2, 'NaN', 'NaN'), (3, 0.5, 0.5)",
)


def test_nan_is_read_and_found(store):
    assert rows(store, *FLOATS, "SELECT id, v::TEXT, r::TEXT FROM t ORDER BY id") == [
        [1, "0.5", "0.5"], [2, "NaN", "NaN"], [3, "0.5", "0.5"],
    ]
    for column in ("v", "r"):
        found = rows(
            store,
            f"SELECT id FROM t WHERE {column} = 'NaN'",
            f"SELECT id FROM t WHERE {column} > 6",
            f"SELECT id FROM t WHERE {column} <> 0.5",
            f"SELECT max({column})::TEXT, min({column})::TEXT, count({column}) FROM t",
            f"SELECT id FROM t ORDER BY {column} DESC LIMIT 1",
            f"SELECT a.id FROM t a JOIN t b ON a.{column} = b.{column} WHERE b.id = 2",
            f"SELECT id FROM t WHERE {column} IN ('NaN'::DOUBLE, 7, 8, 9, 10)",
        )
        assert found == [[2], [2], [2], ["NaN", "0.5", 3], [2], [2], [2]], column


def test_files_without_statistics_of_floats(store, tmp_path):
    copied = tmp_path / "copy.parquet"
    rows(
        store,
        "CREATE STREAM t (id BIGINT, v DOUBLE, s STRUCT<x REAL, n BIGINT>)",
        "INSERT INTO t VALUES (1, 0.5, named_struct('x', 1.5, 'n', 1)), (2, 'NaN', named_struct('x', 2.5, 'n', 2))",
        "FLUSH",
        f"COPY t TO '{copied}'",
    )
    (stored,) = store.glob("streams/t/*.parquet")
    for file in (stored, copied):
        group = pq.ParquetFile(file).metadata.row_group(0)
        columns = {group.column(i).path_in_schema: group.column(i) for i in range(group.num_columns)}
        told = {name: column.statistics is not None and column.statistics.has_min_max for name, column in columns.items()}
        assert told == {"id": True, "v": False, "s.x": False, "s.n": True}, file
        assert duck(f"SELECT count(*) FROM '{file}' WHERE v > 6") == [(1,)]


def test_files_of_older_builds_are_read_without_their_statistics(store):
    rows(store, *FLOATS, "FLUSH")
    (file,) = store.glob("streams/t/*.parquet")
    table = pq.read_table(file)
    before = file.stat().st_size
    pq.write_table(table, file, write_page_index=True)
    # The manifests tell how long the file is.
    for manifest in store.glob("jobs/*/checkpoints/*.json"):
        manifest.write_text(re.sub(rf":{before}\b", f":{file.stat().st_size}", manifest.read_text()))
    assert pq.ParquetFile(file).metadata.row_group(0).column(1).statistics.has_min_max
    assert rows(
        store,
        "SELECT id, v::TEXT, r::TEXT FROM t WHERE id = 2",
        "SELECT id FROM t WHERE v > 6",
        "SELECT id FROM t WHERE v::TEXT = 'NaN'",
        "SELECT max(v)::TEXT, count(*) FROM t",
        "SELECT id FROM t ORDER BY r DESC LIMIT 1",
    ) == [[2, "NaN", "NaN"], [2], [2], ["NaN", 3], [2]]


# NaN of two forms, both zeros and both infinities; `i` tells the rows apart.
ODD = (
    "CREATE STREAM f (i BIGINT, v DOUBLE)",
    "CREATE STREAM raw (i BIGINT, a DOUBLE, b DOUBLE)",
    "INSERT INTO raw VALUES (1, 'NaN', 1), (2, 0, 0), (3, 0, 1), (4, 0, -1), (5, 'inf', 1), (6, '-inf', 1), (7, 2, 1), (8, 'NaN', -1)",
    "INSERT INTO f SELECT i, CASE i WHEN 2 THEN a / b ELSE a * b END FROM raw",
)


def test_one_nan_and_one_zero_wherever_rows_are_told_apart(store):
    streams = (
        "CREATE STREAM g AS SELECT v, count(*) AS n FROM f GROUP BY v",
        "CREATE STREAM d AS SELECT count(DISTINCT v) AS n, min(v) AS lo, max(v) AS hi FROM f",
        "CREATE STREAM nested AS SELECT make_array(v) AS a, count(*) AS n FROM f GROUP BY make_array(v)",
        "CREATE STREAM k (v DOUBLE, i BIGINT, PRIMARY KEY (v))",
        "INSERT INTO k SELECT v, i FROM f",
        "CREATE STREAM ks AS SELECT count(*) AS n FROM k",
        "FLUSH",
    )
    counts = [1, 1, 1, 2, 3]
    sorted_counts = "SELECT n FROM {} ORDER BY n"
    found = rows(
        store, *ODD, *streams,
        sorted_counts.format("g"),
        sorted_counts.format("(SELECT v, count(*) AS n FROM f GROUP BY v)"),
        sorted_counts.format("nested"),
        sorted_counts.format("(SELECT count(*) AS n FROM f GROUP BY make_array(v))"),
        "SELECT n, lo::TEXT, hi::TEXT FROM d",
        "SELECT count(DISTINCT v), min(v)::TEXT, max(v)::TEXT FROM f",
        "SELECT count(*) FROM (SELECT DISTINCT v FROM f)",
        "SELECT n FROM ks",
        "SELECT count(*) FROM k",
    )
    assert found == [[n] for n in counts] * 4 + [[5, "-inf", "NaN"]] * 2 + [[5], [5], [5]]
    found = rows(
        store,
        "SELECT i FROM f WHERE v IN (0.0, 17.0, 18.0, 19.0, 20.0) ORDER BY i",
        "SELECT i FROM f WHERE v > 1e300 ORDER BY i",
        "SELECT i FROM f WHERE v = 'NaN' ORDER BY i",
        "SELECT count(*) FROM f a JOIN f b ON a.v = b.v",
        "SELECT count(*) FROM (SELECT v FROM f INTERSECT SELECT v FROM f)",
        "SELECT count(*) FROM f WHERE v NOT IN (SELECT v FROM f WHERE i IN (1, 3))",
        "SELECT max(n) FROM (SELECT count(*) OVER (PARTITION BY v) AS n FROM f)",
        "SELECT i FROM f ORDER BY v, i",
        "SELECT count(*) FROM (SELECT v, i % 2 FROM f GROUP BY ROLLUP (v, i % 2))",
    )
    assert found == [
        [3], [4], [1], [2], [5], [8], [1], [2], [8],
        [9 + 4 + 1 + 1 + 1], [5], [3], [3],
        [6], [3], [4], [7], [5], [1], [2], [8],
        [1 + 5 + 7],
    ]


def test_extremes_of_groups_of_infinities(store):
    assert rows(
        store, *ODD,
        "SELECT v::TEXT AS a, min(v)::TEXT, max(v)::TEXT FROM f WHERE i IN (5, 6) GROUP BY v ORDER BY v",
        "SELECT i % 2, min(v)::TEXT, max(v)::TEXT FROM f WHERE i IN (1, 5, 6, 8) GROUP BY i % 2 ORDER BY 1",
    ) == [["-inf", "-inf", "-inf"], ["inf", "inf", "inf"], [0, "-inf", "NaN"], [1, "inf", "NaN"]]


def test_sums_of_frames_forget_what_has_left_them(store):
    frames = "OVER (ORDER BY i ROWS BETWEEN 1 PRECEDING AND CURRENT ROW)"
    found = rows(
        store,
        "CREATE STREAM w (i BIGINT, v DOUBLE)",
        "INSERT INTO w VALUES (1, 'inf'), (2, 1), (3, 1e20), (4, 2), (5, 3), (6, 'NaN'), (7, 4), (8, 5)",
        f"SELECT (sum(v) {frames})::TEXT, (avg(v) {frames})::TEXT FROM w ORDER BY i",
    )
    assert [row[0] for row in found][4:] == ["5.0", "NaN", "NaN", "9.0"]
    assert [row[1] for row in found][4:] == ["2.5", "NaN", "NaN", "4.5"]


def test_a_sum_that_does_not_fit_is_an_error(store):
    create = (
        "CREATE STREAM b (g BIGINT, v BIGINT, u BIGINT UNSIGNED, d DECIMAL(38, 0))",
        f"INSERT INTO b VALUES (1, {2**63 - 1}, {2**63 - 1}, '{10**38 - 1}'), (1, 1, {2**63 - 1}, '1'), (2, 5, 2, '3'), (1, 0, 9, '0')",
    )
    rows(store, *create)
    for call, value, wanted, cast in [
        ("sum(v)", 2**63, "BIGINT", "sum(v::DECIMAL(38, 0))"),
        ("sum(u)", 2**64 + 7, "BIGINT UNSIGNED", "sum(u::DECIMAL(38, 0))"),
        ("sum(d)", 10**38, "DECIMAL(38, 0)", "sum(d::DOUBLE)"),
        ("sum(DISTINCT v)", 2**63, "BIGINT", "sum(DISTINCT v::DECIMAL(38, 0))"),
    ]:
        for query in (
            f"SELECT {call} FROM b WHERE g = 1",
            f"SELECT g, {call} FROM b GROUP BY g",
            f"SELECT g, {call}, count(DISTINCT u) FROM b GROUP BY g",
        ):
            said = run(store, query, status=1)[1]
            assert f"{value} does not fit {wanted}" in said, said
            if "DISTINCT" not in query:
                assert f"write {cast}" in said, said
    assert rows(
        store,
        "SELECT sum(v::DECIMAL(38, 0))::TEXT FROM b",
        "SELECT avg(v) FROM b WHERE g = 1",
        "SELECT g, sum(v) FROM b WHERE v < 9 GROUP BY g ORDER BY g",
        "SELECT sum(v) FILTER (WHERE v < 9), sum(v + 0) FILTER (WHERE v > 9) FROM b",
        "SELECT sum(v) OVER (ORDER BY v ROWS BETWEEN CURRENT ROW AND CURRENT ROW) AS s FROM b ORDER BY s",
    ) == [[str(2**63 + 5)], [(2**63) / 3], [1, 1], [2, 5], [6, 2**63 - 1], [0], [1], [5], [2**63 - 1]]


def test_a_sum_that_does_not_fit_is_put_aside_in_a_stream(store):
    found = rows(
        store,
        "CREATE STREAM b (k BIGINT, g BIGINT, v BIGINT, PRIMARY KEY (k))",
        "CREATE STREAM s AS SELECT g, count(*) AS n, sum(v) AS total, sum(DISTINCT v) AS once FROM b GROUP BY g",
        f"INSERT INTO b VALUES (1, 1, {2**63 - 1}), (2, 1, 1), (3, 2, 5)",
        "FLUSH",
        "SELECT * FROM s",
        "INSERT INTO b VALUES (2, 1, -1)",
        "FLUSH",
        "SELECT * FROM s ORDER BY g",
    )
    assert found == [[2, 1, 5, 5], [1, 2, 2**63 - 2, 2**63 - 2], [2, 1, 5, 5]]
    # A file that was made longer stays for those who read it: only the stream tells which ones count.
    letters = rows(store, "SELECT expression, reason, weight FROM millstream.dead_letters ORDER BY weight")
    why = ("sum(v)", "9223372036854775808 does not fit BIGINT; write sum(v::DECIMAL(38, 0))")
    assert letters == [[*why, -1], [*why, 1]]


def test_averages_are_exact(store):
    found = rows(
        store,
        "CREATE STREAM a (g BIGINT, d DECIMAL(10, 2), w DECIMAL(38, 18), n BIGINT)",
        "INSERT INTO a VALUES (1, 1, '12345678901234567890.5', 9223372036854775807), (1, 2, 1, 9223372036854775807), (2, 2, NULL, NULL)",
        "CREATE STREAM s AS SELECT avg(d)::TEXT AS d, avg(w)::TEXT AS w, avg(n) AS n FROM a",
        "FLUSH",
        "SELECT d, w, n FROM s",
        "SELECT avg(d)::TEXT, avg(w)::TEXT, avg(n) FROM a",
        "SELECT avg(d)::TEXT FROM a GROUP BY g ORDER BY g",
        "SELECT avg(DISTINCT d)::TEXT, avg(-d)::TEXT FROM a",
    )
    all_of_it = ["1.666667", "6172839450617283945.750000000000000000", float(2**63 - 1)]
    assert found == [all_of_it, all_of_it, ["1.500000"], ["2.000000"], ["1.500000", "-1.666667"]]
    assert math.isclose(found[0][2], 2**63)
