//! The types in which numbers of different types meet.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRewriter};
use datafusion::common::{Column, DFSchema, ScalarValue};
use datafusion::error::Result as DfResult;
use datafusion::logical_expr::expr::{
    AggregateFunction, Alias, Between, InList, InSubquery, ScalarFunction, SetComparison, WindowFunction,
    WindowFunctionDefinition,
};
use datafusion::logical_expr::expr_schema::cast_subquery;
use datafusion::logical_expr::type_coercion::functions::fields_with_udf;
use datafusion::logical_expr::{
    BinaryExpr, Case, Cast, Expr, ExprSchemable, LogicalPlan, Operator, Projection, TryCast, Union, Values,
};
use datafusion::optimizer::analyzer::type_coercion::TypeCoercionRewriter;

use super::arithmetic::of_decimals;
use super::digits::{Digits, MAX_DIGITS};
use super::floats::{doubled, is_float};
use super::literals::{decimal_of, double_of};
use super::loose::strict;
use super::nearest::nearest;

/// Functions that keep each argument's own type.
const KEEP_APART: [&str; 9] =
    ["named_struct", "struct", "row", "map", "make_map", "concat", "concat_ws", "arrow_typeof", "arrow_cast"];

/// Gives an expression the types of the table, from its leaves up, and then DataFusion's.
pub(super) struct Typing<'a> {
    schema: &'a DFSchema,
    coercion: TypeCoercionRewriter<'a>,
    /// What is known of the expressions that are done and whose parents are not, the last on top.
    done: Vec<Option<FieldRef>>,
    /// How many were done when each expression that is not done was begun.
    begun: Vec<usize>,
}

impl<'a> Typing<'a> {
    pub(super) fn new(schema: &'a DFSchema) -> Self {
        Typing { schema, coercion: TypeCoercionRewriter::new(schema), done: vec![], begun: vec![] }
    }

    fn node(&self, expr: Expr) -> DfResult<Expr> {
        Ok(match expr {
            Expr::BinaryExpr(binary) => self.binary(binary),
            Expr::Between(Between { mut expr, negated, mut low, mut high }) => {
                self.compared(&mut [&mut *expr, &mut *low, &mut *high]);
                Expr::Between(Between { expr, negated, low, high })
            }
            Expr::InList(InList { mut expr, mut list, negated }) => {
                let mut all: Vec<&mut Expr> = std::iter::once(&mut *expr).chain(&mut list).collect();
                self.compared(&mut all);
                Expr::InList(InList { expr, list, negated })
            }
            Expr::Case(case) => self.case(case),
            Expr::ScalarFunction(ScalarFunction { func, mut args }) => {
                let func = strict(func);
                self.arguments(func.name(), &mut args, |fields| fields_with_udf(fields, func.as_ref()));
                Expr::ScalarFunction(ScalarFunction { func, args })
            }
            Expr::AggregateFunction(AggregateFunction { func, mut params }) => {
                self.arguments(func.name(), &mut params.args, |fields| fields_with_udf(fields, func.as_ref()));
                Expr::AggregateFunction(AggregateFunction { func, params })
            }
            Expr::WindowFunction(function) => {
                let WindowFunction { fun, mut params } = *function;
                let coerced = |fields: &[FieldRef]| match &fun {
                    WindowFunctionDefinition::AggregateUDF(f) => fields_with_udf(fields, f.as_ref()),
                    WindowFunctionDefinition::WindowUDF(f) => fields_with_udf(fields, f.as_ref()),
                };
                self.arguments(fun.name(), &mut params.args, coerced);
                Expr::WindowFunction(Box::new(WindowFunction { fun, params }))
            }
            Expr::Cast(Cast { expr, field }) => match self.cast(&expr, &field, false) {
                Some(cast) => cast,
                None => Expr::Cast(Cast { expr, field }),
            },
            Expr::TryCast(TryCast { expr, field }) => match self.cast(&expr, &field, true) {
                Some(cast) => cast,
                None => Expr::TryCast(TryCast { expr, field }),
            },
            Expr::InSubquery(InSubquery { mut expr, mut subquery, negated }) => {
                self.against(&mut expr, &mut subquery)?;
                Expr::InSubquery(InSubquery { expr, subquery, negated })
            }
            Expr::SetComparison(SetComparison { mut expr, mut subquery, op, quantifier }) => {
                self.against(&mut expr, &mut subquery)?;
                Expr::SetComparison(SetComparison { expr, subquery, op, quantifier })
            }
            other => other,
        })
    }

    /// None where DataFusion cannot tell it either: it then says why.
    fn type_of(&self, expr: &Expr) -> Option<DataType> {
        expr.get_type(self.schema).ok()
    }

    fn binary(&self, BinaryExpr { mut left, op, mut right }: BinaryExpr) -> Expr {
        use Operator::*;
        match op {
            Eq | NotEq | Lt | LtEq | Gt | GtEq | IsDistinctFrom | IsNotDistinctFrom => {
                self.compared(&mut [&mut *left, &mut *right]);
            }
            Plus | Minus | Multiply | Divide | Modulo => {
                let types = (self.type_of(&left), self.type_of(&right));
                if let (Some(l), Some(r)) = &types {
                    // A span of time is multiplied by a float, as DataFusion has it.
                    let apart =
                        |t: &DataType| is_float(t) || matches!(t, DataType::Interval(_) | DataType::Duration(_));
                    if apart(l) {
                        *right = as_double(std::mem::take(&mut *right), r);
                    } else if apart(r) {
                        *left = as_double(std::mem::take(&mut *left), l);
                    } else if (l.is_decimal() || r.is_decimal())
                        && let (Some(dl), Some(dr)) = (Digits::of(l), Digits::of(r))
                        && let Some(result) = of_decimals(&left, dl, op, &right, dr)
                    {
                        return result;
                    }
                }
            }
            _ => {}
        }
        Expr::BinaryExpr(BinaryExpr { left, op, right })
    }

    fn case(&self, mut case: Case) -> Expr {
        if let Some(operand) = &mut case.expr {
            let whens = case.when_then_expr.iter_mut().map(|(when, _)| &mut **when);
            let mut all: Vec<&mut Expr> = std::iter::once(&mut **operand).chain(whens).collect();
            self.compared(&mut all);
        }
        let thens = case.when_then_expr.iter_mut().map(|(_, then)| &mut **then);
        let mut all: Vec<&mut Expr> = thens.chain(case.else_expr.as_deref_mut()).collect();
        self.as_results(&mut all);
        Expr::Case(case)
    }

    /// Expressions of which the result is one.
    fn as_results(&self, exprs: &mut [&mut Expr]) {
        let Some(types) = exprs.iter().map(|e| self.type_of(e)).collect::<Option<Vec<_>>>() else { return };
        if types.iter().any(is_float) {
            for (expr, data_type) in exprs.iter_mut().zip(&types) {
                **expr = as_double(std::mem::take(*expr), data_type);
            }
        }
    }

    /// Expressions that are compared with each other.
    fn compared(&self, exprs: &mut [&mut Expr]) {
        self.as_results(exprs);
        let types = |exprs: &[&mut Expr]| exprs.iter().map(|e| self.type_of(e)).collect::<Option<Vec<_>>>();
        match types(exprs) {
            Some(types) if types.iter().any(DataType::is_decimal) => {}
            _ => return,
        }
        for expr in exprs.iter_mut() {
            // As a type it would be rounded to the digits of the other side.
            if let Expr::Literal(ScalarValue::Utf8(Some(s)) | ScalarValue::Utf8View(Some(s)), metadata) = &**expr
                && let Some(value) = decimal_of(s)
            {
                **expr = Expr::Literal(value, metadata.clone());
            }
        }
        let Some(types) = types(exprs) else { return };
        let digits: Vec<Digits> = types.iter().filter_map(Digits::of).collect();
        let (whole, scale) = (digits.iter().map(|d| d.whole()).max(), digits.iter().map(|d| d.scale).max());
        let (Some(whole), Some(scale)) = (whole, scale) else { return };
        let common = Digits { precision: whole + scale, scale };
        if common.precision <= i16::from(MAX_DIGITS) || scale < 0 {
            return;
        }
        for (expr, data_type) in exprs.iter_mut().zip(&types) {
            if Digits::of(data_type).is_some() {
                **expr = Expr::Cast(Cast::new(Box::new(std::mem::take(*expr)), common.wide()));
            }
        }
    }

    /// The arguments of a function, of which `coerced` gives the fields that it takes.
    fn arguments(&self, name: &str, args: &mut [Expr], coerced: impl Fn(&[FieldRef]) -> DfResult<Vec<FieldRef>>) {
        if !KEEP_APART.contains(&name) {
            self.as_results(&mut args.iter_mut().collect::<Vec<_>>());
        }
        if !args.iter().any(|arg| matches!(arg, Expr::Literal(v, _) if double_of(v).is_some())) {
            return;
        }
        let fields = args.iter().map(|arg| Ok(arg.to_field(self.schema)?.1)).collect::<DfResult<Vec<_>>>();
        let Ok(fields) = fields.and_then(|fields| coerced(&fields)) else { return };
        for (arg, field) in args.iter_mut().zip(fields) {
            if field.data_type() == &DataType::Float64
                && let Expr::Literal(value, metadata) = &*arg
                && let Some(double) = double_of(value)
            {
                *arg = Expr::Literal(ScalarValue::Float64(Some(double)), metadata.clone());
            }
        }
    }

    /// A cast that is written, where it is not what arrow does.
    fn cast(&self, inner: &Expr, to: &FieldRef, quiet: bool) -> Option<Expr> {
        let from = self.type_of(inner)?;
        let cast = |expr: Expr, to: FieldRef| match quiet {
            true => Expr::TryCast(TryCast { expr: Box::new(expr), field: to }),
            false => Expr::Cast(Cast { expr: Box::new(expr), field: to }),
        };
        match (&from, to.data_type()) {
            (from, DataType::Float64) if from.is_decimal() => match inner {
                Expr::Literal(value, metadata) => {
                    Some(Expr::Literal(ScalarValue::Float64(Some(double_of(value)?)), metadata.clone()))
                }
                _ => None,
            },
            (DataType::Float32 | DataType::Float64, t) if t.is_integer() => {
                Some(cast(nearest(inner.clone()), Arc::clone(to)))
            }
            (DataType::Decimal128(p, s), t) if t.is_integer() && *s > 0 => {
                let whole = Arc::new(Field::new("", DataType::Decimal128(*p, 0), true));
                Some(cast(cast(inner.clone(), whole), Arc::clone(to)))
            }
            _ => None,
        }
    }

    /// A value and the subquery that it is compared with.
    fn against(
        &self,
        expr: &mut Expr,
        subquery: &mut datafusion::logical_expr::logical_plan::Subquery,
    ) -> DfResult<()> {
        let Some(left) = self.type_of(expr) else { return Ok(()) };
        let right = subquery.subquery.schema().field(0).data_type().clone();
        if is_float(&left) && right.is_decimal() {
            *subquery = cast_subquery(subquery.clone(), &DataType::Float64)?;
        } else if left.is_decimal() && is_float(&right) {
            *expr = as_double(std::mem::take(expr), &left);
        }
        Ok(())
    }
}

impl TreeNodeRewriter for Typing<'_> {
    type Node = Expr;

    fn f_down(&mut self, expr: Expr) -> DfResult<Transformed<Expr>> {
        self.begun.push(self.done.len());
        Ok(Transformed::no(expr))
    }

    fn f_up(&mut self, expr: Expr) -> DfResult<Transformed<Expr>> {
        let operands = self.done.split_off(self.begun.pop().unwrap_or_default());
        let (expr, field) = match expr {
            Expr::BinaryExpr(binary) => self.chained(binary, &operands)?,
            expr => (self.both(expr)?, None),
        };
        self.done.push(field);
        Ok(Transformed::yes(expr))
    }
}

impl Typing<'_> {
    fn both(&mut self, expr: Expr) -> DfResult<Expr> {
        let expr = self.node(expr)?;
        Ok(self.coercion.f_up(expr)?.data)
    }

    /// An operator, and the field of its result. Operands of which that is known are not looked into: finding the types of a sum of
    /// thousands of terms again at each of its operators would take a minute.
    fn chained(&mut self, mut binary: BinaryExpr, operands: &[Option<FieldRef>]) -> DfResult<(Expr, Option<FieldRef>)> {
        let mut kept: Vec<Option<Expr>> = vec![];
        for (operand, field) in [&mut binary.left, &mut binary.right].into_iter().zip(operands) {
            kept.push(field.as_ref().map(|field| {
                let name = vec![STAND_IN.to_owned(), kept.len().to_string()];
                std::mem::replace(&mut **operand, Expr::ScalarVariable(Arc::clone(field), name))
            }));
        }
        let expr = self.both(Expr::BinaryExpr(binary))?;
        let field = expr.to_field(self.schema).ok().map(|(_, field)| Arc::new(Field::clone(&field).with_name("")));
        let back = |e: Expr| match &e {
            Expr::ScalarVariable(_, name) if name[0] == STAND_IN => {
                let operand = name[1].parse().ok().and_then(|i: usize| kept.get_mut(i)?.take());
                Ok(Transformed::yes(operand.unwrap_or(e)))
            }
            _ => Ok(Transformed::no(e)),
        };
        Ok((expr.transform_up(back)?.data, field))
    }
}

/// The name of what stands for an operand that is done.
const STAND_IN: &str = "an operand";

/// `expr` of `data_type` as a double, if it is a decimal.
fn as_double(expr: Expr, data_type: &DataType) -> Expr {
    if let Expr::Literal(value, metadata) = &expr
        && let Some(double) = double_of(value)
    {
        return Expr::Literal(ScalarValue::Float64(Some(double)), metadata.clone());
    }
    match doubled(data_type) {
        Some(to) => Expr::Cast(Cast::new(Box::new(expr), to)),
        None => expr,
    }
}

/// Aligns what stands in one column or is compared without an expression of its own: VALUES, UNION, the keys of a join.
pub(super) fn align_rows(plan: LogicalPlan) -> DfResult<LogicalPlan> {
    match plan {
        LogicalPlan::Values(values) => Ok(LogicalPlan::Values(align_values(values)?)),
        LogicalPlan::Union(mut union) => {
            let mut changed = false;
            for column in 0..union.schema.fields().len() {
                let types = union.inputs.iter().map(|i| i.schema().field(column).data_type().clone());
                let types: Vec<DataType> = types.collect();
                if types.iter().any(is_float) {
                    for (input, data_type) in union.inputs.iter_mut().zip(&types) {
                        if doubled(data_type).is_some() {
                            *input = Arc::new(double_column(Arc::clone(input), column)?);
                            changed = true;
                        }
                    }
                }
            }
            // The schema had the types of the first input, which DataFusion's coercion starts from.
            Ok(LogicalPlan::Union(if changed { Union::try_new_with_loose_types(union.inputs)? } else { union }))
        }
        LogicalPlan::Join(mut join) => {
            for (left, right) in &mut join.on {
                let (l, r) = (left.get_type(join.left.schema())?, right.get_type(join.right.schema())?);
                if is_float(&l) {
                    *right = as_double(std::mem::take(right), &r);
                } else if is_float(&r) {
                    *left = as_double(std::mem::take(left), &l);
                }
            }
            Ok(LogicalPlan::Join(join))
        }
        plan => Ok(plan),
    }
}

/// A plan with one of its columns as a double, of the same name.
fn double_column(input: Arc<LogicalPlan>, place: usize) -> DfResult<LogicalPlan> {
    let columns = input.schema().iter().enumerate().map(|(i, (relation, field))| {
        let column = Expr::Column(Column::from((relation, field)));
        if i != place {
            return column;
        }
        let double = as_double(column, field.data_type());
        Expr::Alias(Alias::new(double, relation.cloned(), field.name()))
    });
    Ok(LogicalPlan::Projection(Projection::try_new(columns.collect(), Arc::clone(&input))?))
}

/// A column of VALUES that has a double among decimals is one of doubles. The planner has cast its cells to decimals.
fn align_values(values: Values) -> DfResult<Values> {
    let none = DFSchema::empty();
    let Values { schema, mut values } = values;
    let mut fields: Vec<_> = schema.iter().map(|(relation, field)| (relation.cloned(), Arc::clone(field))).collect();
    for (place, (_, field)) in fields.iter_mut().enumerate() {
        if !field.data_type().is_decimal() {
            continue;
        }
        let given = |cell: &Expr| match cell {
            Expr::Cast(cast) if cast.field.data_type() == field.data_type() => cast.expr.get_type(&none),
            cell => cell.get_type(&none),
        };
        let cells = values.iter().filter_map(|row| row.get(place));
        if !cells.map(given).collect::<DfResult<Vec<_>>>()?.iter().any(DataType::is_floating) {
            continue;
        }
        for cell in values.iter_mut().filter_map(|row| row.get_mut(place)) {
            let given = match std::mem::take(cell) {
                Expr::Cast(cast) if cast.field.data_type() == field.data_type() => *cast.expr,
                cell => cell,
            };
            let data_type = given.get_type(&none)?;
            *cell = as_double(given, &data_type).cast_to(&DataType::Float64, &none)?;
        }
        *field = Arc::new(field.as_ref().clone().with_data_type(DataType::Float64));
    }
    let schema = DFSchema::new_with_metadata(fields, schema.metadata().clone())?;
    Ok(Values { schema: Arc::new(schema), values })
}
