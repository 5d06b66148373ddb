//! The rules that rewrite a plan, and why each is right: for NULL and NaN, and, in continuous queries, for rows that come and go.
//!
//! A rule that says "this plan gives the same rows as that one, whatever the tables hold" is right at every version, since each
//! version is a batch. Rules that lean on more, such as a key that holds in batch or the order of rows, are left out of streams.

use std::sync::Arc;

use datafusion::optimizer::{Optimizer, OptimizerRule};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_optimizer::optimizer::PhysicalOptimizer;

use super::as_of::PushIntoAsOf;
use super::as_of_now::InOrder;
use super::harden::{CheckConstants, HardenExpressions};
use super::one_row::AboveOneRow;
use super::over::ComputeBelowOver;
use super::risk::{GuardArguments, PinRisky, RiskyLast};
use super::same_types::SameTypes;
use super::simplify::Simplify;
use crate::semantics::Semantics;

/// Where a rule is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Used {
    /// In batch and in streams.
    Everywhere,
    /// In batch alone.
    InBatch,
    /// Nowhere.
    Never,
}

use Used::{Everywhere, InBatch, Never};

/// DataFusion's rules (55), in its order, each with why it is right where it is used, or wrong where it is not.
const RULES: [(&str, Used, &str); 25] = [
    ("rewrite_set_comparison", Everywhere, "x < ANY (…) becomes EXISTS in a CASE that keeps unknown apart from false"),
    ("optimize_unions", Everywhere, "a UNION ALL of UNION ALLs is one: weights add up either way"),
    (
        "unions_to_filter",
        Everywhere,
        "DISTINCT over branches of one input: a row is in one of them where one condition or the other is true",
    ),
    ("simplify_expressions", Everywhere, "by our own rules, which hold for NULL, NaN and errors (`simplify/`)"),
    ("replace_distinct_aggregate", Everywhere, "DISTINCT is GROUP BY all columns, where null is one value, too"),
    (
        "eliminate_join",
        InBatch,
        "an inner join becomes a semi join by keys; as a join it grows where its inputs grow, and is the cheaper operator",
    ),
    (
        "decorrelate_predicate_subquery",
        Everywhere,
        "IN and EXISTS become semi, anti and mark joins, which are linear in each side; NOT IN heeds null (`not_in`)",
    ),
    (
        "scalar_subquery_to_join",
        Everywhere,
        "a left join with an aggregate that has one row for each key, and count() of none made 0",
    ),
    ("decorrelate_lateral_join", Everywhere, "likewise, for LATERAL"),
    (
        "extract_equijoin_predicate",
        Everywhere,
        "an equality of the condition becomes a key; null equals nothing in both",
    ),
    ("eliminate_duplicated_expr", Everywhere, "what is grouped or ordered by twice counts once"),
    (
        "eliminate_filter",
        InBatch,
        "of a filter that is never true it makes a relation without rows, and the stream with its time and its end is gone",
    ),
    ("eliminate_cross_join", Everywhere, "a WHERE over a cross join becomes its keys and condition"),
    ("eliminate_limit", Everywhere, "LIMIT 0 has no rows, OFFSET 0 changes nothing"),
    ("propagate_empty_relation", Everywhere, "what is made of a relation that never has rows"),
    ("filter_null_join_keys", Everywhere, "off unless asked for: rows whose key is null match nothing"),
    (
        "eliminate_outer_join",
        Everywhere,
        "a condition above that is not true of null drops each row without a match, in the epoch in which it is said",
    ),
    (
        "push_down_limit",
        Everywhere,
        "a limit goes below what has as many rows; which rows it gives where there is no order nobody says",
    ),
    (
        "push_down_filter",
        Everywhere,
        "a condition on one row commutes with joins, unions and groups by their keys; not below what has one row always (`one_row`)",
    ),
    (
        "single_distinct_aggregation_to_group_by",
        InBatch,
        "two aggregates, of which the second would read a changelog, where one count(DISTINCT) keeps a set; types stay (`same_types`)",
    ),
    ("eliminate_group_by_constant", Everywhere, "a constant tells no groups apart"),
    (
        "common_sub_expression_eliminate",
        Never,
        "what several operands share would be evaluated before those that guard it",
    ),
    ("extract_leaf_expressions", Never, "only for the next"),
    ("push_down_leaf_projections", Never, "it fails where a join reads a column twice under two names"),
    ("optimize_projections", Everywhere, "columns that nobody reads are not read"),
];

/// Our rules that batch alone needs: operators of streams evaluate on the rows that reach them.
const OURS_IN_BATCH: [&str; 3] = ["risky_last", "guard_arguments", "pin_risky"];

fn used(name: &str) -> Used {
    RULES.iter().find(|(known, ..)| *known == name).map_or(Never, |(_, used, _)| *used)
}

/// The rules for batch: ours where constants are still as they were written, then DataFusion's.
pub(super) fn logical_rules(semantics: Semantics) -> Vec<Arc<dyn OptimizerRule + Send + Sync>> {
    let first: [Arc<dyn OptimizerRule + Send + Sync>; 6] = [
        Arc::new(CheckConstants),
        Arc::new(RiskyLast),
        Arc::new(GuardArguments),
        Arc::new(ComputeBelowOver),
        Arc::new(PinRisky),
        Arc::new(PushIntoAsOf),
    ];
    let own: Arc<dyn OptimizerRule + Send + Sync> = Arc::new(Simplify);
    let replaced = |rule: &dyn OptimizerRule| semantics.exact_expressions() && rule.name() == own.name();
    let rules = Optimizer::new().rules.into_iter().filter(|rule| used(rule.name()) != Never);
    let rules = rules.map(|rule| match rule.name() {
        _ if replaced(rule.as_ref()) => Arc::clone(&own),
        "eliminate_cross_join" => Arc::new(InOrder(rule)),
        "push_down_filter" => Arc::new(AboveOneRow(rule)),
        "single_distinct_aggregation_to_group_by" => Arc::new(SameTypes(rule)),
        _ => rule,
    });
    first.into_iter().chain(rules).collect()
}

/// Whether a rule of [`logical_rules`] is one for streams.
pub(super) fn is_for_streams(rule: &dyn OptimizerRule) -> bool {
    used(rule.name()) != InBatch && !OURS_IN_BATCH.contains(&rule.name())
}

/// DataFusion's rules, after ours. One is left out: where an aggregate stands over one that statistics answer, it takes the
/// columns of the one for those of the other; files tell how many rows they have anyway.
pub(super) fn physical_rules() -> Vec<Arc<dyn PhysicalOptimizerRule + Send + Sync>> {
    let first: Arc<dyn PhysicalOptimizerRule + Send + Sync> = Arc::new(HardenExpressions);
    let rules = PhysicalOptimizer::new().rules.into_iter().filter(|r| r.name() != "aggregate_statistics");
    [first].into_iter().chain(rules).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_has_a_reason() {
        let known: Vec<&str> = RULES.iter().map(|(name, ..)| *name).collect();
        let there: Vec<String> = Optimizer::new().rules.iter().map(|rule| rule.name().to_owned()).collect();
        assert_eq!(there, known, "DataFusion has other rules: say of each why it is right, or leave it out");
        let ours: Vec<String> = logical_rules(Semantics::NOW).iter().map(|rule| rule.name().to_owned()).collect();
        for name in OURS_IN_BATCH {
            assert!(ours.iter().any(|rule| rule == name), "{name} is no rule");
        }
    }
}
