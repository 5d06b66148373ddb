//! Follows a query: each epoch says which rows of the result it takes back and which it puts in their place.

use arrow::util::pretty::pretty_format_batches;
use futures::StreamExt;
use millstream_sql::{Config, Millstream, Outcome};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    let millstream = Millstream::open(Config::new(folder.path().to_string_lossy())).await?;
    let session = millstream.session();
    session.execute_sql("CREATE STREAM votes (voter TEXT, choice TEXT, PRIMARY KEY (voter))").await?;
    let query = "SELECT choice, count(*) AS votes FROM votes GROUP BY choice EMIT CHANGES";
    let Outcome::Changes(mut feed) = session.execute_sql(query).await? else { return Err("not a feed".into()) };
    for rows in ["('ann', 'tea'), ('bob', 'tea')", "('cat', 'coffee')", "('bob', 'coffee')"] {
        session.execute_sql(&format!("INSERT INTO votes VALUES {rows}")).await?;
        // An epoch without changes says nothing.
        while let Some(epoch) = feed.epochs.next().await {
            let epoch = epoch?;
            if !epoch.batches.is_empty() {
                println!("{rows}\n{}", pretty_format_batches(&epoch.batches)?);
                break;
            }
        }
    }
    // Dropping the feed ends its query.
    drop(feed);
    millstream.close().await?;
    Ok(())
}
