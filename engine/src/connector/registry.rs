//! The connectors by name.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;

use crate::connector::options::Options;
use crate::connector::{Sink, Source, blackhole, datagen, file, nexmark, stdio};
use crate::error::{Error, Result};

/// A scan to open.
#[derive(Clone, Debug)]
pub struct SourceRequest {
    /// The stream's name.
    pub stream: String,
    /// All its columns, as declared (or as [`infer_schema`] found).
    pub schema: SchemaRef,
    /// The columns to read, in this order; the source yields exactly these.
    pub projection: Vec<usize>,
    /// The column of `schema` with the event time.
    pub event_time: Option<usize>,
    /// `WITH (…)`, without `connector`.
    pub options: Options,
    /// How many tasks will read.
    pub parallelism: usize,
}

/// A sink to open.
#[derive(Clone, Debug)]
pub struct SinkRequest {
    /// The stream's name.
    pub stream: String,
    /// The columns written.
    pub schema: SchemaRef,
    /// Whether rows can be taken back.
    pub retracts: bool,
    /// `WITH (…)`, without `connector`.
    pub options: Options,
    /// How many tasks will write.
    pub parallelism: usize,
}

/// The names of the connectors that can be read.
pub const SOURCES: [&str; 4] = ["file", "stdin", "nexmark", "datagen"];
/// The names of the connectors that can be written.
pub const SINKS: [&str; 3] = ["file", "stdout", "blackhole"];

/// Makes what `options` of connector `name` say relative to the present folder absolute, before they are kept. Gives
/// what is found out by that: for [`Options::with_found`].
pub fn fix_paths(name: &str, options: &mut BTreeMap<String, String>) -> BTreeMap<String, String> {
    match name {
        "file" => file::fix_path(options),
        _ => BTreeMap::new(),
    }
}

/// What `options` of connector `name` leave to be found out, so that it is found out once: for
/// [`Options::with_found`].
pub fn find_options(name: &str, options: &Options) -> Result<BTreeMap<String, String>> {
    match name {
        "file" => file::find_options(options),
        _ => Ok(BTreeMap::new()),
    }
}

/// Checks, once and before anything is made, that connector `name` has what `request` asks for: its files may be
/// opened. What a source that was checked finds later is input, and no reason to refuse the stream.
pub fn check_source(name: &str, request: SourceRequest) -> Result<()> {
    match name {
        "file" => file::check_source(request),
        other => open_source(other, request).map(drop),
    }
}

/// Opens the source of connector `name`. Errors name what is wrong with the options.
pub fn open_source(name: &str, request: SourceRequest) -> Result<Arc<dyn Source>> {
    match name {
        "file" => file::open_source(request),
        "stdin" => stdio::open_source(request),
        "nexmark" => nexmark::open_source(request),
        "datagen" => datagen::open_source(request),
        "stdout" | "blackhole" => Err(Error::invalid(format!("connector '{name}' is written to, not read"))
            .with_hint("Give it a query: CREATE STREAM … WITH (connector = …) AS SELECT ….")),
        other => Err(unknown(other, &SOURCES)),
    }
}

/// Opens the sink of connector `name`.
pub fn open_sink(name: &str, request: SinkRequest) -> Result<Arc<dyn Sink>> {
    match name {
        "file" => file::open_sink(request),
        "stdout" => stdio::open_sink(request),
        "blackhole" => blackhole::open_sink(request),
        "stdin" | "nexmark" | "datagen" => Err(Error::invalid(format!("connector '{name}' is read, not written to"))),
        other => Err(unknown(other, &SINKS)),
    }
}

/// The columns that connector `name` would yield where the statement declares none: `nexmark` has its
/// own, `file` reads them from the file.
pub fn infer_schema(name: &str, options: Options) -> Result<SchemaRef> {
    match name {
        "file" => file::infer_schema(options),
        "nexmark" => nexmark::infer_schema(options),
        "stdin" | "datagen" => Err(Error::invalid(format!("{} declares no columns", options.owner()))
            .with_hint(format!("Connector '{name}' needs them: CREATE STREAM s (a BIGINT, …) WITH (…)."))),
        other => Err(unknown(other, &SOURCES)),
    }
}

fn unknown(name: &str, known: &[&str]) -> Error {
    Error::invalid(format!("there is no connector '{name}'")).with_hint(format!("Write one of: {}.", known.join(", ")))
}
