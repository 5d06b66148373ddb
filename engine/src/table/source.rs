//! The source of jobs that read another stream: its committed log from the first row on, then the live
//! commits, without a gap or a repeat.
//!
//! Rows of a changelog belong together by commit: a reader that stopped in the middle could hold an old
//! row whose replacement it has not seen. So such a log is read in groups, one commit (at first: all of
//! history) per epoch. Who wants to know where in the log its epochs end reads any log so.
//!
//! A position is the incarnation of the stream (its job) and a row of its log: neither merges nor a base in the place of
//! history change the numbers of rows. Whoever has read nothing begins with that base, which then stays until it has been
//! read: its rows pass for the first ones of the log, and its end is where it ends in the log.

use std::sync::Arc;

use async_trait::async_trait;

use super::following::{Following, Position, Reading, SPLIT};
use super::log::StreamLog;
use crate::connector::position::{Begin, Positioned, Standing};
use crate::connector::{Intake, Offsets, Opening, Readers, Source};
use crate::error::Result;

/// See the module's text.
pub struct StreamSource(Reading);

impl StreamSource {
    /// Reads columns `projection` of `log`.
    pub fn new(log: Arc<StreamLog>, projection: Vec<usize>) -> Result<Self> {
        let schema = Arc::new(log.schema().project(&projection)?);
        Ok(StreamSource(Reading { log, projection, schema, position: None }))
    }

    /// How many rows of a log have been read, the first ones, where this is what a job has consumed of it.
    pub fn rows_read(consumed: &Offsets) -> u64 {
        consumed.prefix(SPLIT)
    }
}

#[async_trait]
impl Source for StreamSource {
    fn describe(&self) -> String {
        let kind = if self.0.log.is_changelog() { "changelog" } else { "append-only" };
        format!("log of stream, {kind}")
    }

    fn bounded(&self) -> bool {
        self.0.log.snapshot().end
    }

    fn in_groups(&self) -> bool {
        self.0.in_groups()
    }

    fn positioned(&self) -> Option<&dyn Positioned> {
        Some(self)
    }

    /// The last commits and what is held of history are where the log is.
    fn readers(self: Arc<Self>) -> Option<Arc<dyn Readers>> {
        None
    }

    async fn open(self: Arc<Self>, opening: Opening) -> Result<Arc<dyn Intake>> {
        Ok(Arc::new(Following::open(self.0.clone(), opening).await?))
    }
}

impl Positioned for StreamSource {
    fn beginning(&self, begin: Begin) -> (Arc<dyn Source>, Arc<dyn Standing>) {
        let position = Position { log: self.0.log.clone(), begin, state: Arc::default() };
        let reading = Reading { position: Some(position.clone()), ..self.0.clone() };
        (Arc::new(StreamSource(reading)), Arc::new(position))
    }
}
