//! Polling: one page after the other, without the rows that were seen.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{BinaryArray, RecordBatch};
use arrow::compute::concat_batches;
use async_trait::async_trait;
use axum::http::StatusCode;
use bytes::Bytes;
use millstream_engine::connector::ingest::Parcel;
use millstream_engine::connector::lag::Lag;
use millstream_engine::connector::{DeadLetter, Figure};
use millstream_engine::error::{Error, Result};
use millstream_engine::format::body::{BodyDecoder, BodyFormat};
use millstream_engine::format::json::{find, items};
use millstream_engine::format::options::JsonOptions;
use millstream_engine::format::records::{RecordDecoder, RecordFormat, RecordOptions, Records};
use millstream_engine::memory::MemoryAccount;
use parking_lot::Mutex;
use reqwest::header::{ETAG, HeaderMap, IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED};
use serde_json::Value;
use tokio::task::spawn_blocking;
use tokio::time::sleep;
use url::Url;

use super::ask::Answered;
use super::options::{Holds, Polling, shown};
use super::paging::Place;
use crate::connector::polled::{Answer, Asker, Here, Mark, Offered, Polled, Seen, mark};

/// How much of an answer that makes no sense goes into its dead letter.
const SHOWN: usize = 64 << 10;

impl Polled for Polling {
    fn split(&self) -> String {
        shown(&self.url)
    }

    fn interval(&self) -> Duration {
        self.interval
    }

    fn key_memory(&self) -> usize {
        self.key_memory
    }

    fn asker(self: Arc<Self>, place: Option<Value>) -> Result<Box<dyn Asker>> {
        let place = place.map(serde_json::from_value).transpose()?.unwrap_or_default();
        Ok(Box::new(Pages { spec: self, place }))
    }

    fn link(&self) -> Lag {
        self.client.lag()
    }

    fn figures(&self) -> Vec<Figure> {
        self.client.figures()
    }

    fn describe(&self) -> String {
        format!("{} {} every {:?}", self.method, shown(&self.url), self.interval)
    }
}

/// Asks for pages.
struct Pages {
    spec: Arc<Polling>,
    place: Place,
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

#[async_trait]
impl Asker for Pages {
    async fn ask(&mut self, here: &Arc<Here>) -> Result<Answer> {
        let first = self.place.is_first();
        let asked = self.place.url(&self.spec.url, &self.spec.paging);
        let Answered { status, headers, body } = self.request(&asked, first).await?;
        if status == StatusCode::NOT_MODIFIED {
            return Ok(Answer { parcel: None, marks: vec![], dropped: 0, place: Value::Null, more: false });
        }
        let mut held = here.budget.account(format!("an answer to stream \"{}\"", self.spec.stream));
        held.resize_large(body.len())?;
        let page = self.decode(here, body.clone(), held).await?;
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
        let Page { rows, dead, marks, dropped, .. } = page;
        let nothing = rows.num_rows() == 0 && dead.is_empty();
        let same = |a: &Place, b: &Place| (&a.next, &a.cursor, a.page) == (&b.next, &b.cursor, b.page);
        let moved = !same(&place, &self.place);
        self.place = place;
        let parcel = (!nothing || moved).then(|| Parcel::from(rows).with_dead(dead));
        Ok(Answer { parcel, marks, dropped, place: serde_json::to_value(&self.place)?, more })
    }
}

impl Pages {
    fn advance(&self, place: &mut Place, asked: &Url, headers: &HeaderMap, body: &[u8], rows: usize) -> bool {
        place.advance(&self.spec.paging, asked, headers, body, rows).unwrap_or_else(|why| {
            tracing::warn!(stream = %self.spec.stream, "{why}: polling begins anew");
            false
        })
    }

    /// Asks until there is an answer.
    async fn request(&self, url: &Url, first: bool) -> Result<Answered> {
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
    async fn decode(&self, here: &Arc<Here>, body: Bytes, held: MemoryAccount) -> Result<Page> {
        let (spec, here) = (self.spec.clone(), here.clone());
        let decode = move || match spec.holds {
            Holds::Json => documents(&spec, &here.seen, &body, held),
            Holds::JsonLines => whole(&spec, BodyFormat::JsonLines, body, held),
            Holds::Csv => whole(&spec, BodyFormat::Csv, body, held),
            Holds::Arrow => whole(&spec, BodyFormat::Arrow, body, held),
        };
        let decoded = spawn_blocking(decode).await;
        decoded.map_err(|e| Error::internal(format!("an answer was not decoded: {e}")))?
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
    let mut offered = Offered::default();
    let fresh: Vec<_> = {
        let seen = seen.lock();
        let items = all.iter().map(|item| rows.get(item.clone()).unwrap_or_default());
        let is_new = |item: &&[u8]| {
            let key = spec.key.as_ref().and_then(|key| find(item, key).ok()?);
            key.is_none_or(|key| offered.is_new(mark(key), &seen))
        };
        items.filter(is_new).collect()
    };
    let dropped = (all.len() - fresh.len()) as u64;
    let options = RecordOptions { format: RecordFormat::Json(JsonOptions::default()), fail: false };
    let mut decoder = RecordDecoder::new(&options, spec.layout.clone(), "".into())?;
    let positions = (0..fresh.len() as u64).collect();
    let decoded = decoder.decode(&Records::new(BinaryArray::from_iter_values(&fresh), positions)?)?;
    Ok(Page { rows: decoded.rows, dead: decoded.dead, marks: offered.marks, offered: all.len(), dropped })
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
