#!/usr/bin/env bash
# DataFusion 55.0.0: EXCEPT ALL and INTERSECT ALL do not count copies.
#
# The standard takes one copy away for each on the right (EXCEPT ALL), and gives as many as the side that has fewer (INTERSECT ALL); so do
# PostgreSQL and DuckDB. DataFusion plans both as a join that only asks whether there is a match: EXCEPT ALL drops every copy, INTERSECT ALL
# keeps every copy of the left side.
# Seen, for 1, 1, 1, 2 and 1: "EXCEPT ALL: [2], not [1, 1, 2]; INTERSECT ALL: [1, 1, 1], not [1]".
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" -q install datafusion==55.0.0 duckdb==2.0.1
"$folder/venv/bin/python" - <<'P'
import sys

import datafusion
import duckdb

said = []
for operation in ("EXCEPT ALL", "INTERSECT ALL"):
    sql = f"SELECT x FROM (VALUES (1), (1), (1), (2)) a (x) {operation} SELECT y FROM (VALUES (1)) b (y)"
    found = sorted(row["x"] for row in datafusion.SessionContext().sql(sql).to_pylist())
    wanted = sorted(x for (x,) in duckdb.sql(sql).fetchall())
    said.append(f"{operation}: {found}, not {wanted}")
print("; ".join(said))
if said != ["EXCEPT ALL: [2], not [1, 1, 2]", "INTERSECT ALL: [1, 1, 1], not [1]"]:
    sys.exit("DataFusion does otherwise now")
print("as described")
P
