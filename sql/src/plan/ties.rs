//! `FETCH FIRST n ROWS [ONLY | WITH TIES]`.
//!
//! The planner knows no FETCH (DataFusion 55). Without ties it is a LIMIT; with ties it is a LIMIT that says so, of which comes, as for
//! every first row, a number:
//!
//! ```text
//! Limit: with ties(3)              Sort: b
//!   Sort: b                 ->       Projection: a, b
//!                                      Filter: r <= 3
//!                                        Window: rank() OVER (ORDER BY b) AS r
//! ```

use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::tree_node::Transformed;
use datafusion::common::{DataFusionError, ScalarValue};
use datafusion::error::Result as DfResult;
use datafusion::functions_window::rank::rank_udwf;
use datafusion::functions_window::row_number::row_number_udwf;
use datafusion::logical_expr::expr::WindowFunction;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ExprFunctionExt, Filter, Limit, LogicalPlan, Projection, ScalarFunctionArgs, ScalarUDF,
    ScalarUDFImpl, Signature, Sort, Volatility, Window, cast, ident, lit,
};
use datafusion::sql::sqlparser::ast::{self, LimitClause, Query, Value, VisitMut, VisitorMut};

use super::syntax::call;
use crate::error::Error;

/// What marks a limit; nobody's function has a blank in its name.
const MARK: &str = "with ties";
const RANK: &str = "__rank";
const ROW: &str = "__row";

/// Makes limits of the FETCH clauses in `syntax`; which there may be `check_query` has said.
pub(super) fn as_limits(syntax: &mut impl VisitMut) {
    let _ = syntax.visit(&mut Fetches);
}

struct Fetches;

impl VisitorMut for Fetches {
    type Break = ();

    fn post_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        let Some(fetch) = query.fetch.take() else { return ControlFlow::Continue(()) };
        let one = || ast::Expr::Value(Value::Number("1".to_owned(), false).with_empty_span());
        let rows = fetch.quantity.unwrap_or_else(one);
        let most = if fetch.with_ties { call(MARK, vec![rows]) } else { rows };
        let offset = match query.limit_clause.take() {
            Some(LimitClause::LimitOffset { offset, .. }) => offset,
            _ => None,
        };
        query.limit_clause = Some(LimitClause::LimitOffset { limit: Some(most), offset, limit_by: vec![] });
        ControlFlow::Continue(())
    }
}

/// The function that marks, if `name` is its name.
pub(super) fn mark(name: &str) -> Option<Arc<ScalarUDF>> {
    let with_ties = || WithTies { signature: Signature::any(1, Volatility::Immutable) };
    (name == MARK).then(|| Arc::new(ScalarUDF::new_from_impl(with_ties())))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct WithTies {
    signature: Signature,
}

impl ScalarUDFImpl for WithTies {
    fn name(&self) -> &str {
        MARK
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arg_types: &[DataType]) -> DfResult<DataType> {
        Ok(DataType::Int64)
    }

    fn invoke_with_args(&self, _args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        Err(DataFusionError::Plan("WITH TIES stands behind FETCH FIRST n ROWS only".to_owned()))
    }
}

/// `plan`, as the planner made it, with rows that tie found by their ranks.
pub(super) fn ranked(plan: LogicalPlan) -> DfResult<LogicalPlan> {
    let with = plan.transform_up_with_subqueries(|plan| match plan {
        LogicalPlan::Limit(limit) => match most(&limit) {
            Some(most) => Ok(Transformed::yes(with_ties(&limit.input, most, limit.skip.as_deref())?)),
            None => Ok(Transformed::no(LogicalPlan::Limit(limit))),
        },
        plan => Ok(Transformed::no(plan)),
    })?;
    Ok(with.data)
}

/// How many rows a limit with ties gives at least.
fn most(limit: &Limit) -> Option<Expr> {
    match limit.fetch.as_deref()? {
        Expr::ScalarFunction(f) if f.name() == MARK => f.args.first().cloned(),
        _ => None,
    }
}

fn with_ties(plan: &LogicalPlan, most: Expr, skip: Option<&Expr>) -> DfResult<LogicalPlan> {
    match plan {
        // Columns that are not given are ordered by, too.
        LogicalPlan::Projection(p) => {
            let input = Arc::new(with_ties(&p.input, most, skip)?);
            Ok(LogicalPlan::Projection(Projection::try_new_with_schema(p.expr.clone(), input, Arc::clone(&p.schema))?))
        }
        LogicalPlan::Sort(sort) => ranks(sort, most, skip),
        other => Err(DataFusionError::Internal(format!("WITH TIES over {}", other.display()))),
    }
}

fn ranks(sort: &Sort, most: Expr, skip: Option<&Expr>) -> DfResult<LogicalPlan> {
    let most = count(most)?;
    let last = match skip {
        Some(skip) => count(skip.clone())? + most,
        None => most,
    };
    let number = |function, name: &str| {
        let call = Expr::from(WindowFunction::new(function, vec![])).order_by(sort.expr.clone()).build()?;
        Ok::<_, DataFusionError>(call.alias(name))
    };
    let mut calls = vec![number(rank_udwf(), RANK)?];
    let mut wanted = ident(RANK).lt_eq(last);
    if let Some(skip) = skip {
        calls.push(number(row_number_udwf(), ROW)?);
        wanted = wanted.and(ident(ROW).gt(count(skip.clone())?));
    }
    let window = LogicalPlan::Window(Window::try_new(calls, Arc::clone(&sort.input))?);
    let rows = LogicalPlan::Filter(Filter::try_new(wanted, Arc::new(window))?);
    let schema = sort.input.schema();
    let columns = schema.iter().map(Expr::from).collect();
    let rows = LogicalPlan::Projection(Projection::try_new_with_schema(columns, Arc::new(rows), Arc::clone(schema))?);
    let sorted = LogicalPlan::Sort(Sort { input: Arc::new(rows), ..sort.clone() });
    // An order that belongs to a limit, if to one of all rows.
    Ok(LogicalPlan::Limit(Limit { skip: None, fetch: None, input: Arc::new(sorted) }))
}

/// A number of rows, as rows are numbered.
fn count(rows: Expr) -> DfResult<Expr> {
    match &rows {
        Expr::Literal(value, _) => match value.cast_to(&DataType::UInt64) {
            Ok(ScalarValue::UInt64(Some(rows))) => Ok(lit(rows)),
            _ => Err(Error::invalid(format!("FETCH FIRST {value} ROWS: this is no number of rows")).into()),
        },
        _ => Ok(cast(rows, DataType::UInt64)),
    }
}
