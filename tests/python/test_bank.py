"""No impossible row: money that moves between accounts is never seen to come or go."""

import random
import time

import duckdb
import pyarrow.dataset
import pytest
from conftest import Server, run

VIEWS = """
CREATE STREAM transfers (id BIGINT, source INT, target INT, amount BIGINT);
CREATE VIEW credits AS SELECT target AS account, sum(amount) AS credit FROM transfers GROUP BY target;
CREATE VIEW debits AS SELECT source AS account, sum(amount) AS debit FROM transfers GROUP BY source;
CREATE VIEW balances AS SELECT c.account, c.credit - d.debit AS balance FROM credits c JOIN debits d ON c.account = d.account;
CREATE STREAM total AS SELECT count(*) AS accounts, sum(balance) AS total FROM balances;
CREATE STREAM matched AS SELECT a.id, b.id AS same FROM transfers a LEFT JOIN transfers b ON a.id = b.id;
CREATE STREAM richest AS SELECT b.account, b.balance FROM balances b WHERE b.balance = (SELECT max(balance) FROM balances);
"""


def transfers(dice, first, rows):
    moved = []
    for id in range(first, first + rows):
        source, target = dice.sample(range(10), 2)
        moved.append(f"({id}, {source}, {target}, 1)")
    return ", ".join(moved)


@pytest.mark.parametrize("parallelism, most, kill", [(1, 1, False), (4, 1, True), (1, 300, True), (4, 300, False), (4, 8192, True)])
def test_money_neither_comes_nor_goes(tmp_path, parallelism, most, kill):
    dice, store, first = random.Random(parallelism * most), tmp_path / "store", 10
    lives = 3 if kill else 1
    for life in range(lives):
        server = Server(store, "--parallelism", parallelism)
        with server.connect() as connection, connection.cursor() as cursor:
            if life == 0:
                for statement in VIEWS.strip().split(";\n"):
                    cursor.executescript(statement.rstrip(";"))
                # A ring, so that each account has both sides.
                cursor.executescript("INSERT INTO transfers VALUES " + ", ".join(f"({i}, {i}, {(i + 1) % 10}, 1)" for i in range(10)))
                cursor.executescript("FLUSH")
            until = time.monotonic() + 2.0 / lives
            while time.monotonic() < until:
                rows = dice.randint(1, most)
                cursor.executescript(f"INSERT INTO transfers VALUES {transfers(dice, first, rows)}")
                first += rows
                cursor.execute("SELECT accounts, total FROM total")
                assert cursor.fetchall() == [(10, 0)]
                cursor.execute("SELECT count(*) FILTER (WHERE same IS NULL), count(*) - count(DISTINCT id) FROM matched")
                assert cursor.fetchall() == [(0, 0)]
        server.kill() if kill else server.stop()
    run(store, "FLUSH;")
    # Every version that was published, by the files: total is a changelog of one row, and no row of matched was ever alone.
    read = lambda stream: pyarrow.dataset.dataset(store / "streams" / stream).to_table()
    total = read("total").to_pylist()
    assert len(total) > 1 and {(row["accounts"], row["total"]) for row in total if row["accounts"] == 10} == {(10, 0)}
    matched = read("matched")
    assert matched.num_rows == first and matched["same"].null_count == 0
    copies = "".join(f"COPY (SELECT * FROM {s}) TO '{tmp_path}/{s}.parquet';" for s in ("transfers", "richest"))
    run(store, copies)
    with duckdb.connect() as duck:
        balances = f"""SELECT account, sum(amount) AS balance FROM (
            SELECT target AS account, amount FROM '{tmp_path}/transfers.parquet' UNION ALL
            SELECT source, -amount FROM '{tmp_path}/transfers.parquet') GROUP BY account"""
        expected = f"WITH b AS ({balances}) SELECT account, balance FROM b WHERE balance = (SELECT max(balance) FROM b) ORDER BY 1"
        assert duck.sql(f"FROM '{tmp_path}/richest.parquet' ORDER BY 1").fetchall() == duck.sql(expected).fetchall()
