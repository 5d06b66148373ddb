//! The ways to evaluate an expression: as planned, unoptimized, row by row, by the rules of streams, as a filter.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{Int64Type, SchemaRef};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, ScalarValue, TableReference};
use datafusion::datasource::{MemTable, provider_as_source};
use datafusion::execution::context::SessionState;
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::{Expr, LogicalPlan, TableSource};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::collect;
use millstream_engine::expr::harden;
use millstream_sql::plan::{TableResolver, optimize, query_plan, session_state};

use crate::Result;
use crate::case::query;

/// What an expression is for a row: a value, or none because it failed.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// A value, if only NULL.
    Value(ScalarValue),
    /// It failed.
    Failed(String),
}

impl Outcome {
    /// Whether two outcomes are one: floats by their value, errors without their text.
    pub fn same(&self, other: &Outcome) -> bool {
        match (self, other) {
            (Outcome::Failed(_), Outcome::Failed(_)) => true,
            (Outcome::Value(a), Outcome::Value(b)) => match (a, b) {
                (ScalarValue::Float64(Some(a)), ScalarValue::Float64(Some(b))) => a == b || (a.is_nan() && b.is_nan()),
                (ScalarValue::Float32(Some(a)), ScalarValue::Float32(Some(b))) => a == b || (a.is_nan() && b.is_nan()),
                (a, b) => a == b,
            },
            _ => false,
        }
    }
}

/// The table `t`, and the session that plans over it.
pub struct Bench {
    state: SessionState,
    rows: RecordBatch,
    single: Vec<RecordBatch>,
    table: Arc<dyn TableResolver>,
}

struct One(Arc<dyn TableSource>);

impl TableResolver for One {
    fn table(&self, name: &TableReference) -> millstream_sql::Result<Option<Arc<dyn TableSource>>> {
        Ok((name.table() == "t").then(|| self.0.clone()))
    }
}

impl Bench {
    /// A bench over `rows`.
    pub fn new(rows: RecordBatch) -> Result<Self> {
        let table = MemTable::try_new(rows.schema(), vec![vec![rows.clone()]])?;
        let single = (0..rows.num_rows()).map(|i| rows.slice(i, 1)).collect();
        let table = Arc::new(One(provider_as_source(Arc::new(table))));
        Ok(Bench { state: session_state(), rows, single, table })
    }

    fn plan(&self, sql: &str) -> Result<LogicalPlan> {
        Ok(query_plan(&self.state, self.table.clone(), &query(sql)?.query)?)
    }

    /// The plan of a query: analyzed, or optimized for batch or for streams.
    fn planned(&self, sql: &str, way: Way) -> Result<LogicalPlan> {
        let plan = self.plan(sql)?;
        Ok(match way {
            Way::Unoptimized => {
                self.state.analyzer().execute_and_check(plan, self.state.config_options(), |_, _| {})?
            }
            Way::Batch => optimize(&self.state, plan, false)?,
            Way::Stream => optimize(&self.state, plan, true)?,
        })
    }

    /// The outcomes of an expression, one row at a time, by its plan; an error where it cannot be planned.
    pub fn row_by_row(&self, expr: &str, way: Way) -> Result<Vec<Outcome>> {
        let plan = self.planned(&format!("SELECT {expr} AS e FROM t"), way)?;
        let (input, steps) = self.steps(&plan)?;
        let value = |row: &RecordBatch| -> Result<ScalarValue> {
            let mut row = row.project(&input)?;
            for step in &steps {
                row = step.of(&row)?;
            }
            Ok(ScalarValue::try_from_array(row.column(0), 0)?)
        };
        let outcome = |row| value(row).map_or_else(|e| Outcome::Failed(e.to_string()), Outcome::Value);
        Ok(self.single.iter().map(outcome).collect())
    }

    /// The projections of a plan from the table up, and the columns of the table that they read.
    fn steps(&self, plan: &LogicalPlan) -> Result<(Vec<usize>, Vec<Step>)> {
        let (mut at, mut projections) = (plan, vec![]);
        let mut schema: &DFSchema = loop {
            match at {
                LogicalPlan::Projection(p) => {
                    projections.push(p);
                    at = &p.input;
                }
                LogicalPlan::SubqueryAlias(a) => at = &a.input,
                LogicalPlan::TableScan(scan) => break &scan.projected_schema,
                LogicalPlan::EmptyRelation(e) => break &e.schema,
                other => return Err(format!("a plan that is no projection: {}", other.display_indent()).into()),
            }
        };
        let table = self.rows.schema();
        let columns = schema.fields().iter().map(|f| table.index_of(f.name())).collect::<Result<Vec<_>, _>>()?;
        let mut steps = vec![];
        for p in projections.into_iter().rev() {
            let one = |e: &Expr| -> Result<Arc<dyn PhysicalExpr>> {
                let physical = self.state.create_physical_expr(self.runnable(e.clone().unalias())?, schema)?;
                Ok(harden(physical, schema.as_arrow())?)
            };
            let exprs = p.expr.iter().map(one).collect::<Result<Vec<_>>>()?;
            steps.push(Step { exprs, schema: p.schema.inner().clone() });
            schema = &p.schema;
        }
        Ok((columns, steps))
    }

    /// Functions that have no code of their own are what they stand for, which no rule needs to say.
    fn runnable(&self, expr: Expr) -> Result<Expr> {
        let info = SimplifyContext::builder().with_config_options(self.state.config_options().clone()).build();
        let lowered = expr.transform_up(|e| match e {
            Expr::ScalarFunction(f) if matches!(f.name(), "coalesce" | "nvl" | "nvl2") => {
                Ok(match f.func.simplify(f.args, &info)? {
                    ExprSimplifyResult::Simplified(e) => Transformed::yes(e),
                    ExprSimplifyResult::Original(_) => {
                        return Err(datafusion::error::DataFusionError::Internal("stays".into()));
                    }
                })
            }
            e => Ok(Transformed::no(e)),
        });
        Ok(lowered?.data)
    }

    /// The values of all rows at once, by DataFusion's own execution of the optimized plan.
    pub async fn at_once(&self, expr: &str, way: Way) -> Result<Vec<ScalarValue>> {
        let plan = self.planned(&format!("SELECT id, {expr} AS e FROM t"), way)?;
        let batches = self.run(&plan).await?;
        let mut values = vec![ScalarValue::Null; self.rows.num_rows()];
        for batch in &batches {
            let ids = batch.column(0).as_primitive::<Int64Type>();
            for row in 0..batch.num_rows() {
                let place = values.get_mut(usize::try_from(ids.value(row))?).ok_or("a row that was not there")?;
                *place = ScalarValue::try_from_array(batch.column(1), row)?;
            }
        }
        Ok(values)
    }

    /// The rows that a condition lets pass.
    pub async fn passing(&self, condition: &str, way: Way) -> Result<Vec<i64>> {
        let plan = self.planned(&format!("SELECT id FROM t WHERE {condition}"), way)?;
        let batches = self.run(&plan).await?;
        let ids = |b: &RecordBatch| -> ArrayRef { b.column(0).clone() };
        let mut passing: Vec<i64> =
            batches.iter().map(ids).flat_map(|c| c.as_primitive::<Int64Type>().values().to_vec()).collect();
        passing.sort_unstable();
        Ok(passing)
    }

    async fn run(&self, plan: &LogicalPlan) -> Result<Vec<RecordBatch>> {
        // The plan as it is: to have the session plan it would optimize it again.
        let physical = self.state.query_planner().create_physical_plan(plan, &self.state).await?;
        Ok(collect(physical, self.state.task_ctx()).await?)
    }
}

/// A projection.
struct Step {
    exprs: Vec<Arc<dyn PhysicalExpr>>,
    schema: SchemaRef,
}

impl Step {
    fn of(&self, row: &RecordBatch) -> Result<RecordBatch> {
        let value = |e: &Arc<dyn PhysicalExpr>| e.evaluate(row).and_then(|v| v.into_array(1));
        let columns = self.exprs.iter().map(value).collect::<Result<Vec<_>, _>>()?;
        Ok(RecordBatch::try_new(self.schema.clone(), columns)?)
    }
}

/// By which rules a query is planned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Only analyzed.
    Unoptimized,
    /// Optimized for batch.
    Batch,
    /// Optimized for streams.
    Stream,
}
