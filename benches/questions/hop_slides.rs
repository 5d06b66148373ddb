//! Does a hopping window cost more the more windows share a row?
//!
//! `cargo bench --workspace --bench hop_slides`: windows of 60 s, slides from 30 s to 1 s, counts by 100 keys. The
//! number of result rows grows with size/slide and is shown; the work per input row should not.

use millstream_benches::{Result, Table, Tables, median};

fn main() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let bids = Table::bids(10_000_000).await?;
        let rows = bids.rows() as f64 / 1e6;
        let bids = Tables(vec![bids]);
        println!("{:>10} {:>12} {:>14}", "size/slide", "M rows/s", "ns per row");
        for slide in [30, 12, 6, 3, 2, 1] {
            let sql = format!(
                "SELECT k, window_end, count(*) AS n, sum(price) AS total, max(price) AS top \
                 FROM HOP((SELECT auction % 100 AS k, price, date_time FROM bid), date_time, \
                          INTERVAL '{slide} seconds', INTERVAL '60 seconds') \
                 GROUP BY k, window_start, window_end"
            );
            let mut times = vec![];
            for _ in 0..5 {
                times.push(bids.run_continuously(&sql, 1).await?);
            }
            let time = median(times).as_secs_f64();
            println!("{:>10} {:>12.1} {:>14.1}", 60 / slide, rows / time, time * 1e3 / rows);
        }
        Ok(())
    })
}
