//! What columns tell of event time, through projections, filters, unions and windows.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema};
use datafusion::logical_expr::sort_properties::{ExprProperties, SortProperties};
use datafusion::logical_expr::{Expr, Operator};
use datafusion::physical_expr::PhysicalExpr;
use millstream_engine::graph::{NodeId, NodeKind};
use millstream_engine::operator::window::WindowSpec;

use super::{Lowering, Output, column_of};
use crate::error::Result;

/// What a column tells of event time.
#[derive(Clone, Debug)]
pub enum TimeProperty {
    /// It is the event time of these scans.
    Event {
        /// The scans.
        scans: Vec<NodeId>,
    },
    /// A bound of the windows that node `assign` gave.
    Window {
        /// The node that assigns windows; `usize::MAX` when they must not be made panes any more.
        assign: NodeId,
        /// The windows.
        windows: WindowSpec,
        /// `window_end`, not `window_start`.
        end: bool,
        /// The scans whose event time it is.
        scans: Vec<NodeId>,
    },
    /// A monotone function of the event time of these scans, over one column of type `time`.
    Function {
        /// The function.
        expr: Arc<dyn PhysicalExpr>,
        /// The type of the event time.
        time: arrow::datatypes::DataType,
        /// The scans.
        scans: Vec<NodeId>,
    },
}

impl TimeProperty {
    /// The scans whose watermark it follows.
    pub fn scans(&self) -> &[NodeId] {
        match self {
            TimeProperty::Event { scans }
            | TimeProperty::Window { scans, .. }
            | TimeProperty::Function { scans, .. } => scans,
        }
    }
}

impl Lowering<'_> {
    /// What `expr` over `input` tells of event time.
    pub(super) fn time_of(&self, expr: &Expr, from: &DFSchema, input: &Output) -> Result<Option<TimeProperty>> {
        if let Some(column) = column_of(expr, from) {
            return Ok(input.time[column].clone());
        }
        let expr = expr.clone().unalias();
        let columns = expr.column_refs();
        let [column] = columns.iter().collect::<Vec<_>>()[..] else { return Ok(None) };
        let at = from.index_of_column(column)?;
        let Some(TimeProperty::Event { scans }) = &input.time[at] else { return Ok(None) };
        let field = from.field(at);
        if !self.is_monotone(&expr, column) || expr.is_volatile() || !is_steady(field.data_type()) {
            return Ok(None);
        }
        let alone = DFSchema::from_unqualified_fields(
            vec![Arc::new(arrow::datatypes::Field::new("t", field.data_type().clone(), true))].into(),
            Default::default(),
        )?;
        let rewritten = expr.transform(|e| {
            Ok(match e {
                Expr::Column(_) => {
                    datafusion::common::tree_node::Transformed::yes(Expr::Column(Column::from_name("t")))
                }
                e => datafusion::common::tree_node::Transformed::no(e),
            })
        })?;
        let function = self.physical(&rewritten.data, &alone)?;
        let (time, scans) = (field.data_type().clone(), scans.clone());
        let orderable = function.data_type(alone.as_arrow())?;
        let orderable = orderable.is_temporal() || orderable.is_integer() || orderable == DataType::Float64;
        Ok(orderable.then_some(TimeProperty::Function { expr: function, time, scans }))
    }

    /// Whether `expr` never falls as `column` rises.
    fn is_monotone(&self, expr: &Expr, column: &Column) -> bool {
        match expr {
            Expr::Column(c) => c == column,
            Expr::Alias(a) => self.is_monotone(&a.expr, column),
            Expr::Cast(c) => {
                let t = c.field.data_type();
                // Not to TIME, which begins again every day, nor to what an overflow could fold.
                let keeps_order =
                    matches!(t, DataType::Timestamp(..) | DataType::Date32 | DataType::Date64 | DataType::Int64);
                keeps_order && self.is_monotone(&c.expr, column)
            }
            Expr::BinaryExpr(b) => match b.op {
                Operator::Plus => {
                    (is_length(&b.right) && self.is_monotone(&b.left, column))
                        || (is_length(&b.left) && self.is_monotone(&b.right, column))
                }
                Operator::Minus => is_length(&b.right) && self.is_monotone(&b.left, column),
                _ => false,
            },
            Expr::ScalarFunction(f) => {
                let rising = SortProperties::Ordered(Default::default());
                let mut inputs = Vec::with_capacity(f.args.len());
                let mut rises = 0;
                for arg in &f.args {
                    let properties = ExprProperties::new_unknown();
                    inputs.push(if is_constant(arg) {
                        properties.with_order(SortProperties::Singleton)
                    } else if self.is_monotone(arg, column) {
                        rises += 1;
                        properties.with_order(rising)
                    } else {
                        return false;
                    });
                }
                let order = f.func.output_ordering(&inputs);
                // Only functions known to round a time down: some report an order they do not keep over nulls.
                matches!(f.name(), "date_bin" | "date_trunc")
                    && rises == 1
                    && matches!(order, Ok(SortProperties::Ordered(o)) if !o.descending)
            }
            _ => false,
        }
    }

    /// Notes that `exprs` look at window columns other than by passing them on: those windows cannot come
    /// as panes, which have other bounds.
    pub(super) fn note_uses<'e>(&mut self, exprs: impl Iterator<Item = &'e Expr>, from: &DFSchema, input: &Output) {
        let mut used = vec![];
        for e in exprs {
            // The walk itself does not fail.
            let _ = e.apply(|e| {
                if let Expr::Column(c) = e
                    && let Ok(at) = from.index_of_column(c)
                    && let Some(TimeProperty::Window { assign, .. }) = &input.time[at]
                {
                    used.push(*assign);
                }
                Ok(TreeNodeRecursion::Continue)
            });
        }
        self.looked_at.extend(used);
    }

    /// Whether only one node reads `id`.
    pub(super) fn has_one_reader(&self, id: NodeId) -> bool {
        self.graph.nodes.iter().flat_map(|n| &n.inputs).filter(|e| e.from == id).count() <= 1
    }

    /// The chain of operators from `to` back to `from`, if each has one reader.
    pub(super) fn is_plain_chain(&self, from: NodeId, to: NodeId) -> bool {
        let mut at = to;
        while at != from {
            let node = &self.graph.nodes[at];
            let plain = matches!(&node.kind, NodeKind::Operator(o) if matches!(o.name(), "project" | "filter"));
            if !plain || !self.has_one_reader(at) {
                return false;
            }
            match node.inputs.first() {
                Some(e) => at = e.from,
                None => return false,
            }
        }
        self.has_one_reader(from)
    }
}

fn is_constant(expr: &Expr) -> bool {
    match expr {
        Expr::Literal(..) => true,
        Expr::Cast(c) => is_constant(&c.expr),
        Expr::Alias(a) => is_constant(&a.expr),
        _ => false,
    }
}

/// A constant that keeps the order of times when it is added to them. Months are of several lengths, so they do
/// not: 30 and 31 January plus one month are one day.
fn is_length(expr: &Expr) -> bool {
    use datafusion::common::ScalarValue;
    match expr {
        Expr::Literal(ScalarValue::IntervalYearMonth(_), _) => false,
        Expr::Literal(ScalarValue::IntervalMonthDayNano(i), _) => i.is_none_or(|i| i.months == 0),
        Expr::Literal(..) => true,
        Expr::Alias(a) => is_length(&a.expr),
        _ => false,
    }
}

/// Whether local times of the type never go back: in zones with summer time they do, once a year.
fn is_steady(time: &DataType) -> bool {
    match time {
        DataType::Timestamp(_, Some(zone)) => matches!(&**zone, "UTC" | "Z" | "+00:00" | "Etc/UTC"),
        _ => true,
    }
}

/// The time properties that all inputs of a union share, by column.
pub(super) fn common(inputs: &[Output], columns: usize) -> Vec<Option<TimeProperty>> {
    let one = |i: usize| {
        let all = inputs.iter().map(|input| input.time.get(i)?.as_ref()).collect::<Option<Vec<_>>>()?;
        let mut scans: Vec<NodeId> = all.iter().flat_map(|p| p.scans().iter().copied()).collect();
        scans.sort_unstable();
        scans.dedup();
        if all.iter().all(|p| matches!(p, TimeProperty::Event { .. })) {
            return Some(TimeProperty::Event { scans });
        }
        match all.first()? {
            TimeProperty::Window { windows, end, .. }
                if all.iter().all(
                    |p| matches!(p, TimeProperty::Window { windows: w, end: e, .. } if w == windows && e == end),
                ) =>
            {
                Some(TimeProperty::Window { assign: usize::MAX, windows: *windows, end: *end, scans })
            }
            _ => None,
        }
    };
    (0..columns).map(one).collect()
}
