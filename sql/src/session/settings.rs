//! `SET`, `RESET` and `SHOW` settings.

use std::collections::BTreeMap;
use std::time::Duration;

use millstream_engine::memory::{human_bytes, parse_bytes};
use millstream_engine::nearest::nearest;
use millstream_engine::options::parse_duration;

use super::{Outcome, Session};
use crate::error::{Error, Result};

/// The settings of a session. The memory limit is the process's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Settings {
    /// Where it was set; else that of the process.
    pub(super) parallelism: Option<usize>,
    /// Where it was set; else that of the process.
    pub(super) checkpoint_interval: Option<Duration>,
}

/// The shortest time between checkpoints.
const LEAST_INTERVAL: Duration = Duration::from_millis(10);

const NAMES: [&str; 3] = ["checkpoint_interval", "memory_limit", "parallelism"];

/// The time between checkpoints that `text` says, such as `500 ms` or `10s`.
pub fn checkpoint_interval(text: &str) -> Result<Duration> {
    parse_duration(text).filter(|d| *d >= LEAST_INTERVAL).ok_or_else(|| {
        Error::invalid(format!("'{text}' is not a length of time from 10 ms on"))
            .with_hint("Write it like '500 ms' or '10 s'.")
    })
}

pub(super) fn duration_text(d: Duration) -> String {
    if d.subsec_nanos() == 0 { format!("{} s", d.as_secs()) } else { format!("{} ms", d.as_millis()) }
}

impl Session {
    /// Tasks per operator, where nothing else says it.
    pub(super) fn tasks(&self) -> usize {
        self.settings.lock().parallelism.unwrap_or(self.millstream.config().parallelism)
    }

    /// The settings with their values and a line on each.
    pub fn settings(&self) -> BTreeMap<String, (String, &'static str)> {
        let s = *self.settings.lock();
        let limit = self.millstream.budget().limit();
        let of = |name: &str, value: String, text| (name.to_owned(), (value, text));
        BTreeMap::from([
            of("parallelism", self.tasks().to_string(), "Tasks per operator of streams created from here on."),
            of(
                "checkpoint_interval",
                duration_text(s.checkpoint_interval.unwrap_or(self.millstream.config().checkpoint_interval)),
                "How often streams created from here on commit their results.",
            ),
            of(
                "memory_limit",
                human_bytes(limit),
                "Bytes that the state of all jobs of this process and its statements may take.",
            ),
        ])
    }

    pub(super) fn set(&self, name: &str, value: &str) -> Result<Outcome> {
        let wrong = |what: &str, hint: &str| {
            Err(Error::invalid(format!("setting \"{name}\" is '{value}', which is not {what}")).with_hint(hint))
        };
        match name {
            "parallelism" => match value.parse::<usize>() {
                Ok(n) if (1..=256).contains(&n) => self.settings.lock().parallelism = Some(n),
                _ => return wrong("a number from 1 to 256", "Write it like SET parallelism = 4."),
            },
            "checkpoint_interval" => {
                let interval = checkpoint_interval(value).map_err(|e| e.context(format!("setting \"{name}\"")))?;
                self.settings.lock().checkpoint_interval = Some(interval);
            }
            "memory_limit" => match parse_bytes(value) {
                Some(n) if n >= 1_000_000 => self.millstream.budget().set_limit(n),
                _ => return wrong("a number of bytes from 1MB on", "Write it like SET memory_limit = '8GB'."),
            },
            _ => return Err(unknown(name)),
        }
        Ok(Outcome::tag("SET"))
    }

    pub(super) fn reset(&self, name: Option<&str>) -> Result<Outcome> {
        let defaults = Settings::default();
        let mut s = self.settings.lock();
        match name {
            None => *s = defaults,
            Some("parallelism") => s.parallelism = defaults.parallelism,
            Some("checkpoint_interval") => s.checkpoint_interval = defaults.checkpoint_interval,
            Some("memory_limit") => self.millstream.budget().set_limit(self.millstream.config().memory_limit),
            Some(name) => return Err(unknown(name)),
        }
        Ok(Outcome::tag("RESET"))
    }
}

pub(super) fn unknown(name: &str) -> Error {
    let meant = nearest(name, NAMES).map(|near| format!("Did you mean {near}? ")).unwrap_or_default();
    Error::not_found(format!("there is no setting \"{name}\""))
        .with_hint(format!("{meant}The settings are: {}.", NAMES.join(", ")))
}
