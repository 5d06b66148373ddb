"""Generated files, read by Millstream and by others: the same rows, or dead letters with the right line."""

import os
import pathlib
import random
import shutil

import pytest
from conftest import duck, parquet, run
from generated_files import Case, folded, normal

FILES = int(os.environ.get("MILLSTREAM_GENERATED_FILES", "200"))
SEED = int(os.environ.get("MILLSTREAM_GENERATED_SEED", random.SystemRandom().randrange(10**9)))
BATCH = 25


def letters(store, stream):
    pattern = f"{store}/jobs/*-{stream}/dead_letters/*.parquet"
    if not list(pathlib.Path(store).glob(f"jobs/*-{stream}/dead_letters/*.parquet")):
        return []
    return duck("SELECT source, position, line, reason FROM read_parquet(?)", pattern)


def stream_rows(store, stream, fields):
    import duckdb

    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        found = connection.execute(f"SELECT * FROM read_parquet('{parquet(store, stream)}')")
        names = [d[0] for d in found.description]
        rows = [dict(zip(names, row)) for row in found.fetchall()]
    for row in rows:
        yield row["id"], {folded(n).lower(): normal(t, row[folded(n)]) for n, t in fields}


def check_declared(case, store, stream):
    expected = case.expected()
    made = list(pathlib.Path(store).glob(f"streams/{stream}/*.parquet"))
    found = dict(stream_rows(store, stream, case.fields)) if made else {}
    dead = letters(store, stream)
    where = f"seed {case.seed} ({case.format}): {case.columns()}"
    for identity in expected.keys() | found.keys():
        assert found.get(identity) == expected.get(identity), f"{where}: row {identity}\n{dead}"
    if case.format == "parquet":
        assert sorted((s, p) for s, p, _, _ in dead) == sorted((str(f), n) for f, n, _ in case.dead), f"{where}\n{dead}"
    else:
        assert sorted((s, n) for s, _, n, _ in dead) == sorted((str(f), n) for f, n, _ in case.dead), f"{where}\n{dead}"


def check_inferred(case, store, stream):
    """What was chosen takes all that is whole, and keeps apart what differs."""
    where = f"seed {case.seed} ({case.format}), inferred"
    dead = letters(store, stream)
    assert not dead, f"{where}: {dead}"
    made = list(pathlib.Path(store).glob(f"streams/{stream}/*.parquet"))
    if not case.rows:
        return
    assert made, where
    found = duck(f"SELECT count(*) FROM read_parquet('{parquet(store, stream)}')")
    assert found == [(len(case.rows),)], where
    for name, t in case.fields:
        if t.kind not in ("BIGINT", "INT", "TIMESTAMP", "DATE", "DECIMAL(20, 4)"):
            continue
        values = {row[name] for row in case.rows.values()} - {None}
        if not values:
            continue
        # written oddly, equal numbers may be several texts, but never may several numbers be one value
        distinct = duck(f"""SELECT count(DISTINCT "{name}") FROM read_parquet('{parquet(store, stream)}')""")
        assert distinct[0][0] >= len(values), f"{where}: {name}"


@pytest.mark.parametrize("first", range(0, FILES, BATCH))
def test_files_are_read_as_others_read_them(store, tmp_path, first):
    cases, files, script = [], 0, []
    seed = SEED + first * 1_000_003
    print(f"MILLSTREAM_GENERATED_SEED={SEED}, from {seed} on")
    while files < min(BATCH, FILES - first):
        case = Case(seed, tmp_path / f"case{len(cases)}")
        stream = f"s{len(cases)}"
        options = f"WITH (connector = 'file', format = '{case.format}', path = '{case.folder}')"
        script.append(f"CREATE STREAM in_{stream} ({case.columns()}) {options};")
        script.append(f"CREATE STREAM {stream} AS SELECT * FROM in_{stream};")
        # broken lines and folders that differ have no types that fit all
        if not case.dead and case.files == 1 and case.rows:
            script.append(f"CREATE STREAM any_{stream} {options};")
            script.append(f"CREATE STREAM inferred_{stream} AS SELECT * FROM any_{stream};")
        cases.append(case)
        files += case.files
        seed += 1
    run(store, "\n".join(script), "--parallelism", 1, patience=300)
    for i, case in enumerate(cases):
        check_declared(case, store, f"s{i}")
        if not case.dead and case.files == 1 and case.rows:
            check_inferred(case, store, f"inferred_s{i}")
    shutil.rmtree(tmp_path, ignore_errors=True)
