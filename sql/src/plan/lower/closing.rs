//! What closes the groups of a `GROUP BY`.

use std::sync::Arc;

use datafusion::physical_expr::expressions::Column;
use millstream_engine::operator::aggregate::{TimeColumn, TimeKey};
use millstream_engine::operator::window::{Closer, WindowSpec};

use super::scan::Scans;
use super::time::{TimeProperty, WindowsId};
use super::tree::Grouping;
use crate::error::Error;

/// Which group columns close, by what they tell of event time. Whether windows come as panes is found later.
pub(super) fn time_key(times: &[Option<TimeProperty>], scans: &Scans) -> Option<TimeKey> {
    let mut columns = vec![];
    let mut windows: Option<(WindowsId, WindowSpec)> = None;
    for (i, t) in times.iter().enumerate() {
        let Some(TimeProperty::Window { of, windows: w, end, .. }) = t else { continue };
        if windows.is_none_or(|(have, _)| have == *of) {
            windows = Some((*of, *w));
            match (w, end) {
                // The start of a session does not tell its end.
                (WindowSpec::Session(_), true) => columns.push((i, TimeColumn::SessionEnd)),
                (WindowSpec::Session(_), false) => {}
                (_, true) => columns.push((i, TimeColumn::End)),
                (_, false) => columns.push((i, TimeColumn::Start)),
            }
        }
    }
    let windows = windows.map(|(_, windows)| windows);
    // The end tells all windows apart, the start all but those of CUMULATE.
    columns.sort_by_key(|(_, kind)| !matches!(kind, TimeColumn::End));
    let grow = match windows {
        Some(WindowSpec::Cumulate { .. }) => true,
        Some(WindowSpec::Calendar(calendar)) => calendar.grows,
        _ => false,
    };
    let tells = match columns.first() {
        Some((_, TimeColumn::Start)) => !grow,
        first => first.is_some(),
    };
    if tells {
        return Some(TimeKey { columns, windows, panes: false });
    }
    let (column, kind) = times.iter().enumerate().find_map(|(i, t)| Some((i, function_of(t.as_ref()?, scans)?)))?;
    Some(TimeKey { columns: vec![(column, kind)], windows: None, panes: false })
}

fn function_of(property: &TimeProperty, scans: &Scans) -> Option<TimeColumn> {
    match property {
        TimeProperty::Function { expr, time, .. } => {
            Some(TimeColumn::Function { expr: expr.clone(), time: time.clone() })
        }
        TimeProperty::Event { scans: of } => {
            let time = scans.event_type(*of.first()?)?;
            Some(TimeColumn::Function { expr: Arc::new(Column::new("t", 0)), time })
        }
        TimeProperty::Window { .. } => None,
    }
}

/// The group columns, of so many, that are no times.
pub(super) fn plain_keys(keys: usize, time: Option<&TimeKey>) -> Vec<usize> {
    let timed = |i: &usize| time.is_some_and(|t| t.tells(*i));
    (0..keys).filter(|i| !timed(i)).collect()
}

impl Grouping<'_> {
    /// What the group column tells that tells groups apart by time.
    pub(super) fn told_by(&self) -> Option<&TimeProperty> {
        let (column, _) = self.time.as_ref()?.columns.first()?;
        self.times.get(*column)?.as_ref()
    }

    /// What closes, for the scans to know which rows are late.
    pub(super) fn closer(&self) -> Option<Closer> {
        let time = self.time.as_ref()?;
        match (&time.columns.first()?.1, time.windows) {
            (TimeColumn::Function { expr, .. }, _) => Some(Closer::Function(expr.clone())),
            (_, windows) => windows.map(Closer::Window),
        }
    }

    /// Its groups were to be emitted once they close, but never do.
    pub(super) fn never_closes(&self, scans: &Scans) -> Error {
        let windowed = self.plan.input.schema().fields().iter().any(|f| f.name() == "window_end");
        if let Some(stream) = scans.without_time().filter(|_| windowed) {
            return Error::invalid(format!("stream \"{stream}\" has no watermark"))
                .with_hint("Add WATERMARK FOR ts AS ts - INTERVAL '5 seconds' to its columns, or write EMIT CHANGES.");
        }
        let keys: Vec<String> = self.plan.group_expr.iter().map(|e| e.schema_name().to_string()).collect();
        let by = if keys.is_empty() { "without GROUP BY".to_owned() } else { format!("by {}", keys.join(", ")) };
        Error::invalid(format!("EMIT ON WINDOW CLOSE: groups {by} never close"))
            .with_hint("Group by window_start and window_end of a window over the event time, or write EMIT CHANGES.")
    }
}
