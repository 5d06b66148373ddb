//! The first of two phases: adds up one epoch's rows and emits one state per key.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use super::{Aggregate, PIECE};
use crate::changes::Changes;
use crate::epoch::EpochMark;
use crate::error::Result;
use crate::memory::MemoryAccount;
use crate::operator::{BuildContext, Operator, Output};
use crate::state::group_table::{GroupTable, state_schema};

/// With this many keys the epoch's states are sent on before its end, so that they take bounded memory.
const MOST_KEYS: usize = 1 << 17;
/// With this many where memory is short.
const FEW_KEYS: usize = 1 << 12;

pub(super) struct Partial {
    spec: Arc<Aggregate>,
    keys: Schema,
    states: SchemaRef,
    output: SchemaRef,
    table: Option<GroupTable>,
    /// A table that is being emitted, and the slot from which on.
    leaving: Option<(GroupTable, u32)>,
    slots: Vec<u32>,
    account: MemoryAccount,
}

impl Partial {
    pub(super) fn new(spec: Arc<Aggregate>, context: &mut BuildContext<'_>) -> Result<Self> {
        let mut fields = vec![Arc::new(Field::new("w", DataType::Int64, false))];
        fields.extend(spec.key_schema().fields().iter().cloned());
        let keys = Schema::new(fields);
        let states = state_schema(&keys, &spec.state_types()?, spec.append_only);
        let (output, account) = (spec.timed_schema()?, context.state.account());
        Ok(Partial { output, spec, keys, states, table: None, leaving: None, slots: vec![], account })
    }

    fn flush(&mut self, out: &mut Output) -> Result<()> {
        self.leaving = self.table.take().map(|table| (table, 0));
        self.go_on(out)
    }
}

impl Operator for Partial {
    fn on_changes(&mut self, _port: usize, changes: Changes, out: &mut Output) -> Result<()> {
        let (changes, inputs) = self.spec.inputs(changes, out)?;
        let rows = changes.num_rows();
        let table = match &mut self.table {
            Some(table) => table,
            none => {
                let accumulators = self.spec.accumulators()?;
                none.insert(GroupTable::new(&self.keys, accumulators, self.states.clone(), self.spec.append_only)?)
            }
        };
        let window = inputs.windows.unwrap_or_else(|| Arc::new(Int64Array::from(vec![0; rows])) as ArrayRef);
        let mut keys = vec![window];
        keys.extend(inputs.keys);
        table.intern(&keys, rows, &mut self.slots)?;
        let weights = changes.weights().map(|w| &w[..]);
        let runs = table.take_runs();
        table.count_rows(&self.slots, weights);
        for (i, input) in inputs.units.iter().enumerate() {
            table.update(i, &input.touch(&self.slots, &runs, weights), &input.args)?;
        }
        let (keys, bytes) = (table.len(), table.bytes());
        // What is sent on is less to hold here, and is there only once.
        if keys >= MOST_KEYS || (keys >= FEW_KEYS && self.account.is_pressed()) {
            return self.flush(out);
        }
        self.account.set(bytes);
        Ok(())
    }

    fn on_epoch(&mut self, _mark: &EpochMark, out: &mut Output) -> Result<()> {
        self.flush(out)
    }

    fn go_on(&mut self, out: &mut Output) -> Result<()> {
        let Some((table, from)) = &mut self.leaving else { return Ok(()) };
        let all = table.len() as u32;
        while *from < all {
            if !out.has_room() {
                out.come_back();
                return Ok(());
            }
            let slots: Vec<u32> = (*from..all.min(*from + PIECE)).collect();
            let states = table.state(&slots)?;
            out.emit(Changes::insertions(RecordBatch::try_new(self.output.clone(), states.columns().to_vec())?));
            *from += slots.len() as u32;
        }
        self.leaving = None;
        self.account.set(0);
        Ok(())
    }
}
