//! The values of calls over sorted rows.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, UInt64Array, new_empty_array};
use arrow::compute::{concat, partition};
use arrow::datatypes::FieldRef;

use super::{Call, Function, Over};
use crate::error::Result;

/// Rows of several partitions, each sorted.
pub(super) struct Partitions {
    /// The columns of the input.
    pub(super) rows: RecordBatch,
    /// Where each partition begins, and the end of the last.
    pub(super) bounds: Vec<usize>,
}

/// What `spec` computes of `of`: a column for each call.
pub(super) fn values(spec: &Over, of: &Partitions) -> Result<Vec<ArrayRef>> {
    let peers = match spec.calls.iter().any(|c| matches!(c.function, Function::Rank | Function::DenseRank)) {
        true => peers(spec, of)?,
        false => vec![],
    };
    let fields = &spec.schema.fields()[spec.input.fields().len()..];
    let value = |(call, field): (&Call, &FieldRef)| {
        let numbers = |number: fn(Place) -> u64| -> ArrayRef { Arc::new(numbered(of, &peers, number)) };
        Ok(match &call.function {
            Function::RowNumber => numbers(|place| place.row + 1),
            Function::Rank => numbers(|place| place.peers + 1),
            Function::DenseRank => numbers(|place| place.groups),
            Function::Other(expr) => {
                let each = of.bounds.windows(2).map(|b| expr.evaluate(&of.rows.slice(b[0], b[1] - b[0])));
                let each = each.collect::<Result<Vec<_>, _>>()?;
                let each: Vec<&dyn Array> = each.iter().map(AsRef::as_ref).collect();
                if each.is_empty() { new_empty_array(field.data_type()) } else { concat(&each)? }
            }
        })
    };
    spec.calls.iter().zip(fields).map(value).collect()
}

/// A row in its partition.
#[derive(Clone, Copy)]
struct Place {
    /// So many rows are before it.
    row: u64,
    /// So many are before those that are alike in their order.
    peers: u64,
    /// So many groups of such rows there are up to its own.
    groups: u64,
}

/// Where rows begin that are alike in their order, and the end of the last.
fn peers(spec: &Over, of: &Partitions) -> Result<Vec<usize>> {
    if spec.order.is_empty() {
        return Ok(vec![0, of.rows.num_rows()]);
    }
    let columns: Vec<ArrayRef> = spec.order.iter().map(|(c, _)| of.rows.column(*c).clone()).collect();
    let mut bounds: Vec<usize> = partition(&columns)?.ranges().into_iter().map(|range| range.start).collect();
    bounds.push(of.rows.num_rows());
    Ok(bounds)
}

fn numbered(of: &Partitions, peers: &[usize], number: fn(Place) -> u64) -> UInt64Array {
    let mut numbers = Vec::with_capacity(of.rows.num_rows());
    let mut next = peers.iter().copied().peekable();
    for bounds in of.bounds.windows(2) {
        let mut place = Place { row: 0, peers: 0, groups: 0 };
        for row in bounds[0]..bounds[1] {
            place.row = (row - bounds[0]) as u64;
            let mut begins = row == bounds[0];
            while next.next_if(|at| *at <= row).is_some() {
                begins = true;
            }
            if begins {
                (place.peers, place.groups) = (place.row, place.groups + 1);
            }
            numbers.push(number(place));
        }
    }
    UInt64Array::from(numbers)
}
