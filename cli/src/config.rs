//! Where things lie and how much the engine may use, from options, the environment and the machine.

use std::path::PathBuf;
use std::time::Duration;

use millstream_sql::Config;
use millstream_sql::session::checkpoint_interval;

use crate::args::EngineArgs;

/// The store when neither an option nor the environment names one.
pub(crate) const DEFAULT_STORE: &str = "./millstream-data";
/// The share of the machine's memory for state and queues; the rest is for queries, the page cache and others.
const MEMORY_PERCENT: u64 = 60;
/// When the machine does not tell its memory.
const FALLBACK_MEMORY: u64 = 2 << 30;

/// The store to open: the option, else `MILLSTREAM_STORE`, else a folder in the working directory.
pub(crate) fn store(option: Option<String>) -> String {
    option
        .or_else(|| std::env::var("MILLSTREAM_STORE").ok().filter(|s| !s.is_empty()))
        .unwrap_or_else(|| DEFAULT_STORE.to_owned())
}

/// How to open `store`.
pub(crate) fn engine(store: String, args: &EngineArgs) -> Config {
    let cores = || std::thread::available_parallelism().map_or(1, usize::from);
    Config {
        store,
        parallelism: args.parallelism.map_or_else(cores, usize::from),
        memory_limit: args.memory_limit.unwrap_or_else(default_memory),
        checkpoint_interval: args.checkpoint_interval.unwrap_or(Duration::from_secs(1)),
        start_jobs: true,
        connectors: millstream_engine::connector::built_in(),
    }
}

/// The file that keeps what was typed, outside of any store so that it outlives them.
pub(crate) fn history_file() -> Option<PathBuf> {
    let set = |name| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let state = set("XDG_STATE_HOME")
        .or_else(|| set("HOME").map(|home| home.join(".local/state")))
        .or_else(|| set("LOCALAPPDATA"))?;
    Some(state.join("millstream").join("history"))
}

fn default_memory() -> usize {
    let machine = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| meminfo_total(&text));
    // a container's limit is less than the machine has
    let group = std::fs::read_to_string("/sys/fs/cgroup/memory.max").ok().and_then(|text| text.trim().parse().ok());
    let total: u64 = [machine, group].into_iter().flatten().min().unwrap_or(FALLBACK_MEMORY);
    usize::try_from(total / 100 * MEMORY_PERCENT).unwrap_or(usize::MAX)
}

fn meminfo_total(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().trim_end_matches("kB").trim().parse::<u64>().ok().map(|kb| kb * 1024)
}

/// A size such as `4GB` (powers of ten), `4GiB` (powers of two), `512m` or a plain number of bytes.
pub(crate) fn parse_bytes(text: &str) -> Result<usize, String> {
    let (number, unit) = split_unit(text);
    let scale: f64 = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1.0,
        "k" | "kb" => 1e3,
        "m" | "mb" => 1e6,
        "g" | "gb" => 1e9,
        "t" | "tb" => 1e12,
        "kib" => 1024.0,
        "mib" => 1024.0 * 1024.0,
        "gib" => 1024.0 * 1024.0 * 1024.0,
        "tib" => 1024.0 * 1024.0 * 1024.0 * 1024.0,
        _ => return Err(format!("`{text}` is not a size: write it as 512MB or 4GB")),
    };
    let bytes = number.parse::<f64>().ok().map(|n| n * scale).filter(|b| b.is_finite() && *b >= 1.0);
    bytes.map(|b| b as usize).ok_or_else(|| format!("`{text}` is not a size: write it as 512MB or 4GB"))
}

/// A time between checkpoints such as `500ms`, `10s`, `2min`.
pub(crate) fn parse_interval(text: &str) -> Result<Duration, String> {
    checkpoint_interval(text).map_err(|e| e.message().to_owned())
}

fn split_unit(text: &str) -> (&str, &str) {
    let text = text.trim();
    let at = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(at);
    (number.trim(), unit.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!(parse_bytes("4GB"), Ok(4_000_000_000));
        assert_eq!(parse_bytes("4GiB"), Ok(4 << 30));
        assert_eq!(parse_bytes("1.5 k"), Ok(1500));
        assert_eq!(parse_bytes("100"), Ok(100));
        for wrong in ["", "GB", "-1GB", "4XB", "0", "nan"] {
            assert!(parse_bytes(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn times() {
        assert_eq!(parse_interval("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_interval("2min"), Ok(Duration::from_secs(120)));
        for wrong in ["0s", "1ms", "1 fortnight"] {
            assert_eq!(parse_interval(wrong), Err(format!("'{wrong}' is not a length of time from 10 ms on")));
        }
    }

    #[test]
    fn the_machine_tells_its_memory() {
        assert_eq!(meminfo_total("MemTotal:       16384 kB\nMemFree: 1 kB\n"), Some(16 << 20));
        assert!(default_memory() > 0);
    }
}
