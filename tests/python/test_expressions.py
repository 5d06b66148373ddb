"""What expressions are worth: NULL, NaN and the two zeros, far times, clock changes; in streams and in batch, and
beside DuckDB over random expressions.

MILLSTREAM_EXPRESSIONS=n compares so many with DuckDB, MILLSTREAM_SEED=n those of that seed.
"""

import json
import math
import os
import pathlib
import re
import subprocess

import duckdb
import pytest
from conftest import BINARY, Process


def results(store, *statements, ok=True):
    commands = [word for statement in statements for word in ("-c", statement)]
    with Process("--store", store, "--format", "json", *commands) as process:
        code = process.wait()
        assert (code == 0) == ok, process.stderr
        return [json.loads(line) for line in process.lines["stdout"]] if ok else process.stderr


def values(store, columns, rows, select, **also):
    """Column v of `select` in batch, and of the same as a stream."""
    everything = results(
        store,
        f"CREATE STREAM t ({columns})",
        f"CREATE STREAM d AS {select}",
        f"INSERT INTO t VALUES {rows}",
        "FLUSH",
        f"SELECT v FROM ({select}) ORDER BY id",
        "SELECT v FROM d ORDER BY id",
    )
    batch, stream = everything[: len(everything) // 2], everything[len(everything) // 2 :]
    assert batch == stream
    return [row["v"] for row in batch]


NUMBERS = ("id BIGINT, i BIGINT", "(1, NULL), (2, 1), (3, 2)")


@pytest.mark.parametrize(
    "condition, ids",
    [
        ("i NOT IN (1) OR i NOT IN (2)", [2, 3]),
        ("NOT (i IN (1) AND i IN (2))", [2, 3]),
        ("NOT (i IN (1, 5) AND i IN (2, 6))", [2, 3]),
        ("i NOT IN (1, 5) OR i IN (1, 5)", [2, 3]),
        ("(i IN (1, 2) AND i NOT IN (1, 2)) IS NULL", [1]),
        ("(i ^ i) > 0", [2, 3]),
        ("(i ^ i) IS NULL", [1]),
        ("i = i", [2, 3]),
        ("power(i - 1.5e0, 1) < 1e0", [2, 3]),
    ],
)
def test_null_is_neither_true_nor_false(store, condition, ids):
    assert values(store, *NUMBERS, f"SELECT id, id AS v FROM t WHERE {condition}") == ids


FLOATS = ("id BIGINT, x DOUBLE", "(1, 0e0), (2, -0e0), (3, 'NaN'), (4, 1e0), (5, '-Infinity'), (6, NULL)")


@pytest.mark.parametrize(
    "expression, expected",
    [
        ("x IN (0e0, 7e0, 8e0, 9e0, 10e0)", [True, True, False, False, False, None]),
        ("x IN (-0e0, 7e0)", [True, True, False, False, False, None]),
        ("x NOT IN (0e0, 7e0, 8e0, 9e0, 'NaN')", [False, False, False, True, True, None]),
        ("x IN (7e0, x - x)", [True, True, True, False, False, None]),
        ("(x - x) IN ('NaN', 5e0, 6e0, 7e0)", [False, False, True, False, True, None]),
        ("(x - x) = 'NaN'", [False, False, True, False, True, None]),
        ("(x - x) > 1e300", [False, False, True, False, True, None]),
        ("x BETWEEN -0e0 AND 0e0", [True, True, False, False, False, None]),
        ("CASE x WHEN 0e0 THEN 'zero' WHEN 'NaN' THEN 'nan' ELSE 'other' END", ["zero", "zero", "nan", "other", "other", "other"]),
        ("nullif(x, 0e0) IS NULL", [True, True, False, False, False, True]),
        ("greatest(x, x - x)::TEXT", ["0.0", "0.0", "NaN", "1.0", "NaN", None]),
        ("x IS DISTINCT FROM 0e0", [False, False, True, True, True, True]),
    ],
)
def test_one_zero_and_one_nan(store, expression, expected):
    found = values(store, *FLOATS, f"SELECT id, {expression} AS v FROM t")
    assert [str(v).removeprefix("-") if isinstance(v, str) else v for v in found] == expected


TIMES = (
    "id BIGINT, ts TIMESTAMP, day DATE",
    "(1, TIMESTAMP '3000-05-06 07:08:09', DATE '3000-05-06'), (2, TIMESTAMP '9999-12-31 23:59:59.999999', DATE '9999-12-31'),"
    " (3, TIMESTAMP '0001-01-01 00:00:00', DATE '0001-01-01'), (4, TIMESTAMP '2026-03-29 02:30:00', DATE '2026-03-29')",
)


@pytest.mark.parametrize(
    "expression, expected",
    [
        ("date_bin(INTERVAL '1 day', ts)::TEXT", ["3000-05-06T00:00:00", "9999-12-31T00:00:00", "0001-01-01T00:00:00", "2026-03-29T00:00:00"]),
        ("date_bin(INTERVAL '1 year', ts)::TEXT", ["3000-01-01T00:00:00", "9999-01-01T00:00:00", "0001-01-01T00:00:00", "2026-01-01T00:00:00"]),
        ("date_bin(INTERVAL '7 days', ts, TIMESTAMP '3000-01-01')::DATE::TEXT", ["3000-04-30", "9999-12-29", "0000-12-27", "2026-03-25"]),
        ("date_trunc('month', ts)::TEXT", ["3000-05-01T00:00:00", "9999-12-01T00:00:00", "0001-01-01T00:00:00", "2026-03-01T00:00:00"]),
        ("date_trunc('year', day)::TEXT", ["3000-01-01T00:00:00", "9999-01-01T00:00:00", "0001-01-01T00:00:00", "2026-01-01T00:00:00"]),
        ("ts > '2500-01-01'", [True, True, False, False]),
        ("ts >= DATE '3000-01-01'", [True, True, False, False]),
        ("ts BETWEEN '2026-01-01' AND DATE '4000-01-01'", [True, False, False, True]),
        ("ts IN ('2026-03-29 02:30:00', '9999-12-31 23:59:59.999999')", [False, True, False, True]),
        ("to_timestamp('3000-01-01 00:00:00') < ts", [True, True, False, False]),
        ("to_timestamp(253402300799) = date_trunc('second', ts)", [False, True, False, False]),
        # Summers after 2099 are not in the tables of zones.
        ("CASE WHEN id > 1 THEN (ts AT TIME ZONE 'Europe/Berlin' AT TIME ZONE 'UTC')::TIMESTAMP::TEXT END", [None, "9999-12-31T22:59:59.999999", "0000-12-31T23:06:32", "2026-03-29T01:30:00"]),
    ],
)
def test_times_beyond_2262(store, expression, expected):
    assert values(store, *TIMES, f"SELECT id, {expression} AS v FROM t") == expected


def test_far_years_are_groups_of_their_own(store):
    select = "SELECT date_bin(INTERVAL '1 year', ts) AS id, count(*) AS v FROM t GROUP BY 1"
    assert values(store, *TIMES, select) == [1, 1, 1, 1]


ZONED = (
    "id BIGINT, tz TIMESTAMPTZ",
    "(1, TIMESTAMPTZ '2026-03-28 01:30:00+00'), (2, TIMESTAMPTZ '2026-10-25 00:30:00+00'),"
    " (3, TIMESTAMPTZ '2026-10-25 01:30:00+00'), (4, TIMESTAMPTZ '2026-03-28 23:00:00+00')",
)


@pytest.mark.parametrize(
    "expression, expected",
    [
        # A day later 02:30 does not exist: the clock shows 03:30.
        ("tz AT TIME ZONE 'Europe/Berlin' + INTERVAL '1 day'", ["2026-03-29 01:30", "2026-10-26 01:30", "2026-10-26 01:30", "2026-03-29 22:00"]),
        ("tz AT TIME ZONE 'Europe/Berlin' + INTERVAL '24 hours'", ["2026-03-29 01:30", "2026-10-26 00:30", "2026-10-26 01:30", "2026-03-29 23:00"]),
        ("tz AT TIME ZONE 'Europe/Berlin' - INTERVAL '1 month'", ["2026-02-28 01:30", "2026-09-25 00:30", "2026-09-25 00:30", "2026-02-27 23:00"]),
        ("date_trunc('hour', tz AT TIME ZONE 'Europe/Berlin')", ["2026-03-28 01:00", "2026-10-25 00:00", "2026-10-25 01:00", "2026-03-28 23:00"]),
        ("date_trunc('day', tz AT TIME ZONE 'Europe/Berlin')", ["2026-03-27 23:00", "2026-10-24 22:00", "2026-10-24 22:00", "2026-03-28 23:00"]),
    ],
)
def test_clock_changes(store, expression, expected):
    found = values(store, *ZONED, f"SELECT id, (({expression}) AT TIME ZONE 'UTC')::TIMESTAMP::TEXT AS v FROM t")
    assert [v.replace("T", " ").removesuffix(":00") for v in found] == expected


def test_the_repeated_hour_is_two_hours(store):
    rows = results(
        store,
        "CREATE STREAM t (tz TIMESTAMPTZ)",
        "CREATE STREAM h AS SELECT date_trunc('hour', tz AT TIME ZONE 'Europe/Berlin') AS h, count(*) AS n FROM t GROUP BY 1",
        "INSERT INTO t VALUES ('2026-10-25 00:10:00+00'), ('2026-10-25 00:50:00+00'), ('2026-10-25 01:10:00+00')",
        "FLUSH",
        "SELECT n FROM h ORDER BY h",
    )
    assert [row["n"] for row in rows] == [2, 1]


def test_what_is_never_null_is_grouped_and_united(store):
    kinds = ["TRUE", "NOT TRUE", "FALSE", "NOT FALSE", "UNKNOWN", "NOT UNKNOWN"]
    tests = ", ".join(f"b IS {kind} AS c{i}" for i, kind in enumerate(kinds))
    rows = results(
        store,
        "CREATE STREAM t (id BIGINT, b BOOLEAN)",
        f"CREATE STREAM d AS SELECT count(DISTINCT c0) AS n, bool_or(c1) AS o, c4 FROM (SELECT {tests} FROM t) GROUP BY c4",
        "INSERT INTO t VALUES (1, true), (2, false), (3, NULL)",
        "FLUSH",
        "SELECT * FROM d ORDER BY c4",
        f"SELECT {tests} FROM t ORDER BY id",
        "SELECT count(DISTINCT c) AS n FROM (SELECT b IS TRUE AS c FROM t UNION SELECT id IS NOT NULL FROM t)",
        "SELECT sum(n + 1) FILTER (WHERE n > 2) AS s FROM (SELECT count(*) AS n FROM t)",
    )
    assert rows[:2] == [{"n": 2, "o": True, "c4": False}, {"n": 1, "o": True, "c4": True}]
    assert [list(row.values()) for row in rows[2:5]] == [
        [True, False, False, True, False, True],
        [False, True, True, False, False, True],
        [False, True, False, True, True, False],
    ]
    assert rows[5:] == [{"n": 2}, {"s": 4}]


@pytest.mark.parametrize(
    "bound",
    ["least(at, now()) - INTERVAL '1 second'", "least(at, current_date::TIMESTAMP)", "at - random() * INTERVAL '1 second'", "max(at)", "(SELECT at)"],
)
def test_a_watermark_is_a_function_of_the_row(store, bound):
    said = results(store, f"CREATE STREAM w (at TIMESTAMP, WATERMARK FOR at AS {bound})", ok=False)
    assert "watermark" in said.lower(), said


EXPRESSIONS = pathlib.Path(BINARY).with_name("expressions")
WHOLE = {"Small", "Int", "Big", "Unsigned"}


def as_given(kind, column):
    """How DuckDB is to give a value, so that it compares with the text that was written of ours."""
    return {
        "Stamp": f"epoch_us({column})",
        "Zoned": f"epoch_us({column})",
        "Date": f"epoch_us({column}::TIMESTAMP) // 86400000000",
        "Decimal": f"CAST({column} AS VARCHAR)",
        "Real": f"CAST({column} AS DOUBLE)",
    }.get(kind, column)


class Failed:
    pass


# Where DuckDB fails and we have a value: it evaluates operands that do not matter any more, and the rest of the smallest
# number divided by -1 is an error there, which is 0 as in PostgreSQL.
LAZY = re.compile(r" (AND|OR|IN|%) |CASE|coalesce|nullif")


def by_duckdb(connection, line):
    select = f"SELECT {as_given(line['kind'], '(' + line['duckdb'] + ')')} FROM t"
    try:
        return [row[0] for row in connection.execute(f"{select} ORDER BY id").fetchall()]
    except duckdb.BinderException as e:
        raise AssertionError(f"DuckDB cannot say {line['duckdb']}: {e}") from e
    except duckdb.Error:
        pass
    found = []
    for row in range(len(line["values"])):
        try:
            found.append(connection.execute(f"{select} WHERE id = {row}").fetchall()[0][0])
        except duckdb.Error:
            found.append(Failed)
    return found


def is_same(kind, ours, theirs):
    if isinstance(ours, dict):
        # A division by zero is NULL there.
        return theirs is Failed or theirs is None
    if ours is None or theirs is None or theirs is Failed:
        return ours is theirs
    if kind in ("Real", "Double"):
        ours = float(ours)
        if math.isnan(ours) or math.isnan(theirs) or math.isinf(ours) or math.isinf(theirs):
            return ours == theirs or (math.isnan(ours) and math.isnan(theirs))
        return math.isclose(ours, theirs, rel_tol=1e-6 if kind == "Real" else 1e-12, abs_tol=1e-300)
    if kind == "Bool":
        return (ours == "true") == theirs
    return ours == str(theirs)


def compare(folder, seed, count):
    subprocess.run([EXPRESSIONS, str(seed), str(count), str(folder)], check=True)
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    # Its optimizer takes `a + 1 > 1` for `a > 0`, whether or not the sum has a value.
    connection.execute("PRAGMA disable_optimizer")
    connection.execute(f"CREATE TABLE t AS SELECT * FROM '{folder}/rows.parquet'")
    compared, unsaid, wrong = 0, {}, []
    with open(folder / "expressions.jsonl") as lines:
        for line in map(json.loads, lines):
            if line["duckdb"] is None:
                unsaid[line["rule"]] = unsaid.get(line["rule"], 0) + 1
                continue
            compared += 1
            theirs = by_duckdb(connection, line)
            pairs = enumerate(zip(line["values"], theirs, strict=True))
            lazy = LAZY.search(line["sql"])
            pairs = [(row, a, b) for row, (a, b) in pairs if not (lazy and b is Failed)]
            # Beside a constant NULL the other operand is not evaluated there.
            unread = "CAST(NULL" in line["duckdb"]
            pairs = [(row, a, b) for row, a, b in pairs if not (unread and isinstance(a, dict))]
            bad = next(((row, a, b) for row, a, b in pairs if not is_same(line["kind"], a, b)), None)
            if bad:
                wrong.append(f"{line['sql']}\n    in DuckDB {line['duckdb']}\n    row {bad[0]}: {bad[1]!r}, there {bad[2]!r}")
    return compared, unsaid, wrong


def test_random_expressions_are_those_of_duckdb(tmp_path):
    seed = int(os.environ.get("MILLSTREAM_SEED") or 1)
    count = int(os.environ.get("MILLSTREAM_EXPRESSIONS") or 2000)
    compared, unsaid, wrong = 0, {}, []
    for start in range(0, count, 1000):
        some, by_rule, bad = compare(tmp_path, seed + start // 1000, min(1000, count - start))
        compared += some
        wrong += bad
        for rule, n in by_rule.items():
            unsaid[rule] = unsaid.get(rule, 0) + n
    print(f"MILLSTREAM_SEED={seed}: {compared} of {count} expressions compared")
    for rule, n in sorted(unsaid.items(), key=lambda item: -item[1]):
        print(f"{n:6} not: {rule}")
    assert compared >= 0.9 * count, unsaid
    listed = "\n".join(wrong[:20])
    assert not wrong, f"MILLSTREAM_SEED={seed}: {len(wrong)} differ:\n{listed}"
