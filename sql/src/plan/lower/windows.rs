//! Windows as the engine knows them.

use millstream_engine::operator::calendar::Calendar;
use millstream_engine::operator::window::WindowSpec;

use crate::error::{Error, Result};
use crate::plan::windows::{WindowLength, WindowSpec as Planned, length, sessions};

/// The windows of `spec`.
pub(super) fn engine_windows(spec: Planned) -> Result<WindowSpec> {
    if let Some(sessions) = sessions(spec) {
        return Ok(WindowSpec::Session(sessions));
    }
    let grows = matches!(spec, Planned::Cumulate { .. });
    match (spec.step(), spec.size(), spec.offset()) {
        (WindowLength::Months(step), WindowLength::Months(size), offset)
            if grows || matches!(offset, WindowLength::Months(_)) =>
        {
            Ok(WindowSpec::Calendar(Calendar { step, size, grows, offset: length(offset) }))
        }
        (WindowLength::Micros(step), WindowLength::Micros(size), WindowLength::Micros(offset)) if grows => {
            Ok(WindowSpec::Cumulate { step, size, offset })
        }
        (slide, size, WindowLength::Micros(offset)) if !grows => Ok(match spec {
            Planned::Tumble { .. } => WindowSpec::Tumble { size: length(size), offset },
            _ => WindowSpec::Hop { slide: length(slide), size: length(size), offset },
        }),
        _ => Err(Error::internal("windows of months and of shorter units")),
    }
}
