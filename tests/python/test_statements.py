"""What a statement promises when it returns, and what holds when it fails or is cut off half-way."""

import threading
import time

import adbc_driver_manager
import duckdb
import pyarrow
import pytest
from conftest import PATIENCE, Server, parquet

OFTEN = ("--checkpoint-interval", "50ms")


@pytest.fixture
def own(store):
    """A server whose store the test may look into."""
    with Server(store, *OFTEN) as server:
        yield server


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


def test_what_is_acknowledged_outlasts_a_drop_and_a_shutdown(store):
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
    """What follows the stream gets the rows of one INSERT at once."""
    with own.connect() as connection, connection.cursor() as cursor:
        cursor.execute("CREATE STREAM whole (id BIGINT)")
        cursor.execute("CREATE STREAM counted AS SELECT count(*) AS n FROM whole EMIT CHANGES")
        for _ in range(3):
            cursor.execute("INSERT INTO whole SELECT value FROM generate_series(1, 200000)")
        cursor.execute("FLUSH")
        cursor.execute("SELECT n FROM counted")
        assert cursor.fetchall() == [(600_000,)]
        counts = duckdb.sql(f"SELECT n FROM read_parquet('{parquet(own.store, 'counted')}') WHERE _op IN ('+I', '+U')")
        assert {n for (n,) in counts.fetchall()} <= {0, 200_000, 400_000, 600_000}


def test_an_insert_keeps_to_the_memory_budget(store):
    with Server(store, "--memory-limit", "20MB") as server:
        with server.connect() as connection, connection.cursor() as cursor:
            cursor.execute("CREATE STREAM whole (id BIGINT)")
            with pytest.raises(adbc_driver_manager.Error, match="out of memory: INSERT INTO whole.*20.0 MB"):
                cursor.execute("INSERT INTO whole SELECT value FROM generate_series(1, 5000000)")
            assert scalar(cursor, "SELECT count(*) FROM whole") == 0
            cursor.execute("INSERT INTO whole VALUES (1)")
            assert scalar(cursor, "SELECT count(*) FROM whole") == 1


def test_an_ingest_that_fails_says_what_was_committed(cursor):
    cursor.execute("CREATE STREAM narrow (id INT)")
    schema = pyarrow.schema({"id": pyarrow.int64()})
    batches = [pyarrow.record_batch([pyarrow.array([i] * 1000)], schema=schema) for i in (1, 2, 1 << 40, 3)]
    with pytest.raises(adbc_driver_manager.Error, match="after 2000 rows, which are committed"):
        cursor.adbc_ingest("narrow", pyarrow.RecordBatchReader.from_batches(schema, batches), mode="append")
    assert scalar(cursor, "SELECT count(*) FROM narrow") == 2000


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


@pytest.fixture
def cursor(own):
    with own.connect() as connection, connection.cursor() as cursor:
        yield cursor
