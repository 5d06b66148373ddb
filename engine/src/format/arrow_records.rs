//! Records that are Arrow IPC streams or files as a whole.

use std::io::Cursor;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;

use crate::error::{Error, Result};
use crate::format::columnar::Fit;
use crate::format::content::{Content, Records, Taken};
use crate::format::ipc::{IpcFile, IpcStream};

/// What a file begins with.
const FILE: &[u8] = b"ARROW1";
/// The most that a message of a record unpacks to, and a stream as a whole.
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
        if bytes.starts_with(FILE) {
            let file = IpcFile::with_most(Cursor::new(bytes), MOST_UNPACKED)?;
            return self.fitted(&file.schema(), file);
        }
        let stream = IpcStream::new(bytes, MOST_UNPACKED)?;
        self.fitted(&stream.schema(), stream)
    }

    fn fitted(
        &self,
        schema: &SchemaRef,
        batches: impl Iterator<Item = Result<RecordBatch, ArrowError>>,
    ) -> Result<(Vec<RecordBatch>, Misfits)> {
        let order = self.fit.columns(schema);
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
        Ok(Taken { rows, weights: None, of, dead })
    }
}

fn reason(e: &Error) -> String {
    format!("cannot be read as Arrow: {}", e.message())
}

#[cfg(test)]
mod tests {
    use super::*;

    use arrow::array::{ArrayRef, Int64Array};
    use arrow::ipc::writer::{FileWriter, StreamWriter};

    #[test]
    fn a_record_is_a_stream_or_a_file() {
        let column: ArrayRef = Arc::new(Int64Array::from(vec![1, 2, 3]));
        let batch = RecordBatch::try_from_iter([("n", column)]).expect("one column");
        let content = ArrowContent::new(batch.schema(), "s".into());
        let mut stream = StreamWriter::try_new(vec![], &batch.schema()).expect("a schema");
        let mut file = FileWriter::try_new(vec![], &batch.schema()).expect("a schema");
        for _ in 0..2 {
            stream.write(&batch).expect("writes");
            file.write(&batch).expect("writes");
        }
        for bytes in [stream.into_inner().expect("ends"), file.into_inner().expect("ends")] {
            let (rows, misfits) = content.rows(&bytes).expect("is read");
            assert_eq!((rows, misfits.len()), (vec![batch.clone(), batch.clone()], 0));
            assert!(content.rows(&bytes[..bytes.len() / 2]).is_err(), "half of it");
        }
    }
}
