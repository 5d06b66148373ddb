"""Rows on which an expression fails: put aside with the reason, while the query and everything else goes on."""

import subprocess

import adbc_driver_manager
import pytest
from conftest import BINARY, Server, duck, parquet, run

LETTERS = """SELECT source, reason, expression, weight, decode(raw) AS raw
FROM read_parquet('{}/jobs/*/dead_letters/*.parquet') ORDER BY ALL"""
NUMBERS = """CREATE STREAM t (id BIGINT, x BIGINT, y BIGINT, s TEXT, PRIMARY KEY (id));
INSERT INTO t VALUES (1, 10, 0, 'x'), (2, 10, 2, '2'), (3, 10, 5, '3'), (4, 9223372036854775807, 1, '4');
"""


def ask(store, sql, ok=True):
    """The rows that a statement prints, as CSV without its header."""
    done = subprocess.run(
        [BINARY, "--store", store, "-c", sql, "--format", "csv"], text=True, capture_output=True
    )
    assert (done.returncode == 0) == ok, (done.stdout, done.stderr)
    return done.stdout.splitlines()[1:] if ok else done.stderr


def content(store, stream, columns="*"):
    return ask(store, f"SELECT {columns} FROM {stream} ORDER BY 1")


def test_the_row_goes_and_the_stream_goes_on(store):
    run(store, NUMBERS + "CREATE STREAM q AS SELECT id, x / y AS q FROM t; FLUSH; INSERT INTO t VALUES (5, 8, 4, '5'); FLUSH;")
    assert content(store, "q") == ["2,5", "3,2", "4,9223372036854775807", "5,2"]
    [(_, reason, expression, weight, raw)] = duck(LETTERS.format(store))
    assert (reason, expression, weight) == ("division by zero", "x / y", 1)
    assert raw == '{"id":1,"x":10,"y":0}'


def test_its_retraction_goes_the_same_way(store):
    run(
        store,
        NUMBERS
        + """CREATE STREAM n AS SELECT count(*) AS n, sum(10 / y) AS q FROM t EMIT CHANGES; FLUSH;
        INSERT INTO t VALUES (1, 10, 10, 'x'); FLUSH; INSERT INTO t VALUES (2, 10, 0, 'x'); FLUSH;""",
    )
    assert content(store, "n") == ["3,13"]
    letters = duck(LETTERS.format(store))
    assert [(weight, raw) for _, _, _, weight, raw in letters] == [(-1, '{"y":0}'), (1, '{"y":0}'), (1, '{"y":0}')]


@pytest.mark.parametrize(
    "sql, rows",
    [
        ("SELECT id, s::BIGINT + 1 AS n FROM t", ["2,3", "3,4", "4,5"]),
        ("SELECT id, x + 1 AS n FROM t", ["1,11", "2,11", "3,11"]),
        ("SELECT id, x * 2 AS n FROM t", ["1,20", "2,20", "3,20"]),
        ("SELECT id, -(x + 1) AS n FROM t WHERE id > 2", ["3,-11"]),
        ("SELECT id, y::INT + 2147483647::INT AS n FROM t", ["1,2147483647"]),
        ("SELECT id, 9223372036854775807 + y AS n FROM t", ["1,9223372036854775807"]),
        ("SELECT id FROM t WHERE x / y > 1", ["2", "3", "4"]),
        ("SELECT x / y AS q, count(*) AS n FROM t GROUP BY 1", ["2,1", "5,1", "9223372036854775807,1"]),
        ("SELECT y AS k, sum(x) AS n FROM t GROUP BY 1 HAVING 10 / y > 1", ["1,9223372036854775807", "2,10", "5,10"]),
    ],
)
def test_every_place_where_an_expression_stands(store, sql, rows):
    run(store, NUMBERS + f"CREATE STREAM r AS {sql}; FLUSH;")
    assert content(store, "r") == rows
    assert duck(LETTERS.format(store))


@pytest.mark.parametrize("copies", [1, 3, 400])
@pytest.mark.parametrize(
    "sql, ids",
    [
        ("SELECT id FROM nz WHERE x / y > 1", [2, 3]),
        ("SELECT id FROM t WHERE y <> 0 AND x / y > 1", [2, 3]),
        ("SELECT id FROM t WHERE x / y > 1 AND y <> 0", [2, 3]),
        ("SELECT id FROM t WHERE y = 0 OR x / y > 4", [1, 2]),
        ("SELECT id FROM (SELECT id, x / y AS q FROM t WHERE y <> 0) AS i WHERE q > 2", [2]),
        ("SELECT id FROM t WHERE s ~ '^[0-9]+$' AND s::INT > 2", [3]),
        ("SELECT id FROM t WHERE CASE WHEN y <> 0 THEN x / y > 4 ELSE false END", [2]),
        ("SELECT id FROM t WHERE coalesce(nullif(y, 0), 5) > 2 AND y = 0", [1]),
    ],
)
def test_guards_guard(store, sql, ids, copies):
    rows = ", ".join(f"({i}, {x}, {y}, '{s}', {c})" for c in range(copies) for i, x, y, s in [(1, 10, 0, "x"), (2, 10, 2, "2"), (3, 10, 5, "3")])
    run(
        store,
        f"""CREATE STREAM t (id BIGINT, x BIGINT, y BIGINT, s TEXT, c BIGINT);
        CREATE VIEW nz AS SELECT * FROM t WHERE y <> 0;
        CREATE STREAM r AS {sql};
        INSERT INTO t VALUES {rows}; FLUSH;""",
    )
    expected = [f"{i},{copies}" for i in ids]
    assert ask(store, "SELECT id, count(*) AS n FROM r GROUP BY id ORDER BY id") == expected
    assert ask(store, f"SELECT id, count(*) AS n FROM ({sql}) AS q GROUP BY id ORDER BY id") == expected
    assert not list(store.glob("jobs/*/dead_letters/*"))


@pytest.mark.parametrize("group", ["", "GROUP BY g"])
def test_a_filter_guards_its_aggregate(store, group):
    sql = f"""SELECT sum(10 / v) FILTER (WHERE v <> 0) AS q, min(s::INT) FILTER (WHERE s ~ '^[0-9]+$') AS m,
    count(DISTINCT 10 / v) FILTER (WHERE v <> 0) AS d, count(*) AS n FROM t {group}"""
    run(
        store,
        f"""CREATE STREAM t (g TEXT, v BIGINT, s TEXT);
        CREATE STREAM r AS {sql} EMIT CHANGES;
        INSERT INTO t VALUES ('a', 0, 'x'), ('a', 2, '7'), ('a', 5, '3'); FLUSH;""",
    )
    assert content(store, "r") == ["7,3,2,3"]
    assert ask(store, sql) == ["7,3,2,3"]
    assert not list(store.glob("jobs/*/dead_letters/*"))


def test_a_batch_says_what_failed(store):
    run(store, NUMBERS)
    assert "verflow" in ask(store, "SELECT x + 1 FROM t", ok=False)
    assert "ivi" in ask(store, "SELECT x / y FROM t", ok=False)
    assert "verflow" in ask(store, "SELECT 9223372036854775807 + 1", ok=False)
    assert "verflow" in ask(store, "SELECT 2147483647::INT + 1::INT", ok=False)
    assert ask(store, "SELECT CASE WHEN id > 9 THEN 9223372036854775807 + 1 ELSE 0 END FROM t WHERE id = 1") == ["0"]
    assert ask(store, "SELECT 9223372036854775806 + 1") == ["9223372036854775807"]


def test_over_computes_with_the_same_checks(store):
    run(store, NUMBERS)
    large = "FROM (VALUES (1, 9223372036854775807), (2, 9223372036854775805)) AS t(id, x)"
    for over in ["sum(x + 7) OVER ()", "max(x * 2) OVER (ORDER BY id)", "rank() OVER (ORDER BY x + 7)", "lag(x * 2) OVER (ORDER BY id)"]:
        assert "verflow" in ask(store, f"SELECT {over} {large}", ok=False), over
    assert ask(store, f"SELECT id, lag(x - 1, 1, 0::BIGINT) OVER (ORDER BY -id) AS l {large} ORDER BY id") == [
        "1,9223372036854775804",
        "2,0",
    ]
    rows = "FROM (VALUES (1, 0), (2, 2), (3, 5)) AS t(id, v)"
    for text in ["sum(10 / v) FILTER (WHERE v <> 0) OVER (ORDER BY id)", "sum(10 / nullif(v, 0)) OVER (ORDER BY id)"]:
        assert ask(store, f"SELECT id, {text} AS s {rows} ORDER BY id") == ["1,", "2,5", "3,7"], text
    assert ask(store, f"SELECT id, row_number() OVER (PARTITION BY v % 5 ORDER BY 10 - id) AS n {rows} ORDER BY id") == ["1,2", "2,1", "3,1"]


def test_on_error_fail_stops_the_stream(store):
    done = run(store, NUMBERS + "CREATE STREAM q WITH (on_error = 'fail') AS SELECT x / y AS q FROM t; FLUSH;", ok=False)
    assert "x / y: division by zero" in done.stderr and "on_error" in done.stderr
    done = run(store, "CREATE STREAM p WITH (on_error = 'ignore') AS SELECT x FROM t;", ok=False)
    assert "dead_letter" in done.stderr


def test_dead_letters_are_few_files_and_limited(store):
    inserts = "".join(f"INSERT INTO t VALUES ({i}, 0); FLUSH;" for i in range(12))
    run(
        store,
        "CREATE STREAM t (x BIGINT, y BIGINT);"
        "CREATE STREAM q WITH (dead_letter_limit = 10) AS SELECT x / y AS q FROM t;" + inserts,
        *("--checkpoint-interval", "10ms"),
    )
    letters = ask(store, "SELECT weight, reason, expression FROM millstream.dead_letters")
    assert letters == ["1,division by zero,x / y"] * 10
    assert len(list(store.glob("jobs/*/dead_letters/*"))) <= 3
    [raw] = ask(store, "SELECT raw::TEXT FROM millstream.dead_letters LIMIT 1")
    assert '""y"":0' in raw
    # All are counted, also after a restart.
    counted = "dead letters: 12, 2 of them beyond dead_letter_limit and counted only"
    assert counted in run(store, "INSERT INTO t VALUES (1, 1); FLUSH; EXPLAIN ANALYZE STREAM q").stdout


def test_letters_are_dropped_after_their_time(store):
    run(
        store,
        "CREATE STREAM t (x BIGINT, y BIGINT);"
        "CREATE STREAM q WITH (dead_letter_retention = '1 second') AS SELECT x / y AS q FROM t;"
        "INSERT INTO t VALUES (1, 0); FLUSH;",
    )
    with Server(store, "--checkpoint-interval", "50ms") as server:
        with server.connect() as connection, connection.cursor() as cursor:
            left = 1
            for i in range(40):
                cursor.execute(f"INSERT INTO t VALUES ({i}, 1)")
                cursor.execute("FLUSH")
                cursor.execute("SELECT count(*) FROM millstream.dead_letters")
                left = cursor.fetchone()[0]
                if left == 0:
                    break
                subprocess.run(["sleep", "0.1"], check=True)
            assert left == 0


def test_files_name_their_rows(store, tmp_path):
    (tmp_path / "in.csv").write_text("id,s\n1,7\n2,x\n3,9\n")
    run(
        store,
        f"""CREATE STREAM f (id BIGINT, s TEXT) WITH (connector = 'file', path = '{tmp_path}/in.csv');
        CREATE STREAM n AS SELECT id, s::BIGINT AS n FROM f; FLUSH;""",
    )
    assert content(store, "n") == ["1,7", "3,9"]
    [(source, reason, _, _, raw)] = duck(LETTERS.format(store))
    assert source.endswith("in.csv") and reason == "'x' is not a BIGINT" and raw == '{"id":2,"s":"x"}'
    assert duck(f"SELECT count(*) FROM read_parquet('{parquet(store, 'n')}')") == [(2,)]


def test_over_flight(server):
    with server.connect() as connection, connection.cursor() as cursor:
        cursor.execute("CREATE STREAM flight_rows (x BIGINT, y BIGINT)")
        cursor.execute("CREATE STREAM flight_q AS SELECT x / y AS q FROM flight_rows")
        cursor.execute("INSERT INTO flight_rows VALUES (1, 0), (4, 2)")
        cursor.execute("FLUSH")
        cursor.execute("SELECT q FROM flight_q")
        assert cursor.fetchall() == [(2,)]
        with pytest.raises(adbc_driver_manager.Error, match="(?i)divi"):
            cursor.execute("SELECT x / y FROM flight_rows")
            cursor.fetchall()
        cursor.execute("DROP STREAM flight_rows CASCADE")


@pytest.mark.parametrize(
    "sql, rows",
    [
        ("SELECT a.id FROM a JOIN good g ON a.id = g.id WHERE 10 / a.y > 1 ORDER BY 1", ["2", "3"]),
        ("SELECT a.id FROM a, good g WHERE a.id = g.id AND 10 / a.y > 1 ORDER BY 1", ["2", "3"]),
        ("SELECT id FROM (SELECT a.id, 10 / a.y AS q FROM a JOIN good g ON a.id = g.id) AS j WHERE q > 1 ORDER BY 1", ["2", "3"]),
        ("SELECT y, n FROM (SELECT y, count(*) AS n FROM a GROUP BY y HAVING count(*) > 1) AS c WHERE 10 / y > 1", ["2,2"]),
        ("SELECT id FROM a WHERE y <> 0 AND 10 / y > 1 AND 10 / y < 9 ORDER BY 1", ["2", "3", "4"]),
        ("SELECT id FROM a WHERE 10 / y > 1 AND 10 / y < 9 AND y <> 0 ORDER BY 1", ["2", "3", "4"]),
        ("SELECT id, 10 / y AS q FROM a WHERE 10 / y > 1 AND y <> 0 AND id IN (SELECT id FROM good) ORDER BY 1", ["2,5", "3,2"]),
    ],
)
def test_a_batch_evaluates_on_the_rows_that_arrive(store, sql, rows):
    run(
        store,
        """CREATE STREAM a (id BIGINT, y BIGINT); CREATE STREAM good (id BIGINT);
        INSERT INTO a VALUES (1, 0), (2, 2), (3, 5), (4, 2); INSERT INTO good VALUES (2), (3);""",
    )
    assert ask(store, sql) == rows
