//! `AT TIME ZONE` before planning: the planner would make it a cast to nanoseconds, which ends in 2262 and fails on
//! local times that a clock change skips. It becomes a function of our own.

use datafusion::sql::sqlparser::ast::{Expr, VisitMut};

use super::syntax::{call, each_expression, taken};
use crate::function::AT_TIME_ZONE;

/// Makes every `t AT TIME ZONE 'z'` in `syntax` the call of a function.
pub(super) fn call_zones(syntax: &mut impl VisitMut) {
    // What does not fail has nothing to say.
    let _ = each_expression(syntax, |expr| {
        if let Expr::AtTimeZone { timestamp, time_zone } = expr {
            *expr = call(AT_TIME_ZONE, vec![taken(timestamp), taken(time_zone)]);
        }
        Ok(())
    });
}
