#!/usr/bin/env bash
# ROAPI 0.12.7 over Flight SQL: a query whose answer has no rows has no columns either.
#
# Clients plan by the columns that are announced, whatever rows there are. ROAPI gives a table of 2 columns for
# `SELECT id, name FROM t WHERE id > 0`, and one of 0 columns for the same query with `id > 100`. Whoever polls such a server
# has to ask for the columns while there are rows.
# Seen: "with rows: 2 rows, 2 columns; without: 0 rows, 0 columns".
set -euo pipefail
folder=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; wait 2>/dev/null || true; rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" -q install roapi==0.12.7 adbc-driver-flightsql==1.13.0 adbc-driver-manager==1.13.0 pyarrow==26.0.1
printf 'id,name\n1,ann\n2,bob\n' >"$folder/t.csv"
port() { python3 -c 'import socket; s = socket.create_server(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
flight=$(port)
cat >"$folder/roapi.yml" <<Y
addr: {http: '127.0.0.1:$(port)', postgres: '127.0.0.1:$(port)', flight_sql: '127.0.0.1:$flight'}
tables: [{name: t, uri: $folder/t.csv}]
Y
"$folder/venv/bin/roapi" -c "$folder/roapi.yml" >"$folder/roapi.log" 2>&1 &
"$folder/venv/bin/python" - "$flight" <<'P'
import sys
import time

import adbc_driver_flightsql.dbapi as flightsql

for _ in range(100):
    try:
        connection = flightsql.connect(f"grpc://127.0.0.1:{sys.argv[1]}", autocommit=True)
        with connection.cursor() as cursor:
            cursor.execute("SELECT id, name FROM t WHERE id > 0")
            some = cursor.fetch_arrow_table()
        break
    except Exception as e:
        last = e
        time.sleep(0.2)
else:
    sys.exit(f"ROAPI does not answer: {last}")
with connection.cursor() as cursor:
    cursor.execute("SELECT id, name FROM t WHERE id > 100")
    none = cursor.fetch_arrow_table()
print(f"with rows: {some.num_rows} rows, {some.num_columns} columns; without: {none.num_rows} rows, {none.num_columns} columns")
if (some.num_rows, some.num_columns, none.num_rows, none.num_columns) != (2, 2, 0, 0):
    sys.exit("ROAPI does otherwise now")
print("as described")
P
