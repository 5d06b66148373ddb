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

    /// No epoch ends before all of them are there: a query without the rows that it has itself is another one.
    fn in_groups(&self) -> bool {
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

#[cfg(test)]
mod tests {
    use arrow::array::Int64Array;
    use arrow::datatypes::{DataType, Field, Schema};

    use super::*;
    use crate::memory::MemoryBudget;

    #[tokio::test]
    async fn an_epoch_has_all_rows() {
        let schema = Arc::new(Schema::new(vec![Field::new("x", DataType::Int64, false)]));
        let rows = RecordBatch::try_new(schema, vec![Arc::new(Int64Array::from(vec![1, 2, 3]))]).expect("fits");
        let source = Arc::new(Constant::new(rows));
        assert!(source.in_groups());
        let intake = source.clone().open(Opening::new(MemoryBudget::new(1 << 20))).await.expect("opens");
        // A task that ends the epoch before it has read anything reads them then.
        let unit = intake.try_unit().expect("they are there");
        let read = source.read(&unit).await.expect("opens").next().await.expect("reads").expect("rows");
        assert_eq!(read.rows.num_rows(), 3);
        assert!(intake.try_unit().is_none());
        assert!(intake.next_unit().await.expect("ends").is_none());
    }
}
