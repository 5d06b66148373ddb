"""TPC-H's queries, kept while rows come in any order, are changed and go: after each step they say what DuckDB says of the tables.

A step is a statement, which is committed whole: all 22 results are compared after each epoch that brings them something. `MILLSTREAM_PIECES` says in how
many pieces each table comes, `MILLSTREAM_SCALE` how large they are.
"""

import datetime
import decimal
import json
import math
import os
import pathlib
import random
import re
import subprocess
import sys

import duckdb
import pytest
from conftest import Server, run

# DuckDB of the version that its extensions are there for.
OTHER = pathlib.Path(sys.prefix) / "httpfs"
SCALE = float(os.environ.get("MILLSTREAM_SCALE", 0.01))
PIECES = int(os.environ.get("MILLSTREAM_PIECES", 2))
# The small ones come whole.
WHOLE = ("region", "nation")

KEYS = {
    "region": "r_regionkey",
    "nation": "n_nationkey",
    "supplier": "s_suppkey",
    "customer": "c_custkey",
    "part": "p_partkey",
    "partsupp": "ps_partkey, ps_suppkey",
    "orders": "o_orderkey",
    "lineitem": "l_orderkey, l_linenumber",
}

# Tables in pieces whose rows lie anyhow, the statements that make them, and the queries.
GENERATE = """
import json, pathlib, sys
import duckdb, duckdb_extension_tpch
folder, scale, pieces, keys = sys.argv[1], sys.argv[2], json.loads(sys.argv[3]), json.loads(sys.argv[4])
connection = duckdb.connect()
(extension,) = pathlib.Path(duckdb_extension_tpch.__file__).parent.glob("extensions/*/tpch.duckdb_extension")
connection.load_extension(str(extension))
connection.execute(f"CALL dbgen(sf={scale}); SELECT setseed(0.5)")
made = []
for table, key in keys.items():
    columns = [f"{name} {kind.replace('VARCHAR', 'TEXT')}" for name, kind, *_ in connection.execute(f"DESCRIBE {table}").fetchall()]
    made.append(f"CREATE STREAM {table} ({', '.join(columns)}, PRIMARY KEY ({key}))")
    for piece in range(pieces[table]):
        some = f"SELECT * FROM {table} WHERE hash({key}) % {pieces[table]} = {piece} ORDER BY random()"
        connection.execute(f"COPY ({some}) TO '{folder}/{table}-{piece}.parquet'")
print(json.dumps([made, connection.execute("FROM tpch_queries()").fetchall()]))
"""

CHANGES = [
    "UPDATE lineitem SET l_quantity = l_quantity + 1, l_discount = 0.05 WHERE l_orderkey % 7 = {0}",
    "DELETE FROM orders WHERE o_orderkey % 11 = {0}",
    "UPDATE supplier SET s_nationkey = (s_nationkey + 1) % 25, s_acctbal = s_acctbal - 10 WHERE s_suppkey % 3 = {0}",
    "DELETE FROM lineitem WHERE l_orderkey % 13 = {0}",
    "UPDATE part SET p_type = 'PROMO BRUSHED BRASS', p_size = 15 WHERE p_partkey % 9 = {0}",
    "UPDATE partsupp SET ps_availqty = ps_availqty + 100, ps_supplycost = ps_supplycost * 0.9 WHERE ps_partkey % 5 = {0}",
    "UPDATE customer SET c_mktsegment = 'BUILDING', c_acctbal = -c_acctbal WHERE c_custkey % 8 = {0}",
    "DELETE FROM customer WHERE c_custkey % 17 = {0}",
]


def pieces_of(table, pieces):
    return 1 if table in WHOLE else pieces


def generated(folder, scale=SCALE, pieces=PIECES):
    """The statements that make the tables, and the queries by name; the pieces lie in `folder`."""
    assert (OTHER / "duckdb_extension_tpch").exists(), f"there is no DuckDB with tpch in {OTHER}: tests/run.sh installs it"
    pieces = json.dumps({table: pieces_of(table, pieces) for table in KEYS})
    command = [sys.executable, "-c", GENERATE, folder, str(scale), pieces, json.dumps(KEYS)]
    env = {**os.environ, "PYTHONPATH": str(OTHER)}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    # What takes long shows how far it is.
    made, queries = json.loads(done.stdout.splitlines()[-1])
    assert len(queries) == 22
    return made, {f"q{n}": unordered(sql) for n, sql in queries}


def unordered(query):
    """Without the order of the result, and how much of it is shown."""
    return re.sub(r"\s+ORDER BY[^()]*?(LIMIT \d+)?\s*$", "", query.strip().rstrip(";"), flags=re.DOTALL | re.IGNORECASE)


def plain(rows):
    number = lambda v: float(v) if isinstance(v, (int, float, decimal.Decimal)) else v
    day = lambda v: v.date() if isinstance(v, datetime.datetime) else v
    rows = [tuple(day(number(v)) for v in row) for row in rows]
    return sorted(rows, key=lambda row: [f"{v:.4g}" if isinstance(v, float) else str(v) for v in row])


def same(found, expected):
    close = lambda a, b: math.isclose(a, b, rel_tol=1e-6, abs_tol=1e-6) if isinstance(a, float) and isinstance(b, float) else a == b
    return len(found) == len(expected) and all(all(map(close, a, b)) for a, b in zip(found, expected))


class Reference:
    """The tables in DuckDB: what was accepted."""

    def __init__(self, folder, made):
        self.folder, self.duck = folder, duckdb.connect()
        for statement in made:
            self.duck.execute(statement.replace("CREATE STREAM", "CREATE TABLE"))

    def insert(self, table, piece):
        self.duck.execute(f"INSERT INTO {table} FROM '{self.folder}/{table}-{piece}.parquet'")

    def check(self, cursor, queries, after):
        """All results are those of the tables. Gives the names of those that have a row."""
        seen = set()
        for name, sql in queries.items():
            cursor.execute(f"SELECT * FROM {name}")
            found, expected = plain(cursor.fetchall()), plain(self.duck.execute(sql).fetchall())
            assert same(found, expected), f"{name} after {after}: {found[:3]} of {len(found)}, not {expected[:3]} of {len(expected)}"
            seen |= {name for row in found if any(v is not None for v in row)}
        return seen


def steps(dice, pieces=PIECES):
    """All pieces in any order, and changes between them: statements, and the pieces that they are about."""
    inserts = [(f"INSERT INTO {t} SELECT * FROM {t}_{n}", (t, n)) for t in KEYS for n in range(pieces_of(t, pieces))]
    changes = [(change.format(dice.randrange(3)), None) for change in CHANGES]
    dice.shuffle(inserts)
    # What changes rows comes when some are there.
    for change in changes:
        inserts.insert(dice.randint(len(inserts) // 2, len(inserts)), change)
    return inserts


@pytest.mark.parametrize("parallelism", [1, 4])
def test_all_queries_follow_their_tables(tmp_path, parallelism):
    made, queries = generated(tmp_path)
    dice, store = random.Random(parallelism), tmp_path / "store"
    reference = Reference(tmp_path, made)
    files = [
        f"CREATE STREAM {t}_{n} WITH (connector = 'file', path = '{tmp_path}/{t}-{n}.parquet')"
        for t in KEYS
        for n in range(pieces_of(t, PIECES))
    ]
    derived = [f"CREATE STREAM {name} AS {sql}" for name, sql in queries.items()]
    run(store, ";\n".join(made + files + derived) + ";", "--parallelism", str(parallelism))
    left, seen = steps(dice), set()
    while left:
        # In some lives, which end by a kill.
        some, left = left[: len(left) // 2 + 1], left[len(left) // 2 + 1 :]
        server = Server(store, "--parallelism", parallelism, "--checkpoint-interval", "50ms")
        with server.connect() as connection, connection.cursor() as cursor:
            for statement, piece in some:
                cursor.executescript(statement)
                reference.insert(*piece) if piece else reference.duck.execute(statement)
                cursor.executescript("FLUSH")
                seen |= reference.check(cursor, queries, statement)
        server.kill() if left else server.stop()
    for table in KEYS:
        assert reference.duck.execute(f"SELECT count(*) FROM {table}").fetchone()[0] > 0
    assert len(seen) > 18, f"the others never had a row: {sorted(set(queries) - seen)}"
