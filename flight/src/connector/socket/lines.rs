//! The lines of one connection as rows. A line that is too long, cut off or wrong is a dead letter with the peer it came
//! from, and costs nothing but itself.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, StringViewArray, TimestampMicrosecondArray};
use millstream_engine::changes::Changes;
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
    pub(super) rows: Changes,
    pub(super) dead: Vec<DeadLetter>,
}

impl Arrived {
    fn bytes(&self) -> usize {
        self.rows.bytes() + self.dead.iter().map(|d| d.raw.len() + 100).sum::<usize>()
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
            Decoding::Json(options) => json::decoder(layout.content.clone(), options, &layout.key, origin.clone()),
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
            let rows = Changes::of_rows(rows, decoded.weights)?;
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
        let rows = Changes::empty(self.spec.layout.schema().clone());
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use arrow::array::AsArray;
    use arrow::datatypes::{DataType, Field, Int64Type, Schema};
    use millstream_engine::connector::registry::SourceRequest;
    use millstream_engine::memory::MemoryBudget;
    use millstream_engine::options::Options;
    use tokio::io::{AsyncWriteExt, duplex};

    use super::super::options::{Reading, take_source};
    use super::*;
    use crate::connector::inbox::{Outlet, inbox};

    fn lines(pairs: &[(&str, &str)]) -> Arc<Lines> {
        let mut values: BTreeMap<_, _> = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        values.insert("address".to_owned(), "127.0.0.1:1".to_owned());
        let request = SourceRequest {
            stream: "s".to_owned(),
            schema: Arc::new(Schema::new(vec![Field::new("id", DataType::Int64, true)])),
            projection: vec![0],
            metadata: BTreeMap::new(),
            key: vec![],
            event_time: None,
            options: Options::new("stream \"s\"", values),
            parallelism: 1,
        };
        match take_source(request).expect("options") {
            Reading::Lines(lines) => lines,
            Reading::Datagrams(_) => panic!("tcp"),
        }
    }

    /// What a connection is given piece by piece becomes, and why it ended.
    async fn read(pairs: &[(&str, &str)], pieces: &[&[u8]]) -> (Vec<i64>, Vec<(u64, String)>, Ended) {
        let (spec, (inlet, outlet)) = (lines(pairs), inbox(1 << 20, MemoryBudget::new(1 << 30)));
        let (mut peer, wire) = duplex(1 << 20);
        for piece in pieces {
            peer.write_all(piece).await.expect("open");
            tokio::task::yield_now().await;
        }
        drop(peer);
        let ended = Connection::new(&spec, &inlet, "p".into()).expect("columns").read(wire).await;
        drop(inlet);
        let (mut ids, mut dead) = (vec![], vec![]);
        for arrived in all(outlet).await {
            ids.extend_from_slice(arrived.rows.rows().column(0).as_primitive::<Int64Type>().values());
            dead.extend(arrived.dead.into_iter().map(|d| (d.line.unwrap_or_default(), d.reason)));
        }
        (ids, dead, ended)
    }

    async fn all(mut outlet: Outlet<Arrival>) -> Vec<Arrived> {
        let mut all = vec![];
        while let Some(some) = outlet.take().await {
            all.extend(some.into_iter().map(|arrival| arrival.expect("rows")));
        }
        all
    }

    #[tokio::test]
    async fn lines_are_rows_however_they_come() {
        let text = b"{\"id\":1}\n{\"id\":2}\r\n\n{\"id\":3}\n{\"id\":4}";
        for cut in 0..text.len() {
            let (ids, dead, ended) = read(&[], &[&text[..cut], &text[cut..]]).await;
            assert_eq!((ids, dead), (vec![1, 2, 3, 4], vec![]), "cut at {cut}");
            assert!(matches!(ended, Ended::Closed));
        }
    }

    #[tokio::test]
    async fn long_lines_are_passed_over() {
        let long = vec![b'x'; 200_000];
        let most = [("max_line_bytes", "20")];
        let pieces: [&[u8]; 6] = [b"{\"id\":1}\n", &long, b"\n{\"id\":2}\n", &long[..30], b"\n{\"id\":3}\n", &long];
        let (ids, dead, _) = read(&most, &pieces).await;
        assert_eq!(ids, [1, 2, 3]);
        let reason = "the line is longer than 20 bytes".to_owned();
        assert_eq!(dead, [2, 4, 6].map(|line| (line, reason.clone())));
    }

    #[tokio::test]
    async fn half_a_line_is_no_row() {
        let (ids, dead, _) = read(&[("format", "csv")], &[b"1\n2\n34"]).await;
        let reason = "the connection ended within the line: closed by the other side".to_owned();
        assert_eq!((ids, dead), (vec![1, 2], vec![(3, reason)]));
        let (ids, dead, _) = read(&[], &[b"{\"id\":1}\n{\"id\":"]).await;
        assert_eq!((ids, dead.len()), (vec![1], 1));
    }

    #[tokio::test]
    async fn who_gives_no_whole_line_is_left() {
        let patience = Duration::from_millis(500);
        let spec = lines(&[("connection_timeout", "500 ms")]);
        let (inlet, outlet) = inbox(1 << 20, MemoryBudget::new(1 << 30));
        let (mut peer, wire) = duplex(100);
        let drip = async move {
            let _ = peer.write_all(b"{\"id\":1}\n").await;
            // Bytes do not keep it alive.
            while peer.write_all(b"{").await.is_ok() {
                sleep(Duration::from_millis(20)).await;
            }
        };
        let dripping = tokio::spawn(drip);
        let since = Instant::now();
        let ended = Connection::new(&spec, &inlet, "p".into()).expect("columns").read(wire).await;
        assert!(matches!(ended, Ended::Silent(time) if time == patience), "{ended}");
        assert!(since.elapsed() >= patience);
        dripping.await.expect("the wire is gone");
        drop(inlet);
        let arrived = all(outlet).await;
        assert_eq!(arrived.iter().map(|a| a.rows.num_rows()).sum::<usize>(), 1);
        let dead = arrived.iter().flat_map(|a| &a.dead).next().expect("half a line");
        assert_eq!(dead.reason, "the connection ended within the line: no whole line for 0.5 s");
    }

    #[tokio::test]
    async fn a_line_may_end_the_job() {
        let (spec, (inlet, mut outlet)) = (lines(&[("on_error", "fail")]), inbox(100, MemoryBudget::new(1 << 30)));
        let (mut peer, wire) = duplex(100);
        peer.write_all(b"{\"id\":1}\n{\"id\":\"x\"}\n").await.expect("open");
        let ended = Connection::new(&spec, &inlet, "p".into()).expect("columns").read(wire).await;
        assert!(matches!(ended, Ended::Unreadable));
        let arrivals = outlet.take().await.expect("something");
        let e = arrivals.into_iter().find_map(Result::err).expect("an error");
        assert!(e.message().starts_with("tcp 127.0.0.1:1 from p, line 2: "), "{e}");
    }
}
