"""Jobs over nodes: their tasks are spread, move as nodes come and go, and give the same answer as one process, whatever is lost."""

import contextlib
import signal
import time

import pytest
from test_nodes import FAST, OFTEN, Node, execute, folder, leader, place, three, until  # noqa: F401

# Some seconds' worth.
EVENTS, PACE = 1_000_000, 300_000
QUERY = "SELECT auction % 1000 AS k, count(*) AS n, sum(price) AS total, max(url) AS last FROM {} GROUP BY auction % 1000"
# Two cores each, whatever the machine has.
WIDE = ("--parallelism", "2")


def bids(node, events=EVENTS):
    """As they come, and all at once."""
    options = f"connector = 'nexmark', table = 'bid', events = {events}"
    node.ask_sql(f"CREATE STREAM bid WITH ({options}, pace = {PACE})")
    node.ask_sql(f"CREATE STREAM whole WITH ({options})")


def totals(node, name="s", options=""):
    node.ask_sql(f"CREATE STREAM {name} {options} AS {QUERY.format('bid')}")


def tasks(node):
    return {n["node"]: n["tasks"] for n in node.nodes()}


def spread(node, n):
    """Waits until `n` nodes have tasks."""
    return until(lambda: sum(1 for count in tasks(node).values() if count) == n and tasks(node), f"tasks on {n} nodes")


def jobs(node):
    return {job["stream"]: job for job in node.ask_sql("SHOW JOBS")}


def check(node, name="s"):
    """What the stream has in the end is what the query gives in batch."""
    with node.connect() as connection:
        execute(connection, "FLUSH")
        expected = execute(connection, f"{QUERY.format('whole')} ORDER BY k")
        assert len(expected) == 1000
        assert execute(connection, f"SELECT * FROM {name} ORDER BY k") == expected
    assert jobs(node)[name]["state"] == "finished", jobs(node)


def some(node, name="s"):
    """Waits until some of the result is committed, and not all."""
    until(lambda: node.ask_sql(f"SELECT count(*) AS n FROM {name}")[0]["n"] > 0, "a part of the result")
    assert jobs(node)[name]["state"] == "running", "it has ended before"


@contextlib.contextmanager
def joined(place, *args):
    """Three nodes that know one another; the one that leads comes first."""
    with three(place, *args, *WIDE) as nodes:
        until(lambda: all(len(node.nodes()) == 3 for node in nodes), "three nodes")
        yield nodes


@pytest.mark.parametrize("how", ["none", "lz4"])
def test_tasks_are_spread_over_all_nodes(place, how):
    with joined(place, *FAST, "--node-compression", how) as (a, b, c):
        bids(b)
        totals(b, "wide")
        totals(b, "one", "WITH (parallelism = 1)")
        totals(b, "many", "WITH (parallelism = 9)")
        found = spread(c, 3)
        assert set(found) == {a.address, b.address, c.address}
        for name in ("wide", "one", "many"):
            check(c, name)
        until(lambda: not any(tasks(a).values()), "what has ended has no tasks")
        plan = "\n".join(row["plan"] for row in a.ask_sql("EXPLAIN ANALYZE STREAM wide"))
        assert " x6" in plan, "a task for each core"
        for node in (c, b, a):
            assert node.stop() == 0, node.stderr


@pytest.mark.parametrize("how", ["kill", "stop"])
def test_a_job_goes_on_without_a_node_that_is_lost(place, how):
    with joined(place, *FAST) as (a, b, c):
        bids(a)
        totals(a)
        spread(a, 3)
        some(a)
        before, began = jobs(a)["s"]["epoch"], time.monotonic()
        b.kill() if how == "kill" else b.process.send_signal(signal.SIGSTOP)
        until(lambda: jobs(c)["s"]["epoch"] > before + 1 and b.address not in tasks(c), "it goes on")
        print(f"{how} to the next epochs: {time.monotonic() - began:.2f} s")
        if how == "stop":
            b.process.send_signal(signal.SIGCONT)
            until(lambda: len(b.nodes()) == 3, "it is back")
        check(c)
        # One that stands still may be out before the job has noticed, which moves then as it would from one that is drained.
        assert "goes on without a node" in a.stderr or how == "stop" and "a job moves" in a.stderr
        assert "job failed" not in a.stderr


def test_a_leader_that_is_lost_leaves_its_tasks_to_the_others(place):
    with joined(place, *FAST) as (a, b, c):
        bids(a)
        totals(a)
        spread(a, 3)
        some(a)
        a.kill()
        assert until(lambda: leader(b), "another leads") in (b.address, c.address)
        with Node(place, *FAST, *WIDE) as back:
            until(lambda: len(back.nodes()) == 3, "three nodes")
            check(back)


def test_a_node_that_comes_takes_tasks_and_one_that_is_drained_gives_them_back(place):
    with Node(place, *FAST, *WIDE) as a:
        bids(a, events=100_000_000)
        totals(a)
        totals(a, "fixed", "WITH (parallelism = 2)")
        some(a)
        with Node(place, *FAST, *WIDE) as b:
            spread(a, 2)
            assert all(job["state"] == "running" and not job["error"] for job in jobs(a).values()), jobs(a)
            plan = lambda name: "\n".join(row["plan"] for row in a.ask_sql(f"EXPLAIN ANALYZE STREAM {name}"))
            assert " x4" in plan("s") and " x4" not in plan("fixed")
            b.ask_sql(f"DRAIN NODE '{b.address}'")
            assert b.wait() == 0, b.stderr
            assert list(tasks(a)) == [a.address] and tasks(a)[a.address] > 0
            assert "goes on without" not in a.stderr, "it was moved in good order"
        with Node(place, *FAST, *WIDE) as c:
            spread(a, 2)
            # As DRAIN does it.
            assert c.stop() == 0, c.stderr
            assert "goes on without" not in a.stderr, "it was moved in good order"
        bound = a.ask_sql("SELECT sum(n) AS n FROM s")[0]["n"]
        time.sleep(0.5)
        assert a.ask_sql("SELECT sum(n) AS n FROM s")[0]["n"] > bound, "it goes on"


def test_rows_that_are_put_in_at_one_node_are_counted_at_others(place):
    """The bank: accounts that give one another what they have never have more or less in all, at any epoch."""
    with joined(place, *FAST) as (a, b, c):
        a.ask_sql("CREATE STREAM moves (giver BIGINT, taker BIGINT, amount BIGINT)")
        a.ask_sql(
            "CREATE STREAM balances AS SELECT account, sum(amount) AS balance FROM ("
            "SELECT giver AS account, -amount AS amount FROM moves "
            "UNION ALL SELECT taker, amount FROM moves) GROUP BY account"
        )
        spread(a, 3)
        victims = iter((b, None, c))
        for i in range(30):
            rows = ", ".join(f"({(i * j) % 17}, {(i + j) % 13}, {j})" for j in range(20))
            a.ask_sql(f"INSERT INTO moves VALUES {rows}")
            if i % 10 == 5 and (victim := next(victims)):
                victim.kill()
            assert not a.ask_sql("SELECT sum(balance) AS s FROM balances")[0]["s"], "an epoch that was not whole"
        a.ask_sql("FLUSH")
        counted = a.ask_sql(
            "SELECT account, sum(amount) AS balance FROM (SELECT giver AS account, -amount AS amount FROM moves "
            "UNION ALL SELECT taker, amount FROM moves) GROUP BY account ORDER BY account"
        )
        assert a.ask_sql("SELECT * FROM balances ORDER BY account") == counted
        until(lambda: list(tasks(a)) == [a.address], "the others are out")


def test_what_is_not_on_other_nodes_is_read_where_it_is(folder, tmp_path):
    """A path of the one that leads means nothing on another machine, unless the statement says so."""
    (tmp_path / "in.csv").write_text("k,v\n" + "".join(f"{i % 10},{i}\n" for i in range(50_000)))
    with joined(folder, *FAST) as (a, b, _):
        for name, more in (("here", ""), ("everywhere", ", shared = true")):
            a.ask_sql(f"CREATE STREAM {name} WITH (connector = 'file', path = '{tmp_path}/in.csv'{more})")
            a.ask_sql(f"CREATE STREAM sums_{name} AS SELECT k, count(*) AS n, sum(v) AS v FROM {name} GROUP BY k")
        a.ask_sql("FLUSH")
        expected = a.ask_sql("SELECT k, count(*) AS n, sum(v) AS v FROM here GROUP BY k ORDER BY k")
        for name in ("here", "everywhere"):
            assert b.ask_sql(f"SELECT * FROM sums_{name} ORDER BY k") == expected


def test_a_node_that_cannot_plan_a_job_gets_no_tasks_and_says_why(folder, tmp_path):
    """Streams that were made from outside are bounded by what each node allows."""
    data = tmp_path / "data"
    data.mkdir()
    (data / "in.csv").write_text("k,v\n" + "".join(f"{i % 10},{i}\n" for i in range(50_000)))
    with Node(folder, *FAST, *WIDE, files=str(data)) as a:
        a.ask_sql(f"CREATE STREAM t WITH (connector = 'file', path = '{data}/in.csv', follow = true)")
        a.ask_sql("CREATE STREAM sums AS SELECT k, count(*) AS n FROM t GROUP BY k")
        with Node(folder, *FAST, *WIDE, files=None) as b:
            state = lambda: {n["node"]: n["state"] for n in a.nodes()}[b.address]
            why = until(lambda: (found := state()).startswith("unfit") and found, "it is not fit")
            assert f'node "{b.address}"' in why and "--files" in why, why
            with Node(folder, *FAST, *WIDE, files=str(data)) as c:
                assert set(spread(a, 2)) == {a.address, b.address, c.address}
                a.ask_sql("FLUSH")
                assert sum(row["n"] for row in a.ask_sql("SELECT * FROM sums")) == 50_000
                assert state() == why and not jobs(a)["sums"]["error"]


def test_a_node_that_does_not_find_what_it_is_to_read_gets_no_tasks(folder, tmp_path):
    """A path that says the same on all nodes does not always do so."""
    for name in ("has", "lacks"):
        (tmp_path / name).mkdir()
    (tmp_path / "has" / "in.csv").write_text("k,v\n" + "".join(f"{i % 10},{i}\n" for i in range(500_000)))
    with Node(folder, *FAST, *WIDE, cwd=tmp_path / "has") as a, Node(folder, *FAST, *WIDE, cwd=tmp_path / "lacks") as b:
        until(lambda: len(a.nodes()) == 2, "two nodes")
        time.sleep(1.5)
        options = "connector = 'file', path = '/proc/self/cwd/in.csv', shared = true"
        a.ask_sql(f"CREATE STREAM t (k BIGINT, v BIGINT) WITH ({options})")
        a.ask_sql("CREATE STREAM sums AS SELECT k, count(*) AS n, sum(v) AS v FROM t GROUP BY k")
        a.ask_sql("FLUSH")
        assert sum(row["n"] for row in a.ask_sql("SELECT * FROM sums")) == 500_000
        state = {n["node"]: n["state"] for n in a.nodes()}[b.address]
        assert state.startswith(f'unfit: node "{b.address}"') and "in.csv" in state, state


def test_a_node_that_is_started_again_at_its_address_is_another(folder):
    """The others may know the one that was there before."""
    slow = ("--node-timeout", "10s", *OFTEN)
    with joined(folder, *slow) as (a, b, c):
        bids(a, events=100_000_000)
        totals(a)
        spread(a, 3)
        for _ in range(2):
            c.kill()
            with Node(folder, *slow, *WIDE, listen=c.address) as c:
                assert spread(a, 3)[c.address] > 0
                epoch = jobs(a)["s"]["epoch"]
                until(lambda: jobs(a)["s"]["epoch"] > epoch + 5, "it goes on")
                assert jobs(a)["s"]["state"] == "running" and not jobs(a)["s"]["error"]


def test_what_is_said_of_a_job_that_moves_holds(folder):
    """Streams that are paused, dropped and replaced while their jobs move are so afterwards."""
    with Node(folder, *FAST, *WIDE) as a:
        bids(a, events=100_000_000)
        names = [f"s{i}" for i in range(8)]
        for name in names:
            totals(a, name)
        some(a, names[-1])
        for round in range(3):
            with Node(folder, *FAST, *WIDE) as b:
                if round:
                    until(lambda: "a job moves" in a.stderr[seen:], "jobs move")
                for name in names[round::3]:
                    a.ask_sql(f"PAUSE STREAM {name}")
                    assert jobs(a)[name]["state"] == "paused"
                replaced = names[(round + 1) % 3]
                a.ask_sql(f"CREATE OR REPLACE STREAM {replaced} AS SELECT count(*) AS n, {round} AS round FROM bid")
                spread(a, 2)
                time.sleep(0.5)
                states = {name: job["state"] for name, job in jobs(a).items()}
                paused = {name for name in names[round::3] if name != replaced}
                assert {name for name, state in states.items() if state == "paused"} == paused, states
                assert set(states.values()) <= {"paused", "running"}, states
                for name in paused:
                    a.ask_sql(f"RESUME STREAM {name}")
                seen = len(a.stderr)
                assert b.stop() == 0, b.stderr
        for name in names:
            a.ask_sql(f"DROP STREAM {name}")
        assert not jobs(a) and not any(tasks(a).values())
