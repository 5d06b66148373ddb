//! Options that count something.

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
