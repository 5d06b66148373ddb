//! Blocks of whole lines out of a stream of bytes.

use std::io::{self, ErrorKind, Read};

use crate::format::csv;
use crate::format::options::CsvOptions;

/// What is read at once: some thousand lines, and little enough to be decoded in about a millisecond.
const BLOCK: usize = 1 << 20;

/// A longer line is given up, since it must be held whole.
const MAX_LINE: usize = 64 << 20;

/// How much of a line that is too long goes into its dead letter.
const SHOWN: usize = 4 << 10;

/// Which lines of a stream to read: those that begin in `start..end`.
#[derive(Clone, Debug)]
pub(crate) struct Want {
    /// The first place where a line may begin. It begins at 0 or behind a newline.
    pub(crate) start: u64,
    /// No line that begins here or later.
    pub(crate) end: u64,
    /// Where records end.
    pub(crate) cut: Cut,
    /// Give lines as soon as they are there, not a block at a time.
    pub(crate) eager: bool,
    /// The name of the compression whose errors say that the bytes are damaged, not that they could not be read.
    pub(crate) fragile: Option<&'static str>,
}

/// Where records end.
#[derive(Clone, Debug)]
pub(crate) enum Cut {
    /// At each newline.
    Newline,
    /// At newlines that do not stand in a quoted value. Only streams that are read from 0.
    Record(CsvOptions),
}

impl Cut {
    /// Where the first record of `bytes` ends, behind its newline; none where that is not in them.
    pub(crate) fn first(&self, bytes: &[u8]) -> Option<usize> {
        let newline = match self {
            Cut::Newline => memchr::memchr(b'\n', bytes),
            Cut::Record(options) => csv::record_end(bytes, 0, options),
        };
        newline.map(|i| i + 1)
    }

    /// Where the last whole record of `bytes` ends, behind its newline.
    fn last(&self, bytes: &[u8]) -> Option<usize> {
        match self {
            Cut::Newline => memchr::memrchr(b'\n', bytes).map(|i| i + 1),
            Cut::Record(options) => {
                let mut end = None;
                while let Some(i) = csv::record_end(bytes, end.unwrap_or(0), options) {
                    end = Some(i + 1);
                }
                end
            }
        }
    }
}

/// Whole lines.
#[derive(Debug)]
pub(crate) struct Block {
    /// Where they begin in the stream.
    pub(crate) position: u64,
    /// The lines; the last of the stream may lack its newline.
    pub(crate) bytes: Vec<u8>,
    /// What cannot be decoded and stands behind the lines.
    pub(crate) damage: Option<Damage>,
    /// Everything before this has been read once the block is decoded.
    pub(crate) after: u64,
    /// Whether the stream ends at `after`.
    pub(crate) ended: bool,
}

/// Bytes that make no line.
#[derive(Debug)]
pub(crate) struct Damage {
    pub(crate) position: u64,
    pub(crate) reason: String,
    pub(crate) raw: Vec<u8>,
}

/// Cuts a stream into [`Block`]s. It stands at `Want::start - 1`, or at 0 where `Want::start` is 0.
pub(crate) struct Blocks {
    input: Box<dyn Read + Send>,
    want: Want,
    /// Bytes to throw away before anything else, for streams that cannot be entered in the middle.
    discard: u64,
    /// The beginning of a line whose end has not been read, at `position`.
    carry: Vec<u8>,
    position: u64,
    /// Inside a line that is not wanted.
    skipping: bool,
    /// What is skipped continues a line that was taken for whole by an earlier reader: its bytes, as far as shown.
    torn: Option<Vec<u8>>,
    started: bool,
    done: bool,
}

/// What came of filling the buffer.
enum Fill {
    More,
    End,
    Damaged(String),
}

impl Blocks {
    /// Reads `input`, which stands just before `want.start`.
    pub(crate) fn new(input: Box<dyn Read + Send>, want: Want) -> Self {
        let position = want.start;
        Blocks {
            input,
            want,
            discard: 0,
            carry: vec![],
            position,
            skipping: false,
            torn: None,
            started: false,
            done: false,
        }
    }

    /// Reads `input`, which stands at 0.
    pub(crate) fn from_start(input: Box<dyn Read + Send>, want: Want) -> Self {
        let discard = want.start.saturating_sub(1);
        Blocks { discard, ..Blocks::new(input, want) }
    }

    /// There is to be no other block.
    pub(crate) fn end(&mut self) {
        self.done = true;
    }

    /// The next block, or `None` when there are no more wanted lines.
    pub(crate) fn next(&mut self) -> io::Result<Option<Block>> {
        if self.done || !self.enter()? {
            return Ok(None);
        }
        let mut bytes = std::mem::take(&mut self.carry);
        loop {
            let fill = self.fill(&mut bytes)?;
            if self.skipping {
                let position = self.position;
                self.skip(&mut bytes);
                if let Some(raw) = self.torn.take_if(|_| !self.skipping || matches!(fill, Fill::End)) {
                    return Ok(Some(self.rest_of_line(position, raw, bytes, matches!(fill, Fill::End))));
                }
            }
            if self.position >= self.want.end {
                return Ok(self.finish(vec![], self.want.end, false));
            }
            // The last wanted line is the one with the last byte before `end` in it.
            let last = usize::try_from(self.want.end - 1 - self.position).unwrap_or(usize::MAX);
            if !self.skipping
                && matches!(self.want.cut, Cut::Newline)
                && let Some(i) = bytes.get(last..).and_then(|b| memchr::memchr(b'\n', b))
            {
                bytes.truncate(last + i + 1);
                let after = self.want.end;
                return Ok(self.finish(bytes, after, false));
            }
            match fill {
                Fill::More => {}
                Fill::End => {
                    let after = self.position + bytes.len() as u64;
                    return Ok(self.finish(bytes, after, true));
                }
                Fill::Damaged(reason) => return Ok(self.damaged(bytes, reason)),
            }
            if bytes.len() <= last
                && let Some(cut) = self.want.cut.last(&bytes)
            {
                return Ok(Some(self.cut(bytes, cut)));
            }
            if bytes.len() > MAX_LINE {
                return Ok(Some(self.give_up(bytes)));
            }
        }
    }

    /// Comes to `start`; false when the stream ends before.
    fn enter(&mut self) -> io::Result<bool> {
        if self.started {
            return Ok(true);
        }
        self.started = true;
        if self.want.start == 0 {
            return Ok(true);
        }
        let mut before = vec![];
        let read = match io::copy(&mut (&mut self.input).take(self.discard), &mut io::sink()) {
            Ok(_) => (&mut self.input).take(1).read_to_end(&mut before),
            Err(e) => Err(e),
        };
        match read {
            // Damage before the start has been told of when what is before was read.
            Err(e) if self.want.fragile.is_none() => return Err(e),
            _ => {}
        }
        self.done = before.is_empty();
        self.skipping = before.first().is_some_and(|b| *b != b'\n');
        // Units of a compressed file begin where the one before has ended.
        self.torn = (self.skipping && self.want.fragile.is_some() && self.want.end == u64::MAX).then(Vec::new);
        Ok(!self.done)
    }

    /// Adds to `bytes` what can be read.
    fn fill(&mut self, bytes: &mut Vec<u8>) -> io::Result<Fill> {
        let read = if self.want.eager {
            let old = bytes.len();
            bytes.resize(old + (BLOCK >> 4), 0);
            let read = self.input.read(&mut bytes[old..]);
            bytes.truncate(old + *read.as_ref().unwrap_or(&0));
            read
        } else {
            let wanted = BLOCK.saturating_sub(bytes.len()).max(BLOCK >> 2);
            bytes.reserve(wanted);
            (&mut self.input).take(wanted as u64).read_to_end(bytes)
        };
        match read {
            Ok(0) => Ok(Fill::End),
            Ok(_) => Ok(Fill::More),
            Err(e) if e.kind() == ErrorKind::Interrupted => Ok(Fill::More),
            Err(e) => match self.want.fragile {
                Some(name) if e.kind() == ErrorKind::UnexpectedEof => {
                    Ok(Fill::Damaged(format!("unexpected end of {name} data")))
                }
                Some(name) => Ok(Fill::Damaged(format!("damaged {name} data: {e}"))),
                None => Err(e),
            },
        }
    }

    /// Drops what belongs to the line that is not wanted.
    fn skip(&mut self, bytes: &mut Vec<u8>) {
        let end = memchr::memchr(b'\n', bytes);
        let dropped = end.map_or(bytes.len(), |i| i + 1);
        if let Some(torn) = &mut self.torn {
            torn.extend(bytes.iter().take(dropped.min(SHOWN.saturating_sub(torn.len()))));
        }
        bytes.drain(..dropped);
        self.position += dropped as u64;
        self.skipping = end.is_none();
    }

    /// Tells of what was added to a line that had been taken.
    fn rest_of_line(&mut self, position: u64, raw: Vec<u8>, carry: Vec<u8>, ended: bool) -> Block {
        self.done = ended && carry.is_empty();
        self.carry = carry;
        let reason = "the rest of a line that was taken before it was whole".to_owned();
        let damage = (!raw.is_empty()).then_some(Damage { position, reason, raw });
        Block { position: self.position, bytes: vec![], damage, after: self.position, ended: self.done }
    }

    fn finish(&mut self, bytes: Vec<u8>, after: u64, ended: bool) -> Option<Block> {
        self.done = true;
        Some(Block { position: self.position, bytes, damage: None, after, ended })
    }

    /// The lines before `cut` as a block; what is behind waits for its end.
    fn cut(&mut self, mut bytes: Vec<u8>, cut: usize) -> Block {
        self.carry.extend_from_slice(&bytes[cut..]);
        bytes.truncate(cut);
        let position = self.position;
        self.position += cut as u64;
        Block { position, bytes, damage: None, after: self.position, ended: false }
    }

    fn damaged(&mut self, mut bytes: Vec<u8>, reason: String) -> Option<Block> {
        let cut = self.want.cut.last(&bytes).unwrap_or(0);
        let raw = bytes.split_off(cut);
        let position = self.position + cut as u64;
        let after = position + raw.len() as u64;
        // After a restart behind the damage it is met again, and was told of before.
        let told = self.want.start > 0 && after <= self.want.start;
        let damage = (!told).then_some(Damage { position, reason, raw });
        self.done = true;
        Some(Block { position: self.position, bytes, damage, after, ended: true })
    }

    fn give_up(&mut self, mut bytes: Vec<u8>) -> Block {
        let position = self.position;
        self.position += bytes.len() as u64;
        self.skipping = true;
        bytes.truncate(SHOWN);
        let reason = format!("the line is longer than {} MiB", MAX_LINE >> 20);
        let damage = Some(Damage { position, reason, raw: bytes });
        Block { position, bytes: vec![], damage, after: self.position, ended: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(data: &'static [u8], start: u64, end: u64) -> Vec<u8> {
        let want = Want { start, end, cut: Cut::Newline, eager: false, fragile: None };
        let mut blocks = Blocks::from_start(Box::new(data), want);
        let mut all = vec![];
        while let Some(block) = blocks.next().expect("memory") {
            all.extend(block.bytes);
        }
        all
    }

    #[test]
    fn every_partition_reads_every_line_once() {
        let data: &'static [u8] = b"first\n\nthird line\nx\nlast without newline";
        let n = data.len() as u64;
        for a in 0..=n {
            for b in a..=n {
                let parts: Vec<u8> = [(0, a), (a, b), (b, n)]
                    .iter()
                    .flat_map(|(s, e)| if s == e { vec![] } else { read(data, *s, *e) })
                    .collect();
                assert_eq!(parts, data, "cut at {a} and {b}");
            }
        }
    }

    #[test]
    fn records_may_hold_newlines() {
        let options = CsvOptions::default();
        let data = b"a,\"x\ny\",1\nb,\"p\"\"\n\",2\nc,\"open\n";
        assert_eq!(Cut::Record(options).last(data), Some(21));
    }
}
