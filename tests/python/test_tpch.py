"""TPC-H's queries, kept while rows come in any order, are changed and go: after each round they say what DuckDB says of the tables."""

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
ROUNDS = 3

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
folder, scale, rounds, keys = sys.argv[1], sys.argv[2], int(sys.argv[3]), json.loads(sys.argv[4])
connection = duckdb.connect()
(extension,) = pathlib.Path(duckdb_extension_tpch.__file__).parent.glob("extensions/*/tpch.duckdb_extension")
connection.load_extension(str(extension))
connection.execute(f"CALL dbgen(sf={scale}); SELECT setseed(0.5)")
made = []
for table, key in keys.items():
    columns = [f"{name} {kind.replace('VARCHAR', 'TEXT')}" for name, kind, *_ in connection.execute(f"DESCRIBE {table}").fetchall()]
    made.append(f"CREATE STREAM {table} ({', '.join(columns)}, PRIMARY KEY ({key}))")
    for piece in range(rounds):
        some = f"SELECT * FROM {table} WHERE hash({key}) % {rounds} = {piece} ORDER BY random()"
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


def generated(folder):
    assert (OTHER / "duckdb_extension_tpch").exists(), f"there is no DuckDB with tpch in {OTHER}: tests/run.sh installs it"
    command = [sys.executable, "-c", GENERATE, folder, str(SCALE), str(ROUNDS), json.dumps(KEYS)]
    env = {**os.environ, "PYTHONPATH": str(OTHER)}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


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


@pytest.mark.parametrize("parallelism", [1, 4])
def test_all_queries_follow_their_tables(tmp_path, parallelism):
    made, queries = generated(tmp_path)
    queries = {f"q{n}": unordered(sql) for n, sql in queries}
    assert len(queries) == 22
    dice, store = random.Random(parallelism), tmp_path / "store"
    files = [f"CREATE STREAM {t}_{n} WITH (connector = 'file', path = '{tmp_path}/{t}-{n}.parquet')" for t in KEYS for n in range(ROUNDS)]
    derived = [f"CREATE STREAM {name} AS {sql}" for name, sql in queries.items()]
    run(store, ";\n".join(made + files + derived) + ";", "--parallelism", str(parallelism))
    seen = set()
    for piece in range(ROUNDS):
        server = Server(store, "--parallelism", parallelism)
        with server.connect() as connection, connection.cursor() as cursor:
            for table in dice.sample(sorted(KEYS), len(KEYS)):
                cursor.executescript(f"INSERT INTO {table} SELECT * FROM {table}_{piece}")
            for change in dice.sample(CHANGES, 5):
                cursor.executescript(change.format(dice.randrange(3)))
        server.kill() if piece == 1 else server.stop()
        copies = [f"COPY (SELECT * FROM {name}) TO '{tmp_path}/now-{name}.parquet'" for name in [*KEYS, *queries]]
        run(store, "FLUSH;\n" + ";\n".join(copies) + ";")
        with duckdb.connect() as duck:
            for table in KEYS:
                duck.execute(f"CREATE VIEW {table} AS FROM '{tmp_path}/now-{table}.parquet'")
            for name, sql in queries.items():
                found = plain(duck.execute(f"FROM '{tmp_path}/now-{name}.parquet'").fetchall())
                expected = plain(duck.execute(sql).fetchall())
                assert same(found, expected), f"{name}, round {piece}: {found[:3]} of {len(found)}, not {expected[:3]} of {len(expected)}"
                seen |= {name for row in found if any(v is not None for v in row)}
    assert len(seen) > 18, f"the others never had a row: {sorted(set(queries) - seen)}"
