"""What a changelog adds up to is read from its base and what came since, whatever has happened to the base."""

import contextlib
import json
import shutil
import time

import pytest
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


KEYS = 100
LATEST = "CREATE STREAM latest (id BIGINT, round BIGINT, PRIMARY KEY (id)) WITH ({options})"
DOUBLED = "CREATE OR REPLACE STREAM doubled AS SELECT id, 2 * round AS twice FROM latest"


@contextlib.contextmanager
def life(store):
    """A server's cursor; the server is killed at the end."""
    with Server(store) as server:
        with server.connect() as connection, connection.cursor() as cursor:
            yield cursor
        server.kill()


class Rounds:
    """Writes all keys of `latest` anew, in a commit each time."""

    def __init__(self):
        self.last = -1

    def more(self, cursor, rounds):
        for _ in range(rounds):
            self.last += 1
            cursor.execute(f"INSERT INTO latest SELECT value, {self.last} FROM generate_series(0, {KEYS - 1})")

    def check(self, cursor):
        cursor.execute("FLUSH")
        cursor.execute("SELECT count(*), min(twice), max(twice) FROM doubled")
        assert cursor.fetchone() == (KEYS, 2 * self.last, 2 * self.last)
        cursor.execute("SELECT count(*), min(round), max(round) FROM latest")
        assert cursor.fetchone() == (KEYS, self.last, self.last)


def history(store):
    """(rows, oldest epoch, rows that arrive, what is left of them) of `latest`, as other tools see them."""
    files = [str(store / f["path"]) for f in json.loads((store / "live" / "latest.json").read_text())["files"]]
    weight = "CASE WHEN _op IN ('+I', '+U') THEN 1 ELSE -1 END"
    return duck(f"SELECT count(*), min(_epoch), count(*) FILTER (_op = '+I'), sum({weight})::BIGINT FROM read_parquet($1)", files)[0]


def with_paused_reader(cursor, options):
    """`latest` with these options and some rounds, all of which `doubled` has read when it is paused."""
    rounds = Rounds()
    cursor.execute(LATEST.format(options=options))
    cursor.execute(DOUBLED)
    rounds.more(cursor, 5)
    rounds.check(cursor)
    cursor.execute("PAUSE STREAM doubled")
    return rounds


def test_history_goes_when_nobody_needs_it(store):
    with life(store) as cursor:
        rounds = with_paused_reader(cursor, "retention = '0 s'")
        rounds.more(cursor, 60)
        # One row for each key, then an old and a new one.
        assert history(store)[0] > 2 * 60 * KEYS - 5 * KEYS, "what it has not read stays"
    with life(store) as cursor:
        rounds.more(cursor, 5)
        assert history(store)[0] > 2 * 65 * KEYS - 5 * KEYS, "over a restart too"
        cursor.execute("RESUME STREAM doubled")
        rounds.check(cursor)
        deadline = time.monotonic() + PATIENCE
        while history(store)[0] > 2 * 60 * KEYS:
            assert time.monotonic() < deadline, history(store)
            rounds.more(cursor, 1)
            time.sleep(0.05)
        rows, _, arrived, left = history(store)
        assert left == KEYS and arrived == KEYS, "behind what is left of history stands the content as of then"
        rounds.check(cursor)
        # Who begins now begins there.
        cursor.execute("CREATE STREAM added AS SELECT count(*) AS n, sum(round)::BIGINT AS s FROM latest")
        cursor.execute("FLUSH")
        cursor.execute("SELECT n, s FROM added")
        assert cursor.fetchone() == (KEYS, KEYS * rounds.last)
    with life(store) as cursor:
        rounds.more(cursor, 3)
        rounds.check(cursor)
        cursor.execute("SELECT n, s FROM added")
        assert cursor.fetchone() == (KEYS, KEYS * rounds.last)


def test_a_reader_behind_the_limit_must_be_made_anew(store):
    with life(store) as cursor:
        rounds = with_paused_reader(cursor, "retention = '0 s', retention_limit = '0 s'")
        deadline = time.monotonic() + PATIENCE
        while history(store)[1] < 30:
            assert time.monotonic() < deadline, history(store)
            rounds.more(cursor, 1)
        with pytest.raises(Exception, match='stream "latest" no longer keeps the history behind its row') as told:
            cursor.execute("RESUME STREAM doubled")
        assert "CREATE OR REPLACE STREAM" in str(told.value)
        cursor.execute(DOUBLED)
        rounds.check(cursor)


def test_retention_is_for_changelogs(store):
    for sql, why in [
        ("CREATE STREAM s (a BIGINT) WITH (retention = '1 day');", 'stream "s" only grows: its history is what it holds'),
        ("CREATE STREAM s (a BIGINT, PRIMARY KEY (a)) WITH (retention_limit = '1 day');", 'has option "retention_limit" and no "retention"'),
        ("CREATE STREAM s (a BIGINT, PRIMARY KEY (a)) WITH (retention = '2 days', retention_limit = '1 day');", "is less than its"),
        ("CREATE STREAM s (a BIGINT) WITH (connector = 'datagen', rows = 3, retention = '1 day');", 'stream "s" keeps no rows'),
        ("CREATE STREAM s (a BIGINT) WITH (connector = 'datagen', rows = 3, content_retention = '1 day');", 'stream "s" keeps no rows'),
        ("CREATE STREAM s (a BIGINT, PRIMARY KEY (a)) WITH (content_retention = '1 day');", 'stream "s" changes'),
        ("CREATE STREAM s (a BIGINT) WITH (content_retention = '2 days', retention_limit = '1 day');", 'is less than its "content_retention"'),
        ("CREATE STREAM s (a BIGINT, PRIMARY KEY (a)) WITH (retention = 'long');", "retention"),
    ]:
        assert why in run(store, sql, ok=False).stderr, sql


EVENTS = "CREATE STREAM events (n BIGINT) WITH (content_retention = '3 s', retention_limit = '{limit}')"
SUMS = "CREATE OR REPLACE STREAM sums AS SELECT count(*) AS rows, sum(n)::BIGINT AS s FROM events"


def fill(cursor, numbers):
    cursor.execute(f"INSERT INTO events VALUES {', '.join(f'({n})' for n in numbers)}")
    cursor.execute("FLUSH")


def held(cursor):
    cursor.execute("SELECT n FROM events ORDER BY n")
    return [n for (n,) in cursor.fetchall()]


def forget(cursor, numbers):
    """Rows that are older than that go with a commit; gives the one that was the first to do without the others."""
    time.sleep(3.1)
    deadline = time.monotonic() + PATIENCE
    for n in numbers:
        fill(cursor, [n])
        rows = held(cursor)
        assert rows == list(range(rows[0], n + 1)), "the last rows, without a gap"
        if rows[0] > numbers[0] - 1:
            return n
        assert time.monotonic() < deadline, rows
        time.sleep(0.02)
    raise AssertionError("they stay")


def test_rows_of_a_stream_that_only_grows_go(store):
    with life(store) as cursor:
        cursor.execute(EVENTS.format(limit="1 hour"))
        cursor.execute(SUMS)
        fill(cursor, range(1, 31))
        assert held(cursor) == list(range(1, 31))
        last = forget(cursor, range(31, 500))
        cursor.execute("SELECT rows, s FROM sums")
        assert cursor.fetchone() == (last, last * (last + 1) // 2), "what was made of them stays"
        # Who begins now begins with what there is.
        cursor.execute("CREATE STREAM added AS SELECT count(*) AS rows, min(n) AS least, max(n) AS most FROM events")
        cursor.execute("FLUSH")
        left = held(cursor)
        cursor.execute("SELECT rows, least, most FROM added")
        assert cursor.fetchone() == (len(left), left[0], left[-1])
        files = [str(store / f["path"]) for f in json.loads((store / "live" / "events.json").read_text())["files"]]
        assert duck("SELECT count(*), min(n) FROM read_parquet($1)", files)[0] == (len(left), left[0])
        # What a paused reader has not read stays.
        cursor.execute("PAUSE STREAM sums")
        fill(cursor, range(last + 1, last + 11))
        time.sleep(3.1)
        fill(cursor, range(last + 11, last + 31))
        assert held(cursor)[0] <= last + 1
    with life(store) as cursor:
        assert held(cursor)[-1] == last + 30, "also over a restart"
        cursor.execute("RESUME STREAM sums")
        cursor.execute("FLUSH")
        last += 30
        cursor.execute("SELECT rows, s FROM sums")
        assert cursor.fetchone() == (last, last * (last + 1) // 2), "each row once"
        forget(cursor, range(last + 1, last + 500))


def test_a_reader_of_rows_that_have_gone_is_told(store):
    with life(store) as cursor:
        cursor.execute(EVENTS.format(limit="3 s"))
        cursor.execute(SUMS)
        fill(cursor, range(1, 6))
        cursor.execute("PAUSE STREAM sums")
        fill(cursor, range(6, 9))
        last = forget(cursor, range(9, 500))
        with pytest.raises(Exception, match='stream "events" no longer keeps the rows behind its row 5') as told:
            cursor.execute("RESUME STREAM sums")
        assert "CREATE OR REPLACE STREAM" in str(told.value)
        cursor.execute(SUMS)
        fill(cursor, [last + 1])
        left = held(cursor)
        cursor.execute("SELECT rows, s FROM sums")
        rows, total = cursor.fetchone()
        assert rows >= len(left) and total >= sum(left), "from what there was"
