//! A connector of your own (`bells.rs`): 20 splits without end, read by two tasks, and acknowledged to where they come
//! from once they are committed. Another run goes on where the first was stopped.

mod bells;

use arrow::util::pretty::pretty_format_batches;
use bells::{Bells, Tower};
use futures::TryStreamExt;
use millstream_sql::{Config, Millstream, Outcome};

const CREATE: [&str; 2] =
    ["CREATE STREAM bells WITH (connector = 'bells')", "CREATE STREAM rings AS SELECT bell, ring FROM bells"];
/// A bell of which a ring was missed or came twice is not among these.
const GOOD: &str = "SELECT count(*) AS bells_heard FROM \
                    (SELECT bell FROM rings GROUP BY bell HAVING count(*) = max(ring) + 1 AND count(*) = count(DISTINCT ring))";

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (folder, tower) = (tempfile::tempdir()?, Tower::default());
    let mut config = Config::new(folder.path().to_string_lossy());
    config.parallelism = 2;
    config.connectors = config.connectors.with(Bells(tower.clone()));
    for run in 1..=2 {
        let millstream = Millstream::open(config.clone()).await?;
        let session = millstream.session();
        for create in CREATE.iter().filter(|_| run == 1) {
            session.execute_sql(create).await?;
        }
        // Until the tower has been told of sixty rings of each bell, and of sixty more in the second run.
        while tower.lock().values().filter(|rings| **rings >= run * 60).count() < 20 {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        if let Outcome::Rows(rows) = session.execute_sql(GOOD).await? {
            println!("{}", pretty_format_batches(&rows.rows.try_collect::<Vec<_>>().await?)?);
        }
        millstream.close().await?;
    }
    println!("{} bells were told", tower.lock().len());
    Ok(())
}
