//! `EMIT ON WINDOW CLOSE`: each group once, when the watermark closes its window.

use std::sync::Arc;

use super::sliding::Sliding;
use super::tables::Tables;
use super::{Aggregate, EmitMode, PIECE};
use crate::changes::Changes;
use crate::epoch::EpochMark;
use crate::error::Result;
use crate::operator::window::WindowSpec;
use crate::operator::{BuildContext, Operator, Output};
use crate::state::Handle;
use crate::state::group_table::GroupTable;
use crate::time::EventTime;

pub(super) struct Closing {
    spec: Arc<Aggregate>,
    tables: Handle<Tables>,
    /// For windows made of several panes.
    sliding: Option<Sliding>,
    /// The watermark up to which windows are being closed.
    until: Option<EventTime>,
    /// The closed window that is being emitted.
    leaving: Option<Leaving>,
}

/// A closed window, its groups, and how many of these have been emitted.
struct Leaving {
    window: i64,
    table: GroupTable,
    slots: Vec<u32>,
    emitted: usize,
}

impl Closing {
    pub(super) fn new(spec: Arc<Aggregate>, context: &mut BuildContext<'_>) -> Result<Self> {
        let tables = context.state.open("windows", Tables::new(spec.clone())?);
        let windows = spec.time.as_ref().filter(|t| t.panes).and_then(|t| t.windows);
        let sliding = windows.filter(|w| !w.is_tumble()).map(|w| Sliding::new(spec.clone(), w));
        Ok(Closing { spec, tables, sliding, until: None, leaving: None })
    }

    /// Whether all groups close at the end of their epoch.
    fn settles(&self) -> bool {
        self.spec.time.as_ref().is_some_and(|time| time.settles(EmitMode::OnClose))
    }

    /// Takes the next window out that closes at `until`.
    fn next_closed(&mut self, until: EventTime) -> Result<Option<Leaving>> {
        let (settles, spec, sliding) = (self.settles(), &self.spec, &mut self.sliding);
        let closed = self.tables.with(|tables| {
            if let Some(sliding) = sliding {
                return sliding.next_closed(tables, until);
            }
            tables.advance(until)?;
            let closed = |window: &i64| settles || tables.is_closed(*window);
            let Some(id) = tables.open.keys().copied().find(closed) else { return Ok(None) };
            let panes: Option<WindowSpec> = spec.time.as_ref().filter(|t| t.panes).and_then(|t| t.windows);
            // With panes the table of a tumbling window goes by its start.
            let window = panes.map_or(id, |w| w.last_end(id));
            Ok(tables.open.remove(&id).map(|table| (window, table)))
        })?;
        Ok(closed.map(|(window, table)| {
            let slots = table.all().into_iter().filter(|s| table.exists(*s)).collect();
            Leaving { window, table, slots, emitted: 0 }
        }))
    }
}

impl Leaving {
    /// Emits groups as long as there is room; those that lack a value are put aside. Says whether all have been.
    fn emit(&mut self, spec: &Aggregate, out: &mut Output) -> Result<bool> {
        while self.emitted < self.slots.len() {
            if !out.has_room() {
                return Ok(false);
            }
            let piece = &self.slots[self.emitted..self.slots.len().min(self.emitted + PIECE as usize)];
            let (rows, failures) = spec.rows_of(self.window, &mut self.table, piece)?;
            self.emitted += piece.len();
            let rows = out.put_aside(Changes::insertions(rows), &failures)?;
            out.emit(rows);
        }
        Ok(true)
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
        self.tables.with_rows(changes.num_rows(), |tables| tables.apply(changes, &mut before, out))
    }

    fn on_epoch(&mut self, mark: &EpochMark, out: &mut Output) -> Result<()> {
        let settles = self.settles();
        self.until = self.tables.with(|tables| {
            for table in tables.open.values_mut() {
                table.take_touched();
            }
            Ok((settles || mark.watermark > tables.watermark).then_some(mark.watermark))
        })?;
        self.go_on(out)
    }

    fn go_on(&mut self, out: &mut Output) -> Result<()> {
        let Some(until) = self.until else { return Ok(()) };
        loop {
            if let Some(leaving) = &mut self.leaving
                && !leaving.emit(&self.spec, out)?
            {
                out.come_back();
                return Ok(());
            }
            self.leaving = self.next_closed(until)?;
            if self.leaving.is_none() {
                self.until = None;
                return Ok(());
            }
        }
    }
}
