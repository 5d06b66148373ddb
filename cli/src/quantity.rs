//! Sizes and times as they are written on the command line.

use std::time::Duration;

use millstream_engine::memory::parse_bytes;
use millstream_engine::options::parse_duration;
use millstream_sql::session::checkpoint_interval;

/// A size such as `4GB` (powers of ten), `4GiB` (powers of two), `512m` or a plain number of bytes.
pub(crate) fn parse_size(text: &str) -> Result<usize, String> {
    parse_bytes(text).ok_or_else(|| format!("`{text}` is not a size: write it as 512MB or 4GB"))
}

/// A time between checkpoints such as `500ms`, `10s`, `2min`.
pub(crate) fn parse_interval(text: &str) -> Result<Duration, String> {
    checkpoint_interval(text).map_err(|e| e.message().to_owned())
}

/// How long something is good, such as `30s`, `12h`.
pub(crate) fn parse_lifetime(text: &str) -> Result<Duration, String> {
    let time = parse_duration(text).filter(|time| *time >= Duration::from_secs(1));
    time.ok_or_else(|| format!("'{text}' is not a length of time from 1 s on"))
}

/// How long a node may be silent, such as `500ms`, `5s`.
pub(crate) fn parse_node_timeout(text: &str) -> Result<Duration, String> {
    let bounds = Duration::from_millis(200)..=Duration::from_secs(60);
    let time = parse_duration(text).filter(|time| bounds.contains(time));
    time.ok_or_else(|| format!("'{text}' is not a length of time from 200 ms to 60 s"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        assert_eq!(parse_interval("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_interval("2min"), Ok(Duration::from_secs(120)));
        for wrong in ["0s", "1ms", "1 fortnight"] {
            assert_eq!(parse_interval(wrong), Err(format!("'{wrong}' is not a length of time from 10 ms on")));
        }
        assert_eq!(parse_node_timeout("500ms"), Ok(Duration::from_millis(500)));
        assert!(parse_node_timeout("100ms").is_err() && parse_node_timeout("2min").is_err());
    }
}
