"""A changelog reads the same wherever it leaves: files of each format, standard output, Flight, a stream's own files."""

import csv
import json
import time

from conftest import Process, Server, duck, parquet, run

QUERY = "SELECT k % 3 AS g, count(*) AS n, max(v) AS v FROM r GROUP BY k % 3"
STEPS = [
    "INSERT INTO r VALUES (1, 10), (2, 20), (4, 5)",
    "INSERT INTO r VALUES (1, 11), (3, 30)",
    # nothing comes of a row that stays what it is
    "INSERT INTO r VALUES (2, 20)",
    "INSERT INTO r VALUES (4, 50), (5, 1)",
]
EXPECTED = [
    ("+I", 1, 2, 10),
    ("+I", 2, 1, 20),
    ("-U", 1, 2, 10),
    ("+U", 1, 2, 11),
    ("+I", 0, 1, 30),
    ("-U", 1, 2, 11),
    ("+U", 1, 2, 50),
    ("-U", 2, 1, 20),
    ("+U", 2, 2, 20),
]


def paired(changes):
    """In each epoch keys come in no order; old and new row of one stand together."""
    pairs, at = [], 0
    while at < len(changes):
        length = 2 if changes[at][0] == "-U" else 1
        pairs.append(tuple(changes[at : at + length]))
        at += length
    return sorted(pairs)


def test_one_changelog_everywhere(store, tmp_path):
    outputs = {"lines.json": "json", "lines.csv": "csv", "folder": "parquet"}
    often = ["--parallelism", "1", "--checkpoint-interval", "20 ms"]
    # The server's standard output is not for statements from outside.
    shown = f"CREATE STREAM shown WITH (connector = 'stdout', format = 'json') AS {QUERY};"
    run(store, f"CREATE STREAM r (k BIGINT, v BIGINT, PRIMARY KEY (k)); {shown}", *often)
    with Server(store, *often) as server:
        with server.connect() as connection, connection.cursor() as cursor:
            cursor.execute(f"CREATE STREAM kept AS {QUERY}")
            for i, (name, form) in enumerate(outputs.items()):
                cursor.execute(f"CREATE STREAM o{i} WITH (connector = 'file', path = '{tmp_path / name}', format = '{form}') AS {QUERY}")
            follow = ["shell", "--connect", f"grpc://{server.address}", "--format", "json", "-c", f"{QUERY} EMIT CHANGES"]
            with Process(*follow) as follower:
                time.sleep(1)
                for step in STEPS:
                    cursor.execute(step)
                    cursor.execute("FLUSH")
                    time.sleep(0.3)
                deadline = time.monotonic() + 20
                while len(follower.lines["stdout"]) < len(EXPECTED) and time.monotonic() < deadline:
                    time.sleep(0.02)
                followed = follower.lines["stdout"][:]
            shown = server.lines["stdout"]

    def of(line):
        row = json.loads(line)
        return row["_op"], row["g"], row["n"], row["v"]

    found = {
        "stdout": [of(line) for line in shown],
        "Flight": [of(line) for line in followed],
        "JSON": [of(line) for line in (tmp_path / "lines.json").read_text().splitlines()],
        "Parquet": duck(f"SELECT _op, g, n, v FROM read_parquet('{tmp_path}/folder/*.parquet', filename = true, file_row_number = true) ORDER BY filename, file_row_number"),
        "stream": duck(f"SELECT _op, g, n, v FROM read_parquet('{parquet(store, 'kept')}', filename = true, file_row_number = true) ORDER BY _epoch, filename, file_row_number"),
    }
    with open(tmp_path / "lines.csv") as lines:
        found["CSV"] = [(r["_op"], int(r["g"]), int(r["n"]), int(r["v"])) for r in csv.DictReader(lines)]
    for where, changes in found.items():
        assert paired(changes) == paired(EXPECTED), where
