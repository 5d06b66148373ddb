//! What columns tell of event time, through projections, filters, unions and windows.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchema};
use datafusion::execution::context::SessionState;
use datafusion::logical_expr::sort_properties::{ExprProperties, SortProperties};
use datafusion::logical_expr::{Expr, Operator};
use datafusion::physical_expr::PhysicalExpr;
use millstream_engine::operator::window::WindowSpec;

use super::{column_of, physical};
use crate::error::Result;

/// The place of a stream among those that a query reads; its source is the node of that number.
pub type ScanId = usize;

/// Tells windows of one node from those of another, be they alike or not.
pub type WindowsId = usize;

/// What a column tells of event time.
#[derive(Clone, Debug)]
pub enum TimeProperty {
    /// It is the event time of these scans.
    Event {
        /// The scans.
        scans: Vec<ScanId>,
    },
    /// A bound of windows. Bounds in one row that are `of` the same node are those of one window.
    Window {
        /// The node that put rows into windows, or a union over several.
        of: WindowsId,
        /// The windows.
        windows: WindowSpec,
        /// `window_end`, not `window_start`.
        end: bool,
        /// The scans whose event time it is.
        scans: Vec<ScanId>,
    },
    /// A monotone function of the event time of these scans, over one column of type `time`.
    Function {
        /// The function.
        expr: Arc<dyn PhysicalExpr>,
        /// The type of the event time.
        time: DataType,
        /// The scans.
        scans: Vec<ScanId>,
    },
}

impl TimeProperty {
    /// The scans whose watermark it follows.
    pub fn scans(&self) -> &[ScanId] {
        match self {
            TimeProperty::Event { scans }
            | TimeProperty::Window { scans, .. }
            | TimeProperty::Function { scans, .. } => scans,
        }
    }
}

/// Whether `expr` looks at bounds of the windows `of`, among columns that tell `times`.
pub(super) fn looks_at(expr: &Expr, from: &DFSchema, times: &[Option<TimeProperty>], of: WindowsId) -> bool {
    let is_bound = |column: &Column| {
        let time = from.index_of_column(column).ok().and_then(|at| times.get(at)?.as_ref());
        matches!(time, Some(TimeProperty::Window { of: w, .. }) if *w == of)
    };
    expr.column_refs().into_iter().any(is_bound)
}

/// What `expr` tells of event time, over columns that tell `times`.
pub(super) fn time_of(
    state: &SessionState,
    expr: &Expr,
    from: &DFSchema,
    times: &[Option<TimeProperty>],
) -> Result<Option<TimeProperty>> {
    if let Some(column) = column_of(expr, from) {
        return Ok(times[column].clone());
    }
    let expr = expr.clone().unalias();
    let columns = expr.column_refs();
    let [column] = columns.iter().collect::<Vec<_>>()[..] else { return Ok(None) };
    let at = from.index_of_column(column)?;
    let Some(TimeProperty::Event { scans }) = &times[at] else { return Ok(None) };
    let field = from.field(at);
    if !is_monotone(&expr, column) || expr.is_volatile() || !is_steady(field.data_type()) {
        return Ok(None);
    }
    let alone = DFSchema::from_unqualified_fields(
        vec![Arc::new(Field::new("t", field.data_type().clone(), true))].into(),
        Default::default(),
    )?;
    let rewritten = expr.transform(|e| {
        Ok(match e {
            Expr::Column(_) => Transformed::yes(Expr::Column(Column::from_name("t"))),
            e => Transformed::no(e),
        })
    })?;
    let function = physical(state, &rewritten.data, &alone)?;
    let (time, scans) = (field.data_type().clone(), scans.clone());
    let orderable = function.data_type(alone.as_arrow())?;
    let orderable = orderable.is_temporal() || orderable.is_integer() || orderable == DataType::Float64;
    Ok(orderable.then_some(TimeProperty::Function { expr: function, time, scans }))
}

/// Whether `expr` never falls as `column` rises.
fn is_monotone(expr: &Expr, column: &Column) -> bool {
    match expr {
        Expr::Column(c) => c == column,
        Expr::Alias(a) => is_monotone(&a.expr, column),
        Expr::Cast(c) => {
            let t = c.field.data_type();
            // Not to TIME, which begins again every day, nor to what an overflow could fold.
            let keeps_order =
                matches!(t, DataType::Timestamp(..) | DataType::Date32 | DataType::Date64 | DataType::Int64);
            keeps_order && is_monotone(&c.expr, column)
        }
        Expr::BinaryExpr(b) => match b.op {
            Operator::Plus => {
                (is_length(&b.right) && is_monotone(&b.left, column))
                    || (is_length(&b.left) && is_monotone(&b.right, column))
            }
            Operator::Minus => is_length(&b.right) && is_monotone(&b.left, column),
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
                } else if is_monotone(arg, column) {
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

/// The column that tells a derived stream's event time: one that is it already, else a window's end.
pub fn event_column(time: &[Option<TimeProperty>]) -> Option<usize> {
    let event = time.iter().position(|t| matches!(t, Some(TimeProperty::Event { .. })));
    event.or_else(|| time.iter().position(|t| matches!(t, Some(TimeProperty::Window { end: true, .. }))))
}
