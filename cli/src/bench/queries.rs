//! The Nexmark queries in Millstream's SQL, as far as they run continuously today.
//!
//! q12 counts by event time. q6 has the mean of the last ten prices for which a seller
//! has sold, at each sale; rows that are alike in the order of q9, q18 and q19 are told apart by further columns. Of q5 and q7 also the aggregates alone, which are what
//! their joins read.

/// A query: its name, and its text over `bid`, `auction`, `person` and `side_input`.
pub(crate) struct BenchQuery {
    pub(crate) name: &'static str,
    pub(crate) sql: &'static str,
}

impl BenchQuery {
    /// Whether it reads the table.
    pub(crate) fn reads(&self, table: &str) -> bool {
        let places = ["FROM ", "JOIN ", "TUMBLE(", "HOP(", "SESSION("];
        places.iter().any(|p| self.sql.match_indices(p).any(|(at, p)| is_word(&self.sql[at + p.len()..], table)))
    }
}

/// Whether `text` begins with the word.
fn is_word(text: &str, word: &str) -> bool {
    text.strip_prefix(word).is_some_and(|rest| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_'))
}

/// The queries in order.
pub(crate) const QUERIES: [BenchQuery; 25] = [
    BenchQuery { name: "q0", sql: "SELECT auction, bidder, price, date_time, extra FROM bid" },
    BenchQuery {
        name: "q1",
        sql: "SELECT auction, bidder, CAST(0.908 AS DECIMAL(4, 3)) * price AS price, date_time, extra FROM bid",
    },
    BenchQuery { name: "q2", sql: "SELECT auction, price FROM bid WHERE auction % 123 = 0" },
    BenchQuery {
        name: "q3",
        sql: "SELECT p.name, p.city, p.state, a.id FROM auction a JOIN person p ON a.seller = p.id \
              WHERE a.category = 10 AND p.state IN ('OR', 'ID', 'CA')",
    },
    BenchQuery {
        name: "q4",
        sql: "SELECT category, sum(final) / count(*) AS avg_final \
              FROM (SELECT a.id, a.category, max(b.price) AS final FROM auction a \
                    JOIN bid b ON a.id = b.auction AND b.date_time BETWEEN a.date_time AND a.expires \
                    GROUP BY a.id, a.category) \
              GROUP BY category",
    },
    BenchQuery {
        name: "q5",
        sql: "WITH counts AS ( \
                SELECT auction, window_start, window_end, count(*) AS num \
                FROM HOP(bid, date_time, INTERVAL '2 seconds', INTERVAL '10 seconds') \
                GROUP BY auction, window_start, window_end) \
              SELECT c.auction, c.num, c.window_start, c.window_end FROM counts c \
              JOIN (SELECT window_start, window_end, max(num) AS most FROM counts GROUP BY window_start, window_end) m \
                ON c.window_start = m.window_start AND c.window_end = m.window_end AND c.num = m.most \
              EMIT ON WINDOW CLOSE",
    },
    BenchQuery {
        name: "q5-counts",
        sql: "SELECT auction, window_start, window_end, count(*) AS num \
              FROM HOP(bid, date_time, INTERVAL '2 seconds', INTERVAL '10 seconds') \
              GROUP BY auction, window_start, window_end EMIT ON WINDOW CLOSE",
    },
    BenchQuery {
        name: "q6",
        sql: "SELECT seller, id, avg(price) OVER ( \
                PARTITION BY seller ORDER BY sold, id ROWS BETWEEN 9 PRECEDING AND CURRENT ROW) AS avg_price \
              FROM (SELECT a.seller, a.id, b.price, b.date_time AS sold \
                    FROM auction a JOIN bid b ON a.id = b.auction AND b.date_time BETWEEN a.date_time AND a.expires \
                    QUALIFY row_number() OVER (PARTITION BY a.id ORDER BY b.price DESC, b.date_time, b.bidder) = 1)",
    },
    BenchQuery {
        name: "q7",
        sql: "SELECT b.auction, b.bidder, b.price, b.date_time, b.extra FROM bid b \
              JOIN (SELECT window_start, window_end, max(price) AS top \
                    FROM TUMBLE(bid, date_time, INTERVAL '10 seconds') GROUP BY window_start, window_end) m \
                ON b.price = m.top AND b.date_time >= m.window_start AND b.date_time < m.window_end \
              EMIT ON WINDOW CLOSE",
    },
    BenchQuery {
        name: "q7-max",
        sql: "SELECT window_start, window_end, max(price) AS top \
              FROM TUMBLE(bid, date_time, INTERVAL '10 seconds') \
              GROUP BY window_start, window_end EMIT ON WINDOW CLOSE",
    },
    BenchQuery {
        name: "q8",
        sql: "SELECT p.id, p.name, p.window_start \
              FROM (SELECT id, name, window_start, window_end FROM TUMBLE(person, date_time, INTERVAL '10 seconds') \
                    GROUP BY id, name, window_start, window_end) p \
              JOIN (SELECT seller, window_start, window_end FROM TUMBLE(auction, date_time, INTERVAL '10 seconds') \
                    GROUP BY seller, window_start, window_end) a \
                ON p.id = a.seller AND p.window_start = a.window_start AND p.window_end = a.window_end \
              EMIT ON WINDOW CLOSE",
    },
    BenchQuery {
        name: "q9",
        sql: "SELECT a.id, a.item_name, a.description, a.initial_bid, a.reserve, a.date_time, a.expires, a.seller, \
                a.category, a.extra, b.auction, b.bidder, b.price, b.date_time AS bid_date_time, b.extra AS bid_extra \
              FROM auction a JOIN bid b ON a.id = b.auction AND b.date_time BETWEEN a.date_time AND a.expires \
              QUALIFY row_number() OVER (PARTITION BY a.id ORDER BY b.price DESC, b.date_time, b.bidder) = 1",
    },
    BenchQuery {
        name: "q11",
        sql: "SELECT bidder, count(*) AS bid_count, window_start, window_end \
              FROM SESSION(bid, date_time, INTERVAL '10 seconds', PARTITION BY bidder) \
              GROUP BY bidder, window_start, window_end EMIT ON WINDOW CLOSE",
    },
    BenchQuery {
        name: "q12",
        sql: "SELECT bidder, window_start, window_end, count(*) AS bid_count \
              FROM TUMBLE(bid, date_time, INTERVAL '10 seconds') \
              GROUP BY bidder, window_start, window_end EMIT ON WINDOW CLOSE",
    },
    BenchQuery {
        name: "q13",
        sql: "SELECT b.auction, b.bidder, b.price, b.date_time, s.value \
              FROM bid b JOIN side_input FOR SYSTEM_TIME AS OF PROCTIME() AS s ON b.auction % 10000 = s.key",
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
        name: "q16",
        sql: "SELECT channel, CAST(date_time AS DATE) AS day, max(to_char(date_time, '%H:%M')) AS minute, \
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
              FROM bid GROUP BY channel, CAST(date_time AS DATE) EMIT CHANGES",
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
        name: "q18",
        sql: "SELECT auction, bidder, price, channel, url, date_time, extra FROM bid \
              QUALIFY row_number() OVER (PARTITION BY bidder, auction ORDER BY date_time DESC, price DESC) = 1",
    },
    BenchQuery {
        name: "q19",
        sql: "SELECT *, row_number() OVER (PARTITION BY auction ORDER BY price DESC, date_time, bidder) AS rank_number \
              FROM bid QUALIFY rank_number <= 10",
    },
    BenchQuery {
        name: "q20",
        sql: "SELECT b.auction, b.bidder, b.price, b.channel, b.url, b.date_time AS bid_date_time, b.extra AS bid_extra, \
                a.item_name, a.description, a.initial_bid, a.reserve, a.date_time AS auction_date_time, a.expires, \
                a.seller, a.category, a.extra AS auction_extra \
              FROM bid b JOIN auction a ON b.auction = a.id WHERE a.category = 10",
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
    BenchQuery {
        name: "q23",
        sql: "SELECT b.bidder, b.price, b.channel, b.url, b.extra AS bid_extra, p.id AS person_id, p.name, \
                p.email_address, p.credit_card, p.city, p.state, p.extra AS person_extra, a.item_name, a.description, \
                a.initial_bid, a.reserve, a.date_time AS auction_date_time, a.expires, a.seller, a.category, \
                a.extra AS auction_extra \
              FROM bid b JOIN person p ON p.id = b.bidder JOIN auction a ON a.seller = b.bidder",
    },
];
