//! `GROUPING SETS`, `ROLLUP` and `CUBE` as one `GROUP BY` for each set.
//!
//! ```text
//! Aggregate: groupBy=[ROLLUP(a, b)]   ->   Union of   a, b, 0, …    groupBy=[a, b]
//!                                                     a, NULL, 1, … groupBy=[a]
//!                                                     NULL, NULL, 3, … groupBy=[]
//! ```
//! The column behind the groups is the one of which `GROUPING()` is made: a bit for each group that is not in the set, the last
//! one lowest, and above them how many equal sets came before.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DataFusionError, ScalarValue};
use datafusion::error::Result as DfResult;
use datafusion::logical_expr::utils::{grouping_set_to_exprlist, powerset};
use datafusion::logical_expr::{Aggregate, Expr, ExprSchemable, GroupingSet, LogicalPlan, Projection, Union, lit};

/// `plan` with a `GROUP BY` for each set.
pub(super) fn one_by_one(plan: LogicalPlan) -> DfResult<LogicalPlan> {
    let parted = plan.transform_up(|plan| match plan {
        LogicalPlan::Aggregate(aggregate) => match &aggregate.group_expr[..] {
            [Expr::GroupingSet(sets)] => Ok(Transformed::yes(union(&aggregate, sets)?)),
            _ => Ok(Transformed::no(LogicalPlan::Aggregate(aggregate))),
        },
        plan => Ok(Transformed::no(plan)),
    })?;
    Ok(parted.data)
}

/// The groups of each set.
fn sets_of(sets: &GroupingSet) -> DfResult<Vec<Vec<Expr>>> {
    Ok(match sets {
        GroupingSet::GroupingSets(sets) => sets.clone(),
        GroupingSet::Rollup(groups) => (0..=groups.len()).rev().map(|n| groups[..n].to_vec()).collect(),
        GroupingSet::Cube(groups) => {
            powerset(groups)?.into_iter().map(|set| set.into_iter().cloned().collect()).collect()
        }
    })
}

fn union(of: &Aggregate, sets: &GroupingSet) -> DfResult<LogicalPlan> {
    let groups = grouping_set_to_exprlist(&of.group_expr)?;
    let sets = sets_of(sets)?;
    let mut inputs = Vec::with_capacity(sets.len());
    for (at, set) in sets.iter().enumerate() {
        let equal = sets[..at].iter().filter(|before| same(before, set)).count();
        inputs.push(Arc::new(one(of, &groups, set, equal)?));
    }
    Ok(LogicalPlan::Union(Union { inputs, schema: Arc::clone(&of.schema) }))
}

fn same(a: &[Expr], b: &[Expr]) -> bool {
    a.iter().all(|e| b.contains(e)) && b.iter().all(|e| a.contains(e))
}

/// The rows of one set, before which there were so many `equal` ones.
fn one(of: &Aggregate, groups: &[&Expr], set: &[Expr], equal: usize) -> DfResult<LogicalPlan> {
    let mut kept: Vec<Expr> = vec![];
    set.iter().for_each(|e| {
        if !kept.contains(e) {
            kept.push(e.clone())
        }
    });
    let grouped = Aggregate::try_new(Arc::clone(&of.input), kept.clone(), of.aggr_expr.clone())?;
    let given = grouped.schema.columns();
    let mut exprs = Vec::with_capacity(of.schema.fields().len());
    let mut left_out: u64 = 0;
    for group in groups {
        let place = kept.iter().position(|e| e == *group);
        left_out = left_out << 1 | u64::from(place.is_none());
        exprs.push(match place {
            Some(place) => Expr::Column(given[place].clone()),
            None => lit(ScalarValue::Null).cast_to(&group.get_type(of.input.schema())?, of.input.schema())?,
        });
    }
    let id = of.schema.field(groups.len()).data_type();
    let id = ScalarValue::UInt64(Some((equal as u64) << groups.len() | left_out)).cast_to(id)?;
    exprs.push(lit(id));
    exprs.extend(given[kept.len()..].iter().map(|column| Expr::Column(column.clone())));
    let rows = Arc::new(LogicalPlan::Aggregate(grouped));
    let named = exprs.into_iter().zip(of.schema.iter());
    let named = named.map(|(expr, (qualifier, field))| expr.alias_qualified(qualifier.cloned(), field.name()));
    let projection = Projection::try_new_with_schema(named.collect(), rows, Arc::clone(&of.schema))?;
    Ok::<_, DataFusionError>(LogicalPlan::Projection(projection))
}
