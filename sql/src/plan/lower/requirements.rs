//! The second pass, from the top down: what a node has to be like for its reader.
//!
//! When it emits; in which tasks its rows are needed; whether windows come as panes, of which the aggregate that alone
//! looks at them makes windows again. On the way back each node learns whether its rows are never taken back, and each
//! scan what closes behind it.

use std::sync::Arc;

use datafusion::common::DFSchema;
use datafusion::logical_expr::Expr;
use datafusion::physical_expr::expressions::Column;
use millstream_engine::operator::aggregate::EmitMode;
use millstream_engine::operator::window::Closer;
use millstream_engine::spread::Needed;

use super::column_of;
use super::overs::first_of;
use super::scan::Scans;
use super::time::{ScanId, TimeProperty, WindowsId, looks_at};
use super::tree::{Grouping, Growth, Node, Step};
use crate::error::{Error, Result};
use crate::statement::Emit;

/// When a query whose result is `root` emits, where `asked` is what it says itself.
///
/// Errors where it asks for what it cannot have.
pub(super) fn emit_mode(asked: Option<Emit>, root: &Node<'_>, scans: &Scans) -> Result<EmitMode> {
    let groupings = root.groupings();
    let open = groupings.iter().find(|g| g.time.is_none());
    let closes = !groupings.is_empty() || root.has_sessions();
    match asked {
        Some(Emit::Changes | Emit::Every(_)) => Ok(EmitMode::Changes),
        // Where some group has no end, or other rows are taken back, nothing is held back for an end.
        None if !closes || open.is_some() || root.has.growth == Growth::TakesBack => Ok(EmitMode::Changes),
        None => Ok(EmitMode::OnClose),
        Some(Emit::OnWindowClose) => {
            if let Some(open) = open {
                return Err(open.never_closes(scans));
            }
            if !closes && !root.settles() {
                return Err(Error::invalid("EMIT ON WINDOW CLOSE needs a GROUP BY with a window, or a SESSION").with_hint(
                    "Group by window_start and window_end of TUMBLE, HOP, CUMULATE or SESSION over a stream with a WATERMARK, or \
                     leave EMIT out. An ASOF JOIN with >= or > over the event times of both sides closes, too.",
                ));
            }
            if root.has.growth == Growth::TakesBack {
                return Err(Error::invalid(
                    "EMIT ON WINDOW CLOSE: a part of the query without windows takes rows back",
                )
                .with_hint("Write EMIT CHANGES, or put the parts into streams of their own."));
            }
            Ok(EmitMode::OnClose)
        }
    }
}

/// The pass.
pub(super) struct Requiring {
    /// What closes behind each scan.
    pub(super) closers: Vec<Vec<Closer>>,
}

impl Requiring {
    /// For a query that has so many scans.
    pub(super) fn new(scans: usize) -> Self {
        Requiring { closers: vec![vec![]; scans] }
    }

    /// Tells `node` that its reader needs it to emit so.
    pub(super) fn node(&mut self, node: &mut Node<'_>, emit: EmitMode) {
        node.needs.emit = emit;
        match (&node.step, node.inputs.as_mut_slice()) {
            (Step::Aggregate(grouping), [input]) => {
                match grouping.needed().filter(|needed| input.has.spread.fits(needed)) {
                    Some(needed) => input.needs.rows = needed,
                    None => node.needs.two_phases = input.has.spread.tasks > 1,
                }
                let windows = grouping.windows_alone(input).filter(|_| emit == EmitMode::OnClose);
                node.needs.panes = windows.is_some_and(|of| give_panes(input, of));
            }
            (Step::Union(_), inputs) => {
                let needed = match inputs.iter().all(|input| input.has.spread.tasks == node.has.spread.tasks) {
                    true => Needed::Anywhere,
                    false => Needed::Single,
                };
                inputs.iter_mut().for_each(|input| input.needs.rows = needed.clone());
            }
            (Step::Recompute(..), inputs) => inputs.iter_mut().for_each(|input| input.needs.rows = Needed::Single),
            (Step::Over(overing), [input]) => input.needs.rows = overing.needed(),
            (Step::AsOf(of), inputs) => {
                inputs.iter_mut().enumerate().for_each(|(side, input)| input.needs.rows = of.needed(side));
            }
            (Step::Clock(clocking), [input]) => input.needs.rows = Needed::hash(clocking.key.clone()),
            (Step::Session(sessioning), [input]) => input.needs.rows = Needed::hash(sessioning.key.clone()),
            (Step::Filter(filter), [input]) => first_of(&filter.predicate, filter.input.schema(), input),
            (Step::Join(joining), inputs) => {
                inputs.iter_mut().enumerate().for_each(|(side, input)| input.needs.rows = joining.needed(side));
            }
            _ => {}
        }
        // Rows that are said once are made of rows that are, where they can be. Rows are looked up among all that there are.
        let lookup = matches!(&node.step, Step::Join(joining) if joining.lookup);
        let emit_of = |side: usize| if lookup && side == 1 { EmitMode::Changes } else { emit };
        node.inputs.iter_mut().enumerate().for_each(|(side, input)| self.node(input, emit_of(side)));
        node.needs.append_only = match &node.step {
            Step::Aggregate(grouping) => {
                self.note_closer(grouping);
                emit == EmitMode::OnClose
            }
            Step::Join(joining) if joining.lookup => node.inputs.first().is_some_and(|left| left.needs.append_only),
            Step::Join(joining) => {
                joining.times.closing.iter().for_each(|time| self.note_times(time));
                let stays = node.inputs.iter().all(|input| input.needs.append_only);
                // Rows of a window all come as it closes.
                stays && (joining.only_grows() || node.has.growth != Growth::TakesBack && emit == EmitMode::OnClose)
            }
            Step::Over(overing) => {
                overing.closing.iter().for_each(|time| self.note_times(time));
                node.inputs.iter().all(|input| input.needs.append_only)
                    && node.has.growth != Growth::TakesBack
                    && emit == EmitMode::OnClose
            }
            Step::AsOf(of) => {
                of.closing.iter().for_each(|time| self.note_times(time));
                node.inputs.iter().all(|input| input.needs.append_only)
                    && node.has.growth != Growth::TakesBack
                    && emit == EmitMode::OnClose
            }
            Step::Session(sessioning) => {
                sessioning.closing.iter().for_each(|time| self.note_times(time));
                sessioning.closing.is_some() && emit == EmitMode::OnClose
            }
            Step::Clock(clocking) => !clocking.takes_back() && node.inputs.iter().all(|input| input.needs.append_only),
            Step::Recompute(..) => false,
            _ if node.inputs.is_empty() => node.has.growth == Growth::Grows,
            _ => node.inputs.iter().all(|input| input.needs.append_only),
        };
    }

    /// Late is what comes to the scans of `time` once the watermark has passed it.
    fn note_times(&mut self, time: &TimeProperty) {
        let closer = match time {
            TimeProperty::Window { windows, .. } => Closer::Window(*windows),
            _ => Closer::Function(Arc::new(Column::new("t", 0))),
        };
        self.note(time.scans(), &closer);
    }

    fn note(&mut self, scans: &[ScanId], closer: &Closer) {
        for scan in scans {
            if let Some(closers) = self.closers.get_mut(*scan) {
                closers.push(closer.clone());
            }
        }
    }

    /// Late is what comes to a scan when this has closed.
    fn note_closer(&mut self, grouping: &Grouping<'_>) {
        if let Some((told, closer)) = grouping.told_by().zip(grouping.closer()) {
            self.note(told.scans(), &closer);
        }
    }
}

impl Grouping<'_> {
    /// Where it needs its input, for the groups to be complete; none where keys are computed, by which nothing lies yet.
    fn needed(&self) -> Option<Needed> {
        let column = |key: &usize| column_of(self.plan.group_expr.get(*key)?, self.plan.input.schema());
        self.cut.iter().map(column).collect::<Option<_>>().map(Needed::hash)
    }

    /// The windows that close its groups and are made of panes, if it groups by their bounds but computes nothing of them.
    fn windows_alone(&self, input: &Node<'_>) -> Option<WindowsId> {
        let Some(TimeProperty::Window { of, windows, .. }) = self.told_by() else { return None };
        windows.panes()?;
        let from = self.plan.input.schema();
        let computed = self.plan.group_expr.iter().filter(|e| column_of(e, from).is_none());
        let mut looking = computed.chain(&self.plan.aggr_expr);
        (!looking.any(|e| looks_at(e, from, &input.has.time, *of))).then_some(*of)
    }
}

/// Makes the windows `of` come as panes from `node`, if nothing on the way looks at their bounds; says whether.
fn give_panes(node: &mut Node<'_>, of: WindowsId) -> bool {
    let looks = |e: &Expr, from: &DFSchema, input: &Node<'_>| looks_at(e, from, &input.has.time, of);
    match (&node.step, node.inputs.as_mut_slice()) {
        (Step::Window { of: given, .. }, _) if *given == of => {
            node.needs.panes = true;
            true
        }
        (Step::Filter(f), [input]) => !looks(&f.predicate, f.input.schema(), input) && give_panes(input, of),
        (Step::Project(p), [input]) => {
            let from = p.input.schema();
            let mut computed = p.expr.iter().filter(|e| column_of(e, from).is_none());
            !computed.any(|e| looks(e, from, input)) && give_panes(input, of)
        }
        _ => false,
    }
}
