"""Answers queries with DuckDB, over pipes: the second oracle of tests/src/duck.rs.

A request is a line of JSON. `{"run": [sql, …]}` runs statements. `{"tables": [[name, bytes], …]}` is followed
by that many bytes of Arrow IPC for each table. `{"query": sql}` is answered by the bytes of the result. Each
request gets one line, `{"bytes": n}` or `{"error": text}`, and the bytes.
"""

import json
import sys

import duckdb
import pyarrow as pa

# What has no type of Arrow's, and what it becomes.
EXPORTED = {"HUGEINT": "DECIMAL(38, 0)", "UHUGEINT": "DECIMAL(38, 0)"}


def answer(connection, sql):
    relation = connection.sql(sql)
    types = [str(t) for t in relation.types]
    if any(t in EXPORTED for t in types):
        names = [f"c{i}" for i in range(len(types))]
        casts = [f"CAST({n} AS {EXPORTED[t]})" if t in EXPORTED else n for n, t in zip(names, types)]
        relation = connection.sql(f"SELECT {', '.join(casts)} FROM ({sql}) AS q({', '.join(names)})")
    table = relation.to_arrow_table()
    # Names may occur twice.
    table = table.rename_columns([f"c{i}" for i in range(table.num_columns)])
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def handle(connection, request, read):
    if "tables" in request:
        bodies = [(name, read(size)) for name, size in request["tables"]]
        for name, body in bodies:
            connection.unregister(name)
            connection.register(name, pa.ipc.open_stream(body).read_all())
        return b""
    for sql in request.get("run", []):
        connection.execute(sql)
    return answer(connection, request["query"]) if "query" in request else b""


def main():
    requests, answers = sys.stdin.buffer, sys.stdout.buffer
    connection = duckdb.connect()
    while line := requests.readline():
        request = json.loads(line)
        try:
            body = handle(connection, request, requests.read)
            head = {"bytes": len(body)}
        except Exception as error:  # whatever it is, it is the answer
            head, body = {"error": f"{type(error).__name__}: {error}"}, b""
        answers.write(json.dumps(head).encode() + b"\n" + body)
        answers.flush()


if __name__ == "__main__":
    main()
