"""Streams between two servers that share nothing: read there and written here, across kills of either and cut links."""

import datetime
import gc
import os
import random
import re
import socket
import threading
import time

import adbc_driver_flightsql.dbapi as flightsql
import adbc_driver_manager
import pytest
from conftest import Server, run

OFTEN = ("--checkpoint-interval", "20ms", "--parallelism", "2", "--connect-to", "127.0.0.0/8")
PATIENCE = 60
ROUNDS = int(os.environ.get("MILLSTREAM_ROUNDS", 4))


class Wire:
    """A TCP way to a server which may be another one each time; it can be cut."""

    def __init__(self):
        self.to = None
        self.open = True
        self.pairs = []
        self.carried = 0
        self.flows = threading.Event()
        self.flows.set()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = "127.0.0.1:%d" % self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                near, _ = self.listener.accept()
            except OSError:
                return
            try:
                assert self.open
                host, port = self.to.rsplit(":", 1)
                far = socket.create_connection((host, int(port)), timeout=2)
                far.settimeout(None)
            except (AssertionError, AttributeError, OSError):
                near.close()
                continue
            self.pairs.append((near, far))
            for a, b in ((near, far), (far, near)):
                threading.Thread(target=self._copy, args=(a, b), daemon=True).start()

    def _copy(self, a, b):
        try:
            while piece := a.recv(1 << 16):
                self.flows.wait()
                self.carried += len(piece)
                b.sendall(piece)
        except OSError:
            pass
        for end in (a, b):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def cut(self):
        self.open = False
        for pair in self.pairs:
            for end in pair:
                try:
                    end.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass
        self.pairs = []

    def mend(self):
        self.open = True
        self.flows.set()

    def freeze(self):
        """Nothing comes through any more, and nobody is told."""
        self.flows.clear()


class Site:
    def __init__(self, store):
        self.store = store
        self.server = Server(store, *OFTEN)

    def ask(self, sql):
        with self.server.connect() as connection, connection.cursor() as cursor:
            cursor.execute(sql)
            return cursor.fetchall() if cursor.description else None

    def kill(self):
        self.server.kill()
        self.server = Server(self.store, *OFTEN)

    def expect(self, sql, answer, patience=PATIENCE):
        deadline = time.monotonic() + patience
        while (got := sorted(self.ask(sql))) != answer and time.monotonic() < deadline:
            time.sleep(0.05)
        assert got == answer, f"{len(got)} rows, expected {len(answer)}\n{self.ask('SHOW JOBS')}\n{self.server.stderr}"


@pytest.fixture(autouse=True)
def nothing_is_left_over():
    """What a killed server left half closed ends here, and not in the middle of another test."""
    yield
    gc.collect()


@pytest.fixture
def sites(tmp_path):
    there, here = Site(tmp_path / "there"), Site(tmp_path / "here")
    yield there, here
    there.server.__exit__()
    here.server.__exit__()


def among_faults(there, here, wire, writes):
    """Inserts into `requests` of the site that `writes`, while both are killed and the wire to `there` is cut, at moments from a
    printed seed. Gives the first id that was not tried."""
    seed = int(os.environ.get("MILLSTREAM_SEED", random.randrange(1 << 30)))
    print(f"MILLSTREAM_SEED={seed}")
    chance = random.Random(seed)
    writing, next_id = True, 0

    def write():
        nonlocal next_id
        while writing:
            n = chance.choice([1, 10, 3000])
            first, next_id = next_id, next_id + n
            try:
                writes.ask(f"INSERT INTO requests SELECT value, value % 29 FROM generate_series({first}, {first + n - 1})")
            except (adbc_driver_manager.Error, OSError):
                time.sleep(0.05)

    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    try:
        for _ in range(ROUNDS):
            for what in chance.sample(["there", "here", "cut"], 3):
                time.sleep(chance.uniform(0.1, 0.8))
                if what == "there":
                    there.kill()
                    wire.to = there.server.address
                elif what == "here":
                    here.kill()
                else:
                    wire.cut()
                    time.sleep(chance.uniform(0.1, 1))
                    wire.mend()
    finally:
        writing = False
        writer.join(PATIENCE)
    return next_id


def test_one_row_in_one_row_out_and_changelogs_stay_changelogs(sites):
    there, here = sites
    url = f"grpc://{there.server.address}"
    there.ask("CREATE STREAM requests (id BIGINT, who TEXT, at TIMESTAMP, WATERMARK FOR at AS at - INTERVAL '1 second')")
    there.ask("CREATE STREAM counts AS SELECT who, count(*) AS n FROM requests GROUP BY who")
    there.ask("INSERT INTO requests VALUES (1, 'ann', '2026-11-29 10:00:00')")
    here.ask(f"CREATE STREAM requests WITH (connector = 'flight', url = '{url}', stream = 'requests')")
    here.ask(f"CREATE STREAM counts WITH (connector = 'flight', url = '{url}', stream = 'counts')")
    assert [row[:2] for row in here.ask("DESCRIBE requests")] == [("id", "BIGINT"), ("who", "TEXT"), ("at", "TIMESTAMP")]
    here.ask("CREATE STREAM kept AS SELECT * FROM requests")
    here.ask("CREATE STREAM totals AS SELECT sum(n) AS n, count(*) AS people FROM counts")
    # Event time and its watermark are those of the other side: windows close here.
    here.ask("CREATE STREAM windows AS SELECT window_end, count(*) AS n FROM TUMBLE(requests, at, INTERVAL '1 minute') GROUP BY window_end EMIT ON WINDOW CLOSE")
    here.expect("SELECT id FROM kept", [(1,)])
    for i in range(2, 6):
        there.ask(f"INSERT INTO requests VALUES ({i}, 'bob', '2026-11-29 10:00:{i:02}')")
        here.expect("SELECT id FROM kept", [(n,) for n in range(1, i + 1)], patience=5)
        here.expect("SELECT n, people FROM totals", [(i, 2)], patience=5)
    # Also where it is known before a kill, and nothing comes behind the row that closes a window.
    here.kill()
    there.ask("INSERT INTO requests VALUES (9, 'eve', '2026-11-29 10:02:00')")
    here.expect("SELECT n FROM windows", [(5,)], patience=5)
    for minute in range(4, 24, 2):
        there.ask(f"INSERT INTO requests VALUES (9, 'eve', '2026-11-29 10:{minute:02}:00')")
        here.expect("SELECT max(window_end) FROM windows", [(datetime.datetime(2026, 11, 29, 10, minute - 1),)], patience=5)
    plan = "\n".join(row[0] for row in here.ask("EXPLAIN STREAM kept"))
    assert f'stream "requests" at {url}' in plan, plan


def test_nothing_is_lost_or_doubled_when_either_is_killed_and_the_link_is_cut(sites):
    there, here = sites
    wire = Wire()
    wire.to = there.server.address
    there.ask("CREATE STREAM requests (id BIGINT, g BIGINT)")
    there.ask("CREATE STREAM counts AS SELECT g, count(*) AS n, sum(id) AS s FROM requests GROUP BY g")
    for name in ("requests", "counts"):
        here.ask(f"CREATE STREAM {name} WITH (connector = 'flight', url = 'grpc://{wire.address}', stream = '{name}', max_retry_delay = '200 ms')")
        here.ask(f"CREATE STREAM kept_{name} AS SELECT * FROM {name}")
    among_faults(there, here, wire, writes=there)
    there.ask("FLUSH")
    for name in ("requests", "counts"):
        answer = sorted(there.ask(f"SELECT * FROM {name}"))
        assert len(answer) >= 29
        here.expect(f"SELECT * FROM kept_{name}", answer)


def test_what_is_compressed_takes_fewer_bytes(sites):
    there, here = sites
    there.ask("CREATE STREAM requests (id BIGINT, body TEXT)")
    there.ask("INSERT INTO requests SELECT value, 'a body of which much is the same: ' || (value % 100) FROM generate_series(1, 200000)")
    carried = {}
    for compression in ("none", "lz4", "zstd"):
        wire = Wire()
        wire.to = there.server.address
        here.ask(f"CREATE STREAM r_{compression} WITH (connector = 'flight', url = 'grpc://{wire.address}', stream = 'requests', compression = '{compression}')")
        here.ask(f"CREATE STREAM kept_{compression} AS SELECT * FROM r_{compression}")
        here.expect(f"SELECT count(*), sum(id) FROM kept_{compression}", [(200_000, 20_000_100_000)])
        carried[compression] = wire.carried
    assert here.ask("SELECT count(*) FROM (SELECT * FROM kept_lz4 INTERSECT SELECT * FROM kept_zstd)") == [(200_000,)]
    assert carried["zstd"] < carried["lz4"] < carried["none"] / 2, carried
    # Others ask by the header.
    for compression in ("none", "zstd"):
        wire = Wire()
        wire.to = there.server.address
        header = {"adbc.flight.sql.rpc.call_header.x-arrow-compression": compression}
        with flightsql.connect(f"grpc://{wire.address}", db_kwargs=header, autocommit=True) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT * FROM requests ORDER BY id")
            rows = cursor.fetch_arrow_table()
        carried[compression], texts = wire.carried, rows["body"].to_pylist()
        assert rows["id"].to_pylist() == list(range(1, 200_001)) and texts[41] == "a body of which much is the same: 42"
    assert carried["zstd"] < carried["none"] / 2, carried
    with pytest.raises(adbc_driver_manager.Error, match="none, lz4, zstd"):
        here.ask(f"CREATE STREAM r WITH (connector = 'flight', url = 'grpc://{there.server.address}', stream = 'requests', compression = 'gzip')")


class Behind:
    """The lag of a job, as SHOW JOBS has it."""

    def __init__(self, site, stream):
        self.site, self.stream = site, stream

    def __call__(self):
        with self.site.server.connect() as connection, connection.cursor() as cursor:
            cursor.execute("SHOW JOBS")
            (job,) = [job for job in cursor.fetch_arrow_table().to_pylist() if job["stream"] == self.stream]
            return tuple(job[name] for name in ("lag_rows", "lag_bytes", "lag_seconds", "link"))

    def comes_to(self, expected, patience=PATIENCE):
        deadline = time.monotonic() + patience
        while not expected(*(now := self())) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert expected(*now), f"{now}\n{self.site.server.stderr}"

    def is_gone(self):
        self.comes_to(lambda *now: now == (0, 0, 0.0, "connected"))


def test_lag_grows_while_the_link_is_cut(sites):
    there, here = sites
    wire = Wire()
    wire.to = there.server.address
    there.ask("CREATE STREAM requests (id BIGINT, body TEXT)")
    here.ask(f"CREATE STREAM requests WITH (connector = 'flight', url = 'grpc://{wire.address}', stream = 'requests', max_retry_delay = '100 ms')")
    here.ask("CREATE STREAM kept AS SELECT * FROM requests")
    there.ask("INSERT INTO requests SELECT value, 'body ' || value FROM generate_series(1, 1000)")
    here.expect("SELECT count(*) FROM kept", [(1000,)])
    behind = Behind(here, "kept")
    behind.is_gone()
    wire.cut()
    behind.comes_to(lambda rows, bytes, seconds, link: seconds > 0.5 and re.match("cut for 0 s: .*" + wire.address, link))
    before = behind()[2]
    time.sleep(1)
    behind.comes_to(lambda rows, bytes, seconds, link: seconds > before + 0.9 and re.match("cut for [1-9]", link), patience=5)
    plan = "\n".join(row[0] for row in here.ask("EXPLAIN ANALYZE STREAM kept"))
    assert re.search(r"scan .* lag 0 rows, 0 B, \d+\.\d s, cut for \d s: .*, breaks [1-9]", plan), plan
    there.ask("INSERT INTO requests SELECT value, 'body ' || value FROM generate_series(1001, 3000)")
    wire.mend()
    here.expect("SELECT count(*) FROM kept", [(3000,)])
    behind.is_gone()


def test_a_link_on_which_nothing_comes_is_cut(sites):
    there, here = sites
    wire = Wire()
    wire.to = there.server.address
    there.ask("CREATE STREAM requests (id BIGINT)")
    there.ask("INSERT INTO requests VALUES (1)")
    here.ask(f"CREATE STREAM requests WITH (connector = 'flight', url = 'grpc://{wire.address}', stream = 'requests', max_retry_delay = '100 ms')")
    here.ask("CREATE STREAM kept AS SELECT * FROM requests")
    here.expect("SELECT id FROM kept", [(1,)])
    behind = Behind(here, "kept")
    behind.is_gone()
    time.sleep(7)
    assert behind() == (0, 0, 0.0, "connected"), "there is nothing new, and the other side says so"
    wire.freeze()
    behind.comes_to(lambda rows, bytes, seconds, link: seconds > 1 and re.match("cut for [12] s: nothing was heard of the other side for 5 s", link), patience=15)
    there.ask("INSERT INTO requests VALUES (2)")
    wire.mend()
    here.expect("SELECT id FROM kept", [(1,), (2,)], patience=15)
    behind.is_gone()
    plan = "\n".join(row[0] for row in here.ask("EXPLAIN ANALYZE STREAM kept"))
    assert "breaks 1" in plan, plan


def test_what_is_not_taken_there_is_lag_here(sites):
    """The same of a sink: what is committed here and was not taken."""
    there, here = sites
    wire = Wire()
    wire.to = there.server.address
    there.ask("CREATE STREAM taken (id BIGINT)")
    here.ask("CREATE STREAM requests (id BIGINT)")
    here.ask(f"CREATE STREAM sent WITH (connector = 'flight', url = 'grpc://{wire.address}', stream = 'taken', max_retry_delay = '100 ms') AS SELECT * FROM requests")
    here.ask("INSERT INTO requests VALUES (1)")
    behind = Behind(here, "sent")
    there.expect("SELECT id FROM taken", [(1,)])
    behind.is_gone()
    wire.cut()
    here.ask("INSERT INTO requests SELECT value FROM generate_series(2, 500)")
    behind.comes_to(lambda rows, bytes, seconds, link: rows >= 499 and bytes > 0 and seconds > 0.5 and link.startswith("cut for"))
    wire.mend()
    there.expect("SELECT count(*) FROM taken", [(500,)])
    behind.is_gone()


def test_rows_that_wait_on_both_sides_are_told(sites):
    """Nobody takes what the job sends: what has come waits up to its bound, and the other side says what it has besides."""
    there, here = sites
    there.ask("CREATE STREAM requests (id BIGINT, body TEXT)")
    for i in range(20):
        there.ask(f"INSERT INTO requests SELECT value, 'body ' || value FROM generate_series({i}0000, {i}9999)")
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    listener.close()
    here.ask(f"CREATE STREAM requests WITH (connector = 'flight', url = 'grpc://{there.server.address}', stream = 'requests', buffer_bytes = 100000)")
    here.ask(f"CREATE STREAM sent WITH (connector = 'socket', address = '127.0.0.1:{port}', buffer_bytes = 10000, max_retry_delay = '100 ms') AS SELECT * FROM requests")
    behind = Behind(here, "sent")
    behind.comes_to(lambda rows, bytes, seconds, link: rows >= 180_000 and bytes > 3_000_000 and seconds > 1 and link.startswith("cut for"))
    folder = [f for f in here.store.glob("jobs/*/sources/0") if f.is_dir()]
    assert len(folder) == 1 and list(folder[0].iterdir()) == []
    listener = socket.create_server(("127.0.0.1", port))
    peer, _ = listener.accept()
    read = b""
    while read.count(b"\n") < 200_000:
        assert (piece := peer.recv(1 << 20))
        read += piece
    assert len(set(read.splitlines())) == 200_000
    behind.is_gone()


def test_a_link_that_is_cut_for_long_makes_no_row_late(sites):
    """What the other side says of time counts, and not that nothing is heard of it for longer than a split may be idle."""
    there, here = sites
    wire = Wire()
    wire.to = there.server.address
    there.ask(
        "CREATE STREAM requests (id BIGINT, at TIMESTAMP, WATERMARK FOR at AS at - INTERVAL '5 seconds') WITH (idle_timeout = '1 hour')"
    )
    here.ask(f"CREATE STREAM requests WITH (connector = 'flight', url = 'grpc://{wire.address}', stream = 'requests', max_retry_delay = '200 ms')")
    here.ask("CREATE STREAM windows AS SELECT window_end, count(*) AS n FROM TUMBLE(requests, at, INTERVAL '1 second') GROUP BY window_end EMIT ON WINDOW CLOSE")
    there.ask("INSERT INTO requests VALUES (1, '2026-11-29 10:00:00.5'), (2, '2026-11-29 10:00:03.5')")
    here.ask("CREATE STREAM kept AS SELECT * FROM requests")
    here.expect("SELECT id FROM kept", [(1,), (2,)])
    wire.cut()
    time.sleep(13)
    wire.mend()
    there.ask("INSERT INTO requests VALUES (3, '2026-11-29 10:00:00.6'), (4, '2026-11-29 10:00:20')")
    second = datetime.datetime(2026, 11, 29, 10, 0, 1)
    here.expect("SELECT window_end, n FROM windows", [(second, 2), (second + datetime.timedelta(seconds=3), 1)])


def test_what_does_not_fit_is_told(sites, tmp_path):
    there, here = sites
    url = f"grpc://{there.server.address}"
    there.ask("CREATE STREAM requests (id BIGINT, who TEXT)")

    def refused(sql, message):
        with pytest.raises(adbc_driver_manager.Error, match=message):
            here.ask(sql)

    def create(rest, columns=""):
        return f"CREATE STREAM r {columns} WITH (connector = 'flight', {rest})"

    refused(create(f"url = '{url}', stream = 'nothing'"), 'stream "nothing" does not exist')
    refused(create(f"url = '{url}'"), "does not say what to read")
    refused(create("stream = 'requests'"), "needs option url")
    refused(create(f"url = '{url}', stream = 'requests', user = 'a'"), "user and password belong together")
    refused(create("url = 'grpc://127.0.0.1:1', stream = 'requests'"), "127.0.0.1:1")
    refused(create(f"url = '{url}', query = 'SELECT count(*) FROM requests'"), "cannot be gone on with")
    refused(create(f"url = '{url}', stream = 'requests'", "(id INT)"), 'column "id" as INTEGER, and there it is BIGINT')
    refused(create(f"url = '{url}', stream = 'requests'", "(nope INT)"), 'column "nope", which is not there')
    here.ask(create(f"url = '{url}', query = 'SELECT id FROM requests WHERE id > 5'"))
    here.ask("CREATE STREAM kept AS SELECT * FROM r")
    there.ask("INSERT INTO requests VALUES (1, 'a'), (6, 'b'), (7, 'c')")
    here.expect("SELECT id FROM kept", [(6,), (7,)])
    # Made anew there: what was read is of another one.
    there.ask("DROP STREAM requests")
    there.ask("CREATE STREAM requests (id BIGINT, who TEXT)")
    deadline = time.monotonic() + PATIENCE
    while "failed" not in str(here.ask("SHOW JOBS")) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert re.search('stream "requests" was dropped|made anew', str(here.ask("SHOW JOBS")))
