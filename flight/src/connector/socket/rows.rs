//! Rows on their way to a socket: what the ways to write have in common. They leave when their checkpoint is committed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use millstream_engine::changelog::{Outgoing, op_schema, with_ops};
use millstream_engine::connector::registry::SinkRequest;
use millstream_engine::error::Result;
use millstream_engine::format::Format;
use millstream_engine::format::write::{write_header, write_lines};
use parking_lot::Mutex;

use super::options::Wording;

/// The rows that are written, and how.
#[derive(Clone)]
pub(super) struct Rows {
    pub(super) stream: Arc<str>,
    schema: SchemaRef,
    pub(super) retracts: bool,
    key: Option<Vec<usize>>,
    wording: Wording,
}

impl Rows {
    /// The rows that `request` is for.
    pub(super) fn new(request: SinkRequest, wording: Wording) -> Self {
        let SinkRequest { stream, schema, retracts, key, .. } = request;
        Rows { stream: stream.into(), schema, retracts, key, wording }
    }

    /// The changes of an epoch on their way out.
    pub(super) fn outgoing(&self) -> Outgoing {
        Outgoing::new(self.schema.clone(), self.retracts, self.key.clone())
    }

    /// What is left of a changelog's epoch, as rows to write.
    pub(super) fn end(outgoing: &mut Outgoing) -> Result<Option<RecordBatch>> {
        outgoing.end()?.map(|(changes, ops)| with_ops(changes.rows(), &ops)).transpose()
    }

    /// Appends `rows` as lines.
    pub(super) fn append(&self, rows: &RecordBatch, out: &mut Vec<u8>) -> Result<()> {
        write_lines(self.wording.format, &self.wording.csv, rows, out)
    }

    /// What a connection begins with.
    pub(super) fn header(&self) -> Vec<u8> {
        let mut header = vec![];
        if self.wording.format == Format::Csv && self.wording.csv.header {
            let schema = if self.retracts { op_schema(&self.schema) } else { self.schema.clone() };
            write_header(&self.wording.csv, &schema, &mut header);
        }
        header
    }

    pub(super) fn format(&self) -> Format {
        self.wording.format
    }
}

/// What waits in memory for its commit, by checkpoint: a crash loses it, and it is made again only where it was not
/// committed.
pub(super) struct Staging<T> {
    staged: Mutex<BTreeMap<u64, (T, usize)>>,
    bytes: AtomicUsize,
}

impl<T> Default for Staging<T> {
    fn default() -> Self {
        Staging { staged: Mutex::default(), bytes: AtomicUsize::new(0) }
    }
}

impl<T> Staging<T> {
    /// Keeps `content` of `bytes` for `checkpoint`.
    pub(super) fn stage(&self, checkpoint: u64, content: T, bytes: usize) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.staged.lock().insert(checkpoint, (content, bytes));
    }

    /// What was kept up to `checkpoint`, in order.
    pub(super) fn commit(&self, checkpoint: u64) -> Vec<T> {
        let mut staged = self.staged.lock();
        let later = staged.split_off(&(checkpoint + 1));
        let committed = std::mem::replace(&mut *staged, later);
        self.bytes.fetch_sub(committed.values().map(|(_, bytes)| bytes).sum(), Ordering::Relaxed);
        committed.into_values().map(|(content, _)| content).collect()
    }

    /// Drops what an earlier run has left.
    pub(super) fn clear(&self) {
        self.commit(u64::MAX - 1);
    }

    /// Bytes kept.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_takes_what_was_staged_up_to_it() {
        let staging = Staging::default();
        staging.stage(1, "a", 10);
        staging.stage(2, "b", 20);
        staging.stage(3, "c", 40);
        assert_eq!((staging.commit(2), staging.bytes()), (vec!["a", "b"], 40));
        assert_eq!(staging.commit(2), Vec::<&str>::new());
        staging.clear();
        assert_eq!((staging.commit(3), staging.bytes()), (vec![], 0));
    }
}
