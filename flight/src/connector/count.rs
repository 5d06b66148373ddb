//! Options that count or measure something.

use std::time::Duration;

use millstream_engine::error::{Error, Result};
use millstream_engine::options::{OptionSpec, Options};

/// The whole number that `spec` is, which must not be below `least`.
pub(super) fn at_least(options: &mut Options, spec: &OptionSpec, least: usize) -> Result<usize> {
    let value = options.value::<usize>(spec, "a whole number")?.unwrap_or(least);
    match value < least {
        true => {
            let (name, owner) = (spec.name, options.owner());
            Err(Error::invalid(format!("option \"{name}\" of {owner} is {value}, which is below {least}")))
        }
        false => Ok(value),
    }
}

/// The length of time that `spec` is, which must be above 0.
pub(super) fn some_time(options: &mut Options, spec: &OptionSpec) -> Result<Duration> {
    let time = options.duration(spec)?.unwrap_or_default();
    match time.is_zero() {
        true => Err(Error::invalid(format!("option \"{}\" of {} is 0", spec.name, options.owner()))),
        false => Ok(time),
    }
}
