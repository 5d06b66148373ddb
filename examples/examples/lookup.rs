//! Rows that grow, each with what is known of it as it comes: a lookup in a stream whose rows change. What was said stays.

use arrow::util::pretty::pretty_format_batches;
use futures::TryStreamExt;
use millstream_sql::{Config, Millstream, Outcome};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    let millstream = Millstream::open(Config::new(folder.path().to_string_lossy())).await?;
    let session = millstream.session();
    for statement in [
        "CREATE STREAM orders (id BIGINT, item TEXT, qty INT)",
        "CREATE STREAM prices (item TEXT, price DECIMAL(8, 2), PRIMARY KEY (item))",
        "INSERT INTO prices VALUES ('tea', 3.50)",
        "CREATE STREAM priced AS SELECT o.id, o.item, o.qty * p.price AS cost
         FROM orders o LEFT JOIN prices FOR SYSTEM_TIME AS OF now() AS p ON o.item = p.item",
        "INSERT INTO orders VALUES (1, 'tea', 2), (2, 'coffee', 1)",
        "FLUSH",
        "INSERT INTO prices VALUES ('tea', 3.80), ('coffee', 5.10)",
        "FLUSH",
        "INSERT INTO orders VALUES (3, 'tea', 1)",
        "FLUSH",
    ] {
        session.execute_sql(statement).await?;
    }
    let Outcome::Rows(rows) = session.execute_sql("SELECT * FROM priced ORDER BY id").await? else {
        return Err("no rows".into());
    };
    println!("{}", pretty_format_batches(&rows.rows.try_collect::<Vec<_>>().await?)?);
    millstream.close().await?;
    Ok(())
}
