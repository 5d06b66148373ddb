//! When rows of a join match nothing any more.
//!
//! ```text
//! b.ts >= a.ts AND b.ts <= a.expires      rows of b that come have ts >= watermark W, and so have those of a:
//!                                         a row of b goes when b.ts < W, one of a when a.expires < W
//! a.window_end = b.window_end             rows that come have window_end > W: both go when window_end <= W
//! ```
//! A row may go if nothing that comes matches it, and if nobody has to know any more what it has matched: where a side also says
//! what has no match, the rows of the other stay as long as those that they match may find more.

use arrow::datatypes::DataType;
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{Between, Expr, Operator};
use millstream_engine::operator::expiry::Expiry;
use millstream_engine::operator::join::{JoinColumn, JoinKind};
use millstream_engine::operator::window::{Length, WindowSpec};

use super::time::{ScanId, TimeProperty};
use super::tree::{Growth, JoinTimes, Joining, Node};
use crate::error::Result;

/// The time of a side less that of the other is so many microseconds at least, and at most.
#[derive(Clone, Copy)]
struct Distance {
    /// The columns of the left and of the right side.
    columns: [usize; 2],
    least: Option<i64>,
    most: Option<i64>,
    /// They are parts of the key.
    is_key: bool,
}

impl Distance {
    /// The time of `side` less that of the other is so many microseconds at most.
    fn most_of(&self, side: usize) -> Option<i64> {
        if side == 0 { self.most } else { self.least.map(|least| -least) }
    }

    /// So many microseconds behind the time of a row of `side` no more rows come that match it, and what tells their times.
    fn no_more_for<'n>(&self, side: usize, inputs: &'n [Node<'_>]) -> Option<(i64, &'n TimeProperty)> {
        let time = inputs[1 - side].has.time.get(self.columns[1 - side])?.as_ref()?;
        Some((self.most_of(1 - side)?.saturating_sub(first_to_come(time)?), time))
    }
}

impl JoinTimes {
    pub(super) fn of(joining: &Joining<'_>, inputs: &[Node<'_>]) -> Result<Self> {
        let mut found = JoinTimes::default();
        for distance in distances(joining, inputs)? {
            let windows = [0, 1].map(|side: usize| match inputs[side].has.time.get(distance.columns[side]) {
                Some(Some(TimeProperty::Window { of, windows, end: true, .. })) => Some((*of, *windows)),
                _ => None,
            });
            if let [Some((left, a)), Some((right, b))] = windows
                && distance.is_key
                && a == b
            {
                found.windowed.get_or_insert([left, right]);
            }
            for side in [0, 1] {
                found.expire(joining.kind, inputs, &distance, side);
            }
        }
        Ok(found)
    }

    /// Notes when rows of `side` go by `distance`, if they do and nothing is known yet.
    fn expire(&mut self, kind: JoinKind, inputs: &[Node<'_>], distance: &Distance, side: usize) {
        let other = 1 - side;
        let takes_back = inputs[other].has.growth == Growth::TakesBack;
        let counted = kind.says_alone(other) && !(distance.is_key && self.windowed.is_some());
        if takes_back || self.expiry[side].is_some() || counted && inputs[side].has.growth == Growth::TakesBack {
            return;
        }
        let Some((after, time)) = distance.no_more_for(side, inputs) else { return };
        let mut expiry = after;
        let mut closing = vec![time];
        if counted {
            // Rows of the other side have to know what they match as long as they may find more.
            let (Some((theirs, time)), Some(most)) = (distance.no_more_for(other, inputs), distance.most_of(other))
            else {
                return;
            };
            expiry = after.max(most.saturating_add(theirs));
            closing.push(time);
        }
        self.expiry[side] = Some(Expiry { column: distance.columns[side], after: expiry });
        self.closing.extend(closing.into_iter().cloned());
    }

    /// What the columns that a join gives tell of event time: bounds of windows whose rows meet only each other.
    pub(super) fn given(&self, joining: &Joining<'_>, inputs: &[Node<'_>]) -> Vec<Option<TimeProperty>> {
        let sides: &[usize] = match joining.kind {
            JoinKind::Inner => &[0, 1],
            kind => match kind.keyed_by() {
                Some(0) => &[0],
                Some(_) => &[1],
                None => &[],
            },
        };
        let mut scans: Vec<ScanId> = vec![];
        for input in inputs {
            scans.extend(input.has.time.iter().flatten().flat_map(|t| t.scans().iter().copied()));
        }
        scans.sort_unstable();
        scans.dedup();
        let Some(windowed) = self.windowed else { return vec![None; joining.columns.len()] };
        let bound = |column: &JoinColumn| {
            let JoinColumn::Of(side, at) = column else { return None };
            match inputs[*side].has.time.get(*at)?.as_ref()? {
                TimeProperty::Window { of, windows, end, .. } if *of == windowed[*side] && sides.contains(side) => {
                    let of = if joining.kind == JoinKind::Inner { windowed[0] } else { *of };
                    Some(TimeProperty::Window { of, windows: *windows, end: *end, scans: scans.clone() })
                }
                _ => None,
            }
        };
        joining.columns.iter().map(bound).collect()
    }
}

/// How many microseconds behind the watermark the first time may be that is still to come.
pub(super) fn first_to_come(time: &TimeProperty) -> Option<i64> {
    match time {
        TimeProperty::Event { .. } => Some(0),
        TimeProperty::Window { end: true, .. } => Some(1),
        TimeProperty::Window { windows, end: false, .. } => match windows {
            WindowSpec::Tumble { size: Length::Micros(size), .. }
            | WindowSpec::Hop { size: Length::Micros(size), .. }
            | WindowSpec::Cumulate { size, .. } => Some(1 - size),
            WindowSpec::Session(sessions) => sessions.most.map(|most| 1 - most.micros()),
            _ => None,
        },
        TimeProperty::Function { .. } => None,
    }
}

/// What keys and condition say of the times of both sides.
fn distances(joining: &Joining<'_>, inputs: &[Node<'_>]) -> Result<Vec<Distance>> {
    let plans = [joining.plan.left.schema(), joining.plan.right.schema()];
    let is_time = |side: usize, column: usize| {
        plans[side].fields().get(column).is_some_and(|f| matches!(f.data_type(), DataType::Timestamp(..)))
    };
    let mut found = vec![];
    for (left, right) in joining.keys[0].iter().zip(&joining.keys[1]) {
        if is_time(0, *left) && is_time(1, *right) && !joining.nulls_equal() {
            found.push(Distance { columns: [*left, *right], least: Some(0), most: Some(0), is_key: true });
        }
    }
    // The ends of windows come first: they tell all windows apart.
    found.sort_by_key(|d: &Distance| {
        !matches!(inputs[0].has.time.get(d.columns[0]), Some(Some(TimeProperty::Window { end: true, .. })))
    });
    let Some(filter) = &joining.plan.filter else { return Ok(found) };
    let (both, left) = (joining.both()?, plans[0].fields().len());
    for part in split_conjunction(filter) {
        let mut add = |a: &Expr, op: Operator, b: &Expr| {
            let (Some(a), Some(b)) = (shifted(a, &both), shifted(b, &both)) else { return };
            found.extend(distance(a, op, b, left).filter(|d| is_time(0, d.columns[0]) && is_time(1, d.columns[1])));
        };
        match part {
            Expr::BinaryExpr(b) => add(&b.left, b.op, &b.right),
            Expr::Between(Between { expr, negated: false, low, high }) => {
                add(expr, Operator::GtEq, low);
                add(expr, Operator::LtEq, high);
            }
            _ => {}
        }
    }
    Ok(put_together(found))
}

/// What several comparisons say of the same columns, in one.
fn put_together(found: Vec<Distance>) -> Vec<Distance> {
    let mut all: Vec<Distance> = vec![];
    for distance in found {
        match all.iter_mut().find(|d| d.columns == distance.columns && !d.is_key && !distance.is_key) {
            Some(same) => {
                same.least = same.least.max(distance.least);
                same.most = same.most.into_iter().chain(distance.most).min();
            }
            None => all.push(distance),
        }
    }
    all
}

/// A column and the microseconds that are added to it.
fn shifted(expr: &Expr, schema: &DFSchema) -> Option<(usize, i64)> {
    match expr {
        Expr::Alias(a) => shifted(&a.expr, schema),
        Expr::Column(c) => Some((schema.index_of_column(c).ok()?, 0)),
        Expr::BinaryExpr(b) if b.op == Operator::Plus => {
            let (column, other) = match (shifted(&b.left, schema), shifted(&b.right, schema)) {
                (Some(column), None) => (column, &b.right),
                (None, Some(column)) => (column, &b.left),
                _ => return None,
            };
            Some((column.0, column.1.checked_add(length(other)?)?))
        }
        Expr::BinaryExpr(b) if b.op == Operator::Minus => {
            let (column, by) = shifted(&b.left, schema)?;
            Some((column, by.checked_sub(length(&b.right)?)?))
        }
        _ => None,
    }
}

/// The microseconds of an interval without months.
fn length(expr: &Expr) -> Option<i64> {
    match expr {
        Expr::Alias(a) => length(&a.expr),
        Expr::Literal(ScalarValue::IntervalMonthDayNano(Some(i)), _) if i.months == 0 => {
            i64::from(i.days).checked_mul(86_400_000_000)?.checked_add(i.nanoseconds.div_euclid(1000))
        }
        _ => None,
    }
}

/// What `a op b` says, where the left side has so many columns.
fn distance(a: (usize, i64), op: Operator, b: (usize, i64), left: usize) -> Option<Distance> {
    let (a, op, b) = match (a.0 < left, b.0 < left) {
        (true, false) => (a, op, b),
        (false, true) => (b, op.swap()?, a),
        _ => return None,
    };
    // a + its shift op b + its shift. A microsecond is given to what an interval has of less.
    let by = b.1.checked_sub(a.1)?;
    let (least, most) = match op {
        Operator::GtEq | Operator::Gt => (Some(by - 1), None),
        Operator::LtEq | Operator::Lt => (None, Some(by + 1)),
        Operator::Eq => (Some(by - 1), Some(by + 1)),
        _ => return None,
    };
    Some(Distance { columns: [a.0, b.0 - left], least, most, is_key: false })
}
