//! The Nexmark queries in Millstream's SQL, as far as they run continuously today.
//!
//! Of q5, q7 and q11 the aggregates: what they join or sessionise comes later. q12 counts by event time.

/// A query: its name, and its text over `bid`, `auction` and `person`.
pub(crate) struct BenchQuery {
    pub(crate) name: &'static str,
    pub(crate) sql: &'static str,
}

/// The queries in order.
pub(crate) const QUERIES: [BenchQuery; 12] = [
    BenchQuery { name: "q0", sql: "SELECT auction, bidder, price, date_time, extra FROM bid" },
    BenchQuery {
        name: "q1",
        sql: "SELECT auction, bidder, CAST(0.908 AS DECIMAL(4, 3)) * price AS price, date_time, extra FROM bid",
    },
    BenchQuery { name: "q2", sql: "SELECT auction, price FROM bid WHERE auction % 123 = 0" },
    BenchQuery {
        name: "q5",
        sql: "SELECT auction, window_start, window_end, count(*) AS num \
              FROM HOP(bid, date_time, INTERVAL '2 seconds', INTERVAL '10 seconds') \
              GROUP BY auction, window_start, window_end EMIT ON WINDOW CLOSE",
    },
    BenchQuery {
        name: "q7",
        sql: "SELECT window_start, window_end, max(price) AS top \
              FROM TUMBLE(bid, date_time, INTERVAL '10 seconds') \
              GROUP BY window_start, window_end EMIT ON WINDOW CLOSE",
    },
    BenchQuery { name: "q11", sql: "SELECT bidder, count(*) AS bid_count FROM bid GROUP BY bidder EMIT CHANGES" },
    BenchQuery {
        name: "q12",
        sql: "SELECT bidder, window_start, window_end, count(*) AS bid_count \
              FROM TUMBLE(bid, date_time, INTERVAL '10 seconds') \
              GROUP BY bidder, window_start, window_end EMIT ON WINDOW CLOSE",
    },
    BenchQuery {
        name: "q14",
        sql: "SELECT auction, bidder, CAST(0.908 AS DECIMAL(4, 3)) * price AS price, \
                CASE WHEN date_part('hour', date_time) BETWEEN 8 AND 18 THEN 'dayTime' \
                     WHEN date_part('hour', date_time) <= 6 OR date_part('hour', date_time) >= 20 THEN 'nightTime' \
                     ELSE 'otherTime' END AS bid_time_type, \
                date_time, extra, character_length(extra) - character_length(replace(extra, 'c', '')) AS c_counts \
              FROM bid \
              WHERE CAST(0.908 AS DECIMAL(4, 3)) * price > 1000000 AND CAST(0.908 AS DECIMAL(4, 3)) * price < 50000000",
    },
    BenchQuery {
        name: "q15",
        sql: "SELECT CAST(date_time AS DATE) AS day, \
                count(*) AS total_bids, \
                count(*) FILTER (WHERE price < 10000) AS rank1_bids, \
                count(*) FILTER (WHERE price >= 10000 AND price < 1000000) AS rank2_bids, \
                count(*) FILTER (WHERE price >= 1000000) AS rank3_bids, \
                count(DISTINCT bidder) AS total_bidders, \
                count(DISTINCT bidder) FILTER (WHERE price < 10000) AS rank1_bidders, \
                count(DISTINCT bidder) FILTER (WHERE price >= 10000 AND price < 1000000) AS rank2_bidders, \
                count(DISTINCT bidder) FILTER (WHERE price >= 1000000) AS rank3_bidders, \
                count(DISTINCT auction) AS total_auctions, \
                count(DISTINCT auction) FILTER (WHERE price < 10000) AS rank1_auctions, \
                count(DISTINCT auction) FILTER (WHERE price >= 10000 AND price < 1000000) AS rank2_auctions, \
                count(DISTINCT auction) FILTER (WHERE price >= 1000000) AS rank3_auctions \
              FROM bid GROUP BY CAST(date_time AS DATE) EMIT CHANGES",
    },
    BenchQuery {
        name: "q17",
        sql: "SELECT auction, CAST(date_time AS DATE) AS day, \
                count(*) AS total_bids, \
                count(*) FILTER (WHERE price < 10000) AS rank1_bids, \
                count(*) FILTER (WHERE price >= 10000 AND price < 1000000) AS rank2_bids, \
                count(*) FILTER (WHERE price >= 1000000) AS rank3_bids, \
                min(price) AS min_price, max(price) AS max_price, avg(price) AS avg_price, sum(price) AS sum_price \
              FROM bid GROUP BY auction, CAST(date_time AS DATE) EMIT CHANGES",
    },
    BenchQuery {
        name: "q21",
        sql: "SELECT auction, bidder, price, channel, \
                CASE lower(channel) WHEN 'apple' THEN '0' WHEN 'google' THEN '1' WHEN 'facebook' THEN '2' \
                  WHEN 'baidu' THEN '3' ELSE (regexp_match(url, '(&|^)channel_id=([^&]*)'))[2] END AS channel_id \
              FROM bid \
              WHERE (regexp_match(url, '(&|^)channel_id=([^&]*)'))[2] IS NOT NULL \
                OR lower(channel) IN ('apple', 'google', 'facebook', 'baidu')",
    },
    BenchQuery {
        name: "q22",
        sql: "SELECT auction, bidder, price, channel, split_part(url, '/', 4) AS dir1, \
                split_part(url, '/', 5) AS dir2, split_part(url, '/', 6) AS dir3 FROM bid",
    },
];
