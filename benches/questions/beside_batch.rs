//! How near is a continuous query to DataFusion in batch, over the same rows in memory?
//!
//! `cargo bench --workspace --bench beside_batch`: for each query the median of eleven runs of each, in turn, and of joins
//! the median of five. Names of queries behind `--` choose among them; `joins` are the joins.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use millstream_benches::{Result, Table, Tables, median};

/// Tasks, and partitions of the batch.
const PARALLELISM: usize = 2;
const EVENTS: u64 = 20_000_000;
const RUNS: usize = 11;
const JOIN_RUNS: usize = 5;

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

/// Joins by a BIGINT key: rows on the left, rows on the right. Each row of the left finds one of the right.
const JOINS: [(&str, i64, i64); 2] = [("5 M x 1 M", 5_000_000, 1_000_000), ("2 M x 2 M", 2_000_000, 2_000_000)];
const JOIN: &str = "SELECT l.k, l.v, r.v AS w FROM l JOIN r ON l.k = r.k";

/// `rows` rows of `keys` keys, which come equally often, in no order, and lie anywhere among all numbers; and a value each.
fn keyed(name: &'static str, rows: i64, keys: i64) -> Result<Table> {
    // The first factor has no divisor in common with the numbers of keys; the second is odd, so that no two become one.
    let key = |row: i64| ((row % keys) * 7_368_787 % keys).wrapping_mul(-7_046_029_254_386_353_131);
    let batch = |first: i64| -> Result<RecordBatch> {
        let these = first..rows.min(first + 8192);
        let k = Int64Array::from_iter_values(these.clone().map(key));
        let v = Int64Array::from_iter_values(these);
        Ok(RecordBatch::try_from_iter([("k", Arc::new(k) as ArrayRef), ("v", Arc::new(v))])?)
    };
    Table::of(name, (0..rows).step_by(8192).map(batch).collect::<Result<_>>()?)
}

/// The middle seconds of `runs` runs of each, in turn.
async fn beside(tables: &Tables, sql: &str, runs: usize) -> Result<(f64, f64)> {
    let (mut stream, mut batch) = (vec![], vec![]);
    for _ in 0..runs {
        stream.push(tables.run_continuously(sql, PARALLELISM).await?);
        batch.push(tables.run_in_batch(sql, PARALLELISM).await?);
    }
    Ok((median(stream).as_secs_f64(), median(batch).as_secs_f64()))
}

fn main() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(PARALLELISM).enable_all().build()?;
    let chosen: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    let is_chosen = |name: &str| chosen.is_empty() || chosen.iter().any(|c| c == name);
    let say = |name: &str, rows: f64, (stream, batch): (f64, f64)| {
        let rows = rows / 1e6;
        println!("{name:<10} {:>12.1} {:>12.1} {:>8.2}", rows / stream, rows / batch, batch / stream);
    };
    runtime.block_on(async {
        println!("{PARALLELISM} tasks; M rows/s, median of {RUNS} runs, of joins {JOIN_RUNS}");
        println!("{:<10} {:>12} {:>12} {:>8}", "query", "continuous", "batch", "ratio");
        let queries: Vec<_> = QUERIES.iter().filter(|(name, _, _)| is_chosen(name)).collect();
        if !queries.is_empty() {
            let bids = Table::bids(EVENTS).await?;
            for (name, passes, sql) in queries {
                let bids = bids.repeated(*passes);
                let rows = bids.rows() as f64;
                say(name, rows, beside(&Tables(vec![bids]), sql, RUNS).await?);
            }
        }
        for (name, left, right) in JOINS.iter().filter(|_| is_chosen("joins")) {
            let tables = Tables(vec![keyed("l", *left, *right)?, keyed("r", *right, *right)?]);
            say(name, (left + right) as f64, beside(&tables, JOIN, JOIN_RUNS).await?);
        }
        Ok(())
    })
}
