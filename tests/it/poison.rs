//! Every query of `tests/sql`, poisoned: with rows on which an expression fails, where it reads its streams, in what it
//! shows or aggregates, and in its result. What remains equals batch over the rows that do not fail.

use arrow::datatypes::DataType;
use millstream_tests::Result;
use millstream_tests::case::{Case, cases};
use millstream_tests::planned::plan;
use millstream_tests::poison::{TERMS, read, result, shown};
use millstream_tests::run::{Failures, Trial, check_one, seeds};
use millstream_tests::watch::Watchdog;
use millstream_tests::world::World;

fn check(cases: &[Case]) -> Result<()> {
    let dog = Watchdog::start();
    let mut failures = Failures::default();
    'all: for (i, case) in cases.iter().enumerate() {
        for seed in seeds(2) {
            let mut all = vec![];
            for (place, trial) in trials(case, seed, TERMS[(i + seed as usize) % TERMS.len()])? {
                dog.step(format!(
                    "# {}, poisoned {place}\n  {}\n  MILLSTREAM_SEED={seed}",
                    case.name, trial.query.text
                ));
                if let Err(e) = check_one(&trial, trial.query.emit) {
                    all.push(format!("# {}, poisoned {place}\n  MILLSTREAM_SEED={seed} fails: {e}", case.name));
                }
            }
            if !all.is_empty() {
                if !failures.add(&all.join("\n")) {
                    break 'all;
                }
                break;
            }
        }
    }
    failures.told(cases.len())
}

/// A case poisoned in all places that it has.
fn trials(case: &Case, seed: u64, term: &str) -> Result<Vec<(&'static str, Trial)>> {
    let world = World::of(seed)?;
    let streams: Vec<String> = world.streams.keys().cloned().collect();
    let mut all = vec![("where it reads", Trial::new(&read(&case.query, &streams, term)?, seed).poisoned())];
    if let Some(query) = shown(&case.query, &streams, term)? {
        all.push(("in what it shows", Trial::new(&query, seed).poisoned()));
    }
    let (_, schema) = plan(&world, &case.query, case.query.emit, 1)?;
    let whole = |t: &DataType| matches!(t, DataType::Int64 | DataType::Int32 | DataType::Int16);
    let plain = |name: &str| name.chars().all(|c| c.is_ascii_lowercase());
    let column = schema.fields().iter().rfind(|f| whole(f.data_type()) && plain(f.name()));
    if let Some(column) = column {
        let (query, expected) = result(&case.query, column.name())?;
        all.push(("in its result", Trial::new(&query, seed).expecting(&expected)));
    }
    Ok(all)
}

#[test]
fn rows_one_by_one() -> Result<()> {
    check(&cases("rows.sql")?)
}

#[test]
fn windows() -> Result<()> {
    check(&cases("windows.sql")?)
}

#[test]
fn aggregates() -> Result<()> {
    check(&cases("aggregates.sql")?)
}
