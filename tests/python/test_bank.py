"""No impossible row: money that moves between accounts is never seen to come or go."""

import json
import random
import time

import duckdb
import pyarrow.dataset
import pytest
from conftest import Process, Server, run

VIEWS = """
CREATE STREAM transfers (id BIGINT, source INT, target INT, amount BIGINT);
CREATE VIEW credits AS SELECT target AS account, sum(amount) AS credit FROM transfers GROUP BY target;
CREATE VIEW debits AS SELECT source AS account, sum(amount) AS debit FROM transfers GROUP BY source;
CREATE VIEW balances AS SELECT c.account, c.credit - d.debit AS balance FROM credits c JOIN debits d ON c.account = d.account;
CREATE STREAM total AS SELECT count(*) AS accounts, sum(balance) AS total FROM balances;
CREATE STREAM matched AS SELECT a.id, b.id AS same FROM transfers a LEFT JOIN transfers b ON a.id = b.id;
CREATE STREAM richest AS SELECT b.account, b.balance FROM balances b WHERE b.balance = (SELECT max(balance) FROM balances);
"""

# What the shell follows: a stream, and the same queries anew.
FOLLOWED = {
    "total": "SELECT accounts, total FROM total EMIT CHANGES WITH SNAPSHOT",
    "anew": "SELECT t.accounts, t.total, n.moved FROM (SELECT count(*) AS accounts, sum(balance) AS total FROM balances) t "
    "CROSS JOIN (SELECT count(*) AS moved FROM transfers) n EMIT CHANGES",
    "matched": "SELECT a.id, b.id AS same FROM transfers a LEFT JOIN transfers b ON a.id = b.id EMIT CHANGES",
}


def followers(server):
    shell = ["shell", "--connect", f"grpc://{server.address}", "--format", "json", "-c"]
    return {name: Process(*shell, sql) for name, sql in FOLLOWED.items()}


def came(followers):
    """Ends them; what came to each."""
    for follower in followers.values():
        follower.kill()
    # One that is ended may have said half a line.
    whole = lambda lines: lines[:-1] if lines and not lines[-1].endswith("}") else lines
    return {name: [json.loads(line) for line in whole(follower.lines["stdout"])] for name, follower in followers.items()}


def check_followed(changes):
    """Each row that came was right when it came, and what was taken back had been there."""
    for name in ("total", "anew"):
        shown = [row for row in changes[name] if row["_op"] in ("+I", "+U")]
        assert {(row["accounts"], row["total"]) for row in shown if row["accounts"] == 10} <= {(10, 0)}, name
        content = []
        for row in changes[name]:
            version = (row["accounts"], row["total"], row.get("moved"))
            content.append(version) if row["_op"] in ("+I", "+U") else content.remove(version)
            assert len(content) < 2, (name, content)
    moved = [row["moved"] for row in changes["anew"] if row["_op"] in ("+I", "+U")]
    assert moved == sorted(set(moved))
    assert all(row["_op"] == "+I" and row["same"] == row["id"] for row in changes["matched"])
    assert len({row["id"] for row in changes["matched"]}) == len(changes["matched"])


def transfers(dice, first, rows):
    moved = []
    for id in range(first, first + rows):
        source, target = dice.sample(range(10), 2)
        moved.append(f"({id}, {source}, {target}, 1)")
    return ", ".join(moved)


@pytest.mark.parametrize("kill", [False, True])
@pytest.mark.parametrize("size", [1, range(1, 300), 8192], ids=["one", "random", "8192"])
@pytest.mark.parametrize("parallelism", [1, 4])
def test_money_neither_comes_nor_goes(tmp_path, parallelism, size, kill):
    dice, store, first = random.Random(f"{parallelism} {size}"), tmp_path / "store", 10
    lives, seen = 3 if kill else 1, dict.fromkeys(FOLLOWED, 0)
    for life in range(lives):
        server = Server(store, "--parallelism", parallelism)
        with server.connect() as connection, connection.cursor() as cursor:
            if life == 0:
                for statement in VIEWS.strip().split(";\n"):
                    cursor.executescript(statement.rstrip(";"))
                # A ring, so that each account has both sides.
                cursor.executescript("INSERT INTO transfers VALUES " + ", ".join(f"({i}, {i}, {(i + 1) % 10}, 1)" for i in range(10)))
                cursor.executescript("FLUSH")
            followed = followers(server)
            until = time.monotonic() + 1.2 / lives
            while time.monotonic() < until:
                rows = size if isinstance(size, int) else dice.choice(size)
                cursor.executescript(f"INSERT INTO transfers VALUES {transfers(dice, first, rows)}")
                first += rows
                cursor.execute("SELECT accounts, total FROM total")
                assert cursor.fetchall() == [(10, 0)]
                cursor.execute("SELECT count(*) FILTER (WHERE same IS NULL), count(*) - count(DISTINCT id) FROM matched")
                assert cursor.fetchall() == [(0, 0)]
        server.kill() if kill else server.stop()
        changes = came(followed)
        check_followed(changes)
        seen.update({name: seen[name] + len(rows) for name, rows in changes.items()})
    assert seen["total"] >= 1 and seen["anew"] > 2 and seen["matched"] > 10, seen
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
