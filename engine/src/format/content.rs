//! Records as a source hands them over, and what reads their contents.

use std::collections::BTreeMap;

use arrow::array::{Array, ArrayRef, BinaryArray, RecordBatch};
use arrow::buffer::ScalarBuffer;

use crate::error::{Error, Result};

/// Records of one split, in order.
#[derive(Clone, Debug)]
pub struct Records {
    values: BinaryArray,
    positions: Vec<u64>,
    metadata: BTreeMap<String, ArrayRef>,
}

impl Records {
    /// Records with these contents, null where one has none, and the position of each in its split.
    ///
    /// Errors when there are not as many of both.
    pub fn new(values: BinaryArray, positions: Vec<u64>) -> Result<Self> {
        if values.len() != positions.len() {
            let (n, m) = (values.len(), positions.len());
            return Err(Error::internal(format!("{n} records with {m} positions")));
        }
        Ok(Records { values, positions, metadata: BTreeMap::new() })
    }

    /// With the metadata `key` of each. What the stream does not read ([`Layout::reads`](super::metadata::Layout::reads)) may be left out.
    ///
    /// Errors when there is not one for each record.
    pub fn with(mut self, key: &str, values: ArrayRef) -> Result<Self> {
        if values.len() != self.len() {
            let (n, m) = (self.len(), values.len());
            return Err(Error::internal(format!("{n} records with {m} values of metadata '{key}'")));
        }
        self.metadata.insert(key.to_owned(), values);
        Ok(self)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// The metadata `key` of each, where it is there.
    pub(super) fn metadata(&self, key: &str) -> Option<&ArrayRef> {
        self.metadata.get(key)
    }

    /// Where record `record` stands.
    pub(super) fn position(&self, record: usize) -> u64 {
        self.positions.get(record).copied().unwrap_or_default()
    }

    /// Their contents.
    pub fn values(&self) -> &BinaryArray {
        &self.values
    }
}

/// Reads the contents of records.
pub(crate) trait Content: Send {
    /// Takes all of `records` apart. Errors are about the source, never about one record.
    fn take(&mut self, records: &Records) -> Result<Taken>;
}

/// What was made of the contents of records.
pub(crate) struct Taken {
    /// The rows, in the order of the records.
    pub(crate) rows: RecordBatch,
    /// Their weights, where the records say changes.
    pub(crate) weights: Option<ScalarBuffer<i64>>,
    /// The record of each row.
    pub(crate) of: Vec<u32>,
    /// What could not be read: its record, why, and the bytes.
    pub(crate) dead: Vec<(usize, String, Vec<u8>)>,
}
