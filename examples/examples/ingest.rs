//! A stored stream with a primary key: Arrow batches go in, a later row replaces the one with its key, and the store
//! keeps them over a restart.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, RecordBatch, StringArray};
use arrow::util::pretty::pretty_format_batches;
use futures::{StreamExt, TryStreamExt, stream};
use millstream_sql::session::IngestMode;
use millstream_sql::{Config, Millstream, Outcome};

fn readings(sensors: &[&str], values: &[f64]) -> Result<RecordBatch, arrow::error::ArrowError> {
    let sensors: ArrayRef = Arc::new(StringArray::from(sensors.to_vec()));
    let values: ArrayRef = Arc::new(Float64Array::from(values.to_vec()));
    RecordBatch::try_from_iter([("sensor", sensors), ("value", values)])
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    let config = Config::new(folder.path().to_string_lossy());
    let millstream = Millstream::open(config.clone()).await?;
    let create = "CREATE STREAM readings (sensor TEXT, value DOUBLE, PRIMARY KEY (sensor))";
    millstream.session().execute_sql(create).await?;
    let batches = [readings(&["roof", "hall"], &[31.5, 20.5])?, readings(&["roof"], &[29.0])?];
    let schema = batches[0].schema();
    let rows = stream::iter(batches.map(Ok)).boxed();
    // It returns when the rows are committed.
    let count = millstream.ingest("readings", IngestMode::Append, schema, rows).await?;
    println!("{count} rows went in");
    millstream.close().await?;
    drop(millstream);

    let millstream = Millstream::open(config).await?;
    if let Outcome::Rows(rows) = millstream.session().execute_sql("SELECT * FROM readings ORDER BY sensor").await? {
        println!("{}", pretty_format_batches(&rows.rows.try_collect::<Vec<_>>().await?)?);
    }
    millstream.close().await?;
    Ok(())
}
