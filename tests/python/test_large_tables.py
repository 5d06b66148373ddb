"""Tables in one batch that is larger than the messages that the ADBC driver takes: the README says what to do."""

import re

import adbc_driver_flightsql
import adbc_driver_manager
import pyarrow
import pytest
from conftest import REPO

README = (REPO / "README.md").read_text()
OPTION = adbc_driver_flightsql.DatabaseOptions.WITH_MAX_MSG_SIZE.value
ROWS = 3_000_000
TABLE = pyarrow.table({"id": pyarrow.array(range(ROWS))})


def test_a_large_table_in_one_batch(server):
    assert f'"{OPTION}": str(1 << 30)' in README
    with server.connect(**{OPTION: str(1 << 30)}) as connection, connection.cursor() as cursor:
        assert cursor.adbc_ingest("large_at_once", TABLE, mode="create") == ROWS
        cursor.execute("SELECT count(*), sum(id), array_agg(id) FROM large_at_once")
        row = cursor.fetch_arrow_table()
        assert row["count(*)"][0].as_py() == ROWS
        assert len(row.column(2)[0]) == ROWS
        cursor.execute("DROP STREAM large_at_once")


def test_a_large_table_in_batches(server):
    assert re.search(r"table\.to_reader\(max_chunksize=100_000\)", README)
    with server.connect() as connection, connection.cursor() as cursor:
        # the driver's own limit, which is why the README has a word on it
        with pytest.raises(adbc_driver_manager.Error, match="larger than max"):
            cursor.adbc_ingest("large_refused", TABLE, mode="create")
        cursor.execute("DROP STREAM IF EXISTS large_refused")
        assert cursor.adbc_ingest("large_in_batches", TABLE.to_reader(max_chunksize=100_000), mode="create") == ROWS
        cursor.execute("SELECT * FROM large_in_batches")
        assert cursor.fetch_arrow_table().num_rows == ROWS
        cursor.execute("DROP STREAM large_in_batches")
