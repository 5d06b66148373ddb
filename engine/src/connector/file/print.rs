//! What tells a file from another: its place on the disk, and a fingerprint of what was read of it.
//!
//! A place (inode and device) is a hint: it stays when a file is renamed, but changes when a disk is mounted anew
//! and is given to other files in time. The fingerprint decides: a hash of the beginning and one of the last bytes
//! before the place up to which the file was taken, both of bytes that were there when it was.

use std::fs::{File, Metadata};
use std::io::{self, ErrorKind, Read};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use crate::format::compression::Compression;

/// How much of the beginning is hashed.
const HEAD: u64 = 1024;
/// How much before the place up to which a file was taken.
const TAIL: u64 = 256;

/// Where a file is on its disk; it keeps that under another name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct Identity {
    /// Device and number on the device.
    place: Option<(u64, u64)>,
    /// Numbers are given anew when a file is gone. Nanoseconds since 1970.
    created: Option<u64>,
}

impl Identity {
    /// The number on the device.
    pub(super) fn number(self) -> Option<u64> {
        self.place.map(|p| p.1)
    }
}

/// A file as it was at a moment: while this stays, nothing has happened to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Stamp {
    pub(super) identity: Identity,
    pub(super) size: u64,
    pub(super) modified: Option<SystemTime>,
    /// When its names or rights were changed last.
    changed: (i64, i64),
}

impl Stamp {
    pub(super) fn of(metadata: &Metadata) -> Self {
        #[cfg(unix)]
        let (place, changed) = {
            use std::os::unix::fs::MetadataExt as _;
            (Some((metadata.dev(), metadata.ino())), (metadata.ctime(), metadata.ctime_nsec()))
        };
        #[cfg(not(unix))]
        let (place, changed) = (None, (0, 0));
        let since = |t: SystemTime| t.duration_since(UNIX_EPOCH).ok().and_then(|d| u64::try_from(d.as_nanos()).ok());
        let created = metadata.created().ok().and_then(since);
        let identity = Identity { place, created };
        Stamp { identity, size: metadata.len(), modified: metadata.modified().ok(), changed }
    }
}

/// How many names `file` has on its disk.
pub(super) fn links(metadata: &Metadata) -> u64 {
    #[cfg(unix)]
    return std::os::unix::fs::MetadataExt::nlink(metadata);
    #[cfg(not(unix))]
    return 1;
}

/// Reads an open file from a place of its own, so that several can.
#[derive(Debug)]
pub(super) struct ReadAt {
    pub(super) file: Arc<File>,
    pub(super) at: u64,
}

impl Read for ReadAt {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        #[cfg(unix)]
        let n = std::os::unix::fs::FileExt::read_at(&*self.file, buffer, self.at)?;
        #[cfg(windows)]
        let n = std::os::windows::fs::FileExt::seek_read(&*self.file, buffer, self.at)?;
        self.at += n as u64;
        Ok(n)
    }
}

/// A fingerprint. Of an empty part it says nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Print {
    /// How many bytes of the beginning are hashed, and their hash.
    head: (u64, u64),
    /// The place before which the last bytes are hashed, and their hash.
    tail: (u64, u64),
}

/// How a file compares with a fingerprint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Likeness {
    /// It begins with what the fingerprint was taken of.
    Same,
    /// It ends before that, and agrees as far as it goes.
    Short,
    Other,
}

impl Print {
    /// Of the first `at` bytes of `file`, less where it is shorter.
    pub(super) fn of(file: &Arc<File>, at: u64) -> io::Result<Self> {
        let mut bytes = Bytes::plain(file.clone());
        let head = bytes.piece(0, HEAD.min(at))?;
        let from = at.saturating_sub(TAIL);
        let tail = match head.get(usize::try_from(from).unwrap_or(usize::MAX)..) {
            // Of a small file both have been read.
            Some(tail) if at <= HEAD => tail.to_vec(),
            _ => bytes.piece(from, TAIL.min(at))?,
        };
        let end = from + tail.len() as u64;
        Ok(Print { head: (head.len() as u64, xxh3_64(&head)), tail: (end, xxh3_64(&tail)) })
    }

    /// A fingerprint that no file has, of one of `at` bytes.
    pub(super) fn none(at: u64) -> Self {
        Print { head: (u64::MAX, 0), tail: (at, 0) }
    }

    /// The place up to which it was taken.
    pub(super) fn at(&self) -> u64 {
        self.tail.0
    }

    /// Whether `file`, which is not compressed, can be read and begins with what it was taken of.
    pub(super) fn is_of(&self, file: &Arc<File>) -> bool {
        matches!(self.compare(file, Compression::None), Ok(Likeness::Same))
    }

    /// Compares. `file` is compressed as it says; the fingerprint is of the bytes without that.
    pub(super) fn compare(&self, file: &Arc<File>, compression: Compression) -> io::Result<Likeness> {
        let mut bytes = match compression {
            Compression::None => Bytes::plain(file.clone()),
            _ => match compression.reader(ReadAt { file: file.clone(), at: 0 }) {
                Ok(input) => Bytes { input: Input::Inflated(input, 0) },
                Err(_) => return Ok(Likeness::Other),
            },
        };
        match self.compare_bytes(&mut bytes) {
            Err(e) if compression != Compression::None && e.kind() == ErrorKind::UnexpectedEof => Ok(Likeness::Short),
            Err(_) if compression != Compression::None => Ok(Likeness::Other),
            likeness => likeness,
        }
    }

    fn compare_bytes(&self, bytes: &mut Bytes) -> io::Result<Likeness> {
        let (length, hash) = self.head;
        if length > HEAD {
            return Ok(Likeness::Other);
        }
        if self.at() == 0 {
            return Ok(Likeness::Same);
        }
        let head = bytes.piece(0, length)?;
        if (head.len() as u64) < length {
            return Ok(Likeness::Short);
        }
        if xxh3_64(&head) != hash {
            return Ok(Likeness::Other);
        }
        let (at, hash) = self.tail;
        if at <= length {
            return Ok(Likeness::Same);
        }
        let from = at.saturating_sub(TAIL);
        let known = head.get(usize::try_from(from).unwrap_or(usize::MAX)..).unwrap_or_default();
        // A stream that is inflated does not go back.
        let mut tail = known.to_vec();
        let more = bytes.piece(from + known.len() as u64, at - from - known.len() as u64)?;
        tail.extend(more);
        Ok(match xxh3_64(&tail) == hash {
            true => Likeness::Same,
            false if (tail.len() as u64) < at - from => Likeness::Short,
            false => Likeness::Other,
        })
    }
}

/// The bytes of a file, read in pieces of rising places.
struct Bytes {
    input: Input,
}

enum Input {
    Plain(Arc<File>),
    /// With the place where it stands.
    Inflated(Box<dyn Read + Send>, u64),
}

impl Bytes {
    fn plain(file: Arc<File>) -> Self {
        Bytes { input: Input::Plain(file) }
    }

    /// `length` bytes at `from`, fewer at the end of the file.
    fn piece(&mut self, from: u64, length: u64) -> io::Result<Vec<u8>> {
        // With room for all of it, one call of the system is enough.
        let mut piece = Vec::with_capacity(usize::try_from(length).unwrap_or_default().min(1 << 16));
        match &mut self.input {
            Input::Plain(file) => {
                ReadAt { file: file.clone(), at: from }.take(length).read_to_end(&mut piece)?;
            }
            Input::Inflated(input, at) => {
                *at += io::copy(&mut input.by_ref().take(from.saturating_sub(*at)), &mut io::sink())?;
                *at += input.take(length).read_to_end(&mut piece)? as u64;
            }
        }
        Ok(piece)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(bytes: &[u8]) -> Arc<File> {
        let mut file = tempfile::tempfile().expect("a temporary file");
        io::Write::write_all(&mut file, bytes).expect("writable");
        Arc::new(file)
    }

    fn text(n: usize) -> Vec<u8> {
        (0..n).flat_map(|i| format!("line {i}\n").into_bytes()).collect()
    }

    #[test]
    fn a_fingerprint_knows_what_begins_with_it() {
        for lines in [1, 3, 100, 150, 2000] {
            let bytes = text(lines);
            let at = bytes.len() as u64;
            let print = Print::of(&file(&bytes), at).expect("readable");
            assert_eq!(print.at(), at);
            let like = |bytes: &[u8]| print.compare(&file(bytes), Compression::None).expect("readable");
            let zipped = |bytes: &[u8], cut: usize| {
                let mut bytes = Compression::Gzip.compress(bytes.to_vec()).expect("memory");
                bytes.truncate(bytes.len() - cut);
                print.compare(&file(&bytes), Compression::Gzip).expect("readable")
            };
            assert_eq!((like(&bytes), zipped(&bytes, 0)), (Likeness::Same, Likeness::Same), "{lines}");
            let longer = text(lines + 7);
            assert_eq!((like(&longer), zipped(&longer, 0)), (Likeness::Same, Likeness::Same));
            let shorter = &bytes[..bytes.len() - 1];
            assert_eq!((like(shorter), zipped(shorter, 0)), (Likeness::Short, Likeness::Short));
            for place in [0, bytes.len() - 1] {
                let mut other = longer.clone();
                other[place] ^= 1;
                assert_eq!((like(&other), zipped(&other, 0)), (Likeness::Other, Likeness::Other));
            }
            if lines > 2 {
                assert_eq!(zipped(&text(2), 12), Likeness::Short, "a compressed file that is being written");
            }
        }
        assert_eq!(Print::none(3).compare(&file(&text(500)), Compression::None).expect("reads"), Likeness::Other);
    }
}
