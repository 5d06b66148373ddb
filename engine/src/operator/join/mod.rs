//! `JOIN`, `IN (SELECT …)`, `EXISTS`, `INTERSECT`, `EXCEPT`: rows of two inputs that have one key.
//!
//! What comes in at one input is looked up among all rows of the other, then put with those of its own: the delta rule
//! `Δ(A ⋈ B) = ΔA ⋈ B + A ⋈ ΔB + ΔA ⋈ ΔB`, some rows at a time. Weights are multiplied. A row of a side that also says
//! something alone (an outer join, `EXISTS`, `NOT EXISTS`) is said again when it finds its first match or loses its last.
//!
//! ```text
//! a LEFT JOIN b ON a.k = b.k
//! a: +(1, x)    ->  +(1, x, null)
//! b: +(1, y)    ->  -(1, x, null) +(1, x, y)
//! b: -(1, y)    ->  -(1, x, y) +(1, x, null)
//! ```
//! Keeps the rows of both inputs: unbounded, unless times bound which rows match (equal windows, `a.ts BETWEEN b.ts AND b.ts +
//! INTERVAL …`); then a row goes once the watermark has passed all that it could match. Rows whose key is null match nothing and are not kept, unless nulls are equal.
//!
//! `JOIN b FOR SYSTEM_TIME AS OF now()` is a lookup: a row of the left side is joined once, with what the right side holds at the
//! end of the row's epoch, and not kept. What the right side says later changes nothing of what was said.
//!
//! ```text
//! a LEFT JOIN b FOR SYSTEM_TIME AS OF now() ON a.k = b.k
//! a: +(1, x)  b: +(1, y)    ->  +(1, x, y)
//! b: -(1, y) +(1, z)        ->
//! a: +(1, x)                ->  +(1, x, z)
//! ```

mod alone;
mod lookup;
mod matches;
mod running;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use datafusion_physical_expr::PhysicalExpr;

use super::expiry::Expiry;
use super::{BuildContext, Operator, OperatorSpec, StateBound};
use crate::error::Result;
use crate::format::sql_name;
use crate::spread::Needed;

/// Which rows a join gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JoinKind {
    /// Pairs.
    Inner,
    /// Pairs, and rows of the left side without a match.
    Left,
    /// Pairs, and rows of the right side without a match.
    Right,
    /// Pairs, and rows of both sides without a match.
    Full,
    /// Rows of this side that have a match.
    Semi(usize),
    /// Rows of this side that have none.
    Anti(usize),
    /// Rows of this side, each with whether it has a match.
    Mark(usize),
}

/// What a row says without the row that it matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Alone {
    /// Itself while it has no match.
    Unmatched,
    /// Itself while it has one.
    Matched,
    /// Itself, and which of both it is.
    Marked,
}

impl JoinKind {
    fn gives_pairs(self) -> bool {
        matches!(self, JoinKind::Inner | JoinKind::Left | JoinKind::Right | JoinKind::Full)
    }

    /// Whether rows of `side` also say something without those that they match, so that their matches count.
    pub fn says_alone(self, side: usize) -> bool {
        self.alone(side).is_some()
    }

    fn alone(self, side: usize) -> Option<Alone> {
        match self {
            JoinKind::Full => Some(Alone::Unmatched),
            JoinKind::Left => (side == 0).then_some(Alone::Unmatched),
            JoinKind::Right => (side == 1).then_some(Alone::Unmatched),
            JoinKind::Semi(of) => (side == of).then_some(Alone::Matched),
            JoinKind::Anti(of) => (side == of).then_some(Alone::Unmatched),
            JoinKind::Mark(of) => (side == of).then_some(Alone::Marked),
            JoinKind::Inner => None,
        }
    }

    /// The side whose key all rows have that are given.
    pub fn keyed_by(self) -> Option<usize> {
        match self {
            JoinKind::Inner | JoinKind::Left => Some(0),
            JoinKind::Right => Some(1),
            JoinKind::Full => None,
            JoinKind::Semi(of) | JoinKind::Anti(of) | JoinKind::Mark(of) => Some(of),
        }
    }

    fn name(self) -> &'static str {
        match self {
            JoinKind::Inner => "inner",
            JoinKind::Left => "left",
            JoinKind::Right => "right",
            JoinKind::Full => "full",
            JoinKind::Semi(0) => "left semi",
            JoinKind::Semi(_) => "right semi",
            JoinKind::Anti(0) => "left anti",
            JoinKind::Anti(_) => "right anti",
            JoinKind::Mark(0) => "left mark",
            JoinKind::Mark(_) => "right mark",
        }
    }
}

/// A column that a join gives, or that its condition reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JoinColumn {
    /// Of a side, at this place there.
    Of(usize, usize),
    /// Whether there is a match.
    Mark,
}

/// What pairs with one key must fulfil besides.
#[derive(Clone, Debug)]
pub struct Condition {
    /// A boolean expression over `columns`.
    pub expr: Arc<dyn PhysicalExpr>,
    /// What it reads: sides, and places there.
    pub columns: Vec<(usize, usize)>,
    /// Their schema.
    pub schema: SchemaRef,
}

/// The description.
#[derive(Clone, Debug)]
pub struct Join {
    /// Which rows it gives.
    pub kind: JoinKind,
    /// The schemas of the inputs.
    pub inputs: [SchemaRef; 2],
    /// The columns of the key, of each side; types are the same.
    pub keys: [Vec<usize>; 2],
    /// Whether keys that are null are equal.
    pub nulls_equal: bool,
    /// What pairs must fulfil besides.
    pub condition: Option<Condition>,
    /// When rows of each side match nothing any more, where that is known.
    pub expiry: [Option<Expiry>; 2],
    /// The columns, by name, for each value of which a side has one row, where later rows take the places of earlier ones.
    pub one_of: [Option<Vec<String>>; 2],
    /// Whether it says at the end of an epoch what is left of all that it had to say: where rows that come in one epoch are
    /// never taken back in a later one, what it says is not either.
    pub settles: bool,
    /// Whether rows of the left side are looked up once, at the end of the epoch in which they come. They are never taken back, and
    /// the join is inner or left.
    pub lookup: bool,
    /// Whether the right side ends.
    pub right_ends: bool,
    /// What it gives.
    pub columns: Vec<JoinColumn>,
    /// The schema of that.
    pub schema: SchemaRef,
}

impl Join {
    /// The columns of `side` that are given.
    fn columns_of(&self, side: usize) -> Vec<usize> {
        let of = |c: &JoinColumn| match c {
            JoinColumn::Of(s, column) if *s == side => Some(*column),
            _ => None,
        };
        self.columns.iter().filter_map(of).collect()
    }
}

impl OperatorSpec for Join {
    fn name(&self) -> &'static str {
        if self.lookup { "lookup" } else { "join" }
    }

    fn describe(&self) -> String {
        let name = |side: usize, column: usize| self.inputs[side].field(column).name().clone();
        let keys = self.keys[0].iter().zip(&self.keys[1]);
        let on: Vec<String> = keys.map(|(a, b)| format!("{} = {}", name(0, *a), name(1, *b))).collect();
        let on = match on.is_empty() {
            true => "each row with each".to_owned(),
            false => format!("on {}", on.join(", ")),
        };
        let nulls = if self.nulls_equal { ", null = null" } else { "" };
        let condition = self.condition.as_ref().map(|c| format!(", where {}", c.expr)).unwrap_or_default();
        let mut kept = if self.lookup { ", left is not kept".to_owned() } else { String::new() };
        for (side, expiry) in self.expiry.iter().enumerate() {
            if let Some(Expiry { column, after }) = expiry {
                let of = ["left", "right"][side];
                // To the millisecond: a microsecond more or less says which end of a window counts.
                let sign = if *after < 0 { '-' } else { '+' };
                let later = match after.unsigned_abs() / 1000 {
                    0 => String::new(),
                    millis => format!(" {sign} {:?}", Duration::from_millis(millis)),
                };
                kept.push_str(&format!(", {of} until {}{later}", name(side, *column)));
            }
        }
        format!("{} {on}{nulls}{condition}{kept}", self.kind.name())
    }

    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn state_bound(&self) -> StateBound {
        let mut keys = vec![];
        let kept: &[usize] = if self.lookup { &[1] } else { &[0, 1] };
        for side in kept.iter().copied() {
            match (&self.expiry[side], &self.one_of[side]) {
                (Some(_), _) => {}
                (None, Some(key)) => keys.extend(key.iter().map(String::as_str)),
                (None, None) if self.lookup && self.right_ends => return StateBound::Input,
                (None, None) => return StateBound::Unbounded,
            }
        }
        match keys.is_empty() && self.expiry.iter().any(Option::is_some) {
            true => StateBound::Watermark,
            false => StateBound::Keys(keys.join(", ")),
        }
    }

    fn fingerprint(&self) -> Option<String> {
        let side = |side: usize| {
            let types: Vec<_> = self.inputs[side].fields().iter().map(|f| sql_name(f.data_type())).collect();
            let key: Vec<_> = self.keys[side].iter().map(|k| (k + 1).to_string()).collect();
            format!("rows of ({}) by column {}", types.join(", "), key.join(", "))
        };
        Some(if self.lookup { side(1) } else { format!("{} and {}", side(0), side(1)) })
    }

    fn needs(&self, port: usize) -> Needed {
        Needed::hash(self.keys[port].clone())
    }

    fn place_of(&self, port: usize, column: usize) -> Option<usize> {
        let side = self.kind.keyed_by()?;
        let of = match self.keys[port].iter().position(|k| *k == column) {
            Some(at) => self.keys[side][at],
            None => return None,
        };
        self.columns.iter().position(|c| *c == JoinColumn::Of(side, of))
    }

    fn build(&self, context: &mut BuildContext<'_>) -> Result<Box<dyn Operator>> {
        Ok(Box::new(running::Running::new(Arc::new(self.clone()), context)?))
    }
}
