//! `blackhole`: a sink that counts rows and drops them, to measure a query without its output.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;

use crate::changes::Changes;
use crate::connector::registry::{Connector, Guarantee, SinkRequest, Writable};
use crate::connector::{Commit, Sink, SinkWriter, Staged, Start};
use crate::epoch::EpochMark;
use crate::error::Result;
use crate::options::Options;
use crate::reach::Touch;

/// The connector.
pub(crate) struct BlackholeConnector;

impl Connector for BlackholeConnector {
    fn name(&self) -> &str {
        "blackhole"
    }

    fn about(&self) -> &str {
        "counts rows and drops them"
    }

    fn sink(&self) -> Option<&dyn Writable> {
        Some(self)
    }

    fn touches(&self, _options: &Options) -> Result<Option<Vec<Touch>>> {
        Ok(Some(vec![]))
    }
}

impl Writable for BlackholeConnector {
    fn guarantee(&self) -> Guarantee {
        Guarantee::AtMostOnce
    }

    /// It has no options.
    fn open(&self, request: SinkRequest) -> Result<Arc<dyn Sink>> {
        request.options.finish()?;
        Ok(Arc::new(Blackhole::default()))
    }
}

#[derive(Debug, Default)]
struct Blackhole {
    rows: Arc<AtomicU64>,
}

#[async_trait]
impl Sink for Blackhole {
    async fn start(&self, _start: Start<'_>) -> Result<()> {
        Ok(())
    }

    fn open(&self, _task: usize) -> Result<Box<dyn SinkWriter>> {
        Ok(Box::new(Writer { rows: self.rows.clone() }))
    }

    fn is_anywhere(&self) -> bool {
        true
    }

    fn open_away(&self, task: usize, _generation: u64) -> Result<Box<dyn SinkWriter>> {
        self.open(task)
    }

    async fn commit(&self, commit: &Commit<'_>) -> Result<()> {
        tracing::debug!(epoch = commit.epoch, rows = self.rows.load(Ordering::Relaxed), "blackhole");
        Ok(())
    }

    fn tells_time(&self) -> bool {
        false
    }

    fn takes_retractions(&self) -> bool {
        true
    }

    fn describe(&self) -> String {
        "blackhole".to_owned()
    }
}

struct Writer {
    rows: Arc<AtomicU64>,
}

#[async_trait]
impl SinkWriter for Writer {
    async fn write(&mut self, changes: Changes) -> Result<()> {
        self.rows.fetch_add(changes.num_rows() as u64, Ordering::Relaxed);
        Ok(())
    }

    async fn epoch(&mut self, _mark: &EpochMark) -> Result<()> {
        Ok(())
    }

    async fn stage(&mut self, _checkpoint: u64) -> Result<Vec<Staged>> {
        Ok(vec![])
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, Int64Array, RecordBatch};
    use futures::executor::block_on;

    use super::*;

    #[test]
    fn rows_and_retractions_are_counted_and_nothing_is_staged() {
        let sink = Blackhole::default();
        let array: ArrayRef = Arc::new(Int64Array::from(vec![1, 2, 3]));
        let rows = RecordBatch::try_from_iter([("v", array)]).expect("one column");
        block_on(async {
            let mut writer = sink.open(0).expect("opens");
            writer.write(Changes::insertions(rows.clone())).await.expect("writes");
            writer.write(Changes::retractions(rows)).await.expect("writes");
            assert_eq!(writer.stage(1).await.expect("stages"), []);
        });
        assert!(sink.takes_retractions());
        assert_eq!(sink.rows.load(Ordering::Relaxed), 6);
    }
}
