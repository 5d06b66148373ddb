"""A listing of what people are told, printed by `pytest -s`: each kind of message with an input that provokes it. Read it
as one who has just typed that."""

import re
import subprocess

import pytest
from conftest import BINARY

SETUP = """
CREATE STREAM bids (id BIGINT, price BIGINT, "Mixed" TEXT, name TEXT, at TIMESTAMP, small INT, d DECIMAL(5, 2),
                    u BIGINT UNSIGNED, v STRUCT<f BIGINT>, WATERMARK FOR at AS at);
CREATE STREAM keyed (id BIGINT NOT NULL, k TEXT PRIMARY KEY);
CREATE STREAM dear AS SELECT id, price FROM bids WHERE price > 5;
CREATE VIEW cheap AS SELECT * FROM bids WHERE price < 5;
INSERT INTO bids (id, price, name) VALUES (1, 10, 'n');
"""

# What is typed, and words that must be in the answer, the hint among it.
LISTING = {
    "syntax": [
        ("SELEC 1", "Did you mean SELECT?"),
        ("SELECT (1", "expected )"),
        ("SELECT 1 +", "syntax error at end of input"),
        ("UPDATE bids SET id = 1", "WITH (changes = true)"),
        ("MERGE INTO bids USING dear ON true WHEN MATCHED THEN DELETE", "ON CONFLICT"),
        ("ALTER STREAM bids ADD x", "CREATE OR REPLACE"),
        ("CREATE STREM x (a INT)", "Did you mean CREATE STREAM?"),
        ("CREATE STREAM x (a)", "such as a BIGINT"),
        ("CREATE STREAM x (a INT, a INT)", "more than once"),
        ("CREATE STREAM x (a FOO)", "The types are"),
        ("SELECT * FROM bids FOR SYSTEM_TIME AS OF now()", "LEFT JOIN s FOR SYSTEM_TIME AS OF now()"),
        ("SELECT * FROM bids b JOIN keyed FOR SYSTEM_TIME AS OF b.at AS k ON b.id = k.id", "without a PRIMARY KEY"),
        ("SELECT * FROM bids ASOF JOIN keyed ON bids.id = keyed.id", "MATCH_CONDITION (l.ts >= r.ts)"),
        ("SELECT * FROM bids ASOF FULL JOIN keyed MATCH_CONDITION (bids.at >= keyed.at)", "ASOF [LEFT] JOIN"),
        ("SELECT id FROM bids FETCH FIRST 3 ROWS WITH TIES", "ORDER BY x FETCH FIRST 3 ROWS WITH TIES"),
        ("SELECT * FROM SESSION(bids, at, INTERVAL '1 minute', PARTITION BY id + 1)", "Compute it in a subquery"),
    ],
    "names": [
        ("SELECT * FROM bidz", "Did you mean bids?"),
        ("SELECT nam FROM bids", "Did you mean name?"),
        ("SELECT nothing_like_it FROM dear", "The columns are: id, price."),
        ("SELECT Mixed FROM bids", 'Write "Mixed" with the quotes'),
        ('SELECT "ID" FROM bids', "Write id without quotes"),
        ("SELECT z.id FROM bids", 'There is no "z" in FROM'),
        ("SELECT id FROM bids a, dear b", "is ambiguous"),
        ("SELECT *, id AS price FROM bids ORDER BY price", "is ambiguous"),
        ("SELECT a.id FROM bids a, dear a", 'two tables are called "a"'),
        ("SELECT mode() WITHIN GROUP (ORDER BY id) FROM bids", "GROUP BY"),
        ("SELECT uper(name) FROM bids", "Did you mean upper?"),
        ("SELECT row_number() FROM bids", "OVER"),
        ("DROP STREAM deer", "Did you mean dear?"),
        ("CREATE STREAM bids (id BIGINT)", "CREATE OR REPLACE STREAM"),
        ("CREATE STREAM x (a, b, c) AS SELECT id, price FROM bids", "its query gives 2"),
    ],
    "types": [
        ("SELECT sum(name) FROM bids", "function sum(TEXT) does not exist"),
        ("SELECT name + 1 FROM bids", "operator + does not take TEXT and BIGINT"),
        ("SELECT id FROM bids WHERE name", "a condition is a BOOLEAN"),
        ("SELECT id, count(*) FROM bids", "GROUP BY"),
        ("SELECT id FROM bids WHERE sum(id) > 1", "HAVING"),
        ("SELECT id FROM bids UNION SELECT id, price FROM bids", "numbers of columns"),
        ("SELECT id FROM bids ORDER BY 3", "the result has 1 column\n"),
        ("SELECT id FROM bids LIMIT 'x'", "whole number, not TEXT"),
        ("SELECT to_char(at, 'QQ') FROM bids", 'no pattern "QQ"'),
        ("SELECT * FROM TUMBLE(bids, at, 10)", "INTERVAL '10 seconds'"),
        ("SELECT $1", "parameter $1 has no value"),
    ],
    "values": [
        ("SELECT CAST(name AS BIGINT) FROM bids", "TRY_CAST"),
        ("SELECT 'x'::DATE", "'x' is not a DATE"),
        ("SELECT 10 / (id - 1) FROM bids", "divide by zero"),
        ("INSERT INTO bids (small) VALUES (99999999999)", 'column "small" of stream "bids": 99999999999 does not fit INT'),
        ("INSERT INTO bids (u) VALUES (-1)", "-1 does not fit BIGINT UNSIGNED"),
        ("INSERT INTO bids (d) VALUES (12345.5)", "the largest is 999.99"),
        ("INSERT INTO bids (small) VALUES (1.5)", "1.5"),
        ("INSERT INTO bids (at) VALUES ('soon')", "'soon' is not a TIMESTAMP"),
        ("INSERT INTO keyed VALUES (NULL, 'a')", 'column "id" of stream "keyed" must not be null'),
        ("INSERT INTO keyed (id) VALUES (1)", 'column "k" of stream "keyed" must not be null'),
        ("INSERT INTO keyed VALUES (1)", "row 1 has 1 of 2 values"),
        ("INSERT INTO keyed (id, id) VALUES (1, 2)", "more than once"),
        ("INSERT INTO dear VALUES (1, 2)", "dear"),
    ],
    "continuous": [
        ("CREATE STREAM x AS\nSELECT id,\n  rank() OVER (ORDER BY at < now()) FROM bids", "now()"),
        ("CREATE STREAM x AS\nSELECT id FROM bids\nORDER BY id", "ORDER BY without LIMIT says nothing"),
        ("CREATE STREAM x AS SELECT id, (SELECT id FROM dear) AS d FROM bids", "may have several rows"),
        ("CREATE STREAM x AS\nSELECT id FROM bids\nWHERE at < now() OR id > 3", "now()"),
        ("CREATE STREAM x AS SELECT id, count(*) FROM bids GROUP BY id EMIT ON WINDOW CLOSE", "close"),
        ("CREATE STREAM x AS SELECT FROM bids", "no columns"),
    ],
    "objects": [
        ("DROP STREAM bids", "is read by"),
        ("DROP VIEW dear", '"dear" is a stream'),
        ("PAUSE STREAM cheap", '"cheap" is a view'),
        ("CREATE STREAM x (id BIGINT) WITH (connector = 'fiel')", "file"),
        ("CREATE STREAM x (id BIGINT) WITH (connector = 'file', paht = 'x')", "path"),
        ("CREATE STREAM x (id BIGINT) WITH (paralelism = 2)", "Did you mean parallelism?"),
        ("COPY bids TO 'ftp://b/x.parquet'", "s3://bucket/prefix"),
        ("COPY bids TO 'x.foo'", "the format is not known"),
        ("SET paralelism = 2", "Did you mean parallelism?"),
        ("BEGIN", "Each statement commits by itself."),
    ],
}

# Words of the libraries below, which say nothing to who writes SQL.
INTERNAL = re.compile(r"\b(U?Int(8|16|32|64)|Float(32|64)|Utf8(View)?|LargeUtf8|Date32|Decimal128|DataFusion|datafusion|Arrow|Expr|Ident|Some\(|Span|column\d)\b")


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    store = tmp_path_factory.mktemp("listing") / "store"
    done = subprocess.run([BINARY, "run", "-", "--store", store], input=SETUP, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return store


@pytest.mark.parametrize("kind", LISTING)
def test_messages(shop, tmp_path, kind):
    wrong = []
    print(f"\n{kind}\n{'=' * len(kind)}")
    for sql, words in LISTING[kind]:
        command = [BINARY, "shell", "--store", shop, "-c", sql]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=tmp_path)
        said = done.stderr.strip()
        print(f"\n{sql}\n{said}")
        own = "\n".join(line for line in said.splitlines() if not line.startswith("  "))
        if done.returncode == 0 or words not in said or INTERNAL.search(own) or not re.match(r"error: [^A-Z]|error: [A-Z]{2}", said):
            wrong.append(f"{sql}\n{said}")
    assert not wrong, "\n\n".join(wrong)


@pytest.mark.parametrize("sql, line, under", [(sql, sql.splitlines()[-1], words) for sql, words in LISTING["continuous"] if "\n" in sql])
def test_the_caret_stands_under_the_clause(shop, sql, line, under):
    """Also where statements stand before it."""
    script = f"SELECT 1;\nSELECT\n 2;\n{sql};\n"
    done = subprocess.run([BINARY, "run", "-", "--store", shop], input=script, capture_output=True, text=True, timeout=60)
    shown = done.stderr.splitlines()
    at = next(i for i, text in enumerate(shown) if "LINE " in text)
    assert line in shown[at], done.stderr
    column = shown[at + 1].index("^")
    clause = under.split("(")[0].split(" cannot")[0].split(" ")[0]
    assert shown[at][column:].upper().startswith(clause.upper()), done.stderr
