//! The rows on which an expression has no value, and why.

use std::fmt;
use std::sync::Arc;

use arrow::array::BooleanArray;
use datafusion_common::DataFusionError;

/// Why a row has no value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The expression that failed, as SQL.
    pub expression: Arc<str>,
    /// What was wrong with the row.
    pub reason: Arc<str>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.expression, self.reason)
    }
}

/// The rows of a batch on which an expression failed, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Failures {
    rows: Vec<(u32, Failure)>,
}

impl Failures {
    /// Whether no row failed.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// How many rows failed.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// The rows in order, each with its failure.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &Failure)> {
        self.rows.iter().map(|(row, failure)| (*row, failure))
    }

    /// Adds a row behind those there are.
    pub fn push(&mut self, row: u32, failure: Failure) {
        debug_assert!(self.rows.last().is_none_or(|last| last.0 < row));
        self.rows.push((row, failure));
    }

    /// Those of rows that were taken from `places` of a batch, as rows of that batch.
    pub(super) fn at(mut self, places: &[u32]) -> Self {
        for (row, _) in &mut self.rows {
            *row = places[*row as usize];
        }
        self
    }

    /// Takes in the failures of another expression over the same rows; a row keeps its first.
    pub fn merge(&mut self, other: Failures) {
        if self.rows.is_empty() {
            self.rows = other.rows;
            return;
        }
        self.rows.extend(other.rows);
        // The sort is stable: of two failures of a row the earlier comes first.
        self.rows.sort_by_key(|(row, _)| *row);
        self.rows.dedup_by_key(|(row, _)| *row);
    }

    /// Keeps those for which `keep` is true.
    pub fn retain(&mut self, mut keep: impl FnMut(u32) -> bool) {
        self.rows.retain(|(row, _)| keep(*row));
    }

    /// The rows of a batch of `rows` rows that did not fail; `None` when none failed.
    pub fn good(&self, rows: usize) -> Option<BooleanArray> {
        if self.rows.is_empty() {
            return None;
        }
        let mut good = arrow::array::BooleanBufferBuilder::new(rows);
        good.append_n(rows, true);
        for (row, _) in &self.rows {
            good.set_bit(*row as usize, false);
        }
        Some(BooleanArray::new(good.finish(), None))
    }

    /// The first failure as an error of whoever cannot put rows aside.
    pub fn error(&self) -> Option<DataFusionError> {
        let (_, failure) = self.rows.first()?;
        Some(DataFusionError::Execution(failure.to_string()))
    }
}
