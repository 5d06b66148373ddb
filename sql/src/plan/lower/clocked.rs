//! Conditions on `now()` in a `WHERE`: which times of a row they compare with it.
//!
//! ```text
//! ts > now() - INTERVAL '1 hour' AND v > 0      v > 0, a condition like any other; until ts is an hour ago
//! ts BETWEEN now() - INTERVAL '1 hour' AND now()   from ts on, until it is more than an hour ago
//! ```

use std::fmt;

use arrow::datatypes::DataType;
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::logical_expr::expr::Between;
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{Expr, ExprSchemable, Filter, Operator};
use millstream_engine::format::sql_name;
use millstream_engine::operator::length::Length;
use millstream_engine::operator::temporal::{Side, is_compared};
use millstream_engine::spread::Spread;

use super::properties::Describing;
use super::refuse::{unstable, unstable_here};
use super::tree::{Clocking, Growth, Node, Passing, Properties, Step};
use crate::error::{Error, Result};

impl Describing<'_> {
    pub(super) fn filter<'p>(&mut self, plan: &'p Filter) -> Result<Node<'p>> {
        let input = self.node(&plan.input)?;
        let clocking = Clocking::of(plan, &input)?;
        let has = match &clocking {
            None => input.has.clone(),
            // What a row's time is says nothing of when it comes or goes.
            Some(clocking) => Properties {
                growth: if clocking.takes_back() { Growth::TakesBack } else { input.has.growth },
                time: vec![None; input.has.time.len()],
                spread: match clocking.key.is_empty() {
                    true => Spread::anyhow(1),
                    false => Spread { tasks: input.has.spread.tasks, by: Some(clocking.key.clone()) },
                },
                ..input.has.clone()
            },
        };
        let step = clocking.map_or(Step::Filter(plan), Step::Clock);
        Ok(Node::new(step, vec![input], has))
    }
}

impl<'p> Clocking<'p> {
    /// What `plan` says of `now()`, if it does.
    fn of(plan: &'p Filter, input: &Node<'_>) -> Result<Option<Self>> {
        let parts = split_conjunction(&plan.predicate);
        let (clocked, rest): (Vec<&Expr>, Vec<&Expr>) = parts.into_iter().partition(|part| unstable(part).is_some());
        if clocked.is_empty() {
            return Ok(None);
        }
        let schema = plan.input.schema();
        let mut bounds = vec![];
        for part in &clocked {
            bounds.extend(passing(part, schema)?.ok_or_else(|| unstable_here(part))?);
        }
        let rest = rest.into_iter().cloned().reduce(Expr::and);
        let text = bounds.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and ");
        // Where rows lie already, or by their times.
        let key = input.has.spread.by.clone().unwrap_or_else(|| {
            let columns = bounds.iter().take(1).flat_map(|bound| bound.time.column_refs());
            let mut key: Vec<usize> = columns.filter_map(|column| schema.index_of_column(column).ok()).collect();
            key.sort_unstable();
            key
        });
        Ok(Some(Clocking { plan, rest, bounds, text, key }))
    }

    /// Whether rows go as time passes.
    pub(super) fn takes_back(&self) -> bool {
        self.bounds.iter().any(|bound| bound.side == Side::Until)
    }
}

impl fmt::Display for Passing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let op = match (self.side, self.past) {
            (Side::Until, false) => ">",
            (Side::Until, true) => ">=",
            (Side::From, true) => "<",
            (Side::From, false) => "<=",
        };
        let mut time = &self.time;
        while let Expr::Cast(cast) = time {
            time = &cast.expr;
        }
        write!(f, "{time} {op} now()")?;
        let (months, micros) = self.moved;
        for (count, length) in [
            (i64::from(months), Length::Months(months.saturating_abs())),
            (micros, Length::Micros(micros.saturating_abs())),
        ] {
            match count {
                0 => {}
                1.. => write!(f, " + {length}")?,
                _ => write!(f, " - {length}")?,
            }
        }
        Ok(())
    }
}

/// From when, or until when, `part` holds.
fn passing(part: &Expr, schema: &DFSchema) -> Result<Option<Vec<Passing>>> {
    let found = match part {
        Expr::BinaryExpr(b) => compared(&b.left, b.op, &b.right).map(|found| vec![found]),
        Expr::Between(Between { expr, negated: false, low, high }) => {
            let (low, high) = (compared(expr, Operator::GtEq, low), compared(expr, Operator::LtEq, high));
            low.zip(high).map(|(low, high)| vec![low, high])
        }
        _ => None,
    };
    for bound in found.iter().flatten() {
        let data_type = bound.time.get_type(schema)?;
        if !is_compared(&data_type) {
            return Err(Error::unsupported(format!(
                "{} cannot be compared with now() as time passes",
                sql_name(&data_type)
            ))
            .with_hint("Cast it to TIMESTAMP, which has microseconds."));
        }
    }
    Ok(found)
}

/// `left op right`, where one side is `now()`, perhaps moved, and the other has none.
fn compared(left: &Expr, op: Operator, right: &Expr) -> Option<Passing> {
    let (time, op, moved) = match (moved_now(left), moved_now(right)) {
        (None, Some(moved)) => (left, op, moved),
        (Some(moved), None) => (right, op.swap()?, moved),
        _ => return None,
    };
    if unstable(time).is_some() || time.is_volatile() {
        return None;
    }
    // time > now: until now has reached it; time <= now: from when it has.
    let (side, past) = match op {
        Operator::Gt => (Side::Until, false),
        Operator::GtEq => (Side::Until, true),
        Operator::Lt => (Side::From, true),
        Operator::LtEq => (Side::From, false),
        _ => return None,
    };
    Some(Passing { time: time.clone(), side, past, moved })
}

/// By how many months and microseconds `expr` is `now()` moved, if it is.
fn moved_now(expr: &Expr) -> Option<(i32, i64)> {
    match expr {
        Expr::Alias(a) => moved_now(&a.expr),
        // Of other zones a local time may come twice.
        Expr::Cast(c) => match c.field.data_type() {
            data_type @ DataType::Timestamp(_, zone) if is_compared(data_type) => {
                let is_utc = zone.as_deref().is_none_or(|zone| matches!(zone, "UTC" | "Z" | "+00:00" | "Etc/UTC"));
                let exact = matches!(data_type, DataType::Timestamp(arrow::datatypes::TimeUnit::Microsecond, _));
                moved_now(&c.expr).filter(|_| is_utc && exact)
            }
            _ => None,
        },
        Expr::ScalarFunction(f) if f.name() == "now" => Some((0, 0)),
        Expr::BinaryExpr(b) if b.op == Operator::Minus => {
            let (by, months) = length(&b.right)?;
            added(moved_now(&b.left)?, (months.checked_neg()?, by.checked_neg()?))
        }
        Expr::BinaryExpr(b) if b.op == Operator::Plus => {
            let (now, by) = match moved_now(&b.left) {
                Some(now) => (now, &b.right),
                None => (moved_now(&b.right)?, &b.left),
            };
            let (micros, months) = length(by)?;
            added(now, (months, micros))
        }
        _ => None,
    }
}

/// Months come first: once days have been added they would not be the same.
fn added(now: (i32, i64), by: (i32, i64)) -> Option<(i32, i64)> {
    if by.0 != 0 && now.1 != 0 {
        return None;
    }
    Some((now.0.checked_add(by.0)?, now.1.checked_add(by.1)?)).filter(|_| by.0 == 0 || now.0 == 0)
}

/// The microseconds and the months of an interval.
fn length(expr: &Expr) -> Option<(i64, i32)> {
    match expr {
        Expr::Alias(a) => length(&a.expr),
        Expr::Literal(ScalarValue::IntervalMonthDayNano(Some(i)), _) if i.nanoseconds % 1_000 == 0 => {
            let days = i64::from(i.days).checked_mul(86_400_000_000)?;
            Some((days.checked_add(i.nanoseconds / 1_000)?, i.months))
        }
        Expr::Literal(ScalarValue::IntervalDayTime(Some(i)), _) => {
            Some((i64::from(i.days) * 86_400_000_000 + i64::from(i.milliseconds) * 1_000, 0))
        }
        Expr::Literal(ScalarValue::IntervalYearMonth(Some(months)), _) => Some((0, *months)),
        _ => None,
    }
}
