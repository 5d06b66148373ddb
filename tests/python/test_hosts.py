"""A cluster over hosts whose links are cut, with nodes that are killed and stand still, and a store that fails: nothing that was
acknowledged is lost or doubled, no version is wrong, and no job stands still for long."""

import contextlib
import os
import random
import signal
import time

import adbc_driver_manager
import pytest
from buckets import s3
from conftest import PATIENCE, Beside, Server
from hosts import Hosts
from test_nodes import execute, until

# By hand: MILLSTREAM_HOST_FAULTS=200 MILLSTREAM_HOST_SEEDS=1,2,3 MILLSTREAM_HOST_LONG=1 MILLSTREAM_HOST_KINDS='cut,one way'.
FAULTS = int(os.environ.get("MILLSTREAM_HOST_FAULTS", 12))
SEEDS = [int(seed) for seed in os.environ.get("MILLSTREAM_HOST_SEEDS", "1").split(",")]
KINDS = os.environ.get("MILLSTREAM_HOST_KINDS", "kill,stand,cut,one way,store,slow store").split(",")
# How long faults last, in seconds: as long as the defaults are made for, or as long as a second of --node-timeout is.
LONG = "MILLSTREAM_HOST_LONG" in os.environ
TIMEOUT = 5 if LONG else 1
STANDS, CUT = ((1, 30), (1, 20)) if LONG else ((0.2, 4), (0.2, 3))
OPTIONS = ("--insecure", "--parallelism", "2", "--node-timeout", f"{TIMEOUT}s", "--checkpoint-interval", "100ms")

STREAMS = [
    "CREATE STREAM moves (id BIGINT, giver BIGINT, taker BIGINT, amount BIGINT)",
    "CREATE STREAM balances AS SELECT account, sum(amount) AS balance FROM (SELECT giver AS account, -amount AS amount "
    "FROM moves UNION ALL SELECT taker, amount FROM moves) GROUP BY account",
    "CREATE STREAM ids AS SELECT id, count(*) AS n FROM moves GROUP BY id",
    "CREATE STREAM pairs AS SELECT a.id, b.id AS other FROM moves a JOIN moves b ON a.id = b.giver * 1000 + b.taker",
    # Something that goes on by itself, and is read on all nodes.
    "CREATE STREAM bid WITH (connector = 'nexmark', table = 'bid', pace = 20000)",
    "CREATE STREAM prices AS SELECT auction % 100 AS k, count(*) AS n, max(price) AS highest FROM bid GROUP BY auction % 100",
]
BATCH = {
    "balances": STREAMS[1].split(" AS ", 1)[1],
    "ids": STREAMS[2].split(" AS ", 1)[1],
    "pairs": STREAMS[3].split(" AS ", 1)[1],
}


class Node(Server):
    """A node on host `n`, with a folder of its own for what it does not keep."""

    def __init__(self, hosts, n, bucket, folder):
        self.hosts, self.n, self.standing = hosts, n, False
        folder.mkdir(exist_ok=True)
        environment = bucket.environment | {"TMPDIR": str(folder)}
        listen = f"{hosts.address(n)}:31337"
        super().__init__("s3://lake/shop", *OPTIONS, listen=listen, files=None, before=hosts.on(n, []), env=environment)

    def kill(self):
        self.process.kill()
        self.wait()

    def ask_sql(self, sql):
        with self.connect() as connection:
            return execute(connection, sql)


class Cluster:
    def __init__(self, hosts, bucket, folder, stack):
        self.hosts, self.bucket, self.folder, self.stack = hosts, bucket, folder, stack
        self.nodes = {n: self.start(n) for n in (1, 2, 3)}

    def start(self, n):
        return self.stack.enter_context(Node(self.hosts, n, self.bucket, self.folder / f"host-{n}"))

    def ask(self, sql, patience=PATIENCE):
        """The answer of whoever answers."""
        ends, last = time.monotonic() + patience, None
        while time.monotonic() < ends:
            for node in list(self.nodes.values()):
                if node.process.poll() is None and not node.standing:
                    try:
                        limits = {f"adbc.flight.sql.rpc.timeout_seconds.{of}": str(TIMEOUT * 2) for of in ("fetch", "query")}
                        with node.connect(**limits) as connection:
                            return execute(connection, sql)
                    except (adbc_driver_manager.Error, OSError) as e:
                        last = e
            time.sleep(0.05)
        raise AssertionError(f"nobody answers {sql}: {last}")

    def told(self, *what):
        """What there is to say of a failure."""
        logs = [f"node {n}:\n" + "\n".join(node.lines["stderr"][-30:]) for n, node in self.nodes.items()]
        return "\n".join([*map(str, what), str(self.ask("SHOW NODES")), *logs])

    def leader(self):
        return next(n["node"] for n in self.ask("SHOW NODES") if n["leader"])

    def number(self, address):
        return int(address.split(":")[0].rsplit(".", 1)[1])


class Teller(Beside):
    """Moves money from host 0, ten moves a statement, of which it notes whether it was told that they are there."""

    def __init__(self, cluster):
        super().__init__()
        self.cluster, self.statements, self.told = cluster, 0, set()

    def step(self):
        number, self.statements = self.statements, self.statements + 1
        ids = range(number * 10, number * 10 + 10)
        rows = ", ".join(f"({i}, {i % 17}, {i * 7 % 13}, {i % 101})" for i in ids)
        node = list(self.cluster.nodes.values())[number % 3]
        try:
            if node.process.poll() is None and not node.standing:
                with node.connect(**{"adbc.flight.sql.rpc.timeout_seconds.update": "3"}) as connection:
                    execute(connection, f"INSERT INTO moves VALUES {rows}")
                self.told.add(number)
                return
        except (adbc_driver_manager.Error, OSError):
            pass
        # What was under way may come to be there, now or later.
        time.sleep(0.02)


class Fault:
    """What goes wrong, for how long, and how it is mended."""

    def __str__(self):
        return self.text

    def __init__(self, cluster, chance):
        self.cluster, hosts, bucket = cluster, cluster.hosts, cluster.bucket
        n = chance.randrange(1, 4)
        if chance.random() < 0.4:
            n = cluster.number(cluster.leader())
        other = chance.choice([m for m in range(4) if m != n])
        self.kind = chance.choice(KINDS)
        self.lasts = chance.uniform(*(STANDS if self.kind == "stand" else CUT))
        node, self.text = cluster.nodes[n], f"{self.kind} {n}"
        match self.kind:
            case "kill":
                node.kill()
                self.mend = lambda: cluster.nodes.update({n: cluster.start(n)})
            case "stand":
                node.standing = True
                node.process.send_signal(signal.SIGSTOP)

                def go_on():
                    node.process.send_signal(signal.SIGCONT)
                    node.standing = False

                self.mend = go_on
            case "cut":
                hosts.cut(n)
                self.mend = lambda: hosts.mend(n)
            case "one way":
                self.text += f" to {other}"
                hosts.lose(n, other)
                self.mend = lambda: hosts.find(n, other)
            case "store":
                bucket.chance = 0.2
                self.mend = lambda: setattr(bucket, "chance", 0)
            case "slow store":
                # A lease is renewed four times while it lasts.
                bucket.delay = TIMEOUT / 25
                self.mend = lambda: setattr(bucket, "delay", 0)


def epochs(cluster):
    return {job["stream"]: (job["epoch"], job["state"], job["error"]) for job in cluster.ask("SHOW JOBS")}


def check_whole(cluster):
    """At any time what all accounts have is what they began with."""
    (found,) = cluster.ask("SELECT sum(balance) AS s FROM balances")
    assert not found["s"], found


@pytest.mark.parametrize("seed", SEEDS)
def test_faults_between_hosts_lose_and_double_nothing(tmp_path, seed):
    print(f"seed {seed}, {FAULTS} faults")
    chance, longest = random.Random(seed), 0
    with contextlib.ExitStack() as stack:
        hosts = stack.enter_context(Hosts(3))
        bucket = stack.enter_context(s3("lake", seed, hosts.address(0)))
        cluster = Cluster(hosts, bucket, tmp_path, stack)
        for sql in STREAMS:
            cluster.nodes[2].ask_sql(sql)
        until(lambda: sum(1 for n in cluster.ask("SHOW NODES") if n["tasks"]) == 3, "tasks on all nodes")
        teller = Teller(cluster)
        teller.start()
        until(lambda: len(teller.told) >= 3, "moves")
        for _ in range(FAULTS):
            before, told = epochs(cluster), len(teller.told)
            fault = Fault(cluster, chance)
            print(f"{fault.text} for {fault.lasts:.1f} s")
            ends = time.monotonic() + fault.lasts
            while time.monotonic() < ends:
                if fault.kind not in ("cut", "one way"):
                    check_whole(cluster)
                time.sleep(min(0.2, max(0, ends - time.monotonic())))
            fault.mend()
            mended = time.monotonic()
            # Beyond the length of the fault nothing stands still for longer than this.
            patience, last = TIMEOUT + 5, []
            while True:
                now = epochs(cluster)
                behind = [name for name, (epoch, *_) in now.items() if epoch <= before[name][0]]
                if not behind and len(teller.told) > told:
                    break
                last = behind or ["the teller"]
                assert time.monotonic() < mended + patience + (10 if LONG else 5), cluster.told(fault, behind, before, now, teller.wrong)
                time.sleep(0.05)
            took = time.monotonic() - mended
            longest = max(longest, took)
            print(f"  goes on after {took:.1f} s, the last {last}")
            if took > patience:
                print(cluster.told())
            check_whole(cluster)
        teller.end(patience=90)
        lost = teller.statements - len(teller.told)
        print(f"{teller.statements} statements, {lost} not answered; after a fault all went on within {longest:.1f} s")
        until(lambda: len(cluster.ask("SHOW NODES")) == 3, "three nodes")
        node = cluster.nodes[1]
        # One after the other: what was under way is over when this is.
        node.ask_sql(f"INSERT INTO moves VALUES ({teller.statements * 10}, 1, 1, 1)")
        found = {r["b"]: (r["n"], r["ids"]) for r in node.ask_sql(
            "SELECT id / 10 AS b, count(*) AS n, count(DISTINCT id) AS ids FROM moves GROUP BY id / 10"
        )}
        assert found.pop(teller.statements) == (1, 1)
        assert set(found.values()) == {(10, 10)}, "each statement is there once, whole, or not at all"
        assert teller.told <= set(found), "what was acknowledged is there"
        for name, query in BATCH.items():
            expected = sorted(node.ask_sql(query), key=str)
            until(lambda: sorted(node.ask_sql(f"SELECT * FROM {name}"), key=str) == expected, name)
        states = {name: job[1:] for name, job in epochs(cluster).items()}
        assert all(state == ("running", None) for state in states.values()), states
