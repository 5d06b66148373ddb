"""Nodes: processes that serve one store answer all clients, replace each other, and lose and double nothing."""

import collections
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
import urllib.request

import adbc_driver_manager
import pyarrow
import pyarrow.flight
import pytest
from buckets import free_port, s3
from certificates import Authority
from conftest import BINARY, PATIENCE, Beside, Process, Server, run
from test_flight import command
from test_http import HttpServer
from test_since import FlightFollower

# More by hand: MILLSTREAM_NODE_FAULTS=100 MILLSTREAM_NODE_SEEDS=1,2,3.
FAULTS = int(os.environ.get("MILLSTREAM_NODE_FAULTS", 5))
SEEDS = [int(seed) for seed in os.environ.get("MILLSTREAM_NODE_SEEDS", "1").split(",")]
OFTEN = ("--checkpoint-interval", "100ms")
FAST = ("--node-timeout", "500ms", *OFTEN)
# Where a lease that is waited for shows; it is four fifths of the time.
SLOW, LEASE = ("--node-timeout", "10s", *OFTEN), 8

ORDERS = """
CREATE STREAM orders (id BIGINT, customer TEXT, amount BIGINT);
CREATE STREAM totals AS SELECT customer, count(*) AS n, sum(amount) AS total FROM orders GROUP BY customer;
"""


class Node(HttpServer):
    """`millstream serve` with HTTP. Where it serves a bucket, it is on a machine of its own, which sees no others' processes."""

    count = 0

    def __init__(self, place, *args, **options):
        environment = place.environment
        if place.folder is not None:
            Node.count += 1
            there = place.folder / f"machine-{Node.count}"
            there.mkdir()
            environment = environment | {"TMPDIR": str(there)}
        super().__init__(place.store, *args, env=environment, **options)

    def ask_sql(self, sql):
        with self.connect() as connection:
            return execute(connection, sql)

    def nodes(self):
        return self.ask_sql("SHOW NODES")


class Place:
    """A store that nodes share. `folder`: where machines of a bucket's nodes have their temporary files."""

    def __init__(self, store, environment, folder=None):
        self.store, self.environment, self.folder = store, environment, folder


@pytest.fixture(params=["folder", "bucket"])
def place(request, tmp_path):
    if request.param == "folder":
        yield Place(tmp_path / "store", os.environ)
    else:
        with s3("lake") as bucket:
            yield Place("s3://lake/shop", bucket.environment, tmp_path)


@pytest.fixture
def folder(tmp_path):
    return Place(tmp_path / "store", os.environ)


@contextlib.contextmanager
def three(place, *args):
    """The one that leads comes first."""
    with Node(place, *args) as a, Node(place, *args) as b, Node(place, *args) as c:
        yield a, b, c


def execute(connection, sql):
    with connection.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetch_arrow_table().to_pylist()


def create(node):
    for statement in ORDERS.split(";")[:2]:
        node.ask_sql(statement)


def values(ids):
    return ", ".join(f"({i}, 'c{i % 7}', {i * i})" for i in ids)


def expected(n):
    found = collections.Counter(f"c{i % 7}" for i in range(n))
    return {c: (count, sum(i * i for i in range(n) if f"c{i % 7}" == c)) for c, count in found.items()}


def check(node, n):
    with node.connect() as connection:
        execute(connection, "FLUSH")
        assert [r["id"] for r in execute(connection, "SELECT id FROM orders ORDER BY id")] == list(range(n))
        totals = execute(connection, "SELECT * FROM totals")
        assert {r["customer"]: (r["n"], int(r["total"])) for r in totals} == expected(n)


def until(done, what, patience=PATIENCE):
    """Waits until `done()` gives something, which may fail before."""
    ends, last = time.monotonic() + patience, None
    while True:
        try:
            last = done()
            if last:
                return last
        except (adbc_driver_manager.Error, OSError, pyarrow.ArrowException) as e:
            last = e
        assert time.monotonic() < ends, (what, last)
        time.sleep(0.02)


def leader(node):
    (found,) = [n["node"] for n in node.nodes() if n["leader"]]
    return found


class Writer(Beside):
    """Puts rows in at a node, one batch at a time, and again where it is not told that they are there: by what is there."""

    def __init__(self, nodes):
        super().__init__()
        self.nodes, self.acknowledged, self.longest, self.failures = nodes, 0, 0, 0

    def step(self):
        began, first = time.monotonic(), self.acknowledged
        rows, failed = values(range(first, first + 5)), False
        count = lambda connection: execute(connection, "SELECT count(*) AS n FROM orders")[0]["n"]
        while True:
            node = self.nodes[self.failures % len(self.nodes)]
            try:
                with node.connect() as connection:
                    found = count(connection)
                    if found == first and failed:
                        # What was under way may still come to be there.
                        time.sleep(0.3)
                        found = count(connection)
                    assert found in (first, first + 5), (found, first)
                    if found == first:
                        execute(connection, f"INSERT INTO orders VALUES {rows}")
                break
            except (adbc_driver_manager.Error, OSError):
                failed, self.failures = True, self.failures + 1
                assert time.monotonic() < began + PATIENCE, "nobody takes rows"
                time.sleep(0.02)
        self.acknowledged = first + 5
        self.longest = max(self.longest, time.monotonic() - began)

    def end(self):
        super().end()
        return self.acknowledged


def test_any_node_answers_any_client(place):
    with three(place, *FAST) as (a, b, c):
        create(b)
        found = until(lambda: len(c.nodes()) == 3 and c.nodes(), "three nodes")
        assert [n["node"] for n in found if n["leader"]] == [a.address]
        assert {n["node"] for n in found} == {a.address, b.address, c.address}
        assert all(n["cores"] >= 1 and n["version"] and n["state"] == "live" and n["memory_limit"] > 0 for n in found)
        assert sum(n["tasks"] for n in found) >= 2
        assert list(found[0]) == ["node", "leader", "cores", "tasks", "memory", "memory_limit", "since", "version", "state"]
        # Statements, prepared ones with parameters, bulk ingestion, and HTTP: each by a node that does not lead.
        b.ask_sql(f"INSERT INTO orders VALUES {values(range(10))}")
        with b.connect() as connection, connection.cursor() as cursor:
            cursor.execute("SELECT id FROM orders WHERE id < ? ORDER BY id", parameters=(3,))
            assert cursor.fetchall() == [(0,), (1,), (2,)]
            rows = pyarrow.table({"id": range(10, 20), "customer": [f"c{i % 7}" for i in range(10, 20)], "amount": [i * i for i in range(10, 20)]})
            assert cursor.adbc_ingest("orders", rows, mode="append") == 10
            # A session is one's own.
            cursor.execute("SET parallelism = 3")
            cursor.execute("SHOW parallelism")
            assert cursor.fetchone()[1] == "3"
        with b.connect() as connection:
            assert execute(connection, "SHOW parallelism")[0]["value"] != "3"
        c.post("orders", [{"id": i, "customer": f"c{i % 7}", "amount": i * i} for i in range(20, 30)])
        for node in (a, b, c):
            check(node, 30)
            with urllib.request.urlopen(f"http://127.0.0.1:{node.port}/healthz") as answer:
                assert json.loads(answer.read()) == {"status": "alive"}
        # What is wrong is told as the one that leads tells it.
        with pytest.raises(adbc_driver_manager.Error, match='column "nothing"|nothing'):
            b.ask_sql("SELECT nothing FROM orders")
        status, _, body = c.ask("GET", "/streams/none")
        assert status == 404 and b"none" in body
        curl = subprocess.run(
            ["curl", "-sS", "--data-binary", "SELECT max(id) AS m FROM orders", "-H", "Content-Type: text/plain", f"http://127.0.0.1:{c.port}/sql"],
            capture_output=True, text=True, timeout=PATIENCE,
        )
        assert '29' in curl.stdout, curl
        for node in (c, b, a):
            assert node.stop() == 0, node.stderr


def test_a_large_result_and_a_large_ingest_pass_through(folder):
    """Far more than what is under way on a connection at a time."""
    with Node(folder, *FAST) as a, Node(folder, *FAST) as b:
        b.ask_sql("CREATE STREAM wide (id BIGINT, text TEXT)")
        n, text = 200_000, "x" * 200
        batches = [pyarrow.record_batch({"id": range(i, i + 10_000), "text": [text] * 10_000}) for i in range(0, n, 10_000)]
        with b.connect() as connection, connection.cursor() as cursor:
            reader = pyarrow.RecordBatchReader.from_batches(batches[0].schema, batches)
            assert cursor.adbc_ingest("wide", reader, mode="append") == n
            cursor.execute("SELECT id, text FROM wide")
            table = cursor.fetch_arrow_table()
            assert table.num_rows == n and sorted(table["id"].to_pylist()) == list(range(n))
        # Many that are not read hold nobody up.
        with pyarrow.flight.connect(f"grpc://{b.address}") as client:
            tickets = [client.get_flight_info(command("SELECT id, text FROM wide")).endpoints[0].ticket for _ in range(8)]
            waiting = [client.do_get(ticket) for ticket in tickets]
            info = client.get_flight_info(command("SELECT count(*) AS n FROM wide"))
            assert client.do_get(info.endpoints[0].ticket).read_all().to_pydict() == {"n": [n]}
            assert all(reader.read_all().num_rows == n for reader in waiting)
        assert b.stop() == 0 and a.stop() == 0


def test_an_ingest_that_breaks_off_on_the_way_puts_nothing_in(folder):
    with Node(folder, *FAST) as a, Node(folder, *FAST) as b:
        b.ask_sql("CREATE STREAM wide (id BIGINT)")
        client = f"""
import time
import adbc_driver_flightsql.dbapi as flightsql, pyarrow

def batches():
    for i in range(5):
        yield pyarrow.record_batch({{"id": range(i * 1000, i * 1000 + 1000)}})
    print("sent", flush=True)
    time.sleep(60)

with flightsql.connect("grpc://{b.address}", autocommit=True) as connection, connection.cursor() as cursor:
    schema = pyarrow.schema([("id", pyarrow.int64())])
    cursor.adbc_ingest("wide", pyarrow.RecordBatchReader.from_batches(schema, batches()), mode="append")
"""
        with subprocess.Popen([sys.executable, "-c", client], stdout=subprocess.PIPE) as process:
            assert process.stdout.readline() == b"sent\n"
            time.sleep(0.3)
            # It has not said that this was all.
            process.kill()
        time.sleep(0.5)
        b.ask_sql("INSERT INTO wide VALUES (7)")
        assert a.ask_sql("SELECT id FROM wide") == [{"id": 7}]


@pytest.mark.parametrize("timeout", ["500ms", None])
def test_a_leader_that_is_killed_is_replaced_and_nothing_is_lost(place, timeout):
    options = (*(("--node-timeout", timeout) if timeout else ()), *OFTEN)
    with three(place, *options) as (a, b, c):
        create(c)
        writer = Writer([b, c])
        writer.start()
        follower = FlightFollower("SELECT customer, n FROM totals")
        until(lambda: writer.acknowledged >= 20, "rows")
        before = writer.acknowledged
        follower.go_on(b, lambda: follower.position is not None)
        began = time.monotonic()
        a.kill()
        until(lambda: writer.acknowledged > before + 10, "rows after the kill")
        took = time.monotonic() - began
        # On a folder the next one has it at once; elsewhere when the lease is over.
        print(f"kill -9 of the leader to new rows: {took:.2f} s")
        second = leader(b)
        assert second in (b.address, c.address) and leader(c) == second
        until(lambda: len(b.nodes()) == 2, "two nodes")
        n = writer.end()
        for node in (b, c):
            check(node, n)
        # Who followed goes on where it stood.
        answer = sorted((r["customer"], r["n"]) for r in b.ask_sql("SELECT customer, n FROM totals"))
        follower.go_on(c, lambda: follower.has(answer))
        assert follower.rows() == answer and follower.resumes == 2
        # The one that was killed comes back as a node.
        with Node(place, *options) as back:
            until(lambda: len(back.nodes()) == 3, "three nodes again")
            check(back, n)


def test_who_waits_for_a_leader_that_is_lost_is_told_of_the_others(folder):
    with three(folder, *FAST) as (a, b, c):
        create(a)
        until(lambda: len(b.nodes()) == 3, "three nodes")
        with pyarrow.flight.connect(f"grpc://{b.address}") as client:
            info = client.get_flight_info(command("SELECT * FROM orders EMIT CHANGES"))
            reader = client.do_get(info.endpoints[0].ticket)
            time.sleep(0.5)
            a.kill()
            with pytest.raises(pyarrow.flight.FlightUnavailableError) as lost:
                while True:
                    reader.read_chunk()
        assert f'node "{a.address}", which leads, has gone' in str(lost.value), lost.value
        assert b.address in str(lost.value) and c.address in str(lost.value)


def test_a_leader_that_was_stopped_is_fenced_and_joins_anew(place):
    with three(place, *FAST) as (a, b, c):
        create(a)
        writer = Writer([b, c])
        writer.start()
        until(lambda: writer.acknowledged >= 20, "rows")
        a.process.send_signal(signal.SIGSTOP)
        before = writer.acknowledged
        until(lambda: writer.acknowledged > before + 20, "rows without the one that stands still")
        assert leader(b) != a.address
        time.sleep(3)
        a.process.send_signal(signal.SIGCONT)
        # What it says from here on is what the one that leads says.
        a.wait_for("leads no more", "stderr")
        a.wait_for("joined the cluster", "stderr")
        until(lambda: len(a.nodes()) == 3 and leader(a) == leader(b) != a.address, "it is a node again")
        time.sleep(0.5)
        n = writer.end()
        for node in (a, b, c):
            check(node, n)
        shown = a.ask_sql("SELECT count(*) AS n, count(DISTINCT id) AS ids FROM orders")
        assert shown == [{"n": n, "ids": n}]
        assert a.process.poll() is None, "without a restart"
        for node in (c, b, a):
            assert node.stop() == 0, node.stderr


@pytest.mark.parametrize("seed", SEEDS)
def test_faults_drawn_from_a_seed_lose_and_double_nothing(place, seed):
    """Nodes are killed and started again, or stand still for a while, and somebody puts rows in all the time."""
    print(f"seed {seed}")
    chance = random.Random(seed)
    with contextlib.ExitStack() as stack:
        nodes = [stack.enter_context(Node(place, *FAST)) for _ in range(3)]
        create(nodes[0])
        writer = Writer(nodes)
        writer.start()
        until(lambda: writer.acknowledged >= 10, "rows")
        for _ in range(FAULTS):
            i, before = chance.randrange(3), writer.acknowledged
            # Every second fault meets the one that leads.
            if chance.random() < 0.5:
                led = until(lambda: next(leader(n) for n in nodes if n.process.poll() is None), "somebody leads")
                i = next(i for i, n in enumerate(nodes) if n.address == led)
            if chance.random() < 0.5:
                nodes[i].kill()
                time.sleep(chance.uniform(0, 1))
                nodes[i] = stack.enter_context(Node(place, *FAST))
            else:
                nodes[i].process.send_signal(signal.SIGSTOP)
                time.sleep(chance.uniform(0.2, 3))
                nodes[i].process.send_signal(signal.SIGCONT)
            until(lambda: writer.acknowledged > before + 5, "rows after the fault")
        n = writer.end()
        print(f"{n} rows, {writer.failures} calls failed, the longest wait was {writer.longest:.1f} s")
        for node in nodes:
            until(lambda: len(node.nodes()) == 3, "three nodes")
            check(node, n)


def test_a_node_that_was_stopped_is_out_and_comes_back(folder):
    with three(folder, *FAST) as (a, b, c):
        until(lambda: len(a.nodes()) == 3, "three nodes")
        b.process.send_signal(signal.SIGSTOP)
        until(lambda: len(a.nodes()) == 2, "it is out")
        a.wait_for("a node is out", "stderr")
        b.process.send_signal(signal.SIGCONT)
        until(lambda: len(b.nodes()) == 3, "it is back")
        assert leader(b) == a.address


def test_drained_nodes_end_and_the_leader_hands_over(place):
    with three(place, *SLOW) as (a, b, c):
        create(a)
        a.ask_sql(f"INSERT INTO orders VALUES {values(range(10))}")
        until(lambda: len(a.nodes()) == 3, "three nodes")
        with pytest.raises(adbc_driver_manager.Error, match='there is no node "127.0.0.1:1"'):
            c.ask_sql("DRAIN NODE '127.0.0.1:1'")
        # By itself, which does not lead.
        b.ask_sql(f"DRAIN NODE '{b.address}'")
        assert b.wait() == 0, b.stderr
        assert "told to leave" in b.stderr
        assert {n["node"] for n in c.nodes()} == {a.address, c.address}
        began = time.monotonic()
        c.ask_sql(f"DRAIN NODE '{a.address}'")
        until(lambda: leader(c) == c.address, "the next one leads")
        assert time.monotonic() - began < LEASE / 2, "it does not wait until the lease is over"
        assert a.wait() == 0, a.stderr
        check(c, 10)
        c.ask_sql(f"INSERT INTO orders VALUES {values(range(10, 20))}")
        check(c, 20)
        c.ask_sql(f"DRAIN NODE '{c.address}'")
        assert c.wait() == 0, c.stderr


def test_a_process_that_wants_the_store_for_itself_is_told_of_the_leader(place):
    with Node(place, *SLOW) as a:
        create(a)
        refused = run(place.store, "SHOW STREAMS;", ok=False, env=place.environment)
        assert "is open in another process" in refused.stderr and f"--connect grpc://{a.address}" in refused.stderr
        shell = Process("shell", "--store", place.store, "-c", "SHOW STREAMS", env=place.environment)
        assert shell.wait() == 1 and a.address in shell.stderr
        # \nodes in the shell, and DRAIN.
        shown = Process("shell", "--connect", f"grpc://{a.address}", stdin=subprocess.PIPE)
        shown.process.stdin.write("\\nodes\n")
        shown.process.stdin.close()
        assert shown.wait() == 0 and a.address in shown.stdout, (shown.stdout, shown.stderr)
        a.kill()
    # One that was killed on this machine is not waited for.
    began = time.monotonic()
    run(place.store, "SHOW STREAMS;", env=place.environment)
    assert place.folder is not None or time.monotonic() - began < LEASE / 2


def test_a_process_that_has_the_store_for_itself_is_not_joined(folder, tmp_path):
    (tmp_path / "forever.sql").write_text(
        "CREATE STREAM bids (auction BIGINT, date_time TIMESTAMP) WITH (connector = 'nexmark', table = 'bid', events = 60000, pace = 100);"
        "CREATE STREAM n AS SELECT count(*) AS n FROM bids EMIT CHANGES; SELECT * FROM n EMIT CHANGES;"
    )
    with Process("run", tmp_path / "forever.sql", "--store", folder.store) as alone:
        until(lambda: (folder.store / "LOCK").exists() and alone.process.poll() is None, "it runs")
        time.sleep(0.5)
        refused = Process("serve", "--store", folder.store, "--listen", "127.0.0.1:0")
        assert refused.wait() == 1
        assert "is open in another process" in refused.stderr and alone.process.poll() is None, (refused.stderr, alone.stderr)


def lease(store, number, **term):
    """A number of the lease, written by hand."""
    (store / "lease").mkdir(parents=True, exist_ok=True)
    (store / "lease" / f"{number:020}.json").write_text(json.dumps(term))


class Impostor(threading.Thread):
    """Renews a lease as a leader does that is of another build, or set up otherwise."""

    def __init__(self, store, **node):
        super().__init__(daemon=True)
        self.store, self.ends = store, threading.Event()
        self.term = {"holder": "f" * 32, "place": "process 1 on elsewhere", "milliseconds": 400, "kernel": "elsewhere"}
        self.node = {"address": "127.0.0.1:9", "version": "0.0.9", "timeout_milliseconds": 500} | node
        self.number = 0
        self.renew()
        self.start()

    def renew(self):
        self.number += 1
        lease(self.store, self.number, **self.term, node=self.node)

    def run(self):
        while not self.ends.wait(0.1):
            self.renew()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.ends.set()
        self.join()


def refused(store, *args, patience=PATIENCE, **options):
    process = Process("serve", "--store", store, "--listen", "127.0.0.1:0", *args, **options)
    assert process.wait(patience) == 1, process.stderr
    return process.stderr


def version():
    return subprocess.run([BINARY, "--version"], capture_output=True, text=True).stdout.split()[-1]


def test_what_nodes_do_not_agree_in_is_said(folder):
    with Impostor(folder.store):
        said = refused(folder.store)
        assert "version 0.0.9" in said and f"version {version()}" in said and "127.0.0.1:9" in said, said
    with Impostor(folder.store, version=version()):
        said = refused(folder.store, "--node-timeout", "5s")
        assert "5000 ms here, and 500 ms" in said and "--node-timeout 500ms" in said, said
        # One that lives, by its lease, and is not reached.
        said = refused(folder.store)
        assert 'node "127.0.0.1:9" cannot be reached' in said and "refused" in said, said
    # Nobody renews it any more: it is over.
    with Node(folder, *FAST) as a:
        create(a)


def test_a_wrong_cluster_key_is_refused(folder):
    with Node(folder, *FAST) as a:
        create(a)
        key = folder.store / "cluster" / "key"
        assert key.stat().st_mode & 0o777 == 0o600
        right = key.read_text()
        key.write_text("0" * 64)
        said = refused(folder.store, *FAST)
        assert f'node "{a.address}" is of a cluster with another key' in said, said
        key.write_text("short")
        assert "holds no key of a cluster" in refused(folder.store, *FAST)
        key.write_text(right)
        with Node(folder, *FAST) as b:
            until(lambda: len(b.nodes()) == 2, "two nodes")


def test_a_client_is_not_taken_for_a_node(folder):
    with Node(folder, *FAST) as a, pyarrow.flight.connect(f"grpc://{a.address}") as client:
        for header in ([(b"x-millstream-node", b"0" * 64)], [(b"x-millstream-node", b"0" * 64), (b"x-millstream-client", b"10.0.0.1")]):
            options = pyarrow.flight.FlightCallOptions(headers=header)
            with pytest.raises(pyarrow.flight.FlightUnauthenticatedError, match="another key"):
                list(client.do_action(pyarrow.flight.Action("NodeLeave", b'{"name": "x"}'), options))
        # Without a proof it is a client, which knows no such actions.
        for action in ("NodeBeat", "NodeLeave", "NodeName"):
            with pytest.raises(pyarrow.ArrowException, match="no action|unknown|not"):
                list(client.do_action(pyarrow.flight.Action(action, b"{}")))
        forged = pyarrow.flight.FlightCallOptions(headers=[(b"x-millstream-client", b"10.0.0.1")])
        info = client.get_flight_info(command("SELECT 1 AS one"), forged)
        assert client.do_get(info.endpoints[0].ticket, forged).read_all().to_pydict() == {"one": [1]}


@pytest.mark.parametrize(
    ("advertise", "says"),
    [("0.0.0.0:1", "means all addresses"), ("nowhere", "names no port"), ("127.0.0.1:1", "is not reached at")],
)
def test_an_address_that_cannot_be_reached_is_refused(folder, advertise, says):
    said = refused(folder.store, "--advertise", advertise)
    assert says in said and "--advertise HOST:PORT" in said, said


def test_an_address_of_another_is_refused(folder, tmp_path):
    with Node(folder, *FAST) as a:
        said = refused(folder.store, *FAST, "--advertise", a.address)
        assert "another node answers there" in said, said
        other = Place(tmp_path / "other", os.environ)
        with Node(other, *FAST) as b:
            assert len(b.nodes()) == 1 and leader(b) == b.address


def test_a_name_is_advertised(folder):
    port = free_port()
    with Node(folder, *FAST, "--advertise", f"localhost:{port}", listen=f"127.0.0.1:{port}") as a, Node(folder, *FAST) as b:
        assert leader(b) == f"localhost:{port}" and "the one that leads is localhost" in b.stderr, (a.stderr, b.stderr)
        create(b)


def test_users_are_who_they_are_at_any_node(folder):
    run(folder.store, ORDERS + "CREATE USER boss PASSWORD 'a long secret'; GRANT ADMIN ON ALL TO boss;")
    with Node(folder, *FAST) as a, Node(folder, *FAST) as b:
        boss = {"username": "boss", "password": "a long secret"}
        with pytest.raises(adbc_driver_manager.Error):
            b.ask_sql("SELECT * FROM orders")
        with b.connect(**boss) as connection:
            execute(connection, "CREATE USER reader PASSWORD 'another secret'")
            execute(connection, "GRANT READ ON STREAM orders TO reader")
        with b.connect(username="reader", password="another secret") as connection:
            assert execute(connection, "SELECT * FROM orders") == []
            with pytest.raises(adbc_driver_manager.Error, match="(?i)right|denied"):
                execute(connection, f"DRAIN NODE '{a.address}'")
        with pytest.raises(adbc_driver_manager.Error):
            with b.connect(username="boss", password="a wrong one") as connection:
                execute(connection, "SELECT 1")
        with b.connect(**boss) as connection:
            # Who it was, as the node says that the client came, and not the node's own address with another port.
            noted = execute(connection, "SELECT * FROM millstream.audit")
            assert any("127.0.0.1" in str(row) for row in noted)


def test_nodes_speak_tls_and_trust_what_the_store_says(folder, tmp_path):
    authority, clients = Authority(tmp_path, "authority"), Authority(tmp_path, "clients")
    run(folder.store, ORDERS + "CREATE USER visitor; GRANT READ ON STREAM orders TO visitor;")

    def node(name, ca):
        certificate, key = ca.issue(name)
        return Server(folder.store, *FAST, "--tls-cert", certificate, "--tls-key", key, "--tls-client-ca", clients.cert)

    # What nodes show one another must be good enough for any client.
    certificate, key = authority.issue("wrong")
    tls = ("--tls-cert", certificate, "--tls-key", key, "--tls-client-ca", clients.cert)
    said = refused(folder.store, *FAST, *tls)
    assert "--tls-client-ca" in said, said
    with node("a", clients) as a, node("b", clients) as b:
        certificate, key = clients.issue("visitor")
        with Process("shell", "--connect", f"grpc+tls://{b.address}", "--tls-ca", clients.cert, "--tls-cert", certificate,
                     "--tls-key", key, "-c", "SELECT count(*) AS n FROM orders", "-c", "SHOW NODES") as shell:
            assert shell.wait() == 0, shell.stderr
            assert a.address in shell.stdout and b.address in shell.stdout
