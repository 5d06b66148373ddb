//! `SELECT … EMIT …`: following a query. It is a job of its own, which ends with the feed.
//!
//! A query that takes the rows of one stored or derived stream one by one has a position: its epochs are those of that
//! stream's log, whoever asks and whenever, so that `SINCE EPOCH` goes on behind one. What other queries give depends on when
//! they began.

use std::sync::Arc;

use arrow::array::RecordBatch;
use futures::StreamExt;
use futures::stream::BoxStream;
use millstream_engine::connector::feed::{FeedPart, FeedSink};
use millstream_engine::connector::position::{Begin, Standing};
use millstream_engine::graph::{Graph, NodeKind, SinkNode};
use millstream_engine::operator::StateBound;
use millstream_engine::runtime::{JobConfig, JobHandle, OnError};
use tokio::sync::mpsc;

use super::Session;
use super::dataflow::every;
use super::outcome::{ChangeFeed, EpochChanges, FeedEnd, Outcome};
use crate::error::{Error, Result};
use crate::plan::lower::{event_column, finish};
use crate::statement::{Follow, Query};

impl Session {
    /// Follows `query`.
    pub(super) async fn follow(&self, query: &Query) -> Result<Outcome> {
        let parallelism = self.tasks();
        let reading = self.reading();
        let mut planned = self.millstream.plan_continuous(query, parallelism, &reading)?;
        let positions = begin(&mut planned.lowered.graph, &query.follow)?;
        let output = planned.lowered.output.clone();
        let updating = !output.append_only;
        let (schema, key) = (planned.schema.clone(), output.key.clone());
        let (sink, parts) = FeedSink::with_positions(schema, updating, key, positions.clone());
        let schema = sink.batch_schema();
        finish(&mut planned.lowered, SinkNode { name: "result".to_owned(), sink }, true);
        let mut config = JobConfig::new("query");
        config.every = every(query.emit);
        // It keeps nothing, so there is no place to put a row aside.
        config.on_error = OnError::Fail;
        self.millstream.refuse_second_stdin("", &planned.reads)?;
        let job = self.millstream.runtime().start(planned.lowered.graph, config, None).await?;
        self.millstream.note_stdin("a query", &planned.reads, &job);
        let epochs = Following { job, parts }.epochs();
        let epochs = match query.follow.limit {
            Some(limit) => limited(epochs, limit),
            None => epochs,
        };
        let epochs = self.while_allowed(epochs, reading);
        let incarnation = positions.map(|standing| standing.incarnation());
        let event_time = event_column(&output.time);
        Ok(Outcome::Changes(ChangeFeed {
            schema,
            updating,
            key: output.key,
            event_time,
            incarnation,
            alive: None,
            epochs,
        }))
    }
}

/// Has the sources of `graph` begin as `follow` says. Gives that by which positions are told, for a query that has them.
fn begin(graph: &mut Graph, follow: &Follow) -> Result<Option<Arc<dyn Standing>>> {
    let has_positions = has_positions(graph);
    let begin = match &follow.since {
        Some(since) => {
            has_positions.as_ref().map_err(|why| {
                let message = format!("SINCE EPOCH goes on with a query over one stored or derived stream, and {why}");
                Error::unsupported(message).with_hint(
                    "Make a stream of the query, with CREATE STREAM name AS SELECT …, and follow that: SELECT * FROM name \
                     EMIT CHANGES SINCE EPOCH ….",
                )
            })?;
            Begin::Behind { epoch: since.epoch, incarnation: since.incarnation.clone() }
        }
        None if follow.snapshot => Begin::Content,
        None if has_positions.is_err() => return Ok(None),
        None => Begin::History,
    };
    let mut standing = None;
    for node in graph.sources_mut() {
        let log = node.source.positioned().ok_or_else(|| {
            let message = format!("WITH SNAPSHOT: stream \"{}\" has no content of its own to begin with", node.stream);
            Error::unsupported(message).with_hint("It is there for stored and derived streams: leave it out.")
        })?;
        let (source, stands) = log.beginning(begin.clone());
        (node.source, standing) = (source, Some(stands));
    }
    Ok(standing.filter(|_| has_positions.is_ok()))
}

/// Whether the query of `graph` has positions, or why it has none.
fn has_positions(graph: &Graph) -> std::result::Result<(), String> {
    let mut sources = graph.sources();
    let (Some(node), None) = (sources.next(), sources.next()) else {
        return Err("this one reads several".to_owned());
    };
    if node.source.positioned().is_none() {
        return Err(format!("\"{}\" is none", node.stream));
    }
    let operators = graph.nodes.iter().filter_map(|n| match &n.kind {
        NodeKind::Operator(spec) => Some(spec),
        _ => None,
    });
    match operators.into_iter().find(|spec| spec.state_bound() != StateBound::Stateless) {
        Some(spec) => Err(format!("this one puts rows together ({})", spec.name())),
        None => Ok(()),
    }
}

/// A followed query; dropping it ends the job.
struct Following {
    job: JobHandle,
    parts: mpsc::Receiver<FeedPart>,
}

impl Following {
    fn epochs(self) -> BoxStream<'static, Result<EpochChanges>> {
        let parts = futures::stream::unfold(Some(self), |following| async move {
            let mut following = following?;
            match following.parts.recv().await {
                Some(FeedPart { batches, end, .. }) => {
                    let end =
                        end.map(|end| FeedEnd::Epoch { epoch: end.epoch, watermark: end.watermark, ahead: end.ahead });
                    Some((Ok(EpochChanges { batches, end }), Some(following)))
                }
                None => {
                    following.job.wait().await;
                    following.job.failure().err().map(|e| (Err(Error::from(e)), None))
                }
            }
        });
        parts.boxed()
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        self.job.abort();
    }
}

/// The first `limit` rows of `epochs`. The last part says whether it ends with an epoch.
fn limited(epochs: BoxStream<'static, Result<EpochChanges>>, limit: u64) -> BoxStream<'static, Result<EpochChanges>> {
    let parts = futures::stream::unfold(Some((epochs, limit)), |state| async move {
        let (mut epochs, mut left) = state?;
        let mut part = match epochs.next().await? {
            Ok(part) => part,
            Err(e) => return Some((Err(e), None)),
        };
        let rows = part.batches.iter().map(|b| b.num_rows() as u64).sum::<u64>();
        if rows > left {
            part.batches = first_rows(part.batches, left);
            part.end = Some(FeedEnd::Limit);
            return Some((Ok(part), None));
        }
        left -= rows;
        // The epoch may end right there, which the next part says.
        let goes_on = left > 0 || part.end.is_none();
        Some((Ok(part), goes_on.then_some((epochs, left))))
    });
    parts.boxed()
}

/// The first `rows` rows of `batches`.
fn first_rows(batches: Vec<RecordBatch>, mut rows: u64) -> Vec<RecordBatch> {
    let mut first = vec![];
    for batch in batches {
        let n = (batch.num_rows() as u64).min(rows);
        rows -= n;
        if n > 0 {
            first.push(batch.slice(0, n as usize));
        }
    }
    first
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, Int64Array};
    use millstream_engine::time::EventTime;

    use super::*;

    fn part(rows: &[i64], epoch: Option<u64>) -> Result<EpochChanges> {
        let batch = |n: &i64| {
            let column: ArrayRef = Arc::new(Int64Array::from_iter_values(0..*n));
            RecordBatch::try_from_iter([("n", column)]).expect("one column")
        };
        let end = epoch.map(|epoch| FeedEnd::Epoch { epoch: Some(epoch), watermark: EventTime::MIN, ahead: 0 });
        Ok(EpochChanges { batches: rows.iter().map(batch).collect(), end })
    }

    #[tokio::test]
    async fn a_limit_says_whether_it_ends_with_an_epoch() {
        // Two rows of epoch 1 in two parts, none of 2, four of 3.
        let all = || vec![part(&[1, 0], None), part(&[1], Some(1)), part(&[], Some(2)), part(&[1, 3], Some(3))];
        for (limit, rows, last) in
            [(1, 1, "limit"), (2, 2, "1"), (3, 3, "limit"), (5, 5, "limit"), (6, 6, "3"), (7, 6, "3")]
        {
            let given: Vec<_> = limited(futures::stream::iter(all()).boxed(), limit).collect().await;
            let given: Vec<EpochChanges> = given.into_iter().map(|p| p.expect("no error")).collect();
            let count: usize = given.iter().flat_map(|p| &p.batches).map(RecordBatch::num_rows).sum();
            let end = match given.last().and_then(|p| p.end) {
                Some(FeedEnd::Limit) => "limit".to_owned(),
                Some(FeedEnd::Epoch { epoch, .. }) => epoch.unwrap_or_default().to_string(),
                None => "nothing".to_owned(),
            };
            assert_eq!((count, end.as_str()), (rows, last), "LIMIT {limit}");
        }
    }
}
