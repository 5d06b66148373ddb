"""kill -9 at random moments, again and again, until the work is done: every result is there, exactly once."""

import random
import time

import adbc_driver_manager
import duckdb
import pyarrow
import pytest
from conftest import Process, Server, parquet, run

SEED = 20240229
KILLS = 20
EVENTS = 4_000_000
# Slow enough that the job outlives the kills.
PACE = 400_000
OFTEN = ("--checkpoint-interval", "50ms")


def script(pace):
    bids = f"connector = 'nexmark', table = 'bid', events = {EVENTS}, rate = 100000" + (f", pace = {PACE}" if pace else "")
    return f"""
CREATE STREAM IF NOT EXISTS bids (auction BIGINT, bidder BIGINT, price BIGINT, extra TEXT, date_time TIMESTAMP,
    WATERMARK FOR date_time AS date_time - INTERVAL '4 seconds') WITH ({bids});

CREATE STREAM IF NOT EXISTS passed AS
SELECT auction, bidder, price, date_time, md5(extra) AS mark FROM bids WHERE price % 8 = 0;

CREATE STREAM IF NOT EXISTS hot AS
SELECT auction % 100 AS lot, window_start, window_end, count(*) AS n, sum(price) AS total, max(bidder) AS last
FROM HOP(bids, date_time, INTERVAL '2 seconds', INTERVAL '10 seconds')
GROUP BY auction % 100, window_start, window_end
EMIT ON WINDOW CLOSE;

CREATE STREAM IF NOT EXISTS hotter AS
SELECT lot, count(*) AS windows, sum(n) AS bids, max(total) AS most FROM hot GROUP BY lot EMIT CHANGES;
"""


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """The results of a run that nobody kills."""
    store = tmp_path_factory.mktemp("expected") / "store"
    run(store, script(pace=False))
    with duckdb.connect() as duck:
        for stream in ("passed", "hot"):
            duck.execute(f"CREATE TABLE {stream} AS FROM read_parquet('{parquet(store, stream)}')")
        assert duck.execute("SELECT count(*) FROM passed").fetchone()[0] > EVENTS // 50
        assert duck.execute("SELECT count(*), count(DISTINCT (lot, window_start)) FROM hot").fetchone()[0] > 0
        duck.execute("CREATE TABLE hotter AS SELECT lot, count(*) AS windows, sum(n) AS bids, max(total) AS most FROM hot GROUP BY lot")
        yield duck


def check_so_far(duck, store):
    """What is there now is a part of the whole, without a row twice."""
    for stream in ("passed", "hot"):
        if not list((store / "streams" / stream).glob("*.parquet")):
            continue
        extra = f"SELECT * FROM read_parquet('{parquet(store, stream)}') EXCEPT ALL SELECT * FROM {stream}"
        extra = duck.execute(f"{extra} LIMIT 3").fetchall()
        assert not extra, f"{stream}: {extra}"


def check_whole(duck, store):
    check_so_far(duck, store)
    for stream in ("passed", "hot"):
        missing = f"SELECT * FROM {stream} EXCEPT ALL SELECT * FROM read_parquet('{parquet(store, stream)}')"
        missing = duck.execute(f"{missing} LIMIT 3").fetchall()
        assert not missing, f"{stream}: {missing}"
    # a changelog adds up to its result
    got = duck.execute(f"""
        SELECT * FROM (
            SELECT lot, windows, bids, most, sum(CASE WHEN _op IN ('+I', '+U') THEN 1 ELSE -1 END) AS times
            FROM read_parquet('{parquet(store, "hotter")}') GROUP BY ALL)
        WHERE times <> 0 ORDER BY lot""").fetchall()
    assert got == duck.execute("SELECT *, 1 FROM hotter ORDER BY lot").fetchall()


def no_orphans(store):
    """After the end nothing lies about but what counts."""
    names = [str(path.relative_to(store)) for path in store.rglob("*") if path.is_file()]
    assert not [name for name in names if "#" in name or "pending" in name], names


def test_run_is_killed(store, tmp_path, expected):
    chance = random.Random(SEED)
    file = tmp_path / "script.sql"
    file.write_text(script(pace=True))
    cut_short = 0
    for _ in range(KILLS):
        with Process("run", file, "--store", store, *OFTEN) as process:
            time.sleep(chance.uniform(0.05, 0.6))
            cut_short += process.process.poll() is None
            process.kill()
        check_so_far(expected, store)
    assert cut_short == KILLS, "the job has to outlive the kills"
    assert list((store / "streams" / "passed").glob("*.parquet")), "something was kept from before the last kill"
    with Process("run", file, "--store", store, *OFTEN) as process:
        assert process.wait(60) == 0, process.stderr
    check_whole(expected, store)
    no_orphans(store)


def test_server_is_killed(store, expected):
    """The same with a server, to which rows are sent meanwhile: what it has acknowledged is there."""
    print(f"seed {SEED}")
    chance = random.Random(SEED + 1)
    acknowledged, in_doubt, sent = [], [], 0
    for life in range(KILLS):
        with Server(store, *OFTEN) as server:
            moment = time.monotonic() + chance.uniform(0.05, 0.6)
            try:
                with server.connect() as connection, connection.cursor() as cursor:
                    if life == 0:
                        moment += 0.3
                        cursor.execute("CREATE STREAM sent (id BIGINT, batch BIGINT)")
                        for statement in script(pace=True).split(";")[:-1]:
                            cursor.execute(statement)
                        cursor.execute("CREATE STREAM counted AS SELECT batch, count(*) AS n, sum(id) AS total FROM sent GROUP BY batch")
                    while time.monotonic() < moment:
                        ids = range(sent, sent + 1000)
                        batch = sent // 1000
                        sent += 1000
                        # from here until the answer, nobody can know
                        in_doubt.append(batch)
                        if moment - time.monotonic() < 0.05:
                            server.process.kill()
                        cursor.adbc_ingest("sent", pyarrow.table({"id": ids, "batch": [batch] * 1000}), mode="append")
                        acknowledged.append(in_doubt.pop())
            except adbc_driver_manager.Error:
                assert server.process.poll() is not None or in_doubt, "only a kill fails a statement"
            server.kill()
        check_so_far(expected, store)
    with Server(store, *OFTEN) as server:
        with server.connect() as connection, connection.cursor() as cursor:
            cursor.execute("FLUSH")
            cursor.execute("SELECT batch, count(*), count(DISTINCT id) FROM sent GROUP BY batch")
            kept = {batch: counts for batch, *counts in cursor.fetchall()}
            cursor.execute("SELECT batch, n, total FROM counted ORDER BY batch")
            counted = cursor.fetchall()
        assert server.stop() == 0, server.stderr
    assert len(acknowledged) >= KILLS
    assert set(acknowledged) <= set(kept) <= set(acknowledged) | set(in_doubt)
    assert all(counts == [1000, 1000] for counts in kept.values()), "each batch whole and once"
    assert counted == [(b, 1000, sum(range(b * 1000, b * 1000 + 1000))) for b in sorted(kept)]
    check_whole(expected, store)
    no_orphans(store)
