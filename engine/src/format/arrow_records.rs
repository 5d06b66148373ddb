//! Records that are Arrow IPC streams or files as a whole.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::datatypes::SchemaRef;

use crate::error::{Error, Result};
use crate::format::columnar::Fit;
use crate::format::content::{Content, Records, Taken};
use crate::format::ipc::IpcStream;

/// What a file begins with, before what is in a stream, too.
const FILE: &[u8] = b"ARROW1\0\0";
/// The most that a record unpacks to.
const MOST_UNPACKED: usize = 256 << 20;

/// Why rows do not fit, with their bytes.
type Misfits = Vec<(String, Vec<u8>)>;

/// Reads their batches as the declared columns.
pub(super) struct ArrowContent {
    fit: Fit,
}

impl ArrowContent {
    /// To the columns of `schema`; `split` goes into errors.
    pub(super) fn new(schema: SchemaRef, split: Arc<str>) -> Self {
        ArrowContent { fit: Fit { schema, split } }
    }

    /// The rows of one record, and why others of it do not fit.
    fn rows(&self, bytes: &[u8]) -> Result<(Vec<RecordBatch>, Misfits)> {
        let batches = IpcStream::new(bytes.strip_prefix(FILE).unwrap_or(bytes), MOST_UNPACKED)?;
        let order = self.fit.columns(&batches.schema());
        let (mut all, mut dead) = (vec![], vec![]);
        for batch in batches {
            let batch = batch?;
            let columns = order.iter().map(|i| i.and_then(|i| batch.columns().get(i)).cloned()).collect();
            let (rows, misfits) = self.fit.apply(columns, batch.num_rows(), 0)?;
            all.push(rows);
            dead.extend(misfits.into_iter().map(|letter| (letter.reason, letter.raw)));
        }
        Ok((all, dead))
    }
}

impl Content for ArrowContent {
    fn take(&mut self, records: &Records) -> Result<Taken> {
        let (mut batches, mut of, mut dead) = (vec![], vec![], vec![]);
        for (record, bytes) in records.values().iter().enumerate() {
            let Some(bytes) = bytes else {
                dead.push((record, "the record has no value".to_owned(), vec![]));
                continue;
            };
            match self.rows(bytes) {
                Ok((rows, misfits)) => {
                    let count = rows.iter().map(RecordBatch::num_rows).sum();
                    of.extend(std::iter::repeat_n(record as u32, count));
                    batches.extend(rows);
                    dead.extend(misfits.into_iter().map(|(reason, raw)| (record, reason, raw)));
                }
                // A record is taken whole or not at all.
                Err(e) => dead.push((record, reason(&e), bytes.to_vec())),
            }
        }
        let rows = concat_batches(&self.fit.schema, &batches)?;
        Ok(Taken { rows, of, dead })
    }
}

fn reason(e: &Error) -> String {
    format!("cannot be read as Arrow: {}", e.message())
}
