//! `GET /streams/NAME/changes`: a stream's changes as server-sent events, a row each.
//!
//! ```text
//! data: {"n":1}
//!
//! id: hot-1:12
//! data: {"n":2}
//! ```
//!
//! The last event of an epoch has the position behind it as its id. Who comes back with that, as a browser's `EventSource` does
//! by itself (`Last-Event-ID`), or with `?since=`, gets what follows. A browser shows no event for an id without data, so a row is
//! held back until it is known whether it is the last of its epoch: then an id that changes says that all before it is whole.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use millstream_engine::format::write::write_json_lines;
use millstream_engine::memory::MemoryAccount;
use millstream_sql::session::{EpochChanges, FeedEnd, Outcome};
use millstream_sql::statement::{Follow, Since};
use millstream_sql::{Error, Result};
use tokio::sync::watch;

use super::Server;
use super::answer::Answer;
use super::asked::Asked;
use super::parameters::Parameters;

const LAST_EVENT: &str = "last-event-id";
/// How often one who gets no events is told that the connection lives.
const ALIVE: Duration = Duration::from_secs(15);
/// How often one who gets no rows is told how far the stream has come.
const QUIET: Duration = Duration::from_secs(1);

/// Follows a stream.
pub(super) async fn follow(State(server): State<Arc<Server>>, request: Request) -> Result<Response, Answer> {
    let asked = Asked::of(&server, request, &["where", "since", "snapshot"]).await?;
    let follow = from(&asked.parameters, &asked.head.headers)?;
    let changes = asked.caller.session.part_changes(&asked.name, asked.condition(), follow).await?;
    let Outcome::Changes(feed) = changes else {
        return Err(Error::internal("a followed query gives no changes").into());
    };
    let events = Events {
        parts: feed.epochs,
        incarnation: feed.incarnation,
        stopped: server.stopped.clone(),
        held: server.millstream.budget().account("changes that a client has not taken yet"),
        row: vec![],
        told: Instant::now(),
    };
    let pieces = stream::unfold(events, |mut events| async move { Some((events.next().await?, events)) });
    // A client that has lost the connection is back at once.
    let first = stream::iter([Ok(Bytes::from_static(b"retry: 1000\n\n"))]);
    let head = [(CONTENT_TYPE, "text/event-stream"), (CACHE_CONTROL, "no-store")];
    Ok((head, Body::from_stream(first.chain(pieces))).into_response())
}

/// Where to begin. What a client says when it comes back wins over what it began with.
fn from(parameters: &Parameters, headers: &HeaderMap) -> Result<Follow, Answer> {
    let last = headers.get(LAST_EVENT).map(|value| value.to_str().unwrap_or("?")).filter(|last| !last.is_empty());
    let snapshot = parameters.choice("snapshot", &["true", "false"])? == Some("true");
    let since = match (last, parameters.text("since")) {
        (Some(last), _) => Some(position(last, "Last-Event-ID")?),
        (None, Some(_)) if snapshot => {
            return Err(Answer::invalid("snapshot and since: one begins anew or goes on, not both")
                .hint("Leave one of them out."));
        }
        (None, Some(since)) => Some(position(since, "parameter \"since\"")?),
        (None, None) => None,
    };
    Ok(Follow { snapshot: snapshot && since.is_none(), since, limit: None })
}

/// An epoch, or as an event's id says it: `incarnation:epoch`.
fn position(text: &str, what: &str) -> Result<Since, Answer> {
    let (incarnation, epoch) = match text.rsplit_once(':') {
        Some((incarnation, epoch)) => (Some(incarnation.to_owned()), epoch),
        None => (None, text),
    };
    match epoch.parse() {
        Ok(epoch) => Ok(Since { epoch, incarnation }),
        Err(_) => Err(Answer::invalid(format!("{what} is '{text}', which is no position"))
            .hint("Write the id of an event, or the number of an epoch.")),
    }
}

/// Events on their way.
struct Events {
    parts: BoxStream<'static, Result<EpochChanges>>,
    incarnation: Option<String>,
    stopped: watch::Receiver<bool>,
    held: MemoryAccount,
    /// The last row of the present epoch so far; empty where there is none.
    row: Vec<u8>,
    /// When the client was told where it stands.
    told: Instant,
}

impl Events {
    /// The next piece; `None` at the end, also when the server ends: the client comes back.
    async fn next(&mut self) -> Option<Result<Bytes>> {
        self.held.set(self.row.len());
        loop {
            let part = tokio::select! {
                // An error means that the server is gone already.
                _ = self.stopped.wait_for(|stopped| *stopped) => return None,
                part = self.parts.next() => part?,
                () = tokio::time::sleep(ALIVE) => return Some(Ok(Bytes::from_static(b":\n\n"))),
            };
            match part.and_then(|part| self.events(&part)) {
                Ok(text) if text.is_empty() => {}
                Ok(text) => {
                    self.held.set(text.len() + self.row.len());
                    return Some(Ok(text.into()));
                }
                Err(e) => {
                    tracing::warn!(error = %e, "a followed stream broke off");
                    return Some(Err(e));
                }
            }
        }
    }

    fn events(&mut self, part: &EpochChanges) -> Result<Vec<u8>> {
        let mut lines = vec![];
        for rows in &part.batches {
            write_json_lines(rows, &mut lines)?;
        }
        let position = match (part.end, &self.incarnation) {
            (Some(FeedEnd::Epoch { epoch: Some(epoch), .. }), Some(incarnation)) => {
                Some(format!("{incarnation}:{epoch}"))
            }
            _ => None,
        };
        let mut text = Vec::with_capacity(lines.len() * 5 / 4);
        for row in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            if !self.row.is_empty() {
                event(&self.row, &mut text);
            }
            self.row.clear();
            self.row.extend_from_slice(row);
        }
        if part.end.is_none() {
            return Ok(text);
        }
        let last = std::mem::take(&mut self.row);
        if let Some(position) = position.filter(|_| !last.is_empty() || self.told.elapsed() >= QUIET) {
            // Without a row it is no event, and moves the position of who comes back.
            text.extend_from_slice(format!("id: {position}\n").as_bytes());
            self.told = Instant::now();
            if last.is_empty() {
                text.push(b'\n');
            }
        }
        if !last.is_empty() {
            event(&last, &mut text);
        }
        Ok(text)
    }
}

/// Writes the event of `row`.
fn event(row: &[u8], text: &mut Vec<u8>) {
    text.extend_from_slice(b"data: ");
    text.extend_from_slice(row);
    text.extend_from_slice(b"\n\n");
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, Int64Array, RecordBatch};
    use millstream_engine::memory::MemoryBudget;
    use millstream_engine::time::EventTime;

    use super::*;

    #[test]
    fn where_to_begin() {
        let of = |query: &str, last: Option<&'static str>| {
            let parameters = Parameters::read(Some(query), &["since", "snapshot"]).unwrap_or_else(|e| panic!("{e:?}"));
            let mut headers = HeaderMap::new();
            last.map(|last| headers.insert(LAST_EVENT, last.parse().unwrap()));
            from(&parameters, &headers).map(|follow| (follow.snapshot, follow.since.map(|s| (s.epoch, s.incarnation))))
        };
        assert_eq!(of("", None).unwrap(), (false, None));
        assert_eq!(of("since=7", None).unwrap(), (false, Some((7, None))));
        assert_eq!(of("since=7", Some("a:b:9")).unwrap(), (false, Some((9, Some("a:b".into())))));
        assert_eq!(of("snapshot=true", Some("h:3")).unwrap(), (false, Some((3, Some("h".into())))));
        assert_eq!(of("snapshot=true", None).unwrap(), (true, None));
        for (query, last) in [("since=x", None), ("since=", None), ("since=1&snapshot=true", None), ("", Some("h:"))] {
            assert!(of(query, last).is_err(), "{query} {last:?}");
        }
    }

    #[test]
    fn the_last_event_of_an_epoch_has_the_position() {
        let rows = |n: i64| {
            let column: ArrayRef = Arc::new(Int64Array::from_iter_values(0..n));
            RecordBatch::try_from_iter([("n", column)]).unwrap()
        };
        let (_stop, stopped) = watch::channel(false);
        let held = MemoryBudget::new(1 << 20).account("events");
        let mut events = Events {
            parts: stream::empty().boxed(),
            incarnation: Some("h".into()),
            stopped,
            held,
            row: vec![],
            told: Instant::now(),
        };
        let mut of = |batches, epoch: Option<u64>| {
            let end = epoch.map(|epoch| FeedEnd::Epoch { epoch: Some(epoch), watermark: EventTime::MIN, ahead: 0 });
            String::from_utf8(events.events(&EpochChanges { batches, end }).unwrap()).unwrap()
        };
        assert_eq!(of(vec![rows(1), rows(1)], Some(3)), "data: {\"n\":0}\n\nid: h:3\ndata: {\"n\":0}\n\n");
        assert_eq!(of(vec![rows(1)], None), "", "it may be the last");
        assert_eq!(of(vec![], None), "");
        assert_eq!(of(vec![rows(1)], None), "data: {\"n\":0}\n\n");
        assert_eq!(of(vec![], Some(4)), "id: h:4\ndata: {\"n\":0}\n\n", "never an id alone behind rows");
        assert_eq!(of(vec![], Some(5)), "", "told a moment ago");
    }
}
