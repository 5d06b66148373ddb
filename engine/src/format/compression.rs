//! Compression around a file: gzip and zstd.

use std::io::{BufReader, Read, Write};

use crate::error::Result;

/// How the bytes of a file are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// RFC 1952; several members one after the other are one stream.
    Gzip,
    /// RFC 8878.
    Zstd,
}

impl Compression {
    /// What a file name's ending says, and the name without that ending.
    pub fn of_name(name: &str) -> (Self, &str) {
        let lower = name.to_ascii_lowercase();
        for (ending, compression) in [
            (".gz", Compression::Gzip),
            (".gzip", Compression::Gzip),
            (".zst", Compression::Zstd),
            (".zstd", Compression::Zstd),
        ] {
            if lower.ends_with(ending) {
                return (compression, &name[..name.len() - ending.len()]);
            }
        }
        (Compression::None, name)
    }

    /// Its name as an option's value.
    pub fn name(self) -> &'static str {
        match self {
            Compression::None => "none",
            Compression::Gzip => "gzip",
            Compression::Zstd => "zstd",
        }
    }

    /// The ending it adds to file names.
    pub fn ending(self) -> &'static str {
        match self {
            Compression::None => "",
            Compression::Gzip => ".gz",
            Compression::Zstd => ".zst",
        }
    }

    /// The decompressed bytes of `input`.
    pub fn reader(self, input: impl Read + Send + 'static) -> Result<Box<dyn Read + Send>> {
        Ok(match self {
            Compression::None => Box::new(input),
            Compression::Gzip => {
                Box::new(flate2::bufread::MultiGzDecoder::new(BufReader::with_capacity(128 << 10, input)))
            }
            Compression::Zstd => Box::new(zstd::Decoder::new(input)?),
        })
    }

    /// `bytes` compressed as a whole stream of its own; such streams may follow one another.
    pub fn compress(self, bytes: Vec<u8>) -> Result<Vec<u8>> {
        Ok(match self {
            Compression::None => bytes,
            Compression::Gzip => {
                let mut out = flate2::write::GzEncoder::new(vec![], flate2::Compression::default());
                out.write_all(&bytes)?;
                out.finish()?
            }
            Compression::Zstd => zstd::encode_all(bytes.as_slice(), 3)?,
        })
    }
}
