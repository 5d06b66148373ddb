//! What one stream brings in a run: its rows in the order in which they are read, by split, and where epochs
//! may end.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch, UInt32Array};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::datatypes::{Int64Type, SchemaRef};
use millstream_engine::changelog::consolidate;
use millstream_engine::changes::Changes;
use parking_lot::Mutex;
use rand::Rng;
use rand::rngs::StdRng;

use crate::Result;

/// The script of a stream.
#[derive(Debug)]
pub struct Input {
    /// The schema of the rows.
    pub schema: SchemaRef,
    /// The rows of each split, in order.
    pub splits: Vec<Changes>,
    /// Where each group ends in each split; a group is read within one epoch.
    pub groups: Vec<Vec<u64>>,
    /// The column of whole numbers by which rows replace each other, where they do.
    pub replaces: Option<usize>,
    /// What the running job does with it.
    pub run: Mutex<Run>,
}

/// How the present run reads an input, and what it has accepted.
#[derive(Debug, Default)]
pub struct Run {
    /// Whether epochs end with groups, so that what each epoch accepted is known.
    pub grouped: bool,
    /// Differs from run to run: draws sizes and pauses.
    pub seed: u64,
    /// The ends of the splits at the end of each epoch of this run.
    pub cuts: Vec<Vec<u64>>,
}

impl Input {
    /// Deals out `splits` in groups. `atoms` holds, for each split, the places where a group may end.
    pub fn new(rng: &mut StdRng, schema: SchemaRef, splits: Vec<Changes>, atoms: &[Vec<u64>]) -> Self {
        let mut at = vec![0; splits.len()];
        let mut groups = vec![];
        let ends = |at: &[usize]| -> Vec<u64> {
            at.iter().zip(atoms).map(|(at, atoms)| if *at == 0 { 0 } else { atoms[at - 1] }).collect()
        };
        while at.iter().zip(atoms).any(|(at, atoms)| *at < atoms.len()) {
            let most = if rng.random_bool(0.2) { 60 } else { 12 };
            for (at, atoms) in at.iter_mut().zip(atoms) {
                *at = (*at + rng.random_range(0..=most)).min(atoms.len());
            }
            groups.push(ends(&at));
        }
        groups.dedup();
        Input { schema, splits, groups, replaces: None, run: Mutex::default() }
    }

    /// The ends of all splits.
    pub fn ends(&self) -> Vec<u64> {
        self.splits.iter().map(|s| s.num_rows() as u64).collect()
    }

    /// What the rows before `ends` add up to.
    pub fn content(&self, ends: &[u64]) -> Result<RecordBatch> {
        let parts: Vec<Changes> = self.splits.iter().zip(ends).map(|(s, end)| s.slice(0, *end as usize)).collect();
        if let Some(key) = self.replaces {
            return self.last_rows(&parts, key);
        }
        if parts.iter().all(|p| p.weights().is_none()) {
            return Ok(concat_batches(&self.schema, parts.iter().map(Changes::rows))?);
        }
        Ok(consolidate(&self.schema, &parts, None)?.0.into_rows())
    }

    /// The last row of each key, but for those that went.
    fn last_rows(&self, parts: &[Changes], key: usize) -> Result<RecordBatch> {
        let all = Changes::concat(&self.schema, parts)?;
        let keys = all.rows().column(key).as_primitive::<Int64Type>();
        let mut last = BTreeMap::new();
        for row in 0..all.num_rows() {
            match all.weight(row) {
                1 => drop(last.insert(keys.value(row), row as u32)),
                _ => drop(last.remove(&keys.value(row))),
            }
        }
        Ok(take_record_batch(all.rows(), &last.into_values().collect::<UInt32Array>())?)
    }

    /// The ends of the splits after `epochs` epochs of this run, which began at `start`.
    pub fn accepted(&self, epochs: usize, start: &[u64]) -> Vec<u64> {
        match epochs.checked_sub(1) {
            None => start.to_vec(),
            Some(i) => self.run.lock().cuts.get(i).cloned().unwrap_or_else(|| start.to_vec()),
        }
    }
}

/// An input that is shared by the harness and the sources that read it.
pub type InputRef = Arc<Input>;
