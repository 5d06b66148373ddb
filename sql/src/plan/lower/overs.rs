//! What is so for calls with `OVER`: by which columns partitions are told apart, when they close, and which rows of them are
//! wanted.

use arrow::compute::SortOptions;
use arrow::datatypes::DataType;
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::logical_expr::expr::WindowFunctionParams;
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{Expr, Operator, Window, WindowFunctionDefinition};
use millstream_engine::operator::expiry::Expiry;
use millstream_engine::operator::over::{First, Function};
use millstream_engine::spread::{Needed, Spread};

use super::column_of;
use super::join_times::first_to_come;
use super::properties::Describing;
use super::time::{TimeProperty, WindowsId};
use super::tree::{Growth, Node, Overing, Properties, Step};
use crate::error::{Error, Result};

impl Describing<'_> {
    pub(super) fn over<'p>(&mut self, plan: &'p Window) -> Result<Node<'p>> {
        let input = self.node(&plan.input)?;
        let overing = Overing::of(plan, &input)?;
        let has = overing.properties(&input);
        Ok(Node::new(Step::Over(overing), vec![input], has))
    }
}

impl<'p> Overing<'p> {
    fn of(plan: &'p Window, input: &Node<'_>) -> Result<Self> {
        let from = plan.input.schema();
        let params = plan.window_expr.iter().map(|call| Ok(call_of(call)?.1));
        let params = params.collect::<Result<Vec<&WindowFunctionParams>>>()?;
        let Some(first) = params.first() else { return Err(Error::internal("OVER without a call")) };
        // Constants tell no rows apart.
        let mut key = vec![];
        for column in first.partition_by.iter().filter_map(|e| column_of(e, from)) {
            if !key.contains(&column) {
                key.push(column);
            }
        }
        let same = |other: &&WindowFunctionParams| {
            let columns: Vec<_> = other.partition_by.iter().filter_map(|e| column_of(e, from)).collect();
            columns.iter().all(|c| key.contains(c)) && key.iter().all(|c| columns.contains(c))
        };
        if !params.iter().all(same) {
            return Err(Error::internal("calls over different partitions in one node"));
        }
        let options = |asc: bool, nulls_first: bool| SortOptions { descending: !asc, nulls_first };
        let order = first.order_by.iter();
        let order = order.filter_map(|s| Some((column_of(&s.expr, from)?, options(s.asc, s.nulls_first)))).collect();
        let mut overing = Overing { plan, key, order, expiry: None, closing: None };
        overing.close(input);
        Ok(overing)
    }

    /// Notes when partitions get no more rows, if one of their columns tells.
    fn close(&mut self, input: &Node<'_>) {
        if input.has.growth == Growth::TakesBack {
            return;
        }
        let of_plan = self.plan.input.schema().fields();
        let is_time =
            |column: usize| of_plan.get(column).is_some_and(|f| matches!(f.data_type(), DataType::Timestamp(..)));
        let times = self.key.iter().filter(|column| is_time(**column)).filter_map(|column| {
            let time = input.has.time.get(*column)?.as_ref()?;
            // Rows without an event time come at any time, but they are in no window.
            let window = matches!(time, TimeProperty::Window { .. });
            Some((*column, first_to_come(time).filter(|_| window)?, time.clone()))
        });
        // The end of a window tells it from all others.
        let ends = |time: &TimeProperty| matches!(time, TimeProperty::Window { end: true, .. });
        if let Some((column, from, time)) = times.max_by_key(|(_, _, time)| ends(time)) {
            self.expiry = Some(Expiry { column, after: -from });
            self.closing = Some(time);
        }
    }

    /// The windows that partitions are of.
    fn windows(&self) -> Option<WindowsId> {
        match self.closing {
            Some(TimeProperty::Window { of, end: true, .. }) => Some(of),
            _ => None,
        }
    }

    /// Where it needs its rows.
    pub(super) fn needed(&self) -> Needed {
        Needed::hash(self.key.clone())
    }

    fn properties(&self, input: &Node<'_>) -> Properties {
        let mut columns: Vec<Option<usize>> = (0..input.has.time.len()).map(Some).collect();
        columns.resize(self.plan.schema.fields().len(), None);
        let has = input.has.of_columns(&columns);
        let closes = self.windows().is_some() && has.growth == Growth::GrowsOnClose;
        // What a row gets may change long after its time, but not after its window has closed.
        let stays =
            |time: &TimeProperty| matches!(time, TimeProperty::Window { of, .. } if Some(*of) == self.windows());
        Properties {
            growth: if closes { Growth::GrowsOnClose } else { Growth::TakesBack },
            time: has.time.into_iter().map(|time| time.filter(stays)).collect(),
            spread: match self.key.is_empty() {
                true => Spread::anyhow(1),
                false => Spread { tasks: input.has.spread.tasks, by: Some(self.key.clone()) },
            },
            ..has
        }
    }

    /// The call that gives column `column`, if all calls number rows.
    fn numbering(&self, column: usize) -> Option<usize> {
        let call = column.checked_sub(self.plan.input.schema().fields().len())?;
        let numbers =
            |call: &Expr| call_of(call).is_ok_and(|(function, _)| Function::numbering(function.name()).is_some());
        self.plan.window_expr.iter().all(numbers).then_some(call)
    }
}

/// A call with OVER: its function, and over what.
pub(super) fn call_of(expr: &Expr) -> Result<(&WindowFunctionDefinition, &WindowFunctionParams)> {
    match expr {
        Expr::Alias(alias) => call_of(&alias.expr),
        Expr::WindowFunction(function) => Ok((&function.fun, &function.params)),
        other => Err(Error::internal(format!("{other} is no call with OVER"))),
    }
}

/// Tells `node`, over whose rows of `schema` a filter is, which of them are wanted, if they go by a number.
pub(super) fn first_of(predicate: &Expr, schema: &DFSchema, node: &mut Node<'_>) {
    for (column, most) in split_conjunction(predicate).into_iter().filter_map(|part| at_most(part, schema)) {
        if note_first(node, column, most) {
            return;
        }
    }
}

/// Notes that rows are wanted whose column `column` is at most `most`; says whether they are of calls that number them.
fn note_first(node: &mut Node<'_>, column: usize, most: u64) -> bool {
    match (&node.step, node.inputs.as_mut_slice()) {
        (Step::Project(p), [input]) => {
            let of = p.expr.get(column).and_then(|e| column_of(e, p.input.schema()));
            of.is_some_and(|column| note_first(input, column, most))
        }
        (Step::Over(overing), _) => {
            let first = overing.numbering(column).map(|call| First { call, most });
            node.needs.first = first.or(node.needs.first);
            first.is_some()
        }
        _ => false,
    }
}

/// The column of which `part` says that it is at most some number.
fn at_most(part: &Expr, schema: &DFSchema) -> Option<(usize, u64)> {
    let Expr::BinaryExpr(b) = part else { return None };
    let (column, op, limit) = match (number_column(&b.left, schema), number_column(&b.right, schema)) {
        (Some(column), _) => (column, b.op, whole(&b.right)?),
        (_, Some(column)) => (column, b.op.swap()?, whole(&b.left)?),
        _ => return None,
    };
    let most = match op {
        Operator::LtEq | Operator::Eq => limit,
        Operator::Lt => limit.saturating_sub(1),
        _ => return None,
    };
    Some((column, u64::try_from(most).unwrap_or(0)))
}

/// A column of whole numbers, perhaps as another type of numbers.
fn number_column(expr: &Expr, schema: &DFSchema) -> Option<usize> {
    match expr {
        Expr::Cast(cast) if cast.field.data_type().is_numeric() => number_column(&cast.expr, schema),
        _ => column_of(expr, schema).filter(|at| schema.field(*at).data_type() == &DataType::UInt64),
    }
}

/// A constant that is a whole number.
fn whole(expr: &Expr) -> Option<i64> {
    let Expr::Literal(value, _) = expr else { return None };
    match value.cast_to(&DataType::Int64).ok()? {
        ScalarValue::Int64(Some(whole)) => {
            let back = ScalarValue::Int64(Some(whole)).cast_to(&value.data_type()).ok()?;
            (back == *value).then_some(whole)
        }
        _ => None,
    }
}
