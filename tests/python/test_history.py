"""What a changelog adds up to is read from its base and what came since, whatever has happened to the base."""

import json
import shutil
import time

from conftest import PATIENCE, Server, duck, parquet, run, start

GROUPS = 20_000
# Slow enough for many epochs: each takes the rows of most groups back.
SOURCE = """CREATE STREAM src (g BIGINT, v BIGINT) WITH (connector = 'datagen', rows = {rows}, rate = {rate},
    fields.g.max = {groups}, fields.v.max = 1000);
"""
COUNTS = "CREATE STREAM counts AS SELECT g, count(*) AS n, sum(v) AS s, max(v)::TEXT AS t FROM src GROUP BY g EMIT CHANGES;"
ASKED = "SELECT count(*) AS groups, sum(n)::BIGINT AS n, sum(s)::BIGINT AS s, count(DISTINCT t) AS t FROM counts"


def script(rows, rate, groups=GROUPS):
    return SOURCE.format(rows=rows, rate=rate, groups=groups - 1) + COUNTS


def base(store):
    found = list((store / "jobs").glob("*-counts/base/current.json"))
    return json.loads(found[0].read_text()) if found else None


def answer(store):
    """(groups, sum of n, sum of s, distinct t) by this build."""
    shown = run(store, f"{ASKED};").stdout.splitlines()[-1]
    return tuple(int(v) for v in shown.split("│"))


def by_history(store):
    """The same by DuckDB, of all that the stream has ever said."""
    weight = "CASE WHEN _op IN ('+I', '+U') THEN 1 ELSE -1 END"
    standing = f"SELECT g, n, s, t FROM read_parquet('{parquet(store, 'counts')}') GROUP BY ALL HAVING sum({weight}) > 0"
    return duck(f"SELECT count(*), sum(n)::BIGINT, sum(s)::BIGINT, count(DISTINCT t) FROM ({standing})")[0]


def test_a_stream_that_has_ended_is_read_by_its_base(store):
    run(store, script(300_000, 150_000))
    listed = json.loads((store / "live" / "counts.json").read_text())
    found = base(store)
    assert found and found["rows"] == GROUPS and listed["rows"] - found["upto"] < 64 << 10, (found, listed["rows"])
    assert answer(store) == by_history(store)
    # Without it, and with one that is not whole, the answer is the same; the base is made anew.
    folder = next((store / "jobs").glob("*-counts")) / "base"
    shutil.rmtree(folder)
    assert answer(store) == by_history(store)
    assert base(store)["upto"] == listed["rows"]
    (folder / base(store)["file"]).write_bytes(b"PAR1")
    assert answer(store) == by_history(store)
    assert base(store)["upto"] == listed["rows"]
    # The folder for other tools has history, and no base.
    assert len(listed["files"]) == len(list((store / "streams" / "counts").glob("*.parquet")))


def test_a_base_outlives_a_process_that_is_killed(store, tmp_path):
    text = script(2_000_000, 100_000)
    for life in range(3):
        with Server(store) if life else start(store, tmp_path / "script.sql", text) as process:
            before = base(store)
            deadline = time.monotonic() + PATIENCE
            while (now := base(store)) == before or now is None:
                assert time.monotonic() < deadline, "no base is made"
                time.sleep(0.01)
            process.kill()
        with Server(store) as server, server.connect() as connection, connection.cursor() as cursor:
            cursor.execute("PAUSE STREAM counts")
            cursor.execute(ASKED)
            assert cursor.fetchone() == by_history(store), life
            cursor.execute("RESUME STREAM counts")


def test_a_content_larger_than_its_share_is_read_in_passes(store):
    groups = 400_000
    run(store, script(groups, 10_000_000, groups))
    expected = answer(store)
    assert expected == by_history(store)
    shutil.rmtree(next((store / "jobs").glob("*-counts")) / "base", ignore_errors=True)
    process = run(store, f"SELECT count(*) AS groups FROM counts; {ASKED};", "--memory-limit", "64MB")
    assert str(expected[1]) in process.stdout, process.stdout


def test_a_stream_goes_while_its_base_is_made(store):
    with Server(store, "--checkpoint-interval", "20ms") as server, server.connect() as connection, connection.cursor() as cursor:
        for _ in range(4):
            for statement in script(100_000_000, 200_000).split(";\n"):
                cursor.execute(statement)
            time.sleep(1.5)
            cursor.execute(ASKED)
            assert cursor.fetchone()[0] == GROUPS
            cursor.execute("DROP STREAM counts")
            cursor.execute("DROP STREAM src")
            assert not list((store / "jobs").glob("*-counts"))
    assert not list((store / "jobs").glob("*-counts"))
