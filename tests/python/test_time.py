"""Event time: what a row closes is seen, FLUSH waits for it, a quiet input does not hold the others, and one that is ahead waits for them.

Time that passes: rows go without a word of their input, also when the process was away."""

import datetime
import json
import re
import time

from conftest import Process, Server

PATIENCE = 10


def script(store, *statements):
    commands = [word for statement in statements for word in ("-c", statement)]
    return Process("--store", store, "--format", "json", *commands)


HOURS = """CREATE STREAM {name} AS SELECT window_end AS at, count(*) AS n FROM TUMBLE({source}, at, INTERVAL '1 hour')
    GROUP BY window_start, window_end"""
STORED = "CREATE STREAM s (at TIMESTAMP, v BIGINT, WATERMARK FOR at AS at)"


def rows(process):
    assert process.wait() == 0, process.stderr
    return [json.loads(line) for line in process.lines["stdout"]]


def test_flush_waits_for_what_a_row_closes(store):
    with script(
        store,
        STORED,
        HOURS.format(name="hours", source="s"),
        "CREATE STREAM late AS SELECT at, n * 10 AS n FROM hours WHERE n > 0",
        "INSERT INTO s VALUES (TIMESTAMP '2020-01-01 00:01:00', 1)",
        "FLUSH",
        "INSERT INTO s VALUES (TIMESTAMP '2020-01-01 01:01:00', 2)",
        "FLUSH",
        "SELECT * FROM hours",
        "SELECT n FROM late",
        "INSERT INTO s VALUES (TIMESTAMP '2020-01-01 02:30:00', 2)",
        "FLUSH",
        "SELECT count(*) AS n FROM late",
    ) as process:
        assert rows(process) == [{"at": "2020-01-01T01:00:00", "n": 1}, {"n": 10}, {"n": 2}]


def test_what_a_row_closes_is_committed_without_a_flush(store):
    with script(
        store,
        STORED,
        HOURS.format(name="hours", source="s"),
        "INSERT INTO s VALUES (TIMESTAMP '2020-01-01 00:01:00', 1)",
        "INSERT INTO s VALUES (TIMESTAMP '2020-01-01 01:01:00', 2)",
        "SELECT n FROM hours EMIT CHANGES",
    ) as process:
        process.wait_for('"n":1', patience=PATIENCE)


def followed(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "empty.json").touch()
    (folder / "early.json").write_text(json.dumps({"at": "2020-01-01 00:01:00", "v": 1}) + "\n")
    return folder


def test_a_quiet_file_does_not_hold_the_others(store, tmp_path):
    folder = followed(tmp_path)
    busy = folder / "busy.json"
    with script(
        store,
        f"""CREATE STREAM s (at TIMESTAMP, v BIGINT, WATERMARK FOR at AS at) WITH (connector = 'file',
            path = '{folder}/*.json', format = 'json', follow = true, idle_timeout = '1 second')""",
        HOURS.format(name="hours", source="s"),
        "SELECT n, at FROM hours EMIT CHANGES",
    ) as process:
        for second in range(PATIENCE * 5):
            row = {"at": f"2020-01-01 01:{second // 60 + 5:02}:{second % 60:02}", "v": 2}
            with busy.open("a") as out:
                out.write(json.dumps(row) + "\n")
            time.sleep(0.2)
            if process.lines["stdout"]:
                break
        process.wait_for('"n":1,"at":"2020-01-01T01:00:00"', patience=PATIENCE)


def test_a_watermark_that_nothing_acts_on_is_shown(store, tmp_path):
    with script(
        store,
        STORED,
        f"CREATE STREAM out WITH (connector = 'file', path = '{tmp_path}/out.csv') AS SELECT at, v FROM s",
        "INSERT INTO s VALUES (TIMESTAMP '2020-01-01 00:05:00', 1)",
        "FLUSH",
        "EXPLAIN ANALYZE STREAM out",
    ) as process:
        plan = [row["plan"] for row in rows(process)]
        assert any(line.startswith("watermark: 2020-01-01 00:05:00") for line in plan), plan


def test_a_history_that_is_ahead_waits_for_the_other(store):
    mark, events = "WATERMARK FOR date_time AS date_time - INTERVAL '4 seconds'", 4_000_000
    table = lambda name, of, more: f"CREATE STREAM {name} ({mark}) WITH (connector = 'nexmark', \"table\" = '{of}', events = {events}{more})"
    joined = lambda auctions: (
        f"SELECT a.id, b.price FROM {auctions} a JOIN bids b ON a.id = b.auction "
        "AND b.date_time BETWEEN a.date_time AND a.date_time + INTERVAL '10 seconds'"
    )
    with Server(store, "--parallelism", "2") as server, server.connect() as connection, connection.cursor() as cursor:
        cursor.execute(table("bids", "bid", ""))
        cursor.execute(table("auctions", "auction", ""))
        cursor.execute(table("slow", "auction", f", pace = {events // 4}"))
        cursor.execute(f"CREATE STREAM near AS {joined('slow')}")
        apart = []
        while True:
            cursor.execute("EXPLAIN ANALYZE STREAM near")
            plan = "\n".join(row[0] for row in cursor.fetchall())
            read = {name: int(n) for name, n in re.findall(r"scan \d x2: (bids|slow) .*?\| in (\d+)", plan)}
            slow = read["slow"] / (events * 3 / 50)
            if slow > 0.8:
                break
            apart.append(read["bids"] / (events * 46 / 50) - slow)
            time.sleep(0.05)
        # Alone they would all have been read in a part of that time.
        assert len(apart) > 10 and max(apart[5:]) < 0.4, apart
        cursor.execute("FLUSH")
        cursor.execute("EXPLAIN ANALYZE STREAM near")
        assert "late rows: 0" in "\n".join(row[0] for row in cursor.fetchall())
        cursor.execute("SELECT count(*), sum(price) FROM near")
        found = cursor.fetchall()
        cursor.execute(f"SELECT count(*), sum(price) FROM ({joined('auctions')})")
        assert found == cursor.fetchall()
        assert found[0][0] > 100_000


def seen(server, query):
    with server.connect() as connection, connection.cursor() as cursor:
        cursor.execute(query)
        return cursor.fetchall()


def test_rows_go_and_come_as_time_passes(store):
    server = Server(store)
    now = datetime.datetime.now(datetime.UTC).replace(tzinfo=None)
    at = [(now + datetime.timedelta(seconds=seconds)).isoformat(" ") for seconds in (-60, 2, 12, 3600)]
    rows = ", ".join(f"({i}, TIMESTAMP '{time}')" for i, time in enumerate(at))
    with server.connect() as connection, connection.cursor() as cursor:
        cursor.executescript("CREATE STREAM s (id BIGINT, at TIMESTAMP)")
        cursor.executescript("CREATE STREAM lately AS SELECT id FROM s WHERE at > now() - INTERVAL '2 seconds'")
        cursor.executescript("CREATE STREAM due AS SELECT count(*) AS n FROM s WHERE at <= now()")
        cursor.executescript(f"INSERT INTO s VALUES {rows}")
        cursor.executescript("FLUSH")
        cursor.execute("EXPLAIN STREAM lately")
        assert "state bounded by now()" in str(cursor.fetchall())
    assert sorted(seen(server, "SELECT id FROM lately")) == [(1,), (2,), (3,)]
    assert seen(server, "SELECT n FROM due") == [(1,)]
    time.sleep(6)
    assert sorted(seen(server, "SELECT id FROM lately")) == [(2,), (3,)]
    assert seen(server, "SELECT n FROM due") == [(2,)]
    server.kill()
    server = Server(store)
    deadline = time.monotonic() + 30
    # Nothing comes, but time has passed.
    while time.monotonic() < deadline and seen(server, "SELECT id FROM lately") != [(3,)]:
        time.sleep(0.2)
    assert seen(server, "SELECT id FROM lately") == [(3,)]
    assert seen(server, "SELECT n FROM due") == [(3,)]
    assert datetime.datetime.now(datetime.UTC).replace(tzinfo=None) >= now + datetime.timedelta(seconds=14)


def test_an_input_that_has_ended_still_loses_rows(store, tmp_path):
    now = datetime.datetime.now(datetime.UTC).replace(tzinfo=None)
    (tmp_path / "in.csv").write_text(f"id,at\n1,{now}\n2,{now - datetime.timedelta(hours=1)}\n")
    with script(
        store,
        f"CREATE STREAM s (id BIGINT, at TIMESTAMP) WITH (connector = 'file', path = '{tmp_path}/in.csv')",
        "CREATE STREAM lately AS SELECT id FROM s WHERE at > now() - INTERVAL '8 seconds'",
        "FLUSH",
        "SELECT id FROM lately",
        "SELECT id FROM lately EMIT CHANGES",
    ) as process:
        found = rows(process)
    # The followed query ends with the job, when nothing more can go.
    assert [row["id"] for row in found] == [1, 1, 1]
    assert [row.get("_op") for row in found] == [None, "+I", "-D"]
