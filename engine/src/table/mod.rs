//! Streams kept as Parquet: the committed log of a stream, the sink that writes it, the source that
//! follows it.
//!
//! ```text
//! <store>/streams/<name>/0000000042-000.parquet      what checkpoint 42 committed, by task
//! <store>/jobs/<id>/pending/…                        what has been staged and not yet committed
//! ```
//! A stream's folder holds committed files only, so that any tool may read it. Files are written to
//! `pending`, named in the manifest, and moved when the manifest is there; a crash in between is made
//! good at the next start. The log counts rows through all files: a row's number is its offset.

pub mod dead_letters;
mod log;
mod parquet_file;
mod sink;
mod source;
#[cfg(test)]
mod tests;

pub use log::{FileEntry, Snapshot, StreamLog};
pub use parquet_file::{check_storable, check_writable, file_schema, open_rows};
pub use sink::{TableSink, schema_of_files};
pub use source::StreamSource;
