//! The lines of one connection as rows. A line that is too long, cut off or wrong is a dead letter with the peer it came
//! from, and costs nothing but itself.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, RecordBatch, StringViewArray, TimestampMicrosecondArray};
use millstream_engine::changes::row_bytes;
use millstream_engine::connector::DeadLetter;
use millstream_engine::error::{Error, ErrorKind, Result};
use millstream_engine::format::{LineDecoder, Place, csv, json};
use millstream_engine::time::now;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::{Instant, sleep, timeout_at};

use super::options::{Decoding, Lines};
use super::{ARRIVED, PEER};
use crate::connector::inbox::Inlet;

/// What is read at once.
const BLOCK: usize = 64 << 10;
/// How much of a line that is too long goes into its dead letter.
const SHOWN: usize = 4 << 10;
/// How long a connection rests when memory is short.
const REST: Duration = Duration::from_millis(20);

/// Rows that have come, and what is none.
pub(super) struct Arrived {
    pub(super) rows: RecordBatch,
    pub(super) dead: Vec<DeadLetter>,
}

impl Arrived {
    fn bytes(&self) -> usize {
        row_bytes(&self.rows) + self.dead.iter().map(|d| d.raw.len() + 100).sum::<usize>()
    }
}

/// Rows, or why the job is to end.
pub(super) type Arrival = Result<Arrived>;

/// Why a connection ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// The peer closed it.
    Closed,
    /// It broke.
    Broken(io::Error),
    /// It gave no whole line for so long.
    Silent(Duration),
    /// What it gives cannot be read.
    Unreadable,
    /// Nobody reads any more.
    Stopped,
}

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Ended::Closed => f.write_str("closed by the other side"),
            Ended::Broken(e) => write!(f, "broken: {e}"),
            Ended::Silent(time) => write!(f, "no whole line for {} s", time.as_secs_f64()),
            Ended::Unreadable => f.write_str("what it gives cannot be read"),
            Ended::Stopped => f.write_str("the job stops"),
        }
    }
}

/// A connection as it is read.
pub(super) struct Connection<'a> {
    spec: &'a Lines,
    inlet: &'a Inlet<Arrival>,
    peer: Arc<str>,
    /// Where its dead letters come from.
    origin: Arc<str>,
    decoder: Box<dyn LineDecoder>,
    /// What has been read and makes no line yet.
    carry: Vec<u8>,
    /// Where the carry begins, in bytes and lines.
    position: u64,
    line: u64,
    /// Within a line that has been given up.
    skipping: bool,
    /// What has been made and not handed over.
    arrived: Vec<Arrived>,
}

impl<'a> Connection<'a> {
    pub(super) fn new(spec: &'a Lines, inlet: &'a Inlet<Arrival>, peer: Arc<str>) -> Result<Self> {
        let origin: Arc<str> = format!("{} from {peer}", spec.way.describe()).into();
        let layout = &spec.layout;
        let decoder = match &spec.decoding {
            Decoding::Json(options) => json::decoder(layout.content.clone(), options, origin.clone()),
            Decoding::Csv(options) => {
                csv::decoder(&layout.declared, &layout.projection, options, origin.clone(), None)?
            }
        };
        Ok(Connection {
            spec,
            inlet,
            peer,
            origin,
            decoder,
            carry: vec![],
            position: 0,
            line: 1,
            skipping: false,
            arrived: vec![],
        })
    }

    /// Reads `wire` to its end. Waits while there is no room for rows, and so lets the peer wait.
    pub(super) async fn read(mut self, mut wire: impl AsyncRead + Unpin) -> Ended {
        let mut quiet_since = Instant::now();
        let ended = loop {
            if self.inlet.budget().pressed() {
                sleep(REST).await;
                // A line that is held half is part of the reason.
                if self.carry.is_empty() {
                    quiet_since = Instant::now();
                }
            }
            let until = self.spec.patience.map(|time| quiet_since + time);
            match self.fill(&mut wire, until).await {
                Some(Ok(0)) => break Ended::Closed,
                Some(Ok(new)) => match self.cut(new) {
                    Ok(whole) => {
                        if !self.hand_over().await {
                            return Ended::Stopped;
                        }
                        if whole {
                            quiet_since = Instant::now();
                        }
                    }
                    Err(e) => {
                        self.carry.clear();
                        if self.spec.fail || e.kind() == ErrorKind::Internal {
                            self.inlet.put(Err(e), 0).await;
                        }
                        break Ended::Unreadable;
                    }
                },
                Some(Err(e)) => break Ended::Broken(e),
                None => break Ended::Silent(self.spec.patience.unwrap_or_default()),
            }
        };
        if let Err(e) = self.end(&ended) {
            self.inlet.put(Err(e), 0).await;
        }
        self.hand_over().await;
        ended
    }

    /// Adds what has come to the carry; nothing when that takes longer than `until`.
    async fn fill(&mut self, wire: &mut (impl AsyncRead + Unpin), until: Option<Instant>) -> Option<io::Result<usize>> {
        self.carry.reserve(BLOCK);
        let read = wire.read_buf(&mut self.carry);
        match until {
            None => Some(read.await),
            Some(until) => timeout_at(until, read).await.ok(),
        }
    }

    /// Makes rows of the whole lines of the carry, whose last `new` bytes have not been looked at. Says whether there were
    /// any.
    fn cut(&mut self, new: usize) -> Result<bool> {
        let seen = self.carry.len() - new;
        if self.skipping {
            let end = memchr::memchr(b'\n', &self.carry);
            let dropped = end.map_or(self.carry.len(), |i| i + 1);
            self.carry.drain(..dropped);
            self.position += dropped as u64;
            self.skipping = end.is_none();
            self.line += u64::from(end.is_some());
            let new = self.carry.len();
            return if self.skipping { Ok(false) } else { self.cut(new) };
        }
        let Some(last) = memchr::memrchr(b'\n', &self.carry[seen..]) else {
            if self.carry.len() > self.spec.max_line {
                let start = std::mem::take(&mut self.carry);
                self.too_long(&start)?;
                self.position += start.len() as u64;
                self.skipping = true;
            }
            return Ok(false);
        };
        let rest = self.carry.split_off(seen + last + 1);
        let block = std::mem::replace(&mut self.carry, rest);
        self.lines(&block)?;
        Ok(true)
    }

    /// Makes rows of whole lines.
    fn lines(&mut self, mut block: &[u8]) -> Result<()> {
        while !block.is_empty() {
            let long = if block.len() > self.spec.max_line { first_long(block, self.spec.max_line) } else { None };
            let good = long.as_ref().map_or(block.len(), |long| long.start);
            self.decode(&block[..good])?;
            block = &block[good..];
            if let Some(long) = long {
                let (line, rest) = block.split_at(long.len());
                self.too_long(line)?;
                self.position += line.len() as u64;
                self.line += 1;
                block = rest;
            }
        }
        Ok(())
    }

    fn decode(&mut self, mut block: &[u8]) -> Result<()> {
        while !block.is_empty() {
            let at = Place { position: self.position, line: Some(self.line) };
            let decoded = match self.decoder.decode(block, at) {
                Ok(decoded) => decoded,
                // About all its lines, as a header that lacks a column is.
                Err(e) => {
                    let first = memchr::memchr(b'\n', block).unwrap_or(block.len());
                    self.dead(e.message().to_owned(), &block[..first])?;
                    return Err(e);
                }
            };
            let count = decoded.rows.num_rows();
            let rows = self.spec.layout.compose(decoded.rows, |key| self.metadata(key, count))?;
            self.fail_on(decoded.dead.first())?;
            self.position += decoded.bytes as u64;
            self.line += decoded.lines;
            block = &block[decoded.bytes..];
            self.arrived.push(Arrived { rows, dead: decoded.dead });
        }
        Ok(())
    }

    /// The metadata `key` of `count` rows that come now.
    fn metadata(&self, key: &str, count: usize) -> Result<ArrayRef> {
        match key {
            PEER => Ok(Arc::new(StringViewArray::from_iter_values(std::iter::repeat_n(&self.peer, count)))),
            ARRIVED => Ok(Arc::new(TimestampMicrosecondArray::from(vec![now(); count]).with_timezone("UTC"))),
            _ => Err(Error::internal(format!("a socket knows no '{key}'"))),
        }
    }

    fn too_long(&mut self, line: &[u8]) -> Result<()> {
        self.dead(format!("the line is longer than {} bytes", self.spec.max_line), line)
    }

    /// Puts bytes at the present position aside.
    fn dead(&mut self, reason: String, raw: &[u8]) -> Result<()> {
        let raw = raw[..raw.len().min(SHOWN)].to_vec();
        let letter =
            DeadLetter { split: self.origin.clone(), position: self.position, line: Some(self.line), reason, raw };
        self.fail_on(Some(&letter))?;
        let rows = RecordBatch::new_empty(self.spec.layout.schema().clone());
        self.arrived.push(Arrived { rows, dead: vec![letter] });
        Ok(())
    }

    fn fail_on(&self, first: Option<&DeadLetter>) -> Result<()> {
        match first {
            Some(d) if self.spec.fail => {
                let line = d.line.unwrap_or_default();
                Err(Error::data(format!("{}, line {line}: {}", d.split, d.reason))
                    .with_hint("Write on_error = 'dead_letter' to set such input aside and go on."))
            }
            _ => Ok(()),
        }
    }

    /// The connection has ended, perhaps within a line. A whole object of JSON is one also without a line end; what half a
    /// line of CSV was going to be nobody knows.
    fn end(&mut self, why: &Ended) -> Result<()> {
        let rest = std::mem::take(&mut self.carry);
        if self.skipping || rest.is_empty() {
            return Ok(());
        }
        match (&self.spec.decoding, why) {
            (Decoding::Json(_), Ended::Closed) => self.decode(&rest),
            _ => self.dead(format!("the connection ended within the line: {why}"), &rest),
        }
    }

    /// Hands over what has been made. Says whether anybody takes it.
    async fn hand_over(&mut self) -> bool {
        for arrived in std::mem::take(&mut self.arrived) {
            let bytes = arrived.bytes();
            if !self.inlet.put(Ok(arrived), bytes).await {
                return false;
            }
        }
        true
    }
}

/// The first line of `block` that is longer than `most`, with its line end.
fn first_long(block: &[u8], most: usize) -> Option<std::ops::Range<usize>> {
    let mut start = 0;
    for newline in memchr::memchr_iter(b'\n', block) {
        if newline - start > most {
            return Some(start..newline + 1);
        }
        start = newline + 1;
    }
    None
}
