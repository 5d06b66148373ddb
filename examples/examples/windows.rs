//! Embeds the engine: a windowed query over generated rows, read when it is complete.

use arrow::util::pretty::pretty_format_batches;
use futures::TryStreamExt;
use millstream_sql::{Config, Millstream, Outcome, statement};

const SCRIPT: &str = "
CREATE STREAM bid (WATERMARK FOR date_time AS date_time - INTERVAL '4 seconds')
WITH (connector = 'nexmark', table = 'bid', events = 100000);

CREATE STREAM per_window AS
SELECT window_start, window_end, count(*) AS bids, max(price) AS highest
FROM TUMBLE(bid, date_time, INTERVAL '2 seconds')
GROUP BY window_start, window_end
EMIT ON WINDOW CLOSE;
";

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    let millstream = Millstream::open(Config::new(folder.path().to_string_lossy())).await?;
    let session = millstream.session();
    for statement in statement::parse(SCRIPT)? {
        session.execute(&statement).await?;
    }
    // The input ends, so the query does: wait for it.
    millstream.flush().await?;
    let result = "SELECT window_end, bids, highest FROM per_window ORDER BY window_end";
    if let Outcome::Rows(rows) = session.execute_sql(result).await? {
        let batches: Vec<_> = rows.rows.try_collect().await?;
        println!("{}", pretty_format_batches(&batches)?);
    }
    millstream.close().await?;
    Ok(())
}
