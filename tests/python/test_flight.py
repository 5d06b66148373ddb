"""Millstream as its clients see it: ADBC, pandas and SQLAlchemy, raw pyarrow Flight, DuckDB on the files."""

import itertools
import json
import os
import threading
import time

import adbc_driver_flightsql.dbapi as flightsql
import adbc_driver_manager
import pandas
import pyarrow
import pyarrow.compute
import pyarrow.flight
import pyarrow.parquet
import pytest
import sqlalchemy
from conftest import duck

COUNTER = itertools.count()
PATIENCE = 30


@pytest.fixture
def connect(server):
    return server.connect


@pytest.fixture
def connection(connect):
    with connect() as connection:
        yield connection


@pytest.fixture
def cursor(connection):
    with connection.cursor() as cursor:
        yield cursor


@pytest.fixture
def name(connection):
    name = f"t_{next(COUNTER)}"
    yield name
    with connection.cursor() as cursor:
        cursor.execute(f"DROP STREAM IF EXISTS {name}")


def create(cursor, name):
    cursor.execute(f"CREATE STREAM {name} (id BIGINT, name TEXT, value DOUBLE)")


def in_batches(table):
    """As a reader: the driver sends each batch as one message, and none over 16 MiB unless told otherwise."""
    return table.to_reader(max_chunksize=65_536)


def rows(count, start=0):
    numbers = range(start, start + count)
    return pyarrow.table(
        {
            "id": pyarrow.array(numbers, pyarrow.int64()),
            "name": pyarrow.array([f"name {i % 1000}" for i in numbers], pyarrow.string()),
            "value": pyarrow.array([i * 0.5 for i in numbers], pyarrow.float64()),
        }
    )


def scalar(cursor, sql, parameters=None):
    cursor.execute(sql, parameters)
    return cursor.fetchone()[0]


# Statements


def test_create_insert_select(cursor, name):
    cursor.execute(f"CREATE STREAM {name} (id BIGINT, note TEXT, at TIMESTAMP, price DOUBLE)")
    cursor.execute(f"INSERT INTO {name} VALUES (1, 'a', TIMESTAMP '2024-01-02 03:04:05.000006', 1.5), (2, NULL, NULL, NULL)")
    assert cursor.rowcount == 2, "the insert ran, once"
    cursor.execute(f"SELECT * FROM {name} ORDER BY id")
    table = cursor.fetch_arrow_table()
    assert table.schema.names == ["id", "note", "at", "price"]
    # What DuckDB, pandas and ADBC expect: no views.
    assert table.schema.field("note").type == pyarrow.string()
    assert table.schema.field("at").type == pyarrow.timestamp("us")
    assert table.column("note").to_pylist() == ["a", None]
    assert str(table.column("at")[0]) == "2024-01-02 03:04:05.000006"


def test_statement_without_rows_gives_an_empty_result(cursor, name):
    cursor.execute(f"CREATE STREAM {name} (id BIGINT)")
    assert cursor.fetchall() == []
    cursor.execute(f"INSERT INTO {name} VALUES (1)")
    assert cursor.fetchall() == []
    assert scalar(cursor, f"SELECT count(*) FROM {name}") == 1


def test_low_level_query_and_update(connection, name):
    with adbc_driver_manager.AdbcStatement(connection.adbc_connection) as statement:
        statement.set_sql_query(f"CREATE STREAM {name} (id BIGINT)")
        statement.execute_update()
        statement.set_sql_query(f"INSERT INTO {name} VALUES (1), (2), (3)")
        assert statement.execute_update() == 3
        statement.set_sql_query(f"SELECT sum(id) AS total FROM {name}")
        stream, _ = statement.execute_query()
        table = pyarrow.RecordBatchReader._import_from_c(stream.address).read_all()
        assert table.to_pydict() == {"total": [6]}


def test_a_query_can_run_again(cursor, name):
    cursor.adbc_ingest(name, rows(10), mode="create")
    for more in range(3):
        assert scalar(cursor, f"SELECT count(*) FROM {name}") == 10 + more
        cursor.execute(f"INSERT INTO {name} (id) VALUES (1)")


def test_errors_are_clear(cursor):
    with pytest.raises(adbc_driver_manager.Error) as error:
        cursor.execute("SELEC 1")
    assert "SELEC" in str(error.value)
    with pytest.raises(adbc_driver_manager.Error) as error:
        cursor.execute("SELECT * FROM no_such_stream")
        cursor.fetchall()
    assert "no_such_stream" in str(error.value)
    # The connection is as good as before.
    assert scalar(cursor, "SELECT 1") == 1


def test_error_points_at_the_place(cursor, name):
    cursor.adbc_ingest(name, rows(1), mode="create")
    with pytest.raises(adbc_driver_manager.ProgrammingError) as error:
        cursor.execute(f"SELECT valeu FROM {name}")
    assert "valeu" in str(error.value)
    assert "line 1, column 8" in str(error.value)


def test_errors_while_running(cursor, name):
    cursor.adbc_ingest(name, rows(10), mode="create")
    with pytest.raises(Exception, match="(?i)zero"):
        cursor.execute(f"SELECT 1 / (id - 5) FROM {name}")
        cursor.fetch_arrow_table()


# Ingest


def test_ingest_modes(cursor, name):
    million = rows(1_000_000)
    assert cursor.adbc_ingest(name, in_batches(million), mode="create") == 1_000_000
    assert scalar(cursor, f"SELECT count(*) FROM {name}") == 1_000_000
    with pytest.raises(adbc_driver_manager.Error, match="exists"):
        cursor.adbc_ingest(name, rows(1), mode="create")

    assert cursor.adbc_ingest(name, rows(10, start=1_000_000), mode="append") == 10
    assert scalar(cursor, f"SELECT count(*) FROM {name}") == 1_000_010
    assert cursor.adbc_ingest(name, rows(5, start=1_000_010), mode="create_append") == 5
    cursor.execute(f"SELECT count(DISTINCT id), sum(value) FROM {name}")
    assert cursor.fetchone() == (1_000_015, sum(i * 0.5 for i in range(1_000_015)))

    assert cursor.adbc_ingest(name, rows(3), mode="replace") == 3
    assert scalar(cursor, f"SELECT count(*) FROM {name}") == 3


def test_ingest_create_append_creates(cursor, name):
    cursor.adbc_ingest(name, rows(2), mode="create_append")
    assert scalar(cursor, f"SELECT count(*) FROM {name}") == 2


def test_ingest_from_a_reader_of_many_batches(cursor, name):
    batches = [batch for i in range(50) for batch in rows(1000, start=i * 1000).to_batches()]
    reader = pyarrow.RecordBatchReader.from_batches(batches[0].schema, batches)
    assert cursor.adbc_ingest(name, reader, mode="create") == 50_000
    assert scalar(cursor, f"SELECT count(DISTINCT id) FROM {name}") == 50_000


def test_one_message_of_many_megabytes(connect, name):
    with connect(**{"adbc.flight.sql.client_option.with_max_msg_size": str(1 << 30)}) as connection:
        with connection.cursor() as cursor:
            assert cursor.adbc_ingest(name, rows(1_000_000), mode="create") == 1_000_000


def test_ingest_of_nothing(cursor, name):
    # The driver sends nothing at all when there is no batch, not even what it wants to create.
    with pytest.raises(adbc_driver_manager.Error, match="empty"):
        cursor.adbc_ingest(name, rows(0), mode="create")


def test_ingest_matches_columns_by_name(cursor, name):
    cursor.adbc_ingest(name, rows(1), mode="create")
    cursor.adbc_ingest(name, pyarrow.table({"name": ["other order"], "id": [7]}), mode="append")
    cursor.execute(f"SELECT id, name, value FROM {name} WHERE id = 7")
    assert cursor.fetchall() == [(7, "other order", None)]


def test_ingest_that_cannot_be(cursor, name):
    with pytest.raises(adbc_driver_manager.Error, match=name):
        cursor.adbc_ingest(name, rows(1), mode="append")
    with pytest.raises(adbc_driver_manager.NotSupportedError, match="temporary"):
        cursor.adbc_ingest(name, rows(1), mode="create", temporary=True)
    with pytest.raises(adbc_driver_manager.Error, match="nowhere"):
        cursor.adbc_ingest(name, rows(1), mode="create", db_schema_name="nowhere")
    with pytest.raises(adbc_driver_manager.Error, match="elsewhere"):
        cursor.adbc_ingest(name, rows(1), mode="create", catalog_name="elsewhere")
    assert cursor.adbc_ingest(name, rows(1), mode="create", catalog_name="millstream", db_schema_name="public") == 1


def streams(cursor):
    cursor.execute("SHOW STREAMS")
    return [row[0] for row in cursor.fetchall()]


def test_a_failed_ingest_leaves_nothing(cursor, name):
    batch = rows(1000).to_batches()[0]

    def failing(batches):
        for _ in range(batches):
            yield batch
        raise ValueError("the reader is at its end")

    for mode in ("create", "create_append", "replace"):
        for batches in (0, 1, 3):
            with pytest.raises(Exception, match="at its end"):
                cursor.adbc_ingest(name, pyarrow.RecordBatchReader.from_batches(batch.schema, failing(batches)), mode=mode)
            assert name not in streams(cursor), (mode, batches)
    # One message over the client's limit: the client refuses it.
    with pytest.raises(adbc_driver_manager.Error):
        cursor.adbc_ingest(name, rows(3_000_000), mode="create")
    assert name not in streams(cursor)
    # A type that is not stored, and a value that does not fit behind good rows.
    with pytest.raises(adbc_driver_manager.Error):
        cursor.adbc_ingest(name, pyarrow.table({"a": pyarrow.array([1], pyarrow.duration("s"))}), mode="create")
    assert name not in streams(cursor)
    assert cursor.adbc_ingest(name, rows(10), mode="create") == 10
    for mode in ("append", "create_append"):
        with pytest.raises(Exception, match="at its end"):
            cursor.adbc_ingest(name, pyarrow.RecordBatchReader.from_batches(batch.schema, failing(3)), mode=mode)
        bad = [batch, batch.set_column(0, "id", pyarrow.array([1 << 63] * 1000, pyarrow.uint64()).cast(pyarrow.string()))]
        schema = bad[1].schema
        bad[0] = bad[0].set_column(0, "id", bad[0].column(0).cast(pyarrow.string()))
        with pytest.raises(adbc_driver_manager.Error, match="nothing was ingested: .*row 1: column \"id\""):
            cursor.adbc_ingest(name, pyarrow.RecordBatchReader.from_batches(schema, bad), mode=mode)
        assert scalar(cursor, f"SELECT count(*) FROM {name}") == 10
    with pytest.raises(Exception, match="at its end"):
        cursor.adbc_ingest(name, pyarrow.RecordBatchReader.from_batches(batch.schema, failing(1)), mode="replace")
    assert scalar(cursor, f"SELECT count(*) FROM {name}") == 10


def test_an_ingest_is_seen_whole(connect, cursor, name):
    """More than is kept in memory, into a stream that others read and write meanwhile."""
    create(cursor, name)
    cursor.execute(f"CREATE STREAM {name}_n AS SELECT count(*) AS n FROM {name}")
    batches = [batch for i in range(40) for batch in rows(50_000, start=i * 50_000).to_batches()]
    seen, done = set(), threading.Event()

    def look():
        with connect() as connection, connection.cursor() as other:
            while not done.is_set():
                seen.add(scalar(other, f"SELECT count(*) FROM {name}"))

    looking = threading.Thread(target=look)
    looking.start()
    for i in range(3):
        reader = pyarrow.RecordBatchReader.from_batches(batches[0].schema, batches)
        assert cursor.adbc_ingest(name, reader, mode="append") == 2_000_000
        cursor.execute(f"INSERT INTO {name} VALUES ({i}, 'between', 0)")
    cursor.execute("FLUSH")
    done.set()
    looking.join()
    assert scalar(cursor, f"SELECT n FROM {name}_n") == 6_000_003
    cursor.execute(f"DROP STREAM {name}_n")
    assert {n % 2_000_000 for n in seen} <= {0, 1, 2, 3}, seen


def test_a_big_result_arrives_whole(cursor, name):
    table = rows(1_000_000)
    cursor.adbc_ingest(name, in_batches(table), mode="create")
    cursor.execute(f"SELECT id, name, value FROM {name}")
    got = cursor.fetch_arrow_table().sort_by("id")
    assert got.equals(table.cast(got.schema))


def test_a_long_text(cursor, name):
    text = "x" * (6 << 20)
    cursor.adbc_ingest(name, pyarrow.table({"text": ["short", text, "short"]}), mode="create")
    cursor.execute(f"SELECT text FROM {name} ORDER BY length(text)")
    assert cursor.fetch_arrow_table().column("text").to_pylist() == ["short", "short", text]


# Changes


class Inserter(threading.Thread):
    """Inserts rows 0, 1, 2, … until it is stopped."""

    def __init__(self, connect, name):
        super().__init__(daemon=True)
        self.connect = connect
        self.name_of_stream = name
        self.stopped = threading.Event()
        self.inserted = 0

    def run(self):
        with self.connect() as connection, connection.cursor() as cursor:
            while not self.stopped.is_set():
                cursor.adbc_ingest(self.name_of_stream, rows(10, start=self.inserted), mode="append")
                self.inserted += 10
                time.sleep(0.02)

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.stopped.set()
        self.join(PATIENCE)


def test_follow_changes_with_adbc(connect, connection, name):
    with connection.cursor() as cursor:
        create(cursor, name)
    with Inserter(connect, name), connect() as other, other.cursor() as cursor:
        cursor.execute(f"SELECT id, name FROM {name} EMIT CHANGES")
        reader = cursor.fetch_record_batch()
        seen = []
        deadline = time.monotonic() + PATIENCE
        while len(seen) < 100:
            seen += reader.read_next_batch().column("id").to_pylist()
            assert time.monotonic() < deadline
        cursor.adbc_cancel()
        with pytest.raises(Exception, match="(?i)cancel"):
            while True:
                reader.read_next_batch()
    assert sorted(seen) == list(range(len(seen))), "every row once, none skipped"


# Raw Flight


def varint(number):
    out = b""
    while number > 0x7F:
        out += bytes([number & 0x7F | 0x80])
        number >>= 7
    return out + bytes([number])


def field(tag, data):
    return varint(tag << 3 | 2) + varint(len(data)) + data


def command(sql):
    """A `CommandStatementQuery` in an `Any`, as protobuf has them."""
    url = b"type.googleapis.com/arrow.flight.protocol.sql.CommandStatementQuery"
    return pyarrow.flight.FlightDescriptor.for_command(field(1, url) + field(2, field(1, sql.encode())))


@pytest.fixture
def raw(server):
    with pyarrow.flight.connect(f"grpc://{server.address}") as client:
        yield client


def test_raw_query(raw):
    info = raw.get_flight_info(command("SELECT 1 AS one, 'a' AS letter"))
    reader = raw.do_get(info.endpoints[0].ticket)
    assert reader.schema == info.schema
    assert reader.read_all().to_pydict() == {"one": [1], "letter": ["a"]}
    again = raw.do_get(info.endpoints[0].ticket)
    assert again.read_all().num_rows == 1, "a ticket can be redeemed twice"
    assert raw.get_schema(command("SELECT 1 AS one, 'a' AS letter")).schema == info.schema


def test_raw_put_and_get_by_path(raw, cursor, name):
    create(cursor, name)
    table = rows(1000)
    writer, _ = raw.do_put(pyarrow.flight.FlightDescriptor.for_path(name), table.schema)
    with writer:
        for batch in table.to_batches(max_chunksize=100):
            writer.write_batch(batch)
    info = raw.get_flight_info(pyarrow.flight.FlightDescriptor.for_path(name))
    got = raw.do_get(info.endpoints[0].ticket).read_all().sort_by("id")
    assert got.select(table.schema.names).equals(table.cast(got.schema))
    paths = [flight.descriptor.path for flight in raw.list_flights()]
    assert [b"public", name.encode()] in paths


def test_a_put_stays_open_and_acknowledges_batch_by_batch(raw, cursor, name):
    create(cursor, name)
    path = pyarrow.flight.FlightDescriptor.for_path(name)
    writer, reader = raw.do_put(path, rows(0).schema)
    told = []

    def acknowledged(metadata):
        field, value = metadata.to_pybytes()[:1], metadata.to_pybytes()[1:]
        assert field == b"\x08", "record_count of DoPutUpdateResult"
        return sum((byte & 0x7F) << (7 * i) for i, byte in enumerate(value))

    for i in range(5):
        writer.write_batch(rows(100, start=i * 100).to_batches()[0])
        told.append(acknowledged(reader.read()))
        # It is durable, and there for others, while the put goes on.
        assert scalar(cursor, f"SELECT count(*) FROM {name}") == told[-1]
    assert told == [100, 200, 300, 400, 500]
    # What does not fit ends the put; what was acknowledged stays.
    writer.close()
    schema = pyarrow.schema({"id": pyarrow.string()})
    writer, reader = raw.do_put(path, schema)
    writer.write_batch(pyarrow.record_batch([["1000"]], schema=schema))
    writer.write_batch(pyarrow.record_batch([["no number"]], schema=schema))
    with pytest.raises(pyarrow.lib.ArrowException, match="after 1 rows, which are committed.*no number"):
        while reader.read() is not None:
            pass
        writer.close()
    assert scalar(cursor, f"SELECT count(*) FROM {name}") == 501


def test_a_put_of_many_batches_that_nobody_acknowledges(raw, cursor, name):
    """A client that does not read what it is told is not held up."""
    create(cursor, name)
    writer, _ = raw.do_put(pyarrow.flight.FlightDescriptor.for_path(name), rows(0).schema)
    batch = rows(1).to_batches()[0]
    with writer:
        for _ in range(20_000):
            writer.write_batch(batch)
    assert scalar(cursor, f"SELECT count(*) FROM {name}") == 20_000


def test_raw_changes_carry_epoch_and_watermark(connect, raw, cursor, name):
    create(cursor, name)
    with Inserter(connect, name):
        info = raw.get_flight_info(command(f"SELECT id FROM {name} EMIT CHANGES"))
        reader = raw.do_get(info.endpoints[0].ticket)
        assert reader.schema == info.schema
        epochs = []
        while len(epochs) < 5:
            chunk = reader.read_chunk()
            # On the last batch of an epoch only.
            if chunk.app_metadata:
                note = json.loads(chunk.app_metadata.to_pybytes())
                assert {"epoch", "watermark", "watermark_text", "incarnation"} <= note.keys()
                epochs.append(note["epoch"])
        assert epochs == sorted(epochs)
        reader.cancel()
        with pytest.raises(pyarrow.flight.FlightCancelledError):
            while True:
                reader.read_chunk()


def test_what_nobody_waits_for_takes_no_time(server, connect, cursor, name):
    """Queries that are cancelled, and those of clients that are gone, end within half a second."""
    cursor.execute(f"CREATE STREAM {name} (x BIGINT)")
    cursor.execute(f"INSERT INTO {name} SELECT value FROM generate_series(1, 200000)")

    def busy():
        fields = open(f"/proc/{server.process.pid}/stat").read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    for query in (
        f"SELECT count(*) FROM {name} p, {name} q",
        f"SELECT count(*) FROM {name} p JOIN {name} q ON p.x + q.x < 0",
        f"SELECT p.x FROM {name} p JOIN {name} q ON p.x % 2 = q.x % 2 AND p.x + q.x < 0 ORDER BY 1",
        f"SELECT count(DISTINCT p.x * q.x) FROM {name} p, {name} q",
        "WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r WHERE n < 100000000) SELECT count(*) FROM r",
    ):
        with connect() as connection, connection.cursor() as other:

            def run():
                with pytest.raises(Exception):
                    other.execute(query)
                    other.fetchall()

            running = threading.Thread(target=run)
            running.start()
            time.sleep(0.5)
            before = busy()
            time.sleep(0.5)
            assert busy() - before > 0.02, f"it does not run: {query}"
            other.adbc_cancel()
            time.sleep(0.5)
            before = busy()
            time.sleep(0.5)
            assert busy() - before < 0.15, query
            running.join()


def test_raw_cancel_by_info(raw, cursor, name):
    cursor.adbc_ingest(name, rows(10), mode="create")
    info = raw.get_flight_info(command(f"SELECT id FROM {name} EMIT CHANGES"))
    reader = raw.do_get(info.endpoints[0].ticket)
    assert reader.read_chunk().data.num_rows == 10
    # CancelFlightInfoRequest { info = 1 }
    action = pyarrow.flight.Action("CancelFlightInfo", field(1, info.serialize()))
    (result,) = raw.do_action(action)
    assert result.body.to_pybytes() == b"\x08\x01", "CANCEL_STATUS_CANCELLED"
    with pytest.raises(pyarrow.flight.FlightCancelledError):
        while True:
            reader.read_chunk()
    with pytest.raises(pyarrow.lib.ArrowKeyError, match="does not run"):
        list(raw.do_action(action))


def test_raw_login(raw):
    header, value = raw.authenticate_basic_token("anybody", "anything")
    assert header == b"authorization" and value.startswith(b"Bearer ")
    options = pyarrow.flight.FlightCallOptions(headers=[(header, value)])
    info = raw.get_flight_info(command("SELECT 1"), options)
    assert raw.do_get(info.endpoints[0].ticket, options).read_all().num_rows == 1


def test_raw_errors_have_their_kind(raw):
    with pytest.raises(pyarrow.ArrowInvalid):
        raw.get_flight_info(command("SELEC 1"))
    with pytest.raises(pyarrow.ArrowNotImplementedError):
        raw.do_get(pyarrow.flight.Ticket(field(1, b"type.googleapis.com/unheard.of")))


def test_raw_actions(raw):
    actions = {action.type for action in raw.list_actions()}
    assert {"CreatePreparedStatement", "CancelFlightInfo", "SetSessionOptions", "CloseSession"} <= actions


# Prepared statements


def test_parameters(cursor, name):
    cursor.adbc_ingest(name, rows(100), mode="create")
    assert scalar(cursor, f"SELECT name FROM {name} WHERE id = $1", [42]) == "name 42"
    assert scalar(cursor, f"SELECT name FROM {name} WHERE id = ? AND name = ?", [7, "name 7"]) == "name 7"
    cursor.execute(f"SELECT id FROM {name} WHERE name = $1", ["no ' such"])
    assert cursor.fetchall() == []


def test_question_mark_in_text_is_no_parameter(cursor):
    assert scalar(cursor, "SELECT '?' || ? -- really?\n", ["!"]) == "?!"


def test_insert_with_parameters(cursor, name):
    cursor.execute(f"CREATE STREAM {name} (id BIGINT, note TEXT)")
    cursor.execute(f"INSERT INTO {name} VALUES ($1, $2)", [1, "one"])
    assert cursor.rowcount == 1
    cursor.executemany(f"INSERT INTO {name} VALUES (?, ?)", [(2, "two"), (3, None), (4, "four")])
    cursor.execute(f"SELECT id, note FROM {name} ORDER BY id")
    assert cursor.fetchall() == [(1, "one"), (2, "two"), (3, None), (4, "four")]


def test_parameter_schema(cursor, name):
    cursor.adbc_ingest(name, rows(1), mode="create")
    schema = cursor.adbc_prepare(f"SELECT * FROM {name} WHERE id = $1 AND name = $2")
    assert [field.type for field in schema] == [pyarrow.int64(), pyarrow.string()]


def test_schema_without_running(cursor, name):
    cursor.adbc_ingest(name, rows(1), mode="create")
    schema = cursor.adbc_execute_schema(f"SELECT id, name FROM {name}")
    assert schema.names == ["id", "name"]


# Metadata


def objects(connection, **options):
    return connection.adbc_get_objects(**options).read_all().to_pylist()


def test_objects_at_every_depth(connection, cursor, name):
    cursor.adbc_ingest(name, rows(1), mode="create")
    (catalog,) = objects(connection, depth="catalogs")
    assert catalog["catalog_name"] == "millstream"
    (catalog,) = objects(connection, depth="db_schemas")
    schemas = [schema["db_schema_name"] for schema in catalog["catalog_db_schemas"]]
    assert schemas == ["millstream", "public"]
    (catalog,) = objects(connection, depth="tables", db_schema_filter="public", table_name_filter=name)
    (schema,) = catalog["catalog_db_schemas"]
    (table,) = schema["db_schema_tables"]
    assert (table["table_name"], table["table_type"]) == (name, "TABLE")
    (catalog,) = objects(connection, depth="all", db_schema_filter="public", table_name_filter=name)
    (table,) = catalog["catalog_db_schemas"][0]["db_schema_tables"]
    columns = [(column["column_name"], column["xdbc_type_name"]) for column in table["table_columns"]]
    assert columns == [("id", "BIGINT"), ("name", "TEXT"), ("value", "DOUBLE PRECISION")]


def test_objects_by_type(connection, cursor, name):
    cursor.adbc_ingest(name, rows(1), mode="create")
    for types, found in ((["TABLE"], 1), (["VIEW"], 0)):
        catalogs = objects(connection, depth="tables", table_name_filter=name, table_types_filter=types)
        tables = [t for c in catalogs for s in c["catalog_db_schemas"] or [] for t in s["db_schema_tables"] or []]
        assert len(tables) == found
    assert connection.adbc_get_table_types() == ["EXTERNAL STREAM", "TABLE", "VIEW"]


def test_table_schema(connection, cursor, name):
    cursor.adbc_ingest(name, rows(1), mode="create")
    schema = connection.adbc_get_table_schema(name)
    assert schema.names == ["id", "name", "value"]
    assert schema.field("name").type == pyarrow.string()
    with pytest.raises(adbc_driver_manager.Error):
        connection.adbc_get_table_schema("no_such_stream")


def test_driver_info(connection):
    info = connection.adbc_get_info()
    assert info["vendor_name"] == "Millstream"


def test_there_are_no_transactions(server):
    with pytest.warns(Warning), flightsql.connect(f"grpc://{server.address}") as connection:
        with connection.cursor() as cursor:
            assert scalar(cursor, "SELECT 1") == 1


def test_session_options(connection):
    assert connection.adbc_current_catalog == "millstream"
    assert connection.adbc_current_db_schema == "public"
    connection.adbc_current_catalog = "millstream"
    with pytest.raises(adbc_driver_manager.Error):
        connection.adbc_current_catalog = "elsewhere"


def test_login(connect):
    with connect(username="anybody", password="anything") as connection, connection.cursor() as cursor:
        assert scalar(cursor, "SELECT 1") == 1


# pandas and SQLAlchemy


@pytest.fixture
def engine(server):
    engine = sqlalchemy.create_engine(f"adbc+flightsql://{server.address}/?tls=false")
    yield engine
    engine.dispose()


def test_pandas_through_sqlalchemy(engine, cursor, name):
    frame = pandas.DataFrame({"id": [1, 2, 3], "note": ["a", "b", None], "value": [0.5, 1.5, 2.5]})
    cursor.execute(f"CREATE STREAM {name} (id BIGINT, note TEXT, value DOUBLE)")
    frame.to_sql(name, engine, if_exists="append", index=False)
    got = pandas.read_sql(f"SELECT * FROM {name} ORDER BY id", engine)
    pandas.testing.assert_frame_equal(got, frame, check_dtype=False)
    query = sqlalchemy.text(f"SELECT note FROM {name} WHERE id = :id")
    with engine.connect() as connection:
        assert connection.execute(query, {"id": 2}).scalar() == "b"


def test_pandas_through_dbapi(connection, cursor, name):
    frame = pandas.DataFrame({"id": range(1000), "note": [f"note {i}" for i in range(1000)]})
    assert frame.to_sql(name, connection, index=False, if_exists="fail") == 1000
    frame.to_sql(name, connection, index=False, if_exists="append")
    assert scalar(cursor, f"SELECT count(*) FROM {name}") == 2000
    got = pandas.read_sql(f"SELECT * FROM {name} ORDER BY id", connection)
    assert len(got) == 2000 and got["note"][1] == "note 0"


def test_sqlalchemy_inspects(engine, cursor, name):
    cursor.adbc_ingest(name, rows(1), mode="create")
    # sqlalchemy-adbc 0.3.0 knows only tables of the type "table" (SQLite's), so it lists none of ours.
    inspector = sqlalchemy.inspect(engine)
    assert "public" in inspector.get_schema_names()


# The files


def test_files_are_plain_parquet(server, cursor, name):
    table = rows(10_000)
    cursor.adbc_ingest(name, table, mode="create")
    cursor.execute("FLUSH")
    folder = os.path.join(server.store, "streams", name)
    pattern = os.path.join(folder, "*.parquet")
    counted = duck(f"SELECT count(*), count(DISTINCT id), sum(value) FROM read_parquet('{pattern}')")
    assert counted == [(10_000, 10_000, sum(i * 0.5 for i in range(10_000)))]
    types = dict(duck(f"SELECT column_name, column_type FROM (DESCRIBE FROM read_parquet('{pattern}'))"))
    assert (types["id"], types["name"], types["value"]) == ("BIGINT", "VARCHAR", "DOUBLE")
    files = [os.path.join(folder, file) for file in os.listdir(folder) if file.endswith(".parquet")]
    read = pyarrow.concat_tables([pyarrow.parquet.read_table(file) for file in files])
    assert sorted(read.column("id").to_pylist()) == list(range(10_000))
