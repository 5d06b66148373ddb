//! What a statement makes of the rows of its query: changes of the stream, kept aside until all of them are there.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{Field, Schema};
use millstream_engine::changelog::{Op, op_schema, with_ops};
use millstream_engine::changes::row_bytes;
use millstream_engine::connector::ingest::Parcel;
use millstream_engine::connector::spool::Spool;
use millstream_engine::memory::MemoryAccount;

use super::keys::Keys;
use crate::error::{Error, Result};
use crate::session::Millstream;
use crate::session::insert::fit;
use crate::session::tables::StreamDef;

/// What is made of an old row.
pub(super) enum Making {
    /// It is taken back.
    Deleted,
    /// These columns are set, in this order. No key changes: the new row takes the place of the old one.
    Replaced(Vec<usize>),
    /// The same where rows have no keys, or theirs change: the old row is taken back, and the new one comes.
    Exchanged(Vec<usize>),
}

/// Changes of a stream, as far as they have been made.
pub(super) struct Made {
    pub(super) def: Arc<StreamDef>,
    pub(super) making: Making,
    spool: Spool,
    /// The keys that change, with the account of what they were and what they become.
    pub(super) keys: Option<Keys>,
    /// The keys of all rows, where one may be met more than once.
    pub(super) met: Option<Keys>,
    pub(super) count: u64,
    /// Bytes of the rows that go and of those that come.
    bytes: usize,
    /// To ask for the room that they take where the job nets them.
    room: MemoryAccount,
}

/// What the job keeps of each row besides its bytes: a weight, and where it is.
const ROW: usize = 32;

impl Made {
    /// None yet, of the statement `what`. `meets` says that it may meet a row more than once.
    pub(super) fn new(ms: &Millstream, def: Arc<StreamDef>, making: Making, meets: bool, what: &str) -> Result<Self> {
        let folder = ms.store().scratch();
        let schema = match making {
            Making::Replaced(_) => def.schema.clone(),
            Making::Deleted | Making::Exchanged(_) => op_schema(&def.schema),
        };
        let remembered = |wanted: bool| {
            let held = || ms.budget().account(format!("the keys of {what}"));
            (wanted && !def.primary_key.is_empty()).then(|| Keys::new(&def, held())).transpose()
        };
        let (keys, met) = (remembered(matches!(making, Making::Exchanged(_)))?, remembered(meets)?);
        let spool = Spool::new(folder, schema, ms.budget().account(what));
        let room = ms.budget().account(what);
        Ok(Made { def, making, spool, keys, met, count: 0, bytes: 0, room })
    }

    /// Adds what is made of `rows`: the old rows, and behind them what is set.
    pub(super) async fn add(mut self, rows: &RecordBatch) -> Result<Self> {
        let n = self.def.schema.fields().len();
        self.count += rows.num_rows() as u64;
        let old = fitted(&self.def, rows.columns()[..n].to_vec(), rows.num_rows())?;
        self.refuse_twice(&old)?;
        let (values, n) = (&rows.columns()[n..], rows.num_rows());
        match &self.making {
            Making::Deleted => self.keep(with_ops(&old, &vec![Op::Delete; n])?).await,
            Making::Replaced(set) => {
                let new = replaced(&self.def, old.columns(), values, set, n)?;
                self.note(&old);
                self.keep(new).await
            }
            Making::Exchanged(set) => {
                let new = replaced(&self.def, old.columns(), values, set, n)?;
                if let Some(keys) = &mut self.keys {
                    keys.add(&old, -1)?;
                    keys.add(&new, 1)?;
                }
                self = self.keep(with_ops(&old, &vec![Op::Delete; n])?).await?;
                self.keep(with_ops(&new, &vec![Op::Insert; n])?).await
            }
        }
    }

    /// Notes rows that others take the place of.
    pub(super) fn note(&mut self, rows: &RecordBatch) {
        self.bytes += row_bytes(rows) + rows.num_rows() * ROW;
    }

    /// Keeps rows as they are.
    pub(super) async fn keep(mut self, rows: RecordBatch) -> Result<Self> {
        self.note(&rows);
        self.spool = self.spool.add(rows).await?;
        Ok(self)
    }

    /// Errors where a row is met a second time.
    fn refuse_twice(&mut self, old: &RecordBatch) -> Result<()> {
        let Some(keys) = &mut self.met else { return Ok(()) };
        match keys.claim(old)?.iter().position(|first| !first) {
            None => Ok(()),
            Some(at) => {
                let message = format!(
                    "several rows of FROM meet the row of stream \"{}\" with {}",
                    self.def.name,
                    keys.name_of(old, at)?
                );
                Err(Error::invalid(message)
                    .with_hint("Nothing was changed. Say in WHERE, or in a query in FROM, which of them counts."))
            }
        }
    }

    /// All of them.
    ///
    /// Errors where the job would have no room for them: they are one epoch, and it would fail.
    pub(super) async fn finish(mut self) -> Result<Parcel> {
        self.room.resize(self.bytes).map_err(|e| {
            Error::from(e).with_hint(
                "Nothing was changed. All changes of a statement are committed at once: change fewer rows at a time, or raise the \
                 budget with SET memory_limit = '8GB'.",
            )
        })?;
        let parcel = Parcel::from(self.spool.finish().await?);
        Ok(match self.making {
            Making::Replaced(_) => parcel,
            Making::Deleted | Making::Exchanged(_) => parcel.of_changelog(),
        })
    }
}

/// The rows `old` with the columns `set` in place of theirs.
pub(super) fn replaced(
    def: &StreamDef,
    old: &[ArrayRef],
    values: &[ArrayRef],
    set: &[usize],
    rows: usize,
) -> Result<RecordBatch> {
    let mut columns = old.to_vec();
    for (at, value) in set.iter().zip(values) {
        columns[*at] = Arc::clone(value);
    }
    fitted(def, columns, rows)
}

/// `columns`, all that `def` has, as it takes them.
pub(super) fn fitted(def: &StreamDef, columns: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch> {
    let fields = def.schema.fields().iter().zip(&columns);
    let fields = fields.map(|(field, column)| Field::new(field.name(), column.data_type().clone(), true));
    let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    fit(&RecordBatch::try_new_with_options(schema, columns, &options)?, &def.schema, &def.name)
}
