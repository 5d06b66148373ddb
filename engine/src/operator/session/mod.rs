//! `SESSION`: rows of a partition that are closer to each other than a gap are in one window.
//!
//! ```text
//! SESSION(t, ts, 10 s, PARTITION BY k)
//! +(a, 3) +(a, 9) +(a, 30)  ->  +(a, 3, [3, 19))  +(a, 9, [3, 19))  +(a, 30, [30, 40))
//! +(a, 15)                  ->  -(a, 3, [3, 19))  +(a, 3, [3, 25))  …
//! -(a, 9)                   ->  the session is two again: [3, 13) and [15, 25)
//! ```
//! A session begins with its first row and ends a gap behind its last one; a row at its end begins another. With a longest length it
//! also ends that long behind its first row, so that the next row begins another. Which rows are in which session is a function
//! of the rows alone, however they come. Rows whose time is null or not countable belong to none.
//!
//! Rows are kept by partition and by where in time they are; where the islands of rows lie between which there are gaps is known in
//! memory. At the end of an epoch those islands are looked at near which rows have come or gone. Either what differs is said, or a
//! session is said once, when the watermark has reached its end; then its rows go, if there is a watermark.

mod islands;
mod regions;
mod running;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};

use super::gap::Sessions;
use super::window::window_schema;
use super::{BuildContext, Operator, OperatorSpec, StateBound};
use crate::error::Result;
use crate::format::sql_name;
use crate::spread::Needed;

/// The description.
#[derive(Clone, Debug)]
pub struct Session {
    /// The schema of the input.
    pub input: SchemaRef,
    /// The event-time column.
    pub time: usize,
    /// The columns of `PARTITION BY`.
    pub key: Vec<usize>,
    /// Which sessions.
    pub sessions: Sessions,
    /// Whether a session is said once, when it has closed, and not as it changes.
    pub on_close: bool,
    /// Whether the watermark closes sessions.
    pub closes: bool,
    /// The columns, by name, for each value of which the input has one row.
    pub one_of: Option<Vec<String>>,
    schema: SchemaRef,
}

impl Session {
    /// Over rows of `input`, whose column `time` is a timestamp: said as they change, and kept for ever.
    pub fn new(input: &Schema, time: usize, key: Vec<usize>, sessions: Sessions) -> Result<Self> {
        let schema = window_schema(input, time)?;
        let input = Arc::new(input.clone());
        Ok(Session { input, time, key, sessions, on_close: false, closes: false, one_of: None, schema })
    }
}

impl OperatorSpec for Session {
    fn name(&self) -> &'static str {
        "session"
    }

    fn describe(&self) -> String {
        let name = |column: &usize| self.input.field(*column).name().as_str();
        let of = match self.key.is_empty() {
            true => "all rows".to_owned(),
            false => self.key.iter().map(name).collect::<Vec<_>>().join(", "),
        };
        let said = if self.on_close { ", on close" } else { "" };
        format!("{} by {} of {of}{said}", self.sessions, name(&self.time))
    }

    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn state_bound(&self) -> StateBound {
        match &self.one_of {
            _ if self.closes => StateBound::Watermark,
            Some(one_of) => StateBound::Keys(one_of.join(", ")),
            None => StateBound::Unbounded,
        }
    }

    fn fingerprint(&self) -> Option<String> {
        let columns: Vec<_> =
            self.input.fields().iter().map(|f| format!("{} {}", f.name(), sql_name(f.data_type()))).collect();
        let key: Vec<_> = self.key.iter().map(|k| (k + 1).to_string()).collect();
        let (time, stretch) = (self.time + 1, self.sessions.stretch());
        let sessions = self.sessions;
        Some(format!("rows of ({}) by ({}) and {stretch} us of {time}, {sessions}", columns.join(", "), key.join(", ")))
    }

    fn needs(&self, _port: usize) -> Needed {
        Needed::hash(self.key.clone())
    }

    fn place_of(&self, _port: usize, column: usize) -> Option<usize> {
        Some(column)
    }

    fn build(&self, context: &mut BuildContext<'_>) -> Result<Box<dyn Operator>> {
        Ok(Box::new(running::Running::new(Arc::new(self.clone()), context)?))
    }
}
