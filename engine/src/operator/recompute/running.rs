//! A query that is run anew at the ends of epochs.

use std::future::Future;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::datatypes::SchemaRef;
use futures::TryStreamExt;
use tokio::runtime::{Handle as Threads, RuntimeFlavor};

use super::Recompute;
use crate::changelog::{Outgoing, Pieces, consolidate};
use crate::changes::{Changes, row_bytes};
use crate::epoch::EpochMark;
use crate::error::{Error, Result};
use crate::memory::MemoryAccount;
use crate::operator::{BuildContext, Operator, Output};
use crate::state::Handle;
use crate::state::arrangement::Arrangement;

pub(super) struct Running {
    spec: Arc<Recompute>,
    inputs: Vec<Handle<Arrangement>>,
    /// The last answer.
    answer: Handle<Arrangement>,
    account: MemoryAccount,
    /// Whether an input has changed since.
    changed: bool,
    /// What differs from the last answer, and is not said yet.
    left: Option<Pieces>,
}

impl Running {
    pub(super) fn new(spec: Arc<Recompute>, context: &mut BuildContext<'_>) -> Result<Self> {
        // By all columns: rows that are the same lie beside each other.
        let rows = |schema: &SchemaRef| Arrangement::new(schema.clone(), (0..schema.fields().len()).collect());
        let mut inputs = vec![];
        for (port, schema) in spec.inputs.iter().enumerate() {
            inputs.push(context.state.open(&format!("input {port}"), rows(schema)?));
        }
        let answer = context.state.open("answer", rows(&spec.schema)?);
        let account = context.state.account();
        Ok(Running { spec, inputs, answer, account, changed: false, left: None })
    }

    /// Runs the query, and finds out what differs.
    fn run(&mut self) -> Result<()> {
        let mut inputs = vec![];
        for (kept, schema) in self.inputs.iter().zip(&self.spec.inputs) {
            inputs.push(rows_of(kept, schema)?);
        }
        let mut held: usize = inputs.iter().map(row_bytes).sum();
        self.account.resize_large(held)?;
        let mut changes = Outgoing::new(self.spec.schema.clone(), true, None);
        let before = rows_of(&self.answer, &self.spec.schema)?;
        held += row_bytes(&before);
        changes.write(Changes::retractions(before))?;
        let (batch, schema, account) = (self.spec.batch.clone(), self.spec.schema.clone(), &mut self.account);
        waited(async {
            let mut answer = batch.run(inputs).await?;
            while let Some(rows) = answer.try_next().await? {
                held += row_bytes(&rows);
                account.resize_large(held)?;
                // Whether a column can be null, batch finds out by other rules.
                let rows = RecordBatch::try_new(schema.clone(), rows.columns().to_vec())?;
                changes.write(Changes::weighted(rows.clone(), vec![1; rows.num_rows()].into())?)?;
            }
            Ok::<_, Error>(())
        })?;
        self.left = Some(changes.end_in_pieces()?);
        Ok(())
    }

    fn say(&mut self, out: &mut Output) -> Result<()> {
        let Some(mut left) = self.left.take() else { return Ok(()) };
        while out.has_room() {
            let Some((changes, _)) = left.next_piece()? else {
                self.account.set(0);
                return Ok(());
            };
            self.answer.with(|answer| {
                let rows = answer.keyed(&changes)?;
                answer.insert(&rows)
            })?;
            out.emit(changes);
        }
        out.come_back();
        self.left = Some(left);
        Ok(())
    }
}

/// All rows that are kept, each as often as it is there.
fn rows_of(kept: &Handle<Arrangement>, schema: &SchemaRef) -> Result<RecordBatch> {
    let parts = kept.with(|kept| kept.all())?;
    let (rows, _) = consolidate(schema, &parts, None)?;
    match rows.weights().is_some_and(|weights| weights.iter().any(|w| *w < 0)) {
        true => Err(Error::internal("recompute: a row was taken back that is not there")),
        false => Ok(concat_batches(schema, [rows.rows()])?),
    }
}

/// What `future` gives; other tasks of this thread go on elsewhere meanwhile.
fn waited<T>(future: impl Future<Output = T>) -> T {
    match Threads::try_current() {
        Ok(threads) if threads.runtime_flavor() == RuntimeFlavor::MultiThread => {
            tokio::task::block_in_place(|| threads.block_on(future))
        }
        _ => futures::executor::block_on(future),
    }
}

impl Operator for Running {
    fn on_changes(&mut self, port: usize, changes: Changes, _out: &mut Output) -> Result<()> {
        self.changed = true;
        self.inputs[port].with(|input| {
            let rows = input.keyed(&changes)?;
            input.insert(&rows)
        })
    }

    fn on_epoch(&mut self, _mark: &EpochMark, out: &mut Output) -> Result<()> {
        if std::mem::take(&mut self.changed) {
            self.run()?;
        }
        self.say(out)
    }

    fn go_on(&mut self, out: &mut Output) -> Result<()> {
        self.say(out)
    }
}
