"""Exact decimals and whole numbers, from the literal to the Parquet file: in batch, as a stream, over Flight."""

from decimal import Decimal

import adbc_driver_manager
import pyarrow
import pytest
from conftest import Server, duck, parquet

OFTEN = ("--checkpoint-interval", "50ms")


@pytest.fixture
def own(store):
    with Server(store, *OFTEN) as server:
        yield server


@pytest.fixture
def cursor(own):
    with own.connect() as connection, connection.cursor() as cursor:
        yield cursor


def rows(cursor, sql):
    cursor.execute(sql)
    return cursor.fetchall()


def execute(cursor, *statements):
    for statement in statements:
        cursor.execute(statement)


def test_literals_beyond_a_double_are_kept(cursor, own):
    execute(
        cursor,
        "CREATE STREAM t (id BIGINT, d DECIMAL(20, 2))",
        "INSERT INTO t VALUES (1, 123456789012345678.91), (2, 1.005), (3, -0.5)",
    )
    assert rows(cursor, "SELECT d FROM t ORDER BY id") == [
        (Decimal("123456789012345678.91"),),
        (Decimal("1.01"),),
        (Decimal("-0.50"),),
    ]
    assert rows(cursor, "SELECT id FROM t WHERE d = 123456789012345678.91") == [(1,)]
    assert rows(cursor, "SELECT id FROM t WHERE d = 123456789012345678.90") == []
    found = duck("SELECT d FROM read_parquet(?) ORDER BY id", parquet(own.store, "t"))
    assert found[0] == (Decimal("123456789012345678.91"),)


def test_constants(cursor):
    query = """SELECT 0.1 + 0.2 = 0.3, 9007199254740993 = 9007199254740992.0, 0.1e0 + 0.2e0 = 0.3, 1.5 * 1.1,
      2 / 3.0, 1.005::DECIMAL(20, 2), 2.5::BIGINT, 1e20::DOUBLE > 0.5"""
    expected = (True, False, False, Decimal("1.65"), Decimal("0.6666666666666667"), Decimal("1.01"), 3, True)
    assert rows(cursor, query) == [expected]


BOTH = """SELECT id, price * 1.1 AS up, price / 3 AS third, x * 1.1 AS float, x > 0.5 AS larger, coalesce(x, 0.5) AS filled,
  price + n AS total, n = price AS same, TRY_CAST(x AS BIGINT) AS whole FROM items WHERE price < 1e6 AND n <> 2.5"""


def test_batch_and_stream_agree(cursor):
    execute(
        cursor,
        "CREATE STREAM items (id BIGINT, price DECIMAL(10, 2), x DOUBLE, n BIGINT)",
        f"CREATE STREAM derived AS {BOTH}",
        """INSERT INTO items VALUES (1, 10.05, 1e20, 7), (2, -0.01, 1e-20, 9007199254740993), (3, NULL, 'NaN', 1), (4, 2.00, NULL, 2),
          (5, 1.99, 2.5, 1)""",
        "FLUSH",
    )
    expected = [
        (1, Decimal("11.055"), Decimal("3.3500000000000000"), 1.1e20 + 2**14, True, 1e20, Decimal("17.05"), False),
        (2, Decimal("-0.011"), Decimal("-0.0033333333333333"), 1.1e-20, False, 1e-20, Decimal("9007199254740992.99"), False),
        (4, Decimal("2.200"), Decimal("0.6666666666666667"), None, None, 0.5, Decimal("4.00"), True),
        (5, Decimal("2.189"), Decimal("0.6633333333333333"), 2.75, True, 2.5, Decimal("2.99"), False),
    ]
    columns = "id, up, third, float, larger, filled, total, same"
    for source in (f"({BOTH})", "derived"):
        assert rows(cursor, f"SELECT {columns} FROM {source} ORDER BY id") == expected, source
        assert rows(cursor, f"SELECT whole FROM {source} ORDER BY id") == [(None,), (0,), (None,), (2,)], source


@pytest.mark.parametrize(
    "value, message",
    [("2.999", "2.999"), ("2.5e0", "2.5"), ("-0.1", "-0.1"), ("'2.5'", "2.5"), ("10 / 4.0", "2.5")],
)
def test_a_fraction_is_not_lost(cursor, value, message):
    execute(cursor, "CREATE STREAM whole (n BIGINT)")
    for sql in (f"INSERT INTO whole VALUES (1), ({value})", f"INSERT INTO whole SELECT {value}"):
        with pytest.raises(adbc_driver_manager.Error, match='column "n" of stream "whole"') as error:
            cursor.execute(sql)
        assert message in str(error.value)
    assert rows(cursor, "SELECT count(*) FROM whole") == [(0,)], "nothing of a refused INSERT goes in"
    execute(cursor, f"INSERT INTO whole VALUES (CAST(round({value}::DOUBLE) AS BIGINT)), (3.0), (4e0)")
    assert rows(cursor, "SELECT count(*), max(n) FROM whole") == [(3, 4)]


def test_ingested_rows_are_taken_as_they_are(cursor):
    execute(cursor, "CREATE STREAM t (n BIGINT, d DECIMAL(20, 2), l BIGINT[])")
    good = pyarrow.table({"n": [1.0, 2.0], "d": [3.12, None], "l": [[1.0], None]})
    assert cursor.adbc_ingest("t", good, mode="append") == 2
    wrong = [
        ({"n": [1.0, 2.999]}, 'stream "t", row 2: column "n": 2.999'),
        ({"n": pyarrow.array([Decimal("2.50")])}, 'column "n": 2.50'),
        ({"d": [3.1234]}, 'column "d": 3.1234'),
        ({"l": [[1.0, 1.5]]}, "1.5"),
    ]
    for columns, message in wrong:
        with pytest.raises(adbc_driver_manager.Error, match=message):
            cursor.adbc_ingest("t", pyarrow.table(columns), mode="append")
    assert rows(cursor, "SELECT n, d FROM t ORDER BY n") == [(1, Decimal("3.12")), (2, None)]


def test_parameters_are_values_like_others(cursor):
    execute(cursor, "CREATE STREAM t (n BIGINT, d DECIMAL(20, 2), x DOUBLE)")
    cursor.executemany("INSERT INTO t VALUES (?, ?, ?)", [(1, Decimal("1.25"), 0.5), (2, Decimal("2.50"), 1e20)])
    with pytest.raises(adbc_driver_manager.Error, match="2.5"):
        cursor.execute("INSERT INTO t VALUES (?, ?, ?)", (2.5, Decimal("1.25"), 0.5))
    cursor.execute("SELECT n FROM t WHERE x > ?", (Decimal("0.5"),))
    assert cursor.fetchall() == [(2,)]
    cursor.execute("SELECT n FROM t WHERE d > ?", (1.5,))
    assert cursor.fetchall() == [(2,)]


def test_a_watermark_and_a_view_with_decimals(cursor):
    execute(
        cursor,
        """CREATE STREAM w (at TIMESTAMP, v DECIMAL(10, 2),
          WATERMARK FOR at AS CASE WHEN date_part('second', at) > 0.5 THEN at ELSE at - INTERVAL '1 second' END)""",
        "CREATE VIEW up AS SELECT v * 1.1, v > 0.5e0 AS big FROM w",
        "INSERT INTO w VALUES ('2026-01-01 00:00:01', 2.00)",
    )
    assert rows(cursor, 'SELECT "v * 1.1", big FROM up') == [(Decimal("2.200"), True)]
