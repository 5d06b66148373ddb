//! Which row is the match of a time, and which times have another one when rows come or go.

use crate::state::timeline::{Place, Series};

/// Which row of the right side is the match of a row of the left one. Of rows with one time it is the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// The last that is not later: `l.ts >= r.ts`.
    Last,
    /// The last that is earlier: `l.ts > r.ts`.
    LastBefore,
    /// The first that is not earlier: `l.ts <= r.ts`.
    First,
    /// The first that is later: `l.ts < r.ts`.
    FirstBehind,
    /// The one whose time is the nearest; of two the later.
    Nearest,
}

impl Way {
    /// How it is written between two times.
    pub fn text(self) -> &'static str {
        match self {
            Way::Last => ">=",
            Way::LastBefore => ">",
            Way::First => "<=",
            Way::FirstBehind => "<",
            Way::Nearest => "nearest",
        }
    }

    /// Whether the match is never later.
    pub fn is_back(self) -> bool {
        matches!(self, Way::Last | Way::LastBefore)
    }

    /// The match of `time` among `rows`.
    pub(super) fn found<'a>(self, rows: &'a Series, time: &[u8]) -> Option<&'a [u8]> {
        let first = |place: Place| {
            let first = rows.at(place)?;
            rows.before(rows.after(&first[..time.len()]))
        };
        match self {
            Way::Last => rows.before(rows.after(time)),
            Way::LastBefore => rows.before(rows.seek(time)),
            Way::First => first(rows.seek(time)),
            Way::FirstBehind => first(rows.after(time)),
            Way::Nearest => {
                let behind = rows.after(time);
                match (rows.before(behind), first(behind)) {
                    (Some(before), Some(next)) => {
                        let nearer = distance(before, time) < distance(next, time);
                        Some(if nearer { before } else { next })
                    }
                    (before, next) => before.or(next),
                }
            }
        }
    }

    /// The rows of the left side whose match may be another one when rows of the right side with `time` come or go, which has
    /// `rows` before that.
    pub(super) fn touched(self, left: &Series, rows: Option<&Series>, time: &[u8]) -> (Place, Place) {
        let time_of = |row: &'_ [u8]| row[..time.len()].to_vec();
        let last = rows.and_then(|rows| rows.before(rows.seek(time))).map(time_of);
        let next = rows.and_then(|rows| rows.at(rows.after(time))).map(time_of);
        let (last, next) = (last.as_deref(), next.as_deref());
        match self {
            Way::Last => (left.seek(time), next.map_or(left.end(), |next| left.seek(next))),
            Way::LastBefore => (left.after(time), next.map_or(left.end(), |next| left.after(next))),
            Way::First => (last.map_or(left.start(), |last| left.after(last)), left.after(time)),
            Way::FirstBehind => (last.map_or(left.start(), |last| left.seek(last)), left.seek(time)),
            Way::Nearest => {
                (last.map_or(left.start(), |last| left.seek(last)), next.map_or(left.end(), |next| left.after(next)))
            }
        }
    }

    /// Whether a row of the left side with `time`, whose match is `found`, has its match for good when all rows come no earlier
    /// than `bound`, which is later than `time`.
    pub(super) fn is_final(self, time: &[u8], found: Option<&[u8]>, bound: &[u8]) -> bool {
        match (self, found) {
            (Way::Last | Way::LastBefore, _) => true,
            (_, None) => false,
            (Way::First | Way::FirstBehind, Some(found)) => found < bound,
            (Way::Nearest, Some(found)) => distance(found, time) < distance(bound, time),
        }
    }
}

/// How far a row, or a time, is from `time`, as the two halves of a number: whole numbers of up to 32 bytes, as arrow's row format has
/// them behind a byte that says that they are not null.
pub fn distance(row: &[u8], time: &[u8]) -> (u128, u128) {
    let add = |(high, low): (u128, u128), byte: &u8| (high << 8 | low >> 120, low << 8 | u128::from(*byte));
    let number = |bytes: &[u8]| bytes[1..time.len()].iter().fold((0, 0), add);
    let (a, b) = (number(row), number(time));
    let (more, less) = (a.max(b), a.min(b));
    let (low, borrows) = more.1.overflowing_sub(less.1);
    (more.0 - less.0 - u128::from(borrows), low)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Decimal256Array, Int64Array};
    use arrow::datatypes::i256;
    use arrow::row::{RowConverter, SortField};

    use super::*;

    fn between(pair: ArrayRef) -> (u128, u128) {
        let converter =
            RowConverter::new(vec![SortField::new(pair.data_type().clone())]).expect("a type with an order");
        let rows = converter.convert_columns(&[pair]).expect("one column");
        let (there, back) =
            (distance(rows.row(0).data(), rows.row(1).data()), distance(rows.row(1).data(), rows.row(0).data()));
        assert_eq!(there, back);
        there
    }

    #[test]
    fn how_far_whole_numbers_are_from_each_other() {
        for (a, b, expected) in [(3, 7, 4), (-2, 1, 3), (i64::MIN, i64::MAX, u128::from(u64::MAX))] {
            assert_eq!(between(Arc::new(Int64Array::from(vec![a, b]))), (0, expected), "{a} {b}");
        }
        // 10^40 = 29 * 2^128 + …: what is above 128 bits counts.
        let far = i256::from_i128(10_i128.pow(20)).wrapping_mul(i256::from_i128(10_i128.pow(20)));
        let (low, high) = far.to_parts();
        for (a, b, expected) in [
            (i256::from_i128(-2), i256::ONE, (0, 3)),
            (i256::ONE, i256::from_i128(100), (0, 99)),
            (i256::ZERO, far, (29, low)),
            (far.wrapping_neg(), far.wrapping_neg().wrapping_add(i256::ONE), (0, 1)),
        ] {
            assert_eq!(between(Arc::new(Decimal256Array::from(vec![a, b]))), expected, "{a} {b}");
        }
        assert_eq!(high, 29);
    }
}
