//! Queries whose tasks are spread over two and three nodes, one of which is killed and replaced in the middle.

use millstream_tests::Result;
use millstream_tests::case::cases;
use millstream_tests::run::{Failures, Trial, check_one, number};
use millstream_tests::watch::Watchdog;

/// Checks each case of `files` on `nodes` nodes: with a seed of its own, or one that is asked for, or so many.
fn check(files: &[&str], nodes: usize) -> Result<()> {
    let dog = Watchdog::start();
    let (mut failures, mut run, mut lost) = (Failures::default(), 0, 0);
    let cases = files.iter().map(|file| cases(file)).collect::<Result<Vec<_>>>()?;
    for (place, case) in cases.into_iter().flatten().enumerate() {
        let first = place as u64 + nodes as u64;
        let seeds = match number("MILLSTREAM_SEED") {
            Some(seed) => seed..seed + 1,
            None => first..first + number("MILLSTREAM_ROUNDS").unwrap_or(1),
        };
        for seed in seeds {
            let name = format!("# {}\n  on {nodes} nodes, MILLSTREAM_SEED={seed}", case.name);
            dog.step(name.clone());
            run += 1;
            match check_one(&Trial::new(&case.query, seed).on(nodes), case.query.emit) {
                Ok(checked) => lost += checked.lost,
                Err(e) if failures.add(&format!("{name} fails: {e}")) => {}
                Err(_) => return failures.told(run),
            }
        }
    }
    failures.told(run)?;
    println!("{run} runs, in which {lost} nodes were lost");
    // Some end before a node is killed, on a slow machine more, and some have all their tasks on one: one seed alone says little of how many.
    match run < 10 || lost * 6 > run || number("MILLSTREAM_SEED").is_some() {
        true => Ok(()),
        false => Err(format!("only {lost} nodes were lost in {run} runs").into()),
    }
}

#[test]
fn rows_and_windows_on_two_nodes() -> Result<()> {
    check(&["rows.sql", "windows.sql"], 2)
}

#[test]
fn aggregates_on_three_nodes() -> Result<()> {
    check(&["aggregates.sql", "numbers.sql"], 3)
}

#[test]
fn joins_on_two_nodes() -> Result<()> {
    check(&["joins.sql"], 2)
}

#[test]
fn joins_on_three_nodes() -> Result<()> {
    check(&["joins.sql", "subqueries.sql"], 3)
}

#[test]
fn the_rest_on_two_nodes() -> Result<()> {
    check(&["over.sql", "recursive.sql", "sets.sql"], 2)
}
