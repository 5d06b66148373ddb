"""Statements in batch stay within the budget: what does not fit goes to the disk, or the statement ends and says so."""

import os
import subprocess

import duckdb
from conftest import BINARY, Process

# Bytes of the rows that are sorted, and of the budget.
BYTES = int(os.environ.get("MILLSTREAM_SORTED_BYTES", 500_000_000))
LIMIT = BYTES // 8


def test_a_sort_that_does_not_fit_goes_to_the_disk(store, tmp_path):
    rows, out = BYTES // 125, tmp_path / "sorted.parquet"
    # 7919 has no factor in common with the prime: each number comes once.
    made = f"SELECT value * 7919 % 1000000007 AS x, repeat('x', 100) || value::TEXT AS pad FROM generate_series(1, {rows})"
    command = [BINARY, "--store", store, "--memory-limit", str(LIMIT), "-c", f"COPY ({made} ORDER BY x) TO '{out}'"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    said = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    assert status == 0, said
    found = duckdb.sql(f"SELECT count(*), count(DISTINCT x), sum(length(pad)) > 100 * count(*) FROM '{out}'").fetchall()
    assert found == [(rows, rows, True)]
    disordered = f"SELECT count(*) FROM (SELECT x < lag(x) OVER (ORDER BY file_row_number) AS d FROM read_parquet('{out}', file_row_number = true)) WHERE d"
    assert duckdb.sql(disordered).fetchall() == [(0,)]
    # The result is a fraction of the rows: what was written besides are the rows that did not fit.
    assert usage.ru_oublock * 512 > BYTES, f"{usage.ru_oublock} blocks of 512 bytes"
    assert not store.exists(), "nothing was made in it"


def test_a_join_that_does_not_fit_says_what_to_do(store):
    sql = "SELECT count(*) FROM generate_series(1, 20000000) a JOIN generate_series(1, 20000000) b ON a.value = b.value"
    with Process("--store", store, "--memory-limit", "32MB", "-c", sql, "-c", "SELECT 1 AS one") as process:
        assert process.wait() == 1
        said = process.stderr
    assert "out of memory: HashJoin" in said and "the budget of 32.0 MB is used up" in said and "SET memory_limit" in said, said
