//! Checks random queries as cases are checked, and makes those that fail smaller.

use crate::Result;
use crate::case::query;
use crate::duck::Duck;
use crate::generate::{self, Body, smaller};
use crate::pending::PENDING;
use crate::run::{Failures, Trial, check_emits, number};
use crate::watch::Watchdog;

/// How many queries a run of all tests checks.
const QUERIES: u64 = 2000;
/// What may be refused though it has an answer, by what is then said, and why.
const REFUSED: &[(&str, &str)] = &[
    (
        "incompatible inputs for Union",
        "nullif of NULLs alone is a text, as in PostgreSQL, and is united with texts only",
    ),
    ("failed to coerce then (TEXT) and else (", "likewise, in CASE"),
    (" and else (TEXT) to common types in CASE", "likewise, in CASE"),
    ("function nullif(TEXT, ", "likewise, in another nullif"),
];
/// How often a query that fails is run again to make it smaller.
const TRIES: usize = 80;

/// Checks every `of`th query, from the `part`th on. `MILLSTREAM_QUERIES` says how many there are, `MILLSTREAM_SEED` from
/// which seed on they are drawn; `MILLSTREAM_QUERY` checks the one of that seed alone.
pub fn check(part: u64, of: u64) -> Result<()> {
    let first = number("MILLSTREAM_SEED").unwrap_or(1);
    let many = number("MILLSTREAM_QUERIES").unwrap_or(QUERIES);
    let all: Vec<u64> = match number("MILLSTREAM_QUERY") {
        Some(one) => vec![one].into_iter().filter(|q| q % of == part).collect(),
        None => (first..first + many).filter(|q| q % of == part).collect(),
    };
    println!("queries from MILLSTREAM_SEED={first}, {many} in all");
    let dog = Watchdog::start();
    let mut duck = Duck::start()?;
    let (mut failures, mut refused) = (Failures::default(), 0);
    for seed in &all {
        let body = generate::query(*seed);
        dog.step(format!("{body}\n  MILLSTREAM_QUERY={seed}"));
        if let Err(e) = run(&body, *seed, &mut duck) {
            if REFUSED.iter().any(|(said, _)| e.to_string().contains(said)) {
                refused += 1;
                continue;
            }
            let (body, e) = shrunk(body, e, *seed, &mut duck, &dog);
            if !failures.add(&format!("MILLSTREAM_QUERY={seed} fails:\n  {body}\n  {e}")) {
                break;
            }
        }
    }
    failures.told(all.len())?;
    println!("{}; {refused} were refused", duck.report()?);
    // Each that is refused is not compared.
    if refused * 10 > all.len() {
        return Err(format!("{refused} of {} queries were refused", all.len()).into());
    }
    for (kind, why) in PENDING {
        println!("left out: {kind:?}, since {why}");
    }
    Ok(())
}

fn run(body: &Body, seed: u64, duck: &mut Duck) -> Result<()> {
    check_emits(&Trial::new(&query(&body.to_string())?, seed), duck)
}

/// What is told of a failure, less its figures: a smaller query must fail in the same way.
fn way(error: &str) -> String {
    error.lines().next().unwrap_or_default().chars().filter(|c| c.is_alphabetic() || *c == ' ').take(24).collect()
}

/// The smallest query that fails alike, with what is told of it.
fn shrunk(mut body: Body, mut error: crate::Error, seed: u64, duck: &mut Duck, dog: &Watchdog) -> (Body, crate::Error) {
    let mut tries = 0;
    'smaller: loop {
        for less in smaller(&body) {
            tries += 1;
            if tries > TRIES {
                return (body, error);
            }
            dog.step(format!("{less}\n  made smaller from MILLSTREAM_QUERY={seed}"));
            if let Err(e) = run(&less, seed, duck)
                && way(&e.to_string()) == way(&error.to_string())
            {
                (body, error) = (less, e);
                continue 'smaller;
            }
        }
        return (body, error);
    }
}
