//! Posting. What a task writes goes into parcels of whole requests, which lie on disk until the server has taken them. A commit
//! sends those of its checkpoint; what it leaves undone is in the manifest and comes first after a restart.
//!
//! ```text
//! parcel: [length, rows, body] [length, rows, body] …     key of a request: sink/parcel/number
//! ```

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::RecordBatch;
use async_trait::async_trait;
use millstream_engine::changelog::{Outgoing, op_schema};
use millstream_engine::connector::lag::Lag;
use millstream_engine::connector::outbox::{Packing, Parcel};
use millstream_engine::connector::registry::SinkRequest;
use millstream_engine::connector::{Figure, Sink};
use millstream_engine::error::{Error, ErrorKind, Result};
use millstream_engine::format::Format;
use millstream_engine::format::options::CsvOptions;
use millstream_engine::format::write::{write_header, write_json_lines, write_lines};
use reqwest::header::CONTENT_TYPE;
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::options::{Holds, Posting, shown, take_sink};
use crate::connector::dispatch::{Carrier, Consignment, Dispatch, Packer};

/// Bytes of the head of a request in a parcel.
const HEAD: usize = 12;
/// Bytes of a request, beyond which it is closed whatever its rows are.
const REQUEST_BYTES: usize = 4 << 20;
/// What is read of an answer.
const ANSWER: usize = 64 << 10;

/// Opens the sink that `request` describes; connects to nobody yet.
pub(super) fn open(request: SinkRequest) -> Result<Arc<dyn Sink>> {
    let spec = Arc::new(take_sink(request)?);
    let most = spec.buffer_bytes;
    Ok(Arc::new(Dispatch::new(Poster { spec, posted: AtomicU64::new(0) }, most)))
}

/// Posts the requests of parcels.
struct Poster {
    spec: Arc<Posting>,
    posted: AtomicU64,
}

/// A request of a parcel.
struct Part {
    number: usize,
    rows: u32,
    body: Vec<u8>,
}

#[async_trait]
impl Carrier for Poster {
    type Packer = Requests;

    fn stream(&self) -> &str {
        &self.spec.stream
    }

    fn packer(&self) -> Result<(Requests, Outgoing)> {
        let spec = self.spec.clone();
        let outgoing = Outgoing::new(spec.schema.clone(), spec.retracts, spec.key.clone());
        Ok((Requests { spec, lines: vec![], rows: 0 }, outgoing))
    }

    async fn carry(&self, consignment: &Consignment) -> Result<usize> {
        for (taken, parcel) in consignment.parcels.iter().enumerate() {
            if !self.carry_parcel(consignment, parcel).await? {
                return Ok(taken);
            }
        }
        Ok(consignment.parcels.len())
    }

    fn link(&self) -> Lag {
        self.spec.client.lag()
    }

    fn figures(&self) -> Vec<Figure> {
        [self.spec.client.figures(), vec![Figure::count("rows_posted", self.posted.load(Ordering::Relaxed))]].concat()
    }

    fn describe(&self) -> String {
        format!("{} {}", self.spec.method, shown(&self.spec.url))
    }
}

impl Poster {
    /// Sends the requests of `parcel`; says whether all are taken.
    async fn carry_parcel(&self, consignment: &Consignment, parcel: &Parcel) -> Result<bool> {
        let path = consignment.outbox.path(parcel);
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut letting_go = consignment.letting_go.clone();
        let mut parts = Some(Parts::open(&path)?);
        while let Some(reading) = parts.take() {
            let read = spawn_blocking(move || reading.next()).await;
            let Some((part, rest)) = read.map_err(|e| Error::internal(format!("a parcel was not read: {e}")))?? else {
                break;
            };
            let key = format!("{}/{name}/{}", consignment.sender, part.number);
            if !self.post(key, part, &mut letting_go).await? {
                return Ok(false);
            }
            parts = Some(rest);
        }
        Ok(true)
    }

    /// Sends one request until it is taken; says whether it is.
    ///
    /// Errors when the server will never take it.
    async fn post(&self, key: String, part: Part, letting_go: &mut watch::Receiver<bool>) -> Result<bool> {
        let Posting { client, url, method, holds, stream, .. } = &*self.spec;
        let mut backoff = client.backoff();
        loop {
            if *letting_go.borrow_and_update() {
                return Ok(false);
            }
            let request = client.http().await.request(method.clone(), url.clone());
            let request = request.header("idempotency-key", &key).header(CONTENT_TYPE, media_type(*holds));
            let Err(refused) = client.send(request.body(part.body.clone()), ANSWER).await else {
                self.posted.fetch_add(u64::from(part.rows), Ordering::Relaxed);
                return Ok(true);
            };
            if !refused.again {
                let message = format!("stream \"{stream}\" cannot post {} rows: {}", part.rows, refused.why);
                return Err(Error::new(ErrorKind::Data, message)
                    .with_hint("Mend the server or the query, then RESUME STREAM: the same rows are posted again."));
            }
            let wait = refused.wait(&mut backoff)?;
            tracing::warn!(%stream, why = %refused.why, "a request failed and is sent again in {} ms", wait.as_millis());
            tokio::select! {
                () = sleep(wait) => {}
                _ = letting_go.changed() => {}
            }
        }
    }
}

fn media_type(holds: Holds) -> &'static str {
    match holds {
        Holds::JsonLines => "application/x-ndjson",
        Holds::Csv => "text/csv; charset=utf-8",
        Holds::Json | Holds::Arrow => "application/json",
    }
}

/// Packs rows into requests.
struct Requests {
    spec: Arc<Posting>,
    /// The rows of the request that is being filled, as lines.
    lines: Vec<u8>,
    rows: usize,
}

impl Packer for Requests {
    fn pack(&mut self, rows: &RecordBatch, packing: &mut Packing) -> Result<()> {
        let mut at = 0;
        while at < rows.num_rows() {
            let some = (self.spec.batch_rows - self.rows).min(rows.num_rows() - at);
            let some = rows.slice(at, some);
            match self.spec.holds {
                Holds::Csv => write_lines(Format::Csv, &CsvOptions::default(), &some, &mut self.lines)?,
                _ => write_json_lines(&some, &mut self.lines)?,
            }
            (at, self.rows) = (at + some.num_rows(), self.rows + some.num_rows());
            if self.rows >= self.spec.batch_rows || self.lines.len() >= REQUEST_BYTES {
                self.close(packing)?;
            }
        }
        Ok(())
    }

    /// Puts the request into the parcel.
    fn close(&mut self, packing: &mut Packing) -> Result<()> {
        let (rows, mut lines) = (std::mem::take(&mut self.rows), std::mem::take(&mut self.lines));
        if rows == 0 {
            return Ok(());
        }
        let (mut body, holds) = (vec![], self.spec.holds);
        match holds {
            Holds::Csv => {
                let schema = &self.spec.schema;
                let schema = if self.spec.retracts { op_schema(schema) } else { schema.clone() };
                write_header(&CsvOptions::default(), &schema, &mut body);
                body.append(&mut lines);
            }
            Holds::JsonLines => body = lines,
            Holds::Json | Holds::Arrow => {
                // A newline stands nowhere but behind a row.
                lines.pop();
                lines.iter_mut().filter(|byte| **byte == b'\n').for_each(|byte| *byte = b',');
                body.reserve(lines.len() + 2);
                body.push(b'[');
                body.append(&mut lines);
                body.push(b']');
            }
        }
        packing.add(rows, |out| {
            out.extend_from_slice(&(body.len() as u64).to_le_bytes());
            out.extend_from_slice(&(rows as u32).to_le_bytes());
            out.extend_from_slice(&body);
            Ok(())
        })
    }

    fn held(&self) -> usize {
        self.lines.capacity()
    }
}

/// Reads the requests of a parcel.
struct Parts {
    file: BufReader<File>,
    number: usize,
}

impl Parts {
    fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(|e| Error::from(e).context(format!("file \"{}\"", path.display())))?;
        Ok(Parts { file: BufReader::with_capacity(1 << 16, file), number: 0 })
    }

    /// The next one. Blocks on the disk.
    fn next(mut self) -> Result<Option<(Part, Self)>> {
        let mut head = [0; HEAD];
        if (&mut self.file).take(1).read(&mut head[..1])? == 0 {
            return Ok(None);
        }
        self.file.read_exact(&mut head[1..])?;
        let (length, rows) = head.split_at(8);
        let length = u64::from_le_bytes(length.try_into().unwrap_or_default());
        let rows = u32::from_le_bytes(rows.try_into().unwrap_or_default());
        let mut body = vec![];
        if (&mut self.file).take(length).read_to_end(&mut body)? as u64 != length {
            return Err(Error::data("a parcel of rows to be posted is damaged"));
        }
        self.number += 1;
        Ok(Some((Part { number: self.number, rows, body }, self)))
    }
}
