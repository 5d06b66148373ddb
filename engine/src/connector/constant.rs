//! Rows that a query has itself: `VALUES`, and a `SELECT` without FROM.

use std::ops::Range;

use arrow::array::RecordBatch;
use async_trait::async_trait;
use parking_lot::Mutex;

use super::{Offsets, Read, Source, Split, Unit, UnitReader};
use crate::changes::Changes;
use crate::error::Result;

/// The one split.
const SPLIT: &str = "rows";

/// Gives its rows once.
#[derive(Debug)]
pub struct Constant {
    rows: RecordBatch,
    /// What is to be handed out.
    left: Mutex<Vec<Range<u64>>>,
}

impl Constant {
    /// A source of `rows`.
    pub fn new(rows: RecordBatch) -> Self {
        Constant { rows, left: Mutex::default() }
    }
}

#[async_trait]
impl Source for Constant {
    async fn start(&self, consumed: &Offsets) -> Result<()> {
        *self.left.lock() = consumed.gaps(SPLIT, 0..self.rows.num_rows() as u64);
        Ok(())
    }

    fn splits(&self) -> Vec<Split> {
        let end = Some(self.rows.num_rows() as u64);
        vec![Split { name: SPLIT.into(), end, min_time: None, holds: true }]
    }

    async fn next_unit(&self) -> Result<Option<Unit>> {
        let unit = |rows: Range<u64>| Unit { split: SPLIT.into(), start: rows.start, end: rows.end };
        Ok(self.left.lock().pop().map(unit))
    }

    async fn open(&self, unit: &Unit) -> Result<Box<dyn UnitReader>> {
        let rows = self.rows.slice(unit.start as usize, (unit.end - unit.start) as usize);
        Ok(Box::new(Reader(Some(Read::rows(Changes::insertions(rows), unit.end)))))
    }

    fn bounded(&self) -> bool {
        true
    }

    fn describe(&self) -> String {
        match self.rows.num_rows() {
            1 => "1 row".to_owned(),
            n => format!("{n} rows"),
        }
    }
}

struct Reader(Option<Read>);

#[async_trait]
impl UnitReader for Reader {
    async fn next(&mut self) -> Result<Option<Read>> {
        Ok(self.0.take())
    }
}
