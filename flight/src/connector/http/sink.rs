//! Posting. What a task writes goes into parcels of whole requests, which lie on disk until the server has taken them. A commit
//! sends those of its checkpoint; what it leaves undone is in the manifest and comes first after a restart.
//!
//! ```text
//! parcel: [length, rows, body] [length, rows, body] …     key of a request: sink/parcel/number
//! ```

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::RecordBatch;
use async_trait::async_trait;
use millstream_engine::changelog::{Outgoing, op_schema, with_ops};
use millstream_engine::changes::Changes;
use millstream_engine::connector::lag::Lag;
use millstream_engine::connector::outbox::{Outbox, Packing, Parcel};
use millstream_engine::connector::registry::SinkRequest;
use millstream_engine::connector::{Commit, Figure, Sink, SinkWriter, Staged};
use millstream_engine::epoch::EpochMark;
use millstream_engine::error::{Error, ErrorKind, Result};
use millstream_engine::format::Format;
use millstream_engine::format::options::CsvOptions;
use millstream_engine::format::write::{write_header, write_json_lines, write_lines};
use millstream_engine::token::token;
use parking_lot::Mutex;
use reqwest::header::CONTENT_TYPE;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::sleep;

use super::options::{Holds, Posting, shown, take_sink};

/// Bytes of the head of a request in a parcel.
const HEAD: usize = 12;
/// Bytes of a request, beyond which it is closed whatever its rows are.
const REQUEST_BYTES: usize = 4 << 20;
/// What is read of an answer.
const ANSWER: usize = 64 << 10;

/// Opens the sink that `request` describes; connects to nobody yet.
pub(super) fn open(request: SinkRequest) -> Result<Arc<dyn Sink>> {
    let (spec, state) = (Arc::new(take_sink(request)?), Mutex::default());
    let courier = Courier { spec, state, shared: Arc::default(), turn: Default::default() };
    Ok(Arc::new(HttpSink { courier: Arc::new(courier), late: Mutex::default() }))
}

struct HttpSink {
    courier: Arc<Courier>,
    /// Delivers what an earlier run has left.
    late: Mutex<JoinSet<()>>,
}

/// Sends what is committed.
struct Courier {
    spec: Arc<Posting>,
    state: Mutex<State>,
    shared: Arc<Shared>,
    /// One at a time, in order.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct State {
    folder: Option<PathBuf>,
    outbox: Option<Arc<Outbox>>,
    kept: KeptState,
}

/// What the manifest keeps.
#[derive(Clone, Default, Serialize, Deserialize)]
struct KeptState {
    /// A name that no other sink has.
    id: String,
    /// Parcels that are committed and that the server has perhaps not taken.
    open: Vec<Parcel>,
}

/// What writers and commits share.
struct Shared {
    /// Bytes that the present commit still has to send.
    undelivered: watch::Sender<u64>,
    /// The job is to stop.
    letting_go: watch::Sender<bool>,
    posted: AtomicU64,
}

impl Default for Shared {
    fn default() -> Self {
        let (undelivered, letting_go) = (watch::Sender::new(0), watch::Sender::new(false));
        Shared { undelivered, letting_go, posted: AtomicU64::new(0) }
    }
}

/// A request of a parcel.
struct Part {
    number: usize,
    rows: u32,
    body: Vec<u8>,
}

impl Courier {
    fn outbox(&self) -> Result<Arc<Outbox>> {
        self.state.lock().outbox.clone().ok_or_else(|| Error::internal("a sink is written before it has started"))
    }

    /// Sends what is open, in order, until all is taken or the job is to stop.
    async fn deliver(&self) -> Result<()> {
        let (_turn, outbox) = (self.turn.lock().await, self.outbox()?);
        loop {
            let (id, next) = {
                let state = self.state.lock();
                (state.kept.id.clone(), state.kept.open.first().cloned())
            };
            let Some(parcel) = next else { return Ok(()) };
            if !self.deliver_parcel(&outbox, &id, &parcel).await? {
                return Ok(());
            }
            outbox.take_out(&parcel).await?;
            self.state.lock().kept.open.retain(|one| *one != parcel);
            self.shared.undelivered.send_modify(|bytes| *bytes = bytes.saturating_sub(parcel.bytes));
        }
    }

    /// Sends the requests of `parcel`; says whether all are taken.
    async fn deliver_parcel(&self, outbox: &Outbox, id: &str, parcel: &Parcel) -> Result<bool> {
        let path = outbox.path(parcel);
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut parts = Some(Parts::open(&path)?);
        while let Some(reading) = parts.take() {
            let read = spawn_blocking(move || reading.next()).await;
            let Some((part, rest)) = read.map_err(|e| Error::internal(format!("a parcel was not read: {e}")))?? else {
                break;
            };
            let key = format!("{id}/{name}/{}", part.number);
            if !self.post(key, part).await? {
                return Ok(false);
            }
            parts = Some(rest);
        }
        Ok(true)
    }

    /// Sends one request until it is taken; says whether it is.
    ///
    /// Errors when the server will never take it.
    async fn post(&self, key: String, part: Part) -> Result<bool> {
        let Posting { client, url, method, holds, stream, .. } = &*self.spec;
        let mut letting_go = self.shared.letting_go.subscribe();
        let mut backoff = client.backoff();
        loop {
            if *letting_go.borrow_and_update() {
                return Ok(false);
            }
            let request = client.http().request(method.clone(), url.clone());
            let request = request.header("idempotency-key", &key).header(CONTENT_TYPE, media_type(*holds));
            let Err(refused) = client.send(request.body(part.body.clone()), ANSWER).await else {
                self.shared.posted.fetch_add(u64::from(part.rows), Ordering::Relaxed);
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

#[async_trait]
impl Sink for HttpSink {
    fn keep_in(&self, folder: &Path) {
        self.courier.state.lock().folder = Some(folder.to_owned());
    }

    fn restore(&self, state: &Value) -> Result<()> {
        self.courier.state.lock().kept = KeptState::deserialize(state)?;
        Ok(())
    }

    async fn start(&self, _committed: &[Staged], generation: u64) -> Result<()> {
        let courier = &self.courier;
        let (folder, open) = {
            let state = courier.state.lock();
            (state.folder.clone(), state.kept.open.clone())
        };
        let folder = folder.ok_or_else(|| {
            Error::unsupported("connector 'http' posts from stores that are folders only")
                .with_hint("Open a store on a disk with --store DIR.")
        })?;
        let (outbox, open) = Outbox::open(folder, generation, open).await?;
        courier.shared.letting_go.send_replace(false);
        courier.shared.undelivered.send_replace(0);
        let is_late = !open.is_empty();
        {
            let mut state = courier.state.lock();
            (state.outbox, state.kept.open) = (Some(outbox), open);
            if state.kept.id.is_empty() {
                state.kept.id = token()?;
            }
        }
        if is_late {
            let courier = courier.clone();
            self.late.lock().spawn(async move {
                // The next commit meets the same, and says so.
                if let Err(e) = courier.deliver().await {
                    tracing::warn!(stream = %courier.spec.stream, error = %e, "rows of an earlier run are not taken");
                }
            });
        }
        Ok(())
    }

    fn open(&self, task: usize) -> Result<Box<dyn SinkWriter>> {
        let spec = self.courier.spec.clone();
        let outgoing = Outgoing::new(spec.schema.clone(), spec.retracts, spec.key.clone());
        let packing = Packing::new(self.courier.outbox()?, task);
        let shared = self.courier.shared.clone();
        Ok(Box::new(HttpWriter { spec, shared, outgoing, packing, lines: vec![], rows: 0 }))
    }

    fn state_after(&self, commit: &Commit<'_>) -> Value {
        let mut kept = self.courier.state.lock().kept.clone();
        kept.open.extend(Parcel::among(commit.staged).unwrap_or_default());
        serde_json::to_value(kept).unwrap_or_default()
    }

    async fn commit(&self, commit: &Commit<'_>) -> Result<()> {
        let parcels = Parcel::among(commit.staged)?;
        let bytes: u64 = {
            let mut state = self.courier.state.lock();
            let new: Vec<_> = parcels.into_iter().filter(|parcel| !state.kept.open.contains(parcel)).collect();
            state.kept.open.extend(new);
            state.kept.open.iter().map(|parcel| parcel.bytes).sum()
        };
        self.courier.shared.undelivered.send_replace(bytes);
        let delivered = self.courier.deliver().await;
        self.courier.shared.undelivered.send_replace(0);
        delivered
    }

    fn let_go(&self) {
        self.courier.shared.letting_go.send_replace(true);
    }

    async fn stop(&self) {
        let mut late = std::mem::take(&mut *self.late.lock());
        late.shutdown().await;
    }

    fn takes_retractions(&self) -> bool {
        true
    }

    fn lag(&self) -> Option<Lag> {
        Some(Parcel::lag(&self.courier.state.lock().kept.open).with(self.courier.spec.client.lag()))
    }

    fn figures(&self) -> Vec<Figure> {
        let undelivered = self.courier.state.lock().kept.open.iter().map(|parcel| parcel.bytes).sum();
        let posted = self.courier.shared.posted.load(Ordering::Relaxed);
        [self.courier.spec.client.figures(), vec![("rows_posted", posted), ("bytes_undelivered", undelivered)]].concat()
    }

    fn describe(&self) -> String {
        format!("{} {}", self.courier.spec.method, shown(&self.courier.spec.url))
    }
}

/// Writes the rows of one task.
struct HttpWriter {
    spec: Arc<Posting>,
    shared: Arc<Shared>,
    outgoing: Outgoing,
    packing: Packing,
    /// The rows of the request that is being filled, as lines.
    lines: Vec<u8>,
    rows: usize,
}

impl HttpWriter {
    async fn add(&mut self, rows: &RecordBatch) -> Result<()> {
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
                self.close_request()?;
            }
        }
        self.packing.ease().await?;
        self.wait_for_room().await;
        Ok(())
    }

    /// While a commit is under way and much waits, the query waits for it.
    async fn wait_for_room(&self) {
        let mut undelivered = self.shared.undelivered.subscribe();
        let mut letting_go = self.shared.letting_go.subscribe();
        let packed = self.packing.bytes();
        let room = |waiting: &u64| *waiting == 0 || waiting + packed <= self.spec.buffer_bytes;
        tokio::select! {
            // An error means that nobody will deliver any more.
            _ = undelivered.wait_for(room) => {}
            _ = letting_go.wait_for(|letting_go| *letting_go) => {}
        }
    }

    /// Puts the request into the parcel.
    fn close_request(&mut self) -> Result<()> {
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
        self.packing.add(rows, |out| {
            out.extend_from_slice(&(body.len() as u64).to_le_bytes());
            out.extend_from_slice(&(rows as u32).to_le_bytes());
            out.extend_from_slice(&body);
            Ok(())
        })
    }
}

#[async_trait]
impl SinkWriter for HttpWriter {
    async fn write(&mut self, changes: Changes) -> Result<()> {
        match self.outgoing.write(changes)? {
            Some(rows) => self.add(&rows).await,
            None => Ok(()),
        }
    }

    async fn epoch(&mut self, _mark: &EpochMark) -> Result<()> {
        if let Some((changes, ops)) = self.outgoing.end()? {
            let rows = with_ops(changes.rows(), &ops)?;
            self.add(&rows).await?;
        }
        Ok(())
    }

    async fn stage(&mut self, checkpoint: u64) -> Result<Vec<Staged>> {
        self.close_request()?;
        self.packing.seal(checkpoint).await?.map(|parcel| parcel.staged()).into_iter().collect()
    }

    fn bytes(&self) -> usize {
        self.outgoing.bytes() + self.packing.held() + self.lines.capacity()
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
