//! Results as responses: written as they come, a batch at a time.
//!
//! What goes wrong before the first rows is told with a status. Later the response breaks off, which no client takes for its end.
//!
//! A query may leave rows out, which is known at its end. `Millstream-Incomplete` says so: a header where the result is small enough to be
//! written before the head is sent, a trailer otherwise.

use std::collections::VecDeque;
use std::time::Duration;

use arrow::array::RecordBatch;
use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, TRAILER};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use http_body::Frame;
use http_body_util::StreamBody;
use millstream_engine::memory::MemoryAccount;
use millstream_sql::session::{ChangeFeed, LeftOutRows, Outcome, RowStream};
use millstream_sql::{Error, ErrorKind, Result};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::Server;
use super::answer::Answer;
use super::shape::{Shape, Writer};
use crate::notes::RowsNote;

/// The rows of a batch that are written at once, so that what waits for the client stays small.
const AT_ONCE: usize = 8_192;
/// How much of a result is written before its head is sent, and for how long.
const AHEAD: usize = 256 << 10;
const AHEAD_TIME: Duration = Duration::from_millis(100);
/// What rows are short of.
const INCOMPLETE: HeaderName = HeaderName::from_static("millstream-incomplete");

/// `outcome`, which has rows, as a response in `shape`.
pub(super) async fn respond(server: &Server, shape: Shape, outcome: Outcome) -> Result<Response, Answer> {
    let follows = matches!(outcome, Outcome::Changes(_));
    let (schema, rows, left_out) = match outcome {
        Outcome::Rows(RowStream { schema, rows, left_out }) => (schema, rows, left_out),
        Outcome::Changes(ChangeFeed { schema, epochs, .. }) => {
            let batches = epochs.flat_map(|epoch| match epoch {
                Ok(epoch) => stream::iter(epoch.batches.into_iter().map(Ok).collect::<Vec<_>>()),
                Err(e) => stream::iter(vec![Err(e)]),
            });
            (schema, batches.boxed(), LeftOutRows::default())
        }
        Outcome::Done(_) => return Err(Error::internal("a statement without rows was taken for a query").into()),
    };
    let mut writer = Writer::new(shape, &schema)?;
    let mut sending = Sending {
        ahead: VecDeque::from([writer.begin()]),
        writer,
        rows,
        rest: None,
        left_out,
        stopped: server.stopped.clone(),
        held: server.millstream.budget().account("a result that its client has not taken yet"),
        ended: false,
        closed: false,
    };
    let mut head = HeaderMap::from_iter([
        (CONTENT_TYPE, HeaderValue::from_static(shape.media_type())),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ]);
    if !follows {
        sending.look_ahead().await?;
        match sending.closed {
            true => {
                head.insert(CONTENT_LENGTH, sending.waiting().into());
                head.extend(sending.short_of().map(|value| (INCOMPLETE, value)));
            }
            false => drop(head.insert(TRAILER, HeaderValue::from(INCOMPLETE))),
        }
    }
    let trailer = !follows && !sending.closed;
    let frames = stream::unfold(Some((sending, trailer)), |state| async move {
        let (mut sending, trailer) = state?;
        match sending.next().await {
            Ok(Some(piece)) => Some((Ok(Frame::data(piece)), Some((sending, trailer)))),
            Ok(None) => {
                let value = sending.short_of().filter(|_| trailer)?;
                Some((Ok(Frame::trailers(HeaderMap::from_iter([(INCOMPLETE, value)]))), None))
            }
            Err(e) => {
                tracing::warn!(error = %e, "a result broke off");
                Some((Err(e), None))
            }
        }
    });
    Ok((head, Body::new(StreamBody::new(frames))).into_response())
}

/// A result on its way.
struct Sending {
    writer: Writer,
    rows: BoxStream<'static, Result<RecordBatch>>,
    /// What has come and is not written.
    rest: Option<RecordBatch>,
    /// What is written and not sent.
    ahead: VecDeque<Bytes>,
    left_out: LeftOutRows,
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

    /// Writes what comes at once, at least the first rows.
    async fn look_ahead(&mut self) -> Result<()> {
        self.fetch().await?;
        let due = Instant::now() + AHEAD_TIME;
        while !self.closed && self.waiting() < AHEAD {
            match timeout_at(due, self.write()).await {
                Ok(piece) => self.ahead.extend(piece?),
                Err(_) => break,
            }
        }
        Ok(())
    }

    /// Bytes that are written and not sent.
    fn waiting(&self) -> usize {
        self.ahead.iter().map(Bytes::len).sum()
    }

    /// What the rows are short of, once they have ended.
    fn short_of(&self) -> Option<HeaderValue> {
        let note = RowsNote::of(&self.left_out)?;
        tracing::warn!("a result is not complete: {}", note.text());
        HeaderValue::from_str(&note.header()).ok()
    }

    /// The next piece.
    async fn next(&mut self) -> Result<Option<Bytes>> {
        let piece = match self.ahead.pop_front() {
            Some(piece) => Some(piece),
            None => self.write().await?,
        };
        self.held.set(self.waiting() + piece.as_ref().map_or(0, Bytes::len));
        Ok(piece)
    }

    /// Writes the next piece; `None` at the end.
    async fn write(&mut self) -> Result<Option<Bytes>> {
        loop {
            if let Some(rows) = self.rest.take() {
                let some = rows.slice(0, rows.num_rows().min(AT_ONCE));
                self.rest = (rows.num_rows() > AT_ONCE).then(|| rows.slice(AT_ONCE, rows.num_rows() - AT_ONCE));
                let piece = self.writer.rows(&some)?;
                if !piece.is_empty() {
                    self.held.resize_large(self.waiting() + piece.len())?;
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
