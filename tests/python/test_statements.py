"""What a statement promises when it returns, and what holds when it fails or is cut off half-way."""

import subprocess
import threading
import time

import adbc_driver_manager
import duckdb
import pyarrow
import pytest
from conftest import PATIENCE, Process, Server, parquet

OFTEN = ("--checkpoint-interval", "50ms")


@pytest.fixture
def own(store):
    """A server whose store the test may look into."""
    with Server(store, *OFTEN) as server:
        yield server


@pytest.fixture
def cursor(own):
    with own.connect() as connection, connection.cursor() as cursor:
        yield cursor


def scalar(cursor, sql):
    cursor.execute(sql)
    return cursor.fetchone()[0]


def execute(server, *statements):
    with server.connect() as connection, connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)


# INSERT and ingest


def test_what_is_acknowledged_outlasts_pauses(own):
    """Rows go in without a pause while the stream is paused and resumed all the time."""
    execute(own, "CREATE STREAM sent (id BIGINT)")
    acknowledged, in_doubt = set(), set()
    over = threading.Event()

    def send(first):
        with own.connect() as connection, connection.cursor() as cursor:
            row = first
            while not over.is_set():
                row += 10
                try:
                    cursor.execute(f"INSERT INTO sent VALUES ({row})")
                    acknowledged.add(row)
                except adbc_driver_manager.Error as e:
                    assert "sent" in str(e) and ("paused" in str(e) or "stopped before" in str(e)), e
                    in_doubt.add(row)

    senders = [threading.Thread(target=send, args=(first,)) for first in range(6)]
    for sender in senders:
        sender.start()
    try:
        for _ in range(60):
            execute(own, "PAUSE STREAM sent", "RESUME STREAM sent")
            time.sleep(0.02)
    finally:
        over.set()
        for sender in senders:
            sender.join(PATIENCE)
    assert len(acknowledged) > 100, "some got through"
    with own.connect() as connection, connection.cursor() as cursor:
        cursor.execute("SELECT id FROM sent")
        kept = [row for (row,) in cursor.fetchall()]
    assert len(kept) == len(set(kept)), "no row twice"
    assert acknowledged <= set(kept) <= acknowledged | in_doubt, acknowledged - set(kept)


def test_what_is_acknowledged_outlasts_a_shutdown(store):
    """An INSERT that is answered while the server ends has been committed."""
    acknowledged = set()

    def send(server, first):
        row = first
        try:
            with server.connect() as connection, connection.cursor() as cursor:
                while True:
                    row += 10
                    cursor.execute(f"INSERT INTO sent VALUES ({row})")
                    acknowledged.add(row)
        except adbc_driver_manager.Error:
            pass

    for life in range(5):
        with Server(store, *OFTEN) as server:
            if life == 0:
                execute(server, "CREATE STREAM sent (id BIGINT)")
            senders = [threading.Thread(target=send, args=(server, life * 1_000_000 + i)) for i in range(4)]
            for sender in senders:
                sender.start()
            time.sleep(0.3)
            server.stop()
            for sender in senders:
                sender.join(PATIENCE)
    assert acknowledged
    kept = {row for (row,) in duckdb.sql(f"SELECT id FROM read_parquet('{parquet(store, 'sent')}')").fetchall()}
    assert acknowledged <= kept


def test_an_insert_that_fails_inserts_nothing(cursor):
    cursor.execute("CREATE STREAM whole (id BIGINT)")
    with pytest.raises(adbc_driver_manager.Error, match="(?i)zero"):
        cursor.execute("INSERT INTO whole SELECT 10 / (value - 60000) FROM generate_series(1, 100000)")
    assert scalar(cursor, "SELECT count(*) FROM whole") == 0
    cursor.execute("INSERT INTO whole SELECT value FROM generate_series(1, 100000)")
    assert cursor.rowcount == 100_000
    assert scalar(cursor, "SELECT count(DISTINCT id) FROM whole") == 100_000


def test_an_insert_is_seen_whole(own):
    """Who reads the stream meanwhile sees all rows of an INSERT or none."""
    execute(own, "CREATE STREAM whole (id BIGINT)")
    seen, over = set(), threading.Event()

    def look():
        with own.connect() as connection, connection.cursor() as cursor:
            while not over.is_set():
                seen.add(scalar(cursor, "SELECT count(*) FROM whole"))

    reader = threading.Thread(target=look)
    reader.start()
    try:
        for _ in range(5):
            execute(own, "INSERT INTO whole SELECT value FROM generate_series(1, 200000)")
    finally:
        over.set()
        reader.join(PATIENCE)
    assert len(seen) > 1 and all(n % 200_000 == 0 for n in seen), seen


def test_an_insert_keeps_to_the_memory_budget(store):
    with Server(store, "--memory-limit", "20MB") as server:
        with server.connect() as connection, connection.cursor() as cursor:
            cursor.execute("CREATE STREAM whole (id BIGINT)")
            with pytest.raises(adbc_driver_manager.Error, match="out of memory: INSERT INTO whole.*20.0 MB"):
                cursor.execute("INSERT INTO whole SELECT value FROM generate_series(1, 5000000)")
            assert scalar(cursor, "SELECT count(*) FROM whole") == 0
            cursor.execute("INSERT INTO whole VALUES (1)")
            assert scalar(cursor, "SELECT count(*) FROM whole") == 1


def test_an_ingest_that_fails_says_that_nothing_was_committed(cursor):
    cursor.execute("CREATE STREAM narrow (id INT)")
    schema = pyarrow.schema({"id": pyarrow.int64()})
    batches = [pyarrow.record_batch([pyarrow.array([i] * 1000)], schema=schema) for i in (1, 2, 1 << 40, 3)]
    with pytest.raises(adbc_driver_manager.Error, match="nothing was ingested"):
        cursor.adbc_ingest("narrow", pyarrow.RecordBatchReader.from_batches(schema, batches), mode="append")
    assert scalar(cursor, "SELECT count(*) FROM narrow") == 0


def test_a_stream_that_was_paused_at_the_start_takes_no_rows(store):
    """More rows than wait in a queue: they are refused, not kept waiting."""
    with Server(store) as server:
        execute(server, "CREATE STREAM sent (id BIGINT, note TEXT)", "PAUSE STREAM sent")
        assert server.stop() == 0
    with Server(store) as server:
        with server.connect() as connection, connection.cursor() as cursor:
            many = "SELECT value, repeat('x', 200) FROM generate_series(1, 300000)"
            with pytest.raises(adbc_driver_manager.Error, match="is paused and takes no rows"):
                cursor.execute(f"INSERT INTO sent {many}")
            cursor.execute("RESUME STREAM sent")
            cursor.execute(f"INSERT INTO sent {many}")
            assert scalar(cursor, "SELECT count(*) FROM sent") == 300_000


# CREATE, DROP, PAUSE


def jobs(cursor):
    cursor.execute("SHOW JOBS")
    table = cursor.fetch_arrow_table()
    return dict(zip(table.column("stream").to_pylist(), table.column("state").to_pylist()))


def folders(store, kind):
    return sorted(path.name for path in (store / kind).glob("*") if any(path.rglob("*")))


def test_a_replacement_that_does_not_start_leaves_the_old_stream(store, tmp_path):
    file = tmp_path / "in.csv"
    file.write_text("id\n1\n2\n")
    source = f"CREATE STREAM input (id BIGINT) WITH (connector = 'file', path = '{file}', format = 'csv')"
    with Server(store, *OFTEN) as server:
        with server.connect() as connection, connection.cursor() as cursor:
            cursor.execute("CREATE STREAM kept (id BIGINT)")
            cursor.execute("INSERT INTO kept VALUES (7)")
            cursor.execute(source)
            file.unlink()
            with pytest.raises(adbc_driver_manager.Error):
                cursor.execute("CREATE OR REPLACE STREAM kept AS SELECT id FROM input")
            assert scalar(cursor, "SELECT sum(id) FROM kept") == 7
            cursor.execute("INSERT INTO kept VALUES (8)")
        assert server.stop() == 0
    file.write_text("id\n1\n2\n")
    with Server(store, *OFTEN) as server:
        with server.connect() as connection, connection.cursor() as cursor:
            assert scalar(cursor, "SELECT sum(id) FROM kept") == 15
            cursor.execute("CREATE OR REPLACE STREAM kept AS SELECT id FROM input")
            cursor.execute("FLUSH")
            assert scalar(cursor, "SELECT sum(id) FROM kept") == 3
            assert len(folders(store, "jobs")) == 1


def test_drop_takes_all_files_also_of_streams_that_could_not_start(store, tmp_path):
    file = tmp_path / "in.csv"
    file.write_text("id\n1\n2\n")
    with Server(store, *OFTEN) as server:
        with server.connect() as connection, connection.cursor() as cursor:
            cursor.execute(
                f"CREATE STREAM input (id BIGINT) WITH (connector = 'file', path = '{file}', format = 'csv')"
            )
            cursor.execute("CREATE STREAM sent (id BIGINT)")
            cursor.execute("CREATE STREAM doubled AS SELECT i.id FROM input i UNION ALL SELECT id FROM sent")
            cursor.execute("INSERT INTO sent VALUES (5)")
            time.sleep(0.5)
            assert scalar(cursor, "SELECT count(*) FROM doubled") == 3
        assert server.stop() == 0
    file.unlink()
    with Server(store, *OFTEN) as server:
        with server.connect() as connection, connection.cursor() as cursor:
            assert jobs(cursor)["doubled"] == "failed"
            with pytest.raises(adbc_driver_manager.Error, match='"sent" is read by "doubled"'):
                cursor.execute("DROP STREAM sent")
            cursor.execute("DROP STREAM sent CASCADE")
            cursor.execute("DROP STREAM input")
            assert jobs(cursor) == {}
            assert (folders(store, "jobs"), folders(store, "streams")) == ([], [])


def test_what_a_cut_off_drop_left_is_swept(store):
    with Server(store, *OFTEN) as server:
        execute(server, "CREATE STREAM kept (id BIGINT)", "INSERT INTO kept VALUES (1)")
        assert server.stop() == 0
    # As after a kill between the catalog and the files.
    for orphan in ("jobs/000009-gone/checkpoints/00000000000000000001.json", "streams/gone/0000000001.parquet"):
        path = store / orphan
        path.parent.mkdir(parents=True)
        path.write_text("left over")
    foreign = store / "streams" / "foreign" / "notes.txt"
    foreign.parent.mkdir()
    foreign.write_text("not ours")
    with Server(store, *OFTEN) as server:
        assert folders(store, "jobs") == ["000001-kept"]
        assert folders(store, "streams") == ["foreign", "kept"]
        with server.connect() as connection, connection.cursor() as cursor:
            cursor.execute("CREATE STREAM gone (id BIGINT)")
            cursor.execute("INSERT INTO gone VALUES (1)")
            assert scalar(cursor, "SELECT count(*) FROM gone") == 1


def test_names_are_free_again_at_once(own):
    """Drops and creations of one name by several clients: each is whole."""

    def churn(i):
        with own.connect() as connection, connection.cursor() as cursor:
            for _ in range(15):
                try:
                    cursor.execute("CREATE OR REPLACE STREAM busy (id BIGINT)")
                    cursor.execute(f"INSERT INTO busy VALUES ({i})")
                    cursor.execute("DROP STREAM IF EXISTS busy")
                except adbc_driver_manager.Error as e:
                    # Another client has replaced or dropped it meanwhile.
                    assert "busy" in str(e), e

    clients = [threading.Thread(target=churn, args=(i,)) for i in range(4)]
    for client in clients:
        client.start()
    for client in clients:
        client.join(PATIENCE)
        assert not client.is_alive()
    with own.connect() as connection, connection.cursor() as cursor:
        cursor.execute("DROP STREAM IF EXISTS busy")
        assert jobs(cursor) == {}
        assert (folders(own.store, "jobs"), folders(own.store, "streams")) == ([], [])


def test_a_statement_is_done_though_its_client_has_gone(own):
    """A client that gives up in the midst of a DROP leaves nothing half done."""
    execute(own, "CREATE STREAM sent (id BIGINT)", "CREATE STREAM counted AS SELECT count(*) AS n FROM sent")
    execute(own, "INSERT INTO sent SELECT value FROM generate_series(1, 300000)")
    with pytest.raises(adbc_driver_manager.Error):
        with own.connect() as connection, connection.cursor() as cursor:
            cursor.adbc_statement.set_options(**{"adbc.flight.sql.rpc.timeout_seconds.query": "0.002"})
            cursor.adbc_statement.set_options(**{"adbc.flight.sql.rpc.timeout_seconds.update": "0.002"})
            cursor.execute("DROP STREAM sent CASCADE")
    deadline = time.monotonic() + PATIENCE
    with own.connect() as connection, connection.cursor() as cursor:
        while time.monotonic() < deadline and (jobs(cursor) or folders(own.store, "jobs")):
            time.sleep(0.05)
        left = (jobs(cursor), folders(own.store, "jobs"), folders(own.store, "streams"))
        # Either all of it or, where the request never arrived, nothing.
        assert left == ({}, [], []) or set(left[0]) == {"sent", "counted"}, left


# Settings


def test_the_checkpoint_interval_of_a_session_holds(store):
    with Server(store, "--checkpoint-interval", "50ms") as server:
        with server.connect() as connection, connection.cursor() as cursor:
            cursor.execute("CREATE STREAM sent (id BIGINT)")
            cursor.execute("SET checkpoint_interval = '1 h'")
            cursor.execute("CREATE STREAM slow AS SELECT id FROM sent")
            cursor.execute("RESET checkpoint_interval")
            cursor.execute("CREATE STREAM quick AS SELECT id FROM sent")
            cursor.execute("INSERT INTO sent VALUES (1)")
            deadline = time.monotonic() + PATIENCE
            while scalar(cursor, "SELECT count(*) FROM quick") == 0:
                assert time.monotonic() < deadline
                time.sleep(0.02)
            time.sleep(0.5)
            assert scalar(cursor, "SELECT count(*) FROM slow") == 0
            with pytest.raises(adbc_driver_manager.Error, match="checkpoint_interval.*from 10 ms on"):
                cursor.execute("CREATE STREAM x AS SELECT id FROM sent WITH (checkpoint_interval = '0 s')")


def test_emit_comes_last(cursor):
    cursor.execute("CREATE STREAM sent (id BIGINT)")
    for clause in ("WHERE id > 3", "ORDER BY id", "LIMIT 3 OFFSET 1"):
        word = clause.split()[-2 if "OFFSET" in clause else 0]
        with pytest.raises(adbc_driver_manager.Error, match=f"EMIT comes last: write {word}"):
            cursor.execute(f"SELECT id FROM sent EMIT CHANGES {clause}")
            cursor.fetchall()


def test_standard_input_has_one_reader(store):
    sql = """
CREATE STREAM lines (id BIGINT) WITH (connector = 'stdin', format = 'json');
CREATE STREAM a AS SELECT id FROM lines;
CREATE STREAM b AS SELECT id FROM lines;
"""
    path = store.parent / "script.sql"
    path.write_text(sql)
    with Process("run", path, "--store", store, stdin=subprocess.PIPE) as process:
        process.wait_for('"lines" is standard input, which stream "a" reads already', "stderr")
        process.process.stdin.close()
        assert process.wait() == 1


def test_drop_says_what_it_drops(store):
    with Process(
        "--store", store,
        *("-c", "CREATE STREAM s (a INT)", "-c", "CREATE VIEW v AS SELECT a FROM s", "-c", "DROP VIEW s"),
    ) as process:
        assert process.wait() == 1
        assert '"s" is a stream' in process.stderr and "DROP STREAM s" in process.stderr
    with Process("--store", store, "-c", "DROP STREAM v") as process:
        assert process.wait() == 1
        assert '"v" is a view' in process.stderr
    with Process("--store", store, "-c", "DROP VIEW v", "-c", "DROP STREAM s") as process:
        assert process.wait() == 0, process.stderr
