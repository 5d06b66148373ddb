//! Which rows are one session: those between which there is no gap.

use std::fmt;
use std::ops::Range;

use super::length::Length;

/// Which rows of a partition are one session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd)]
pub struct Sessions {
    /// A row that comes so much later than the one before begins another.
    pub gap: Length,
    /// One that comes so much later than the first row does too.
    pub most: Option<Length>,
}

impl Sessions {
    /// When a session ends of which a row at `last` is the last, but for its longest length.
    pub fn after(&self, last: i64) -> i64 {
        self.gap.after(last)
    }

    /// When a session of which the first and the last row are known ends.
    pub fn end(&self, first: i64, last: i64) -> i64 {
        let end = self.after(last);
        self.most.map_or(end, |most| end.min(most.after(first)))
    }

    /// The sessions of the rows at `times`, in order: calls `f` with the places of its rows and its bounds.
    pub fn each(&self, times: &[i64], mut f: impl FnMut(Range<usize>, i64, i64)) {
        let mut from = 0;
        for to in 1..=times.len() {
            let (first, last) = (times[from], times[to - 1]);
            if times.get(to).is_none_or(|t| *t >= self.end(first, last)) {
                f(from..to, first, self.end(first, last));
                from = to;
            }
        }
    }

    /// A length of time that has about as many rows as a session.
    pub(super) fn stretch(&self) -> i64 {
        self.gap.micros().saturating_mul(4).max(1)
    }
}

impl fmt::Display for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "session gap {}", self.gap)?;
        self.most.map_or(Ok(()), |most| write!(f, " up to {most}"))
    }
}
