//! Results as files: a stream that is written out while it runs, and a batch export of what is stored.

use millstream_sql::{Config, Millstream, Outcome};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    let place = |name: &str| folder.path().join(name).display().to_string();
    let millstream = Millstream::open(Config::new(place("store"))).await?;
    let session = millstream.session();
    let columns = "id BIGINT, price DOUBLE, at TIMESTAMP";
    let rows = "connector = 'datagen', rows = 10000, fields.id.kind = 'sequence', fields.price.max = 100";
    session.execute_sql(&format!("CREATE STREAM sales ({columns}) WITH ({rows})")).await?;
    let json = place("cheap.json");
    let written = format!("CREATE STREAM cheap WITH (connector = 'file', path = '{json}')");
    session.execute_sql(&format!("{written} AS SELECT id, price FROM sales WHERE price < 1")).await?;
    session.execute_sql("CREATE STREAM kept AS SELECT id, price FROM sales WHERE price >= 99").await?;
    millstream.flush().await?;
    println!("{} lines of JSON", std::fs::read_to_string(&json)?.lines().count());
    let parquet = place("kept.parquet");
    if let Outcome::Done(done) = session.execute_sql(&format!("COPY kept TO '{parquet}'")).await? {
        println!("{} rows of Parquet", done.rows.unwrap_or_default());
    }
    millstream.close().await?;
    Ok(())
}
