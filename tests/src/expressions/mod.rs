//! Random expressions, evaluated in all ways that there are: each must say the same for each row.
//!
//! ```text
//! grammar ─ an expression ─► print ─┬─► evaluate: unoptimized, row by row ──────────────┐
//!                                   ├─► evaluate: optimized for batch, row by row ──────┤
//!                                   ├─► evaluate: optimized for batch, all rows at once ┼─ same?
//!                                   ├─► evaluate: by the rules of streams, row by row ──┤
//!                                   ├─► evaluate: as a filter, by both ─────────────────┘
//!                                   └─► a file, for DuckDB (tests/python/test_expressions.py)
//! ```
//! `MILLSTREAM_EXPRESSIONS=n` evaluates so many, `MILLSTREAM_SEED=n` those of that seed.

pub mod evaluate;
pub mod grammar;
pub mod print;
pub mod rows;

use std::fmt::Write;

use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::Result;
use evaluate::{Bench, Outcome, Way};
use grammar::{Expr, Grammar, Kind};

/// Rows of the table: enough that each odd value meets each other.
pub const ROWS: usize = 48;

/// The expressions of a seed, and the rows for them.
pub struct Run {
    bench: Bench,
    grammar: Grammar,
    /// The rows.
    pub rows: arrow::array::RecordBatch,
}

/// An expression with its outcomes.
pub struct Evaluated {
    /// The expression.
    pub expr: Expr,
    /// In our SQL.
    pub sql: String,
    /// For each row.
    pub outcomes: Vec<Outcome>,
}

impl Run {
    /// The run of a seed.
    pub fn of(seed: u64) -> Result<Self> {
        let mut rng = StdRng::seed_from_u64(seed);
        let rows = rows::rows(&mut rng, ROWS)?;
        Ok(Run { bench: Bench::new(rows.clone())?, grammar: Grammar::new(rng), rows })
    }

    /// The next expression that can be planned, evaluated as it is written.
    pub fn draw(&mut self) -> Result<Evaluated> {
        for _ in 0..100 {
            let expr = self.grammar.draw();
            let sql = print::ours(&expr);
            if let Ok(outcomes) = self.bench.row_by_row(&sql, Way::Unoptimized) {
                return Ok(Evaluated { expr, sql, outcomes });
            }
        }
        Err("of 100 expressions none could be planned".into())
    }

    /// What the other ways say otherwise than the expression as it is written.
    pub async fn differences(&mut self, given: &Evaluated) -> Result<Vec<String>> {
        let mut wrong = vec![];
        for way in [Way::Batch, Way::Stream] {
            match self.bench.row_by_row(&given.sql, way) {
                Ok(outcomes) => wrong.extend(first_difference(&given.outcomes, &outcomes, &format!("{way:?}"))),
                // A constant that fails for every row may be found when the query is planned.
                Err(e) if given.outcomes.iter().any(|o| matches!(o, Outcome::Value(_))) => {
                    wrong.push(format!("{way:?}: cannot be planned: {e}"));
                }
                Err(_) => {}
            }
        }
        let fails = given.outcomes.iter().any(|o| matches!(o, Outcome::Failed(_)));
        if !fails {
            match self.bench.at_once(&given.sql, Way::Batch).await {
                Ok(values) => {
                    let values: Vec<Outcome> = values.into_iter().map(Outcome::Value).collect();
                    wrong.extend(first_difference(&given.outcomes, &values, "all rows at once"));
                }
                Err(e) => wrong.push(format!("fails only when all rows are evaluated at once: {e}")),
            }
        }
        if given.expr.kind() == Kind::Bool && !fails {
            let passing: Vec<i64> =
                (0_i64..).zip(&given.outcomes).filter(|(_, o)| is_true(o)).map(|(id, _)| id).collect();
            for way in [Way::Batch, Way::Stream] {
                let found = self.bench.passing(&given.sql, way).await;
                match found {
                    Ok(found) if found == passing => {}
                    Ok(found) => wrong.push(format!("{way:?}: as a filter {found:?}, right {passing:?}")),
                    Err(e) => wrong.push(format!("{way:?}: fails only as a filter of all rows: {e}")),
                }
            }
        }
        Ok(wrong)
    }
}

fn is_true(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Value(datafusion::common::ScalarValue::Boolean(Some(true))))
}

fn first_difference(right: &[Outcome], found: &[Outcome], way: &str) -> Option<String> {
    let at = right.iter().zip(found).position(|(a, b)| !a.same(b))?;
    Some(format!("{way}: row {at} is {:?}, right {:?}", found.get(at)?, right.get(at)?))
}

/// Compares `count` expressions of a seed; an error that lists the first that differ.
pub async fn check(seed: u64, count: usize) -> Result<()> {
    let mut run = Run::of(seed)?;
    let (mut wrong, mut differing, mut failing) = (String::new(), 0, 0);
    for n in 0..count {
        let given = run.draw()?;
        failing += usize::from(given.outcomes.iter().any(|o| matches!(o, Outcome::Failed(_))));
        let differences = run.differences(&given).await?;
        if !differences.is_empty() {
            differing += 1;
            if differing <= 10 {
                write!(wrong, "\n{n}: {}\n    {}", given.sql, differences.join("\n    "))?;
            }
        }
    }
    println!("seed {seed}: {count} expressions, {failing} of which fail for some row, {differing} differ");
    match differing {
        0 => Ok(()),
        _ => Err(format!("MILLSTREAM_SEED={seed}: {differing} of {count} expressions differ:{wrong}").into()),
    }
}
