//! How near is a continuous query to DataFusion in batch, over the same rows in memory?
//!
//! `cargo bench --workspace --bench beside_batch`: for each query the median of eleven runs of each, in turn. Names of
//! queries behind `--` choose among them.

use millstream_benches::{Bids, Result, median};

/// Tasks, and partitions of the batch.
const PARALLELISM: usize = 2;
const EVENTS: u64 = 20_000_000;
const RUNS: usize = 11;

/// (name, how often the rows are gone through in a run, query). Results are not kept on either side. Where once
/// takes a few milliseconds, more passes show the cost of rows and not that of a start.
const QUERIES: [(&str, usize, &str); 11] = [
    ("q0", 16, "SELECT auction, bidder, price, date_time, extra FROM bid"),
    ("q1", 1, "SELECT auction, bidder, CAST(0.908 AS DECIMAL(4, 3)) * price AS price, date_time, extra FROM bid"),
    ("q2", 4, "SELECT auction, price FROM bid WHERE auction % 123 = 0"),
    (
        "q14",
        1,
        "SELECT auction, bidder, CAST(0.908 AS DECIMAL(4, 3)) * price AS price, \
           CASE WHEN date_part('hour', date_time) BETWEEN 8 AND 18 THEN 'dayTime' ELSE 'otherTime' END AS t, \
           character_length(extra) - character_length(replace(extra, 'c', '')) AS c \
         FROM bid WHERE price > 1000000 AND price < 50000000",
    ),
    ("q21", 1, "SELECT auction, lower(channel) AS c, (regexp_match(url, '(&|^)channel_id=([^&]*)'))[2] AS id FROM bid"),
    ("q22", 1, "SELECT auction, split_part(url, '/', 4) AS d1, split_part(url, '/', 5) AS d2 FROM bid"),
    (
        "q5 agg",
        1,
        "SELECT auction, window_start, window_end, count(*) AS num \
         FROM HOP(bid, date_time, INTERVAL '2 seconds', INTERVAL '10 seconds') \
         GROUP BY auction, window_start, window_end",
    ),
    (
        "q7 agg",
        1,
        "SELECT window_start, window_end, max(price) AS top FROM TUMBLE(bid, date_time, INTERVAL '10 seconds') \
         GROUP BY window_start, window_end",
    ),
    (
        "q12",
        1,
        "SELECT bidder, window_start, window_end, count(*) AS n \
         FROM TUMBLE(bid, date_time, INTERVAL '10 seconds') GROUP BY bidder, window_start, window_end",
    ),
    (
        "avg",
        1,
        "SELECT auction, window_end, count(*) AS n, avg(price) AS mean, min(price) AS low, max(price) AS high \
         FROM TUMBLE(bid, date_time, INTERVAL '10 seconds') GROUP BY auction, window_start, window_end",
    ),
    (
        "hour",
        1,
        "SELECT date_bin(INTERVAL '1 minute', date_time) AS m, count(*) AS n, sum(price) AS total FROM bid \
         GROUP BY date_bin(INTERVAL '1 minute', date_time)",
    ),
];

fn main() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(PARALLELISM).enable_all().build()?;
    runtime.block_on(async {
        let bids = Bids::make(EVENTS).await?;
        println!("{:.2} M bids, {PARALLELISM} tasks; M rows/s, median of {RUNS}", bids.rows() as f64 / 1e6);
        println!("{:<8} {:>12} {:>12} {:>8}", "query", "continuous", "batch", "ratio");
        let chosen: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
        for (name, passes, sql) in QUERIES.iter().filter(|(n, _, _)| chosen.is_empty() || chosen.iter().any(|c| c == n))
        {
            let bids = bids.repeated(*passes);
            let rows = bids.rows() as f64 / 1e6;
            let (mut stream, mut batch) = (vec![], vec![]);
            for _ in 0..RUNS {
                stream.push(bids.run_continuously(sql, PARALLELISM).await?);
                batch.push(bids.run_in_batch(sql, PARALLELISM).await?);
            }
            let (stream, batch) = (median(stream).as_secs_f64(), median(batch).as_secs_f64());
            println!("{name:<8} {:>12.1} {:>12.1} {:>8.2}", rows / stream, rows / batch, batch / stream);
        }
        Ok(())
    })
}
