//! Rows that grow, each with what is known of it: a left join with a stream whose rows change.

use arrow::util::pretty::pretty_format_batches;
use futures::StreamExt;
use millstream_sql::{Config, Millstream, Outcome};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    let millstream = Millstream::open(Config::new(folder.path().to_string_lossy())).await?;
    let session = millstream.session();
    session.execute_sql("CREATE STREAM orders (id BIGINT, item TEXT, qty INT)").await?;
    session.execute_sql("CREATE STREAM prices (item TEXT, price DECIMAL(8, 2), PRIMARY KEY (item))").await?;
    let query =
        "SELECT o.id, o.item, o.qty * p.price AS cost FROM orders o LEFT JOIN prices p ON o.item = p.item EMIT CHANGES";
    let Outcome::Changes(mut feed) = session.execute_sql(query).await? else { return Err("not a feed".into()) };
    for statement in [
        "INSERT INTO orders VALUES (1, 'tea', 2), (2, 'coffee', 1)",
        "INSERT INTO prices VALUES ('tea', 3.50)",
        "INSERT INTO prices VALUES ('tea', 3.80), ('coffee', 5.10)",
    ] {
        session.execute_sql(statement).await?;
        // An epoch without changes says nothing.
        while let Some(epoch) = feed.epochs.next().await {
            let epoch = epoch?;
            if !epoch.batches.is_empty() {
                println!("{statement}\n{}", pretty_format_batches(&epoch.batches)?);
                break;
            }
        }
    }
    // Dropping the feed ends its query.
    drop(feed);
    millstream.close().await?;
    Ok(())
}
