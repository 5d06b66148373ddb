"""What is kept of a result: names of columns as SQL makes them, and old rows taken back exactly."""

import json

import duckdb
from conftest import Process, run


def results(store, *statements):
    commands = [word for statement in statements for word in ("-c", statement)]
    with Process("--store", store, "--format", "json", *commands) as process:
        assert process.wait() == 0, process.stderr
        return [json.loads(line) for line in process.lines["stdout"]]


def test_names_with_dots(store):
    rows = results(
        store,
        'CREATE STREAM s (k BIGINT, "a.b" BIGINT, c BIGINT)',
        'CREATE STREAM d AS SELECT k, sum("a.b"), max(c) FROM s GROUP BY k',
        'CREATE STREAM e AS SELECT k + 1, "a.b" FROM s',
        "INSERT INTO s VALUES (1, 2, 3)",
        "FLUSH",
        "INSERT INTO s VALUES (1, 20, 30)",
        "FLUSH",
        'SELECT "a.b" AS b, c FROM s ORDER BY c',
        'SELECT "sum(""a.b"")" AS total, "max(c)" AS top FROM d',
        "SELECT count(*) AS n FROM e",
    )
    assert rows == [{"b": 2, "c": 3}, {"b": 20, "c": 30}, {"total": 22, "top": 30}, {"n": 2}]


def test_columns_of_one_name(store, tmp_path):
    """A result shows them; where they are kept, and as keys of an object, they have names of their own."""
    create = ["-c", "CREATE STREAM s (a BIGINT, b BIGINT)", "-c", "INSERT INTO s VALUES (1, 2)"]
    twice = "SELECT *, a * 10 AS a, count(*) OVER (), 'x' FROM s"
    with Process("--store", store, "--format", "csv", *create, "-c", twice) as process:
        assert process.wait() == 0, process.stderr
        assert process.lines["stdout"] == ["a,b,a,count(*) OVER (),'x'", "1,2,10,1,x"]
    parquet = tmp_path / "twice.parquet"
    copy = f"COPY (SELECT *, a * 10 AS a FROM s) TO '{parquet}'"
    stream = "CREATE STREAM d AS SELECT *, a * 10 AS a, a + b FROM s"
    rows = results(store, copy, stream, "FLUSH", "SELECT * FROM d", "SELECT *, a_1 AS a FROM d", "FROM s")
    assert rows == [
        {"a": 1, "b": 2, "a_1": 10, "a + b": 3},
        {"a": 1, "b": 2, "a_1": 10, "a + b": 3, "a_2": 10},
        {"a": 1, "b": 2},
    ]
    assert duckdb.sql(f"FROM '{parquet}'").columns == ["a", "b", "a_1"]


def test_a_filter_that_is_never_true(store):
    """It makes an empty stream, and not one that has nothing to read."""
    rows = results(
        store,
        "CREATE STREAM s (a BIGINT)",
        "CREATE STREAM none AS SELECT a FROM s WHERE 1 = 0",
        "CREATE STREAM all_but AS SELECT a FROM s WHERE 1 = 1 UNION ALL SELECT a * 10 FROM s WHERE a < 0 AND false",
        "CREATE STREAM counted AS SELECT a, count(*) AS n FROM s WHERE NULL GROUP BY a",
        "INSERT INTO s VALUES (1)",
        "FLUSH",
        "SELECT (SELECT count(*) FROM none) AS none, (SELECT max(a) FROM all_but) AS a, (SELECT count(*) FROM counted) AS n",
    )
    assert rows == [{"none": 0, "a": 1, "n": 0}]


def test_what_was_said_is_taken_back(store):
    """These functions may give another value when they are asked again: one row a group is left all the same."""
    calls = ["sum(DISTINCT x)", "avg(DISTINCT x)", "regr_avgx(x, k)", "array_agg(DISTINCT x)", "string_agg(DISTINCT x::TEXT, ',')"]
    numbers = "INSERT INTO s SELECT value % 50, value / {} FROM generate_series(1, 999)"
    streams = [f"CREATE STREAM d{i} AS SELECT k, {call} AS v FROM s GROUP BY k" for i, call in enumerate(calls)]
    counts = [f"SELECT count(*) AS n, count(DISTINCT k) AS k FROM d{i}" for i in range(len(calls))]
    inserts = [statement for divisor in (7.1, 3.3, 2.3) for statement in (numbers.format(divisor), "FLUSH")]
    create = "CREATE STREAM s (k BIGINT, x DOUBLE)"
    assert results(store, create, *streams, *inserts, *counts) == [{"n": 50, "k": 50}] * len(calls)


def test_one_failed_stream_does_not_hide_the_others(store):
    with Process(
        "--store", store, "--format", "json",
        *("-c", "CREATE STREAM o (a INT)", "-c", "INSERT INTO o VALUES (0), (1)"),
        *("-c", "CREATE STREAM good AS SELECT a FROM o", "-c", "CREATE STREAM bad WITH (on_error = 'fail') AS SELECT 10 / a AS x FROM o"),
        *("-c", "SELECT count(*) AS n FROM good"),
    ) as process:
        assert process.wait() == 1
        assert json.loads(process.stdout) == {"n": 2}
        assert 'stream "bad" has failed' in process.stderr


def test_streams_of_any_name(store):
    names = ["größe", "a", "a/b", "..", "../evil", 'x"y', "a%2Fb", "a?*<b>", "/abs", "new\nline", "Größe X", "."]
    quoted = ['"' + name.replace('"', '""') + '"' for name in names]
    creates = [f"CREATE STREAM {name} (x INT)" for name in quoted]
    inserts = [f"INSERT INTO {name} VALUES ({i})" for i, name in enumerate(quoted)]
    more = [f"INSERT INTO {name} VALUES (100)" for name in quoted]
    selects = [f"SELECT count(*) AS n, min(x) AS x FROM {name}" for name in quoted]
    results(store, *creates, *inserts)
    expected = [{"n": 2, "x": i} for i in range(len(names))]
    assert results(store, *more, *selects) == expected
    del expected[1]
    assert results(store, "DROP STREAM a", *(select for select in selects if not select.endswith('"a"'))) == expected
    assert {folder.parent.name for folder in store.glob("streams/*/*.parquet")} >= {"gr+c3+b6+c3+9fe", "a+2fb", "+2e+2e"}


def test_names_are_not_empty_and_not_too_long(store):
    for name in ("", "n" * 201, "ü" * 80):
        with Process("--store", store, "-c", f'CREATE STREAM "{name}" (x INT)') as process:
            assert process.wait() == 1
            assert "hint" in process.stderr


def test_a_script_runs_twice(store):
    """What is there already as it is written is left alone, also where others read it."""
    script = [
        "CREATE STREAM IF NOT EXISTS s (a BIGINT)",
        "CREATE OR REPLACE VIEW v AS SELECT a + 1 AS b FROM s",
        "CREATE OR REPLACE STREAM d (x) AS SELECT b FROM v",
        "CREATE OR REPLACE STREAM e AS SELECT x * 10 AS y FROM d",
    ]
    for n in (1, 2, 3):
        rows = results(store, *script, f"INSERT INTO s VALUES ({n})", "FLUSH", "SELECT count(*) AS n, max(y) AS y FROM e")
        assert rows == [{"n": n, "y": (n + 1) * 10}]
    # What differs is replaced.
    assert results(store, "CREATE OR REPLACE STREAM e AS SELECT x AS y FROM d", "FLUSH", "SELECT max(y) AS y FROM e") == [{"y": 4}]


def test_what_reads_a_replaced_stream_is_made_anew(store, tmp_path):
    for name, numbers in (("one", (1, 2)), ("two", (30, 40, 50))):
        (tmp_path / f"{name}.csv").write_text("x\n" + "".join(f"{n}\n" for n in numbers))
    made = [
        "CREATE OR REPLACE STREAM x (x BIGINT) WITH (connector = 'file', path = 'one.csv')",
        "CREATE STREAM d AS SELECT x FROM x",
        "CREATE VIEW v AS SELECT x FROM d WHERE x > 0",
        "CREATE STREAM total AS SELECT sum(x) AS s FROM v",
        "CREATE STREAM twice AS SELECT s * 2 AS s FROM total",
        "CREATE STREAM other AS SELECT x FROM x",
        "CREATE STREAM apart (n BIGINT)",
    ]
    asked = ["FLUSH", "SELECT total.s AS a, twice.s AS b, (SELECT count(*) FROM other) AS n FROM total, twice"]

    def run(*statements):
        with Process(*("--store", store, "--format", "json"), *(w for s in statements for w in ("-c", s)), cwd=tmp_path) as process:
            code = process.wait()
            return code, [json.loads(line) for line in process.stdout.splitlines()], process.stderr

    assert run(*made, "INSERT INTO apart VALUES (7)", *asked)[1] == [{"a": 3, "b": 6, "n": 2}]
    # The middle of the chain, then its source, then both again after a restart, with a stream that is newer than the readers.
    code, rows, said = run("CREATE OR REPLACE STREAM d AS SELECT x + 100 AS x FROM x", *asked)
    assert rows == [{"a": 203, "b": 406, "n": 2}] and 'made anew with it: "total", "twice"' in said, said
    code, rows, said = run(made[0].replace("one", "two"), *asked)
    assert rows == [{"a": 420, "b": 840, "n": 3}] and '"other", "d", "total", "twice"' in said, said
    assert run("CREATE OR REPLACE STREAM d AS SELECT n AS x FROM apart", "INSERT INTO apart VALUES (1)", *asked)[1] == [{"a": 8, "b": 16, "n": 3}]
    assert run("INSERT INTO apart VALUES (2)", *asked)[1] == [{"a": 10, "b": 20, "n": 3}]
    # A paused reader stays paused, and begins anew when it goes on.
    assert run("PAUSE STREAM total", "CREATE OR REPLACE STREAM d AS SELECT n + 1 AS x FROM apart", "SELECT * FROM total")[1] == []
    assert run("RESUME STREAM total", *asked)[1] == [{"a": 13, "b": 26, "n": 3}]
    for refused, why in (
        ("CREATE OR REPLACE STREAM d AS SELECT x AS y FROM x", "its columns would be y instead of x"),
        ("CREATE OR REPLACE STREAM d AS SELECT x::TEXT AS x FROM x", 'its column "x" would be TEXT instead of BIGINT'),
        ("CREATE OR REPLACE STREAM d AS SELECT max(x) AS x FROM x", "its rows could be taken back"),
        ("CREATE OR REPLACE STREAM d (x BIGINT)", "it would be a stream into which rows are put instead of the result of a query"),
        ("CREATE OR REPLACE STREAM d AS SELECT s AS x FROM total", '"d" would read itself, through "total"'),
        ("CREATE OR REPLACE STREAM d AS SELECT x FROM d", '"d" would read itself'),
    ):
        code, _, said = run(refused)
        assert code == 1 and why in said, said
    out = "CREATE STREAM out WITH (connector = 'file', path = 'out.csv') AS SELECT x FROM d"
    code, _, said = run(out, "CREATE OR REPLACE STREAM d AS SELECT n AS x FROM apart")
    assert code == 1 and 'stream "out" has written rows of it out' in said, said
    assert run(*asked)[1] == [{"a": 13, "b": 26, "n": 3}]


def test_what_reads_a_replaced_view_is_made_anew(store):
    made = [
        "CREATE STREAM s (a BIGINT, at TIMESTAMP, WATERMARK FOR at AS at)",
        "CREATE OR REPLACE VIEW v AS SELECT a, at FROM s WHERE a > 1",
        "CREATE VIEW twice AS SELECT a * 2 AS a FROM v",
        "CREATE STREAM d AS SELECT a FROM twice",
        "CREATE STREAM total AS SELECT sum(a) AS s FROM d",
        "CREATE STREAM other AS SELECT a FROM s",
        "CREATE VIEW lone AS SELECT count(*) AS n FROM s",
        "CREATE STREAM timed AS SELECT window_start, count(*) AS n FROM TUMBLE(v, at, INTERVAL '1 hour') GROUP BY window_start EMIT ON WINDOW CLOSE",
    ]
    asked = ["FLUSH", "SELECT (SELECT s FROM total) AS s, (SELECT count(*) FROM other) AS n, (SELECT max(a) FROM d) AS top"]

    def run(*statements):
        with Process(*("--store", store, "--format", "json"), *(w for s in statements for w in ("-c", s))) as process:
            code = process.wait()
            return code, [json.loads(line) for line in process.stdout.splitlines()], process.stderr

    rows = [f"({a}, '2026-01-01 0{a}:30:00')" for a in range(1, 5)]
    assert run(*made, f"INSERT INTO s VALUES {', '.join(rows)}", *asked)[1] == [{"s": 18, "n": 4, "top": 8}]
    code, _, said = run(made[1])
    assert code == 0 and "is so already" in said and "anew" not in said, said
    # Other rows of the same columns; they are there after a restart too.
    code, rows, said = run("CREATE OR REPLACE VIEW v AS SELECT a + 1 AS a, at FROM s WHERE a < 3", *asked)
    assert code == 0 and rows == [{"s": 10, "n": 4, "top": 6}], (rows, said)
    assert 'made anew with it: "d", "total", "timed"' in said, said
    assert run("INSERT INTO s VALUES (0, '2026-01-01 09:00:00')", *asked, "SELECT sum(n) AS n FROM timed")[1] == [
        {"s": 12, "n": 5, "top": 6},
        {"n": 2},
    ]
    for refused, *words in (
        ("CREATE OR REPLACE VIEW v AS SELECT a FROM s", '"v" is read by "twice"', "its columns would be a instead of a, at", "Keep the names"),
        ("CREATE OR REPLACE VIEW v AS SELECT a::TEXT AS a, at FROM s", 'its column "a" would be TEXT instead of BIGINT'),
        ("CREATE OR REPLACE VIEW v AS SELECT a, at FROM v", '"v" would read itself'),
        ("CREATE OR REPLACE VIEW v AS SELECT twice.a, at FROM twice, s", '"v" would read itself, through "twice"'),
        ("CREATE OR REPLACE VIEW v AS SELECT max(a) AS a, max(at) AS at FROM s GROUP BY a % 2", 'read by "d"', "its rows could be taken back"),
        ("CREATE OR REPLACE VIEW v AS SELECT a, CASE WHEN a > 1 THEN at END AS at FROM s", 'read by "timed"'),
        ("DROP VIEW v", '"v" is read by "twice'),
        ("DROP VIEW twice", '"twice" is read by "d"'),
    ):
        code, _, said = run(refused)
        assert code == 1 and all(word in said for word in words), said
    assert run(*asked)[1] == [{"s": 12, "n": 5, "top": 6}]
    # What no stream reads is free.
    assert run("CREATE OR REPLACE VIEW lone AS SELECT a FROM s WHERE a = 4", "SELECT * FROM lone")[1] == [{"a": 4}]
    out = "CREATE STREAM out WITH (connector = 'blackhole') AS SELECT a FROM twice"
    code, _, said = run(out, "CREATE OR REPLACE VIEW v AS SELECT a, at FROM s")
    assert code == 1 and 'stream "out" has written rows of it out' in said, said
    assert run("DROP VIEW v CASCADE", "SHOW STREAMS")[1][0]["name"] == "other"


def test_readers_of_views_in_the_catalog_of_an_older_build(store):
    """It noted streams only, and put a view that was replaced behind what reads it."""
    made = ["CREATE STREAM s (a BIGINT)", "CREATE VIEW v AS SELECT a FROM s", "CREATE STREAM d AS SELECT a FROM v"]
    results(store, *made, "INSERT INTO s VALUES (1)", "FLUSH")
    catalog = max((store / "catalog").glob("*.json"))
    kept = json.loads(catalog.read_text())
    for entry in kept["entries"]:
        entry["reads"] = [name for name in entry["reads"] if name != "v"]
    kept["entries"].append(kept["entries"].pop(1))
    catalog.write_text(json.dumps(kept))
    assert results(store, "INSERT INTO s VALUES (2)", "FLUSH", "SELECT sum(a) AS a FROM d") == [{"a": 3}]
    with Process("--store", store, "-c", "DROP VIEW v") as process:
        assert process.wait() == 1 and '"v" is read by "d"' in process.stderr, process.stderr
    replace = "CREATE OR REPLACE VIEW v AS SELECT a * 10 AS a FROM s"
    assert results(store, replace, "FLUSH", "SELECT sum(a) AS a FROM d") == [{"a": 30}]


def test_what_could_not_be_opened_is_not_replaced_under_its_readers(store):
    """What they read of it is not known, and their rows would be lost."""
    made = ["CREATE STREAM r (x BIGINT)", "CREATE STREAM d AS SELECT x FROM r", "CREATE STREAM e AS SELECT x FROM d"]
    results(store, *made, "INSERT INTO r VALUES (1)", "FLUSH")
    catalog = max((store / "catalog").glob("*.json"))
    kept = json.loads(catalog.read_text())
    [entry] = [entry for entry in kept["entries"] if entry["name"] == "d"]
    entry["sql"] = "SELECT"
    catalog.write_text(json.dumps(kept))
    with Process("--store", store, "-c", "CREATE OR REPLACE STREAM d AS SELECT x AS y FROM r") as process:
        assert process.wait() == 1 and '"d" could not be opened' in process.stderr, process.stderr
    with Process("--store", store, "--format", "json", "-c", "SELECT x FROM e") as process:
        process.wait()
        assert process.stdout == '{"x":1}', process.stderr


def test_patterns_and_powers(store):
    assert results(
        store,
        "SELECT 'a%' LIKE 'a!%' ESCAPE '!' AS a, 'ab' LIKE 'a!%' ESCAPE '!' AS b, 'abc' SIMILAR TO 'b' AS c, "
        "'abc' SIMILAR TO '(a|x)%' AS d, to_char(TIMESTAMP '2026-01-02 03:04:05', 'YYYY/MM/DD HH24:MI') AS e, "
        "2 * 3 ^ 2 + 1 AS f, struct_of.f AS g, (struct_of).f AS h FROM (SELECT named_struct('f', 7) AS struct_of)",
    ) == [{"a": True, "b": False, "c": False, "d": True, "e": "2026/01/02 03:04", "f": 19.0, "g": 7, "h": 7}]


def test_a_result_that_is_complete_keeps_no_state(store):
    """What is grouped and joined is needed until the input ends; then the result is all that is left, also after a restart."""
    run(store, """
CREATE STREAM a (k BIGINT, v BIGINT) WITH (connector = 'datagen', rows = 50000, seed = 1);
CREATE STREAM b (k BIGINT, v BIGINT) WITH (connector = 'datagen', rows = 50000, seed = 2);
CREATE STREAM joined AS SELECT a.k, count(*) AS n FROM a JOIN b ON a.k % 1000 = b.k % 1000 GROUP BY a.k;
""")
    files = [file.name for file in (store / "jobs").glob("*/state/*")]
    assert files == [], "what no restart reads"
    shown = run(store, "SELECT count(*) > 1000 AS many FROM joined;").stdout
    assert "true" in shown
