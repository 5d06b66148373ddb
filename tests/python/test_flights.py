"""Windows over flights: what `millstream run` keeps is what DuckDB answers in batch, exactly, at any parallelism."""

import functools
import gzip
import os
import random

import duckdb
import pytest
from conftest import REPO, parquet, run

SEED = 20010101
COLUMNS = "date TIMESTAMP, delay BIGINT, distance BIGINT, origin TEXT, destination TEXT"
FIGURES = """count(*) AS n, count({delay}) AS known, count(DISTINCT {destination}) AS places, sum({delay}) AS total,
    avg({delay}) AS mean, min({delay}) AS least, max({delay}) AS most, sum({distance}) AS way"""

COMPARED = "origin, window_start, window_end, n, known, places, total, mean, least, most, way"


def figures(delay="delay", distance="distance", destination="destination"):
    return FIGURES.format(delay=delay, distance=distance, destination=destination)


def windows(source, time, figures):
    """Both continuous queries."""
    return f"""
CREATE STREAM hourly AS
SELECT origin, window_start, window_end, {figures}
FROM TUMBLE({source}, {time}, INTERVAL '1 hour')
GROUP BY origin, window_start, window_end
EMIT ON WINDOW CLOSE;

CREATE STREAM daily AS
SELECT origin, window_start, window_end, {figures}
FROM HOP({source}, {time}, INTERVAL '1 hour', INTERVAL '24 hours')
GROUP BY origin, window_start, window_end
EMIT ON WINDOW CLOSE;
"""


class Expected:
    """What DuckDB makes of `rows`, once for all parallelisms."""

    def __init__(self, rows, time, figures):
        self.duck = duckdb.connect()
        self.duck.execute("SET timezone = 'UTC'")
        for stream, hours in (("hourly", 1), ("daily", 24)):
            # the windows of a row begin at its hour and at those before it
            self.duck.execute(f"""
                CREATE TABLE {stream} AS
                SELECT origin, window_start, window_start + INTERVAL {hours} HOUR AS window_end, {figures}
                FROM (SELECT *, date_trunc('hour', {time}::TIMESTAMP) - to_hours(back) AS window_start
                      FROM {rows}, range({hours}) AS r(back))
                GROUP BY origin, window_start""")

    def compare(self, store):
        """Asserts that the files in `store` hold the same rows."""
        for stream in ("hourly", "daily"):
            got = f"read_parquet('{parquet(store, stream)}')"
            counts = self.duck.execute(f"SELECT (SELECT count(*) FROM {stream}), (SELECT count(*) FROM {got})").fetchone()
            for one, other, what in ((stream, got, "missing"), (got, stream, "too much")):
                rest = self.duck.execute(f"SELECT {COMPARED} FROM {one} EXCEPT ALL SELECT {COMPARED} FROM {other} LIMIT 3")
                rest = rest.fetchall()
                assert not rest, f"{stream}: {what} of {counts}: {rest}"
            assert counts[0] == counts[1] > 0


@functools.cache
def expected(rows, time, figures):
    return Expected(rows, time, figures)


def check_parquet(store, file, parallelism):
    sql = f"""
CREATE STREAM flights ({COLUMNS}, WATERMARK FOR date AS date - INTERVAL '1 hour')
WITH (connector = 'file', format = 'parquet', path = '{file}');
{windows("flights", "date", figures())}"""
    run(store, sql, "--parallelism", parallelism)
    expected(f"read_parquet('{file}')", "date", figures()).compare(store)


@pytest.mark.parametrize("parallelism", [1, 2, 4])
def test_the_demo_month(store, parallelism):
    check_parquet(store, REPO / "cli" / "demo" / "flights.parquet", parallelism)


@pytest.fixture(scope="module")
def millions(tmp_path_factory):
    """A month of three million flights in many row groups; MILLSTREAM_FLIGHTS may name another file."""
    if named := os.environ.get("MILLSTREAM_FLIGHTS"):
        return named
    file = tmp_path_factory.mktemp("flights") / "millions.parquet"
    with duckdb.connect() as duck:
        # in order of time by the second, as schedules are; some delays are not known
        duck.execute(f"""
            COPY (
                SELECT TIMESTAMP '2001-01-01 05:00:00' + to_seconds(i - i % 60) AS date,
                       CASE WHEN h % 50 <> 0 THEN (h % 1000)::BIGINT * (h % 7)::BIGINT // 6 - 60 END AS delay,
                       (100 + h // 1000 % 2500)::BIGINT AS distance,
                       'A' || lpad((sqrt(h // 64 % 3600)::BIGINT)::VARCHAR, 3, '0') AS origin,
                       'A' || lpad((h // 4096 % 250)::VARCHAR, 3, '0') AS destination
                FROM (SELECT i, hash(i + {SEED}) AS h FROM range(3_000_000) AS r(i))
            ) TO '{file}' (FORMAT parquet, ROW_GROUP_SIZE 122_880)""")
    return file


@pytest.mark.parametrize("parallelism", [1, 2, 4])
def test_three_million_flights(store, millions, parallelism):
    check_parquet(store, millions, parallelism)


NYC = """year BIGINT, month BIGINT, day BIGINT, dep_time BIGINT, sched_dep_time BIGINT, dep_delay BIGINT, arr_time BIGINT,
    sched_arr_time BIGINT, arr_delay BIGINT, carrier TEXT, flight BIGINT, tailnum TEXT, origin TEXT, dest TEXT,
    air_time BIGINT, distance BIGINT, hour BIGINT, minute BIGINT, time_hour TIMESTAMP"""


@pytest.fixture(scope="module")
def new_york(tmp_path_factory):
    """A file as of flights from New York: 19 columns, gzip, NA where a value is not known, not in order of time within
    a day; MILLSTREAM_NYC_FLIGHTS may name another. Gives it with the bound of its disorder."""
    if named := os.environ.get("MILLSTREAM_NYC_FLIGHTS"):
        return named, "1 year"  # its months go 1, 10, 11, 12, 2, …
    file = tmp_path_factory.mktemp("nyc") / "flights.csv.gz"
    chance = random.Random(SEED)
    names = [column.split()[0] for column in NYC.split(",")]
    with gzip.open(file, "wt", compresslevel=1) as out:
        print(",".join(names), file=out)
        for i in range(60_000):
            day = i // 1000
            month, day, hour, minute = 1 + day // 28, 1 + day % 28, chance.randint(5, 23), chance.randrange(60)
            flown = chance.random() > 0.03
            delay = chance.randint(-20, 120)
            departed = [hour * 100 + minute, hour * 100, delay] if flown else ["NA", hour * 100, "NA"]
            arrived = [hour * 100 + 59, hour * 100 + 58, delay - 5] if flown else ["NA", hour * 100 + 58, "NA"]
            row = [2013, month, day, *departed, *arrived, chance.choice(["UA", "AA", "B6", "DL"]), chance.randint(1, 6000)]
            row += [f"N{chance.randint(100, 999)}XX" if flown else "NA", chance.choice(["EWR", "JFK", "LGA"])]
            row += [chance.choice(["IAH", "MIA", "BQN", "ATL", "ORD"]), chance.randint(40, 400) if flown else "NA"]
            row += [chance.randint(200, 2500), hour, minute, f"2013-{month:02}-{day:02}T{hour:02}:00:00Z"]
            print(",".join(map(str, row)), file=out)
    return file, "2 days"


@pytest.mark.parametrize("parallelism", [1, 2, 4])
def test_compressed_csv_with_na(store, new_york, parallelism):
    file, disorder = new_york
    run(
        store,
        f"""
CREATE STREAM flights ({NYC}, WATERMARK FOR time_hour AS time_hour - INTERVAL '{disorder}')
WITH (connector = 'file', format = 'csv', path = '{file}', header = true, null_values = 'NA');
{windows("flights", "time_hour", figures("dep_delay", "distance", "dest"))}""",
        "--parallelism",
        parallelism,
    )
    rows = f"read_csv('{file}', nullstr = 'NA', header = true)"
    expected(rows, "time_hour", figures("dep_delay", "distance", "dest")).compare(store)
