//! What does it cost to keep rows by key, and to look keys up?
//!
//! `cargo bench --workspace --bench arrangement`: ten million rows of two numbers come in batches of 8192, then keys are looked up
//! in such batches, half of which are there, then one row in a hundred changes. One core.

use std::error::Error;
use std::sync::Arc;
use std::time::Instant;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use millstream_engine::changes::{Changes, row_bytes};
use millstream_engine::key::mix;
use millstream_engine::state::State;
use millstream_engine::state::arrangement::{Arrangement, Cursor};

const ROWS: usize = 10_000_000;
const BATCH: usize = 8192;
const LOOKUPS: usize = 2_000_000;

fn schema() -> SchemaRef {
    Arc::new(Schema::new(["k", "v"].map(|n| Field::new(n, DataType::Int64, true)).to_vec()))
}

/// Rows `from` to `to`, whose keys lie anyhow.
fn rows(from: usize, to: usize) -> Result<RecordBatch, Box<dyn Error>> {
    let keys: ArrayRef = Arc::new(Int64Array::from_iter_values((from..to).map(|i| (mix(i as u64) >> 8) as i64)));
    let values: ArrayRef = Arc::new(Int64Array::from_iter_values((from..to).map(|i| i as i64)));
    Ok(RecordBatch::try_new(schema(), vec![keys, values])?)
}

fn say(what: &str, n: usize, seconds: f64) {
    println!("{what:<28} {:>8.2} M/s", n as f64 / seconds / 1e6);
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut of = Arrangement::new(schema(), vec![0])?;
    let (mut inserting, mut slowest, mut most) = (0.0, 0.0_f64, 0);
    for from in (0..ROWS).step_by(BATCH) {
        let changes = Changes::insertions(rows(from, ROWS.min(from + BATCH))?);
        let started = Instant::now();
        of.insert(&of.keyed(&changes)?)?;
        let took = started.elapsed().as_secs_f64();
        (inserting, slowest) = (inserting + took, slowest.max(took));
        most = most.max(of.bytes());
    }
    say("rows put in", ROWS, inserting);
    println!("{:<28} {:>8.2} ms", "the slowest batch", slowest * 1e3);
    let started = Instant::now();
    let full: usize = of.snapshot(true)?.iter().map(row_bytes).sum();
    println!("{:<28} {:>8.2} ms", "a checkpoint of all", started.elapsed().as_secs_f64() * 1e3);
    let bytes = ROWS * 16;
    println!(
        "{:<28} {:>8.2} times the rows' bytes, {:.2} at most",
        "memory",
        of.bytes() as f64 / bytes as f64,
        most as f64 / bytes as f64
    );

    let (mut looking, mut found) = (0.0, 0);
    for from in (0..LOOKUPS).step_by(BATCH) {
        // Some of these came long ago, the others never.
        let at = ROWS - LOOKUPS / 2 + from;
        let probe = Changes::insertions(rows(at, at + BATCH)?);
        let started = Instant::now();
        let probe = of.keyed(&probe)?;
        let mut cursor = Cursor::default();
        loop {
            let (pairs, done) = of.pairs(&probe, &mut cursor, 1 << 14)?;
            found += of.columns_in(&pairs, &[1])?.first().map_or(0, |c| c.len());
            if done {
                break;
            }
        }
        looking += started.elapsed().as_secs_f64();
    }
    say("keys looked up", LOOKUPS, looking);
    println!("{:<28} {found:>8}", "of which are there");

    for from in (0..ROWS / 100).step_by(BATCH) {
        let to = (ROWS / 100).min(from + BATCH);
        of.insert(&of.keyed(&Changes::retractions(rows(from, to)?))?)?;
        of.insert(&of.keyed(&Changes::insertions(rows(ROWS + from, ROWS + to)?))?)?;
    }
    let delta: usize = of.snapshot(false)?.iter().map(row_bytes).sum();
    println!("{:<28} {:>8.2} % of one of all", "a checkpoint of 1 % changed", delta as f64 / full as f64 * 100.0);
    Ok(())
}
