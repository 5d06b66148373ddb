"""Lookups: FOR SYSTEM_TIME AS OF now() right of a join. A row is joined once, with what there is as it comes; what is there at the start of
a job is read first, whatever kills come in between."""

import random
import time

import pytest
from conftest import PATIENCE, Server, duck, parquet, run, run_through_kills

SEED = 20241130
OFTEN = ("--checkpoint-interval", "50ms")
EVENTS = 40_000


def side(path, rows, chance):
    """A table of keys, some of which are there twice, and some not at all."""
    keys = [chance.randrange(rows) for _ in range(rows)]
    path.write_text("".join(f"{key},word {key} {i}\n" for i, key in enumerate(keys)))


def script(tmp_path, pace):
    bids = f"connector = 'nexmark', \"table\" = 'bid', events = {EVENTS}, rate = 1000{pace}"
    return f"""
CREATE STREAM IF NOT EXISTS bid WITH ({bids});
CREATE STREAM IF NOT EXISTS words (k BIGINT, word TEXT) WITH (connector = 'file', path = '{tmp_path}/words.csv', format = 'csv', header = false);
CREATE STREAM IF NOT EXISTS found AS
SELECT b.auction, b.bidder, b.price, w.word FROM bid b JOIN words FOR SYSTEM_TIME AS OF now() AS w ON b.auction % 3000 = w.k;
CREATE STREAM IF NOT EXISTS looked AS
SELECT b.auction, b.price, w.word FROM bid b LEFT JOIN words FOR SYSTEM_TIME AS OF now() AS w ON b.auction % 3000 = w.k AND w.word > 'word 15';
CREATE STREAM IF NOT EXISTS counted AS
SELECT left(word, 6) AS w, count(*) AS n FROM found GROUP BY left(word, 6);
"""


@pytest.mark.parametrize("parallelism", [1, 3])
def test_rows_are_looked_up_once_through_kills(tmp_path, parallelism):
    chance, store, file = random.Random(SEED + parallelism), tmp_path / "store", tmp_path / "script.sql"
    side(tmp_path / "words.csv", 3000, chance)
    args = ("--store", store, "--parallelism", parallelism, *OFTEN)
    file.write_text(script(tmp_path, f", pace = {EVENTS // 4}"))
    run_through_kills(file, args, store, "found", chance)
    run(store, f"COPY (SELECT * FROM bid) TO '{tmp_path}/bid.parquet';")
    words = f"(SELECT column0 AS k, column1 AS word FROM read_csv('{tmp_path}/words.csv', header = false))"
    joins = {
        "found": f"SELECT b.auction, b.bidder, b.price, w.word FROM '{tmp_path}/bid.parquet' b JOIN {words} w ON b.auction % 3000 = w.k",
        "looked": f"""SELECT b.auction, b.price, w.word FROM '{tmp_path}/bid.parquet' b
                      LEFT JOIN {words} w ON b.auction % 3000 = w.k AND w.word > 'word 15'""",
    }
    for name, expected in joins.items():
        found = f"FROM read_parquet('{parquet(store, name)}')"
        missing = duck(f"({expected}) EXCEPT ALL ({found}) LIMIT 5")
        extra = duck(f"({found}) EXCEPT ALL ({expected}) LIMIT 5")
        assert not missing and not extra, f"{name}: {missing} are missing, {extra} are too many"
    assert duck(f"SELECT count(*), count(word) FROM read_parquet('{parquet(store, 'looked')}')")[0][0] > 10_000
    shown = run(store, "SELECT sum(n) AS n FROM counted; SELECT count(*) AS n FROM found;")
    numbers = [line.strip() for line in shown.stdout.splitlines() if line.strip().isdigit()]
    assert len(numbers) == 2 and numbers[0] == numbers[1], shown.stdout


def test_what_was_said_stays_and_what_comes_finds_what_there_is(tmp_path):
    server = Server(tmp_path / "store", *OFTEN)
    with server.connect() as connection, connection.cursor() as cursor:

        def ask(sql):
            cursor.execute(sql)
            return cursor.fetchall()

        for statement in (
            "CREATE STREAM rows (id BIGINT, k BIGINT)",
            "CREATE STREAM rates (k BIGINT, rate DOUBLE, PRIMARY KEY (k))",
            "INSERT INTO rates VALUES (1, 1.5), (2, 2.5)",
            "INSERT INTO rows VALUES (1, 1), (2, 2), (3, 3), (4, NULL)",
            """CREATE STREAM rated AS SELECT r.id, s.rate FROM rows r LEFT JOIN rates FOR SYSTEM_TIME AS OF now() AS s ON r.k = s.k""",
            "CREATE VIEW grouped AS SELECT k % 2 AS k, count(*) AS n FROM rates GROUP BY k % 2",
            "CREATE STREAM counts AS SELECT r.id, g.n FROM rows r JOIN grouped FOR SYSTEM_TIME AS OF PROCTIME() AS g ON g.k = r.k % 2",
            "FLUSH",
        ):
            cursor.executescript(statement)
        # The history of the side that is looked up comes first.
        assert ask("SELECT * FROM rated ORDER BY id") == [(1, 1.5), (2, 2.5), (3, None), (4, None)]
        assert ask("SELECT * FROM counts ORDER BY id") == [(1, 1), (2, 1), (3, 1)]
        for statement in (
            "INSERT INTO rates VALUES (1, 10.5), (3, 3.5)",
            "DELETE FROM rates WHERE k = 2",
            "FLUSH",
            "INSERT INTO rows VALUES (5, 1), (6, 2), (7, 3)",
            "FLUSH",
        ):
            cursor.executescript(statement)
        old, new = [(1, 1.5), (2, 2.5), (3, None), (4, None)], [(5, 10.5), (6, None), (7, 3.5)]
        assert ask("SELECT * FROM rated ORDER BY id") == old + new
        assert ask("SELECT * FROM counts ORDER BY id") == [(1, 1), (2, 1), (3, 1), (5, 2), (7, 2)]
        # In batch now is when the query runs.
        batch = "SELECT r.id, s.rate FROM rows r JOIN rates FOR SYSTEM_TIME AS OF now() AS s ON r.k = s.k ORDER BY id"
        assert ask(batch) == [(1, 10.5), (3, 3.5), (5, 10.5), (7, 3.5)]
        # A result that only grows has no _op.
        assert duck(f"DESCRIBE FROM read_parquet('{parquet(server.store, 'rated')}')")[-1][0] == "rate"
    server.kill()
    server = Server(tmp_path / "store", *OFTEN)
    with server.connect() as connection, connection.cursor() as cursor:
        cursor.executescript("INSERT INTO rows VALUES (8, 3)")
        cursor.executescript("FLUSH")
        cursor.execute("SELECT * FROM rated ORDER BY id")
        assert cursor.fetchall() == old + new + [(8, 3.5)]
    server.stop()


def test_a_folder_that_is_followed_is_read_first_and_refreshed(tmp_path):
    folder = tmp_path / "rates"
    folder.mkdir()
    many = 50_000
    (folder / "a.csv").write_text("k,rate\n" + "".join(f"{k},{k % 7}\n" for k in range(many)))
    server = Server(tmp_path / "store", *OFTEN)
    with server.connect() as connection, connection.cursor() as cursor:
        for statement in (
            "CREATE STREAM rows (id BIGINT, k BIGINT)",
            f"""CREATE STREAM rates (k BIGINT, rate BIGINT, PRIMARY KEY (k))
                WITH (connector = 'file', path = '{folder}/', format = 'csv', follow = true, poll_interval = '50 ms')""",
            f"INSERT INTO rows VALUES (1, 0), (2, 1), (3, {many - 1})",
            "CREATE STREAM rated AS SELECT r.id, s.rate FROM rows r LEFT JOIN rates FOR SYSTEM_TIME AS OF now() AS s ON r.k = s.k",
            "FLUSH",
        ):
            cursor.executescript(statement)
        cursor.execute("SELECT * FROM rated ORDER BY id")
        assert cursor.fetchall() == [(1, 0), (2, 1), (3, (many - 1) % 7)]
        (folder / "b.csv").write_text("k,rate\n1,100\n")
        until, rates, asked = time.monotonic() + PATIENCE, [], 3
        while rates[-1:] != [100]:
            assert time.monotonic() < until, rates
            asked += 1
            cursor.executescript(f"INSERT INTO rows VALUES ({asked}, 1)")
            cursor.executescript("FLUSH")
            cursor.execute("SELECT rate FROM rated WHERE id > 3 ORDER BY id")
            rates = [rate for (rate,) in cursor.fetchall()]
        assert rates == [1] * (len(rates) - 1) + [100], "what was said stays"
    server.stop()


def test_rows_are_looked_up_in_their_own_stream(tmp_path):
    lines = "".join(f"{i},{i // 2}\n" for i in range(1000))
    (tmp_path / "t.csv").write_text("id,parent\n" + lines)
    shown = run(
        tmp_path / "store",
        f"""CREATE STREAM t (id BIGINT, parent BIGINT) WITH (connector = 'file', path = '{tmp_path}/t.csv');
            CREATE STREAM up AS SELECT t.id, u.parent FROM t JOIN t FOR SYSTEM_TIME AS OF now() AS u ON t.parent = u.id;
            FLUSH; SELECT count(*) AS n, sum(parent) AS s FROM up; EXPLAIN STREAM up;""",
    )
    cells = [cell.strip() for line in shown.stdout.splitlines() for cell in line.split("│")]
    assert {"1000", str(sum(i // 4 for i in range(1000)))} <= set(cells), shown.stdout
    assert "lookup 1" in shown.stdout and "on parent = id, left is not kept" in shown.stdout, shown.stdout
    assert "[state bounded by an input that ends]" in shown.stdout, shown.stdout
    assert "keeps all rows" not in shown.stderr, shown.stderr


@pytest.mark.parametrize(
    ("sql", "words"),
    [
        ("SELECT a.k FROM changing a JOIN plain FOR SYSTEM_TIME AS OF now() AS b ON a.k = b.k", "Write a JOIN without FOR SYSTEM_TIME"),
        ("SELECT a.k FROM plain a JOIN changing FOR SYSTEM_TIME AS OF now() AS b ON a.k < b.k", "Write one equality at least"),
        ("SELECT a.k FROM plain a JOIN changing FOR SYSTEM_TIME AS OF a.at AS b ON a.k = b.k", "has no versions to be looked up"),
        ("SELECT a.k FROM plain a RIGHT JOIN changing FOR SYSTEM_TIME AS OF now() AS b ON a.k = b.k", "outside of an inner or left JOIN"),
    ],
)
def test_lookups_that_cannot_be_are_refused(tmp_path, sql, words):
    told = run(
        tmp_path / "store",
        f"""CREATE STREAM plain (k BIGINT, at TIMESTAMP); CREATE STREAM changing (k BIGINT PRIMARY KEY, v TEXT);
            CREATE STREAM s AS {sql};""",
        ok=False,
    )
    assert words in told.stderr, told.stderr
