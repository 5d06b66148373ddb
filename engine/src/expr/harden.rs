//! Rewriting an expression so that a row decides alone whether it fails.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Schema};
use datafusion_common::Result as DfResult;
use datafusion_common::tree_node::{Transformed, TreeNode};
use datafusion_expr::Operator;
use datafusion_expr::binary::BinaryTypeCoercer;
use datafusion_physical_expr::aggregate::AggregateFunctionExpr;
use datafusion_physical_expr::expressions::{
    BinaryExpr, CaseExpr, CastExpr, Column, InListExpr, IsNotNullExpr, IsNullExpr, LikeExpr, Literal, NegativeExpr,
    NotExpr, TryCastExpr,
};
use datafusion_physical_expr::{PhysicalExpr, ScalarFunctionExpr};

use super::casts::always_casts;
use super::checked::{Fitting, Negative, may_not_fit};
use super::guarded::Guarded;
use super::logic::Logic;
use super::never_null::NeverNull;
use crate::error::Result;

/// `expr` over rows of `schema`, rewritten: see the module's text. Twice is as good as once.
pub fn harden(expr: Arc<dyn PhysicalExpr>, schema: &Schema) -> Result<Arc<dyn PhysicalExpr>> {
    let mut types = Types { schema, known: HashMap::new() };
    let hard = expr.clone().transform_up(|e| step(e, &mut types))?.data;
    Ok(if hard.nullable(schema)? && !expr.nullable(schema)? { NeverNull::around(hard) } else { hard })
}

/// An aggregate function with its arguments, and its filter.
pub type FilteredCall = (Arc<AggregateFunctionExpr>, Option<Arc<dyn PhysicalExpr>>);

/// An aggregate call with its filter, whose arguments are evaluated on the rows that pass the filter only.
pub fn harden_aggregate(
    function: &Arc<AggregateFunctionExpr>,
    filter: Option<Arc<dyn PhysicalExpr>>,
    schema: &Schema,
) -> Result<FilteredCall> {
    let filter = filter.map(|f| harden(f, schema)).transpose()?;
    let guard = |e: Arc<dyn PhysicalExpr>| -> Result<Arc<dyn PhysicalExpr>> {
        let e = harden(e, schema)?;
        Ok(match &filter {
            Some(filter) if e.downcast_ref::<Guarded>().is_none() && !is_infallible(&e, schema) => {
                Arc::new(Guarded::new(filter.clone(), e))
            }
            _ => e,
        })
    };
    let all = function.all_expressions();
    let args = all.args.iter().cloned().map(guard).collect::<Result<Vec<_>>>()?;
    let order = all.order_by_exprs.iter().cloned().map(guard).collect::<Result<Vec<_>>>()?;
    if args == all.args && order == all.order_by_exprs {
        return Ok((function.clone(), filter));
    }
    let rewritten = function.with_new_expressions(args, order);
    Ok((rewritten.map_or_else(|| function.clone(), Arc::new), filter))
}

/// The types of arithmetic that is done. Without them a sum of thousands of terms would be gone through again at each of
/// its operators.
struct Types<'a> {
    schema: &'a Schema,
    /// By address, each with the expression that has it.
    known: HashMap<*const (), (Arc<dyn PhysicalExpr>, DataType)>,
}

impl Types<'_> {
    fn of(&self, e: &Arc<dyn PhysicalExpr>) -> DfResult<DataType> {
        let known = self.known.get(&Arc::as_ptr(e).cast::<()>());
        known.map_or_else(|| e.data_type(self.schema), |(_, data_type)| Ok(data_type.clone()))
    }

    fn note(&mut self, e: &Arc<dyn PhysicalExpr>, data_type: DataType) {
        self.known.insert(Arc::as_ptr(e).cast::<()>(), (e.clone(), data_type));
    }
}

fn step(e: Arc<dyn PhysicalExpr>, types: &mut Types<'_>) -> DfResult<Transformed<Arc<dyn PhysicalExpr>>> {
    if let Some(binary) = e.downcast_ref::<BinaryExpr>() {
        return match binary.op() {
            op @ (Operator::And | Operator::Or) => Ok(logic(*op, &e, types.schema)),
            Operator::Plus | Operator::Minus | Operator::Multiply | Operator::Divide => arithmetic(&e, binary, types),
            _ => Ok(Transformed::no(e)),
        };
    }
    match e.downcast_ref::<NegativeExpr>() {
        Some(negative) => Ok(Transformed::yes(Negative::around(negative.arg().clone()))),
        None => Ok(Transformed::no(e)),
    }
}

fn arithmetic(
    e: &Arc<dyn PhysicalExpr>,
    binary: &BinaryExpr,
    types: &mut Types<'_>,
) -> DfResult<Transformed<Arc<dyn PhysicalExpr>>> {
    let (left, right) = (types.of(binary.left())?, types.of(binary.right())?);
    let data_type = BinaryTypeCoercer::new(&left, binary.op(), &right).get_result_type()?;
    let mut after = match binary.op() {
        Operator::Divide => e.clone(),
        _ => Arc::new(binary.clone().with_fail_on_overflow(true)),
    };
    if may_not_fit(&data_type) {
        after = Fitting::around(after);
    }
    types.note(&after, data_type);
    Ok(Transformed::new_transformed(after.clone(), !Arc::ptr_eq(e, &after)))
}

/// AND or OR of operands of which some may fail: those that cannot come first, they cost least.
fn logic(op: Operator, e: &Arc<dyn PhysicalExpr>, schema: &Schema) -> Transformed<Arc<dyn PhysicalExpr>> {
    let mut operands = vec![];
    flatten(op, e, &mut operands);
    let (sure, unsure): (Vec<_>, Vec<_>) = operands.into_iter().partition(|o| is_infallible(o, schema));
    if unsure.is_empty() {
        return Transformed::no(e.clone());
    }
    match Logic::new(op, sure.into_iter().chain(unsure).collect()) {
        Some(logic) => Transformed::yes(Arc::new(logic)),
        None => Transformed::no(e.clone()),
    }
}

fn flatten(op: Operator, e: &Arc<dyn PhysicalExpr>, operands: &mut Vec<Arc<dyn PhysicalExpr>>) {
    if let Some(binary) = e.downcast_ref::<BinaryExpr>().filter(|b| *b.op() == op) {
        flatten(op, binary.left(), operands);
        flatten(op, binary.right(), operands);
        return;
    }
    match e.downcast_ref::<Logic>().filter(|l| l.op == op) {
        Some(logic) => operands.extend(logic.children().into_iter().cloned()),
        None => operands.push(e.clone()),
    }
}

/// Whether `e` is known to have a value for every row. What is not known is taken to fail.
fn is_infallible(e: &Arc<dyn PhysicalExpr>, schema: &Schema) -> bool {
    let itself = if let Some(binary) = e.downcast_ref::<BinaryExpr>() {
        is_infallible_operator(binary, schema)
    } else if let Some(cast) = e.downcast_ref::<CastExpr>() {
        match (cast.expr().data_type(schema), e.data_type(schema)) {
            (Ok(from), Ok(to)) => always_casts(&from, &to),
            _ => false,
        }
    } else if let Some(function) = e.downcast_ref::<ScalarFunctionExpr>() {
        INFALLIBLE.contains(&function.fun().name())
    } else {
        e.downcast_ref::<Column>().is_some()
            || e.downcast_ref::<Literal>().is_some()
            || e.downcast_ref::<CaseExpr>().is_some()
            || e.downcast_ref::<InListExpr>().is_some()
            || e.downcast_ref::<IsNullExpr>().is_some()
            || e.downcast_ref::<IsNotNullExpr>().is_some()
            || e.downcast_ref::<LikeExpr>().is_some()
            || e.downcast_ref::<NotExpr>().is_some()
            || e.downcast_ref::<TryCastExpr>().is_some()
    };
    itself && e.children().into_iter().all(|child| is_infallible(child, schema))
}

/// Functions that have a value for every argument; those that are not listed may have too.
const INFALLIBLE: [&str; 17] = [
    "btrim",
    "canonical_float",
    "character_length",
    "contains",
    "date_part",
    "date_trunc",
    "ends_with",
    "get_field",
    "isnan",
    "lower",
    "ltrim",
    "nullif",
    "octet_length",
    "reverse",
    "rtrim",
    "starts_with",
    "upper",
];

fn is_infallible_operator(binary: &BinaryExpr, schema: &Schema) -> bool {
    use Operator::*;
    match binary.op() {
        And | Or | Eq | NotEq | Lt | LtEq | Gt | GtEq | IsDistinctFrom | IsNotDistinctFrom | BitwiseAnd | BitwiseOr
        | BitwiseXor | StringConcat | LikeMatch | ILikeMatch | NotLikeMatch | NotILikeMatch => true,
        // A pattern that is a constant was looked at when the query was planned.
        RegexMatch | RegexIMatch | RegexNotMatch | RegexNotIMatch => binary.right().downcast_ref::<Literal>().is_some(),
        Plus | Minus | Multiply | Divide | Modulo => {
            [binary.left(), binary.right()].iter().all(|e| e.data_type(schema).is_ok_and(|t| t.is_floating()))
        }
        _ => false,
    }
}
