#!/usr/bin/env bash
# pyarrow 26.0.1: reading a folder while it changes places with another gives rows of neither.
#
# A folder with nine files of a row each and a folder with the same nine rows in two files (one of which both have)
# change places again and again, in one step each (renameat2 with RENAME_EXCHANGE). Every listing of the folder is whole,
# so a reader should find nine rows, or an error where a file that it has listed is gone when it opens it.
# pyarrow.parquet.read_table(folder) does give errors, but in some reads (117 of 1,500 when this was written) it gives
# one row: of the files that it has listed it passes over those that are gone when it asks for their size, without a word.
# Given the paths instead, it gives nine rows or an error. So do DuckDB and polars with a pattern.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet pyarrow==26.0.1
"$folder/env/bin/python" - "$folder" <<'PYTHON'
import collections, ctypes, glob, os, sys, threading, time
import pyarrow, pyarrow.parquet as parquet

many, few = sys.argv[1] + "/many", sys.argv[1] + "/few"
os.mkdir(many), os.mkdir(few)
for i in range(8):
    parquet.write_table(pyarrow.table({"x": [i]}), f"{many}/{i}.parquet")
parquet.write_table(pyarrow.table({"x": list(range(8))}), f"{few}/merged.parquet")
parquet.write_table(pyarrow.table({"x": [8]}), f"{many}/z.parquet")
os.link(f"{many}/z.parquet", f"{few}/z.parquet")

AT_FDCWD, RENAME_EXCHANGE = -100, 2
libc, ended = ctypes.CDLL(None, use_errno=True), threading.Event()


def swap():
    while not ended.is_set():
        assert libc.renameat2(AT_FDCWD, many.encode(), AT_FDCWD, few.encode(), RENAME_EXCHANGE) == 0
        time.sleep(0.0005)


def read(how):
    seen = collections.Counter()
    for _ in range(5000):
        try:
            seen[f"{parquet.read_table(how()).num_rows} rows"] += 1
        except FileNotFoundError:
            seen["file not found"] += 1
        if seen["1 rows"] >= 5:
            break
    return dict(seen)


threading.Thread(target=swap, daemon=True).start()
by_paths, by_folder = read(lambda: glob.glob(f"{many}/*.parquet")), read(lambda: many)
ended.set()
print(f"pyarrow {pyarrow.__version__}, by paths: {by_paths}; by folder: {by_folder}")
assert set(by_paths) <= {"9 rows", "file not found"}, "reading by paths has changed"
assert by_folder.get("1 rows"), "reading by folder has changed: every read was right or failed"
PYTHON
