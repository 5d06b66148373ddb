//! Bodies to rows, off the asynchronous threads.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use axum::http::{HeaderMap, StatusCode, header::CONTENT_TYPE};
use millstream_engine::connector::ingest::Parcel;
use millstream_engine::connector::spool::Spool;
use millstream_engine::format::DeadLetter;
use millstream_engine::format::body::{BodyDecoder, BodyFormat};
use millstream_engine::memory::MemoryAccount;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

use super::Server;
use super::answer::Answer;
use super::body::Received;

/// Batches that are decoded and wait to be put aside.
const AHEAD: usize = 2;
/// How many rows that do not fit are told.
const TOLD: usize = 100;

/// The formats of bodies.
const FORMATS: [(&str, BodyFormat); 6] = [
    ("application/x-ndjson", BodyFormat::JsonLines),
    ("application/ndjson", BodyFormat::JsonLines),
    ("application/jsonl", BodyFormat::JsonLines),
    ("application/json", BodyFormat::Json),
    ("text/csv", BodyFormat::Csv),
    ("application/vnd.apache.arrow.stream", BodyFormat::Arrow),
];

/// What the body of a request holds, as its head says.
pub(super) fn body_format(headers: &HeaderMap) -> Result<BodyFormat, Answer> {
    let said = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let kind = said.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let found = FORMATS.iter().find(|(name, _)| *name == kind).map(|(_, format)| *format);
    found.ok_or_else(|| {
        let message = match kind.as_str() {
            "" => "the content type of the body is missing".to_owned(),
            kind => format!("content type '{kind}' is not supported"),
        };
        Answer::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported", message)
            .hint("Send application/x-ndjson, application/json, text/csv or application/vnd.apache.arrow.stream.")
    })
}

/// The rows of a body.
pub(super) struct Decoded {
    pub(super) parcel: Parcel,
    /// How many rows do not fit and go with it.
    pub(super) dead: usize,
}

/// What a body is decoded to.
#[derive(Clone)]
pub(super) struct Target<'a> {
    pub(super) stream: &'a str,
    pub(super) schema: SchemaRef,
    pub(super) format: BodyFormat,
    /// Rows that do not fit are put aside; otherwise none is taken.
    pub(super) lenient: bool,
}

impl Target<'_> {
    /// What two requests must agree in besides their content, to be the same.
    pub(super) fn salt(&self) -> String {
        format!("{:?} {} ", self.format, self.lenient)
    }
}

/// Decodes `body`.
///
/// Errors when a row does not fit, unless such are put aside.
pub(super) async fn decode(server: &Server, target: Target<'_>, body: &Arc<Received>) -> Result<Decoded, Answer> {
    let turn = server.decoding.clone().acquire_owned().await;
    let budget = server.millstream.budget();
    let stream = target.stream;
    let (send, mut batches) = mpsc::channel(AHEAD);
    let work = Work {
        body: body.clone(),
        schema: target.schema.clone(),
        format: target.format,
        lenient: target.lenient,
        held: budget.account("the body of a request"),
        dead_held: budget.account("rows that do not fit"),
        send,
    };
    let work = spawn_blocking(move || {
        let _turn = turn;
        work.run()
    });
    let mut rows = Gathered::Nothing;
    let folder = server.millstream.store().scratch();
    while let Some(batch) = batches.recv().await {
        rows = match rows {
            Gathered::Nothing => Gathered::One(batch),
            Gathered::One(first) => {
                let held = budget.account(format!("rows for stream \"{stream}\""));
                let spool = Spool::new(&folder, target.schema.clone(), held).add(first).await?;
                Gathered::Many(Box::new(spool.add(batch).await?))
            }
            Gathered::Many(spool) => Gathered::Many(Box::new(spool.add(batch).await?)),
        };
    }
    let done = work.await.map_err(|_| Answer::from(millstream_sql::Error::internal("a body was not decoded")))??;
    if !done.misfits.is_empty() {
        return Err(misfits(stream, done));
    }
    let parcel = match rows {
        Gathered::Nothing => Parcel::from(RecordBatch::new_empty(target.schema)),
        Gathered::One(batch) => Parcel::from(batch),
        Gathered::Many(spool) => Parcel::from(spool.finish().await?),
    };
    let dead = done.dead.len();
    Ok(Decoded { parcel: parcel.with_dead(done.dead), dead })
}

/// Rows until all have come: mostly one batch.
enum Gathered {
    Nothing,
    One(RecordBatch),
    Many(Box<Spool>),
}

/// That rows do not fit.
fn misfits(stream: &str, done: Done) -> Answer {
    let n = done.count;
    let what = if n == 1 { "1 row does".to_owned() } else { format!("{n} rows do") };
    Answer::new(
        StatusCode::UNPROCESSABLE_ENTITY,
        "data",
        format!("stream \"{stream}\": {what} not fit; none was taken"),
    )
    .hint("Mend them, or put such rows aside with ?on_error=dead_letter.")
    .with("rows", Value::Array(done.misfits))
}

struct Work {
    body: Arc<Received>,
    schema: SchemaRef,
    format: BodyFormat,
    lenient: bool,
    held: MemoryAccount,
    dead_held: MemoryAccount,
    send: mpsc::Sender<RecordBatch>,
}

/// What decoding has found besides rows.
#[derive(Default)]
struct Done {
    /// Rows to be put aside.
    dead: Vec<DeadLetter>,
    /// The first that are not.
    misfits: Vec<Value>,
    /// How many there are.
    count: usize,
}

impl Work {
    fn run(mut self) -> Result<Done, Answer> {
        let (body, (input, over)) = (self.body.clone(), self.body.reader()?);
        let failed = |e| body.unreadable(&over, e);
        let most = body.unpacked_bytes();
        let mut decoder = BodyDecoder::new(self.format, self.schema.clone(), input, self.held, most).map_err(failed)?;
        let (mut done, mut bytes) = (Done::default(), 0);
        while let Some(decoded) = decoder.next_rows().map_err(failed)? {
            if self.lenient {
                bytes += decoded.dead.iter().map(|letter| letter.raw.len() + letter.reason.len() + 64).sum::<usize>();
                self.dead_held.resize_large(bytes)?;
                done.dead.extend(decoded.dead);
            } else {
                done.count += decoded.dead.len();
                let room = TOLD - done.misfits.len();
                let told = decoded.dead.iter().take(room);
                done.misfits.extend(told.map(|letter| json!({ "line": letter.line, "reason": letter.reason })));
            }
            let wanted = done.count == 0 && decoded.rows.num_rows() > 0;
            if wanted && self.send.blocking_send(decoded.rows).is_err() {
                // The client has gone.
                break;
            }
        }
        Ok(done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_types() {
        let of = |kind: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, kind.parse().unwrap());
            body_format(&headers).map_err(|e| e.status())
        };
        assert_eq!(of("application/x-ndjson"), Ok(BodyFormat::JsonLines));
        assert_eq!(of("Text/CSV; charset=utf-8"), Ok(BodyFormat::Csv));
        assert_eq!(of("application/xml"), Err(StatusCode::UNSUPPORTED_MEDIA_TYPE));
        assert_eq!(body_format(&HeaderMap::new()).unwrap_err().status(), StatusCode::UNSUPPORTED_MEDIA_TYPE);
    }
}
