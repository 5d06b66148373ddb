//! `ASOF JOIN … MATCH_CONDITION (l.ts >= r.ts) ON l.k = r.k`: each row of the left side with one row of the right side, the last
//! that was there at its time.
//!
//! Both sides are kept by key in the order of their times. What comes on the left finds its match by a search. What comes or goes on
//! the right changes the match of the rows of the left side between it and its neighbours, and of no others; for these the old pair
//! is taken back and the new one said. All of an epoch is worked off at its end.
//!
//! ```text
//! l ASOF LEFT JOIN r MATCH_CONDITION (l.ts >= r.ts) ON l.k = r.k
//! l: +(a, 5)  r: +(a, 1, x)     ->  +(a, 5, a, 1, x)
//! r: +(a, 4, y) +(a, 6, z)      ->  -(a, 5, a, 1, x) +(a, 5, a, 4, y)
//! r: -(a, 4, y)                 ->  -(a, 5, a, 4, y) +(a, 5, a, 1, x)
//! ```
//! Of rows of the right side with one time the last counts in the order of all their columns, so that a match does not depend on
//! how rows came. Rows whose key or time is null match nothing.
//!
//! Unbounded, unless rows of the right side only come and have an event time: then a row of the left side goes once the watermark
//! has passed all that could be its match. If that is so for the left side, too, of the rows of the right side that are before the
//! watermark only the last of each key stays. A join that says each row once keeps rows of the left side until then.

mod running;
#[cfg(test)]
mod tests;
mod way;

use std::sync::Arc;

use arrow::datatypes::SchemaRef;

use super::expiry::Expiry;
use super::{BuildContext, Operator, OperatorSpec, StateBound};
use crate::error::Result;
use crate::format::sql_name;
use crate::spread::Needed;

pub use way::{Way, distance};

/// The description.
#[derive(Clone, Debug)]
pub struct AsOf {
    /// Which row is the match.
    pub way: Way,
    /// Whether rows of the left side without a match are given.
    pub left_outer: bool,
    /// The schemas of the inputs.
    pub inputs: [SchemaRef; 2],
    /// The columns of the key, of each side; types are the same.
    pub keys: [Vec<usize>; 2],
    /// The column with the time, of each side; types are the same.
    pub times: [usize; 2],
    /// So many columns of each side are given, the first ones.
    pub given: [usize; 2],
    /// Whether the times are those by which rows of both sides are late, as far as that is known; rows of the right side are never
    /// taken back then.
    pub expires: Expires,
    /// Whether it says each row of the left side once, when its match is known for good.
    pub settles: bool,
    /// The columns, by name, for each value of which a side has one row, where later rows take the places of earlier ones.
    pub one_of: [Option<Vec<String>>; 2],
    /// What it gives: columns of the left side, then of the right one.
    pub schema: SchemaRef,
}

/// Which rows go behind the watermark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expires {
    /// None.
    None,
    /// Those of the left side that have their match for good.
    Left,
    /// And all of the right side but the last of each key.
    Both,
}

impl AsOf {
    fn name_of(&self, side: usize, column: usize) -> &str {
        self.inputs[side].field(column).name()
    }

    /// When rows expire.
    fn expiry(&self, side: usize) -> Expiry {
        Expiry { column: self.times[side], after: 0 }
    }
}

impl OperatorSpec for AsOf {
    fn name(&self) -> &'static str {
        "asof"
    }

    fn describe(&self) -> String {
        let kind = if self.left_outer { "left" } else { "inner" };
        let keys = self.keys[0].iter().zip(&self.keys[1]);
        let on: Vec<String> = keys.map(|(l, r)| format!("{} = {}", self.name_of(0, *l), self.name_of(1, *r))).collect();
        let on = if on.is_empty() { String::new() } else { format!(" on {},", on.join(", ")) };
        let [left, right] = [0, 1].map(|side| self.name_of(side, self.times[side]));
        let kept = match self.expires {
            Expires::None => "",
            Expires::Left => ", left until it is final",
            Expires::Both => ", left until it is final, right the last of each key behind the watermark",
        };
        let said = if self.settles { ", each row once" } else { "" };
        format!("{kind}{on} {left} {} {right}{said}{kept}", self.way.text())
    }

    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn state_bound(&self) -> StateBound {
        let names = |side: usize| self.keys[side].iter().map(|k| self.name_of(side, *k)).collect::<Vec<_>>().join(", ");
        // A row that waits for a later one may wait for ever.
        match (self.expires, &self.one_of) {
            (Expires::Both, _) if self.way.is_back() || self.way == Way::Nearest => StateBound::Keys(names(1)),
            (Expires::Left, [_, Some(right)]) if self.way.is_back() => StateBound::Keys(right.join(", ")),
            (_, [Some(left), Some(right)]) => StateBound::Keys([left.as_slice(), right].concat().join(", ")),
            _ => StateBound::Unbounded,
        }
    }

    fn fingerprint(&self) -> Option<String> {
        let side = |side: usize| {
            let columns = self.inputs[side].fields().iter();
            let columns: Vec<_> = columns.map(|f| format!("{} {}", f.name(), sql_name(f.data_type()))).collect();
            let key: Vec<_> = self.keys[side].iter().map(|k| (k + 1).to_string()).collect();
            format!("rows of ({}) by column {} and {}", columns.join(", "), key.join(", "), self.times[side] + 1)
        };
        let waiting = if self.settles { "waiting " } else { "" };
        Some(format!("{waiting}{}, {}", side(0), side(1)))
    }

    fn needs(&self, port: usize) -> Needed {
        Needed::hash(self.keys[port].clone())
    }

    fn place_of(&self, port: usize, column: usize) -> Option<usize> {
        let at = self.keys[port].iter().position(|k| *k == column)?;
        Some(self.keys[0][at]).filter(|place| *place < self.given[0])
    }

    fn build(&self, context: &mut BuildContext<'_>) -> Result<Box<dyn Operator>> {
        Ok(Box::new(running::Running::new(Arc::new(self.clone()), context)?))
    }
}
