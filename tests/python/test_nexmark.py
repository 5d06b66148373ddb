"""The Nexmark queries: run continuously, killed in the middle, and equal to DuckDB over the same events."""

import os
import time

import duckdb
import pytest
from conftest import Server, run

EVENTS = int(os.environ.get("MILLSTREAM_EVENTS", 40_000))
FIRST = int(os.environ.get("MILLSTREAM_SEED", 1))
SEEDS = range(FIRST, FIRST + int(os.environ.get("MILLSTREAM_ROUNDS", 3)))

RANKS = """
  count(*) FILTER (WHERE price < 10000) AS r1, count(*) FILTER (WHERE price >= 10000 AND price < 1000000) AS r2,
  count(DISTINCT bidder) AS bidders, count(DISTINCT bidder) FILTER (WHERE price >= 1000000) AS rich,
  count(DISTINCT auction) AS auctions
"""
COUNTS = """
  SELECT auction, window_start, window_end, count(*) AS num
  FROM HOP(bid, date_time, INTERVAL '2 seconds', INTERVAL '10 seconds') GROUP BY auction, window_start, window_end
"""
TEN = "INTERVAL '10 seconds'"
CHANNELS = "lower(channel) WHEN 'apple' THEN '0' WHEN 'google' THEN '1' WHEN 'facebook' THEN '2' WHEN 'baidu' THEN '3'"
CHANNEL_ID = "(&|^)channel_id=([^&]*)"

# What Millstream runs, and what DuckDB says of all events; where both read alike, once.
QUERIES = {
    "q0": ("SELECT auction, bidder, price, date_time, extra FROM bid", None),
    "q1": ("SELECT auction, bidder, CAST(0.908 * price AS DECIMAL(18, 3)) AS price FROM bid", None),
    "q2": ("SELECT auction, price FROM bid WHERE auction % 123 = 0", None),
    "q3": (
        """SELECT p.name, p.city, p.state, a.id FROM auction a JOIN person p ON a.seller = p.id
           WHERE a.category = 10 AND p.state IN ('OR', 'ID', 'CA')""",
        None,
    ),
    "q4": (
        """SELECT category, sum(final) AS total, count(*) AS n FROM (
             SELECT a.id, a.category, max(b.price) AS final FROM auction a
             JOIN bid b ON a.id = b.auction AND b.date_time BETWEEN a.date_time AND a.expires GROUP BY a.id, a.category)
           GROUP BY category""",
        None,
    ),
    "q5": (
        f"""WITH counts AS ({COUNTS}) SELECT c.auction, c.num, c.window_end FROM counts c
            JOIN (SELECT window_start, window_end, max(num) AS most FROM counts GROUP BY window_start, window_end) m
            ON c.window_start = m.window_start AND c.window_end = m.window_end AND c.num = m.most EMIT ON WINDOW CLOSE""",
        """WITH w AS (SELECT auction, epoch_us(date_time) // 2000000 * 2 - 2 * k AS s FROM bid, range(5) AS t (k)),
             counts AS (SELECT s, auction, count(*) AS num FROM w GROUP BY ALL)
           SELECT auction, num, make_timestamp((s + 10) * 1000000) AS window_end FROM counts
           QUALIFY num = max(num) OVER (PARTITION BY s)""",
    ),
    "q6": (
        """SELECT seller, id, sum(price) OVER (PARTITION BY seller ORDER BY sold, id ROWS BETWEEN 9 PRECEDING AND CURRENT ROW) AS ten
           FROM (SELECT a.seller, a.id, b.price, b.date_time AS sold
                 FROM auction a JOIN bid b ON a.id = b.auction AND b.date_time BETWEEN a.date_time AND a.expires
                 QUALIFY row_number() OVER (PARTITION BY a.id ORDER BY b.price DESC, b.date_time, b.bidder) = 1)""",
        None,
    ),
    "q7": (
        f"""SELECT b.auction, b.bidder, b.price, b.date_time FROM bid b
            JOIN (SELECT window_start, window_end, max(price) AS top FROM TUMBLE(bid, date_time, {TEN}) GROUP BY window_start, window_end) m
            ON b.price = m.top AND b.date_time >= m.window_start AND b.date_time < m.window_end""",
        """SELECT auction, bidder, price, date_time FROM bid
           QUALIFY price = max(price) OVER (PARTITION BY epoch_us(date_time) // 10000000)""",
    ),
    "q8": (
        f"""SELECT p.id, p.name, p.window_start FROM
              (SELECT id, name, window_start, window_end FROM TUMBLE(person, date_time, {TEN}) GROUP BY id, name, window_start, window_end) p
            JOIN (SELECT seller, window_start, window_end FROM TUMBLE(auction, date_time, {TEN}) GROUP BY seller, window_start, window_end) a
            ON p.id = a.seller AND p.window_start = a.window_start AND p.window_end = a.window_end""",
        """SELECT DISTINCT p.id, p.name, make_timestamp(epoch_us(p.date_time) // 10000000 * 10000000) AS window_start
           FROM person p JOIN auction a ON p.id = a.seller AND epoch_us(p.date_time) // 10000000 = epoch_us(a.date_time) // 10000000""",
    ),
    "q9": (
        """SELECT a.id, a.item_name, a.seller, a.category, b.bidder, b.price, b.date_time
           FROM auction a JOIN bid b ON a.id = b.auction AND b.date_time BETWEEN a.date_time AND a.expires
           QUALIFY row_number() OVER (PARTITION BY a.id ORDER BY b.price DESC, b.date_time, b.bidder) = 1""",
        None,
    ),
    "q11": (
        f"""SELECT bidder, count(*) AS n, window_start, window_end FROM SESSION(bid, date_time, {TEN}, PARTITION BY bidder)
            GROUP BY bidder, window_start, window_end""",
        f"""SELECT bidder, count(*) AS n, min(date_time) AS window_start, max(date_time) + {TEN} AS window_end FROM (
              SELECT bidder, date_time, sum(begins) OVER (PARTITION BY bidder ORDER BY date_time) AS session FROM (
                SELECT bidder, date_time, CASE WHEN date_time < lag(date_time) OVER (PARTITION BY bidder ORDER BY date_time) + {TEN}
                  THEN 0 ELSE 1 END AS begins FROM bid)) GROUP BY bidder, session""",
    ),
    "q12": (
        f"SELECT bidder, count(*) AS n, window_end FROM TUMBLE(bid, date_time, {TEN}) GROUP BY bidder, window_end",
        """SELECT bidder, count(*) AS n, make_timestamp(epoch_us(date_time) // 10000000 * 10000000 + 10000000) AS window_end
           FROM bid GROUP BY ALL""",
    ),
    "q13": (
        """SELECT b.auction, b.bidder, b.price, s.value FROM bid b
           JOIN side_input FOR SYSTEM_TIME AS OF PROCTIME() AS s ON b.auction % 100 = s.key""",
        "SELECT b.auction, b.bidder, b.price, s.value FROM bid b JOIN side_input s ON b.auction % 100 = s.key",
    ),
    "q14": (
        """SELECT auction, bidder, CAST(0.908 AS DECIMAL(4, 3)) * price AS price,
             CASE WHEN date_part('hour', date_time) BETWEEN 8 AND 18 THEN 'dayTime'
                  WHEN date_part('hour', date_time) <= 6 OR date_part('hour', date_time) >= 20 THEN 'nightTime' ELSE 'otherTime' END AS part,
             date_time, extra, character_length(extra) - character_length(replace(extra, 'c', '')) AS c_counts
           FROM bid WHERE CAST(0.908 AS DECIMAL(4, 3)) * price > 1000000 AND CAST(0.908 AS DECIMAL(4, 3)) * price < 50000000""",
        None,
    ),
    "q15": (f"SELECT CAST(date_time AS DATE) AS day, count(*) AS n, {RANKS} FROM bid GROUP BY CAST(date_time AS DATE)", None),
    "q16": (
        f"""SELECT channel, CAST(date_time AS DATE) AS day, max(to_char(date_time, '%H:%M')) AS minute, {RANKS}
            FROM bid GROUP BY channel, CAST(date_time AS DATE)""",
        f"""SELECT channel, CAST(date_time AS DATE) AS day, max(strftime(date_time, '%H:%M')) AS minute, {RANKS}
            FROM bid GROUP BY channel, CAST(date_time AS DATE)""",
    ),
    "q17": (
        """SELECT auction, CAST(date_time AS DATE) AS day, count(*) AS n, min(price) AS lo, max(price) AS hi, sum(price) AS s
           FROM bid GROUP BY auction, CAST(date_time AS DATE)""",
        None,
    ),
    "q18": (
        """SELECT auction, bidder, price, date_time FROM bid
           QUALIFY row_number() OVER (PARTITION BY bidder, auction ORDER BY date_time DESC, price DESC) = 1""",
        None,
    ),
    "q19": (
        """SELECT auction, bidder, price, date_time, row_number() OVER (PARTITION BY auction ORDER BY price DESC, date_time, bidder) AS n
           FROM bid QUALIFY n <= 10""",
        None,
    ),
    "top": ("SELECT auction, bidder, price FROM bid ORDER BY price DESC, auction, bidder LIMIT 20 OFFSET 3", None),
    "q20": (
        """SELECT b.auction, b.bidder, b.price, b.url, b.date_time, a.item_name, a.reserve, a.expires, a.category
           FROM bid b JOIN auction a ON b.auction = a.id WHERE a.category = 10""",
        None,
    ),
    "q21": (
        f"""SELECT auction, bidder, price, channel, CASE {CHANNELS} ELSE (regexp_match(url, '{CHANNEL_ID}'))[2] END AS channel_id FROM bid
            WHERE (regexp_match(url, '{CHANNEL_ID}'))[2] IS NOT NULL OR lower(channel) IN ('apple', 'google', 'facebook', 'baidu')""",
        f"""SELECT auction, bidder, price, channel, CASE {CHANNELS} ELSE regexp_extract(url, '{CHANNEL_ID}', 2) END AS channel_id FROM bid
            WHERE regexp_matches(url, '{CHANNEL_ID}') OR lower(channel) IN ('apple', 'google', 'facebook', 'baidu')""",
    ),
    "q22": ("SELECT auction, split_part(url, '/', 4) AS a, split_part(url, '/', 5) AS b FROM bid", None),
    "q23": (
        """SELECT b.bidder, b.price, p.name, p.city, a.item_name, a.category
           FROM bid b JOIN person p ON p.id = b.bidder JOIN auction a ON a.seller = b.bidder""",
        None,
    ),
}


SIDE = [(key, f"value {key}") for key in range(0, 100, 3)]


def tables(seed, ooo, pace):
    mark = "WATERMARK FOR date_time AS date_time - INTERVAL '4 seconds'"
    options = f"connector = 'nexmark', events = {EVENTS}, rate = 1000, seed = {seed}, ooo = {ooo}, pace = {pace}"
    return [f"CREATE STREAM {table} ({mark}) WITH ({options}, table = '{table}')" for table in ("bid", "auction", "person")]


@pytest.mark.parametrize("seed", SEEDS)
def test_all_queries_are_those_of_duckdb(tmp_path, seed):
    ooo, parallelism = (1, 1000, 100)[seed % 3], (1, 2, 4)[seed % 3]
    store = tmp_path / "store"
    (tmp_path / "side.csv").write_text("key,value\n" + "".join(f"{key},{value}\n" for key, value in SIDE))
    server = Server(store, "--parallelism", parallelism)
    with server.connect() as connection, connection.cursor() as cursor:
        cursor.executescript(f"CREATE STREAM side_input (key BIGINT, value TEXT) WITH (connector = 'file', path = '{tmp_path}/side.csv')")
        for statement in tables(seed, ooo, EVENTS // 4):
            cursor.executescript(statement)
        for name, (sql, _) in QUERIES.items():
            cursor.executescript(f"CREATE STREAM {name} AS {sql}")
        time.sleep(1.5)
    server.kill()
    copies = "".join(f"COPY (SELECT * FROM {name}) TO '{tmp_path}/{name}.parquet';" for name in QUERIES)
    tables_out = "".join(f"COPY (SELECT * FROM {t}) TO '{tmp_path}/{t}.parquet';" for t in ("bid", "auction", "person"))
    run(store, f"FLUSH; {copies} {tables_out}", patience=240)
    with duckdb.connect() as duck:
        for table in ("bid", "auction", "person"):
            duck.execute(f"CREATE VIEW {table} AS FROM '{tmp_path}/{table}.parquet'")
        duck.execute(f"CREATE VIEW side_input AS FROM '{tmp_path}/side.csv'")
        for name, (sql, reference) in QUERIES.items():
            found, expected = f"FROM '{tmp_path}/{name}.parquet'", reference or sql
            rows = duck.execute(f"SELECT count(*) FROM ({found})").fetchone()[0]
            missing = duck.execute(f"({expected}) EXCEPT ALL ({found}) LIMIT 5").fetchall()
            extra = duck.execute(f"({found}) EXCEPT ALL ({expected}) LIMIT 5").fetchall()
            assert not missing and not extra and rows, f"{name}, seed {seed}: {missing} are missing, {extra} are too many of {rows}"
