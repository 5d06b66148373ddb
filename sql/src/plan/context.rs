//! The session that plans, the tables it sees, and the rules that rewrite a plan.
//!
//! `SessionState::statement_to_plan` finds tables before planning, by walking the syntax tree, and so misses
//! one that stands only in a window function's arguments. [`PlanContext`] is asked when a name is met.

use std::sync::Arc;

use arrow::datatypes::{DataType, FieldRef, SchemaRef};
use async_trait::async_trait;
use chrono::{DateTime, Utc};
use datafusion::catalog::cte_worktable::CteWorkTable;
use datafusion::catalog::{Session, TableFunctionArgs};
use datafusion::common::alias::AliasGenerator;
use datafusion::common::config::ConfigOptions;
use datafusion::common::datatype::DataTypeExt;
use datafusion::common::file_options::file_type::FileType;
use datafusion::common::{DFSchema, TableReference};
use datafusion::datasource::file_format::format_as_file_type;
use datafusion::datasource::provider_as_source;
use datafusion::error::Result as DfResult;
use datafusion::execution::FunctionRegistry;
use datafusion::execution::SessionStateBuilder;
use datafusion::execution::context::{QueryPlanner, SessionState};
use datafusion::logical_expr::planner::{ContextProvider, ExprPlanner, RelationPlanner, TypePlanner};
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::var_provider::{VarType, is_system_variables};
use datafusion::logical_expr::{AggregateUDF, Expr, HigherOrderUDF, LogicalPlan, ScalarUDF, TableSource, WindowUDF};
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use datafusion::optimizer::{Optimizer, OptimizerConfig};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_planner::{DefaultPhysicalPlanner, ExtensionPlanner, PhysicalPlanner};
use datafusion::prelude::SessionConfig;
use datafusion::sql::parser::{CopyToSource, CopyToStatement, Statement as DfStatement};
use datafusion::sql::planner::{ParserOptions, PlannerContext, SqlToRel, object_name_to_table_reference};
use datafusion::sql::sqlparser::ast::{self, VisitMut};

use super::as_of::{AsOfPlanner, Matches, as_joins, as_nodes, no_versions};
use super::as_of_now::{AsOfNowPlanner, Versions};
use super::copies;
use super::exact::ExactExpressions;
use super::first_rows::first_by_columns;
use super::grouping_sets;
use super::headers::{self, Headed};
use super::lateral::beside_rows;
use super::limits::{self, refuse_loose_order};
use super::lower::refuse_clauses;
use super::missing;
use super::not_in;
use super::numbers;
use super::over::over_columns;
use super::parameters::BoundParameters;
use super::reworded::reword;
use super::row_functions::as_lists;
use super::rules::{is_for_streams, logical_rules, physical_rules};
use super::series::SeriesTable;
use super::stay_put::StayPutPlanner;
use super::ties;
use super::unknown;
use super::window_call::WindowFunctions;
use super::window_exec::WindowPlanner;
use super::zones::call_zones;
use crate::error::{Error, Result};
use crate::function::{self, CanonicalFloats};
use crate::semantics::Semantics;
use crate::statement::{Query, arrow_type, check_query};

/// Finds the streams and views that a statement names.
pub trait TableResolver: Send + Sync {
    /// The table of that name, or none. A name in schema `public` arrives without its schema.
    fn table(&self, name: &TableReference) -> Result<Option<Arc<dyn TableSource>>>;

    /// The event-time column of the stream of that name, if rows are only added to it, so that each is a version of what has its
    /// key.
    fn version_time(&self, _name: &TableReference) -> Result<Option<String>> {
        Ok(None)
    }
}

/// The session of one new statement. Alias counters are kept in it, so that a fresh one gives the same plan for
/// the same text every time.
pub fn session_state() -> SessionState {
    session_state_of(Semantics::NOW)
}

/// The session of a statement that goes on with the rules of `semantics`.
pub fn session_state_of(semantics: Semantics) -> SessionState {
    let mut config = semantics.put(SessionConfig::new());
    let options = config.options_mut();
    // Scalar subqueries become joins: a plan with a subquery left in an expression cannot run continuously.
    options.optimizer.enable_physical_uncorrelated_scalar_subquery = false;
    // Logical and physical planning find out by rules of their own whether an expression can be NULL; what differs is no reason to refuse.
    options.execution.skip_physical_aggregate_schema_check = true;
    // Errors say where.
    options.sql_parser.collect_spans = true;
    // `numbers` says which literals are doubles after all.
    options.sql_parser.parse_float_as_decimal = semantics.exact_literals();
    // What TIMESTAMPTZ is everywhere; now() follows it.
    options.execution.time_zone = Some("UTC".to_owned());
    let mut planners = function::planners();
    planners.push(Arc::new(numbers::NumberLiterals));
    planners.push(Arc::new(headers::CastNames));
    planners.push(Arc::new(BoundParameters));
    let mut builder = SessionStateBuilder::new()
        .with_config(config)
        .with_expr_planners(planners)
        .with_default_features()
        .with_analyzer_rules(numbers::analyzer_rules(semantics))
        .with_relation_planners(vec![Arc::new(Versions), Arc::new(Matches), Arc::new(WindowFunctions)])
        .with_type_planner(Arc::new(StreamTypes))
        .with_query_planner(Arc::new(BatchPlanner))
        .with_optimizer_rules(logical_rules(semantics))
        .with_physical_optimizer_rules(physical_rules());
    if semantics.exact_expressions() {
        builder = builder.with_analyzer_rule(Arc::new(ExactExpressions));
    }
    let mut state = builder.build();
    if semantics.exact_expressions()
        && let Err(e) = function::register(&mut state)
    {
        // Only if a function of DataFusion's had another name, which every query of the tests would show.
        tracing::error!("functions of our own are not registered: {e}");
    }
    function::replace(&mut state, semantics);
    let replaced = crate::files::register(&mut state);
    debug_assert!(replaced.is_ok());
    // In batch now() is a constant: that of the statement.
    state.mark_start_execution();
    state
}

/// Plans a query, with names of their own for its columns.
pub fn query_plan(state: &SessionState, resolver: Arc<dyn TableResolver>, query: &ast::Query) -> Result<LogicalPlan> {
    Ok(result_plan(state, resolver, query)?.plan)
}

/// Plans the query of `what`, a stream or view, with the names that it gives its columns.
pub(crate) fn named_plan(
    state: &SessionState,
    resolver: Arc<dyn TableResolver>,
    query: &Query,
    what: &str,
) -> Result<LogicalPlan> {
    let plan = query_plan(state, resolver, &query.query)?;
    if query.columns.is_empty() { Ok(plan) } else { headers::with_names(plan, &query.columns, what) }
}

/// Plans a query whose result is shown.
pub fn result_plan(state: &SessionState, resolver: Arc<dyn TableResolver>, query: &ast::Query) -> Result<Headed> {
    check_query(query)?;
    let statement = ast::Statement::Query(Box::new(query.clone()));
    headed_plan(state, resolver, DfStatement::Statement(Box::new(statement)))
}

/// Plans a statement of DataFusion's: a query, INSERT, COPY TO.
pub fn statement_plan(
    state: &SessionState,
    resolver: Arc<dyn TableResolver>,
    statement: DfStatement,
) -> Result<LogicalPlan> {
    Ok(headed_plan(state, resolver, statement)?.plan)
}

fn headed_plan(state: &SessionState, resolver: Arc<dyn TableResolver>, mut statement: DfStatement) -> Result<Headed> {
    let context = PlanContext::new(state, resolver);
    if !Semantics::of(state).written_names() {
        return Ok(headers::headed(numbers::name_columns(context.plan(statement)?)?)?);
    }
    headers::name_items(&mut statement);
    let plan = context.plan(statement.clone());
    let equal = match &plan {
        Ok(plan) => headers::has_equal_names(plan)?,
        Err(e) => headers::are_equal_names(e),
    };
    if !equal {
        return Ok(headers::headed(plan?)?);
    }
    headers::tell_apart(&mut statement, &|part| context.plan(part))?;
    match (context.plan(statement), plan) {
        // A column that is missing either way: among the names as they were written.
        (Err(_), Err(first)) if headers::is_missing(&first) => Err(first.into()),
        (plan, _) => Ok(headers::headed(plan?)?),
    }
}

/// Plans an expression over `schema`, as WATERMARK has one.
pub fn expression(
    state: &SessionState,
    resolver: Arc<dyn TableResolver>,
    expr: &ast::Expr,
    schema: &DFSchema,
) -> Result<Expr> {
    let context = PlanContext::new(state, resolver);
    let mut expr = expr.clone();
    context.prepare(&mut expr)?;
    let expr = context.planner().sql_to_expr(expr, schema, &mut PlannerContext::new())?;
    Ok(numbers::typed(state, expr, schema)?)
}

/// Analyzes and rewrites a plan: for batch as DataFusion does, for streaming by the rules that keep a plan
/// right, and stable, for changes.
pub fn optimize(state: &SessionState, plan: LogicalPlan, for_streaming: bool) -> Result<LogicalPlan> {
    if !for_streaming {
        return Ok(state.optimize(&plan)?);
    }
    let plan = state.analyzer().execute_and_check(plan, state.config_options(), |_, _| {})?;
    let rules = state.optimizer().rules.iter().filter(|rule| is_for_streams(rule.as_ref())).cloned();
    let plan = Optimizer::with_rules(rules.collect()).optimize(plan, &Unfolded(state), |_, _| {})?;
    Ok(CanonicalFloats::new().rewrite(plan)?)
}

/// What the optimizer asks, without a time at which the query starts: now() is not folded to a constant, which would be that of
/// CREATE for ever.
struct Unfolded<'a>(&'a SessionState);

impl OptimizerConfig for Unfolded<'_> {
    fn query_execution_start_time(&self) -> Option<DateTime<Utc>> {
        None
    }

    fn alias_generator(&self) -> &Arc<AliasGenerator> {
        &self.0.execution_props().alias_generator
    }

    fn options(&self) -> Arc<ConfigOptions> {
        Arc::clone(self.0.config_options())
    }

    fn function_registry(&self) -> Option<&dyn FunctionRegistry> {
        Some(self.0)
    }
}

/// The plan of a continuous query; what cannot run is refused by name where the optimizer would rewrite it.
pub fn streaming_plan(state: &SessionState, plan: LogicalPlan) -> Result<LogicalPlan> {
    refuse_clauses(&plan)?;
    refuse_loose_order(&plan)?;
    let names = &state.execution_props().alias_generator;
    let plan = not_in::by_key(optimize(state, missing::in_order(plan)?, true)?)?;
    let plan = over_columns(limits::by_number(plan, names)?, names)?;
    Ok(grouping_sets::one_by_one(plan)?)
}

/// What the planner asks: functions and settings of the session, tables of the resolver.
pub struct PlanContext<'a> {
    state: &'a SessionState,
    resolver: Arc<dyn TableResolver>,
}

impl<'a> PlanContext<'a> {
    /// A context over a session and a resolver.
    pub fn new(state: &'a SessionState, resolver: Arc<dyn TableResolver>) -> Self {
        PlanContext { state, resolver }
    }

    /// Plans a statement with the meaning that its literals and zones have.
    fn plan(&self, mut statement: DfStatement) -> DfResult<LogicalPlan> {
        match &mut statement {
            DfStatement::Statement(statement) => self.prepare(statement.as_mut())?,
            DfStatement::CopyTo(CopyToStatement { source: CopyToSource::Query(query), .. }) => {
                self.prepare(query.as_mut())?;
            }
            _ => {}
        }
        let plan = self.planner().statement_to_plan(statement)?;
        let part = |expr, schema: &DFSchema| self.planner().sql_to_expr(expr, schema, &mut PlannerContext::new());
        let plan = first_by_columns(ties::ranked(as_nodes(plan, &part)?)?)?;
        unknown::spelled_out(copies::counted(beside_rows(SeriesTable::told_apart(plan)?)?)?)
    }

    /// Makes of `syntax` what the planner reads as it is meant.
    fn prepare(&self, syntax: &mut impl VisitMut) -> Result<()> {
        as_lists(syntax);
        reword(syntax, Semantics::of(self.state).written_names())?;
        numbers::mark_literals(syntax);
        if Semantics::of(self.state).exact_expressions() {
            call_zones(syntax);
        }
        as_joins(syntax, &|name| self.version_time(name))?;
        ties::as_limits(syntax);
        Ok(())
    }

    /// The event-time column of a stream of versions.
    fn version_time(&self, name: &ast::ObjectName) -> Result<String> {
        let found = object_name_to_table_reference(name.clone(), true)?;
        self.resolver.version_time(&public(found))?.ok_or_else(|| no_versions(&name.to_string()))
    }

    fn planner(&self) -> SqlToRel<'_, Self> {
        SqlToRel::new_with_options(self, ParserOptions::from(&self.state.config_options().sql_parser))
    }
}

impl ContextProvider for PlanContext<'_> {
    fn get_table_source(&self, name: TableReference) -> DfResult<Arc<dyn TableSource>> {
        let name = public(name);
        let found = self.resolver.table(&name)?;
        Ok(found.ok_or_else(|| {
            Error::not_found(format!("stream \"{name}\" does not exist")).with_hint("SHOW STREAMS lists what there is.")
        })?)
    }

    fn get_file_type(&self, extension: &str) -> DfResult<Arc<dyn FileType>> {
        let extension = extension.to_lowercase();
        let factory = self.state.get_file_format_factory(&extension).ok_or_else(|| {
            Error::unsupported(format!("format \"{extension}\" is not supported"))
                .with_hint("The formats are parquet, csv, json and arrow; write STORED AS if the name does not say.")
        })?;
        Ok(format_as_file_type(factory))
    }

    fn get_table_function_source(&self, name: &str, args: Vec<Expr>) -> DfResult<Arc<dyn TableSource>> {
        let name = name.to_lowercase();
        let function = self.state.table_functions().get(&name).cloned().ok_or_else(|| {
            Error::not_found(format!("table function \"{name}\" does not exist"))
                .with_hint("The window functions are TUMBLE, HOP and CUMULATE.")
        })?;
        let context = SimplifyContext::builder().with_config_options(Arc::clone(self.state.config_options())).build();
        let simplifier = ExprSimplifier::new(context);
        let schema = DFSchema::empty();
        let constant = |arg| simplifier.coerce(arg, &schema).and_then(|arg| simplifier.simplify(arg));
        let args = args.into_iter().map(constant).collect::<DfResult<Vec<_>>>()?;
        let table = function.create_table_provider_with_args(TableFunctionArgs::new(&args, self.state))?;
        Ok(provider_as_source(SeriesTable::over(&name, args, table)))
    }

    fn create_cte_work_table(&self, name: &str, schema: SchemaRef) -> DfResult<Arc<dyn TableSource>> {
        Ok(provider_as_source(Arc::new(CteWorkTable::new(name, schema))))
    }

    fn get_expr_planners(&self) -> &[Arc<dyn ExprPlanner>] {
        self.state.expr_planners()
    }

    fn get_relation_planners(&self) -> &[Arc<dyn RelationPlanner>] {
        self.state.relation_planners()
    }

    fn get_type_planner(&self) -> Option<Arc<dyn TypePlanner>> {
        Some(Arc::new(StreamTypes))
    }

    fn get_function_meta(&self, name: &str) -> Option<Arc<ScalarUDF>> {
        let exact = Semantics::of(self.state).exact_literals();
        let function = ties::mark(name).or_else(|| self.state.scalar_functions().get(name).cloned());
        if exact { function.map(numbers::planned) } else { function }
    }

    fn get_higher_order_meta(&self, name: &str) -> Option<Arc<HigherOrderUDF>> {
        self.state.higher_order_functions().get(name).cloned()
    }

    fn get_aggregate_meta(&self, name: &str) -> Option<Arc<AggregateUDF>> {
        self.state.aggregate_functions().get(name).cloned()
    }

    fn get_window_meta(&self, name: &str) -> Option<Arc<WindowUDF>> {
        self.state.window_functions().get(name).cloned()
    }

    fn get_variable_type(&self, names: &[String]) -> Option<DataType> {
        if names.is_empty() {
            return None;
        }
        let kind = if is_system_variables(names) { VarType::System } else { VarType::UserDefined };
        self.state.execution_props().var_providers.as_ref()?.get(&kind)?.get_type(names)
    }

    fn options(&self) -> &ConfigOptions {
        self.state.config_options()
    }

    fn udf_names(&self) -> Vec<String> {
        self.state.scalar_functions().keys().cloned().collect()
    }

    fn higher_order_function_names(&self) -> Vec<String> {
        self.state.higher_order_functions().keys().cloned().collect()
    }

    fn udaf_names(&self) -> Vec<String> {
        self.state.aggregate_functions().keys().cloned().collect()
    }

    fn udwf_names(&self) -> Vec<String> {
        self.state.window_functions().keys().cloned().collect()
    }
}

/// `name` without the schema in which all streams are.
fn public(name: TableReference) -> TableReference {
    match name {
        TableReference::Partial { schema, table } if &*schema == "public" => TableReference::Bare { table },
        name => name,
    }
}

/// The same types in queries (`CAST(x AS TIMESTAMP)`) as in CREATE STREAM.
#[derive(Debug)]
pub struct StreamTypes;

impl TypePlanner for StreamTypes {
    fn plan_type_field(&self, sql_type: &ast::DataType) -> DfResult<Option<FieldRef>> {
        Ok(Some(arrow_type(sql_type)?.into_nullable_field_ref()))
    }
}

/// DataFusion's physical planner, with the nodes that are ours.
#[derive(Debug)]
struct BatchPlanner;

#[async_trait]
impl QueryPlanner for BatchPlanner {
    async fn create_physical_plan(
        &self,
        plan: &LogicalPlan,
        session: &dyn Session,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        let plan = CanonicalFloats::new().rewrite(plan.clone())?;
        let planners: Vec<Arc<dyn ExtensionPlanner + Send + Sync>> = vec![
            Arc::new(WindowPlanner::default()),
            Arc::new(StayPutPlanner),
            Arc::new(AsOfNowPlanner),
            Arc::new(AsOfPlanner),
        ];
        DefaultPhysicalPlanner::with_extension_planners(planners).create_physical_plan(&plan, session).await
    }
}
