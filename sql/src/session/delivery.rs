//! Rows that another server sends into a stored stream, once.
//!
//! Whoever sends keeps what it sends until it is told that it was taken, and sends it again when it is not told. So the rows
//! come with a [`Delivery`], which says whose they are and which, and the stream keeps, in the manifest that commits them, what
//! it has taken of each sender: a repetition is acknowledged, and its rows are not taken.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Schema, SchemaRef};
use futures::StreamExt;
use futures::stream::BoxStream;
use millstream_engine::changelog::{OP, op_schema, weights};
use millstream_engine::connector::ingest::{Kept, Parcel, Reserved};
use millstream_engine::connector::spool::{Spool, Spooled};
use millstream_engine::format::sql_name;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::ingested::ingested;
use super::intake::Intake;
use super::tables::StreamDef;
use super::{Millstream, Session};
use crate::error::{Error, ErrorKind, Result};
use crate::statement::quote_name;

/// Of how many deliveries of a sender is known what they were.
const REMEMBERED: usize = 16;
/// How long the names of a sender and its run may be: they are kept in each manifest.
const LONGEST_NAME: usize = 64;

/// What comes with the rows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivery {
    /// Who sends, a name that nobody else has; empty to ask only whether such rows would be taken.
    pub sender: String,
    /// The checkpoint there that committed the rows: the next delivery has a higher one.
    pub checkpoint: u64,
    /// The run of the job there that made it: a word that no other run has, also one over a copy of its store.
    pub run: String,
    /// How many rows there are.
    pub rows: u64,
    /// Whether they are changes, with the column [`OP`] before the others.
    pub changelog: bool,
    /// The columns by which a changelog's rows are told apart, where known.
    pub key: Option<Vec<String>>,
}

/// What is remembered of a delivery: checkpoint, run and rows.
type Taken = (u64, String, u64);

impl Delivery {
    fn taken(&self) -> Taken {
        (self.checkpoint, self.run.clone(), self.rows)
    }

    /// Whether it is the one that was `taken`. Of one that was taken some may have gone there already.
    fn is(&self, taken: &Taken) -> bool {
        let (checkpoint, run, rows) = taken;
        (self.checkpoint, &self.run) == (*checkpoint, run) && self.rows <= *rows
    }

    /// Checks that `def` can take it.
    fn check(&self, def: &StreamDef, schema: &SchemaRef) -> Result<()> {
        let content = self.content(schema)?;
        ingested(&RecordBatch::new_empty(content), &def.schema, &def.name)?;
        if !self.changelog {
            return Ok(());
        }
        let name = &def.name;
        let wanted: Vec<&str> = def.primary_key.iter().map(|at| def.schema.field(*at).name().as_str()).collect();
        if wanted.is_empty() {
            return Err(Error::unsupported(format!("rows are taken back, and stream \"{name}\" has no primary key"))
                .with_hint("Make it with PRIMARY KEY (…), over the columns by which the sent rows are told apart."));
        }
        let keyed = self.key.iter().flatten();
        let same = keyed.clone().count() == wanted.len() && keyed.clone().all(|k| wanted.contains(&k.as_str()));
        if same {
            return Ok(());
        }
        let told = match &self.key {
            Some(key) => format!("told apart by {}", key.join(", ")),
            None => "not told apart by any key".to_owned(),
        };
        let message =
            format!("the sent rows are {told}, and the primary key of stream \"{name}\" is {}", wanted.join(", "));
        Err(Error::unsupported(message).with_hint("Make a stream with that key, or send rows of another query."))
    }

    /// The columns without the operation.
    fn content(&self, schema: &SchemaRef) -> Result<SchemaRef> {
        if !self.changelog {
            return Ok(schema.clone());
        }
        match schema.fields().split_first() {
            Some((op, rest)) if op.name() == OP => Ok(Arc::new(Schema::new(rest.to_vec()))),
            _ => Err(Error::invalid(format!("a changelog begins with the column {OP}"))),
        }
    }

    /// Rows that came, as the stream keeps them until all have.
    fn fitted(&self, rows: &RecordBatch, def: &StreamDef) -> Result<RecordBatch> {
        if !self.changelog {
            return ingested(rows, &def.schema, &def.name);
        }
        let ops: ArrayRef = cast(rows.column(0), &DataType::Utf8)?;
        if ops.null_count() > 0 {
            return Err(Error::invalid(format!("{OP} is null")));
        }
        weights(&ops)?;
        let content = rows.project(&(1..rows.num_columns()).collect::<Vec<_>>())?;
        let content = ingested(&content, &def.schema, &def.name)?;
        let columns = [vec![ops], content.columns().to_vec()].concat();
        Ok(RecordBatch::try_new(op_schema(&def.schema), columns)?)
    }
}

/// What became of a delivery before.
enum Before {
    Taken,
    /// Not taken yet: the key is kept, and those before it are known.
    Not(Reserved, Vec<Taken>),
}

impl Intake {
    /// Finds out what became of `delivery`, waiting for a twin that is at it.
    async fn before(&self, delivery: &Delivery) -> Result<Before> {
        let (reserved, known) = self.settled(&format!("link/{}", delivery.sender)).await?;
        let known: Vec<Taken> = serde_json::from_value(known.unwrap_or_else(|| Value::Array(vec![])))
            .map_err(|e| Error::internal(format!("what was taken of a sender cannot be read: {e}")))?;
        match known.last() {
            _ if known.iter().any(|taken| delivery.is(taken)) => Ok(Before::Taken),
            Some((last, ..)) if *last >= delivery.checkpoint => Err(set_back(delivery.checkpoint, *last)),
            _ => Ok(Before::Not(reserved, known)),
        }
    }
}

fn set_back(checkpoint: u64, last: u64) -> Error {
    let message = format!("rows of checkpoint {checkpoint} came after those of checkpoint {last} of the same sender");
    Error::invalid(message).with_hint(
        "The sending store was restored from an older copy. CREATE OR REPLACE STREAM at the sender sends all of its history again: into \
         a stream with a primary key, or one made anew, that is the right content.",
    )
}

impl Session {
    /// Takes rows of `schema` into the stored stream `stream`, once and whole, if who asks may write to it. Waits until they are
    /// durable and gives how many there are; 0 for those that were taken before. A changelog goes into a stream with the same
    /// primary key.
    ///
    /// After an error none of the rows is there.
    pub async fn deliver(
        &self,
        stream: &str,
        delivery: Delivery,
        schema: &SchemaRef,
        rows: BoxStream<'static, Result<RecordBatch>>,
    ) -> Result<u64> {
        let what = format!("deliver into {}", quote_name(stream));
        let intake = self.way_into(stream).map_err(|e| match e.kind() {
            ErrorKind::Denied => {
                self.note_text(&what, false, Some(e.message()));
                e
            }
            ErrorKind::NotFound => e.with_hint(made(stream, &delivery, schema)),
            _ => e,
        })?;
        let def = self.millstream.stream(stream)?;
        delivery.check(&def, schema)?;
        if delivery.sender.is_empty() {
            return Ok(0);
        }
        if delivery.sender.len().max(delivery.run.len()) > LONGEST_NAME {
            return Err(Error::invalid(format!("a sender or its run has a name longer than {LONGEST_NAME} bytes")));
        }
        let (reserved, mut known) = match intake.before(&delivery).await? {
            Before::Taken => return Ok(0),
            Before::Not(reserved, known) => (reserved, known),
        };
        let rows = self.while_writing(rows, stream);
        let (spooled, count) = self.millstream.whole(&def, &delivery, rows).await?;
        known.push(delivery.taken());
        known.drain(..known.len().saturating_sub(REMEMBERED));
        let receipt = reserved.receipt(serde_json::to_value(known).unwrap_or_default(), Kept::Lasting);
        let parcel = Parcel::from(spooled).with_receipt(receipt);
        intake.push(if delivery.changelog { parcel.of_changelog() } else { parcel }).await?;
        intake.settle().await?;
        Ok(count)
    }
}

impl Millstream {
    /// All rows of `delivery`, kept aside until the last has come.
    async fn whole(
        &self,
        def: &StreamDef,
        delivery: &Delivery,
        mut rows: BoxStream<'static, Result<RecordBatch>>,
    ) -> Result<(Spooled, u64)> {
        let folder = self.store().scratch();
        let held = self.budget().account(format!("a delivery into stream \"{}\"", def.name));
        let schema = if delivery.changelog { op_schema(&def.schema) } else { def.schema.clone() };
        let mut spool = Spool::new(folder, schema, held);
        while let Some(batch) = rows.next().await {
            spool = spool.add(delivery.fitted(&batch?, def)?).await?;
        }
        let spooled = spool.finish().await?;
        let count = spooled.rows();
        if count != delivery.rows {
            let message = format!("{count} rows came of {} that were announced", delivery.rows);
            return Err(Error::new(ErrorKind::Unavailable, message).with_hint("Send them again."));
        }
        Ok((spooled, count))
    }
}

/// How to make a stream for what would be delivered.
fn made(stream: &str, delivery: &Delivery, schema: &SchemaRef) -> String {
    let content = delivery.content(schema).unwrap_or_else(|_| schema.clone());
    let column = |f: &Arc<arrow::datatypes::Field>| format!("{} {}", quote_name(f.name()), sql_name(f.data_type()));
    let mut columns: Vec<String> = content.fields().iter().map(column).collect();
    if let Some(key) = delivery.key.as_ref().filter(|_| delivery.changelog) {
        columns.push(format!("PRIMARY KEY ({})", key.iter().map(|k| quote_name(k)).collect::<Vec<_>>().join(", ")));
    }
    format!("Make it there first: CREATE STREAM {} ({}).", quote_name(stream), columns.join(", "))
}
