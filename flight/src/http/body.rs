//! The body of a request: taken whole, within bounds of size and time, and read off the asynchronous threads.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use axum::body::Body;
use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH};
use axum::http::{HeaderMap, StatusCode};
use bytes::{Buf, Bytes};
use http_body_util::BodyExt;
use millstream_engine::format::compression::Compression;
use millstream_engine::memory::MemoryAccount;
use ring::digest::{Context, SHA256};

use super::Server;
use super::answer::Answer;

/// A body that has come whole.
pub(super) struct Received {
    pieces: VecDeque<Bytes>,
    compression: Compression,
    unpacked_bytes: usize,
    _held: MemoryAccount,
}

/// Takes `body` in.
pub(super) async fn receive(server: &Server, headers: &HeaderMap, mut body: Body) -> Result<Received, Answer> {
    let options = &server.options;
    let compression = compression(headers)?;
    let most = options.body_bytes;
    let too_large = || Answer::too_large(format!("the body is longer than {most} bytes"));
    let announced = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    if announced.is_some_and(|bytes| bytes > most) {
        return Err(too_large());
    }
    let (mut held, mut pieces, mut bytes) =
        (server.millstream.budget().account("the body of a request"), VecDeque::new(), 0);
    let begun = Instant::now();
    loop {
        let left = options.body_time.saturating_sub(begun.elapsed()).min(options.body_silence);
        let frame = tokio::time::timeout(left, body.frame()).await.map_err(|_| {
            Answer::new(StatusCode::REQUEST_TIMEOUT, "invalid", "the body does not come, or too slowly")
                .hint("Send it without pauses, or in smaller requests.")
        })?;
        let Some(frame) = frame else { break };
        let frame = frame.map_err(|_| Answer::invalid("the body broke off"))?;
        // Trailers say nothing here.
        let Ok(piece) = frame.into_data() else { continue };
        bytes += piece.len();
        if bytes > most {
            return Err(too_large());
        }
        held.resize_large(bytes)?;
        pieces.push_back(piece);
    }
    Ok(Received { pieces, compression, unpacked_bytes: options.unpacked_bytes, _held: held })
}

fn compression(headers: &HeaderMap) -> Result<Compression, Answer> {
    let mut all = headers.get_all(CONTENT_ENCODING).iter();
    let said = match (all.next(), all.next()) {
        (None, _) => return Ok(Compression::None),
        (Some(one), None) => one.to_str().unwrap_or_default().trim().to_ascii_lowercase(),
        (Some(_), Some(_)) => "several".to_owned(),
    };
    match said.as_str() {
        "" | "identity" => Ok(Compression::None),
        "gzip" | "x-gzip" => Ok(Compression::Gzip),
        other => {
            let message = format!("content encoding '{other}' is not supported");
            Err(Answer::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported", message)
                .hint("Send the body as it is, or with gzip."))
        }
    }
}

/// Whether a body was longer than is taken, and not read further.
#[derive(Clone, Default)]
pub(super) struct Over(Arc<AtomicBool>);

impl Over {
    fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl Received {
    /// How many bytes came.
    pub(super) fn bytes(&self) -> usize {
        self.pieces.iter().map(Bytes::len).sum()
    }

    /// How many bytes it may unpack to.
    pub(super) fn unpacked_bytes(&self) -> usize {
        self.unpacked_bytes
    }

    /// Reads it, unpacked, no further than is taken.
    pub(super) fn reader(&self) -> Result<(Box<dyn Read + Send>, Over), Answer> {
        let over = Over::default();
        let input = self.compression.reader(Pieces(self.pieces.clone()))?;
        Ok((Box::new(Bounded { input, left: self.unpacked_bytes, over: over.clone() }), over))
    }

    /// All of it as text. Takes long where it is large.
    pub(super) fn text(&self) -> Result<String, Answer> {
        let (mut input, over) = self.reader()?;
        let mut text = vec![];
        input.read_to_end(&mut text).map_err(|e| self.unreadable(&over, e.into()))?;
        String::from_utf8(text).map_err(|_| Answer::invalid("the body is not UTF-8"))
    }

    /// The beginning of a hash over `salt` and the content, unpacked, in hexadecimal. Takes long where it is large.
    pub(super) fn digest(&self, salt: &str) -> Result<String, Answer> {
        let (mut input, over) = self.reader()?;
        let mut digest = Context::new(&SHA256);
        digest.update(salt.as_bytes());
        let mut some = vec![0; 64 << 10];
        loop {
            match input.read(&mut some) {
                Ok(0) => break,
                Ok(n) => digest.update(&some[..n]),
                Err(e) => return Err(self.unreadable(&over, e.into())),
            }
        }
        Ok(digest.finish().as_ref().iter().take(16).map(|byte| format!("{byte:02x}")).collect())
    }

    /// What reading it, or what it holds, failed with.
    pub(super) fn unreadable(&self, over: &Over, e: millstream_engine::Error) -> Answer {
        if over.is_set() {
            return Answer::too_large(format!("the body unpacks to more than {} bytes", self.unpacked_bytes));
        }
        match (e.kind(), self.compression) {
            // All of it is there: only its packing can be at fault.
            (millstream_engine::ErrorKind::Unavailable, Compression::Gzip) => {
                Answer::invalid(format!("the body cannot be unpacked: {}", e.message()))
            }
            _ => e.into(),
        }
    }
}

/// Pieces one after the other.
struct Pieces(VecDeque<Bytes>);

impl Read for Pieces {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.0.front().is_some_and(Bytes::is_empty) {
            self.0.pop_front();
        }
        let Some(first) = self.0.front_mut() else { return Ok(0) };
        let n = first.len().min(out.len());
        first.copy_to_slice(&mut out[..n]);
        Ok(n)
    }
}

/// Reads no further than is taken.
struct Bounded {
    input: Box<dyn Read + Send>,
    left: usize,
    over: Over,
}

impl Read for Bounded {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        // Whatever is wrong with the bytes, it is not what they say.
        let n = self.input.read(out).map_err(|e| io::Error::other(e.to_string()))?;
        if n > self.left {
            self.over.0.store(true, Ordering::Relaxed);
            return Err(io::Error::other("too long"));
        }
        self.left -= n;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use millstream_engine::memory::MemoryBudget;

    fn received(pieces: &[&[u8]], compression: Compression) -> Received {
        let pieces = pieces.iter().map(|piece| Bytes::copy_from_slice(piece)).collect();
        let held = MemoryBudget::new(1 << 30).account("a body");
        Received { pieces, compression, unpacked_bytes: 1 << 20, _held: held }
    }

    fn digest(of: &Received, salt: &str) -> String {
        of.digest(salt).unwrap()
    }

    #[test]
    fn the_hash_is_of_the_content_however_it_comes() {
        let whole = received(&[b"abcdef"], Compression::None);
        let parts = received(&[b"ab", b"", b"cdef"], Compression::None);
        let packed = Compression::Gzip.compress(b"abcdef".to_vec()).unwrap();
        let packed = received(&[&packed[..5], &packed[5..]], Compression::Gzip);
        assert_eq!(digest(&whole, "x"), digest(&parts, "x"));
        assert_eq!(digest(&whole, "x"), digest(&packed, "x"));
        assert_ne!(digest(&whole, "x"), digest(&whole, "y"));
        assert_eq!(digest(&whole, "x").len(), 32);
        assert_eq!(packed.text().unwrap(), "abcdef");
    }

    #[test]
    fn what_unpacks_to_too_much_is_not_unpacked() {
        let packed = Compression::Gzip.compress(vec![b' '; (1 << 20) + 1]).unwrap();
        assert!(packed.len() < 10_000);
        let answer = received(&[&packed], Compression::Gzip).text().unwrap_err();
        assert_eq!(answer.status(), StatusCode::PAYLOAD_TOO_LARGE);
        let fits = Compression::Gzip.compress(vec![b' '; 1 << 20]).unwrap();
        assert_eq!(received(&[&fits], Compression::Gzip).text().unwrap().len(), 1 << 20);
        let answer = received(&[&packed[..packed.len() / 2]], Compression::Gzip).text().unwrap_err();
        assert_eq!(answer.status(), StatusCode::BAD_REQUEST);
        assert!(received(&[b"nonsense"], Compression::Gzip).text().is_err());
    }
}
