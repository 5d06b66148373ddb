"""A position to go on from: over Flight, as server-sent events and in the shell, across kills of the server and of who follows."""

import collections
import gc
import http.client
import json
import os
import random
import re
import subprocess
import threading
import time

import adbc_driver_manager
import pyarrow
import pyarrow.flight
import pytest
from conftest import Process, Server, run
from test_flight import command
from test_http import HttpServer, events

RESUMES = int(os.environ.get("MILLSTREAM_RESUMES", 30))
KILLS = max(2, RESUMES // 20)
OFTEN = ("--checkpoint-interval", "20ms", "--parallelism", "2")
PATIENCE = 60


class Follower:
    """Puts together what a followed query says, and begins again where it stood."""

    def __init__(self, sql):
        self.sql = sql
        self.content = collections.Counter()
        self.position = None
        self.resumes = 0

    def query(self):
        if self.position is None:
            return f"{self.sql} EMIT CHANGES"
        incarnation, epoch = self.position
        of = f" OF '{incarnation}'" if incarnation else ""
        return f"{self.sql} EMIT CHANGES SINCE EPOCH {epoch}{of}"

    def apply(self, rows):
        changes = collections.Counter()
        for row in rows:
            sign = -1 if row.pop("_op", "+I") in ("-U", "-D") else 1
            changes[tuple(row.values())] += sign
        for row, change in changes.items():
            self.content[row] += change
            # Never a row that is not there, and none twice.
            assert 0 <= self.content[row] <= 1, (row, self.content[row])
            if self.content[row] == 0:
                del self.content[row]

    def rows(self):
        return sorted(self.content)

    def has(self, answer):
        """Whether it has come to `answer`, without a look at each row before there are as many."""
        return len(self.content) == len(answer) and self.rows() == answer


class FlightFollower(Follower):
    def go_on(self, server, until):
        """Follows until `until()`; then, as one that is killed, forgets what was not whole."""
        self.resumes += 1
        with pyarrow.flight.connect(f"grpc://{server.address}") as client:
            reader = client.do_get(client.get_flight_info(command(self.query())).endpoints[0].ticket)
            parts = []
            while not until():
                chunk = reader.read_chunk()
                parts += chunk.data.to_pylist()
                if chunk.app_metadata:
                    note = json.loads(chunk.app_metadata.to_pybytes())
                    self.apply(parts)
                    parts = []
                    assert self.position is None or note["epoch"] >= self.position[1]
                    self.position = (note["incarnation"], note["epoch"])
            reader.cancel()


class EventFollower(Follower):
    """Follows as a browser does: the position is the id of the last event."""

    def __init__(self, sql, path):
        super().__init__(sql)
        self.path = path

    def go_on(self, server, until):
        self.resumes += 1
        rows = []
        for position, row in events(server.port, self.path, self.position):
            rows += [row] if row is not None else []
            if position is not None:
                self.apply(rows)
                self.position, rows = position, []
            if until():
                break


class ShellFollower(Follower):
    def go_on(self, server, until):
        self.resumes += 1
        query = self.query()
        with Process("shell", "--connect", f"grpc://{server.address}", "--format", "json", "-c", query) as shell:
            while not until() and shell.process.poll() is None:
                time.sleep(0.02)
            shell.process.send_signal(subprocess.signal.SIGINT)
            shell.wait()
            said = re.search(r"^SINCE EPOCH (\d+) goes on from here$", shell.stderr, re.MULTILINE)
            if said:
                self.apply([json.loads(line) for line in shell.stdout.splitlines()])
                self.position = (None, int(said.group(1)))


class Site:
    """A server that is killed and comes back, with a writer."""

    def __init__(self, store):
        self.store = store
        self.server = HttpServer(store, *OFTEN)
        self.next = 0
        self.writing = True

    def ask(self, sql):
        with self.server.connect() as connection, connection.cursor() as cursor:
            cursor.execute(sql)
            return cursor.fetchall() if cursor.description else None

    def kill(self):
        self.server.kill()
        self.server = HttpServer(self.store, *OFTEN)

    def write(self):
        while self.writing:
            count = random.choice([1, 5, 400])
            first, self.next = self.next, self.next + count
            try:
                self.ask(f"INSERT INTO readings SELECT value, value % 37, value * 2 FROM generate_series({first}, {first + count - 1})")
            except (adbc_driver_manager.Error, OSError):
                time.sleep(0.05)


@pytest.fixture(autouse=True)
def nothing_is_left_over():
    """What a killed server left half closed ends here, and not in the middle of another test."""
    yield
    gc.collect()


def test_followers_that_are_killed_put_the_answer_together(tmp_path):
    seed = int(os.environ.get("MILLSTREAM_SEED", random.randrange(1 << 30)))
    print(f"MILLSTREAM_SEED={seed}")
    chance = random.Random(seed)
    site = Site(tmp_path / "store")
    site.ask("CREATE STREAM readings (id BIGINT, g BIGINT, x BIGINT)")
    site.ask("CREATE STREAM kept AS SELECT id, x FROM readings WHERE id % 3 <> 0")
    site.ask("CREATE STREAM totals AS SELECT g, count(*) AS n, sum(x) AS s FROM readings GROUP BY g")
    asked = {"kept": "SELECT * FROM kept", "totals": "SELECT g, n, s FROM totals WHERE g <> 5"}
    followers = [
        FlightFollower(asked["kept"]),
        FlightFollower(asked["totals"]),
        EventFollower(asked["kept"], "/streams/kept/changes"),
        EventFollower(asked["totals"], "/streams/totals/changes?where=g%3C%3E5"),
        ShellFollower(asked["kept"]),
    ]
    writer = threading.Thread(target=site.write, daemon=True)
    writer.start()
    try:
        kills = sorted(chance.sample(range(1, RESUMES), KILLS))
        for n in range(RESUMES):
            follower = chance.choice(followers)
            if n in kills:
                threading.Timer(chance.uniform(0, 0.4), site.kill).start()
            end = time.monotonic() + chance.uniform(0.02, 0.6)
            try:
                follower.go_on(site.server, lambda: time.monotonic() > end)
            except (pyarrow.flight.FlightError, pyarrow.lib.ArrowException, http.client.HTTPException, OSError):
                # The server was killed.
                time.sleep(0.2)
            if n in kills:
                time.sleep(1)
        site.writing = False
        writer.join(PATIENCE)
        site.ask("FLUSH")
        for follower in followers:
            answer = sorted(site.ask(follower.sql))
            assert len(answer) > 30
            deadline = time.monotonic() + PATIENCE
            while not follower.has(answer) and time.monotonic() < deadline:
                end = time.monotonic() + 1
                follower.go_on(site.server, lambda: time.monotonic() > end or follower.has(answer))
            missing = set(answer) - set(follower.content)
            assert follower.has(answer), (len(follower.content), len(answer), sorted(missing)[:3])
            print(f"{type(follower).__name__}: {follower.resumes} times from a position, {len(answer)} rows")
    finally:
        site.writing = False
        site.server.__exit__()


def test_what_is_gone_and_what_is_not_yet(tmp_path):
    store = tmp_path / "store"
    with Server(store, *OFTEN) as server, server.connect() as connection, connection.cursor() as cursor:

        def ask(sql):
            cursor.execute(sql)
            return cursor.fetchall() if cursor.description else None

        ask("CREATE STREAM readings (id BIGINT, g BIGINT)")
        ask("CREATE STREAM totals WITH (retention = '1ms') AS SELECT g, count(*) AS n FROM readings GROUP BY g")
        ask("INSERT INTO readings SELECT value, value % 3 FROM generate_series(1, 100)")
        ask("FLUSH")

        def refused(sql, message):
            with pytest.raises(adbc_driver_manager.Error, match=message):
                ask(sql)

        refused("SELECT * FROM readings EMIT CHANGES SINCE EPOCH 99999999", 'stream "readings" has no epoch 99999999 yet: its last one is')
        refused("SELECT * FROM readings EMIT CHANGES SINCE EPOCH 1 OF 'other'", "is not the one of that epoch, but was made anew")
        refused("SELECT g, count(*) FROM readings GROUP BY g EMIT CHANGES SINCE EPOCH 1", "one stored or derived stream, and this one puts rows together")
        refused("SELECT * FROM readings UNION ALL SELECT * FROM totals EMIT CHANGES SINCE EPOCH 1", "this one reads several")
        refused("CREATE STREAM no AS SELECT * FROM readings EMIT CHANGES SINCE EPOCH 1", "is for a SELECT that is followed")
        refused("SELECT * FROM readings EMIT CHANGES WITH SNAPSHOT SINCE EPOCH 1", "begins anew or goes on, not both")
        ask("CREATE STREAM d (id BIGINT) WITH (connector = 'datagen')")
        refused("SELECT * FROM d EMIT CHANGES SINCE EPOCH 1", '"d" is none')
        refused("SELECT * FROM d EMIT CHANGES WITH SNAPSHOT", 'stream "d" has no content of its own to begin with')
        # LIMIT in the middle of an epoch, and at its end.
        with pyarrow.flight.connect(f"grpc://{server.address}") as client:

            def notes(sql):
                reader = client.do_get(client.get_flight_info(command(sql)).endpoints[0].ticket)
                rows, notes = 0, []
                for chunk in reader:
                    rows += chunk.data.num_rows
                    notes += [json.loads(chunk.app_metadata.to_pybytes())] if chunk.app_metadata else []
                return rows, notes

            rows, told = notes("SELECT * FROM readings EMIT CHANGES LIMIT 40")
            assert (rows, told[-1].get("limit"), told[-1]["epoch"]) == (40, True, None)
            rows, told = notes("SELECT * FROM readings EMIT CHANGES LIMIT 100")
            assert (rows, told[-1].get("limit")) == (100, None) and told[-1]["epoch"] > 0
            # The content at once, and the changes behind it.
            ask("INSERT INTO readings SELECT value, value % 3 FROM generate_series(1, 100)")
            ask("FLUSH")
            reader = client.do_get(client.get_flight_info(command("SELECT g, n FROM totals EMIT CHANGES WITH SNAPSHOT")).endpoints[0].ticket)
            chunk = reader.read_chunk()
            content = sorted(tuple(row.values()) for row in chunk.data.to_pylist())
            assert content == [("+I", 0, 66), ("+I", 1, 68), ("+I", 2, 66)]
            position = json.loads(chunk.app_metadata.to_pybytes())
            ask("INSERT INTO readings VALUES (1, 1)")
            chunk = reader.read_chunk()
            assert sorted(tuple(row.values()) for row in chunk.data.to_pylist()) == [("+U", 1, 69), ("-U", 1, 68)]
            reader.cancel()
            # Who follows a stream that is dropped is told.
            ask("CREATE STREAM brief (id BIGINT)")
            ask("INSERT INTO brief VALUES (1)")
            reader = client.do_get(client.get_flight_info(command("SELECT * FROM brief EMIT CHANGES")).endpoints[0].ticket)
            assert reader.read_chunk().data.num_rows == 1
            ask("DROP STREAM brief")
            with pytest.raises((pyarrow.flight.FlightError, pyarrow.lib.ArrowException), match='stream "brief" was dropped'):
                while True:
                    reader.read_chunk()
        # History goes, and who comes too late is told.
        for i in range(40):
            ask(f"INSERT INTO readings SELECT value, value FROM generate_series({i * 1000}, {i * 1000 + 999})")
        ask("FLUSH")
        deadline = time.monotonic() + PATIENCE
        sql = f"SELECT * FROM totals EMIT CHANGES SINCE EPOCH {position['epoch']} OF '{position['incarnation']}' LIMIT 1"
        while time.monotonic() < deadline:
            try:
                ask(sql)
                ask("INSERT INTO readings VALUES (-1, -1)")
                time.sleep(0.05)
            except adbc_driver_manager.Error as e:
                assert "no longer keeps what came behind epoch" in str(e) and "WITH SNAPSHOT" in str(e)
                break
        else:
            pytest.fail("history was kept")


def test_what_is_followed_is_committed_before_its_time(tmp_path):
    """Also what it is made of; and what nobody follows is not."""
    with Server(tmp_path / "store", "--checkpoint-interval", "1 hour") as server, server.connect() as connection, connection.cursor() as cursor:
        cursor.execute("CREATE STREAM readings (id BIGINT)")
        cursor.execute("CREATE STREAM counts AS SELECT id % 3 AS g, count(*) AS n FROM readings GROUP BY id % 3")
        cursor.execute("CREATE STREAM named AS SELECT 'group ' || g AS name, n FROM counts")
        cursor.execute("INSERT INTO readings VALUES (0)")
        time.sleep(1)
        cursor.execute("SELECT count(*) FROM named")
        assert cursor.fetchone() == (0,)
        with pyarrow.flight.connect(f"grpc://{server.address}") as client:
            reader = client.do_get(client.get_flight_info(command("SELECT name, n FROM named EMIT CHANGES")).endpoints[0].ticket)
            assert reader.read_chunk().data.to_pylist() == [{"_op": "+I", "name": "group 0", "n": 1}]
            for n in range(2, 12):
                cursor.execute("INSERT INTO readings VALUES (0)")
                assert {row["n"] for row in reader.read_chunk().data.to_pylist()} == {n - 1, n}
            reader.cancel()


def test_the_shell_says_where_it_stands(tmp_path):
    store = tmp_path / "store"
    made = run(store, "CREATE STREAM s (id BIGINT); INSERT INTO s VALUES (1), (2), (3); SELECT * FROM s EMIT CHANGES LIMIT 3;")
    epoch = re.search(r"SINCE EPOCH (\d+) goes on from here", made.stderr).group(1)
    more = run(store, f"INSERT INTO s VALUES (4), (5); SELECT * FROM s EMIT CHANGES SINCE EPOCH {epoch} LIMIT 1;", "--format", "csv")
    assert more.stdout.splitlines() == ["id", "4"]
    assert "ended within an epoch: not all of its rows are here" in more.stderr
    both = run(store, f"SELECT * FROM s EMIT CHANGES SINCE EPOCH {epoch} LIMIT 2;", "--format", "csv")
    assert both.stdout.splitlines() == ["id", "4", "5"]
    assert re.search(r"SINCE EPOCH \d+ goes on from here", both.stderr)
