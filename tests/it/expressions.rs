//! Random expressions have one value, however they are planned and evaluated.

use millstream_tests::Result;
use millstream_tests::expressions::check;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|n| n.parse().ok())
}

#[tokio::test]
async fn an_expression_has_one_value() -> Result<()> {
    let seed = number("MILLSTREAM_SEED").unwrap_or(1);
    let count = number("MILLSTREAM_EXPRESSIONS").unwrap_or(2_000);
    // Rows anew every thousand.
    let rounds = count.div_ceil(1_000);
    for round in 0..rounds {
        check(seed + round, usize::try_from(count.min(1_000))?).await?;
    }
    Ok(())
}
