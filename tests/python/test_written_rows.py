"""Literals and parameters of an INSERT, of which columns are made at once, say what they say when they are planned: in parentheses."""

import datetime
import decimal
import itertools
import re

import adbc_driver_manager
import pyarrow
import pytest

TYPES = ["BIGINT", "TINYINT", "BIGINT UNSIGNED", "DOUBLE", "REAL", "DECIMAL(10, 2)", "BOOLEAN", "TEXT", "TIMESTAMP(3)", "DATE"]
LITERALS = [
    "0", "1", "-1", "007", "127", "128", "-128", "300", "65536", "4294967296", "9223372036854775807", "-9223372036854775808",
    "9223372036854775808", "18446744073709551616", "123456789012345678901234567890123456789", "1.5", "-1.5", "-0.0", ".5", "2.", "0.1",
    "1.005", "1.995", "99999999.995", "123456789.12", "12345678901234567890.12345678901234567", "0.12345678901234567890123456789012345678",
    "1e3", "1e400", "1_000", "true", "FALSE", "NULL", "''", "'a'", "'it''s'", "'1'", "'1.5'", "'true'", "' 7 '",
    "'2026-01-02'", "'2026-01-02 03:04:05.678901'", "'2026-01-02T03:04:05Z'", "'2026-01-02 03:04:05+02:00'", "'2026-13-02'", "'03:04:05'",
    "'1 day'", "'9999-12-31 00:00:00'", "'0001-01-01'", "'262143-01-01'", "-(-1)", "X'01'", "E'a\\nb'", "$$a$$", "DATE '2026-01-02'",
]  # fmt: skip
# Columns of several rows, since it goes by all of them which way a column is made.
COLUMNS = [
    ("1", "2.25", "NULL"), ("1.5", "2.25", "-3"), ("1", "'2'", "3"), ("'a'", "NULL", "'b'"), ("1", "1e3", "2.5"), ("true", "NULL", "false"),
    ("NULL", "NULL"), ("99999999", "0.005", "1"), ("'2026-01-02'", "'2026-01-03 00:00:01'"), ("12345678901234567890123456789", "0.1234567891"),
    ("1", "1.0", "nothing"),
]  # fmt: skip
VALUES = [
    pyarrow.array([1, None, -7], pyarrow.int64()),
    pyarrow.array([1, 300, None], pyarrow.int16()),
    pyarrow.array([2**63], pyarrow.uint64()),
    pyarrow.array([1.0, None, -0.0], pyarrow.float64()),
    pyarrow.array([1.5, float("nan")], pyarrow.float64()),
    pyarrow.array([1e300, float("inf")], pyarrow.float64()),
    pyarrow.array([0.1], pyarrow.float32()),
    pyarrow.array([decimal.Decimal("1.25"), decimal.Decimal("-3.00"), None], pyarrow.decimal128(20, 2)),
    pyarrow.array([decimal.Decimal("0.1")], pyarrow.decimal128(38, 20)),
    pyarrow.array(["a", None, ""], pyarrow.string()),
    pyarrow.array(["1", "2.5"], pyarrow.large_string()),
    pyarrow.array(["2026-01-02", "2026-01-02 03:04:05"], pyarrow.string()),
    pyarrow.array(["x"], pyarrow.string()).dictionary_encode(),
    pyarrow.array([True, None, False], pyarrow.bool_()),
    pyarrow.array([None, None], pyarrow.null()),
    pyarrow.array([datetime.datetime(2026, 1, 2, 3, 4, 5, 678901)], pyarrow.timestamp("us")),
    pyarrow.array([datetime.datetime(2026, 1, 2, 3, 4, 5)], pyarrow.timestamp("ns", "Europe/Berlin")),
    pyarrow.array([datetime.date(2026, 1, 2), None], pyarrow.date32()),
    pyarrow.array([b"\x01"], pyarrow.binary()),
    pyarrow.array([], pyarrow.int64()),
]


def answer(cursor, stream, sql, parameters=None):
    """What the rows of an INSERT are, or why it was refused."""
    try:
        cursor.execute(sql, parameters)
        cursor.fetchall()
        # Some values are too far away for text.
        cursor.execute(f"SELECT k, v::TEXT, arrow_typeof(v) FROM {stream} ORDER BY 1")
        return repr(cursor.fetchall())
    except adbc_driver_manager.Error as error:
        return str(error)


def name_of(type_name):
    return "written_" + "".join(c if c.isalnum() else "_" for c in type_name.lower())


@pytest.mark.parametrize("type_name", TYPES)
def test_rows_are_what_a_plan_makes_of_them(server, type_name):
    plain, planned = name_of(type_name), name_of(type_name) + "_planned"
    seen = []
    with server.connect() as connection, connection.cursor() as cursor:
        # Each answer is that of all rows so far.
        for stream in (plain, planned):
            cursor.execute(f"CREATE STREAM {stream} (k TEXT PRIMARY KEY, v {type_name})")
        for column in itertools.chain(((literal,) for literal in LITERALS), COLUMNS):
            one, other = (
                answer(cursor, stream, f"INSERT INTO {stream} VALUES " + ", ".join(f"('k{i}', {way % v})" for i, v in enumerate(column)))
                for stream, way in ((plain, "%s"), (planned, "(%s)"))
            )
            assert told(one) == told(other.replace(planned, plain)), column
            seen.append(refused(one))
        for values in VALUES:
            keys = pyarrow.array([f"p{i}" for i in range(len(values))], pyarrow.string())
            batch = pyarrow.record_batch([values, keys], ["v", "k"])
            one, other = (
                answer(cursor, stream, f"INSERT INTO {stream} (v, k) VALUES ({way}, ?)", batch)
                for stream, way in ((plain, "?"), (planned, "(?)"))
            )
            # The server knows what a parameter is for where it stands alone, and refuses what is of another type itself.
            assert one == other or (refused(one) and refused(other)), values
            seen.append(refused(one))
        assert any(seen) and not all(seen)
        for stream in (plain, planned):
            cursor.execute(f"DROP STREAM {stream}")


def refused(answer):
    return not answer.startswith("[")


def told(answer):
    """An error without where it stands, which differs by the parentheses."""
    return re.sub(r"column \d+|[()^ ]", "", answer) if refused(answer) else answer
