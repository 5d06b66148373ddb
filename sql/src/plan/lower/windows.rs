//! Windows as the engine knows them.

use millstream_engine::operator::window::WindowSpec;

use crate::error::{Error, Result};
use crate::plan::windows::{WindowLength, WindowSpec as Planned, length, sessions};

/// The windows of `spec`. Refuses those that no operator gives.
pub(super) fn engine_windows(spec: Planned) -> Result<WindowSpec> {
    if let Some(sessions) = sessions(spec) {
        return Ok(WindowSpec::Session(sessions));
    }
    let WindowLength::Micros(offset) = spec.offset() else {
        return Err(Error::unsupported("a window's offset in months cannot run continuously")
            .with_hint("Write the offset in days or less."));
    };
    Ok(match spec {
        Planned::Tumble { size, .. } => WindowSpec::Tumble { size: length(size), offset },
        Planned::Hop { slide, size, .. } => WindowSpec::Hop { slide: length(slide), size: length(size), offset },
        Planned::Cumulate { step: WindowLength::Micros(step), size: WindowLength::Micros(size), .. } => {
            WindowSpec::Cumulate { step, size, offset }
        }
        Planned::Session { .. } | Planned::Cumulate { .. } => {
            return Err(Error::unsupported("CUMULATE by months cannot run continuously")
                .with_hint("Write step and size in days or less."));
        }
    })
}
