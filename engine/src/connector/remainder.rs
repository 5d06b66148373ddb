//! What is left of the rows of a source that replace or take back others, when it has been read to its end.
//!
//! ```text
//! by a key     +(k=1, v=a) +(k=1, v=b) +(k=2, v=c) -(k=2, v=c)   ->  (1, b)
//! as they are  +(a) +(a) -(a) +(b)                               ->  (a) (b)
//! ```
//! The same as a continuous query holds of them when all has come.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use std::sync::Arc;

use crate::changes::Changes;
use crate::epoch::EpochMark;
use crate::error::Result;
use crate::memory::MemoryBudget;
use crate::operator::upsert::{Upsert, Weights};
use crate::operator::{BuildContext, Operator, OperatorSpec, Output};
use crate::state::StateRegistry;
use crate::state::key_index::KeyIndex;
use crate::time::EventTime;

/// The rows of a batch that is given.
const BATCH: usize = 8192;

/// See the module's text.
pub struct Remainder(Kind);

enum Kind {
    Keyed { operator: Box<dyn Operator>, budget: Arc<MemoryBudget>, schema: SchemaRef, _state: StateRegistry },
    Netted(Netted),
}

impl Remainder {
    /// Of rows of `schema` of which later ones replace those that have the same values in the columns `key`; those in the
    /// columns `beside` need not be the same for a row to be taken back.
    pub fn keyed(schema: SchemaRef, key: Vec<usize>, beside: Vec<usize>) -> Result<Self> {
        // Its owner counts what is held.
        let budget = MemoryBudget::new(usize::MAX);
        let mut state = StateRegistry::new("query", budget.clone());
        let spec = Upsert { key, schema: schema.clone(), weights: Weights::InOrder { beside } };
        let operator = spec.build(&mut BuildContext { state: &mut state })?;
        Ok(Remainder(Kind::Keyed { operator, budget, schema, _state: state }))
    }

    /// Of rows of `schema` that are each there as often as they have come and were not taken back.
    pub fn netted(schema: SchemaRef) -> Result<Self> {
        Ok(Remainder(Kind::Netted(Netted { index: KeyIndex::new(&schema)?, times: vec![], slots: vec![], schema })))
    }

    /// Takes in what comes next.
    pub fn add(&mut self, changes: Changes) -> Result<()> {
        match &mut self.0 {
            Kind::Keyed { operator, .. } => operator.on_changes(0, changes, &mut Output::default()),
            Kind::Netted(netted) => netted.add(&changes),
        }
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        match &self.0 {
            Kind::Keyed { budget, .. } => budget.used(),
            Kind::Netted(netted) => netted.index.bytes() + netted.times.capacity() * size_of::<i64>(),
        }
    }

    /// What is left, in batches.
    pub fn end(self) -> Result<Vec<RecordBatch>> {
        match self.0 {
            Kind::Keyed { mut operator, schema, .. } => {
                let mut out = Output::default();
                let mark = EpochMark {
                    epoch: 1,
                    now: EventTime::MIN,
                    watermark: EventTime::MAX,
                    checkpoint: None,
                    end: true,
                    depth: 0,
                };
                operator.on_epoch(&mark, &mut out)?;
                let mut left = out.take();
                while out.take_comes_back() {
                    operator.go_on(&mut out)?;
                    left.extend(out.take());
                }
                let rows = left.into_iter().map(Changes::into_rows);
                Ok(rows.flat_map(|rows| pieces(&rows)).chain([RecordBatch::new_empty(schema)]).collect())
            }
            Kind::Netted(netted) => netted.end(),
        }
    }
}

fn pieces(rows: &RecordBatch) -> Vec<RecordBatch> {
    let all = rows.num_rows();
    (0..all).step_by(BATCH).map(|at| rows.slice(at, BATCH.min(all - at))).collect()
}

/// How often each row is there.
struct Netted {
    schema: SchemaRef,
    index: KeyIndex,
    times: Vec<i64>,
    slots: Vec<u32>,
}

impl Netted {
    fn add(&mut self, changes: &Changes) -> Result<()> {
        let rows = changes.rows();
        self.index.intern(rows.columns(), rows.num_rows(), &mut self.slots)?;
        self.times.resize(self.index.len(), 0);
        for (row, slot) in self.slots.iter().enumerate() {
            self.times[*slot as usize] += changes.weight(row);
        }
        Ok(())
    }

    fn end(self) -> Result<Vec<RecordBatch>> {
        let times = self.times.iter().zip(0..);
        let mut left = times.flat_map(|(times, slot)| std::iter::repeat_n(slot, (*times).max(0) as usize)).peekable();
        let mut batches = vec![RecordBatch::new_empty(self.schema.clone())];
        while left.peek().is_some() {
            let slots: Vec<u32> = left.by_ref().take(BATCH).collect();
            batches.push(RecordBatch::try_new(self.schema.clone(), self.index.gather(&slots)?)?);
        }
        Ok(batches)
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, Int64Array, StringViewArray};
    use arrow::datatypes::{DataType, Field, Schema};

    use super::*;
    use crate::testing::{parse, show};

    fn schema() -> SchemaRef {
        let fields = [("k", DataType::Utf8View), ("v", DataType::Int64)];
        Arc::new(Schema::new(fields.map(|(n, t)| Field::new(n, t, true)).to_vec()))
    }

    fn left(mut remainder: Remainder, parts: &[&str]) -> Vec<String> {
        for part in parts {
            remainder.add(parse(&schema(), part).expect("rows")).expect("room");
        }
        assert!(remainder.bytes() > 0);
        let batches = remainder.end().expect("ends");
        let mut rows: Vec<_> =
            batches.into_iter().flat_map(|rows| show(&Changes::insertions(rows)).expect("shows")).collect();
        rows.sort();
        rows
    }

    #[test]
    fn the_last_rows_are_left() {
        let keyed = Remainder::keyed(schema(), vec![0], vec![]).expect("a key");
        let rows = left(keyed, &["+1 a 1; +1 b 1; +1 a 2", "-1 b 1; +1 c 3; -1 a 1"]);
        assert_eq!(rows, ["+1 a 2", "+1 c 3"]);
    }

    #[test]
    fn all_that_is_left_is_given_however_much_it_is() {
        let mut keyed = Remainder::keyed(schema(), vec![0], vec![]).expect("a key");
        for from in (0..200_000).step_by(50_000) {
            let keys =
                StringViewArray::from_iter_values((from..from + 50_000).map(|i| format!("a key of some length {i}")));
            let columns: Vec<ArrayRef> =
                vec![Arc::new(keys), Arc::new(Int64Array::from_iter_values(from..from + 50_000))];
            let rows = RecordBatch::try_new(schema(), columns).expect("rows");
            keyed.add(Changes::insertions(rows)).expect("room");
        }
        let left = keyed.end().expect("ends");
        assert_eq!(left.iter().map(RecordBatch::num_rows).sum::<usize>(), 200_000);
    }

    #[test]
    fn rows_are_left_as_often_as_they_are_there() {
        let netted = Remainder::netted(schema()).expect("columns");
        // What is taken back and was not there yet comes and is gone.
        let rows = left(netted, &["+1 a 1; +1 a 1; +1 b null", "-1 a 1; -1 b null; -1 c 1", "+1 c 1; +1 d 4; +1 a 1"]);
        assert_eq!(rows, ["+1 a 1", "+1 a 1", "+1 d 4"]);
        let many = (0..20_000).map(|i| format!("+1 k {i}")).collect::<Vec<_>>().join(";");
        assert_eq!(left(Remainder::netted(schema()).expect("columns"), &[&many]).len(), 20_000);
    }
}
