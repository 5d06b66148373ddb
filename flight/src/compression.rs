//! Compressed rows: a client asks for them by a header, and the bodies of the messages with rows are compressed, as Arrow
//! IPC has it. Any client can read them that knows Arrow's IPC.

use arrow::error::ArrowError;
use arrow::ipc::CompressionType;
use arrow::ipc::writer::IpcWriteOptions;
use tonic::Status;
use tonic::metadata::{Ascii, MetadataMap, MetadataValue};

/// The header by which a client asks.
pub(crate) const HEADER: &str = "x-arrow-compression";

/// How rows are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// Quickly.
    Lz4,
    /// Well.
    Zstd,
}

impl Compression {
    /// What the options and the header call them.
    pub const NAMES: &[&str] = &["none", "lz4", "zstd"];

    /// The one that is called `name`.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "none" => Some(Compression::None),
            "lz4" => Some(Compression::Lz4),
            "zstd" => Some(Compression::Zstd),
            _ => None,
        }
    }

    /// The value of the header, where one is needed.
    pub(crate) fn header(self) -> Option<MetadataValue<Ascii>> {
        match self {
            Compression::None => None,
            Compression::Lz4 => Some(MetadataValue::from_static("lz4")),
            Compression::Zstd => Some(MetadataValue::from_static("zstd")),
        }
    }

    /// What a request asks for.
    pub(crate) fn asked(metadata: &MetadataMap) -> Result<Self, Status> {
        let Some(name) = metadata.get(HEADER) else { return Ok(Compression::None) };
        let name = name.to_str().unwrap_or_default();
        Compression::named(name).ok_or_else(|| {
            let known = Compression::NAMES.join(", ");
            Status::invalid_argument(format!("there is no compression \"{name}\"\nhint: {HEADER} is one of {known}."))
        })
    }

    /// How messages are written.
    pub(crate) fn write_options(self) -> Result<IpcWriteOptions, ArrowError> {
        let compression = match self {
            Compression::None => None,
            Compression::Lz4 => Some(CompressionType::LZ4_FRAME),
            Compression::Zstd => Some(CompressionType::ZSTD),
        };
        IpcWriteOptions::default().try_with_compression(compression)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_headers_agree() {
        for name in Compression::NAMES {
            let compression = Compression::named(name).expect("is known");
            let mut metadata = MetadataMap::new();
            compression.header().map(|value| metadata.insert(HEADER, value));
            assert_eq!(Compression::asked(&metadata).expect("is known"), compression);
        }
        let mut metadata = MetadataMap::new();
        metadata.insert(HEADER, MetadataValue::from_static("brotli"));
        assert!(Compression::asked(&metadata).expect_err("is not known").message().contains("none, lz4, zstd"));
    }
}
