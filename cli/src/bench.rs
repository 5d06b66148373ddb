//! Benchmarks.

use std::process::ExitCode;

use millstream_sql::{ErrorKind, Result};

use crate::args::BenchArgs;
use crate::report;

/// Runs a benchmark and prints its figures.
pub(crate) async fn run(_args: BenchArgs) -> Result<ExitCode> {
    Err(report::fail(ErrorKind::Unsupported, "this build has no benchmarks"))
}
