//! Random queries, as streams, in batch and in DuckDB: see `millstream_tests::random`. In parts, to use the cores.

use millstream_tests::Result;
use millstream_tests::random::check;

#[test]
fn queries_0() -> Result<()> {
    check(0, 4)
}

#[test]
fn queries_1() -> Result<()> {
    check(1, 4)
}

#[test]
fn queries_2() -> Result<()> {
    check(2, 4)
}

#[test]
fn queries_3() -> Result<()> {
    check(3, 4)
}
