//! Every query of `tests/sql`, run continuously, equals its batch answer: see the crate's text.

use millstream_tests::Result;
use millstream_tests::case::cases;
use millstream_tests::run::{check, check_alone};

#[test]
fn rows_one_by_one() -> Result<()> {
    check(&cases("rows.sql")?)
}

#[test]
fn windows() -> Result<()> {
    check(&cases("windows.sql")?)
}

#[test]
fn sessions() -> Result<()> {
    check(&cases("sessions.sql")?)
}

/// DuckDB is told nothing of windows of months that grow, or are shifted by some.
#[test]
fn calendar() -> Result<()> {
    check_alone(&cases("calendar.sql")?)
}

/// The job goes on as long as time brings something.
#[test]
fn clock() -> Result<()> {
    check_alone(&cases("clock.sql")?)
}

#[test]
fn aggregates() -> Result<()> {
    check(&cases("aggregates.sql")?)
}

#[test]
fn joins() -> Result<()> {
    check(&cases("joins.sql")?)
}

#[test]
fn as_of() -> Result<()> {
    check(&cases("asof.sql")?)
}

#[test]
fn over() -> Result<()> {
    check(&cases("over.sql")?)
}

#[test]
fn recursive() -> Result<()> {
    check(&cases("recursive.sql")?)
}

#[test]
fn sets() -> Result<()> {
    check(&cases("sets.sql")?)
}

#[test]
fn subqueries() -> Result<()> {
    check(&cases("subqueries.sql")?)
}

#[test]
fn numbers() -> Result<()> {
    check(&cases("numbers.sql")?)
}
