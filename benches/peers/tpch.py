"""How long does it take to keep the results of TPC-H's 22 queries while rows arrive?

tpch.py [SCALE [PIECES]]: the tables come in so many pieces each (SCALE 0.1, 4), in any order and with changes between them, into stored streams over
which all 22 queries run. A step is one statement; its time is from before it to when all 22 results have taken it in. Beside it DuckDB in memory
runs the statement and then the 22 queries anew. At the end all results are compared. Prints both times by step, their sums, and memory.
Needs what the tests need; MILLSTREAM_BINARY may name the binary.
"""

import pathlib
import random
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "sites"))
sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "tests" / "python"))
sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "soak"))
from conftest import Server, run  # noqa: E402
from link import cpu  # noqa: E402
from soak import resident_mb  # noqa: E402
from test_tpch import KEYS, Reference, generated, pieces_of, steps  # noqa: E402

SCALE = float(sys.argv[1]) if len(sys.argv) > 1 else 0.1
PIECES = int(sys.argv[2]) if len(sys.argv) > 2 else 4


def main():
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        made, queries = generated(folder, SCALE, PIECES)
        files = [
            f"CREATE STREAM {t}_{n} WITH (connector = 'file', path = '{folder}/{t}-{n}.parquet')" for t in KEYS for n in range(pieces_of(t, PIECES))
        ]
        derived = [f"CREATE STREAM {name} AS {sql}" for name, sql in queries.items()]
        run(folder / "store", ";\n".join(made + files + derived) + ";", "--parallelism", "2")
        reference, ours, theirs = Reference(folder, made), 0.0, 0.0
        server = Server(folder / "store", "--parallelism", "2")
        with server, server.connect() as connection, connection.cursor() as cursor:
            before = cpu(server.process.pid)
            for statement, piece in steps(random.Random(1), PIECES):
                begun = time.monotonic()
                cursor.execute(statement)
                cursor.execute("FLUSH")
                kept = time.monotonic()
                reference.insert(*piece) if piece else reference.duck.execute(statement)
                for sql in queries.values():
                    reference.duck.execute(sql).fetchall()
                anew = time.monotonic()
                ours, theirs = ours + kept - begun, theirs + anew - kept
                print(f"{kept - begun:8.2f} s {anew - kept:8.2f} s  {statement}", flush=True)
            used, memory = cpu(server.process.pid) - before, resident_mb(server.process.pid)
            reference.check(cursor, queries, "all")
            rows = sum(reference.duck.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in KEYS)
            print(f"kept {ours:.1f} s ({used:.1f} CPU s, {memory:.0f} MB), anew {theirs:.1f} s; {rows:,} rows at the end, all 22 results the same")


if __name__ == "__main__":
    main()
