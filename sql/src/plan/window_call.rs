//! Window functions as they are written: `TUMBLE(t, ts, size)`, by position or by name, and Flink's
//! `TABLE(TUMBLE(TABLE t, DESCRIPTOR(ts), size))`. `PARTITION BY` in a `SESSION` comes as its argument `partition`.

use std::sync::Arc;

use arrow::datatypes::{DataType, IntervalUnit};
use datafusion::common::{Column, DFSchema, ScalarValue};
use datafusion::error::Result as DfResult;
use datafusion::logical_expr::planner::{PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning};
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::{Expr, Extension, LogicalPlan, cast};
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use datafusion::sql::sqlparser::ast::{
    self, FunctionArg, FunctionArgExpr, FunctionArguments, ObjectName, Spanned, TableFactor, TableFunctionArgs,
};

use super::parameters::written_parameter;
use super::windows::{WindowAssign, WindowLength, WindowSpec};
use crate::error::{Error, Position, Result};
use crate::statement::fold;

/// Plans `TUMBLE`, `HOP`, `CUMULATE` and `SESSION` where a table stands.
#[derive(Debug)]
pub struct WindowFunctions;

impl RelationPlanner for WindowFunctions {
    fn plan_relation(
        &self,
        relation: TableFactor,
        context: &mut dyn RelationPlannerContext,
    ) -> DfResult<RelationPlanning> {
        // TABLE(f(…)) is f(…).
        let relation = match relation {
            TableFactor::TableFunction { expr: ast::Expr::Function(function), alias } => {
                match function_as_table(function)? {
                    TableFactor::Table { name, args, .. } => call(name, args, alias),
                    other => other,
                }
            }
            TableFactor::TableFunction { expr, .. } => {
                let error = Error::invalid(format!("TABLE({expr}) is not a call of a table function"));
                return Err(error.or_at(place(&expr)).into());
            }
            relation => relation,
        };
        let TableFactor::Table { name, args: Some(args), alias, .. } = &relation else {
            return Ok(RelationPlanning::Original(Box::new(relation)));
        };
        let Some(function) = WindowFunction::named(name) else {
            return Ok(RelationPlanning::Original(Box::new(relation)));
        };
        let node = plan_window(function, &args.args, context).map_err(|e| e.or_at(place(name)))?;
        let plan = LogicalPlan::Extension(Extension { node: Arc::new(node) });
        Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, alias.clone()))))
    }
}

fn place(node: &impl Spanned) -> Option<Position> {
    Position::from_location(node.span().start)
}

#[derive(Clone, Copy)]
enum WindowFunction {
    Tumble,
    Hop,
    Cumulate,
    Session,
}

impl WindowFunction {
    fn named(name: &ObjectName) -> Option<Self> {
        let [part] = name.0.as_slice() else { return None };
        match fold(part.as_ident()?).as_str() {
            "tumble" => Some(WindowFunction::Tumble),
            "hop" => Some(WindowFunction::Hop),
            "cumulate" => Some(WindowFunction::Cumulate),
            "session" => Some(WindowFunction::Session),
            _ => None,
        }
    }

    /// Its name, its arguments in order, and how it is written.
    fn signature(self) -> (&'static str, &'static [&'static str], &'static str) {
        match self {
            WindowFunction::Tumble => {
                ("TUMBLE", &["data", "timecol", "size", "offset"], "Write TUMBLE(t, ts, INTERVAL '10 seconds').")
            }
            WindowFunction::Hop => (
                "HOP",
                &["data", "timecol", "slide", "size", "offset"],
                "Write HOP(t, ts, slide, size), as in HOP(t, ts, INTERVAL '2 seconds', INTERVAL '10 seconds').",
            ),
            WindowFunction::Cumulate => (
                "CUMULATE",
                &["data", "timecol", "step", "size", "offset"],
                "Write CUMULATE(t, ts, step, size), as in CUMULATE(t, ts, INTERVAL '1 hour', INTERVAL '1 day').",
            ),
            WindowFunction::Session => (
                "SESSION",
                &["data", "timecol", "gap", "partition", "max"],
                "Write SESSION(t, ts, gap, PARTITION BY columns), as in SESSION(t, ts, INTERVAL '10 seconds', PARTITION BY k).",
            ),
        }
    }
}

fn plan_window(
    function: WindowFunction,
    args: &[FunctionArg],
    context: &mut dyn RelationPlannerContext,
) -> Result<WindowAssign> {
    let arguments = Arguments::read(function, args)?;
    let input = context.plan(as_table(arguments.required("data")?)?)?;
    let time = arguments.required("timecol")?;
    let time_column = time_column(function, time, &input, context)?;
    let mut length =
        |name: &str, expr: &ast::Expr| constant_length(function, name, expr, context).map_err(|e| e.or_at(place(expr)));
    let offset = match arguments.optional("offset") {
        Some(expr) => length("offset", expr)?,
        None => WindowLength::Micros(0),
    };
    let most = arguments.optional("max").map(|expr| length("max", expr)).transpose()?;
    let mut required = |name: &str| length(name, arguments.required(name)?);
    let spec = match function {
        WindowFunction::Hop => WindowSpec::Hop { slide: required("slide")?, size: required("size")?, offset },
        WindowFunction::Cumulate => WindowSpec::Cumulate { step: required("step")?, size: required("size")?, offset },
        WindowFunction::Tumble => WindowSpec::Tumble { size: required("size")?, offset },
        WindowFunction::Session => WindowSpec::Session { gap: required("gap")?, most },
    };
    let partition = match arguments.optional("partition") {
        Some(expr) => partition_columns(expr, &input, context)?,
        None => vec![],
    };
    WindowAssign::try_new(input, time_column, spec, partition).map_err(|e| e.or_at(place(time)))
}

/// The columns of `PARTITION BY a, b`, which is `partition => (a, b)`.
fn partition_columns(
    expr: &ast::Expr,
    input: &LogicalPlan,
    context: &mut dyn RelationPlannerContext,
) -> Result<Vec<Column>> {
    let parts: &[ast::Expr] = match expr {
        ast::Expr::Tuple(parts) => parts,
        ast::Expr::Nested(part) => std::slice::from_ref(part),
        part => std::slice::from_ref(part),
    };
    let mut columns = vec![];
    for part in parts {
        let not_a_column = || {
            Error::invalid(format!("PARTITION BY of SESSION has {part}, which is not a column"))
                .with_hint("Compute it in a subquery as the first argument.")
                .or_at(place(part))
        };
        if !matches!(part, ast::Expr::Identifier(_) | ast::Expr::CompoundIdentifier(_)) {
            return Err(not_a_column());
        }
        let planned = context.sql_to_expr(part.clone(), input.schema());
        match planned.map_err(|e| Error::from(e).or_at(place(part)))? {
            Expr::Column(column) if !columns.contains(&column) => columns.push(column),
            Expr::Column(_) => {}
            _ => return Err(not_a_column()),
        }
    }
    Ok(columns)
}

/// The arguments by name, in the order of the signature.
struct Arguments<'a> {
    function: WindowFunction,
    values: Vec<Option<&'a ast::Expr>>,
}

impl<'a> Arguments<'a> {
    fn read(function: WindowFunction, args: &'a [FunctionArg]) -> Result<Self> {
        let (name, parameters, usage) = function.signature();
        let mut values: Vec<Option<&ast::Expr>> = vec![None; parameters.len()];
        let mut named = false;
        for (position, arg) in args.iter().enumerate() {
            let (place_of, index, value) = match arg {
                FunctionArg::Unnamed(FunctionArgExpr::Expr(value)) if !named => (place(value), Some(position), value),
                FunctionArg::Named { name, arg: FunctionArgExpr::Expr(value), .. } => {
                    named = true;
                    let lower = name.value.to_lowercase();
                    let given = parameter(&lower);
                    (Position::from_location(name.span.start), parameters.iter().position(|p| *p == given), value)
                }
                FunctionArg::Unnamed(_) if named => {
                    return Err(Error::invalid(format!(
                        "in {name} an argument without a name follows one with a name"
                    ))
                    .with_hint("Name all that follow."));
                }
                _ => return Err(Error::invalid(format!("{name} does not take {arg}")).with_hint(usage)),
            };
            let slot = index.and_then(|i| values.get_mut(i)).ok_or_else(|| {
                let message = match arg {
                    FunctionArg::Named { name: given, .. } => format!("{name} has no argument \"{given}\""),
                    _ => format!("{name} has too many arguments"),
                };
                let hint = format!("{usage} The arguments are: {}.", parameters.join(", "));
                Error::invalid(message).with_hint(hint).or_at(place_of)
            })?;
            if slot.replace(value).is_some() {
                let twice = format!("an argument of {name} is written more than once");
                return Err(Error::invalid(twice).with_hint(usage).or_at(place_of));
            }
        }
        Ok(Arguments { function, values })
    }

    fn optional(&self, parameter: &str) -> Option<&'a ast::Expr> {
        let (_, parameters, _) = self.function.signature();
        parameters.iter().position(|p| *p == parameter).and_then(|i| self.values.get(i).copied().flatten())
    }

    fn required(&self, parameter: &str) -> Result<&'a ast::Expr> {
        let (name, _, usage) = self.function.signature();
        self.optional(parameter)
            .ok_or_else(|| Error::invalid(format!("{name} needs argument \"{parameter}\"")).with_hint(usage))
    }
}

/// Other systems' names of arguments.
fn parameter(name: &str) -> &str {
    match name {
        "hop" => "slide",
        "partition_by" => "partition",
        "time_col" | "time" | "ts" => "timecol",
        name => name,
    }
}

/// The first argument: a name, `TABLE name`, a subquery, or another table function.
fn as_table(expr: &ast::Expr) -> Result<TableFactor> {
    let table = |idents: Vec<ast::Ident>| call(ObjectName::from(idents), None, None);
    match expr {
        ast::Expr::Identifier(ident) => Ok(table(vec![ident.clone()])),
        ast::Expr::CompoundIdentifier(idents) => Ok(table(idents.clone())),
        ast::Expr::Prefixed { prefix, value } if prefix.value == "TABLE" => as_table(value),
        ast::Expr::Subquery(query) => {
            Ok(TableFactor::Derived { lateral: false, subquery: query.clone(), alias: None, sample: None })
        }
        ast::Expr::Function(function) => function_as_table(function.clone()),
        other => Err(Error::invalid(format!("the first argument of a window function is a stream, not {other}"))
            .with_hint("Write a stream's name, TABLE name, or a subquery in parentheses.")
            .or_at(place(other))),
    }
}

fn function_as_table(function: ast::Function) -> Result<TableFactor> {
    let plain = function.filter.is_none() && function.over.is_none() && function.within_group.is_empty();
    match function.args {
        FunctionArguments::List(list) if plain && list.clauses.is_empty() && list.duplicate_treatment.is_none() => {
            Ok(call(function.name, Some(TableFunctionArgs { args: list.args, settings: None }), None))
        }
        _ => {
            let at = place(&function.name);
            Err(Error::invalid(format!("{} is not a call of a table function", function.name)).or_at(at))
        }
    }
}

fn call(name: ObjectName, args: Option<TableFunctionArgs>, alias: Option<ast::TableAlias>) -> TableFactor {
    TableFactor::Table {
        name,
        alias,
        args,
        with_hints: vec![],
        version: None,
        with_ordinality: false,
        partitions: vec![],
        json_path: None,
        sample: None,
        index_hints: vec![],
    }
}

/// The second argument: a column, or Flink's `DESCRIPTOR(column)`.
fn time_column(
    function: WindowFunction,
    expr: &ast::Expr,
    input: &LogicalPlan,
    context: &mut dyn RelationPlannerContext,
) -> Result<Column> {
    let (name, ..) = function.signature();
    let column = match expr {
        ast::Expr::Function(f) if f.name.to_string().eq_ignore_ascii_case("DESCRIPTOR") => match &f.args {
            FunctionArguments::List(list) => match list.args.as_slice() {
                [FunctionArg::Unnamed(FunctionArgExpr::Expr(column))] => Some(column),
                _ => None,
            },
            _ => None,
        },
        column => Some(column),
    };
    let not_a_column = || {
        Error::invalid(format!("argument \"timecol\" of {name} is a column, not {expr}"))
            .with_hint("Compute it in a subquery as the first argument.")
            .or_at(place(expr))
    };
    let column = column.ok_or_else(not_a_column)?;
    if !matches!(column, ast::Expr::Identifier(_) | ast::Expr::CompoundIdentifier(_)) {
        return Err(not_a_column());
    }
    let planned = context.sql_to_expr(column.clone(), input.schema());
    match planned.map_err(|e| Error::from(e).or_at(place(column)))? {
        Expr::Column(column) => Ok(column),
        _ => Err(not_a_column()),
    }
}

/// A length: an expression of intervals that has a value when planned.
fn constant_length(
    function: WindowFunction,
    argument: &str,
    expr: &ast::Expr,
    context: &mut dyn RelationPlannerContext,
) -> Result<WindowLength> {
    let (name, ..) = function.signature();
    let parameter = written_parameter(expr);
    let wrong = || {
        let written = parameter.as_ref().unwrap_or(expr);
        Error::invalid(format!("argument \"{argument}\" of {name} is an interval, not {written}"))
            .with_hint("Write it like INTERVAL '10 seconds'.")
    };
    let schema = DFSchema::empty();
    let mut planned = context.sql_to_expr(expr.clone(), &schema).map_err(|_| wrong())?;
    if parameter.is_some() {
        // Clients bind a text.
        planned = cast(planned, DataType::Interval(IntervalUnit::MonthDayNano));
    }
    let simplifier = ExprSimplifier::new(SimplifyContext::builder().build());
    let planned = simplifier.coerce(planned, &schema).map_err(|_| wrong())?;
    let (months, days, nanos) = match simplifier.simplify(planned).map_err(|_| wrong())? {
        Expr::Literal(ScalarValue::IntervalMonthDayNano(Some(v)), _) => (v.months, v.days, v.nanoseconds),
        Expr::Literal(ScalarValue::IntervalDayTime(Some(v)), _) => (0, v.days, i64::from(v.milliseconds) * 1_000_000),
        Expr::Literal(ScalarValue::IntervalYearMonth(Some(months)), _) => (months, 0, 0),
        _ => return Err(wrong()),
    };
    if months != 0 && (days != 0 || nanos != 0) {
        return Err(Error::invalid(format!("argument \"{argument}\" of {name} mixes months with shorter units"))
            .with_hint("Months differ in length: write it in months, or in days or less."));
    }
    if months != 0 {
        return Ok(WindowLength::Months(months));
    }
    if nanos % 1_000 != 0 {
        return Err(Error::invalid(format!("argument \"{argument}\" of {name} is finer than a microsecond")));
    }
    let micros = i64::from(days).checked_mul(86_400_000_000).and_then(|days| days.checked_add(nanos / 1_000));
    micros
        .map(WindowLength::Micros)
        .ok_or_else(|| Error::invalid(format!("argument \"{argument}\" of {name} is too long")))
}
