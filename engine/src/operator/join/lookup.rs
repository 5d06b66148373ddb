//! Rows that are to be looked up: they wait for the end of their epoch, since all that the other side says in it counts.

use std::collections::VecDeque;

use arrow::datatypes::SchemaRef;

use crate::changes::Changes;
use crate::error::{Error, Result};

/// So many rows are looked up at once.
const AT_ONCE: usize = 1 << 14;

/// The rows of one epoch.
#[derive(Default)]
pub(super) struct Waiting {
    rows: VecDeque<Changes>,
    bytes: usize,
}

impl Waiting {
    /// Adds rows.
    ///
    /// Errors where some are taken back: what they found is not known any more.
    pub(super) fn add(&mut self, changes: Changes) -> Result<()> {
        if changes.weights().is_some_and(|weights| weights.iter().any(|weight| *weight < 0)) {
            return Err(Error::internal("a row is taken back that was looked up"));
        }
        self.bytes += changes.bytes();
        self.rows.push_back(changes);
        Ok(())
    }

    /// Takes the next ones out, of `schema`.
    pub(super) fn take(&mut self, schema: &SchemaRef) -> Result<Changes> {
        let (mut some, mut room) = (vec![], AT_ONCE);
        while room > 0
            && let Some(changes) = self.rows.pop_front()
        {
            self.bytes -= changes.bytes();
            let now = changes.num_rows().min(room);
            room -= now;
            if now < changes.num_rows() {
                let rest = changes.slice(now, changes.num_rows() - now);
                self.bytes += rest.bytes();
                self.rows.push_front(rest);
            }
            some.push(changes.slice(0, now));
        }
        Changes::concat(schema, &some)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}
