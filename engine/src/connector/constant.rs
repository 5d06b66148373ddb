//! Rows that a query has itself: `VALUES`, and a `SELECT` without FROM.

use std::sync::Arc;

use arrow::array::RecordBatch;
use async_trait::async_trait;

use super::generator::Numbered;
use super::{Intake, Opening, Read, Readers, Source, Unit, UnitReader};
use crate::changes::Changes;
use crate::error::Result;

/// The one split.
const SPLIT: &str = "rows";

/// Gives its rows once.
#[derive(Debug)]
pub struct Constant(RecordBatch);

impl Constant {
    /// A source of `rows`.
    pub fn new(rows: RecordBatch) -> Self {
        Constant(rows)
    }
}

#[async_trait]
impl Source for Constant {
    fn describe(&self) -> String {
        match self.0.num_rows() {
            1 => "1 row".to_owned(),
            n => format!("{n} rows"),
        }
    }

    fn bounded(&self) -> bool {
        true
    }

    fn readers(self: Arc<Self>) -> Option<Arc<dyn Readers>> {
        Some(self)
    }

    async fn open(self: Arc<Self>, opening: Opening) -> Result<Arc<dyn Intake>> {
        Ok(Numbered::new(SPLIT, Some(self.0.num_rows() as u64), u64::MAX).open(&opening.consumed))
    }
}

#[async_trait]
impl Readers for Constant {
    async fn read(&self, unit: &Unit) -> Result<Box<dyn UnitReader>> {
        let rows = self.0.slice(unit.start as usize, (unit.end - unit.start) as usize);
        Ok(Box::new(Reader(Some(Read::rows(Changes::insertions(rows), unit.end)))))
    }
}

struct Reader(Option<Read>);

#[async_trait]
impl UnitReader for Reader {
    async fn next(&mut self) -> Result<Option<Read>> {
        Ok(self.0.take())
    }
}
