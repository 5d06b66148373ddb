//! Streams kept as Parquet: the committed log of a stream, the sink that writes it, the source that
//! follows it.
//!
//! ```text
//! <store>/jobs/<id>/files/0000000042-000-g3.parquet  what checkpoint 42 added, by task; the third start of the job wrote it
//! <store>/jobs/<id>/files/0000000042-000-m0000000051-g3.parquet   it and its neighbours merged, for 51 or later
//! <store>/jobs/<id>/base/                            what a changelog adds up to as of some commit, see `base.rs`
//! <store>/live/<name>.json                           which of them count, for other tools
//! <store>/streams/<name>/…parquet                    the same files again, by hard links or as copies: those that count
//! ```
//! A file counts once a manifest names it. What it holds never changes; one that is no longer named stays for
//! a while, for those that still read it. The log counts rows through all files: a row's number is its offset,
//! and no merge changes it.

mod base;
mod boundaries;
mod committed;
mod content;
mod copied;
pub mod dead_letters;
mod epochs;
mod following;
mod handout;
mod layout;
mod log;
mod merge;
mod parquet_file;
mod reader;
mod renewal;
mod retention;
mod shown;
mod sink;
mod source;
mod staged;
#[cfg(test)]
mod tests;

pub use base::Upkeep;
pub use committed::FileEntry;
pub use content::{Content, ContentSink};
pub use following::{followed, follower};
pub use layout::remove_shown;
pub use log::{Hold, Snapshot, StreamLog};
pub use parquet_file::open_rows;
pub use retention::Retention;
pub use sink::{TableSink, schema_of_files};
pub use source::StreamSource;
