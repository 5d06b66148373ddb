//! Where things lie and how much the engine may use, from options, the environment and the machine.

use std::path::PathBuf;
use std::time::Duration;

use millstream_engine::memory::default_limit;
use millstream_sql::rights::Key;
use millstream_sql::{Config, Result};

use crate::args::EngineArgs;
use crate::report;

/// The store when neither an option nor the environment names one.
pub(crate) const DEFAULT_STORE: &str = "./millstream-data";

/// The store to open: the option, else `MILLSTREAM_STORE`, else a folder in the working directory.
pub(crate) fn store(option: Option<String>) -> String {
    option
        .or_else(|| std::env::var("MILLSTREAM_STORE").ok().filter(|s| !s.is_empty()))
        .unwrap_or_else(|| DEFAULT_STORE.to_owned())
}

/// How to open `store`.
///
/// Errors where the key for secrets cannot be read.
pub(crate) fn engine(store: String, args: &EngineArgs) -> Result<Config> {
    let cores = || std::thread::available_parallelism().map_or(1, usize::from);
    Ok(Config {
        store,
        parallelism: args.parallelism.map_or_else(cores, usize::from),
        memory_limit: args.memory_limit.unwrap_or_else(default_limit),
        checkpoint_interval: args.checkpoint_interval.unwrap_or(Duration::from_secs(1)),
        start_jobs: true,
        connectors: millstream_flight::connectors(millstream_engine::connector::built_in()),
        reach: None,
        key: key(args)?,
        insecure: args.insecure,
        nodes: None,
    })
}

/// The key for secrets: in the file that is named, else in the environment.
fn key(args: &EngineArgs) -> Result<Option<Key>> {
    if let Some(file) = &args.key_file {
        let text = std::fs::read_to_string(file);
        let text = text.map_err(|e| report::io_error(format_args!("cannot read \"{}\"", file.display()), e))?;
        return Key::of(&text).map(Some);
    }
    std::env::var("MILLSTREAM_KEY").ok().filter(|text| !text.is_empty()).map(|text| Key::of(&text)).transpose()
}

/// The file that keeps what was typed, outside of any store so that it outlives them.
pub(crate) fn history_file() -> Option<PathBuf> {
    let set = |name| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let state = set("XDG_STATE_HOME")
        .or_else(|| set("HOME").map(|home| home.join(".local/state")))
        .or_else(|| set("LOCALAPPDATA"))?;
    Some(state.join("millstream").join("history"))
}
