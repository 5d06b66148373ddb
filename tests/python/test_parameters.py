"""Values for `?` and `$1`, wherever a literal may stand, as drivers bind them."""

import datetime
import decimal

import adbc_driver_manager
import pandas
import pyarrow
import pytest

COLUMNS = "(id BIGINT, name TEXT, at TIMESTAMP, x DOUBLE, d DECIMAL(10, 2), ok BOOLEAN)"
ROWS = """(1, 'a', '2026-01-01 00:00:00', 1.5, 1.25, true), (2, 'b', '2026-01-02 00:00:00', 2.5, 2.25, false),
(3, 'c', '2026-01-03 00:00:00', 3.5, 3.25, NULL)"""
SECOND = datetime.datetime(2026, 1, 2)


@pytest.fixture(scope="module")
def cursor(server):
    with server.connect() as connection, connection.cursor() as cursor:
        cursor.execute(f"CREATE STREAM params {COLUMNS}")
        cursor.execute(f"INSERT INTO params VALUES {ROWS}")
        yield cursor
        cursor.execute("DROP STREAM params")


@pytest.mark.parametrize(
    "sql, values, expected",
    [
        ("SELECT ?", [1], [(1,)]),
        ("SELECT ?", ["x"], [("x",)]),
        ("SELECT ?", [None], [(None,)]),
        ("SELECT ? AS at, ? AS d", [SECOND, decimal.Decimal("1.50")], [(SECOND, decimal.Decimal("1.50"))]),
        ("SELECT id, ? AS tag FROM params", ["z"], [(1, "z"), (2, "z"), (3, "z")]),
        ("SELECT CASE WHEN id > ? THEN ? ELSE ? END FROM params", [1, "big", "small"], [("small",), ("big",), ("big",)]),
        ("SELECT CASE WHEN id > ? THEN ? ELSE ? END FROM params", [2, 10, 20], [(20,), (20,), (10,)]),
        ("SELECT id FROM params ORDER BY id LIMIT ?", [2], [(1,), (2,)]),
        ("SELECT id FROM params ORDER BY id OFFSET ?", [2], [(3,)]),
        ("SELECT id FROM params ORDER BY id LIMIT ? OFFSET ?", [1, 1], [(2,)]),
        ("SELECT id FROM params ORDER BY CASE WHEN id = ? THEN 0 ELSE 1 END, id", [2], [(2,), (1,), (3,)]),
        ("SELECT id FROM params WHERE at > ? - INTERVAL '1 day' AND at < ?", [SECOND, SECOND], []),
        ("SELECT id FROM params WHERE at >= ? - INTERVAL '1 day' AND at < ?", [SECOND, SECOND], [(1,)]),
        ("SELECT id FROM params WHERE at > ?", ["2026-01-02"], [(3,)]),
        ("SELECT id FROM params WHERE d IN (?, ?)", [decimal.Decimal("2.25"), 7], [(2,)]),
        ("SELECT id FROM params WHERE ? IS NULL OR id = ?", [None, 1], [(1,), (2,), (3,)]),
        ("SELECT count(*) FROM params WHERE ?", [True], [(3,)]),
        ("SELECT id + ? FROM params WHERE id = 1", [1.5], [(2.5,)]),
        ("SELECT abs(?), -?, NOT ?", [-3, 3, True], [(3, -3, False)]),
        ("SELECT coalesce(?, ?)", [None, "x"], [("x",)]),
        ("SELECT date_trunc(?, at) FROM params WHERE id = 2", ["day"], [(SECOND,)]),
        ("SELECT at + INTERVAL ? FROM params WHERE id = 1", ["1 day"], [(SECOND,)]),
        ("SELECT sum(id) FILTER (WHERE id > ?) FROM params HAVING count(*) > ?", [1, 2], [(5,)]),
        ("SELECT lag(id, ?) OVER (ORDER BY id) FROM params", [2], [(None,), (None,), (1,)]),
        ("SELECT ?, count(*) FROM params GROUP BY ?", ["a", "a"], [("a", 3)]),
        ("SELECT * FROM (VALUES (?, ?)) v (a, b)", [1, "x"], [(1, "x")]),
        ("VALUES (?, ?)", [1, "x"], [(1, "x")]),
        ("SELECT ? UNION ALL SELECT ?", [1, 2], [(1,), (2,)]),
        ("WITH a AS (SELECT ? AS v) SELECT v, v FROM a", [5], [(5, 5)]),
        ("SELECT * FROM generate_series(1, ?)", [3], [(1,), (2,), (3,)]),
        ("SELECT window_start FROM TUMBLE(params, at, ?) WHERE id = ?", ["1 day", 2], [(SECOND,)]),
        ("SELECT id FROM params WHERE id = $2 AND name = $1", ["b", 2], [(2,)]),
        ("SELECT $1, $1", ["b"], [("b", "b")]),
        ("SELECT id FROM params WHERE id = (SELECT max(id) FROM params WHERE id < ?)", [3], [(2,)]),
    ],
)
def test_a_value_stands_where_a_literal_may(cursor, sql, values, expected):
    cursor.execute(sql, values)
    rows = cursor.fetchall()
    assert rows == expected if "ORDER BY" in sql and "OVER" not in sql else sorted(rows, key=str) == sorted(expected, key=str)


def test_what_has_no_type_is_text_until_a_value_brings_one(cursor):
    assert [f.type for f in cursor.adbc_prepare("SELECT ?, id = ?, ? || 'x' FROM params LIMIT ?")] == [
        pyarrow.string(), pyarrow.int64(), pyarrow.string(), pyarrow.int64(),
    ]
    for value, arrow in [(1, pyarrow.int64()), ("x", pyarrow.string()), (1.5, pyarrow.float64()), (None, pyarrow.string())]:
        cursor.execute("SELECT ? AS v", [value])
        assert cursor.fetch_arrow_table().schema.field("v").type == arrow


def test_statements_that_are_no_queries(cursor, tmp_path):
    cursor.execute("CREATE STREAM params_in (id BIGINT, d DECIMAL(5, 1), name TEXT)")
    cursor.execute("INSERT INTO params_in SELECT id + ?, ?, name FROM params WHERE id = ?", [10, "1.5", 1])
    cursor.executemany("INSERT INTO params_in (id, name) VALUES (? + 1, ?)", [(1, "p"), (2, None)])
    cursor.execute("SELECT * FROM params_in ORDER BY id")
    assert cursor.fetchall() == [(2, None, "p"), (3, None, None), (11, decimal.Decimal("1.5"), "a")]
    file = tmp_path / "some.parquet"
    cursor.execute(f"COPY (SELECT id, ? AS tag FROM params WHERE id > ?) TO '{file}'", ["t", 2])
    assert pandas.read_parquet(file).to_dict("records") == [{"id": 3, "tag": "t"}]
    cursor.execute("EXPLAIN SELECT id FROM params WHERE id > ?", [41])
    assert any("41" in line for (line,) in cursor.fetchall())
    cursor.execute("DROP STREAM params_in")


@pytest.mark.parametrize(
    "sql, values, said",
    [
        ("CREATE STREAM params_s AS SELECT id FROM params WHERE id > ?", [1], "CREATE STREAM cannot have parameters"),
        ("CREATE VIEW params_v AS SELECT id FROM params WHERE id > ?", [1], "CREATE VIEW cannot have parameters"),
        ("SELECT ?", None, "has 1 parameter, but no values were given"),
        ("SELECT $2", ["b"], "has 2 parameters, but 1 were given"),
        ("SELECT nope, ? FROM params", ["b"], '"nope"'),
        ("SELECT ? FROM params_none", ["b"], '"params_none" does not exist'),
        ("INSERT INTO params (id) VALUES (?)", [1.5], "1.5"),
        ("SELECT id FROM params ORDER BY id LIMIT ?", ["many"], "many"),
        ("SELECT * FROM TUMBLE(params, at, ?)", ["soon"], "is an interval, not $1"),
        ("SELECT ? FROM params ORDER BY date_trunc(?, at)", [1, "eon"], "eon"),
    ],
)
def test_what_cannot_be_bound_is_told(cursor, sql, values, said):
    with pytest.raises(adbc_driver_manager.Error) as error:
        cursor.execute(sql, values)
        cursor.fetchall()
    assert said in str(error.value), error.value

