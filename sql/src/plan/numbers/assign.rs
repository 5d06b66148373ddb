//! Values on their way into a column: cast to its type, but a fraction is not lost to an integer.
//!
//! DataFusion plans the casts of INSERT as if they had been written. [`assign_columns`] finds them, in the projection
//! on top and in the cells of VALUES, and puts a function of ours in their place.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, BooleanBufferBuilder};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{
    ArrowNativeType, ArrowNativeTypeOp, DataType, Decimal32Type, Decimal64Type, Decimal128Type, Decimal256Type,
    DecimalType, FieldRef, Fields, Float32Type, Float64Type,
};
use arrow::util::display::array_value_to_string;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::utils::take_function_args;
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::error::Result as DfResult;
use datafusion::logical_expr::expr::Alias;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ExprSchemable, LogicalPlan, Projection, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl,
    Signature, Values, Volatility,
};

use super::literals::double_of;
use crate::error::{Error, Result};

/// Errors with the first value that would lose its fraction to an integer. `column` is how an error calls the column.
fn refuse_loss(values: &ArrayRef, to: &DataType, column: &str) -> Result<()> {
    match lost(values, to, None) {
        None => Ok(()),
        Some(value) => Err(Error::invalid(format!("{column}: {value} is not a whole number"))
            .with_hint("Write round(…) or trunc(…) around it, or make the column a DECIMAL or a DOUBLE.")),
    }
}

/// The first value with a fraction that goes to an integer; of those below a null or outside `live` none counts.
pub(crate) fn lost(values: &ArrayRef, to: &DataType, live: Option<&NullBuffer>) -> Option<String> {
    if let Some(pairs) = children(values, to, live) {
        return pairs.into_iter().find_map(|(child, to, live)| lost(&child, &to, live.as_ref()));
    }
    if !to.is_integer() {
        return None;
    }
    let row = match values.data_type() {
        DataType::Float32 => first::<Float32Type>(values, live, |v| v.is_finite() && v.fract() != 0.0),
        DataType::Float64 => first::<Float64Type>(values, live, |v| v.is_finite() && v.fract() != 0.0),
        DataType::Decimal32(_, s) => cut::<Decimal32Type>(values, live, *s),
        DataType::Decimal64(_, s) => cut::<Decimal64Type>(values, live, *s),
        DataType::Decimal128(_, s) => cut::<Decimal128Type>(values, live, *s),
        DataType::Decimal256(_, s) => cut::<Decimal256Type>(values, live, *s),
        _ => None,
    }?;
    Some(array_value_to_string(values, row).unwrap_or_default())
}

/// The arrays below a nested one with the types they go to and their rows that count.
type Children = Vec<(ArrayRef, DataType, Option<NullBuffer>)>;

fn children(values: &ArrayRef, to: &DataType, live: Option<&NullBuffer>) -> Option<Children> {
    let live = NullBuffer::union(values.nulls(), live);
    let list = |f: &FieldRef, child: &ArrayRef, ranges: &mut dyn Iterator<Item = (usize, usize)>| {
        let mut reached = BooleanBufferBuilder::new(child.len());
        reached.append_n(child.len(), false);
        for (row, (start, end)) in ranges.enumerate() {
            if live.as_ref().is_none_or(|l| l.is_valid(row)) {
                (start..end).for_each(|i| reached.set_bit(i, true));
            }
        }
        vec![(Arc::clone(child), f.data_type().clone(), Some(NullBuffer::new(reached.finish())))]
    };
    let pairs = |o: &[i32]| o.windows(2).map(|w| (w[0] as usize, w[1] as usize)).collect::<Vec<_>>();
    let long_pairs = |o: &[i64]| o.windows(2).map(|w| (w[0] as usize, w[1] as usize)).collect::<Vec<_>>();
    Some(match (values.data_type(), to) {
        (DataType::Struct(from), DataType::Struct(fields)) => {
            let columns = values.as_struct().columns();
            let places = fields.iter().enumerate().filter_map(|(i, f)| Some((place(from, f, i, fields)?, f)));
            places
                .filter_map(|(at, f)| Some((Arc::clone(columns.get(at)?), f.data_type().clone(), live.clone())))
                .collect()
        }
        (DataType::List(_), DataType::List(f) | DataType::LargeList(f) | DataType::FixedSizeList(f, _)) => {
            let from = values.as_list::<i32>();
            list(f, from.values(), &mut pairs(from.value_offsets()).into_iter())
        }
        (DataType::LargeList(_), DataType::List(f) | DataType::LargeList(f) | DataType::FixedSizeList(f, _)) => {
            let from = values.as_list::<i64>();
            list(f, from.values(), &mut long_pairs(from.value_offsets()).into_iter())
        }
        (DataType::FixedSizeList(_, n), DataType::List(f) | DataType::LargeList(f) | DataType::FixedSizeList(f, _)) => {
            let n = usize::try_from(*n).unwrap_or_default();
            list(f, values.as_fixed_size_list().values(), &mut (0..values.len()).map(|i| (i * n, (i + 1) * n)))
        }
        (DataType::Map(_, _), DataType::Map(f, _)) => {
            let from = values.as_map();
            let entries: ArrayRef = Arc::new(from.entries().clone());
            list(f, &entries, &mut pairs(from.value_offsets()).into_iter())
        }
        _ => return None,
    })
}

/// The place of field `to`, the `i`-th of `all`, in `from`: by name if all names are there, else by position.
fn place(from: &Fields, to: &FieldRef, i: usize, all: &Fields) -> Option<usize> {
    let by_name = all.iter().all(|f| from.find(f.name()).is_some());
    if by_name { from.find(to.name()).map(|(at, _)| at) } else { (i < from.len()).then_some(i) }
}

fn first<T: ArrowPrimitiveType>(
    values: &ArrayRef,
    live: Option<&NullBuffer>,
    lost: impl Fn(T::Native) -> bool,
) -> Option<usize> {
    let live = NullBuffer::union(values.nulls(), live);
    let mut values = values.as_primitive::<T>().values().iter().enumerate();
    values.find(|(i, v)| lost(**v) && live.as_ref().is_none_or(|l| l.is_valid(*i))).map(|(i, _)| i)
}

/// The first decimal with a digit behind the point.
fn cut<T: DecimalType>(values: &ArrayRef, live: Option<&NullBuffer>, scale: i8) -> Option<usize> {
    let digits = u32::try_from(scale).ok().filter(|d| *d > 0)?;
    let Ok(unit) = T::Native::usize_as(10).pow_checked(digits) else {
        return first::<T>(values, live, |v| !v.is_zero());
    };
    first::<T>(values, live, |v| v.mod_checked(unit).is_ok_and(|rest| !rest.is_zero()))
}

/// A cast into a column.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Assign {
    to: DataType,
    /// How an error calls the column.
    column: String,
    signature: Signature,
}

impl ScalarUDFImpl for Assign {
    fn name(&self) -> &str {
        "assign"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> DfResult<DataType> {
        Ok(self.to.clone())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let [value] = take_function_args(self.name(), args.args)?;
        let values = match &value {
            ColumnarValue::Array(array) => Arc::clone(array),
            ColumnarValue::Scalar(scalar) => scalar.to_array()?,
        };
        refuse_loss(&values, &self.to, &self.column)?;
        let fits = value.cast_to(&self.to, None);
        Ok(fits.map_err(|e| {
            Error::from(e).context(self.column.clone()).with_hint("Write a value of the column's type.")
        })?)
    }
}

fn assign(expr: Expr, to: &DataType, column: &str, stream: &str) -> Expr {
    if matches!(&expr, Expr::Literal(ScalarValue::Null, _)) {
        return expr.cast_to(to, &DFSchema::empty()).unwrap_or(Expr::Literal(ScalarValue::Null, None));
    }
    if let (Expr::Literal(value, metadata), DataType::Float64) = (&expr, to)
        && let Some(double) = double_of(value)
    {
        return Expr::Literal(ScalarValue::Float64(Some(double)), metadata.clone());
    }
    let column = format!("column \"{column}\" of stream \"{stream}\"");
    let function = Assign { to: to.clone(), column, signature: Signature::any(1, Volatility::Immutable) };
    ScalarUDF::new_from_impl(function).call(vec![expr])
}

/// The input of an INSERT into `stream` as it was planned, with assignments for casts.
pub(crate) fn assign_columns(plan: LogicalPlan, stream: &str) -> Result<LogicalPlan> {
    let LogicalPlan::Projection(Projection { expr, input, .. }) = plan else {
        return Err(Error::internal("an INSERT without its columns"));
    };
    // What the columns of the source are called in the stream.
    let mut targets: HashMap<String, String> = HashMap::new();
    let mut exprs = Vec::with_capacity(expr.len());
    for expr in expr {
        let Expr::Alias(Alias { expr, relation, name, metadata }) = expr else {
            return Err(Error::internal("a column of an INSERT without a name"));
        };
        let expr = match *expr {
            Expr::Cast(cast) if matches!(&*cast.expr, Expr::Column(_)) => {
                assign(*cast.expr, cast.field.data_type(), &name, stream)
            }
            Expr::Column(column) => {
                targets.insert(column.name.clone(), name.clone());
                Expr::Column(column)
            }
            other => other,
        };
        exprs.push(Expr::Alias(Alias { expr: Box::new(expr), relation, name, metadata }));
    }
    let input = Arc::unwrap_or_clone(input).transform_down(|plan| match plan {
        LogicalPlan::Values(values) => Ok(Transformed::yes(assign_cells(values, &targets, stream))),
        plan => Ok(Transformed::no(plan)),
    })?;
    Ok(LogicalPlan::Projection(Projection::try_new(exprs, Arc::new(input.data))?))
}

/// `plan`, a projection, with assignments around its last expressions, to `targets`: the columns of `stream` by name and type. Where
/// one is `guarded`, what it gives is assigned within its CASE.
pub(crate) fn assign_last(
    plan: LogicalPlan,
    targets: &[(&str, &DataType)],
    stream: &str,
    guarded: bool,
) -> Result<LogicalPlan> {
    let LogicalPlan::Projection(Projection { mut expr, input, .. }) = plan else {
        return Err(Error::internal("a change without its columns"));
    };
    let first = expr.len().saturating_sub(targets.len());
    for (expr, (column, to)) in expr[first..].iter_mut().zip(targets) {
        let Expr::Alias(alias) = expr else { return Err(Error::internal("a value without a name")) };
        match (guarded, alias.expr.as_mut()) {
            (true, Expr::Case(case)) => {
                for (_, then) in &mut case.when_then_expr {
                    **then = assign(std::mem::take(then.as_mut()), to, column, stream);
                }
            }
            (_, value) => *value = assign(std::mem::take(value), to, column, stream),
        }
    }
    Ok(LogicalPlan::Projection(Projection::try_new(expr, input)?))
}

fn assign_cells(values: Values, targets: &HashMap<String, String>, stream: &str) -> LogicalPlan {
    let none = DFSchema::empty();
    let Values { schema, values } = values;
    let cell = |(cell, field): (Expr, &FieldRef)| {
        let (name, to) = (field.name(), field.data_type());
        let column = targets.get(name).unwrap_or(name);
        match cell {
            Expr::Cast(cast) if cast.field.data_type() == to => assign(*cast.expr, to, column, stream),
            cell => match cell.get_type(&none) {
                Ok(given) if &given != to => assign(cell, to, column, stream),
                _ => cell,
            },
        }
    };
    let row = |row: Vec<Expr>| row.into_iter().zip(schema.fields()).map(cell).collect();
    let values = values.into_iter().map(row).collect();
    // Whether a column takes NULL is asked where it is known by its name.
    let fields =
        schema.iter().map(|(table, field)| (table.cloned(), Arc::new(field.as_ref().clone().with_nullable(true))));
    let nullable = DFSchema::new_with_metadata(fields.collect(), schema.metadata().clone());
    let schema = nullable.map(Arc::new).unwrap_or(schema);
    LogicalPlan::Values(Values { schema, values })
}
