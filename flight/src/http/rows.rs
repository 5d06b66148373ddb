//! Results as responses: written as they come, a batch at a time.
//!
//! What goes wrong before the first rows is told with a status. Later the response breaks off, which no client takes for its end.

use arrow::array::RecordBatch;
use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use millstream_engine::memory::MemoryAccount;
use millstream_sql::session::{ChangeFeed, Outcome, RowStream};
use millstream_sql::{Error, ErrorKind, Result};
use tokio::sync::watch;

use super::Server;
use super::answer::Answer;
use super::shape::{Shape, Writer};

/// The rows of a batch that are written at once, so that what waits for the client stays small.
const AT_ONCE: usize = 8_192;

/// `outcome`, which has rows, as a response in `shape`.
pub(super) async fn respond(server: &Server, shape: Shape, outcome: Outcome) -> Result<Response, Answer> {
    let follows = matches!(outcome, Outcome::Changes(_));
    let (schema, rows) = match outcome {
        Outcome::Rows(RowStream { schema, rows, left_out }) => {
            let end = stream::once(async move {
                // Behind the last row there is no other place to say it.
                if let Some(left_out) = left_out.get() {
                    tracing::warn!("{left_out}");
                }
            });
            (schema, rows.chain(end.filter_map(|()| std::future::ready(None))).boxed())
        }
        Outcome::Changes(ChangeFeed { schema, epochs, .. }) => {
            let batches = epochs.flat_map(|epoch| match epoch {
                Ok(epoch) => stream::iter(epoch.batches.into_iter().map(Ok).collect::<Vec<_>>()),
                Err(e) => stream::iter(vec![Err(e)]),
            });
            (schema, batches.boxed())
        }
        Outcome::Done(_) => return Err(Error::internal("a statement without rows was taken for a query").into()),
    };
    let mut sending = Sending {
        writer: Writer::new(shape, &schema)?,
        rows,
        rest: None,
        stopped: server.stopped.clone(),
        held: server.millstream.budget().account("a result that its client has not taken yet"),
        ended: false,
        closed: false,
    };
    if !follows {
        sending.fetch().await?;
    }
    let first = sending.writer.begin();
    let pieces = stream::unfold(Some(sending), |sending| async move {
        let mut sending = sending?;
        match sending.next().await {
            Ok(None) => None,
            Ok(Some(piece)) => Some((Ok(piece), Some(sending))),
            Err(e) => {
                tracing::warn!(error = %e, "a result broke off");
                Some((Err(e), None))
            }
        }
    });
    let body = Body::from_stream(stream::iter([Ok::<_, Error>(first)]).chain(pieces));
    Ok(([(CONTENT_TYPE, shape.media_type()), (CACHE_CONTROL, "no-store")], body).into_response())
}

/// A result on its way.
struct Sending {
    writer: Writer,
    rows: BoxStream<'static, Result<RecordBatch>>,
    /// What has come and is not written.
    rest: Option<RecordBatch>,
    stopped: watch::Receiver<bool>,
    held: MemoryAccount,
    /// No more rows come.
    ended: bool,
    /// What stands behind the last has been written.
    closed: bool,
}

impl Sending {
    /// Fetches the next batch.
    async fn fetch(&mut self) -> Result<()> {
        tokio::select! {
            // An error means that the server is gone already.
            _ = self.stopped.wait_for(|stopped| *stopped) => {
                Err(Error::new(ErrorKind::Unavailable, "the server is shutting down"))
            }
            next = self.rows.next() => {
                self.rest = next.transpose()?;
                self.ended = self.rest.is_none();
                Ok(())
            }
        }
    }

    /// The next piece.
    async fn next(&mut self) -> Result<Option<Bytes>> {
        self.held.set(0);
        loop {
            if let Some(rows) = self.rest.take() {
                let some = rows.slice(0, rows.num_rows().min(AT_ONCE));
                self.rest = (rows.num_rows() > AT_ONCE).then(|| rows.slice(AT_ONCE, rows.num_rows() - AT_ONCE));
                let piece = self.writer.rows(&some)?;
                if !piece.is_empty() {
                    self.held.resize_large(piece.len())?;
                    return Ok(Some(piece));
                }
            } else if self.ended {
                if std::mem::replace(&mut self.closed, true) {
                    return Ok(None);
                }
                return Ok(Some(self.writer.end()?).filter(|end| !end.is_empty()));
            } else {
                self.fetch().await?;
            }
        }
    }
}
