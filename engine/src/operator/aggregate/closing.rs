//! `EMIT ON WINDOW CLOSE`: each group once, when the watermark closes its window.

use std::sync::Arc;

use super::Aggregate;
use super::sliding::Sliding;
use super::tables::Tables;
use crate::changes::Changes;
use crate::epoch::EpochMark;
use crate::error::Result;
use crate::operator::window::WindowSpec;
use crate::operator::{BuildContext, Operator, Output};
use crate::state::Handle;
use crate::state::group_table::GroupTable;

pub(super) struct Closing {
    spec: Arc<Aggregate>,
    tables: Handle<Tables>,
    /// For windows made of several panes.
    sliding: Option<Sliding>,
}

impl Closing {
    pub(super) fn new(spec: Arc<Aggregate>, context: &mut BuildContext<'_>) -> Result<Self> {
        let tables = context.state.open("windows", Tables::new(spec.clone())?);
        let windows = spec.time.as_ref().filter(|t| t.panes).and_then(|t| t.windows);
        let sliding = windows.filter(|w| !w.is_tumble()).map(|w| Sliding::new(spec.clone(), w));
        Ok(Closing { spec, tables, sliding })
    }
}

impl Operator for Closing {
    fn on_changes(&mut self, _port: usize, changes: Changes, out: &mut Output) -> Result<()> {
        let sliding = &mut self.sliding;
        let mut before = |window: i64, _: &mut GroupTable, _: &[u32], _: usize| {
            if let Some(sliding) = sliding {
                sliding.touched(window);
            }
            Ok(())
        };
        self.tables.with(|tables| tables.apply(changes, &mut before, out))
    }

    fn on_epoch(&mut self, mark: &EpochMark, out: &mut Output) -> Result<()> {
        let (spec, sliding) = (self.spec.clone(), &mut self.sliding);
        self.tables.with(|tables| {
            for table in tables.open.values_mut() {
                table.take_touched();
            }
            if mark.watermark <= tables.watermark {
                return Ok(());
            }
            if let Some(sliding) = sliding {
                return sliding.close(tables, mark.watermark, out);
            }
            tables.advance(mark.watermark)?;
            let closed: Vec<i64> = tables.open.keys().copied().filter(|w| tables.is_closed(*w)).collect();
            let panes: Option<WindowSpec> = spec.time.as_ref().filter(|t| t.panes).and_then(|t| t.windows);
            for id in closed {
                let Some(mut table) = tables.open.remove(&id) else { continue };
                // With panes the table of a tumbling window goes by its start.
                let window = panes.map_or(id, |w| w.last_end(id));
                emit_all(&spec, window, &mut table, out)?;
            }
            Ok(())
        })
    }
}

/// Emits all groups of a closed window; those that lack a value are put aside.
pub(super) fn emit_all(spec: &Aggregate, window: i64, table: &mut GroupTable, out: &mut Output) -> Result<()> {
    let slots: Vec<u32> = table.all().into_iter().filter(|s| table.exists(*s)).collect();
    for slots in slots.chunks(1 << 15) {
        let (rows, failures) = spec.rows_of(window, table, slots)?;
        let rows = out.put_aside(Changes::insertions(rows), &failures)?;
        out.emit(rows);
    }
    Ok(())
}
