//! Rows that a join says without the row that they match.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions, UInt32Array, new_null_array};
use arrow::compute::take;

use super::{Alone, Join, JoinColumn};
use crate::changes::Changes;
use crate::error::Result;

/// Rows of one side, the columns that are given of it, and what has happened to each.
pub(super) struct Rows {
    pub(super) side: usize,
    pub(super) columns: Vec<ArrayRef>,
    /// The weight with which each is said as one with a match, and as one without.
    pub(super) weights: Vec<[i64; 2]>,
}

impl Rows {
    /// What rows that have come or gone say: they are as `matched` says.
    pub(super) fn new(side: usize, columns: Vec<ArrayRef>, weights: impl Iterator<Item = (i64, bool)>) -> Self {
        let split = |(w, matched): (i64, bool)| if matched { [w, 0] } else { [0, w] };
        Rows { side, columns, weights: weights.map(split).collect() }
    }

    /// What rows say that have found their first match (1) or lost their last (-1), with their own weights.
    pub(super) fn turned(side: usize, columns: Vec<ArrayRef>, weights: impl Iterator<Item = (i64, i64)>) -> Self {
        Rows { side, columns, weights: weights.map(|(w, turn)| [w * turn, -w * turn]).collect() }
    }

    /// The changes that this makes of a join that says rows `alone`.
    pub(super) fn said(&self, spec: &Join, alone: Alone) -> Result<Vec<Changes>> {
        let kinds: &[(usize, bool)] = match alone {
            Alone::Matched => &[(0, true)],
            Alone::Unmatched => &[(1, false)],
            Alone::Marked => &[(0, true), (1, false)],
        };
        let mut said = vec![];
        for (kind, matched) in kinds {
            let rows: Vec<u32> =
                (0..self.weights.len() as u32).filter(|i| self.weights[*i as usize][*kind] != 0).collect();
            if rows.is_empty() {
                continue;
            }
            let weights = rows.iter().map(|row| self.weights[*row as usize][*kind]).collect();
            said.push(Changes::weighted(self.batch(spec, &UInt32Array::from(rows), *matched)?, weights)?);
        }
        Ok(said)
    }

    fn batch(&self, spec: &Join, rows: &UInt32Array, matched: bool) -> Result<RecordBatch> {
        let mut own = self.columns.iter();
        let mut columns = Vec::with_capacity(spec.columns.len());
        for (column, field) in spec.columns.iter().zip(spec.schema.fields()) {
            columns.push(match column {
                JoinColumn::Of(side, _) if *side == self.side => match own.next() {
                    Some(values) if rows.len() == values.len() => values.clone(),
                    Some(values) => take(values, rows, None)?,
                    None => new_null_array(field.data_type(), rows.len()),
                },
                JoinColumn::Of(..) => new_null_array(field.data_type(), rows.len()),
                JoinColumn::Mark => Arc::new(BooleanArray::from(vec![matched; rows.len()])),
            });
        }
        let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
        Ok(RecordBatch::try_new_with_options(spec.schema.clone(), columns, &options)?)
    }
}
