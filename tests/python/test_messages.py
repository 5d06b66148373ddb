"""What people are told when they slip: the place, the object, and what to write instead."""

import gzip
import subprocess

import pyarrow
import pyarrow.parquet
import pytest
from conftest import BINARY

SETUP = """
CREATE STREAM bids (id BIGINT, price BIGINT);
CREATE STREAM hot (id BIGINT PRIMARY KEY, n BIGINT);
INSERT INTO hot VALUES (1, 1), (2, 2);
INSERT INTO hot VALUES (1, 3);
INSERT INTO bids VALUES (1, 10);
CREATE STREAM dear AS SELECT id, price FROM bids WHERE price > 5;
CREATE VIEW cheap AS SELECT * FROM bids WHERE price < 5;
"""


def run(*args, text="", cwd=None):
    done = subprocess.run([BINARY, *map(str, args)], input=text, capture_output=True, text=True, timeout=60, cwd=cwd)
    return done.returncode, done.stdout, done.stderr


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    store = tmp_path_factory.mktemp("messages") / "store"
    code, _, said = run("--store", store, "run", "-", text=SETUP)
    assert code == 0, said
    return store


def refused(store, sql):
    code, _, said = run("--store", store, "-c", sql)
    assert code == 1, said
    return said


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM bidz",
        "SELECT id FROM bidz EMIT CHANGES",
        "CREATE STREAM x AS SELECT id FROM bidz",
        "DROP STREAM bidz",
        "PAUSE STREAM bidz",
        "RESUME STREAM bidz",
        "DESCRIBE bidz",
        "SHOW CREATE STREAM bidz",
        "INSERT INTO bidz VALUES (1, 2)",
        "EXPLAIN STREAM bidz",
        "EXPLAIN ANALYZE STREAM bidz",
    ],
)
def test_a_name_that_is_nearly_right(shop, sql):
    said = refused(shop, sql)
    assert '"bidz" does not exist' in said and "hint: Did you mean bids?" in said, said


def test_a_name_that_is_far_from_all(shop):
    assert "hint: SHOW STREAMS lists what there is." in refused(shop, "SELECT * FROM persons")
    assert "SHOW VIEWS" in refused(shop, "DESCRIBE persons")
    said = refused(shop, "PAUSE STREAM cheap")
    assert '"cheap" is a view' in said, said


def test_export_names_what_is_near(shop, tmp_path):
    code, _, said = run("export", "daer", tmp_path / "x.csv", "--store", shop)
    assert code == 1 and "hint: Did you mean dear?" in said, said


@pytest.mark.parametrize(
    "sql, words",
    [
        ("CREATE STREAM x (id BIGINT) WITH (connector = 'file', paht = 'x', format = 'csv')", ["path", '"paht"']),
        ("CREATE STREAM x (id BIGINT) WITH (connector = 'nexmark', table = 'bid', rosw = 3)", ["has no option", "rosw"]),
        ("CREATE STREAM x (id BIGINT) WITH (connector = 'fiel', path = 'x')", ["'fiel'", "file, stdin"]),
        ("CREATE STREAM x (id BIGINT) WITH (path = 'x', format = 'csv')", ["no connector", "file, stdin"]),
        ("CREATE STREAM x (id BIGINT) WITH (conector = 'file', path = 'x')", ["no connector", "Did you mean connector?"]),
        ("CREATE STREAM x WITH (conector = 'file', path = 'x')", ["no connector", 'instead of "conector"']),
        ("CREATE STREAM x (id BIGINT) WITH (paralelism = 2)", ["paralelism", "Did you mean parallelism?"]),
        ("CREATE STREAM x WITH (path = 'x') AS SELECT id FROM bids", ["path", "stdout, blackhole"]),
        ("CREATE STREAM x (id BIGINT) WITH (checkpoint_interval = '1 ms')", ["checkpoint_interval", "from 10 ms on"]),
    ],
)
def test_an_option_that_is_wrong(shop, sql, words):
    said = refused(shop, sql)
    assert all(word in said for word in words), said


@pytest.mark.parametrize(
    ("options", "is_so", "then"),
    [
        ("path = 'app.log', format = 'json', follow = true", '"app.log" cannot be found out: it is still empty', ("app.log", '{"id":1,"name":"a"}\n')),
        ("path = 'app.log', format = 'csv', header = false, follow = true", '"app.log" cannot be found out: it is still empty', ("app.log", "1,a\n")),
        ("path = 'blank.json', follow = true", '"blank.json" cannot be found out: it is still empty', ("blank.json", '{"id":1,"name":"a"}\n')),
        ("path = 'no.json'", '"no.json" cannot be found out: it has no line with a JSON object', ("no.json", '{"id":1,"name":"a"}\n')),
        ("path = 'folder/', format = 'json', follow = true", '"folder/" cannot be found out: it has no files yet', ("folder/a", '{"id":1,"name":"a"}\n')),
        ("path = 'folder/*.csv', delimiter = ';', follow = true", '"folder/*.csv" cannot be found out: it has no files yet', ("folder/b.csv", "id;name\n1;a\n")),
        ("path = 'two/*.csv', follow = true", '"two/*.csv" cannot be found out: its 2 files are still empty', ("two/b.csv", "id,name\n1,a\n")),
    ],
)
def test_an_empty_log_says_which_statement_takes_it(store, tmp_path, options, is_so, then):
    for folder in ("folder", "two"):
        (tmp_path / folder).mkdir()
    for name in ("app.log", "blank.json", "two/a.csv", "two/b.csv", "no.json"):
        (tmp_path / name).write_text({"blank.json": "\n\n", "no.json": "[1]\n"}.get(name, ""))

    def say(*statements):
        return run("--store", store, "--format", "csv", *(w for s in statements for w in ("-c", s)), cwd=tmp_path)

    code, _, said = say(f"CREATE STREAM \"My log\" WITH (connector = 'file', {options})")
    assert code == 1 and f"the columns of {is_so}" in said, said
    # What the hint says to write is taken as it is, and reads what comes.
    [hint] = [line for line in said.splitlines() if line.startswith("hint: ")]
    statement = hint.partition("such as: ")[2].removesuffix(".")
    code, _, said = say(statement)
    assert code == 0, said
    path, text = then
    with (tmp_path / path).open("a") as file:
        file.write(text)
    code, rows, said = say('CREATE STREAM kept AS SELECT id, name FROM "My log"', "FLUSH", "SELECT * FROM kept")
    assert code == 0 and rows == "id,name\n1,a\n", (rows, said)


def test_a_value_that_is_no_number_is_shown_where_it_stands(store, tmp_path):
    (tmp_path / "a.json").write_text('{"id":1,"v":"1"}\nnot json\n{"id":2,"v":"2"}\n\n{"id":3,"v":"x"}\n{"id":4,"v":"y"}\n')
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "1.csv").write_text("id,v\n1,1\n2,2\n")
    with gzip.open(tmp_path / "folder" / "2.csv.gz", "wt") as file:
        file.write("id,v\n" + "".join(f"{n},{n}\n" for n in range(100_000)) + "7,2026-13-01\n")
    (tmp_path / "quoted.csv").write_text('id,v\n1,"1\n"\n2,"a\nb"\n')
    pyarrow.parquet.write_table(pyarrow.table({"id": range(50_000), "v": [str(n) for n in range(49_999)] + ["x"]}), tmp_path / "p.parquet")
    made = [
        "CREATE STREAM a WITH (connector = 'file', path = 'a.json')",
        "CREATE STREAM f (id BIGINT, v TEXT) WITH (connector = 'file', path = 'folder/', format = 'csv')",
        "CREATE STREAM q (id BIGINT, v TEXT) WITH (connector = 'file', path = 'quoted.csv', newlines_in_values = true)",
        "CREATE STREAM p WITH (connector = 'file', path = 'p.parquet')",
        "CREATE STREAM kept (id BIGINT, v TEXT)",
        "INSERT INTO kept SELECT id, v FROM a",
        "CREATE STREAM numbers (id BIGINT, v BIGINT)",
    ]

    def say(*statements):
        return run("--store", store, "--format", "csv", *(w for s in statements for w in ("-c", s)), cwd=tmp_path)

    code, _, said = say(*made)
    assert code == 0, said
    in_a = 'file "a.json", line 5: CAST(v AS BIGINT): \'x\' is not a BIGINT'
    for sql, message in (
        ("SELECT v::BIGINT FROM a", in_a),
        ("SELECT id FROM a WHERE v::BIGINT > 0 AND id > 1", in_a),
        ("SELECT n FROM (SELECT id, v::BIGINT AS n FROM a ORDER BY id LIMIT 10) WHERE n + 1 > 1", in_a),
        ("SELECT sum(v::BIGINT) FROM a GROUP BY id % 2", in_a),
        ("SELECT count(*) FROM a GROUP BY v::BIGINT", in_a),
        ("SELECT * FROM p JOIN a ON p.id = a.v::BIGINT", in_a),
        ("SELECT id FROM a ORDER BY v::BIGINT", in_a),
        ("SELECT count(*) FROM a WHERE id > 0 AND v::BIGINT > 0", in_a),
        ("SELECT 1 FROM a WHERE v::BIGINT > 0", in_a),
        ("SELECT id FROM p UNION ALL SELECT v::BIGINT FROM a", in_a),
        ("COPY (SELECT v::BIGINT AS v FROM a) TO 'x.csv'", in_a),
        ("INSERT INTO numbers SELECT id, v::BIGINT FROM a", in_a),
        ("SELECT 10 / (id - 3) FROM a", 'file "a.json", line 5: 10 / (id - 3): divi'),
        ("SELECT v::DATE FROM f WHERE id = 7 AND v <> '7'", 'file "folder/2.csv.gz", line 100002: CAST(v AS DATE): \'2026-13-01\' is not a DATE'),
        ("SELECT v::BIGINT FROM q WHERE id > 1", 'file "quoted.csv", line 4: CAST(v AS BIGINT)'),
        ("SELECT v::BIGINT FROM p", 'file "p.parquet", row 50000: CAST(v AS BIGINT): \'x\' is not a BIGINT'),
        ("SELECT v::BIGINT FROM kept", "'x' is not a BIGINT"),
    ):
        code, _, said = say(sql)
        assert code == 1 and message in said and said.count("is not a") <= 1, said
        assert "TRY_CAST in place of CAST" in said or "nullif" in said, said
    # What fails on other rows than those that are read is not taken for it.
    code, _, said = say("SELECT (SELECT max(v::BIGINT) FROM a WHERE id < 3), v::DATE FROM a")
    assert code == 1 and "'1' is not a DATE" in said and "BIGINT" not in said, said


def test_what_replaces_is_of_the_same_kind(shop):
    for sql, hint in [
        ("CREATE OR REPLACE VIEW bids AS SELECT * FROM hot", "DROP STREAM bids"),
        ("CREATE OR REPLACE VIEW hot AS SELECT * FROM bids", "DROP STREAM hot"),
        ("CREATE OR REPLACE STREAM cheap (id BIGINT)", "DROP VIEW cheap"),
        ("CREATE STREAM cheap (id BIGINT)", "DROP VIEW cheap"),
        ("DROP STREAM cheap", "DROP VIEW cheap"),
        ("CREATE VIEW cheap AS SELECT * FROM hot", "CREATE OR REPLACE VIEW cheap"),
    ]:
        assert hint in refused(shop, sql), sql
    code, rows, said = run("--store", shop, "--format", "csv", "-c", "SELECT count(*) AS n FROM hot")
    assert (code, rows) == (0, "n\n2\n"), said


def test_a_cause_is_said_once(shop):
    for sql, words in [
        ("SELECT 10 / (id - 1) FROM bids", "divide by zero"),
        ("SELECT 10 / (id - 1) FROM bids EMIT CHANGES", "division by zero"),
        ("SELEC 1", "syntax error"),
    ]:
        said = refused(shop, sql)
        assert said.lower().count(words) == 1 and "cause:" not in said, said


def test_a_place_that_cannot_be_written(shop, tmp_path):
    (tmp_path / "plain").touch()
    for target in [tmp_path / "plain" / "x.csv", tmp_path / "plain" / "x.parquet", "/proc/x.csv"]:
        said = refused(shop, f"COPY (SELECT * FROM bids) TO '{target}'")
        assert f'cannot write to "{target}"' in said and "internal" not in said, said
        code, _, said = run("export", "bids", target, "--store", shop)
        assert code == 1 and str(target) in said, said
    code, _, said = run("export", "bids", "x.csv", "--store", shop, cwd=tmp_path)
    assert code == 0 and [p.name for p in tmp_path.glob("*x.csv")] == ["x.csv"], said
    assert not list(tmp_path.glob(".*")), "nothing else is left"


def test_an_export_makes_no_store(tmp_path):
    code, _, said = run("export", "bids", tmp_path / "x.csv", "--store", tmp_path / "typo")
    assert code == 1 and "there is no store at" in said and not (tmp_path / "typo").exists(), said


def test_wrong_usage(tmp_path):
    code, _, said = run("-c", "SELECT 1", "run", "x.sql", cwd=tmp_path)
    assert code == 2 and "stands before 'run'" in said, said
    code, _, said = run("run", "--checkpoint-interval", "1ms", "-", cwd=tmp_path)
    assert code == 2 and "from 10 ms on" in said, said


def test_commands_from_a_pipe(shop):
    code, shown, said = run("--store", shop, text="\\d hot\nSELECT 1 AS one;\n\\dt\n")
    assert code == 0 and "primary key" in shown and "one" in shown and "dear" in shown, said
    code, shown, said = run("--store", shop, "--format", "csv", text="\\q\nSELECT nonsense;\n")
    assert code == 0, said
    code, _, said = run("--store", shop, text="SELECT 1;\n\\d hot\nSELECT *\nFROM bidz;\n")
    assert code == 1 and "stdin:4:6" in said, said
    assert run("--store", shop, "-c", "\\nope")[0] == 1
    assert "dear" in run("--store", shop, "-c", "\\d")[1]


def test_a_script_with_a_byte_order_mark(shop, tmp_path):
    script = tmp_path / "a.sql"
    script.write_text("\ufeffSELECT 1 AS one;")
    code, shown, said = run("run", script, "--store", shop, "--format", "csv")
    assert (code, shown) == (0, "one\n1\n"), said


def test_listings_say_what_is_known(store, tmp_path):
    (tmp_path / "x.csv").write_text("id\n1\n2\n")
    made = f"""CREATE STREAM lines (id BIGINT) WITH (connector = 'file', path = '{tmp_path}/x.csv', format = 'csv');
        CREATE STREAM copies AS SELECT id FROM lines;"""
    assert run("--store", store, "run", "-", text=made)[0] == 0
    code, shown, said = run("--store", store, "--format", "csv", "-c", "SHOW JOBS")
    assert code == 0 and shown.splitlines()[1].startswith("copies,finished,2,2,"), shown + said


def test_rows_are_not_changes(shop):
    code, shown, said = run("--store", shop, "--format", "csv", "-c", "SHOW STREAMS")
    lines = {line.split(",")[0]: line.split(",")[:6] for line in shown.splitlines()}
    assert lines["name"] == ["name", "kind", "mode", "job", "rows", "changes"], said
    assert lines["bids"][4:] == ["1", ""]
    assert lines["hot"][2] == "updates" and lines["hot"][4:] == ["", "4"]


def test_two_streams_do_not_share_a_file(shop, tmp_path):
    made = "CREATE STREAM {} WITH (connector = 'file', path = '{}') AS SELECT id FROM bids"
    assert run("--store", shop, "-c", made.format("first", tmp_path / "out.csv"))[0] == 0
    said = refused(shop, made.format("second", tmp_path / "." / "out.csv"))
    assert 'stream "first" is written to' in said and "UNION ALL" in said, said
    assert run("--store", shop, "-c", made.format("third", tmp_path / "other.csv"))[0] == 0


def test_what_cannot_be_stored_is_refused(shop):
    said = refused(shop, "CREATE STREAM spans (a INTERVAL)")
    assert 'stream "spans": column "a": INTERVAL cannot be stored' in said, said
    said = refused(shop, "CREATE STREAM spans AS SELECT id, INTERVAL '1 day' AS step FROM bids")
    assert 'column "step"' in said and "cast to TEXT" in said, said


def test_a_failed_stream_is_told_before_the_next_result(shop):
    script = "CREATE STREAM zero WITH (on_error = 'fail') AS SELECT 1 / (id - id) AS x FROM bids; SELECT count(*) AS n FROM bids;"
    code, shown, said = run("run", "-", "--store", shop, "--format", "csv", text=script)
    assert (code, shown) == (1, "n\n1\n"), said
    told = [said.index(text) for text in ('warning: stream "zero"', "(1 row", 'error: stream "zero" has failed')]
    assert told == sorted(told), said


def test_a_copy_to_a_place_that_is_no_path_makes_no_folder(shop, tmp_path):
    copy = "COPY (SELECT * FROM bids) TO 's3://bucket/x.parquet'"
    code, _, said = run("-c", copy, "--store", shop, cwd=tmp_path)
    assert code == 1 and not list(tmp_path.glob("s3*")), said
