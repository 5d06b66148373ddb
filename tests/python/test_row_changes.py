"""DELETE, UPDATE, TRUNCATE and INSERT … ON CONFLICT: each wholly or not at all, one after the other, and derived streams follow."""

import random
import threading
import time

import adbc_driver_manager
import duckdb
import pyarrow
import pytest
from conftest import Process, Server
from test_doors import PASSWORD, add_admin
from test_http import HttpServer

SEED = 20261129
OFTEN = "WITH (checkpoint_interval = '20 ms')"
GROUPED = "SELECT g, count(*) AS n, sum(x)::BIGINT AS total, min(x) AS low, max(y) AS high, count(DISTINCT x) AS xs FROM {} GROUP BY g"


@pytest.fixture
def cursor(server):
    with server.connect() as connection, connection.cursor() as cursor:
        made = []

        def create(name, *sql):
            for one in sql:
                cursor.execute(one)
            made.append(name)

        cursor.create = create
        yield cursor
        for name in reversed(made):
            cursor.execute(f"DROP STREAM IF EXISTS {name} CASCADE")


def rows_of(cursor, sql, *parameters):
    cursor.execute(sql, *parameters)
    return cursor.fetchall()


def count_of(cursor, sql, *parameters):
    cursor.execute(sql, *parameters)
    return cursor.rowcount


def refused(cursor, sql, *words):
    with pytest.raises(adbc_driver_manager.Error) as refused:
        cursor.execute(sql)
    for word in words:
        assert word in str(refused.value), (word, str(refused.value))
    return str(refused.value)


# A statement of ours, and in DuckDB where that differs. Of keyed streams an INSERT replaces what is there.
def keyed_statement(r):
    k, x, g = r.randrange(40), r.randrange(-5, 30), r.choice("abc")
    once = ", ".join(
        f"({k}, '{r.choice('abc')}', {r.randrange(30)}, {r.randrange(9)}.5)" for k in r.sample(range(60), r.randrange(1, 6))
    )
    one = r.choice(
        [
            f"DELETE FROM {{s}} WHERE k = {k}",
            f"DELETE FROM {{s}} WHERE x > {x + 15}",
            f"DELETE FROM {{s}} WHERE x IN (SELECT min(x) FROM {{s}} WHERE g = '{g}')",
            f"DELETE FROM {{s}} USING (VALUES ({k}), ({k + 1}), ({k})) v (i) WHERE {{s}}.k = v.i",
            f"UPDATE {{s}} SET x = x + 1 WHERE g = '{g}'",
            f"UPDATE {{s}} SET x = NULL, y = y * 2 WHERE k BETWEEN {k} AND {k + 5}",
            f"UPDATE {{s}} SET x = (SELECT max(x) FROM {{s}} u WHERE u.g = {{s}}.g) WHERE k = {k}",
            f"UPDATE {{s}} SET (x, g) = ({x}, '{g}') WHERE x = {x}",
            "UPDATE {s} SET k = k + 100 WHERE k < 100 AND k % 7 = 0",
            f"UPDATE {{s}} SET x = v.n FROM (VALUES ({k}, 1), ({k + 1}, 2)) v (i, n) WHERE {{s}}.k = v.i",
            f"INSERT INTO {{s}} VALUES {once} ON CONFLICT DO NOTHING",
            f"INSERT INTO {{s}} VALUES {once} ON CONFLICT (k) DO UPDATE SET x = excluded.x + 1, g = {{s}}.g || ''",
            f"INSERT INTO {{s}} VALUES {once} ON CONFLICT (k) DO UPDATE SET y = {{s}}.y + excluded.y WHERE {{s}}.x < {x}",
            f"INSERT INTO {{s}} SELECT k + 50, g, x, y FROM {{s}} WHERE k < 50 ON CONFLICT (k) DO UPDATE SET x = excluded.x",
        ]
        * 3
        + ["TRUNCATE {s}"]
    )
    if r.random() < 0.3:
        return f"INSERT INTO {{s}} VALUES {once}", f"INSERT OR REPLACE INTO {{s}} VALUES {once}"
    return one, one


def plain_statement(r):
    x, g = r.randrange(10), r.choice("abc")
    some = ", ".join(f"({r.randrange(5)}, '{r.choice('abc')}', {r.randrange(10)}, {r.randrange(3)}.5)" for _ in range(4))
    one = r.choice(
        [
            f"INSERT INTO {{s}} VALUES {some}, {some}",
            "INSERT INTO {s} SELECT * FROM {s} WHERE x < 4",
            f"DELETE FROM {{s}} WHERE x = {x} AND g = '{g}'",
            f"DELETE FROM {{s}} USING (VALUES ({x}), ({x})) v (i) WHERE {{s}}.x = v.i",
            f"UPDATE {{s}} SET x = {x} WHERE g = '{g}' AND k < 3",
            f"UPDATE {{s}} SET k = k + 1 WHERE x = {x}",
            f"UPDATE {{s}} SET y = (SELECT count(*) FROM {{s}}) WHERE x = {x}",
        ]
        * 4
        + ["TRUNCATE {s}", "DELETE FROM {s}"]
    )
    return one, one


@pytest.mark.parametrize("key, statement", [(", PRIMARY KEY (k)", keyed_statement), ("", plain_statement)])
@pytest.mark.parametrize("seed", range(SEED, SEED + 3))
def test_statements_do_what_duckdb_does_and_derived_streams_follow(cursor, key, statement, seed):
    print(f"seed {seed}")
    r, columns = random.Random(seed), "k BIGINT, g TEXT, x BIGINT, y DOUBLE"
    with_changes = "" if key else " WITH (changes = true)"
    cursor.create("s", f"CREATE STREAM s ({columns}{key}){with_changes}")
    cursor.create("by_g", f"CREATE STREAM by_g {OFTEN} AS {GROUPED.format('s')}")
    cursor.create("high", f"CREATE STREAM high {OFTEN} AS SELECT k, x * 2 AS twice FROM s WHERE x > 10")
    with duckdb.connect() as duck:
        duck.execute(f"CREATE TABLE s ({columns}{key})")
        for _ in range(60):
            ours, theirs = (sql.format(s="s") for sql in statement(r))
            try:
                done = duck.execute(theirs).fetchall()[0][0]
            except duckdb.ConstraintException:
                refused(cursor, ours, "two rows with (k)")
                continue
            count = count_of(cursor, ours)
            assert count == done, ours
            cursor.execute("FLUSH")
            for sql, stream in [
                ("SELECT * FROM s", "s"),
                (GROUPED.format("s"), "by_g"),
                ("SELECT k, x * 2 FROM s WHERE x > 10", "high"),
            ]:
                expected = sorted(duck.execute(sql).fetchall(), key=repr)
                assert sorted(rows_of(cursor, f"SELECT * FROM {stream}"), key=repr) == expected, (ours, stream)
        assert duck.execute("SELECT count(*) FROM s").fetchone() is not None


def test_an_update_of_what_is_updated(server, cursor):
    """Increments from several connections at once, with rows that come by other ways between them."""
    cursor.create("counter", "CREATE STREAM counter (id BIGINT, n BIGINT, PRIMARY KEY (id))")
    cursor.create("seen", "CREATE STREAM seen AS SELECT sum(n) AS n, count(*) AS rows FROM counter")
    cursor.execute("INSERT INTO counter VALUES (1, 0)")
    failed = []

    def work(me):
        try:
            with server.connect() as connection, connection.cursor() as mine:
                for i in range(25):
                    assert count_of(mine, "UPDATE counter SET n = n + 1 WHERE id = 1") == 1
                    if i % 5 == 0:
                        rows = pyarrow.table({"id": [1000 * me + i], "n": [0]})
                        assert mine.adbc_ingest("counter", rows, mode="append") == 1
                    sql = "INSERT INTO counter VALUES (2, 1) ON CONFLICT (id) DO UPDATE SET n = counter.n + excluded.n"
                    assert count_of(mine, sql) == 1
        except BaseException as e:
            failed.append(e)

    threads = [threading.Thread(target=work, args=(me,)) for me in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert not failed, failed
    assert rows_of(cursor, "SELECT id, n FROM counter WHERE n > 0 ORDER BY id") == [(1, 100), (2, 100)]
    cursor.execute("FLUSH")
    assert rows_of(cursor, "SELECT * FROM seen") == [(200, 22)]


def test_a_stream_that_is_paused_meanwhile(server, cursor):
    """Whoever waits is told, nothing hangs, and what was acknowledged is there."""
    cursor.create("halted", "CREATE STREAM halted (id BIGINT, n BIGINT, PRIMARY KEY (id))")
    cursor.execute("INSERT INTO halted VALUES (1, 0)")
    done, unsure, ended = [], [], threading.Event()

    def work():
        with server.connect() as connection, connection.cursor() as mine:
            while not ended.is_set():
                try:
                    done.append(count_of(mine, "UPDATE halted SET n = n + 1"))
                except adbc_driver_manager.Error as e:
                    assert "UNAVAILABLE" in str(e) or "halted" in str(e), e
                    unsure.append(e)
                    time.sleep(0.01)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(4):
        time.sleep(0.3)
        cursor.execute("PAUSE STREAM halted")
        time.sleep(0.1)
        cursor.execute("RESUME STREAM halted")
    time.sleep(0.2)
    ended.set()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    ((n,),) = rows_of(cursor, "SELECT n FROM halted")
    assert set(done) == {1} and unsure and len(done) <= n <= len(done) + len(unsure), (n, len(done), len(unsure))


def test_counts_and_parameters(cursor):
    cursor.create("p", "CREATE STREAM p (id BIGINT, name TEXT, d DECIMAL(10, 2), at TIMESTAMP, PRIMARY KEY (id))")
    cursor.executemany("INSERT INTO p (id, name) VALUES (?, ?)", [(i, f"n{i}") for i in range(10)])
    assert count_of(cursor, "UPDATE p SET name = ?, d = ? WHERE id = ?", ["x", "1.25", 3]) == 1
    assert count_of(cursor, "UPDATE p SET at = ? WHERE id > $2", ["2026-01-01", 7]) == 2
    assert rows_of(cursor, "SELECT id, name, d::TEXT FROM p WHERE d IS NOT NULL") == [(3, "x", "1.25")]
    assert count_of(cursor, "DELETE FROM p WHERE id = ? OR name = ?", [0, "n1"]) == 2
    # One statement for each row of parameters.
    cursor.executemany("UPDATE p SET name = ? WHERE id = ?", [("a", 4), ("b", 4), ("c", 5), ("d", 99)])
    assert cursor.rowcount == 3
    upsert = "INSERT INTO p (id, name) VALUES (?, ?) ON CONFLICT (id) DO UPDATE SET name = p.name || excluded.name || ?"
    cursor.executemany(upsert, [(4, "x", "!"), (4, "y", "?"), (100, "z", "!")])
    assert cursor.rowcount == 3
    assert rows_of(cursor, "SELECT id, name FROM p WHERE id IN (4, 5, 100) ORDER BY id") == [(4, "bx!y?"), (5, "c"), (100, "z")]
    cursor.executemany("DELETE FROM p WHERE id = ?", [(4,), (5,), (5,)])
    assert cursor.rowcount == 2
    with pytest.raises(adbc_driver_manager.Error, match="after 1 of 2 rows"):
        cursor.executemany("UPDATE p SET name = (12 / ?)::TEXT WHERE id = 6", [(4,), (0,)])
    assert rows_of(cursor, "SELECT name FROM p WHERE id = 6") == [("3",)]
    assert count_of(cursor, "TRUNCATE p") == 7 and rows_of(cursor, "SELECT * FROM p") == []
    assert count_of(cursor, "DELETE FROM p") == 0


def test_what_is_refused_changes_nothing(cursor):
    cursor.create("e", "CREATE STREAM e (id BIGINT, v BIGINT NOT NULL, t TEXT, PRIMARY KEY (id))")
    cursor.create("grows", "CREATE STREAM grows (a BIGINT)")
    cursor.create("bag", "CREATE STREAM bag (a BIGINT, b BIGINT) WITH (changes = true)")
    cursor.create("follows", "CREATE STREAM follows AS SELECT id, v FROM e")
    cursor.execute("INSERT INTO e VALUES (1, 10, 'a'), (2, 20, 'b'), (3, 30, 'c')")
    before = rows_of(cursor, "SELECT * FROM e ORDER BY id")
    for sql, *words in [
        ("UPDATE e SET id = 2 WHERE id = 1", "two rows with (id) = (2)", "Nothing was changed"),
        ("UPDATE e SET id = 9 WHERE id < 3", "two rows with (id) = (9)"),
        ("UPDATE e SET w = 1", 'no column "w"', "line 1, column 14", "Did you mean"),
        ("UPDATE e SET v = 1, t = NULL, v = 2", 'names column "v" twice', "line 1, column 31"),
        ("UPDATE e SET e.v = 1", "named without its stream"),
        ("UPDATE e SET t = 'x', v = NULL", 'column "v" of stream "e" must not be null', "line 1, column 23"),
        ("UPDATE e SET v = 'x'", "'x' is not a BIGINT", "line 1, column 14"),
        ("UPDATE e SET v = 1.5 WHERE id = 2", "1.5 is not a whole number", "round("),
        ("UPDATE e SET v = v / (id - 2)", "zero"),
        ("UPDATE e SET v = sum(v)", "UPDATE with sum(…)", "(SELECT sum(…)", "line 1, column 18"),
        ("UPDATE e SET v = DEFAULT", "no defaults"),
        ("UPDATE e SET (v, t) = (SELECT 1, 'x')", "several columns at once"),
        ("UPDATE e SET v = 1 LIMIT 2", "LIMIT in UPDATE", "line 1, column 20"),
        ("UPDATE e SET v = u.v FROM e u", "several rows of FROM meet", "(id) = "),
        ("UPDATE e SET id = e.id + 10 * u.id FROM e u WHERE e.id = 1", "several rows of FROM meet", "(id) = (1)"),
        ("UPDATE bag SET a = e.v FROM e", "no PRIMARY KEY", "(SELECT …)"),
        ("UPDATE e JOIN bag ON true SET v = 1", "JOIN in UPDATE", "FROM t"),
        ("UPDATE grows SET a = 1", "only grows", "WITH (changes = true)"),
        ("UPDATE e SET v = 1 RETURNING id", "RETURNING is not supported"),
        ("DELETE FROM e WHERE id = 1 LIMIT 1", "LIMIT in DELETE"),
        ("DELETE FROM e ORDER BY id", "ORDER BY in DELETE"),
        ("DELETE FROM e WHERE id = 1 RETURNING *", "RETURNING"),
        ("DELETE FROM e, bag WHERE true", "several streams"),
        ("DELETE FROM e WHERE idd = 1", "Did you mean id?"),
        ("DELETE FROM e WHERE t", "condition"),
        ("DELETE FROM e WHERE count(*) > 1", "DELETE with count(…)"),
        ("DELETE FROM e USING bag WHERE id = a AND t = nope", "nope"),
        ("DELETE FROM e USING e u WHERE id = 1", "ambiguous"),
        ("DELETE FROM e TABLESAMPLE (10)", "TABLESAMPLE"),
        ("DELETE FROM follows", "is the result of a query", "what it reads"),
        ("DELETE FROM nowhere", "does not exist"),
        ("TRUNCATE follows", "is the result of a query"),
        ("TRUNCATE IF EXISTS e", "IF EXISTS in TRUNCATE"),
        ("TRUNCATE e, bag", "several streams"),
        ("TRUNCATE grows", "only grows"),
        ("INSERT INTO e VALUES (1, 1, 'x') ON CONFLICT (v) DO NOTHING", "the primary key of stream \"e\" is (id)"),
        ("INSERT INTO e VALUES (1, 1, 'x') ON CONFLICT DO UPDATE SET v = 1", "by which columns"),
        ("INSERT INTO e VALUES (1, 1, 'x') ON CONFLICT ON CONSTRAINT k DO NOTHING", "ON CONSTRAINT"),
        ("INSERT INTO e VALUES (1, 1, 'x') ON CONFLICT (id) DO UPDATE SET v = v + 1", "ambiguous"),
        ("INSERT INTO e VALUES (1, 1, 'x') ON CONFLICT (id) DO UPDATE SET id = 7", "Keys are changed by UPDATE"),
        ("INSERT INTO e VALUES (1, 1, 'x'), (1, 2, 'y') ON CONFLICT (id) DO UPDATE SET v = 1", "(id) = (1) twice"),
        ("INSERT INTO e VALUES (8, 1, 'x'), (8, 2, 'y') ON CONFLICT (id) DO UPDATE SET v = 1", "(id) = (8) twice"),
        ("INSERT INTO e VALUES (8, 1, 'x'), (9, NULL, 'y') ON CONFLICT DO NOTHING", "must not be null"),
        ("INSERT INTO e VALUES (1, 1, 'x') ON DUPLICATE KEY UPDATE v = 1", "ON DUPLICATE KEY UPDATE"),
        ("INSERT INTO bag VALUES (1, 1) ON CONFLICT DO NOTHING", "no PRIMARY KEY"),
        ("INSERT INTO e VALUES (1, 1, 'x') RETURNING id", "RETURNING"),
        ("MERGE INTO e USING bag ON true WHEN MATCHED THEN DELETE", "ON CONFLICT"),
    ]:
        refused(cursor, sql, *words)
        assert rows_of(cursor, "SELECT * FROM e ORDER BY id") == before, sql
    refused(cursor, "CREATE STREAM x (a BIGINT, PRIMARY KEY (a)) WITH (changes = false)", "changes = false")
    refused(cursor, "CREATE STREAM x WITH (changes = true) AS SELECT * FROM e", 'option "changes"')
    # What does not apply to a row that is new is not evaluated for it.
    sql = "INSERT INTO e VALUES (7, 0, 'x') ON CONFLICT (id) DO UPDATE SET v = 1 / excluded.v"
    assert count_of(cursor, sql) == 1
    refused(cursor, sql, "zero")


def test_a_stream_is_made_one_that_changes(cursor):
    cursor.create("g", "CREATE STREAM g (a BIGINT)")
    cursor.create("sums", "CREATE STREAM sums AS SELECT sum(a) AS a FROM g")
    # Who reads it was planned for rows that stay.
    refused(cursor, "CREATE OR REPLACE STREAM g (a BIGINT) WITH (changes = true)", "could be taken back", "DROP")
    cursor.execute("DROP STREAM sums")
    cursor.execute("CREATE OR REPLACE STREAM g (a BIGINT) WITH (changes = true)")
    cursor.execute("CREATE STREAM sums AS SELECT sum(a) AS a FROM g")
    cursor.execute("INSERT INTO g VALUES (1), (2), (2), (3)")
    assert count_of(cursor, "DELETE FROM g WHERE a IN (SELECT a FROM g ORDER BY a DESC LIMIT 1) OR a = 2") == 3
    cursor.execute("FLUSH")
    assert rows_of(cursor, "SELECT * FROM sums") == [(1,)] and rows_of(cursor, "SELECT * FROM g") == [(1,)]


def test_text_of_a_stream_with_changes_is_kept(store):
    with Server(store) as server, server.connect() as connection, connection.cursor() as cursor:
        cursor.execute("CREATE STREAM bag (a DOUBLE, b TEXT) WITH (changes = true, retention = '1 day')")
        cursor.execute("CREATE STREAM total AS SELECT b, count(*) AS n, sum(a) AS a FROM bag GROUP BY b")
        cursor.execute("INSERT INTO bag VALUES ('NaN', 'x'), ('NaN', 'x'), (0.0, 'y'), (-0.0, 'y'), (NULL, 'z'), (1, NULL)")
        assert count_of(cursor, "UPDATE bag SET a = 2 WHERE a = 'NaN'") == 2
    with Server(store) as server, server.connect() as connection, connection.cursor() as cursor:
        assert "changes" in rows_of(cursor, "SHOW CREATE STREAM bag")[0][1]
        assert count_of(cursor, "DELETE FROM bag WHERE a = 0") == 2
        assert count_of(cursor, "DELETE FROM bag WHERE b IS NULL") == 1
        assert count_of(cursor, "UPDATE bag SET b = 'x' WHERE a IS NULL") == 1
        cursor.execute("FLUSH")
        assert rows_of(cursor, "SELECT * FROM total") == [("x", 3, 4.0)]
        assert rows_of(cursor, "EXPLAIN SELECT * FROM bag EMIT CHANGES") != []


@pytest.mark.parametrize("key, changes", [(", PRIMARY KEY (k)", ""), ("", " WITH (changes = true)")])
def test_rows_of_every_type_are_found_again(cursor, key, changes):
    cursor.create(
        "t",
        f"""CREATE STREAM t (k DOUBLE, r REAL, s TEXT, b BYTEA, d DECIMAL(20, 5), da DATE, ti TIME, ts TIMESTAMP(9), tz TIMESTAMPTZ,
            l DOUBLE[], o STRUCT<a DOUBLE, b STRUCT<c TEXT>>, m MAP(TEXT, DOUBLE), u BIGINT UNSIGNED, bo BOOLEAN{key}){changes}""",
    )
    cursor.create("tc", "CREATE STREAM tc AS SELECT count(*) AS n, count(r) AS rs, count(o) AS os FROM t")
    cursor.execute(
        """INSERT INTO t (k, r, s, l, o) VALUES
            ('NaN', 'NaN', '', [1e0, NULL, -0e0, 'NaN'::DOUBLE], {a: -0e0, b: {c: 'x'}}),
            (-0e0, -0e0, 'long text that does not fit inline', [], NULL),
            (1.5, 'Infinity', NULL, NULL, {a: NULL, b: NULL})"""
    )
    cursor.execute(
        """INSERT INTO t (k, b, d, da, ti, ts, tz, m, u, bo) VALUES (2, X'00ff', -1.00001, '2020-02-29', '23:59:59.999999',
            '2026-01-01 00:00:00.123456789', '2026-01-01 00:00:00+02', MAP(['a', 'b'], [1.0, NULL]), 18446744073709551615, true)"""
    )
    assert count_of(cursor, "UPDATE t SET k = k + 100 WHERE k > 1 AND k < 10") == 2
    assert count_of(cursor, "UPDATE t SET s = 'z' WHERE k = 0") == 1
    assert count_of(cursor, "DELETE FROM t WHERE k = 'NaN'") == 1
    cursor.execute("FLUSH")
    assert rows_of(cursor, "SELECT * FROM tc") == [(3, 2, 1)]
    assert rows_of(cursor, "SELECT k, s, ts::TEXT, u FROM t ORDER BY k") == [
        (0.0, "z", None, None),
        (101.5, None, None, None),
        (102.0, None, "2026-01-01T00:00:00.123456789", 2**64 - 1),
    ]
    assert count_of(cursor, "TRUNCATE t") == 3
    cursor.execute("FLUSH")
    assert rows_of(cursor, "SELECT * FROM tc") == [(0, 0, 0)] and rows_of(cursor, "SELECT * FROM t") == []


def test_who_may(tmp_path):
    store = tmp_path / "store"
    add_admin(store)
    with Server(store) as server:
        def run(sql, user="admin"):
            with server.connect(username=user, password=PASSWORD) as connection, connection.cursor() as cursor:
                return count_of(cursor, sql)

        for sql in [
            "CREATE STREAM a (id BIGINT, v BIGINT, PRIMARY KEY (id))",
            "CREATE STREAM b (id BIGINT)",
            "INSERT INTO a VALUES (1, 1), (2, 2), (3, 3)",
            f"CREATE USER writer PASSWORD '{PASSWORD}'",
            f"CREATE USER reader PASSWORD '{PASSWORD}'",
            f"CREATE USER both PASSWORD '{PASSWORD}'",
            "GRANT write ON STREAM a TO writer",
            "GRANT read ON STREAM a TO reader",
            "GRANT write ON STREAM a TO both",
            "GRANT read ON STREAM a TO both",
        ]:
            run(sql)
        upsert = "INSERT INTO a VALUES (1, 5) ON CONFLICT (id) DO UPDATE SET v = 5"
        for sql, users in {
            "DELETE FROM a WHERE id = 99": ["both"],
            "UPDATE a SET v = v": ["both"],
            upsert: ["both"],
            "INSERT INTO a VALUES (1, 5) ON CONFLICT DO NOTHING": ["both"],
            # What tells nothing of the rows asks for nothing but to write.
            "UPDATE a SET v = 4": ["both", "writer"],
            "DELETE FROM a WHERE id IN (SELECT id FROM b)": [],
            "UPDATE a SET v = (SELECT max(id) FROM b)": [],
            "DELETE FROM a USING b WHERE a.id = b.id": [],
            "DELETE FROM b": [],
            "TRUNCATE a": ["both", "writer"],
        }.items():
            for user in ["both", "writer", "reader"]:
                if user in users:
                    run(sql, user)
                else:
                    with pytest.raises(adbc_driver_manager.Error, match="FORBIDDEN|PERMISSION_DENIED|UNAUTHORIZED"):
                        run(sql, user)
        with server.connect(username="admin", password=PASSWORD) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT statement, \"user\" FROM millstream.audit WHERE NOT allowed")
            assert ("DELETE FROM a WHERE id = 99", "writer") in cursor.fetchall()


def test_over_http_and_in_the_shell(store):
    with HttpServer(store) as server:
        server.sql("CREATE STREAM h (id BIGINT, n BIGINT, PRIMARY KEY (id))")
        server.sql("INSERT INTO h VALUES (1, 1), (2, 2), (3, 3)")
        answer = server.sql("UPDATE h SET n = n + 1 WHERE id > 1")
        assert (answer["tag"], answer["rows"]) == ("UPDATE", 2)
        with Process("shell", "--connect", f"grpc://{server.address}", "-c", "DELETE FROM h WHERE n = 4", "-c", "TRUNCATE h") as shell:
            assert shell.wait() == 0
            assert "DELETE 1" in shell.stdout + shell.stderr and "TRUNCATE 2" in shell.stdout + shell.stderr


def test_killed_in_the_middle(tmp_path):
    """All rows are changed by a statement, or none: they tell the same after each kill, and what was acknowledged is there."""
    store, r = tmp_path / "store", random.Random(SEED)
    print(f"seed {SEED}")
    rows, done = 3000, 0
    with Server(store) as server, server.connect() as connection, connection.cursor() as cursor:
        cursor.execute("CREATE STREAM acc (id BIGINT, n BIGINT, PRIMARY KEY (id))")
        cursor.execute("CREATE STREAM bag (n BIGINT) WITH (changes = true)")
        cursor.execute("CREATE STREAM sums AS SELECT min(n) AS low, max(n) AS high, count(*) AS rows FROM acc")
        cursor.execute(f"INSERT INTO acc SELECT value, 0 FROM generate_series(1, {rows})")
        cursor.execute(f"INSERT INTO bag SELECT 0 FROM generate_series(1, {rows})")
    for _ in range(8):
        with Server(store) as server:
            killer = threading.Timer(r.uniform(0.05, 0.8), server.process.kill)
            try:
                with server.connect() as connection, connection.cursor() as cursor:
                    cursor.execute("FLUSH")
                    (low, high, n), = rows_of(cursor, "SELECT min(n), max(n), count(*) FROM acc")
                    assert (low, n) == (high, rows) and low in (done, done + 1), (low, high, n, done)
                    (least, most, m), = rows_of(cursor, "SELECT min(n), max(n), count(*) FROM bag")
                    assert (least, m) == (most, rows) and least in (low - 1, low, done), (least, most, m, done)
                    assert rows_of(cursor, "SELECT * FROM sums") == [(low, high, rows)]
                    done = low
                    if least < low:
                        assert count_of(cursor, f"UPDATE bag SET n = {low}") == rows
                    killer.start()
                    while True:
                        assert count_of(cursor, "UPDATE acc SET n = n + 1") == rows
                        done += 1
                        assert count_of(cursor, "UPDATE bag SET n = n + 1") == rows
            except adbc_driver_manager.Error:
                pass
            finally:
                killer.cancel()
                server.kill()
    assert done >= 8, done


def peak(pid):
    """The most memory that a process has had, in MB, since the last call."""
    text = open(f"/proc/{pid}/status").read()
    most = int(next(line for line in text.splitlines() if line.startswith("VmHWM")).split()[1]) >> 10
    open(f"/proc/{pid}/clear_refs", "w").write("5")
    return most


@pytest.mark.parametrize("key, changes", [(", PRIMARY KEY (id)", ""), ("", " WITH (changes = true)")])
def test_much_is_changed_with_little_memory(store, key, changes):
    rows = 1_000_000
    with Server(store, "--memory-limit", "800MB") as server, server.connect() as connection, connection.cursor() as cursor:
        pid = server.process.pid
        cursor.execute(f"CREATE STREAM big (id BIGINT, a BIGINT, t TEXT{key}){changes}")
        cursor.execute("CREATE STREAM sums AS SELECT count(*) AS n, sum(a) AS a FROM big")
        cursor.execute(f"INSERT INTO big SELECT value, value % 10, 'text ' || value FROM generate_series(1, {rows})")
        cursor.execute("FLUSH")
        loaded = peak(pid)
        began = time.monotonic()
        assert count_of(cursor, "UPDATE big SET a = a + 1") == rows
        updated, took = peak(pid), time.monotonic() - began
        cursor.execute("FLUSH")
        assert rows_of(cursor, "SELECT * FROM sums") == [(rows, 5_500_000)]
        peak(pid)
        began = time.monotonic()
        assert count_of(cursor, "DELETE FROM big WHERE id % 10 > 0") == rows // 10 * 9
        deleted = peak(pid)
        print(f"loaded {loaded} MB, updated {updated} MB in {took:.1f} s, deleted {deleted} MB in {time.monotonic() - began:.1f} s")
        cursor.execute("FLUSH")
        assert rows_of(cursor, "SELECT n FROM sums") == [(rows // 10,)]


def test_what_does_not_fit_is_refused_and_the_stream_goes_on(store):
    with Server(store, "--memory-limit", "60MB") as server, server.connect() as connection, connection.cursor() as cursor:
        cursor.execute("CREATE STREAM big (id BIGINT, a BIGINT, t TEXT) WITH (changes = true)")
        for part in range(10):
            cursor.execute(f"INSERT INTO big SELECT value, {part}, 'text ' || value FROM generate_series(1, 80000)")
        refused(cursor, "UPDATE big SET a = a + 1", "out of memory", "Nothing was changed", "fewer rows")
        assert count_of(cursor, "DELETE FROM big WHERE a < 2") == 160000
        assert rows_of(cursor, "SELECT count(*), min(a), max(a) FROM big") == [(640000, 2, 9)]
        assert rows_of(cursor, "SHOW JOBS")[0][1] == "running"
