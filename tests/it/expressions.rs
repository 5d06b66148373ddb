//! Random expressions have one value, however they are planned and evaluated.

use std::time::{SystemTime, UNIX_EPOCH};

use millstream_tests::Result;
use millstream_tests::expressions::check;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|n| n.parse().ok())
}

#[tokio::test]
async fn an_expression_has_one_value() -> Result<()> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let seed = number("MILLSTREAM_SEED").unwrap_or(now);
    let count = number("MILLSTREAM_EXPRESSIONS").unwrap_or(2_000);
    // Rows anew every thousand.
    let rounds = count.div_ceil(1_000);
    for round in 0..rounds {
        check(seed + round, usize::try_from(count.min(1_000))?).await?;
    }
    Ok(())
}
