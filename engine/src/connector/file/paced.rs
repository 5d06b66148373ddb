//! `rate`: files replayed at so many rows a second, over all tasks. A batch is given as a whole when its last row is
//! due.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::connector::generator::Pace;
use crate::connector::{Read, UnitReader};
use crate::error::Result;

/// What has been given, by all readers.
#[derive(Debug)]
pub(super) struct Pacer {
    pace: Pace,
    given: Mutex<(Option<Instant>, u64)>,
}

impl Pacer {
    /// Nothing yet.
    pub(super) fn new(pace: Pace) -> Arc<Self> {
        Arc::new(Pacer { pace, given: Mutex::new((None, 0)) })
    }

    /// When the next `rows` are due.
    fn due(&self, rows: u64) -> Instant {
        let mut given = self.given.lock();
        let since = *given.0.get_or_insert_with(Instant::now);
        given.1 += rows;
        // A year at most, as a tiny pace overflows a duration.
        since + Duration::from_secs_f64((given.1 as f64 / self.pace.per_second()).min(3e7))
    }
}

/// A reader that waits.
pub(super) struct Paced {
    /// Where the rows come from.
    pub(super) reader: Box<dyn UnitReader>,
    /// Shared with the other readers.
    pub(super) pacer: Arc<Pacer>,
}

#[async_trait]
impl UnitReader for Paced {
    async fn next(&mut self) -> Result<Option<Read>> {
        let Some(read) = self.reader.next().await? else { return Ok(None) };
        let due = self.pacer.due(read.rows.num_rows() as u64);
        tokio::time::sleep_until(due).await;
        Ok(Some(read))
    }
}
