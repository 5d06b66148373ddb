//! `l ASOF [LEFT] JOIN r MATCH_CONDITION (l.ts >= r.ts) [ON … | USING (…)]`: each row of `l` with one row of `r`.
//!
//! The planner knows no such join (DataFusion 55), so it plans another, whose right side says what it is, and of that comes a node of
//! our own:
//!
//! ```text
//! l ASOF JOIN r MATCH_CONDITION (…) USING (k)
//! l JOIN (r ASOF JOIN … MATCH_CONDITION (…)) USING (k)       the syntax tree as it is planned        syntax
//! Join: l.k = r.k                                            what the planner makes of it
//!   l
//!   Matched: …
//!     r
//! AsOfJoin: l.k = r.k, l.ts >= r.ts                          the node                                matched
//! ```
//! So names, USING and `*` mean what they mean for every join. In batch the node is a merge of both sides in order of their keys and
//! times (`exec`), in a continuous query an operator.

mod exec;
mod matched;
mod merge;
mod pushed;
mod syntax;

use std::cmp::Ordering;
use std::collections::HashSet;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use datafusion::common::{DFSchema, DFSchemaRef, DataFusionError, JoinType};
use datafusion::error::Result as DfResult;
use datafusion::logical_expr::builder::build_join_schema;
use datafusion::logical_expr::{Expr, LogicalPlan, UserDefinedLogicalNodeCore};
use millstream_engine::operator::as_of::Way;

pub(super) use exec::AsOfPlanner;
pub(super) use matched::as_nodes;
pub(super) use pushed::PushIntoAsOf;
pub(super) use syntax::{Matches, as_joins, no_versions};

/// The node: the columns of the left side, then those of the right one.
#[derive(Clone, Debug)]
pub(super) struct AsOfJoin {
    pub(super) left: LogicalPlan,
    pub(super) right: LogicalPlan,
    /// What is equal, of each side; types are the same.
    pub(super) on: [Vec<Expr>; 2],
    /// The times, of each side; types are the same.
    pub(super) times: [Expr; 2],
    /// Which row is the match.
    pub(super) way: Way,
    /// Whether rows of the left side without a match are given.
    pub(super) left_outer: bool,
    schema: DFSchemaRef,
}

impl AsOfJoin {
    pub(super) fn try_new(
        [left, right]: [LogicalPlan; 2],
        on: [Vec<Expr>; 2],
        times: [Expr; 2],
        way: Way,
        left_outer: bool,
    ) -> DfResult<Self> {
        let kind = if left_outer { JoinType::Left } else { JoinType::Inner };
        let schema = build_join_schema(left.schema(), right.schema(), &kind)?;
        // A key of either side would be one of pairs, of which there are fewer here.
        let fields = schema.iter().map(|(of, field)| (of.cloned(), Arc::clone(field))).collect();
        let schema = DFSchema::new_with_metadata(fields, schema.metadata().clone())?;
        Ok(AsOfJoin { left, right, on, times, way, left_outer, schema: Arc::new(schema) })
    }

    /// The node, if `plan` is one.
    pub(super) fn of(plan: &LogicalPlan) -> Option<&AsOfJoin> {
        match plan {
            LogicalPlan::Extension(e) => e.node.as_any().downcast_ref(),
            _ => None,
        }
    }

    /// What tells it from others.
    fn parts(&self) -> impl Eq + Hash + PartialOrd + '_ {
        (&self.left, &self.right, &self.on, &self.times, self.way.text(), self.left_outer)
    }
}

impl PartialEq for AsOfJoin {
    fn eq(&self, other: &Self) -> bool {
        self.parts() == other.parts()
    }
}

impl Eq for AsOfJoin {}

impl Hash for AsOfJoin {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.parts().hash(state);
    }
}

impl PartialOrd for AsOfJoin {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        self.parts().partial_cmp(&other.parts())
    }
}

impl UserDefinedLogicalNodeCore for AsOfJoin {
    fn name(&self) -> &str {
        "AsOfJoin"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.left, &self.right]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        self.on.iter().flatten().chain(&self.times).cloned().collect()
    }

    /// A condition on the right side goes by what the match is, not by what it could have been. Those on the left side
    /// [`PushIntoAsOf`] takes below.
    fn prevent_predicate_push_down_columns(&self) -> HashSet<String> {
        self.schema.fields().iter().map(|f| f.name().clone()).collect()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.left_outer { "left " } else { "" };
        write!(f, "AsOfJoin: {kind}{} {} {}", self.times[0], self.way.text(), self.times[1])?;
        self.on[0].iter().zip(&self.on[1]).try_for_each(|(l, r)| write!(f, ", {l} = {r}"))
    }

    fn with_exprs_and_inputs(&self, mut exprs: Vec<Expr>, inputs: Vec<LogicalPlan>) -> DfResult<Self> {
        let wrong = || DataFusionError::Internal("an ASOF join with other parts than it has".to_owned());
        let keys = self.on[0].len();
        if exprs.len() != 2 * keys + 2 {
            return Err(wrong());
        }
        let times = <[Expr; 2]>::try_from(exprs.split_off(2 * keys)).map_err(|_| wrong())?;
        let right = exprs.split_off(keys);
        let inputs = <[LogicalPlan; 2]>::try_from(inputs).map_err(|_| wrong())?;
        AsOfJoin::try_new(inputs, [exprs, right], times, self.way, self.left_outer)
    }

    /// All columns of the right side: of rows with one time the last counts by all of them, whichever are read.
    fn necessary_children_exprs(&self, output_columns: &[usize]) -> Option<Vec<Vec<usize>>> {
        let left = self.left.schema().fields().len();
        let of_left = output_columns.iter().copied().filter(|column| *column < left).collect();
        Some(vec![of_left, (0..self.right.schema().fields().len()).collect()])
    }
}
