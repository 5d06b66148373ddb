//! `WITH RECURSIVE`: what does not look at the query itself runs as always, the rest is run anew over what that gives.
//!
//! ```text
//! RecursiveQuery                      RecursiveQuery
//!   static term            ->           __given_0                  inputs: the static term, edges
//!   Join                                Join
//!     edges                               __given_1
//!     the query itself                    the query itself
//! ```

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::{Schema, SchemaRef};
use datafusion::catalog::MemTable;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::datasource::provider_as_source;
use datafusion::error::Result as DfResult;
use datafusion::logical_expr::logical_plan::TableScanBuilder;
use datafusion::logical_expr::{Expr, LogicalPlan, Projection, TableScan};
use millstream_engine::spread::Spread;

use super::properties::Describing;
use super::refuse::{refuse_unstable, refuse_volatile};
use super::scan::work_table;
use super::tree::{Growth, Node, Properties, Step};
use crate::error::{Error, Result};

/// The names of the tables that stand for inputs, before their numbers.
const GIVEN: &str = "__given_";

impl Describing<'_> {
    /// A query that looks at itself.
    pub(super) fn recompute<'p>(&mut self, plan: &'p LogicalPlan) -> Result<Node<'p>> {
        let mut inputs = vec![];
        inputs_of(plan, true, &mut inputs)?;
        let kept = with_given(plan, true, &mut 0)?;
        kept.apply(|node| {
            for expr in node.expressions() {
                refuse_volatile(&expr).and_then(|()| refuse_unstable(&expr))?;
            }
            Ok(TreeNodeRecursion::Continue)
        })?;
        let inputs = inputs.into_iter().map(|input| self.node(input)).collect::<Result<Vec<_>>>()?;
        let has = Properties {
            growth: Growth::TakesBack,
            time: vec![None; plan.schema().fields().len()],
            key: None,
            one_of: None,
            spread: Spread::anyhow(1),
        };
        Ok(Node::new(Step::Recompute(plan, kept), inputs, has))
    }
}

/// The queries around `plan` at which it looks.
fn looks_at(plan: &LogicalPlan) -> BTreeSet<String> {
    let mut found: BTreeSet<String> = plan.inputs().into_iter().flat_map(looks_at).collect();
    match plan {
        LogicalPlan::TableScan(scan) => found.extend(work_table(scan)),
        LogicalPlan::RecursiveQuery(query) => {
            found.remove(&query.name);
        }
        _ => {}
    }
    found
}

/// Whether `plan`, the whole or a part, is an input: rows that do not come from the query itself.
fn is_input(plan: &LogicalPlan, whole: bool) -> bool {
    !whole && looks_at(plan).is_empty()
}

fn inputs_of<'p>(plan: &'p LogicalPlan, whole: bool, found: &mut Vec<&'p LogicalPlan>) -> Result<()> {
    if is_input(plan, whole) {
        found.push(plan);
        return Ok(());
    }
    plan.inputs().into_iter().try_for_each(|input| inputs_of(input, false, found))
}

/// `plan` with an empty table in place of each input, in the order of [`inputs_of`].
fn with_given(plan: &LogicalPlan, whole: bool, next: &mut usize) -> DfResult<LogicalPlan> {
    if is_input(plan, whole) {
        let schema = plan.schema();
        let fields = schema.fields().iter().enumerate();
        let fields: Vec<_> = fields.map(|(i, f)| f.as_ref().clone().with_name(format!("c{i}"))).collect();
        let table = given(Arc::new(Schema::new(fields)), vec![])?;
        let scan = TableScanBuilder::new(format!("{GIVEN}{next}"), provider_as_source(table)).build()?;
        *next += 1;
        // Its columns have the names that they have in the plan.
        let named = scan.projected_schema.columns().into_iter().zip(schema.iter());
        let named = named.map(|(column, (of, f))| Expr::Column(column).alias_qualified(of.cloned(), f.name()));
        let named = named.collect();
        let scan = Arc::new(LogicalPlan::TableScan(scan));
        let with = Projection::try_new_with_schema(named, scan, Arc::clone(schema))?;
        return Ok(LogicalPlan::Projection(with));
    }
    let with = plan.clone().map_children(|input| with_given(&input, false, next).map(Transformed::yes))?;
    Ok(with.data)
}

fn given(schema: SchemaRef, rows: Vec<RecordBatch>) -> DfResult<Arc<MemTable>> {
    Ok(Arc::new(MemTable::try_new(schema, vec![rows])?))
}

/// `plan` over `inputs`.
pub(super) fn over_inputs(plan: &LogicalPlan, inputs: &[RecordBatch]) -> DfResult<LogicalPlan> {
    let over = plan.clone().transform_up(|node| {
        let LogicalPlan::TableScan(scan) = node else { return Ok(Transformed::no(node)) };
        let number = scan.table_name.table().strip_prefix(GIVEN).and_then(|number| number.parse::<usize>().ok());
        let Some(rows) = number.and_then(|number| inputs.get(number)) else {
            return Ok(Transformed::no(LogicalPlan::TableScan(scan)));
        };
        let schema = scan.source.schema();
        let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
        let rows = RecordBatch::try_new_with_options(schema.clone(), rows.columns().to_vec(), &options)?;
        let source = provider_as_source(given(schema, vec![rows])?);
        Ok(Transformed::yes(LogicalPlan::TableScan(TableScan { source, ..scan })))
    })?;
    Ok(over.data)
}

/// The query's name, as users wrote it.
pub(super) fn name_of(plan: &LogicalPlan) -> Result<&str> {
    match plan {
        LogicalPlan::RecursiveQuery(query) => Ok(&query.name),
        other => Err(Error::internal(format!("{} is not a query that looks at itself", other.display()))),
    }
}
