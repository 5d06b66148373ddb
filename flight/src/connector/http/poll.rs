//! The task that polls: it asks when somebody waits for rows, drops what was seen, and hands the rest in with the place where
//! the next request goes on.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use arrow::array::{BinaryArray, RecordBatch};
use arrow::compute::concat_batches;
use axum::http::StatusCode;
use bytes::Bytes;
use millstream_engine::connector::DeadLetter;
use millstream_engine::connector::Source;
use millstream_engine::connector::ingest::{IngestSource, Kept, Parcel, Receipt};
use millstream_engine::error::{Error, Result};
use millstream_engine::format::body::{BodyDecoder, BodyFormat};
use millstream_engine::format::json::{find, items};
use millstream_engine::format::options::JsonOptions;
use millstream_engine::format::records::{RecordDecoder, RecordFormat, RecordOptions, Records};
use millstream_engine::memory::{MemoryAccount, MemoryBudget};
use parking_lot::Mutex;
use reqwest::header::{ETAG, HeaderMap, IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED};
use tokio::sync::Notify;
use tokio::task::spawn_blocking;
use tokio::time::sleep;
use url::Url;

use super::ask::Answered;
use super::options::{Holds, Polling};
use super::paging::Place;
use super::seen::{Mark, Seen, mark};

/// The key of the receipt that says where polling goes on.
pub(super) const PLACE: &str = "poll";
/// How much of an answer that makes no sense goes into its dead letter.
const SHOWN: usize = 64 << 10;

/// What the task shares with the source.
pub(super) struct Shared {
    pub(super) ingest: Arc<IngestSource>,
    pub(super) budget: Arc<MemoryBudget>,
    pub(super) seen: Mutex<Seen>,
    /// How many wait for rows.
    pub(super) waiting: AtomicUsize,
    pub(super) wanted: Notify,
    /// Why the source has ended.
    pub(super) failed: Mutex<Option<Error>>,
    pub(super) ended: Notify,
    /// Rows that were dropped, since they had been seen.
    pub(super) dropped: AtomicU64,
}

/// The task.
pub(super) struct Poller {
    pub(super) spec: Arc<Polling>,
    pub(super) shared: Arc<Shared>,
    pub(super) run: u64,
    pub(super) place: Place,
}

/// The rows of an answer.
struct Page {
    rows: RecordBatch,
    dead: Vec<DeadLetter>,
    marks: Vec<Mark>,
    /// How many rows there were, those that had been seen among them.
    offered: usize,
    dropped: u64,
}

impl Poller {
    /// Polls until the run is over.
    pub(super) async fn run(mut self) {
        if let Err(e) = self.go_on().await
            && self.shared.ingest.run() == self.run
        {
            *self.shared.failed.lock() = Some(e);
            self.shared.ended.notify_waiters();
        }
    }

    async fn go_on(&mut self) -> Result<()> {
        loop {
            self.wanted().await;
            if !self.page().await? {
                sleep(self.spec.interval).await;
            }
        }
    }

    /// Waits until somebody waits for rows: a stream that does not run asks for nothing.
    async fn wanted(&self) {
        loop {
            let wanted = self.shared.wanted.notified();
            tokio::pin!(wanted);
            wanted.as_mut().enable();
            if self.shared.waiting.load(Ordering::SeqCst) > 0 {
                return;
            }
            wanted.await;
        }
    }

    /// Takes one page in; says whether there is another to ask for at once.
    async fn page(&mut self) -> Result<bool> {
        let first = self.place.is_first();
        let asked = self.place.url(&self.spec.url, &self.spec.paging);
        let Answered { status, headers, body } = self.ask(&asked, first).await?;
        if status == StatusCode::NOT_MODIFIED {
            return Ok(false);
        }
        let mut held = self.shared.budget.account(format!("an answer to stream \"{}\"", self.spec.stream));
        held.resize_large(body.len())?;
        let page = self.decode(body.clone(), held).await?;
        if let Some(letter) = page.dead.first().filter(|_| self.spec.fail) {
            return Err(Error::data(format!("stream \"{}\": {}", self.spec.stream, letter.reason))
                .with_hint("Write on_error = 'dead_letter' to set such input aside and go on."));
        }
        let mut place = self.place.clone();
        if first {
            let header = |name| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
            (place.etag, place.modified) = (header(ETAG), header(LAST_MODIFIED));
        }
        let more = self.advance(&mut place, &asked, &headers, &body, page.offered);
        self.hand_in(page, place).await?;
        Ok(more)
    }

    fn advance(&self, place: &mut Place, asked: &Url, headers: &HeaderMap, body: &[u8], rows: usize) -> bool {
        place.advance(&self.spec.paging, asked, headers, body, rows).unwrap_or_else(|why| {
            tracing::warn!(stream = %self.spec.stream, "{why}: polling begins anew");
            false
        })
    }

    /// Asks until there is an answer.
    async fn ask(&self, url: &Url, first: bool) -> Result<Answered> {
        let client = &self.spec.client;
        let mut backoff = client.backoff();
        loop {
            let mut request = client.http().await.request(self.spec.method.clone(), url.clone());
            if let Some(etag) = self.place.etag.as_ref().filter(|_| first) {
                request = request.header(IF_NONE_MATCH, etag);
            }
            if let Some(modified) = self.place.modified.as_ref().filter(|_| first) {
                request = request.header(IF_MODIFIED_SINCE, modified);
            }
            if let Some(body) = &self.spec.body {
                request = request.body(body.clone());
            }
            match client.send(request, self.spec.max_bytes).await {
                Ok(answered) => return Ok(answered),
                // What a server refuses today it may give tomorrow: the stream waits, and says so.
                Err(refused) => {
                    let wait = refused.wait(&mut backoff)?;
                    let (stream, ms) = (&self.spec.stream, wait.as_millis());
                    tracing::warn!(%stream, why = %refused.why, "a poll failed and is tried again in {ms} ms");
                    sleep(wait).await;
                }
            }
        }
    }

    /// Decodes an answer, off the asynchronous threads.
    async fn decode(&self, body: Bytes, held: MemoryAccount) -> Result<Page> {
        let (spec, shared) = (self.spec.clone(), self.shared.clone());
        let decode = move || match spec.holds {
            Holds::Json => documents(&spec, &shared.seen, &body, held),
            Holds::JsonLines => whole(&spec, BodyFormat::JsonLines, body, held),
            Holds::Csv => whole(&spec, BodyFormat::Csv, body, held),
            Holds::Arrow => whole(&spec, BodyFormat::Arrow, body, held),
        };
        let decoded = spawn_blocking(decode).await;
        decoded.map_err(|e| Error::internal(format!("an answer was not decoded: {e}")))?
    }

    /// Hands the rows in, with the place behind them.
    async fn hand_in(&mut self, page: Page, place: Place) -> Result<()> {
        let Page { rows, dead, marks, dropped, .. } = page;
        self.shared.dropped.fetch_add(dropped, Ordering::Relaxed);
        let nothing = rows.num_rows() == 0 && dead.is_empty();
        let same = |a: &Place, b: &Place| (&a.next, &a.cursor, a.page) == (&b.next, &b.cursor, b.page);
        let moved = !same(&place, &self.place);
        self.place = place;
        if nothing && !moved {
            return Ok(());
        }
        let value = serde_json::to_value(&self.place)?;
        let receipt = Receipt { key: PLACE.to_owned(), value, kept: Kept::Lasting };
        let parcel = Parcel::from(rows).with_dead(dead).with_receipt(receipt);
        // Before the rows can be committed. Nobody else hands in.
        let at = self.shared.ingest.acknowledged().first().map_or(0, |reach| reach.end);
        self.shared.seen.lock().note(marks, at + parcel.length());
        self.shared.ingest.push(self.run, parcel).await
    }
}

/// The rows of a JSON document, without those that were seen.
fn documents(spec: &Polling, seen: &Mutex<Seen>, body: &[u8], _held: MemoryAccount) -> Result<Page> {
    let broken = |reason: String| {
        let raw = body.get(..body.len().min(SHOWN)).unwrap_or_default().to_vec();
        let letter = DeadLetter { split: "".into(), position: 0, line: None, reason, raw };
        let rows = RecordBatch::new_empty(spec.layout.schema().clone());
        Ok(Page { rows, dead: vec![letter], marks: vec![], offered: 0, dropped: 0 })
    };
    let rows = match find(body, &spec.rows) {
        Err(reason) => return broken(reason),
        Ok(None) => return broken(format!("the answer has nothing at '{}'", spec.rows)),
        Ok(Some(rows)) => rows,
    };
    let all = match items(rows) {
        Err(reason) => return broken(reason),
        Ok(all) => all,
    };
    let (mut fresh, mut marks, mut dropped) = (vec![], vec![], 0);
    let known = seen.lock();
    let mut here = std::collections::HashSet::new();
    for item in &all {
        let item = rows.get(item.clone()).unwrap_or_default();
        let key = spec.key.as_ref().and_then(|key| find(item, key).ok()?);
        if let Some(mark) = key.map(mark) {
            if known.has(mark) || !here.insert(mark) {
                dropped += 1;
                continue;
            }
            marks.push(mark);
        }
        fresh.push(item);
    }
    drop(known);
    let options = RecordOptions { format: RecordFormat::Json(JsonOptions::default()), fail: false };
    let mut decoder = RecordDecoder::new(&options, spec.layout.clone(), "".into())?;
    let positions = (0..fresh.len() as u64).collect();
    let decoded = decoder.decode(&Records::new(BinaryArray::from_iter_values(&fresh), positions)?)?;
    Ok(Page { rows: decoded.rows, dead: decoded.dead, marks, offered: all.len(), dropped })
}

/// The rows of an answer in another format.
fn whole(spec: &Polling, format: BodyFormat, body: Bytes, held: MemoryAccount) -> Result<Page> {
    let schema = spec.layout.content.clone();
    let input = Box::new(std::io::Cursor::new(body));
    let (mut batches, mut dead) = (vec![], vec![]);
    let read = BodyDecoder::new(format, schema.clone(), input, held, spec.max_bytes).and_then(|mut decoder| {
        while let Some(decoded) = decoder.next_rows()? {
            batches.push(decoded.rows);
            dead.extend(decoded.dead);
        }
        Ok(())
    });
    if let Err(e) = read {
        // The answer as a whole cannot be read: a server that fails answers with anything.
        let reason = e.message().to_owned();
        dead.push(DeadLetter { split: "".into(), position: 0, line: None, reason, raw: vec![] });
    }
    let rows = concat_batches(&schema, &batches)?;
    let offered = rows.num_rows() + dead.len();
    Ok(Page { rows, dead, marks: vec![], offered, dropped: 0 })
}
