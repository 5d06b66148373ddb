"""Event time: what a row closes is seen, FLUSH waits for it, a quiet input does not hold the others, and one that is ahead waits for them."""

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
