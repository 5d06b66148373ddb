//! Whole numbers that a query counts itself: `generate_series`, `range`.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, RecordBatchOptions};
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;

use super::generator::Numbered;
use super::{Intake, Opening, Read, Readers, Source, Unit, UnitReader};
use crate::changes::Changes;
use crate::error::Result;

/// The one split.
const SPLIT: &str = "numbers";
/// Numbers of a unit.
const UNIT: u64 = 1 << 20;
/// Numbers of a batch.
const BATCH: u64 = 1 << 13;

/// The numbers from the first to the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Series {
    first: i64,
    step: i64,
    count: u64,
}

impl Series {
    /// From `first` by `step` to `last`, which is one of them if it is `included` and met.
    pub fn new(first: i64, last: i64, step: i64, included: bool) -> Self {
        let (from, to, by) = (i128::from(first), i128::from(last), i128::from(step));
        let distance = if by < 0 { from - to } else { to - from };
        let count = match (distance, by.abs()) {
            (_, 0) => 0,
            (distance, _) if distance < 0 => 0,
            (distance, by) if included => distance / by + 1,
            (distance, by) => (distance + by - 1) / by,
        };
        Series { first, step, count: u64::try_from(count).unwrap_or(u64::MAX) }
    }

    /// No number.
    pub fn none() -> Self {
        Series { first: 0, step: 1, count: 0 }
    }

    fn numbers(self, range: Range<u64>) -> Int64Array {
        // Within the series nothing overflows.
        Int64Array::from_iter_values(range.map(|at| self.first.wrapping_add(self.step.wrapping_mul(at as i64))))
    }
}

/// Gives a series once, as rows of a number each.
#[derive(Debug)]
pub struct SeriesSource {
    series: Series,
    /// Of one column or none.
    schema: SchemaRef,
}

impl SeriesSource {
    /// A source of `series` in rows of `schema`: a column, or none.
    pub fn new(series: Series, schema: SchemaRef) -> Self {
        SeriesSource { series, schema }
    }
}

#[async_trait]
impl Source for SeriesSource {
    fn describe(&self) -> String {
        let Series { first, step, count } = self.series;
        format!("{count} numbers from {first} by {step}")
    }

    fn bounded(&self) -> bool {
        true
    }

    /// One that is not long is there from the first epoch on, as are all rows that a query has itself. A long one comes as input does.
    fn in_groups(&self) -> bool {
        self.series.count <= UNIT
    }

    fn readers(self: Arc<Self>) -> Option<Arc<dyn Readers>> {
        Some(self)
    }

    async fn open(self: Arc<Self>, opening: Opening) -> Result<Arc<dyn Intake>> {
        Ok(Numbered::new(SPLIT, Some(self.series.count), UNIT).open(&opening.consumed))
    }
}

#[async_trait]
impl Readers for SeriesSource {
    async fn read(&self, unit: &Unit) -> Result<Box<dyn UnitReader>> {
        let (series, schema) = (self.series, self.schema.clone());
        Ok(Box::new(Reader { series, schema, left: unit.start..unit.end }))
    }
}

struct Reader {
    series: Series,
    schema: SchemaRef,
    left: Range<u64>,
}

#[async_trait]
impl UnitReader for Reader {
    async fn next(&mut self) -> Result<Option<Read>> {
        if self.left.is_empty() {
            return Ok(None);
        }
        let range = self.left.start..self.left.end.min(self.left.start + BATCH);
        self.left.start = range.end;
        let count = RecordBatchOptions::new().with_row_count(Some((range.end - range.start) as usize));
        let numbers = || -> ArrayRef { Arc::new(self.series.numbers(range.clone())) };
        let columns = self.schema.fields().iter().map(|_| numbers()).collect();
        let rows = RecordBatch::try_new_with_options(self.schema.clone(), columns, &count)?;
        Ok(Some(Read::rows(Changes::insertions(rows), range.end)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(first: i64, last: i64, step: i64, included: bool) -> Vec<i64> {
        let series = Series::new(first, last, step, included);
        series.numbers(0..series.count).values().to_vec()
    }

    #[test]
    fn a_series_goes_from_the_first_to_the_last() {
        assert_eq!(all(1, 3, 1, true), [1, 2, 3]);
        assert_eq!(all(1, 3, 1, false), [1, 2]);
        assert_eq!(all(1, 8, 3, true), [1, 4, 7]);
        assert_eq!(all(1, 7, 3, true), [1, 4, 7]);
        assert_eq!(all(1, 7, 3, false), [1, 4]);
        assert_eq!(all(3, 1, -1, true), [3, 2, 1]);
        assert_eq!(all(3, 1, -2, false), [3]);
        assert_eq!(all(3, 1, 1, true), [0; 0]);
        assert_eq!(all(5, 5, 1, false), [0; 0]);
        assert_eq!(all(i64::MAX - 1, i64::MAX, 1, true), [i64::MAX - 1, i64::MAX]);
        assert_eq!(all(i64::MIN, i64::MAX, i64::MAX, true), [i64::MIN, -1, i64::MAX - 1]);
        assert_eq!(Series::new(i64::MIN, i64::MAX, 1, true).count, u64::MAX);
    }
}
